"""What exists on the site, of anybody: read by the administrator and from the databases, not by our own code."""

from typing import Any

from .configs import BLAZARS


def remains(plane: Any) -> dict[str, list[str]]:
    """Names of servers, volumes, addresses, security groups, keys and leases, of all projects; only what there is."""
    connection = plane.admin
    found = {
        "servers": [server.name for server in connection.compute.servers(all_projects=True)],
        "volumes": [volume.name for volume in connection.block_storage.volumes(all_projects=True)],
        "addresses": [address.floating_ip_address for address in connection.network.ips()],
        "groups": [g.name for g in connection.network.security_groups() if g.name != "default"],
    }
    found["keys"] = plane.database.run("select name from nova_api.key_pairs")
    found["leases"] = [
        name for blazar in BLAZARS.values() for name in plane.database.run(f"select name from {blazar}.leases")
    ]
    return {kind: sorted(names) for kind, names in found.items() if names}
