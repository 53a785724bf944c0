"""A prediction compared with torch's own MemTracker, which shares no code with it."""

import pytest
import torch
from torch.distributed._tools.mem_tracker import MemTracker

from labkit.config.catalogue.models import architecture
from labkit.config.layers import resolve
from labkit.config.workspace import Workspace
from labkit.families.tokenizer import IMAGE, TOKEN_IDS
from labkit.plan.cache import TraceCache
from labkit.plan.predict import predict
from labkit.plan.steps import batch_of
from labkit.train.build import build_model
from labkit.train.optimizers import build_optimizer
from labkit.train.step import step_loss

TOLERANCE = 0.005
"""What is claimed. Measured with torch 2.13: the peak 0.09%."""


@pytest.mark.slow
def test_two_steps_reach_the_peak_that_torch_finds():
    """``reduced_batch`` on CPU tensors; MemTracker rounds nothing, so blocks of 512 bytes make the difference."""
    config = resolve(Workspace.find(), "reduced_batch").config
    arch = architecture(config.model_name)
    found = predict(config, cache=TraceCache(None))
    theirs = MemTracker()
    model = build_model(config, "cpu")
    optimizer = build_optimizer(config, model.parameters())
    theirs.track_external(model, optimizer)
    with theirs:
        for _ in range(2):
            batch = {key: torch.zeros_like(tensor, device="cpu") for key, tensor in batch_of(config).items()}
            batch["input_ids"][:, : arch.num_query_tokens] = TOKEN_IDS[IMAGE]
            loss, _ = step_loss(model, batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            del loss, batch
            theirs.reset_mod_stats()  # of modules; it takes one iteration only, and the peak stays
    snapshot = {str(kind): size for kind, size in theirs.get_tracker_snapshot("peak")[torch.device("cpu")].items()}
    assert found.peak_bytes == pytest.approx(snapshot["Total"], rel=TOLERANCE)
    peak = found.peak_phase.peak
    for category, kind in (("parameters", "PARAM"), ("gradients", "GRAD"), ("optimizer_gpu", "OPT")):
        assert peak[category] == pytest.approx(snapshot[f"_MemRefType.{kind}"], rel=TOLERANCE), category
