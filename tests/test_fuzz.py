"""Two thousand experiment files and command lines that no one would write: taken, or refused on one line."""

import contextlib
import io
import warnings
from collections import Counter

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from labkit.cli import main
from labkit.config.errors import ConfigError
from labkit.config.layers import resolve
from labkit.config.schema import RunConfig, keys
from labkit.config.workspace import Workspace
from labkit.plan.cache import TraceCache
from labkit.plan.errors import PredictionError
from labkit.plan.predict import Prediction, predict

WORKSPACE = Workspace.find()
ABOUT = ("base", "number", "compare_with", "lesson")
FILES, LINES, COMMANDS, PLANS = 1100, 500, 400, 50


def fuzz(count):
    checks = (HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much)
    return settings(derandomize=True, deadline=None, database=None, max_examples=count, suppress_health_check=checks)


LAUGHS = "{a: &a [x, x, x, x, x, x, x, x, x], b: &b [*a, *a, *a, *a, *a, *a, *a, *a, *a], c: [*b, *b, *b, *b, *b]}"
ODD = st.sampled_from([
    "", "~", "null", "none", "true", "False", "yes", "no", "0", "-0", "-1", "1", "2", "3", "16", "1e3", "5e-6", "0x10",
    "0o17", "0b11", "1_000", "1:30", ".nan", "nan", "inf", "-.inf", "1e308", "1e400", "-1e-400", "9" * 30, "9" * 500,
    "0x" + "f" * 6000, "1.0", "1.5", "007", "'4'", '"4"', "[1, 2]", "[]", "{}", "{a: {b: [c, {d: e}]}}", "[[[[[]]]]]",
    "[" * 1200, "{" * 500, "- - - 1", "? x", "!!python/object:os.system ls", "!!python/object/apply:os.system [ls]",
    "!!python/name:os.system", "!!binary aGVsbG8=", "!!set {a, b}", "!!omap [a: 1]", "!!int x", "!!float x", "!own 1",
    "!!timestamp 2024-99-99", "2024-13-45", "2024-01-01", "&a 4", "*a", "&a [*a]", LAUGHS, "<<: 1", "| text", ">-",
    "%YAML 9.9", "--- 1", "...", "@", "`", "#", "a: b", ": ", "- ", "\t4", "'open", '"open', '"\\ud800"', '"\\x00"',
    '"\\u2028"', "\u2028", "\ufeff", "\u202etxt", "é", "模型", "🍎", "a" * 5000, "auto", "tokens", "cuda", "simulated",
    "adam_8bit", "sgd", "deepspeed_cpu", "deepspeed_stage_2_offload", "ddp", "fsdp", "bf16-true", "16-true",
    "tiny/blip2-opt-small", "Salesforce/blip2-flan-t5-xxl", "../../etc/passwd", "/", ".", "q_proj,v", "[q_proj, 1]",
])  # fmt: skip
PLAIN = st.integers(0, 64).map(str) | st.sampled_from(["true", "false"]) | st.floats(0, 2).map(repr)
DUMPED = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates() | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
).map(lambda value: yaml.safe_dump(value, default_flow_style=True, width=10**6).strip().removesuffix("\n..."))
KEY = st.sampled_from(keys()) | st.sampled_from(keys()) | st.sampled_from(ABOUT)
ODD_KEY = st.sampled_from(["batchsize", "LR", "", "1", "null", "true", "[a]", "{a: b}", "? [", "<<", "é", "k" * 5000,
                           "trainer.max_steps", "__class__", "lr ", "*a", "&a lr", "!!str lr"])  # fmt: skip
LINE = st.tuples(KEY, PLAIN) | st.tuples(KEY, PLAIN) | st.tuples(KEY, ODD) | st.tuples(KEY, DUMPED)
FILE = st.builds(
    lambda head, lines, tail: head + "".join(f"{key}: {value}\n" for key, value in lines) + tail,
    st.sampled_from(
        ["base: baseline\n"] * 12 + ["", "base: xxl\n", "base: [baseline]\n", "\ufeffbase: baseline\n", "---\n"]
    ),
    st.lists(LINE, max_size=3) | st.lists(LINE | st.tuples(ODD_KEY, ODD), max_size=5),
    st.sampled_from([""] * 12 + ["lr: 1\nlr: 2\n", "---\nlr: 1\n", "\x00", "# end", "- 1\n", "\tlr: 1\n"]),
)
TYPED = st.builds(
    lambda key, value: f"{key}={value}",
    st.sampled_from(keys()) | st.sampled_from(keys()) | ODD_KEY,
    PLAIN | PLAIN | ODD | st.text(max_size=10) | st.text(st.characters(codec=None), max_size=10),
).filter(lambda item: not item.startswith("-"))
COUNTS = ("batch_size", "accumulate_grad_batches", "max_epochs", "max_steps", "max_length", "report_every", "seed")
USUAL = st.builds(lambda key, count: f"{key}={count}", st.sampled_from(COUNTS), st.integers(1, 64))
TYPED_LINE = st.lists(USUAL, min_size=1, max_size=3) | st.lists(TYPED | USUAL, min_size=1, max_size=4)
ODD_ITEM = st.sampled_from(["", "=", "==", "lr", "=1", "lr=", "a b", "x" * 10**5, "\udcff=\udcfe"])


def checked(error: str, *names: str) -> str:
    """That a message is one line of a length one reads, and names a key, the file or what was typed."""
    assert len(error.splitlines()) == 1, error
    assert len(error) < 2200
    assert any(name in error for name in names), error
    return "refused"


