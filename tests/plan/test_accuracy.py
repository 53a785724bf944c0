"""Predictions against PyTorch's profiler, at 40 million parameters: Lightning trains, and nothing of ours is watching.

The profiler is called by the CPU's allocator. Its events are rounded to blocks of 512 bytes, as a prediction's are.
At the course's batch of 16; with 4 samples backward peaks in the patch convolution, whose CPU kernel makes a copy of
its weight's gradient for itself, and that phase alone is predicted up to 0.8% too low.
"""

import dataclasses
import gc
from itertools import product

import pytest
import torch
from lightning.pytorch import Trainer
from torch.profiler import ProfilerActivity, profile
from torch.utils.data import DataLoader, Dataset

from labkit import assets
from labkit.config.catalogue.models import ARCHITECTURES, architecture
from labkit.config.schema import RunConfig
from labkit.families.blip2.family import Blip2Family
from labkit.families.blip2.inputs import Collator
from labkit.families.tokenizer import IMAGE, TOKEN_IDS
from labkit.memory.report import PHASES
from labkit.plan.cache import TraceCache
from labkit.plan.predict import predict
from labkit.train.build import build_model
from labkit.train.data import EmojiZip
from labkit.train.module import CaptionModule
from tests.support.profiler import Marks, by_profiler

pytestmark = pytest.mark.slow

torch.set_num_threads(1)

TOLERANCE = 0.005
"""What is claimed. Measured with torch 2.13: 0.03%, in the first forward under autocast 0.4%."""
BATCH, LENGTH = 16, 16
VISION = {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 4, "num_attention_heads": 8}
QFORMER = {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 2, "num_attention_heads": 4}
TEXT = {
    "opt": {"hidden_size": 512, "word_embed_proj_dim": 512, "ffn_dim": 2048, "num_hidden_layers": 8,
            "num_attention_heads": 8},
    "t5": {"d_model": 512, "d_ff": 1024, "num_layers": 4, "num_decoder_layers": 4, "num_heads": 8, "d_kv": 64},
}  # fmt: skip
BASES = {"opt": "tiny/blip2-opt-small", "t5": "tiny/blip2-t5-small"}


class Copies(Dataset):
    """Two batches, each made when it is asked for, as a loader makes them."""

    def __init__(self, batch):
        self.batch = batch

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return {key: tensor.clone() for key, tensor in self.batch.items()}


def peaks_by_profiler(config):
    """Highest bytes of each phase, and of all, as the allocator's events add up to."""
    arch, emoji = architecture(config.model_name), EmojiZip(assets.FLUENT_EMOJI)
    collate = Collator(Blip2Family().processor(arch), arch.language, LENGTH, arch.num_query_tokens, TOKEN_IDS[IMAGE])
    batch = collate([emoji[i] for i in range(BATCH)])
    trainer = Trainer(
        accelerator="cpu", precision=config.precision, max_steps=2, limit_val_batches=0, callbacks=[Marks()],
        logger=False, enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
    )  # fmt: skip
    gc.collect()  # what is freed later would count as given back by the run
    # in float32 oneDNN's scratch depends on the instructions that a CPU has, and no GPU has it; in bfloat16 a CPU
    # without oneDNN takes minutes
    plain = torch.backends.mkldnn.flags(enabled=config.precision != "32-true")
    with plain, profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        loader = DataLoader(Copies(batch), batch_size=None)
        trainer.fit(CaptionModule(config, build_model(config, "cpu")), loader, loader)
    found = by_profiler(profiler)
    phases = [peak for name, _, peak in found if name != "loading"]
    return dict(zip(product(range(2), PHASES), phases, strict=True)), max(phases)


@pytest.mark.filterwarnings("ignore:TF32 acceleration on top of oneDNN")  # of the switch, not of what is switched
@pytest.mark.parametrize("precision", ["32-true", "bf16-true", "bf16-mixed"])
@pytest.mark.parametrize("language", ["opt", "t5"])
def test_the_predicted_peak_of_every_phase_is_the_allocators(language, precision, monkeypatch):
    base = architecture(BASES[language])
    name = f"test/forty-{language}"
    forty = dataclasses.replace(
        base, name=name, vision=base.vision | VISION, qformer=base.qformer | QFORMER, text=base.text | TEXT[language]
    )
    monkeypatch.setitem(ARCHITECTURES, name, forty)
    config = RunConfig(
        model_name=name, weights="random", precision=precision, capacity_gib=4, batch_size=BATCH, max_length=LENGTH,
        num_workers=0,
    )  # fmt: skip
    found = predict(config, cache=TraceCache(None))
    numbers = found.at("before_forward", 0).end["parameters"] / (2 if precision == "bf16-true" else 4)
    assert numbers == pytest.approx(40e6, rel=0.05)
    real, highest = peaks_by_profiler(config)
    for phase in found.phases:
        assert phase.peak_bytes == pytest.approx(real[phase.step, phase.phase], rel=TOLERANCE), phase.phase
    assert found.peak_bytes == pytest.approx(highest, rel=TOLERANCE)
