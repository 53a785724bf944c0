"""Configuration files of the services."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from .block import PORTS, Block

REGIONS = ("KVM@TACC", "CHI@UC")
"""Both sites share their services here, but for Blazar: what differs between them is what can be reserved."""
BLAZARS = dict(zip(REGIONS, ("blazar", "blazar_uc"), strict=True))
"""Each site's Blazar: the name of its configuration, database, port and queue."""
SERVICE_USER, SERVICE_PASSWORD = "services", "services-secret"
COMPUTES = {
    "kvm-h100-one": "hypervisors.ThirtyOfOne", "kvm-h100-four": "hypervisors.OneOfFour",
    "gigaio-1": "fake.SmallFakeDriver", "a100-pcie-1": "fake.SmallFakeDriver",
}  # fmt: skip
"""Hypervisors; the small ones cannot hold the flavor of an H100, so a virtual machine never lands on bare metal."""
DATABASES = (
    "keystone", "placement", "glance", "neutron", "nova_api", "nova_cell0", "nova_cell1", "cinder", *BLAZARS.values(),
)  # fmt: skip

Sections = dict[str, dict[str, object]]


@dataclass(frozen=True)
class Configs:
    """Writes below ``folder/etc``; the services keep their state below ``folder/state``."""

    folder: Path
    block: Block

    def etc(self, service: str) -> Path:
        """The configuration folder of a service."""
        return self.folder / "etc" / service

    def database(self, name: str) -> str:
        """SQLAlchemy's address of a database."""
        return f"mysql+pymysql://root@{self.block.host}:{PORTS['mysql']}/{name}?charset=utf8"

    @property
    def queue(self) -> str:
        """The address of the message queue."""
        return f"rabbit://guest:guest@{self.block.host}:{PORTS['rabbit']}/"

    @property
    def variables(self) -> dict[str, str]:
        """Where the services look for their configuration."""
        names = {name: f"OS_{name.upper()}_CONFIG_DIR" for name in ("keystone", "glance", "nova", "placement")}
        found = {variable: str(self.etc(name)) for name, variable in names.items()}
        return found | {"OS_NEUTRON_CONFIG_DIR": str(self.etc("neutron")), "OS_NEUTRON_CONFIG_FILES": "neutron.conf"}

    def write(self, services_bin: Path) -> None:
        """Write all files, in addition to those that the packages bring."""
        for name in ("glance", "nova", "neutron", "cinder"):
            shutil.copytree(services_bin.parent / "etc" / name, self.etc(name))
        for path in self.etc("glance").glob("glance-*.conf"):
            path.unlink()  # each would be read in addition to ours
        self._write("keystone", "keystone.conf", self._keystone())
        self._write("placement", "placement.conf", self._placement())
        self._write("glance", "glance-api.conf", self._glance())
        self._write("neutron", "neutron.conf", self._neutron())
        self._write("nova", "nova.conf", self._nova())
        for host, driver in COMPUTES.items():
            self._write("nova", f"{host}.conf", {"DEFAULT": {"host": host, "compute_driver": driver}})
        self._write("cinder", "cinder.conf", self._cinder())
        for region, name in BLAZARS.items():
            self._write(name, "blazar.conf", self._blazar(region, name))
        # users may read which nodes there are and when they are taken, as on Chameleon
        rules = [
            '"blazar:oshosts:get": "rule:admin_or_owner"',
            '"blazar:oshosts:get_allocations": "rule:admin_or_owner"',
        ]
        for name in BLAZARS.values():
            (self.etc(name) / "policy.yaml").write_text("\n".join(rules) + "\n")

    def _write(self, service: str, name: str, sections: Sections) -> None:
        self.etc(service).mkdir(parents=True, exist_ok=True)
        self._state(service).mkdir(parents=True, exist_ok=True)
        lines = []
        for section, values in sections.items():
            lines += [f"[{section}]", *(f"{key} = {value}" for key, value in values.items())]
        (self.etc(service) / name).write_text("\n".join(lines) + "\n")

    def _state(self, service: str) -> Path:
        return self.folder / "state" / service

    def _default(self, service: str) -> dict[str, object]:
        return {"use_stderr": True, "state_path": self._state(service), "transport_url": self.queue}

    def _account(self) -> dict[str, object]:
        keystone = self.block.url("keystone", "/v3")
        return {
            "auth_url": keystone, "www_authenticate_uri": keystone, "auth_type": "password",
            "project_domain_name": "Default", "user_domain_name": "Default", "project_name": "service",
            "username": SERVICE_USER, "password": SERVICE_PASSWORD, "region_name": REGIONS[0],
        }  # fmt: skip

    def _lock(self, service: str) -> dict[str, object]:
        return {"lock_path": self._state(service) / "lock"}

    def _keystone(self) -> Sections:
        keys = self._state("keystone") / "fernet"
        return {
            "DEFAULT": {"use_stderr": True},
            "database": {"connection": self.database("keystone")},
            "identity": {"password_hash_rounds": 4},  # each call of a service costs a hash; these are no secrets
            "cache": {"enabled": True, "backend": "dogpile.cache.memory"},
            "token": {"provider": "fernet"},
            "fernet_tokens": {"key_repository": keys},
            "fernet_receipts": {"key_repository": keys},
            "credential": {"key_repository": self._state("keystone") / "credential"},
        }

    def _placement(self) -> Sections:
        return {
            "DEFAULT": {"use_stderr": True},
            "placement_database": {"connection": self.database("placement")},
            "api": {"auth_strategy": "keystone"},
            "keystone_authtoken": self._account(),
        }

    def _glance(self) -> Sections:
        stores = {"os_glance_tasks_store": "tasks", "os_glance_staging_store": "staging", "disk": "images"}
        folders = {
            name: {"filesystem_store_datadir": self._state("glance") / folder} for name, folder in stores.items()
        }
        return {
            "DEFAULT": {"use_stderr": True, "enabled_backends": "disk:file", "enabled_import_methods": "[]"},
            "glance_store": {"default_backend": "disk"},
            **folders,
            "database": {"connection": self.database("glance")},
            "paste_deploy": {"flavor": "keystone", "config_file": self.etc("glance") / "glance-api-paste.ini"},
            "oslo_concurrency": self._lock("glance"),
            "keystone_authtoken": self._account(),
        }

    def _neutron(self) -> Sections:
        default = {
            "core_plugin": "ml2", "service_plugins": "router", "auth_strategy": "keystone", "rpc_workers": 0,
            "api_paste_config": self.etc("neutron") / "api-paste.ini",
            # Nova would read each port again, and no test asks Nova for addresses
            "notify_nova_on_port_status_changes": False, "notify_nova_on_port_data_changes": False,
        }  # fmt: skip
        return {
            "DEFAULT": self._default("neutron") | default,
            "database": {"connection": self.database("neutron")},
            "ml2": {
                "type_drivers": "flat,vlan,local", "tenant_network_types": "vlan", "mechanism_drivers": "bind_all",
                "extension_drivers": "port_security",
            },
            "ml2_type_flat": {"flat_networks": "public"},
            "ml2_type_vlan": {"network_vlan_ranges": "physnet1:100:200"},
            "securitygroup": {"enable_security_group": True},
            "quotas": {"quota_security_group": 100, "quota_security_group_rule": 500},
            "oslo_concurrency": self._lock("neutron"),
            **{section: self._account() for section in ("keystone_authtoken", "nova", "placement")},
        }  # fmt: skip

    def _nova(self) -> Sections:
        filters = "ComputeFilter,ComputeCapabilitiesFilter,ImagePropertiesFilter,AggregateInstanceExtraSpecsFilter"
        default = {
            "my_ip": self.block.host, "instances_path": self._state("nova") / "instances", "host": "controller",
            "network_allocate_retries": 0, "vif_plugging_is_fatal": False, "vif_plugging_timeout": 0,
            "periodic_fuzzy_delay": 0,
        }  # fmt: skip
        return {
            "DEFAULT": self._default("nova") | default,
            "api": {"auth_strategy": "keystone", "response_validation": "ignore"},
            "api_database": {"connection": self.database("nova_api")},
            "database": {"connection": self.database("nova_cell1")},
            "quota": {"cores": -1, "ram": -1, "instances": 40},
            "scheduler": {"workers": 1, "discover_hosts_in_cells_interval": 2},
            "conductor": {"workers": 1},
            "filter_scheduler": {
                "available_filters": "nova.scheduler.filters.all_filters\n"
                "available_filters = blazarnova.scheduler.filters.blazar_filter.BlazarFilter",
                "enabled_filters": f"{filters},BlazarFilter",
            },
            "glance": {"api_servers": self.block.url("glance")},
            "cinder": {"os_region_name": REGIONS[0], "catalog_info": "block-storage::publicURL"},
            "wsgi": {"api_paste_config": self.etc("nova") / "api-paste.ini"},
            "blazar:physical:host": {"aggregate_freepool_name": "freepool"},
            "oslo_concurrency": self._lock("nova"),
            **{section: self._account() for section in ("keystone_authtoken", "placement", "neutron")},
            "service_user": self._account() | {"send_service_user_token": True},
        }

    def _cinder(self) -> Sections:
        default = {
            "auth_strategy": "keystone", "api_paste_config": self.etc("cinder") / "api-paste.ini",
            "enabled_backends": "none", "default_volume_type": "ceph-ssd", "backend_host": "cinder",
            "glance_api_servers": self.block.url("glance"), "quota_gigabytes": 10000, "quota_volumes": 40,
            "backend_stats_polling_interval": 5,
            "resource_query_filters_file": self.etc("cinder") / "resource_filters.json",
            "allowed_direct_url_schemes": "",
        }  # fmt: skip
        service = {"service_token_roles_required": True, "service_token_roles": "service"}
        return {
            "DEFAULT": self._default("cinder") | default,
            "none": {"volume_driver": "no_disk.NoDiskDriver", "volume_backend_name": "none"},
            "database": {"connection": self.database("cinder")},
            "oslo_concurrency": self._lock("cinder"),
            "keystone_authtoken": self._account() | service,
            "nova": self._account(),
        }

    def _blazar(self, region: str, name: str) -> Sections:
        default = {
            "host": self.block.host, "os_auth_protocol": "http", "os_auth_host": self.block.host,
            "os_auth_port": PORTS["keystone"], "os_admin_username": SERVICE_USER,
            "os_admin_password": SERVICE_PASSWORD, "os_admin_project_name": "service",
            "identity_service": "identity", "os_region_name": region, "enable_v1_api": True,
        }  # fmt: skip
        return {
            "DEFAULT": self._default(name) | default,
            "database": {"connection": self.database(name)},
            "manager": {
                "plugins": "physical.host.plugin,flavor.instance.plugin", "minutes_before_end_lease": 0,
                "event_max_retries": 1, "rpc_topic": f"{name}.manager",
            },
            "nova": {"aggregate_freepool_name": "freepool", "endpoint_type": "public"},
            **{section: {"endpoint_type": "public"} for section in ("neutron", "keystone", "placement")},
            "physical:host": {"enable_polling_monitor": False, "enable_notification_monitor": False},
            "oslo_policy": {"policy_file": self.etc(name) / "policy.yaml"},
            "oslo_concurrency": self._lock(name),
            "keystone_authtoken": self._account(),
        }  # fmt: skip
