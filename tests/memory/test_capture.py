"""MemoryCapture reports anyone's LightningModule, at the steps it says, and leaves nothing behind."""

import contextlib
import gc
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from lightning.pytorch import LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import EMAWeightAveraging
from lightning.pytorch.demos.boring_classes import BoringModel, ManualOptimBoringModel, RandomDataset
from lightning.pytorch.demos.transformer import LightningTransformer
from lightning.pytorch.strategies import DDPStrategy
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, TensorDataset
from transformers import BatchEncoding

from labkit.memory.capture import MemoryCapture
from labkit.memory.categories import CATEGORIES, on_device
from labkit.memory.owners import tensors_in
from labkit.memory.report import PHASES, MemoryReport
from labkit.memory.tracker import SimulatedOutOfMemoryError, Tracker

torch.set_num_threads(1)

VOCABULARY = 100
BATCH, LENGTH = 4, 16


class Words(LightningTransformer):
    """Lightning's demo transformer, with AdamW and without a download."""

    def __init__(self) -> None:
        super().__init__(vocab_size=VOCABULARY)

    def prepare_data(self) -> None:
        """Words come from ``word_loader``."""

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), foreach=True)


class WordsSgd(Words):
    """As it came: SGD without momentum, which keeps nothing."""

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)


def word_loader(batches: int = 8) -> DataLoader:
    words = torch.randint(VOCABULARY, (2, BATCH * batches, LENGTH), generator=torch.Generator().manual_seed(0))
    return DataLoader(TensorDataset(*words), batch_size=BATCH)


def trainer(*callbacks: MemoryCapture, **options: object) -> Trainer:
    quiet = {
        "logger": False, "enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False,
        "accelerator": "cpu", "max_epochs": 1, "num_sanity_val_steps": 0,
    }  # fmt: skip
    return Trainer(callbacks=list(callbacks), **(quiet | options))


def follow(build: type[LightningModule], capacity_bytes: int | None = None, **options: object) -> MemoryCapture:
    """Train ``build()`` on words, on a simulated GPU that the caller enters around building and training."""
    seed_everything(0, verbose=False)
    tracker = Tracker(capacity_bytes)
    capture = MemoryCapture(tracker)
    with tracker:
        trainer(capture, **options).fit(build(), word_loader())
    return capture


def alone(build: type[LightningModule], **options: object) -> MemoryCapture:
    """The same with the callback alone."""
    seed_everything(0, verbose=False)
    capture = MemoryCapture()
    trainer(capture, **options).fit(build(), word_loader())
    return capture


