"""GPUs: the table's figures, sizes in GiB and GB, and what is refused."""

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from refusals import refusal

from labkit.config.errors import ConfigError
from labkit.config.gpus import CONTEXT_BYTES, GB, GIB, GPUS, find_gpu
from labkit.config.workspace import Workspace
from labkit.config.yaml_files import read_yaml

USABLE_GIB = {"h100-94gb": 92.55, "a100-80gb": 78.60}
PRICES = {"a100-80gb": 1.64, "a6000-48gb": 0.76, "a5000-24gb": 0.36, "a4000-16gb": 0.32}
CAPABILITIES = {
    "h200-141gb": (9, 0), "h100-94gb": (9, 0), "a100-80gb": (8, 0), "a6000-48gb": (8, 6), "a5000-24gb": (8, 6),
    "a4000-16gb": (8, 6), "rtx3090ti-24gb": (8, 6), "v100-32gb": (7, 0), "v100-16gb": (7, 0),
}  # fmt: skip


def test_the_table_has_the_gpus_of_the_sources_and_their_capabilities():
    assert {name: gpu.compute_capability for name, gpu in GPUS.items()} == CAPABILITIES


@pytest.mark.parametrize("name", GPUS)
def test_the_figures_of_a_gpu_fit_each_other(name):
    gpu = find_gpu(name)
    assert gpu.name == name
    assert name.endswith(f"-{gpu.memory_bytes // GIB}gb")
    assert gpu.usable_is == "assumed"  # a measurement must come with its own figure
    assert 0.93 * gpu.memory_bytes < gpu.usable_bytes < gpu.memory_bytes - CONTEXT_BYTES
    assert gpu.bf16 == (gpu.compute_capability >= (8, 0))
    assert gpu.price_per_hour_usd == PRICES.get(name)
    assert (gpu.price_source is None) == (gpu.price_per_hour_usd is None)


@pytest.mark.parametrize(("name", "gib"), USABLE_GIB.items())
def test_what_is_usable_is_the_planners_figure_and_the_profiles(name, gib):
    assert find_gpu(name).usable_bytes == pytest.approx(gib * GIB, abs=1)
    profile = read_yaml(Workspace.find().profiles / f"{name}.yaml")
    assert profile["values"]["capacity_gib"] == pytest.approx(gib)


@pytest.mark.parametrize("name", ["H100-94GB", " h100-94gb "])
def test_case_and_blanks_around_a_name_do_not_count(name):
    assert find_gpu(name) is GPUS["h100-94gb"]


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [("24GiB", 24 * 2**30), ("24gib", 24 * 2**30), ("24GB", 24 * 10**9), ("24 gb", 24 * 10**9),
     ("1.5e1GiB", 15 * 2**30), ("+24GiB", 24 * 2**30), ("1GiB", 2**30), ("1024GiB", 2**40)],
)  # fmt: skip
def test_a_size_is_a_gpu_of_which_only_the_size_is_known(text, size_bytes):
    gpu = find_gpu(text)
    assert gpu.memory_bytes == size_bytes
    assert gpu.usable_bytes == size_bytes - CONTEXT_BYTES
    assert (gpu.usable_is, gpu.compute_capability, gpu.bf16) == ("assumed", None, True)
    assert gpu.price_per_hour_usd is None
    assert find_gpu(gpu.name) == gpu


@given(number=st.floats(1.08, 1024).map(lambda x: f"{x:.6f}".rstrip("0").rstrip(".")), blanks=st.integers(0, 2))
def test_every_size_within_the_limits_is_read_and_a_gib_is_more_than_a_gb(number, blanks):
    gap = " " * blanks
    binary, decimal = find_gpu(f"{number}{gap}GiB"), find_gpu(f"{number}{gap}GB")
    assert binary.memory_bytes == int(float(number) * GIB)
    assert decimal.memory_bytes == int(float(number) * GB)
    assert decimal.memory_bytes < binary.memory_bytes
    assert 0 < binary.usable_bytes < binary.memory_bytes


@given(number=st.floats(allow_nan=True, allow_infinity=True), unit=st.sampled_from(["GiB", "GB", "gib", "gb"]))
@example(0.0, "GiB")
@example(-24.0, "GiB")
@example(math.nan, "GB")
@example(math.inf, "GB")
@example(5e-324, "GiB")
@example(1e308, "GiB")
@example(1.0, "GB")
def test_a_size_is_read_or_refused_on_one_line(number, unit):
    text = f"{number!r}{unit}"
    size_bytes = number * (GIB if unit.lower() == "gib" else GB)
    if GIB <= size_bytes <= 1024 * GIB:
        assert find_gpu(text).memory_bytes == int(size_bytes)
    else:
        assert f"gpu={text!r}" in refusal(find_gpu, text)


@given(st.text() | st.none() | st.integers() | st.floats())
@example("1.2.3GiB")
@example(".GiB")
@example("GiB")
@example("٢٤GiB")
@example("2_4GiB")
@example("24")
@example("24G")
@example("24MiB")
@example("a\nb")
@example("9" * 5000 + "GiB")
def test_anything_else_is_refused_on_one_line(value):
    try:
        gpu = find_gpu(value)
    except ConfigError as error:
        assert len(str(error).splitlines()) == 1
        assert str(error).startswith(f"gpu={value!r}"[:500])  # what is very long is shortened
    else:
        assert GIB <= gpu.memory_bytes <= 1024 * GIB


@pytest.mark.parametrize(
    ("typo", "meant"),
    [("h100", "h100-94gb"), ("h100-96gb", "h100-94gb"), ("a100", "a100-80gb"), ("A6000", "a6000-48gb"),
     ("rtx-3090-ti", "rtx3090ti-24gb"), ("v100_32gb", "v100-32gb")],
)  # fmt: skip
def test_an_unknown_gpu_is_named_with_the_nearest_and_all(typo, meant):
    text = refusal(find_gpu, typo)
    assert f"gpu={typo!r}" in text
    assert all(name in text for name in GPUS)
    assert f"Did you mean '{meant}'?" in text
