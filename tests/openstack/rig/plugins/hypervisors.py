"""Nova's fake hypervisor, as large as the virtual machines that a site lends there, and no larger."""

import sys

from nova.cmd.compute import main  # first: it patches what the hypervisor imports
from nova.virt import fake

__all__ = ["main"]

sys.modules["nova.virt.hypervisors"] = sys.modules[__name__]  # Nova takes a hypervisor from nowhere else
RESERVED_MB = 512
"""What Nova keeps of a host's memory for itself."""


class _Host(fake.FakeDriver):
    """Holds ``machines`` of one size; a larger one does not fit, as a GPU more is not in its node."""

    machines, machine = 0, (0, 0, 0)
    """How many, and vCPUs, MB and GB of each."""

    def __init__(self, virtapi, read_only=False):
        vcpus, ram_mb, disk_gb = self.machine
        self.vcpus, self.local_gb = self.machines * vcpus, self.machines * disk_gb
        self.memory_mb = self.machines * ram_mb + RESERVED_MB
        super().__init__(virtapi, read_only)

    def update_provider_tree(self, provider_tree, nodename, allocations=None):
        super().update_provider_tree(provider_tree, nodename, allocations)
        inventory = provider_tree.data(nodename).inventory
        for kind, largest in zip(("VCPU", "MEMORY_MB", "DISK_GB"), self.machine, strict=True):
            inventory[kind]["max_unit"] = largest
        provider_tree.update_inventory(nodename, inventory)


class ThirtyOfOne(_Host):
    """A class of thirty, each with one GPU."""

    machines, machine = 30, (48, 250000, 40)


class OneOfFour(_Host):
    """One with four GPUs, so a second lease of it is refused."""

    machines, machine = 1, (192, 1000000, 40)
