"""Strategy: what each value of the key means, as one object, so that no other module parses the name."""

from dataclasses import dataclass
from typing import Final, Literal

Strategy = Literal[
    "auto", "ddp", "fsdp", "pipeline", "deepspeed_stage_2", "deepspeed_stage_3", "deepspeed_stage_2_offload",
    "deepspeed_stage_3_offload",
]  # fmt: skip


OLD_NAMES: Final = {"layer_split": "pipeline"}
"""Old names of values. They are still accepted in configs, profiles, records and on the command line, and never
written."""


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where weights, gradients and optimizer state lie: which rank has what, and what lies in host memory.

    Without arguments: all of it on one device.
    """

    replicates: bool = False
    """Each rank has all of it (DDP)."""
    shards: bool = False
    """Each rank has a share of every weight, its gradient and its state (FSDP2). ``zero_stage`` describes ZeRO."""
    splits_layers: bool = False
    """Each rank has some of the layers, with all that belongs to them (pipeline parallel)."""
    zero_stage: Literal[2, 3] | None = None
    """DeepSpeed's ZeRO: stage 2 divides gradients and optimizer state among the ranks, stage 3 the weights too."""
    offloads: bool = False
    """ZeRO keeps optimizer state and master weights in host memory."""

    @property
    def uses_zero(self) -> bool:
        """DeepSpeed trains."""
        return self.zero_stage is not None

    @property
    def offloads_weights(self) -> bool:
        """The weights lie in host memory too: what stage 3 divides it can move."""
        return self.offloads and self.zero_stage == 3

    @property
    def divides_model(self) -> bool:
        """No rank's device ever holds the whole model: it is built in host memory, and each rank takes its part.

        ZeRO's stage 3 builds it whole on the device, and divides it then.
        """
        return self.shards or self.splits_layers

    @property
    def ranks_differ(self) -> bool:
        """Some ranks hold more than others: layers differ in size, and ZeRO's stage 2 divides where weights lie."""
        return self.splits_layers or self.zero_stage == 2

    @property
    def takes_several_ranks(self) -> bool:
        """Whether it is for several ranks."""
        return self.replicates or self.shards or self.splits_layers or self.uses_zero


PLACEMENTS: dict[str, Placement] = {
    "auto": Placement(),
    "ddp": Placement(replicates=True),
    "fsdp": Placement(shards=True),
    "pipeline": Placement(splits_layers=True),
    "deepspeed_stage_2": Placement(zero_stage=2),
    "deepspeed_stage_3": Placement(zero_stage=3),
    "deepspeed_stage_2_offload": Placement(zero_stage=2, offloads=True),
    "deepspeed_stage_3_offload": Placement(zero_stage=3, offloads=True),
}
"""By the value of ``strategy``."""
