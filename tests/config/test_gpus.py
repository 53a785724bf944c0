"""GPUs: the table's figures, sizes in GiB and GB, and what is refused."""

import math

import pytest
from errors_of import error_of
from hypothesis import example, given
from hypothesis import strategies as st

from labkit.config.errors import ConfigError
from labkit.config.gpus import GB, GIB, GPUS, ROOM_BYTES, find_gpu, gpus_named
from labkit.config.workspace import Workspace
from labkit.config.yaml_files import read_yaml

USABLE_GIB = {"h100-94gb": 92.10, "a100-80gb": 78.40}
PRICES = {"a100-80gb": 1.64, "a6000-48gb": 0.76, "a5000-24gb": 0.36, "a4000-16gb": 0.32}
CAPABILITIES = {
    "b200-180gb": (10, 0), "h200-141gb": (9, 0), "gh200-96gb": (9, 0), "h100-94gb": (9, 0), "h100-80gb": (9, 0),
    "a100-80gb": (8, 0), "a100-40gb": (8, 0), "rtxpro6000-96gb": (12, 0), "a6000-48gb": (8, 6), "a40-48gb": (8, 6),
    "l40s-48gb": (8, 9), "l40-48gb": (8, 9), "v100-32gb": (7, 0), "v100-16gb": (7, 0), "rtx5090-32gb": (12, 0),
    "rtx4090-24gb": (8, 9), "rtx3090-24gb": (8, 6), "rtx3090ti-24gb": (8, 6), "titanrtx-24gb": (7, 5),
    "a5000-24gb": (8, 6), "l4-24gb": (8, 9), "a10-24gb": (8, 6), "a10g-24gb": (8, 6), "p40-24gb": (6, 1),
    "a4000-16gb": (8, 6), "t4-16gb": (7, 5), "gtx1080ti-11gb": (6, 1), "rtx2080ti-11gb": (7, 5),
    "rtx3080-10gb": (8, 6),
}  # fmt: skip


def test_the_table_has_the_gpus_of_the_sources_and_their_capabilities():
    assert {name: gpu.compute_capability for name, gpu in GPUS.items()} == CAPABILITIES


@pytest.mark.parametrize("name", GPUS)
def test_the_figures_of_a_gpu_fit_each_other(name):
    gpu = find_gpu(name)
    assert gpu.name == name
    assert name.endswith(f"-{gpu.memory_bytes // GIB}gb")
    assert gpu.usable_is == "assumed"  # a measurement must come with its own figure
    # one with ECC in its own memory, as the T4, has less than it is sold with
    assert 0.84 * gpu.memory_bytes < gpu.usable_bytes < gpu.memory_bytes - gpu.room_bytes
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
     ("1.5e1GiB", 15 * 2**30), ("+24GiB", 24 * 2**30), ("2GiB", 2**31), ("1024GiB", 2**40)],
)  # fmt: skip
def test_a_size_is_a_gpu_of_which_only_the_size_is_known(text, size_bytes):
    gpu = find_gpu(text)
    assert gpu.memory_bytes == size_bytes
    assert gpu.usable_bytes == size_bytes - ROOM_BYTES
    assert (gpu.usable_is, gpu.compute_capability, gpu.bf16) == ("assumed", None, True)
    assert gpu.price_per_hour_usd is None
    assert find_gpu(gpu.name) == gpu


@given(number=st.floats(2.16, 1024).map(lambda x: f"{x:.6f}".rstrip("0").rstrip(".")), blanks=st.integers(0, 2))
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
    if 2 * GIB <= size_bytes <= 1024 * GIB:
        assert find_gpu(text).memory_bytes == int(size_bytes)
    else:
        assert f"gpu={text!r}" in error_of(find_gpu, text)


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


