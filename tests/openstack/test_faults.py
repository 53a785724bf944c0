"""What goes wrong on a site, each against the real services: the named error, or the repair."""

import dataclasses
import subprocess
import threading

import pytest
from conftest import LARGE_VM, METAL, VM, booted
from rig.identity import DOMAIN, PROJECT
from rig.remains import remains

from provisioning import (
    access,
    addresses,
    booking,
    chameleon,
    collect,
    errors,
    keys,
    leases,
    servers,
    teardown,
    volumes,
)
from provisioning.volumes import WORK


@pytest.fixture(scope="module")
def admin_of(plane):
    return plane.admin


@pytest.fixture(scope="module")
def project_id(admin_of):
    domain = admin_of.identity.find_domain(DOMAIN)
    return admin_of.identity.find_project(PROJECT, domain_id=domain.id).id


def changed_site(made, **values):
    return dataclasses.replace(made, site=dataclasses.replace(made.site, **values))


def changed_node(made, name):
    return dataclasses.replace(made, node=dataclasses.replace(made.node, name=name))


def test_what_is_in_error_is_replaced_and_what_is_whole_is_kept(book, admin_of):
    made = book("broken")
    chameleon.ensure_lease(made)
    first_volume = chameleon.ensure_volume(made)
    admin_of.block_storage.reset_volume_status(first_volume.id, status="error")
    assert "replace" in volumes.plan(made)
    volume = chameleon.ensure_volume(made)
    assert volume.id != first_volume.id
    assert [found.id for found in volumes.find_all(made)] == [volume.id]

    first = chameleon.ensure_server(made)
    address = chameleon.ensure_address(made)
    admin_of.compute.reset_server_state(first.id, "error")
    assert "replace" in servers.plan(made)
    second = chameleon.ensure_server(made)
    assert second.id != first.id
    assert [server.id for server in servers.find_all(made)] == [second.id]
    assert volumes.find(made).id == volume.id  # the disk is kept
    assert chameleon.ensure_address(made) == address  # and moves to the new server
    assert chameleon.ensure_access(made).run("hello") == "hello\n"

    made.cloud.nova.servers.stop(second.id)
    made.wait("server", lambda: servers.find(made).status, ("SHUTOFF",), 60)
    assert chameleon.ensure_server(made).id == second.id
    chameleon.teardown(made)


def test_a_volume_in_error_that_holds_work_is_never_deleted_unasked(book, admin_of):
    made = book("valuable")
    chameleon.ensure_lease(made)
    volume = chameleon.ensure_volume(made)
    servers.mark(made, {WORK: "yes"})
    admin_of.block_storage.reset_volume_status(volume.id, status="error")
    with pytest.raises(errors.UncollectedWorkError, match="holds work"):
        chameleon.ensure_volume(made)
    with pytest.raises(errors.UncollectedWorkError, match="discard"):
        chameleon.teardown(made)
    assert volumes.find(made).id == volume.id
    chameleon.teardown(made, discard=True)


def test_a_server_that_always_fails_is_given_up_after_two_tries(book, monkeypatch):
    made = book("hopeless", METAL)
    lease = chameleon.ensure_lease(made)
    # a reservation that is none: Nova finds no host, as for a node that is broken
    wrong = dataclasses.replace(lease, reservation_id="00000000-0000-0000-0000-000000000000")
    monkeypatch.setattr(leases, "hold", lambda _: wrong)
    with pytest.raises(errors.FailedError, match="2 times"):
        chameleon.ensure_server(made)
    assert servers.find_all(made) == []


