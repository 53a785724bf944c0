"""Symptoms: what libraries, the kernel and clusters print when a run dies, and what each means.

Where two fit the same text, the one that stands first counts. Where a text has a version, it is that of the source it
was read in or of the library that printed it.
"""

from labkit.runs.diagnosis.symptoms import gpu, host, jobs, libraries, training
from labkit.runs.diagnosis.symptoms.symptom import Symptom

SYMPTOMS: tuple[Symptom, ...] = (
    *host.SYMPTOMS, *gpu.SYMPTOMS, *jobs.SYMPTOMS, *libraries.SYMPTOMS, *training.SYMPTOMS,
)  # fmt: skip
