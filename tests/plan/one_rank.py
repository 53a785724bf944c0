"""One of two real processes that train for two steps with each config; ``test_parallel`` starts it.

Arguments: rank, file to meet at, a list of configs as JSON, file to write the reports to.
"""

import contextlib
import json
import os
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.nn.parallel import DistributedDataParallel

from labkit import assets
from labkit.config.catalogue.models import architecture
from labkit.config.schema import RunConfig
from labkit.families.blip2.family import Blip2Family
from labkit.families.blip2.inputs import Collator
from labkit.families.tokenizer import IMAGE, TOKEN_IDS
from labkit.memory.capture import MemoryCapture
from labkit.memory.sharded import ShardTracker, follow_gathered
from labkit.memory.tracker import UNDECIDED, Tracker, host
from labkit.train.adapters import add_lora
from labkit.train.build import build_model
from labkit.train.data import EmojiZip
from labkit.train.fsdp import let_gloo_finish, shard
from labkit.train.models import dtype_of
from labkit.train.module import CaptionModule
from labkit.train.optimizers import build_optimizer


def batch_of(config):
    arch, emoji = architecture(config.model_name), EmojiZip(assets.FLUENT_EMOJI)
    collate = Collator(
        Blip2Family().processor(arch), arch.language, config.max_length, arch.num_query_tokens, TOKEN_IDS[IMAGE]
    )
    batch = {key: tensor.clone() for key, tensor in collate([emoji[i] for i in range(config.batch_size)]).items()}
    batch["pixel_values"] = batch["pixel_values"].to(dtype_of(config.precision))  # on the simulated GPU, as Lightning
    return batch


def train(config):
    """Two optimizer steps of this rank under the tracker; its report and its losses."""
    sharded = config.strategy == "fsdp"
    tracker = (ShardTracker if sharded else Tracker)(device_type="cpu")
    capture = MemoryCapture(tracker)
    loop = SimpleNamespace(
        global_step=0, accumulate_grad_batches=config.accumulate_grad_batches, world_size=1, callbacks=[]
    )  # fmt: skip
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=config.precision == "bf16-mixed", cache_enabled=False)
    with tracker:
        with host() if sharded else contextlib.nullcontext():
            model = build_model(config, "cpu")
            if config.use_lora or config.use_qlora:
                model = add_lora(model, config)
            if config.precision == "bf16-true":
                model.to(torch.bfloat16)  # as Lightning does: adapters are made in 32 bits
            if sharded:
                shard(model, config, init_device_mesh("cpu", (config.devices,)))
                let_gloo_finish(model)
        if sharded:
            follow_gathered(model, tracker)
        else:
            # buckets are made in C++, where the tracker sees them, and hang on no gradient yet
            tracker.assign((*model.parameters(), *model.buffers()), "parameters")
            model = DistributedDataParallel(model, gradient_as_bucket_view=True)
            tracker.reassign(UNDECIDED, "gradients")
            model.module.register_forward_pre_hook(lambda *_: tracker.reassign(UNDECIDED, "gradients"))  # rebuilt
        module = CaptionModule(config, model)
        module.trainer = loop
        optimizer = build_optimizer(config, module.parameters())
        loop.optimizers = [optimizer]
        loading_peak_bytes = tracker.peak_bytes
        capture.on_train_start(loop, module)
        for _ in range(2):
            for micro_step in range(config.accumulate_grad_batches):
                batch = batch_of(config)
                last = micro_step == config.accumulate_grad_batches - 1
                capture.on_train_batch_start(loop, module, batch, micro_step)
                with contextlib.nullcontext() if sharded or last else model.no_sync():
                    with autocast:
                        loss = module.training_step(batch, micro_step) / loop.accumulate_grad_batches
                    if micro_step == 0:
                        optimizer.zero_grad()
                    capture.on_before_backward(loop, module, loss)
                    loss.backward()
                capture.on_after_backward(loop, module)
                if last:
                    module.on_before_optimizer_step(optimizer)
                    optimizer.step()
                    loop.global_step += 1
                del loss
                module.on_train_batch_end(None, batch, micro_step)
                capture.on_train_batch_end(loop, module, None, batch, micro_step)
                del batch
        capture.teardown(loop, module, "fit")
    return {
        "report": capture.report.to_dict(), "losses": module.take_losses(), "loading_peak_bytes": loading_peak_bytes,
    }  # fmt: skip


def main(rank, rendezvous, configs, path):
    # torch's own: DTensor, DDP and FSDP on a CPU have nothing more to say
    warnings.simplefilter("ignore")
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    configs = [RunConfig(**keys) for keys in json.loads(configs)]
    dist.init_process_group("gloo", f"file://{rendezvous}", rank=int(rank), world_size=configs[0].devices)
    found = [train(config) for config in configs]
    dist.destroy_process_group()
    Path(path).write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
