"""Symptoms: what libraries, the kernel and clusters print when a run dies, and what each means.

Where two fit one line, the one that stands first counts, so what is particular stands before what is general. Where a
text has a version or an issue, it was read there.
"""

from labkit.help.diagnosis.symptoms import (
    adapters,
    clusters,
    compilers,
    cuda,
    data,
    files,
    gpu,
    host,
    jobs,
    libraries,
    packages,
    ranks,
    training,
)
from labkit.help.diagnosis.symptoms.symptom import Symptom

SYMPTOMS: tuple[Symptom, ...] = tuple(
    symptom
    for module in (
        clusters, cuda, compilers, adapters, packages, files, data, ranks, host, gpu, jobs, libraries, training
    )
    for symptom in module.SYMPTOMS
)  # fmt: skip
