"""The order of the image's layers, and what they are made from."""

import re
from pathlib import Path

from provisioning import project

ROOT = Path(__file__).parents[2]
TEXT = re.sub(r"\\\n", " ", (ROOT / "docker" / "Dockerfile").read_text())
STEPS = [line.split(maxsplit=1) for line in TEXT.splitlines() if re.match(r"[A-Z]+ ", line)]


def places(verb, words):
    return [i for i, (name, rest) in enumerate(STEPS) if name == verb and words in rest]


def test_an_edit_of_labkit_or_a_lab_rebuilds_neither_cuda_nor_the_requirements():
    install = [*places("RUN", "apt-get"), *places("RUN", "-r /opt/labkit")]
    assert len(install) == 3
    edited = [i for part in ("labkit ", "workspace ", "labs ", "docker/entrypoint") for i in places("COPY", part)]
    assert len(edited) == 4
    assert max(install) < min(edited)
    labs = places("COPY", "labs ")[0]
    assert [name for name, _ in STEPS[labs + 1 :]] == ["USER"]


def test_the_base_is_pinned_by_its_digest_and_gets_the_security_updates_of_its_build():
    base = STEPS[places("ARG", "BASE_IMAGE=")[0]][1]
    assert re.fullmatch(r"BASE_IMAGE=\S+:\S+@sha256:[0-9a-f]{64}", base)
    (pinned,) = re.findall(r"^# Base of (\d{4}-\d{2}-\d{2}); ", TEXT, re.MULTILINE)
    assert pinned >= "2026"
    (packages,) = places("RUN", "apt-get")
    assert "apt-get upgrade -y" in STEPS[packages][1]


def test_docker_gets_the_same_parts_by_hand_and_from_provisioning():
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert {line[1:] for line in lines if line.startswith("!")} == set(project.PARTS)
    assert set(lines) >= project.STUDENTS


def test_the_checks_of_a_gpu_lie_beside_labkits_text_where_they_look_for_it():
    (copied,) = places("COPY", "tests/benchmarks")
    assert STEPS[copied][1] == "tests/benchmarks /opt/labkit/source/tests/benchmarks"
    assert STEPS[places("COPY", "labkit ")[0]][1] == "labkit /opt/labkit/source/labkit"
    assert {str(Path(check).parent) for check in project.CHECKS} == {"tests/benchmarks"}
    assert copied < places("COPY", "labs ")[0]  # an edit of a lab does not copy them again


def test_the_compilers_cuda_is_the_torch_pins():
    """torch 2.13.0 asks for this very release of CUDA; another torch needs another look."""
    assert "\ntorch==2.13.0\n" in (ROOT / "requirements.txt").read_text()
    assert "]==13.0.3\n" in (ROOT / "docker" / "requirements-cuda.txt").read_text()