def test_a_node_that_is_taken_is_refused_with_the_next_free_time(book, plane):
    first, second = book("first", METAL), book("second", METAL)
    taken = chameleon.ensure_lease(first)
    with pytest.raises(errors.NoSlotError, match="compute_gigaio at CHI@UC is free now.*next is free at"):
        chameleon.ensure_lease(second)
    assert remains(plane) == {"leases": [first.name]}
    start = chameleon.starting(second, "next")
    assert start > taken.end
    later = chameleon.ensure_lease(second, start=start)
    assert later.status == "PENDING"
    assert chameleon.ensure_lease(second).id == later.id
    with pytest.raises(errors.LeaseOverError, match="starts at"):
        chameleon.ensure_server(second)
    with pytest.raises(errors.NoSlotError, match="extend by less"):
        chameleon.extend(first, chameleon.parse_length("1h"))
    by = chameleon.parse_length("5m")
    assert chameleon.extend(first, by).end == taken.end + by

    large, other = book("large", LARGE_VM), book("other", LARGE_VM)
    chameleon.ensure_lease(large)
    with pytest.raises(errors.NoSlotError, match="does not tell"):
        chameleon.ensure_lease(other)


def test_a_quota_that_is_used_up_is_named(book, admin_of, project_id):
    made = book("quota")
    chameleon.ensure_lease(made)
    admin_of.block_storage.update_quota_set(project_id, gigabytes=100)
    try:
        with pytest.raises(errors.QuotaError, match="volume llm_single_quota.*ask for more"):
            chameleon.ensure_volume(made)
    finally:
        admin_of.block_storage.update_quota_set(project_id, gigabytes=10000)
    admin_of.compute.update_quota_set(project_id, instances=0)
    try:
        with pytest.raises(errors.QuotaError, match=r"server llm_single_quota.*[Qq]uota"):
            chameleon.ensure_server(made)
    finally:
        admin_of.compute.update_quota_set(project_id, instances=40)
    chameleon.ensure_server(made)
    admin_of.network.update_quota(project_id, floating_ips=0)
    try:
        with pytest.raises(errors.NoAddressError, match="quota"):
            chameleon.ensure_address(made)
    finally:
        admin_of.network.update_quota(project_id, floating_ips=50)

    # all public addresses taken: there is one, and the router has it
    (public,) = admin_of.network.subnets(name="public")
    (router,) = admin_of.network.routers(name="shared")
    own, pools = router.external_gateway_info["external_fixed_ips"][0]["ip_address"], public.allocation_pools
    admin_of.network.update_subnet(public.id, allocation_pools=[{"start": own, "end": own}])
    try:
        with pytest.raises(errors.NoAddressError, match="no public address is left"):
            chameleon.ensure_address(made)
    finally:
        admin_of.network.update_subnet(public.id, allocation_pools=pools)
    assert chameleon.ensure_address(made)


def test_names_that_the_site_does_not_have_are_said_with_those_it_has(book, plane):
    made, metal = book("names"), book("names", METAL)
    with pytest.raises(errors.UnknownNameError, match=r"image 'CC-Ubuntu24-CUDA' .* Known: CC-Ubuntu24.04-CUDA"):
        chameleon.plan(changed_site(made, image="CC-Ubuntu24-CUDA"))
    with pytest.raises(errors.UnknownNameError, match=r"flavor 'g1.h100' .* Known: g1.h100"):
        chameleon.ensure_lease(changed_node(made, "g1.h100"))
    with pytest.raises(errors.UnknownNameError, match=r"node type 'compute_gigaoi' .* Known: compute_gigaio"):
        chameleon.ensure_lease(changed_node(metal, "compute_gigaoi"))
    with pytest.raises(errors.UsageError, match="is in no site"):
        booking.book("names", "g1.h100.pci.2")
    assert remains(plane) == {}


def test_a_node_that_cannot_be_logged_into_is_said_with_the_reason(book, plane, tmp_path):
    made = changed_site(booted(book("locked")), ssh_timeout_s=1)
    plane.nodes.stop()
    try:
        with pytest.raises(errors.SshError, match="no answer.*security group"):
            chameleon.ensure_access(made)
        with pytest.raises(errors.SshError, match="no answer"):
            chameleon.install_runtime(made)
    finally:
        plane.nodes.start()
    chameleon.ensure_access(made)
    key = made.folder / "id_ed25519"
    key.rename(tmp_path / "kept")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True, input=b"y\n")
    with pytest.raises(errors.SshError, match="is refused. The server was made with another key"):
        chameleon.ensure_access(made)
    # nothing was ever written there, so it may go without being asked
    chameleon.teardown(made)


