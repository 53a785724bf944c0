"""Mirrors: sources of other libraries that labkit does over, or counts on, and what they were when they were read."""

import hashlib
import importlib
import inspect
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any


@dataclass(frozen=True)
class Mirror:
    """A function or class of a library, the place in labkit that repeats it, and its hash in the releases read."""

    source: str
    """Module and name, with a colon between them."""
    place: str
    why: str
    read: dict[str, str]

    @property
    def library(self) -> str:
        """The distribution that it comes from."""
        return self.source.partition(".")[0]

    def hash(self) -> str:
        """Of the source as it is installed."""
        return hashlib.sha256(inspect.getsource(named(self.source)).encode()).hexdigest()[:16]

    def change(self) -> str | None:
        """What to do about a source that is none of those that were read; None for one that is."""
        installed = f"{self.library} {version(self.library)}"
        try:
            found = self.hash()
        except (ImportError, AttributeError) as error:
            found = f"gone ({error})"
        if found in self.read.values():
            return None
        return (
            f"{self.source} of {installed} is not what it was in {', '.join(self.read)}. {self.place} repeats it "
            f"({self.why}): read both, change {self.place} if it must be, and add {installed}: {found}."
        )


def named(path: str) -> Any:
    """What a module and a name with a colon between them stand for."""
    module, _, name = path.partition(":")
    found = importlib.import_module(module)
    for part in name.split("."):
        found = inspect.getattr_static(found, part) if inspect.isclass(found) else getattr(found, part)
    return found.fget if isinstance(found, property) else found


PIPELINING = "torch.distributed.pipelining.schedules"
FSDP = "torch.distributed.fsdp._fully_shard"
LIGHTNING = "lightning.pytorch"
ZERO = "deepspeed.runtime.zero"

