"""Stopped after any call, and run again: no duplicates, and it ends right."""

import pytest
from conftest import VM
from rig.remains import remains

from provisioning import chameleon
from provisioning.ssh import Ssh

MAKING = [
    "blazar.lease.create", "cinder.volumes.create", "nova.keypairs.create", "nova.servers.create",
    "neutron.create_floatingip", "neutron.update_floatingip", "neutron.create_security_group",
    "neutron.create_security_group_rule", "neutron.update_port",
]  # fmt: skip
SCRIPTS = ["driver", "docker", "toolkit", "gpu_in_container", "upload", "build", "jupyter"]
DELETING = [
    "nova.servers.delete", "blazar.lease.delete", "neutron.delete_floatingip", "neutron.delete_security_group",
    "nova.keypairs.delete",
]  # fmt: skip


def interrupt_after(patch, cloud, call: str, done: list) -> None:
    """The call reaches the service, and its answer is never seen."""
    *path, name = call.split(".")
    owner = cloud
    for part in path:
        owner = getattr(owner, part)
    real = getattr(owner, name)

    def interrupted(*arguments, **keywords):
        real(*arguments, **keywords)
        done.append(call)
        raise KeyboardInterrupt

    patch.setattr(owner, name, interrupted)


def test_up_and_down_interrupted_after_every_call_end_right(plane, book):
    done = []
    for call in MAKING:
        made = book("interrupted", VM)
        with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
            interrupt_after(patch, made.cloud, call, done)
            chameleon.up(made)
    real = Ssh.run
    for script in SCRIPTS:

        def run(self, name, *arguments, script=script, **keywords):
            printed = real(self, name, *arguments, **keywords)
            if name == script:
                done.append(script)
                raise KeyboardInterrupt
            return printed

        with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(Ssh, "run", run)
            made = book("interrupted", VM)
            chameleon.ensure_access(made)
            chameleon.install_runtime(made)
            chameleon.build_image(made)
            chameleon.start_jupyter(made)
    assert done == MAKING + SCRIPTS

    made = book("interrupted", VM)
    assert chameleon.up(made) is not None
    there = remains(plane)
    assert {kind: len(names) for kind, names in there.items()} == {
        "servers": 1, "volumes": 1, "addresses": 1, "groups": 1, "keys": 1, "leases": 1,
    }  # fmt: skip
    calls = plane.nodes.calls(chameleon.ensure_server(made).id)
    assert sum(call.startswith("docker build") for call in calls) == 1
    assert sum(call.startswith("docker run --detach") for call in calls) == 1
    assert sum("install -y docker.io" in call for call in calls) == 1
    assert sum(call == "systemctl restart docker" for call in calls) == 1

    gone = []
    for call in DELETING:
        made = book("interrupted", VM)
        with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
            interrupt_after(patch, made.cloud, call, gone)
            chameleon.teardown(made)
    assert gone == DELETING
    chameleon.teardown(book("interrupted", VM))
    assert remains(plane) == {}