def test_credentials_that_are_no_good_are_said_before_anything_is_made(book, plane, monkeypatch):
    made = book("expired")
    with monkeypatch.context() as patch:
        patch.setenv("OS_PASSWORD", "wrong")
        with pytest.raises(errors.CredentialsError, match="logging in to KVM@TACC") as error:
            booking.book("expired", VM)
        assert "wrong" not in str(error.value)
    with monkeypatch.context() as patch:
        patch.delenv("OS_AUTH_URL")
        patch.delenv("OS_AUTH_TYPE")
        with pytest.raises(errors.CredentialsError, match="openrc"):
            booking.book("expired", VM)
    with monkeypatch.context() as patch:
        patch.setenv("CHI_RESOURCE_API_URL", "http://127.0.0.1:9")
        patch.setattr("chi.context.RESOURCE_API_URL", "http://127.0.0.1:9")
        with pytest.raises(errors.CredentialsError, match="openrc file of CHI@UC"):
            booking.book("expired", METAL)
    with monkeypatch.context() as patch:
        # a token, as the hub gives it: it works, and then it is over
        token = made.cloud.session.get_token()
        patch.setenv("OS_AUTH_TYPE", "v3token")
        patch.setenv("OS_TOKEN", token)
        hub = booking.book("expired", VM)
        assert chameleon.remains(hub) == []
        made.cloud.session.delete("/auth/tokens", headers={"X-Subject-Token": token},
                                  endpoint_filter={"service_type": "identity"})  # fmt: skip
        with pytest.raises(errors.CredentialsError):
            booking.book("expired", VM)
    with monkeypatch.context() as patch:
        keystone = chi_keystone(made)
        user = made.cloud.session.get_user_id()
        secret = keystone.application_credentials.create("credential", secret="s3cret", user=user)
        patch.setenv("OS_AUTH_TYPE", "v3applicationcredential")
        patch.setenv("OS_APPLICATION_CREDENTIAL_ID", secret.id)
        patch.setenv("OS_APPLICATION_CREDENTIAL_SECRET", "s3cret")
        for name in ("OS_PROJECT_NAME", "OS_PROJECT_DOMAIN_NAME", "OS_USERNAME", "OS_PASSWORD"):
            patch.delenv(name)
        assert chameleon.remains(booking.book("expired", VM)) == []
        with pytest.raises(errors.CredentialsError, match="of KVM@TACC, and is valid there only"):
            booking.book("expired", METAL)
    assert remains(plane) == {}


def chi_keystone(made):
    import chi

    return chi.keystone(made.cloud.session)


def made_of(made, kind):
    """Make one thing of a kind; the call that deletes it, what deletes it here, and what reads it."""
    cloud = made.cloud
    if kind == "lease":
        lease = chameleon.ensure_lease(made)
        return cloud.blazar.lease, lambda: leases.delete(made, lease), lambda: leases.find_all(made)
    if kind == "server":
        chameleon.ensure_lease(made)
        server = chameleon.ensure_server(made)
        return cloud.nova.servers, lambda: servers.delete(made, server), lambda: servers.find_all(made)
    chameleon.ensure_lease(made)
    if kind == "volume":
        volume = chameleon.ensure_volume(made)
        return cloud.cinder.volumes, lambda: volumes.delete(made, volume), lambda: volumes.find_all(made)
    if kind == "key":
        key = keys.ensure(made)
        return cloud.nova.keypairs, lambda: keys.delete(made, key), lambda: keys.find_all(made)
    if kind == "address":
        address = addresses._create(made)
        return "floatingip", lambda: addresses.delete(made, address), lambda: addresses.find_all(made)
    access._ensure_group(made, "ssh", 22, access.ANYBODY)
    (group,) = access.groups(made)
    return "security_group", lambda: access.delete_group(made, group), lambda: access.groups(made)