def rounded_bytes(module: torch.nn.Module) -> int:
    """Bytes of the parameters by their shapes, each rounded as CUDA's allocator does; there are no buffers."""
    assert not list(module.buffers())
    return sum(-(-p.numel() * p.element_size() // 512) * 512 for p in module.parameters())


def steps_of(report: MemoryReport) -> list[int]:
    return sorted({phase.step for phase in report.phases})


BATCH_BYTES = 2 * BATCH * LENGTH * 8
"""Inputs and targets, whole numbers of 8 bytes."""


# -- what is reported


@pytest.mark.parametrize("run", [follow, alone])
@pytest.mark.parametrize(("build", "states"), [(Words, 2), (WordsSgd, 0)])
def test_shares_equal_what_the_shapes_say(run, build, states):
    parameters = rounded_bytes(build())
    count = len(list(build().parameters()))
    report = run(build, max_steps=2).report
    for phase in report.phases:
        trained = phase.step == 1 or phase.phase == "after_optimizer_step"
        has_gradients = phase.phase in ("after_backward", "after_optimizer_step")
        has_gradients |= (phase.step, phase.phase) == (1, "before_forward")
        assert phase.end["parameters"] == parameters
        assert phase.end["gradients"] == (parameters if has_gradients else 0)
        assert phase.end["optimizer_gpu"] == (states * parameters if trained else 0)
        # one step counter for each parameter, in host memory
        assert phase.end["optimizer_cpu"] == (512 * count if trained and states else 0)
        assert phase.end["inputs"] == BATCH_BYTES == 2 * 512
        assert phase.end["temporaries"] == 0
        assert (phase.end["activations"] > parameters / 10) == (phase.phase == "after_forward")


@pytest.mark.parametrize("run", [follow, alone])
def test_old_gradients_live_through_the_next_forward(run):
    # Lightning runs forward, zero_grad, backward
    second = run(Words, max_steps=2).report.at("after_forward", 1)
    assert second.peak["gradients"] == second.highest["gradients"] == rounded_bytes(Words())
    assert second.peak["activations"] > 0
    assert second.end["gradients"] == 0


@pytest.mark.parametrize("run", [follow, alone])
def test_what_forward_leaves_in_the_module_is_no_activation_afterwards(run):
    # the demo keeps its table of positions, 5000 x 200 numbers, and a mask of 16 x 16 in plain attributes
    kept = 4_000_256 + 1024
    report = run(Words, max_steps=2).report
    first, second = report.at("after_forward", 0), report.at("after_forward", 1)
    assert first.end["activations"] == kept + second.end["activations"]
    for phase in report.phases[2:]:
        assert 0 <= phase.end["unattributed"] - kept < 20_000


@pytest.mark.parametrize("run", [follow, alone])
def test_every_phase_is_consistent(run):
    report = run(Words, max_steps=2).report
    assert [(p.step, p.phase) for p in report.phases] == [(step, name) for step in (0, 1) for name in PHASES]
    for phase in report.phases:
        assert set(phase.end) == set(phase.peak) == set(phase.highest) == set(CATEGORIES)
        assert phase.peak_bytes >= phase.end_bytes > 0
        assert all(phase.highest[c] >= max(phase.end[c], phase.peak[c]) for c in CATEGORIES)
        assert (phase.reserved_bytes, phase.device_used_bytes) == (None, None)
    assert report.source == "simulated GPU"


@pytest.mark.slow
def test_the_callback_alone_finds_what_the_simulated_gpu_finds():
    found, whole = alone(Words).report, follow(Words).report
    assert len(found.phases) == len(whole.phases)
    for one, other in zip(found.phases, whole.phases, strict=True):
        for category in set(CATEGORIES) - {"unattributed"}:
            assert one.end[category] == other.end[category], (one.step, one.phase, category)


def test_boring_model_is_reported_without_a_loader_of_ours():
    capture = MemoryCapture()
    trainer(capture, limit_train_batches=3, limit_val_batches=2).fit(BoringModel())
    report = capture.report
    assert steps_of(report) == [0, 1]
    for phase in report.phases:
        assert phase.end["parameters"] == 512 + 512  # 2 x 32 weights and 2 biases
        assert phase.end["inputs"] == 512
        assert phase.end["optimizer_gpu"] == phase.end["optimizer_cpu"] == 0
    assert report.at("after_backward", 0).end["gradients"] == 512 + 512


@pytest.mark.parametrize("entered", [True, False])
def test_steps_0_and_1_and_every_nth_are_reported(entered):
    seen = []
    tracker = Tracker() if entered else None
    capture = MemoryCapture(tracker, report_every=4, on_phase=seen.append)
    assert [step for step in range(10) if capture.reports(step)] == [0, 1, 4, 8]
    fit = trainer(capture, limit_train_batches=10, limit_val_batches=0).fit
    if tracker is None:
        fit(BoringModel())
    else:
        with tracker:
            fit(BoringModel())
    assert steps_of(capture.report) == [0, 1, 4, 8]
    assert [p.phase for p in capture.report.phases] == 4 * list(PHASES)
    assert seen == capture.report.phases


@pytest.mark.slow
@pytest.mark.parametrize("run", [follow, alone])
def test_accumulation_reports_every_micro_step_and_steps_once(run):
    report = run(Words, accumulate_grad_batches=3, max_steps=2).report
    names = [(p.step, p.micro_step, p.phase) for p in report.phases]
    assert names == [
        (step, micro, name)
        for step in (0, 1)
        for micro in range(3)
        for name in PHASES
        if micro == 2 or name in PHASES[:3]
    ]
    assert report.at("after_forward", 0, 0).end["gradients"] == 0
    assert report.at("after_forward", 0, 1).end["gradients"] == rounded_bytes(Words())
    assert report.at("after_forward", 0, 1).end["activations"] == report.at("after_forward", 0, 2).end["activations"]


@pytest.mark.slow
def test_validation_does_not_change_what_training_holds():
    class Validated(Words):
        batches = 0

        def validation_step(self, batch, batch_idx):
            self(*batch)
            Validated.batches += 1

    def ends(batches: int) -> list[tuple[dict[str, int], int]]:
        seed_everything(0, verbose=False)
        with Tracker() as tracker:
            capture = MemoryCapture(tracker)
            fit = trainer(capture, max_steps=2, val_check_interval=1, limit_val_batches=batches).fit
            fit(Validated(), word_loader(), word_loader())
        ends = [phase.end for phase in capture.report.phases]
        # Lightning frees the gradients before it validates
        gradients = ends[PHASES.index("before_forward") + len(PHASES)].pop("gradients")
        return ends, gradients

    assert ends(2) == (ends(0)[0], 0)
    assert Validated.batches == 4


def test_frozen_parameters_have_no_gradients_and_no_state():
    class Frozen(Words):
        def __init__(self) -> None:
            super().__init__()
            self.model.transformer.requires_grad_(False)

    rest = rounded_bytes(Frozen()) - rounded_bytes(Frozen().model.transformer)
    end = alone(Frozen, max_steps=1).report.at("after_optimizer_step", 0).end
    assert end["parameters"] == rounded_bytes(Frozen())
    assert end["gradients"] == rest
    assert end["optimizer_gpu"] == 2 * rest


def test_manual_optimization_is_reported_too():
    capture = MemoryCapture()
    trainer(capture, limit_train_batches=3, limit_val_batches=0).fit(ManualOptimBoringModel())
    assert steps_of(capture.report) == [0, 1]
    assert [p.phase for p in capture.report.phases] == 2 * list(PHASES)
    assert capture.report.at("after_backward", 1).end["gradients"] == 2 * 512


def test_a_hook_that_comes_before_the_train_starts_says_so():
    with pytest.raises(RuntimeError, match="no tracker before on_train_start"):
        MemoryCapture().on_train_batch_start(SimpleNamespace(global_step=0), None, None, 0)


@pytest.mark.filterwarnings("ignore:`training_step` returned `None`")
def test_a_skipped_step_has_no_backward():
    class Skips(BoringModel):
        def training_step(self, batch, batch_idx):
            return None if batch_idx == 1 else super().training_step(batch, batch_idx)

    capture = MemoryCapture()
    trainer(capture, limit_train_batches=3, limit_val_batches=0).fit(Skips())
    assert [p.phase for p in capture.report.phases if p.step == 1] == ["before_forward", "after_optimizer_step"]
    assert _get_current_dispatch_mode_stack() == []


class Checkpointed(BoringModel):
    """A frozen layer that is checkpointed between another frozen one and one that is trained."""

    keeps = False

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Linear(32, 256).requires_grad_(False)
        self.frozen = torch.nn.Linear(256, 256).requires_grad_(False)
        self.layer = torch.nn.Linear(256, 2)
        self.kept = []

    def training_step(self, batch, batch_idx):
        hidden = self.first(batch).requires_grad_()  # as PEFT does for checkpointing: a leaf, which gets a gradient
        if self.keeps:
            self.kept = [hidden.detach().clone()]
        return self.layer(checkpoint(self.frozen, hidden, use_reentrant=False)).sum()


class CheckpointedAndKept(Checkpointed):
    keeps = True


@pytest.mark.parametrize("entered", [True, False])
@pytest.mark.parametrize("build", [Checkpointed, CheckpointedAndKept])
def test_what_waits_for_the_graph_is_activations_and_what_a_module_keeps_is_unattributed(build, entered):
    hidden_bytes = 64 * 256 * 4
    tracker = Tracker() if entered else None
    capture = MemoryCapture(tracker)
    with tracker or contextlib.nullcontext():
        loader = DataLoader(torch.randn(128, 32), batch_size=64)
        trainer(capture, max_steps=2, limit_val_batches=0).fit(build(), loader)
    data_bytes = 128 * 32 * 4 if entered else 0  # the data set was made on the simulated GPU
    kept = hidden_bytes if build.keeps else 0
    for step in (0, 1):
        forward, backward, stepped = (capture.report.at(name, step).end for name in PHASES[1:])
        # what goes into the frozen layer, what comes out for the one that is trained, and a copy that no one told of
        assert forward["activations"] == pytest.approx(2 * hidden_bytes + kept, abs=2048)
        assert forward["unattributed"] == pytest.approx(data_bytes, abs=2048)
        # the leaf and its gradient, until the loss is gone
        assert backward["activations"] == pytest.approx(2 * hidden_bytes, abs=2048)
        assert backward["unattributed"] == pytest.approx(data_bytes + kept, abs=2048)
        assert stepped["activations"] == 0
        assert stepped["unattributed"] == pytest.approx(data_bytes + kept, abs=2048)


# -- DDP, which makes its buckets in C++; of one rank it makes the same as of many


class Wide(BoringModel):
    """The parameters of one layer fill a first bucket, when buckets are made again."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Linear(32, 500, bias=False)
        self.layer = torch.nn.Linear(500, 600, bias=False)

    def setup(self, stage: str) -> None:
        self.mask = torch.ones(50, 32)  # before DDP takes the module, and is no bucket

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        return self.layer(self.first(batch))

    def training_step(self, batch, batch_idx):
        masked = batch * self.mask  # before the module is called again, and is no bucket
        return self(masked).sum()


def wide(entered: bool, capacity_bytes: int | None = None, **options: object) -> MemoryCapture:
    tracker = Tracker(capacity_bytes) if entered else None
    capture = MemoryCapture(tracker)
    options = {"max_steps": 3, "limit_val_batches": 0, "devices": 1} | options
    with tracker or contextlib.nullcontext():
        module = Wide()
        trainer(capture, **options).fit(module, DataLoader(torch.randn(400, 32), batch_size=50))
    assert not module._forward_pre_hooks
    return capture


WIDE_BYTES = 32 * 500 * 4 + 500 * 600 * 4 + 128
"""Of the parameters, each rounded up to a multiple of 512, and of the buckets, one at first and then two."""


@pytest.fixture
def one_rank(monkeypatch):
    """Of Lightning's processes this is the only one."""
    with monkeypatch.context() as patched:
        for name in ("MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE", "NODE_RANK", "LOCAL_RANK"):
            patched.delenv(name, raising=False)
        yield
        dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("entered", [True, False])
@pytest.mark.parametrize("views", [True, False])
@pytest.mark.parametrize("micro_steps", [1, 2])
def test_buckets_of_ddp_are_gradients(one_rank, entered, views, micro_steps):
    strategy = DDPStrategy(process_group_backend="gloo", gradient_as_bucket_view=views)
    found = wide(entered, strategy=strategy, accumulate_grad_batches=micro_steps)
    assert "configure_ddp" not in vars(strategy)
    plain = wide(entered, accumulate_grad_batches=micro_steps).report.phases
    assert len(plain) == len(found.report.phases)
    for phase, without in zip(found.report.phases, plain, strict=True):
        key = (phase.step, phase.micro_step, phase.phase)
        for category in set(CATEGORIES) - {"gradients"}:
            assert phase.end[category] == without.end[category], (key, category)
        # what one micro batch leaves is outside, until the last one copies the sum in
        made_by_last = phase.micro_step == (0 if phase.phase in PHASES[:2] else micro_steps - 1)
        outside = 0 if views and made_by_last else without.end["gradients"]
        assert phase.end["gradients"] == WIDE_BYTES + outside, key


@pytest.mark.slow
def test_a_run_that_ends_before_buckets_are_made_again_leaves_no_hook(one_rank):
    found = wide(True, max_steps=1, strategy=DDPStrategy(process_group_backend="gloo"))
    assert found.report.at("after_forward", 0).end["gradients"] == WIDE_BYTES


@pytest.mark.slow
def test_a_module_is_known_when_ddp_has_no_room_for_buckets(one_rank):
    strategy = DDPStrategy(process_group_backend="gloo")
    with pytest.raises(SimulatedOutOfMemoryError) as caught:
        wide(True, 2 * WIDE_BYTES, strategy=strategy)
    data_bytes = 400 * 32 * 4 + 50 * 32 * 4 + 256  # and a mask
    assert (caught.value.held["parameters"], caught.value.held["unattributed"]) == (WIDE_BYTES, data_bytes)
    assert "configure_ddp" not in vars(strategy)


# -- what is left behind


def test_steps_that_are_not_reported_are_not_logged():
    class Watch(MemoryCapture):
        logs = []

        def on_before_backward(self, *args) -> None:
            super().on_before_backward(*args)
            self.logs.append(self._tracker._log is not None)

    with Tracker() as tracker:
        capture = Watch(tracker, report_every=5)
        trainer(capture, limit_train_batches=7, limit_val_batches=0).fit(BoringModel())
    assert capture.logs == [capture.reports(step) for step in range(7)]


def test_no_dispatch_mode_is_left_after_training():
    alone(Words, max_steps=2)
    assert _get_current_dispatch_mode_stack() == []
    follow(Words, max_steps=2)
    assert _get_current_dispatch_mode_stack() == []


def test_the_mode_is_on_the_stack_in_reported_steps_only():
    class Looks(BoringModel):
        depths = []

        def training_step(self, batch, batch_idx):
            self.depths.append(len(_get_current_dispatch_mode_stack()))
            return super().training_step(batch, batch_idx)

    module = Looks()
    trainer(MemoryCapture(report_every=4), limit_train_batches=6, limit_val_batches=0).fit(module)
    assert module.depths == [1, 1, 0, 0, 1, 0]


@pytest.mark.parametrize("where", ["training_step", "on_before_optimizer_step", "on_train_batch_end"])
def test_no_dispatch_mode_is_left_after_an_exception(where):
    class Fails(BoringModel):
        def boom(self, *args):
            raise RuntimeError("boom")

    setattr(Fails, where, Fails.boom)
    capture = MemoryCapture()
    with pytest.raises(RuntimeError, match="boom"):
        trainer(capture, limit_train_batches=3, limit_val_batches=0).fit(Fails())
    assert _get_current_dispatch_mode_stack() == []
    assert capture.died_in is None


def test_no_dispatch_mode_is_left_when_the_module_ends_the_epoch_early():
    class Stops(BoringModel):
        def on_train_batch_start(self, batch, batch_idx):
            return -1 if batch_idx == 1 else None

    capture = MemoryCapture()
    trainer(capture, limit_train_batches=5, limit_val_batches=0, max_epochs=2).fit(Stops())
    try:
        assert _get_current_dispatch_mode_stack() == []
    finally:  # one test's leak should not fail the next
        while _get_current_dispatch_mode_stack():
            _get_current_dispatch_mode_stack()[-1].__exit__(None, None, None)


@pytest.mark.slow
def test_one_capture_can_report_two_fits_and_keeps_no_module_alive():
    capture = MemoryCapture()
    for _ in range(2):
        trainer(capture, limit_train_batches=1, limit_val_batches=0).fit(BoringModel())
        gc.collect()  # Lightning's module and trainer refer to each other
    assert [p.phase for p in capture.report.phases] == 2 * list(PHASES)
    assert {p.end["parameters"] for p in capture.report.phases} == {2 * 512}


# -- out of memory

ACTIVITY = {
    "before_forward": "load_batch",
    "after_forward": "forward",
    "after_backward": "backward",
    "after_optimizer_step": "optimizer_step",
}


def oom(capacity_bytes: int, **options: object) -> tuple[torch.OutOfMemoryError, MemoryCapture]:
    """Train on a simulated GPU that is too small."""
    seed_everything(0, verbose=False)
    tracker = Tracker(capacity_bytes)
    capture = MemoryCapture(tracker)
    with tracker, pytest.raises(torch.OutOfMemoryError) as caught:
        trainer(capture, **options).fit(Words(), word_loader())
    assert _get_current_dispatch_mode_stack() == []
    return caught.value, capture


@pytest.mark.slow
@pytest.mark.parametrize("accumulate", [1, 2])
def test_training_dies_where_the_peak_exceeds_the_capacity(accumulate):
    options = {"max_steps": 2, "accumulate_grad_batches": accumulate}
    highest = 0
    died = []
    for phase in follow(Words, **options).report.phases:
        if phase.peak_bytes > highest and phase.phase != "before_forward":
            error, capture = oom(phase.peak_bytes - 512, **options)
            expected = {"step": phase.step, "micro_step": phase.micro_step, "phase": ACTIVITY[phase.phase]}
            assert capture.died_in == expected
            assert on_device(error.held) == error.allocated_bytes
            assert error.held["parameters"] == phase.end["parameters"]
            assert error.held["inputs"] == BATCH_BYTES
            forward = phase.phase == "after_forward"
            # the loss, and a number it was made from, live on through the optimizer step
            assert (error.held["activations"] > 2 * 512) == (forward or phase.phase == "after_backward")
            assert (error.held["temporaries"] == 0) == forward
            assert error.allocated_bytes + error.requested_bytes > error.capacity_bytes
            died.append(capture.died_in["phase"])
        highest = max(highest, phase.peak_bytes)
    assert set(died) == {"forward", "backward", "optimizer_step"}


@pytest.mark.slow
def test_a_run_fits_into_exactly_its_peak():
    peak = follow(Words, max_steps=2).report.peak_bytes
    assert follow(Words, capacity_bytes=peak, max_steps=2).report.peak_bytes == peak


@pytest.mark.slow
def test_after_out_of_memory_everything_is_free_again():
    seed_everything(0, verbose=False)
    tracker = Tracker(20_000_000)
    with tracker, pytest.raises(torch.OutOfMemoryError):
        trainer(MemoryCapture(tracker)).fit(Words(), word_loader())
    gc.collect()
    assert tracker.peak_bytes > 5_000_000
    assert tracker.allocated_bytes == 0


def test_a_batch_that_does_not_fit_dies_in_load_batch_of_its_own_step():
    class Grows(RandomDataset):
        def __getitem__(self, index):
            return torch.zeros(32 if index < 2 else 32_000_000)

    tracker = Tracker(1_000_000)
    capture = MemoryCapture(tracker)
    with tracker, pytest.raises(torch.OutOfMemoryError):
        trainer(capture, limit_val_batches=0).fit(BoringModel(), DataLoader(Grows(32, 4)))
    assert capture.died_in == {"step": 2, "micro_step": 0, "phase": "load_batch"}


def test_a_model_that_was_built_before_and_does_not_fit_is_out_of_memory():
    module = Words()
    tracker = Tracker(100_000)
    capture = MemoryCapture(tracker)
    with tracker, pytest.raises(torch.OutOfMemoryError):
        trainer(capture).fit(module, word_loader())
    assert capture.died_in is not None
    assert _get_current_dispatch_mode_stack() == []


def test_an_out_of_memory_error_before_training_belongs_to_load_model():
    tracker = Tracker(100_000)
    capture = MemoryCapture(tracker)
    with tracker, pytest.raises(torch.OutOfMemoryError):
        Words()
    assert capture.died_in is None
    assert capture.activity == "load_model"


class Net(torch.nn.Linear):
    """A layer with a forward of its own: torch's own are not compiled one by one."""

    def forward(self, x):
        return super().forward(x) + 1


class Compiled(BoringModel):
    """A demo whose net goes through torch.compile, with a backend that says when it runs."""

    def __init__(self, how):
        super().__init__()
        self.runs, self.layer = 0, Net(32, 2)

        def backend(graph, examples):
            def run(*args):
                self.runs += 1
                return graph.forward(*args)

            return run

        if how == "wrapped":
            self.layer = torch.compile(self.layer, backend=backend)
        elif how == "in place":
            self.layer.compile(backend=backend)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["wrapped", "in place"])
def test_a_compiled_module_runs_compiled_and_a_cpu_says_that_it_has_no_report(how):
    loader = DataLoader(RandomDataset(32, 16), batch_size=4)
    without, module = Compiled(how), Compiled(how)
    trainer().fit(without, loader)
    capture = MemoryCapture(report_every=1)
    with pytest.warns(UserWarning, match="Compiled is compiled.*train it without torch.compile, or on CUDA"):
        trainer(capture).fit(module, loader)
    assert module.runs == without.runs > 0
    assert capture.report.phases == []
    assert "compiled" in capture.refused
    assert not _get_current_dispatch_mode_stack()


@pytest.mark.slow
def test_a_module_that_is_compiled_as_a_whole_is_told_too():
    capture = MemoryCapture()
    with pytest.warns(UserWarning, match="is compiled"):
        trainer(capture, max_steps=1).fit(torch.compile(BoringModel(), backend="eager"))
    assert capture.report.phases == []


def test_a_module_that_is_not_compiled_is_not_refused():
    capture = MemoryCapture()
    trainer(capture, max_steps=1).fit(BoringModel())
    assert capture.refused is None
    assert capture.report.phases


class Both(ManualOptimBoringModel):
    """Two optimizers that both step in each batch."""

    def training_step(self, batch, batch_idx):
        for optimizer in self.optimizers():
            optimizer.zero_grad()
            self.manual_backward(self.step(batch))
            optimizer.step()

    def configure_optimizers(self):
        return [torch.optim.SGD(self.layer.parameters(), lr=0.1) for _ in range(2)]


def test_a_batch_is_one_step_however_many_optimizers_step():
    capture = MemoryCapture(report_every=4)
    trainer(capture, limit_train_batches=6, limit_val_batches=0).fit(Both())
    assert sorted({phase.step for phase in capture.report.phases}) == [0, 1, 4]


def test_the_tensors_of_a_batch_are_found_in_mappings_too():
    tensors = [torch.zeros(1) for _ in range(4)]
    batch = BatchEncoding({"a": tensors[0], "b": [tensors[1], (tensors[2], "text")], "c": {"d": tensors[3], "e": 5}})
    assert list(map(id, tensors_in(batch))) == list(map(id, tensors))


def test_a_run_of_two_optimizers_resumes_at_its_batch():
    optimizers = [torch.optim.SGD(BoringModel().parameters(), lr=0.1) for _ in range(2)]
    capture = MemoryCapture()
    capture.on_train_start(SimpleNamespace(global_step=6, optimizers=optimizers, callbacks=[]), BoringModel())
    assert capture.step == 3


def test_a_copy_of_the_weights_that_a_callback_keeps_counts_as_parameters():
    def parameters(*others):
        tracker = Tracker()
        capture = MemoryCapture(tracker)
        with tracker:
            trainer(capture, *others, max_steps=1, limit_val_batches=0).fit(BoringModel())
        return capture.report.at("after_forward", 0).end["parameters"]

    alone = parameters()
    assert parameters(EMAWeightAveraging()) >= 2 * alone > 0
