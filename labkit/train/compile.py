"""Compile what DeepSpeed compiles at its first use, ahead of the first run.

    python -m labkit.train.compile

The result is kept in ``TORCH_EXTENSIONS_DIR``, by default in the Python environment. Without a compiler or
without DeepSpeed nothing is done, and the offload experiment will be skipped.
"""

import sys

from labkit.config.extras import missing_for
from labkit.config.schema import RunConfig
from labkit.train.extensions import alone
from labkit.train.strategies import missing_compiler, set_environment

OFFLOAD = {"optim": "deepspeed_cpu", "strategy": "deepspeed_stage_2_offload", "loss_average": "batches"}


def main() -> None:
    """Build the CPU optimizer and the communication between processes of one machine."""
    config = RunConfig(device="cuda", **OFFLOAD)
    reason = missing_for(config) or missing_compiler(config)
    if reason is not None:
        print(f"xxl_cpu_offload will be skipped: {reason}", file=sys.stderr)
        return
    set_environment(simulated=True)
    from deepspeed.ops.op_builder.cpu import CPUAdamBuilder, ShareMemCommBuilder  # reads the environment

    with alone():
        for builder in (CPUAdamBuilder(), ShareMemCommBuilder()):
            builder.load(verbose=False)


if __name__ == "__main__":
    main()
