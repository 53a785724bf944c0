"""Which GPUs a build of torch runs on: binary code within a major version, PTX on everything later."""

import pytest

from labkit.config.kernels import BUILDS, capability_of, has_code, without_code


@pytest.mark.parametrize(("architectures", "capability", "runs"), [
    (["sm_80"], (8, 6), True), (["sm_80"], (8, 9), True), (["sm_86"], (8, 0), False), (["sm_90"], (12, 0), False),
    (["sm_90"], (8, 9), False), (["sm_90a"], (9, 0), True), (["sm_90a"], (9, 1), False), (["sm_100"], (10, 3), True),
    (["sm_100f"], (10, 3), True), (["sm_120"], (12, 1), True), (["compute_90"], (12, 0), True),
    (["compute_90a"], (12, 0), False), (["compute_120"], (9, 0), False), (["sm_75", "sm_80"], (7, 0), False),
    (["sm_50", "sm_70"], (7, 5), True), ([], (8, 0), False), (["gfx90a"], (9, 0), False),
])  # fmt: skip
def test_code_runs_on_its_major_version_and_ptx_on_all_that_come_later(architectures, capability, runs):
    assert has_code(architectures, capability) == runs


@pytest.mark.parametrize(("cuda", "capability", "runs"), [
    ("13.0", (7, 0), False), ("13.0", (6, 0), False), ("13.0", (7, 5), True), ("13.0", (12, 1), True),
    ("13.0", (13, 0), True), ("12.8", (13, 0), False), ("12.6", (7, 0), True), ("12.6", (6, 1), True),
    ("12.6", (12, 0), False),
])  # fmt: skip
def test_builds_of_torch_hold_what_its_support_matrix_says(cuda, capability, runs):
    assert has_code(BUILDS[cuda], capability) == runs


def test_what_no_one_knows_is_no_reason():
    assert without_code([], (7, 0), "torch") is None
    assert without_code(["gfx90a"], (9, 0), "torch for ROCm") is None
    assert "compute capability 7.0: torch 2.13 has no code for it (sm_80)" in without_code(
        ["sm_80"], (7, 0), "torch 2.13"
    )


@pytest.mark.parametrize(("name", "capability"), [
    ("v100-32g", (7, 0)), ("tesla_v100", (7, 0)), ("K80:4", (3, 7)), ("gtx_1080_ti", (6, 1)), ("volta", (7, 0)),
    ("a100", None), ("a40", None), ("", None), ("gpu", None), ("h100", None), ("l4", None),
])  # fmt: skip
def test_older_gpus_are_known_by_the_names_that_clusters_give_them(name, capability):
    assert capability_of(name) == capability
