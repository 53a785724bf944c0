"""The further ends that people meet with this stack, in the order in which they are looked for."""

from labkit.runs.diagnosis import (
    ends_adapters,
    ends_compilers,
    ends_data,
    ends_files,
    ends_gpu,
    ends_jobs,
    ends_libraries,
    ends_ranks,
)

ENDS = (
    *ends_jobs.SYMPTOMS,
    *ends_gpu.SYMPTOMS,
    *ends_compilers.SYMPTOMS,
    *ends_adapters.SYMPTOMS,
    *ends_libraries.SYMPTOMS,
    *ends_files.SYMPTOMS,
    *ends_data.SYMPTOMS,
    *ends_ranks.SYMPTOMS,
)

ONLY_EVIDENCE = frozenset({"numpy_built_for_1", "inputs_without_gradient", "hub_retry"})
"""Kinds that are warnings: a program may go on after them, so they are never its end."""

ECHOES = frozenset({
    "compile_failed", "cuda_assert", "dataset_generation", "rank_gone", "terminated", "torchrun_child"
})  # fmt: skip
"""Kinds that follow from something else, which is the cause where the log tells it too."""