@pytest.mark.parametrize("kind", ["lease", "server", "volume", "key", "address", "security group"])
def test_what_somebody_else_deletes_first_is_gone(book, plane, monkeypatch, kind):
    made = book("raced", METAL if kind == "server" else VM)
    owner, delete, read = made_of(made, kind)
    owner, name = (made.cloud.neutron, f"delete_{owner}") if isinstance(owner, str) else (owner, "delete")
    real, refused = getattr(owner, name), []

    def late(*arguments):
        real(*arguments)
        made.wait(kind, lambda: "there" if read() else "gone", ("gone",), 60)
        try:
            real(*arguments)
        except Exception as error:
            refused.append(error)
            raise

    monkeypatch.setattr(owner, name, late)
    delete()
    assert len(refused) == 1  # the service said no
    assert not read()


def test_a_lease_that_is_being_deleted_is_waited_for_and_other_refusals_count(book, plane, monkeypatch):
    made = book("leaving")
    lease = chameleon.ensure_lease(made)
    real = made.cloud.blazar.lease.delete

    def become(status):
        plane.database.run(f"update blazar.leases set status = '{status}' where id = '{lease.id}'")

    def ends():
        become("ACTIVE")
        real(lease.id)

    def refused_while(then):
        def delete(lease_id):
            become("DELETING")
            try:
                real(lease_id)
            finally:
                then()

        return delete

    with monkeypatch.context() as patch:
        patch.setattr(made.cloud.blazar.lease, "delete", refused_while(lambda: become("ACTIVE")))
        with pytest.raises(errors.ServiceError, match=f"deleting lease {made.name}: refused"):
            leases.delete(made, lease)
        patch.setattr(made.cloud.blazar.lease, "delete", refused_while(threading.Timer(2, ends).start))
        leases.delete(made, lease)
    assert any("DELETING" in line for line in made.said)
    assert leases.find_all(made) == []


def test_a_half_built_state_is_torn_down_and_twice_is_as_good_as_once(book, plane):
    steps = (chameleon.ensure_lease, chameleon.ensure_volume, chameleon.ensure_server, chameleon.ensure_address)
    for built in (1, 3):
        made = book("half")
        for step in steps[:built]:
            step(made)
        assert chameleon.teardown(made) != []
        assert remains(plane) == {}
    assert chameleon.teardown(made) == []


def test_a_server_whose_deletion_ends_just_now_is_not_logged_into(book, plane):
    """For a moment Nova has ended the task, and still lists the server: sshd lets no one in any more."""
    made = book("ending", VM)
    assert chameleon.up(made) is not None
    server = servers.find(made)
    row = f"where uuid = '{server.id}'"
    plane.database.run(f"update nova_cell1.instances set vm_state = 'deleted', task_state = null {row}")
    assert servers.find(made).status == "DELETED"
    try:
        teardown._look_once_more([made])
    finally:
        plane.database.run(f"update nova_cell1.instances set vm_state = 'active' {row}")
    assert chameleon.teardown(made) != []
    assert remains(plane) == {}