@pytest.fixture
def wild(tmp_path):
    return tmp_path / "wild.yaml"


@pytest.mark.slow
def test_any_experiment_file_is_taken_or_refused_on_one_line(wild):
    seen = Counter()

    @fuzz(FILES)
    @given(text=FILE)
    def take(text):
        wild.write_text(text, encoding="utf-8", errors="surrogatepass")
        try:
            found = resolve(WORKSPACE, str(wild))
        except ConfigError as error:
            seen[checked(str(error), str(wild), *(f"{key}=" for key in keys()))] += 1
        else:
            assert isinstance(found.config, RunConfig)
            assert len(found.config.hash) == 12
            seen["taken"] += 1

    take()
    assert seen["taken"] > FILES / 20
    assert seen["refused"] > FILES / 3


def as_typed(items):
    return {key: value for key, _, value in (item.partition("=") for item in items)}


@pytest.mark.slow
def test_any_typed_values_are_taken_or_refused_on_one_line():
    seen = Counter()

    @fuzz(LINES)
    @given(items=TYPED_LINE, profile=st.sampled_from(["tiny", "tiny", "h100-94gb", "24GiB", "1e2GiB"]))
    def take(items, profile):
        try:
            assert resolve(WORKSPACE, "reduced_batch", as_typed(items), profile).config.to_dict().keys() == {*keys()}
            seen["taken"] += 1
        except ConfigError as error:
            typed = [f"unknown key {key!r}"[:200] for key in as_typed(items)]
            seen[checked(str(error), *typed, *(f"{key}=" for key in keys()))] += 1

    take()
    assert min(seen["taken"], seen["refused"]) > LINES / 20


@pytest.mark.slow
def test_any_command_line_prints_values_or_one_line_of_error(wild):
    seen = Counter()
    words = st.lists(TYPED | TYPED | ODD_ITEM, max_size=3)
    name = st.sampled_from(["reduced_batch", "baseline", "xxl_qlora", str(wild), str(wild)]) | st.sampled_from(
        ["nothing", "n" * 5000, "../configs/baseline", "a.yaml", "\udcff", "a\nb", "a\x00b", "/", "hf_" + "a" * 30]
    )
    profile = st.sampled_from(
        ["tiny"] * 8 + ["../profiles/tiny", "p" * 5000, "\udcff", "", "0GiB", "a\x00", "1e999GiB"]
    )

    @fuzz(COMMANDS)
    @given(name=name, text=FILE, items=words, profile=profile, as_json=st.booleans())
    def call(name, text, items, profile, as_json):
        wild.write_text(text, encoding="utf-8", errors="surrogatepass")
        out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
        err = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="backslashreplace")
        more = ["--json"] if as_json else []
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main(["run", name, *items, f"--profile={profile}", "--show-config", *more])
        out.flush(), err.flush()
        said, error = (stream.buffer.getvalue().decode() for stream in (out, err))
        if code == 0:
            assert (error, said.count("\n") >= len(keys())) == ("", True)
            seen["taken"] += 1
        else:
            assert (code, said) == (2, "")
            assert error.startswith("error: ")
            seen[checked(error, "profile", "gpu=", "experiment", str(wild), "KEY=VALUE", "unknown key",
                         *(f"{key}=" for key in keys()))] += 1  # fmt: skip

    call()
    assert min(seen["taken"], seen["refused"]) > COMMANDS / 20


SMALL = st.fixed_dictionaries(
    {"batch_size": st.sampled_from([1, 2]), "max_length": st.sampled_from([4, 12])},
    optional={
        "optim": st.sampled_from(["adamw", "sgd", "adam_8bit", "deepspeed_cpu"]),
        "precision": st.sampled_from(["32-true", "bf16-true", "bf16-mixed"]),
        "use_lora": st.booleans(), "use_qlora": st.booleans(), "act_ckpt": st.booleans(),
        "freeze_vision": st.booleans(), "freeze_language": st.booleans(),
        "lora_targets": st.sampled_from(["q_proj", "nothing_like_it", "q_proj,v_proj"]),
        "strategy": st.sampled_from(["auto", "deepspeed_stage_2_offload", "ddp"]), "devices": st.sampled_from([1, 2]),
        "loss_average": st.sampled_from(["tokens", "batches"]),
        "lr": st.floats(1e-9, 1e9), "seed": st.integers(0, 2**32 - 1), "max_steps": st.integers(1, 10**18),
        "capacity_gib": st.floats(1e-9, 1e20), "num_train_samples": st.integers(1, 10**18),
        "max_epochs": st.integers(1, 10**18), "lora_alpha": st.integers(1, 10**18),
        "warmup_steps": st.integers(0, 10**9),
    },
)  # fmt: skip


def accepted(values):
    with contextlib.suppress(ConfigError):
        return resolve(WORKSPACE, "reduced_batch", values).config
    return None


@pytest.mark.slow
def test_fifty_accepted_configs_are_planned_or_refused_with_a_reason():
    cache, seen = TraceCache(None), Counter()

    @fuzz(PLANS)
    @given(config=SMALL.map(accepted).filter(lambda config: config is not None))
    def plan(config):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # what libraries say while they load
            try:
                found = predict(config, cache=cache)
            except (PredictionError, ConfigError) as error:
                assert len(str(error).splitlines()) == 1
                seen["refused"] += 1
            else:
                assert isinstance(found, Prediction)
                assert found.peak_bytes > 0
                assert found.verdict in ("fits", "borderline", "out of memory")
                seen["planned"] += 1

    plan()
    assert seen["planned"] + seen["refused"] >= PLANS
    assert seen["planned"] > PLANS / 2