MIRRORS = (
    Mirror(
        f"{PIPELINING}:ScheduleGPipe._step_microbatches",
        "labkit/borrowed/torch_pipelining.py",
        "GPipe is its two halves",
        {"torch 2.13.0": "e9170956f9ff2c7b", "torch 2.11.0": "8f297abeae9264c2"},
    ),
    Mirror(
        f"{PIPELINING}:PipelineScheduleSingle.step",
        "labkit/borrowed/torch_pipelining.py",
        "GPipe.forward begins as it does",
        {"torch 2.13.0": "dc0ea11012577c46", "torch 2.11.0": "d093ab62ca248c53"},
    ),
    Mirror(
        f"{FSDP}._fsdp_param:FSDPParam.alloc_all_gather_outputs",
        "labkit/memory/sharded.py",
        "it alone gives gathered weights their storage",
        {"torch 2.13.0": "a4ae6543c1c00cf2"},
    ),
    Mirror(
        f"{FSDP}._fsdp_param:FSDPParam.free_unsharded_param",
        "labkit/memory/sharded.py",
        "it alone takes it back",
        {"torch 2.13.0": "5d0205cdfe999fe5", "torch 2.11.0": "dbd2d26dbf0ed09b"},
    ),
    Mirror(
        f"{FSDP}._fsdp_param_group:FSDPParamGroup._validate_no_meta_params",
        "labkit/borrowed/torch_fsdp.py",
        "it is left out on meta",
        {"torch 2.13.0": "781e6466bbbe7bc7"},
    ),
    Mirror(
        f"{FSDP}._fsdp_collectives:DefaultAllGather",
        "labkit/train/fsdp.py",
        "gloo's is waited for",
        {"torch 2.13.0": "62dba6313d4278ac", "torch 2.11.0": "686fcadfdf76ad35"},
    ),
    Mirror(
        f"{FSDP}._fsdp_collectives:DefaultReduceScatter",
        "labkit/train/fsdp.py",
        "gloo's is waited for",
        {"torch 2.13.0": "80fb24810737ace2", "torch 2.11.0": "a264cccee1845b63"},
    ),
    Mirror(
        "torch.nn.parallel.distributed:DistributedDataParallel._ddp_init_helper",
        "labkit/plan/ddp.py",
        "the first buckets",
        {"torch 2.13.0": "e3fc1c71e1c8a237", "torch 2.11.0": "031259ce1647b9fc"},
    ),
    Mirror(
        "torch.optim.adam:Adam._init_group",
        "labkit/memory/capture.py",
        "where step counters lie",
        {"torch 2.13.0": "0636be5a849a4d3a", "torch 2.11.0": "3ce4e10725d7c8d4"},
    ),
    Mirror(
        "torch.optim.optimizer:_default_to_fused_or_foreach",
        "labkit/plan/semantics.py",
        "it asks which devices have fused kernels",
        {"torch 2.13.0": "2867120ebdb0605d"},
    ),
    Mirror(
        f"{LIGHTNING}.strategies.strategy:Strategy.teardown",
        "labkit/train/in_place.py",
        "what it moves is taken away from it",
        {"lightning 2.6.6": "0489e3c9707bb30f"},
    ),
    Mirror(
        "torch.nn.parallel.distributed:DistributedDataParallel._pre_forward",
        "labkit/memory/buckets.py",
        "buckets are made again before the module is called",
        {"torch 2.13.0": "2350d156509e9df5"},
    ),
    Mirror(
        f"{LIGHTNING}.strategies.ddp:DDPStrategy.configure_ddp",
        "labkit/memory/buckets.py",
        "what is allocated in it",
        {"lightning 2.6.6": "6665731736fb4eba"},
    ),
    Mirror(
        f"{LIGHTNING}.strategies.deepspeed:DeepSpeedStrategy.setup_environment",
        "labkit/train/strategies.py",
        "without the check for CUDA",
        {"lightning 2.6.6": "de7e179a7fc99ab5"},
    ),
    Mirror(
        f"{LIGHTNING}.strategies.deepspeed:DeepSpeedStrategy.setup_distributed",
        "labkit/train/strategies.py",
        "without the check of device indices",
        {"lightning 2.6.6": "78cee79c7c131102"},
    ),
    Mirror(
        f"{LIGHTNING}.strategies.deepspeed:DeepSpeedStrategy._setup_model_and_optimizer",
        "labkit/train/strategies.py",
        "without the index of a GPU",
        {"lightning 2.6.6": "6a7d1e7daa636a60"},
    ),
    Mirror(
        f"{LIGHTNING}.strategies.deepspeed:DeepSpeedStrategy.save_checkpoint",
        "labkit/train/zero_files.py",
        "the folder that it has DeepSpeed write",
        {"lightning 2.6.6": "c49b25ab28f4489a"},
    ),
    Mirror(
        f"{LIGHTNING}.strategies.parallel:ParallelStrategy.block_backward_sync",
        "labkit/plan/fsdp.py",
        "gradients of every micro step are reduced",
        {"lightning 2.6.6": "c32bf7ae6f8ddae5"},
    ),
    Mirror(
        f"{LIGHTNING}.plugins.precision.half:HalfPrecision.convert_module",
        "labkit/plan/steps.py",
        "the cast of a whole module",
        {"lightning 2.6.6": "51e27b656529704b"},
    ),
    Mirror(
        f"{LIGHTNING}.plugins.precision.amp:MixedPrecision.autocast_context_manager",
        "labkit/plan/semantics.py",
        "autocast without a cache",
        {"lightning 2.6.6": "fefa595404ec32ed"},
    ),
    Mirror(
        f"{LIGHTNING}.loops.optimization.automatic:Closure.closure",
        "labkit/plan/steps.py",
        "the order of forward, zero_grad and backward",
        {"lightning 2.6.6": "9fb9a0ba9c7be69a"},
    ),
    Mirror(
        f"{LIGHTNING}.loops.training_epoch_loop:_TrainingEpochLoop.advance",
        "labkit/plan/steps.py",
        "the order of hooks around a micro step",
        {"lightning 2.6.6": "c7555c016027bd73"},
    ),
    Mirror(
        "transformers.modeling_utils:caching_allocator_warmup",
        "labkit/plan/predict.py",
        "the block that loading reserves",
        {"transformers 5.23.0": "e7043d6ebcb7febb", "transformers 5.17.0": "93b7999ada556913"},
    ),
    Mirror(
        "transformers.core_model_loading:log_conversion_errors",
        "labkit/borrowed/transformers.py",
        "it hides errors and is replaced",
        {"transformers 5.23.0": "2a8a508cbc3c70a5"},
    ),
    Mirror(
        "transformers.models.blip_2.modeling_blip_2:Blip2ForConditionalGeneration.forward",
        "labkit/families/blip2/stages.py",
        "the forward in pieces",
        {"transformers 5.23.0": "cad42980c44591d8", "transformers 5.17.0": "b90901af25702cc6"},
    ),
    Mirror(
        "transformers.models.blip_2.modeling_blip_2:Blip2ForConditionalGeneration.get_image_features",
        "labkit/families/blip2/stages.py",
        "the connector",
        {"transformers 5.23.0": "0e9db1b9560853d7", "transformers 5.17.0": "138810407ca17841"},
    ),
    Mirror(
        "transformers.quantizers.base:get_keys_to_not_convert",
        "labkit/train/quantized.py",
        "what is not quantized",
        {"transformers 5.23.0": "bc4c98efba069106"},
    ),
    Mirror(
        "bitsandbytes.functional:quantize_4bit",
        "labkit/train/quantized.py",
        "what is stored of a weight",
        {"bitsandbytes 0.50.2": "077d74588037da80"},
    ),
    Mirror(
        "bitsandbytes.functional:get_paged",
        "labkit/borrowed/bitsandbytes.py",
        "the mark of paged tensors",
        {"bitsandbytes 0.50.2": "c49e00bba5698f43"},
    ),
    Mirror(
        "bitsandbytes.optim.optimizer:Optimizer8bit.get_state_buffer",
        "labkit/plan/paged.py",
        "which state is paged",
        {"bitsandbytes 0.50.2": "0dcb799c088b0ea5"},
    ),
    Mirror(
        "bitsandbytes.optim.optimizer:Optimizer2State.init_state",
        "labkit/train/disk_room.py",
        "what the state of 8-bit Adam is",
        {"bitsandbytes 0.50.2": "5e0ba3874f962b46"},
    ),
    Mirror(
        "bitsandbytes.nn.modules:Linear4bit.forward",
        "labkit/borrowed/bitsandbytes.py",
        "where it repacks weights for a CPU",
        {"bitsandbytes 0.50.2": "d52cf63457717cc7"},
    ),
    Mirror(
        f"{ZERO}.stage_1_and_2:DeepSpeedZeroOptimizer",
        "labkit/plan/zero.py",
        "buffers and their order; labkit/borrowed/deepspeed.py names them",
        {"deepspeed 0.19.8": "97bb3f8bb0d392e6"},
    ),
    Mirror(
        f"{ZERO}.stage3:DeepSpeedZeroOptimizer_Stage3",
        "labkit/plan/partitioned.py",
        "buffers and their order; labkit/borrowed/deepspeed.py names them",
        {"deepspeed 0.19.8": "65a01ec0fd82858b"},
    ),
    Mirror(
        f"{ZERO}.partitioned_param_coordinator:PartitionedParameterCoordinator",
        "labkit/plan/gathering.py",
        "what is gathered, fetched ahead and let go",
        {"deepspeed 0.19.8": "81dc103e65106307"},
    ),
    Mirror(
        f"{ZERO}.parameter_offload:DeepSpeedZeRoOffload",
        "labkit/plan/gathering.py",
        "the hooks of every module, and when they are called",
        {"deepspeed 0.19.8": "9faa882304a6956d"},
    ),
    Mirror(
        f"{ZERO}.parameter_offload:ZeROOrderedDict",
        "labkit/plan/gathering.py",
        "weights that a module looks at and that are another's",
        {"deepspeed 0.19.8": "4224760029f33937"},
    ),
    Mirror(
        f"{ZERO}.partition_parameters:AllGatherCoalescedHandle",
        "labkit/plan/gathering.py",
        "when weights that came together are copied",
        {"deepspeed 0.19.8": "79b87e73228895e1"},
    ),
    Mirror(
        "deepspeed.runtime.comm.coalesced_collectives:reduce_scatter_coalesced",
        "labkit/plan/partitioned.py",
        "when gradients are copied to be scattered",
        {"deepspeed 0.19.8": "89aab0f80f1a80b3"},
    ),
    Mirror(
        "deepspeed.ops.adam.cpu_adam:DeepSpeedCPUAdam.step",
        "labkit/borrowed/deepspeed.py",
        "the call that counts up the bias correction",
        {"deepspeed 0.19.8": "ffccd5749fc02405"},
    ),
    Mirror(
        "deepspeed.runtime.checkpoint_engine.torch_checkpoint_engine:TorchCheckpointEngine",
        "labkit/train/zero_files.py",
        "how files are written and read",
        {"deepspeed 0.19.8": "394e003a75f47431"},
    ),
)