def test_what_is_not_ours_is_left_alone(book, plane, admin_of):
    ours, theirs = book("al"), book("alice")
    booted(theirs)
    neutron, nova, cinder = theirs.cloud.neutron, theirs.cloud.nova, theirs.cloud.cinder
    # in the same project, of no one in particular: an unused address, a group of the usual name, a volume
    public = next(n["id"] for n in neutron.list_networks()["networks"] if n["name"] == "public")
    address = neutron.create_floatingip({"floatingip": {"floating_network_id": public}})["floatingip"]
    group = neutron.create_security_group({"security_group": {"name": "allow-ssh"}})["security_group"]
    volume = cinder.volumes.create(1, name="somebody")
    theirs.wait("volume", lambda: cinder.volumes.get(volume.id).status, ("available",), 60)
    before = remains(plane)
    booted(ours)
    assert addresses.find(ours) != address["floating_ip_address"]
    chameleon.teardown(ours)
    assert remains(plane) == before
    assert access.way_in(theirs).run("hello") == "hello\n"

    # our name without our tag
    taken = nova.servers.list()[0]
    nova.servers.update(taken, name=ours.name)
    with pytest.raises(errors.NotOursError, match="lacks the tag labkit_owner=llm_single_al. Rename it"):
        chameleon.ensure_server(book_with_lease(ours))
    with pytest.raises(errors.NotOursError):
        chameleon.teardown(ours)
    nova.servers.update(taken, name=theirs.name)
    chameleon.teardown(ours)
    assert remains(plane) == before
    neutron.delete_floatingip(address["id"])
    neutron.delete_security_group(group["id"])
    cinder.volumes.delete(volume.id)
    theirs.wait("volume", lambda: str(len(cinder.volumes.list())), ("1",), 60)


def book_with_lease(made):
    chameleon.ensure_lease(made)
    return made


def test_a_teardown_never_loses_work_unasked(book, plane):
    made = book("worker")
    assert chameleon.up(made) is not None
    workspace = plane.nodes.home(servers.find(made).id) / "workspace"
    run = workspace / "runs" / "tiny" / "baseline" / "1"
    (run / "model").mkdir(parents=True)
    (run / "record.json").write_text('{"status": "ok"}')
    (run / "model" / "model.safetensors").write_text("weights")
    (run / "last.ckpt").write_text("weights")
    (workspace / "data").mkdir()
    (workspace / "data" / "photos.bin").write_text("data")
    (workspace / "labs").mkdir()
    (workspace / "labs" / "01.ipynb").write_text("{}")
    (workspace / "labs" / "out").symlink_to("/etc/passwd")
    with pytest.raises(errors.UncollectedWorkError, match="never collected"):
        chameleon.teardown(made)
    assert len(remains(plane)) == 6

    home = chameleon.collect(made)
    files = sorted(str(path.relative_to(home.folder)) for path in home.folder.rglob("*") if path.is_file())
    assert files == [  # small ones are work, whatever they are called
        "data/photos.bin", "labs/01.ipynb", "runs/tiny/baseline/1/last.ckpt",
        "runs/tiny/baseline/1/model/model.safetensors", "runs/tiny/baseline/1/record.json",
    ]  # fmt: skip
    assert home.files == 5
    assert home.listing.links == (("labs/out", "/etc/passwd"),)
    assert collect.uncollected(made) is None
    (run / "record.json").write_text('{"status": "oom", "newer": true}')
    with pytest.raises(errors.UncollectedWorkError, match="newer work on the node"):
        chameleon.teardown(made)
    # another machine, with nothing but credentials, asks the services and knows as much
    plane.nodes.stop()
    try:
        with pytest.raises(errors.UncollectedWorkError, match="cannot be asked"):
            chameleon.teardown(made)
    finally:
        plane.nodes.start()
    chameleon.collect(made)

    # the lease is over: Blazar deletes the server, and the volume stays
    lease = leases.find(made)
    leases.delete(made, lease)
    made.wait("server", lambda: servers.find(made).status if servers.find(made) else "gone", ("gone",), 120)
    with pytest.raises(errors.LeaseOverError, match="is over"):
        chameleon.ensure_server(made)
    for act in (chameleon.collect, chameleon.teardown):  # neither says that there is no work
        with pytest.raises(errors.UncollectedWorkError, match="its server is gone.*'up' where there is no server"):
            act(made)
    # a new lease brings the disk back
    chameleon.ensure_lease(made)
    chameleon.ensure_server(made)
    chameleon.ensure_address(made)
    chameleon.teardown(made, discard=True)
    assert remains(plane) == {}