TYPED = {
    "h100": "h100-80gb", "H100-80": "h100-80gb", "h100 94gb": "h100-94gb", "a100": "a100-80gb", "a100-80": "a100-80gb",
    "a100 80gb": "a100-80gb", "a100_40gb": "a100-40gb", "A100 (40 GB)": "a100-40gb", "t4": "t4-16gb", "l4": "l4-24gb",
    "a10": "a10-24gb", "a10g": "a10g-24gb", "l40": "l40-48gb", "l40s": "l40s-48gb", "rtx4090": "rtx4090-24gb",
    "RTX 4090": "rtx4090-24gb", "4090": "rtx4090-24gb", "3090ti": "rtx3090ti-24gb", "3090 Ti": "rtx3090ti-24gb",
    "rtx-3090-ti": "rtx3090ti-24gb", "3090": "rtx3090-24gb", "v100": "v100-16gb", "v100-32": "v100-32gb",
    "v100_32gb": "v100-32gb", "A6000": "a6000-48gb", "h200": "h200-141gb", "b200": "b200-180gb", "gh200": "gh200-96gb",
    "gtx1080ti": "gtx1080ti-11gb", "1080 ti": "gtx1080ti-11gb", "titan rtx": "titanrtx-24gb",
    # as nvidia-smi prints them
    "NVIDIA A100-SXM4-80GB": "a100-80gb", "A100-SXM4-40GB": "a100-40gb", "NVIDIA A100 80GB PCIe": "a100-80gb",
    "NVIDIA H100 80GB HBM3": "h100-80gb", "NVIDIA H100 NVL": "h100-94gb", "NVIDIA GH200 480GB": "gh200-96gb",
    "Tesla V100-SXM2-32GB": "v100-32gb", "Tesla T4": "t4-16gb", "NVIDIA L4": "l4-24gb",
    "NVIDIA RTX A6000": "a6000-48gb",
    "NVIDIA GeForce RTX 3090 Ti": "rtx3090ti-24gb", "NVIDIA TITAN RTX": "titanrtx-24gb",
    "NVIDIA RTX PRO 6000 Blackwell Server Edition": "rtxpro6000-96gb",
}  # fmt: skip


@pytest.mark.parametrize(("typed", "name"), TYPED.items())
def test_a_name_is_taken_as_people_type_it_and_as_nvidia_smi_prints_it(typed, name):
    assert find_gpu(typed) is GPUS[name]


@given(st.sampled_from(sorted(GPUS)), st.sampled_from(["", "nvidia ", "NVIDIA GeForce "]), st.sampled_from(" -_"))
def test_every_gpu_has_its_name_with_and_without_unit_and_maker(name, maker, gap):
    kind, _, size = name.rpartition("-")
    for typed in (f"{maker}{kind}{gap}{size}", f"{maker}{kind}{gap}{size[:-2]}", f"{maker}{kind.upper()}{gap}{size}"):
        assert gpus_named(typed) == [GPUS[name]]


@pytest.mark.parametrize(
    ("typed", "names"),
    [("a100", ["a100-80gb", "a100-40gb"]), ("h100", ["h100-80gb", "h100-94gb"]), ("v100", ["v100-16gb", "v100-32gb"]),
     ("a100-40", ["a100-40gb"]), ("24GiB", ["24GiB"]), ("a100-60", []), ("nothing", [])],
)  # fmt: skip
def test_a_name_that_may_mean_several_gives_them_all(typed, names):
    assert [gpu.name for gpu in gpus_named(typed)] == names


@pytest.mark.parametrize(
    ("typed", "says"),
    [("mi300x", "not NVIDIA's"), ("AMD Instinct MI300X", "not NVIDIA's"), ("gaudi2", "not NVIDIA's"),
     ("m2 max", "not NVIDIA's"), ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", "part of a GPU"), ("3g.20gb", "part of a GPU")],
)  # fmt: skip
def test_what_is_no_whole_gpu_of_nvidias_is_refused_by_name_and_a_size_is_proposed(typed, says):
    text = error_of(find_gpu, typed)
    assert says in text and "GiB" in text


@pytest.mark.parametrize(
    ("typo", "meant"),
    [("h100-96gb", "h100-94gb"), ("a100-60", "a100"), ("h100x", "h100"), ("titan", "titanrtx"),
     ("NVIDIA GeForce RTX 4091", "rtx4090")],
)  # fmt: skip
def test_an_unknown_gpu_is_named_with_the_nearest_and_all(typo, meant):
    text = error_of(find_gpu, typo)
    assert f"gpu={typo!r}" in text
    assert all(name in text for name in GPUS)
    assert f"Did you mean '{meant}'?" in text
