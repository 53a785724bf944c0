"""cuDNN's attention kernel is off in training, captioning and planning alike, and a key turns it on in all three."""

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from tiny import OPT, config_of
from torch.utils._python_dispatch import TorchDispatchMode

from labkit.config.catalogue.models import architecture
from labkit.config.layers import resolve
from labkit.config.schema import RunConfig
from labkit.config.workspace import Workspace
from labkit.families.blip2.family import Blip2Family
from labkit.families.blip2.inputs import Collator
from labkit.plan.semantics import DeviceSemantics
from labkit.train import captions
from labkit.train.attention import kernels
from labkit.train.build import build_model
from labkit.train.captions import captions_of_run, write_captions
from labkit.train.events import EventWriter
from labkit.train.fit import fit

on_and_off = pytest.mark.parametrize("cudnn", [False, True])


@pytest.fixture(autouse=True)
def as_torch_has_it():
    assert torch.backends.cuda.cudnn_sdp_enabled(), "torch's default, so that off is somebody's doing"
    yield
    assert torch.backends.cuda.cudnn_sdp_enabled(), "left as it was"


@pytest.mark.slow
@on_and_off
def test_training_has_it_as_the_key_says(cudnn, tmp_path, monkeypatch):
    seen, attend = [], F.scaled_dot_product_attention

    def spy(*args, **kwargs):
        seen.append(torch.backends.cuda.cudnn_sdp_enabled())
        return attend(*args, **kwargs)

    monkeypatch.setattr(F, "scaled_dot_product_attention", spy)
    workspace = Workspace.find()
    values = {"max_steps": 1, "batch_size": 2, "num_train_samples": 8, "val_fraction": 0.25, "act_ckpt": True}
    values |= {"cudnn_attention": True} if cudnn else {}
    run = resolve(workspace, "reduced_batch", values, "tiny").config
    with EventWriter(tmp_path / "events.jsonl") as events:
        assert fit(tmp_path, run, workspace.data, events)["status"] == "ok"
    assert seen
    assert set(seen) == {cudnn}


@pytest.mark.slow
@on_and_off
def test_captions_have_it_as_the_key_says(cudnn, monkeypatch, tmp_path):
    tiny, picture = config_of(OPT, cudnn_attention=cudnn), Image.new("RGB", (64, 64), "red")
    model, processor = build_model(tiny, "cpu"), Blip2Family().processor(architecture(OPT))
    seen, generate = [], model.generate

    def spy(**batch):
        seen.append(torch.backends.cuda.cudnn_sdp_enabled())
        return generate(**batch)

    monkeypatch.setattr(model, "generate", spy)
    monkeypatch.setattr(captions, "load", lambda *_: (model, processor))
    picture.save(tmp_path / "picture.png")
    captions_of_run(tiny, tmp_path, [tmp_path / "picture.png"])
    collate = Collator(processor, "opt", 6, model.config.num_query_tokens, model.config.image_token_id)
    write_captions(model, collate, [picture], max_length=2)
    assert seen == [cudnn, False]


class Operations(TorchDispatchMode):
    """The attention kernels that are called."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if "attention" in func.name():
            self.names.append(func.name().removeprefix("aten::_scaled_dot_product_").removesuffix("_attention"))
        return func(*args, **(kwargs or {}))


def planned(dtype, mask=None, **values):
    """The kernel that a plan takes for a call with or without a mask."""
    query, key, value = (torch.empty(2, 4, 64, 80, dtype=dtype, device="meta", requires_grad=True) for _ in range(3))
    with DeviceSemantics(RunConfig(**{"device": "cuda", **values})), Operations() as operations:
        out = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    assert (out.shape, out.dtype) == (query.shape, dtype)
    return operations.names


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_plan_takes_it_as_the_key_says(dtype):
    mask = torch.ones(2, 1, 64, 64, dtype=torch.bool, device="meta")
    learnt = torch.zeros(1, 4, 64, 64, dtype=dtype, device="meta", requires_grad=True)
    assert planned(dtype) == ["flash"]
    assert planned(dtype, mask) == ["efficient"]
    assert planned(dtype, cudnn_attention=True) == planned(dtype, mask, cudnn_attention=True) == ["cudnn"]
    assert planned(dtype, learnt, cudnn_attention=True) == ["efficient"]
    assert planned(torch.float32, mask, cudnn_attention=True) == ["efficient"]
    on_cpu = planned(torch.bfloat16, mask, cudnn_attention=True, device="simulated", capacity_gib=1)
    assert on_cpu == ["flash_attention_for_cpu"]


def test_the_choice_is_put_back_after_an_error():
    with pytest.raises(RuntimeError, match="of the step"), kernels(cudnn=False):
        assert not torch.backends.cuda.cudnn_sdp_enabled()
        raise RuntimeError("of the step")
