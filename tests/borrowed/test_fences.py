"""Fences: every private name that labkit borrows is there and is what it was, and no other room uses one.

What fails here after a library has changed names the place in labkit that counts on it.
"""

import ast
import dataclasses
import functools
import importlib
import inspect
import sys
import textwrap
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from lightning.pytorch.strategies import DDPStrategy
from mirrors import FSDP, MIRRORS, PIPELINING, ZERO, Mirror, named
from private_names import Classes, defined_in, is_private, touched
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from labkit.borrowed import bitsandbytes as of_bitsandbytes
from labkit.borrowed import lightning as of_lightning
from labkit.borrowed import torch as of_torch
from labkit.borrowed import torch_fsdp as of_fsdp
from labkit.borrowed import transformers as of_transformers
from labkit.plan.ddp import FIRST_BUCKET_BYTES

ROOT = Path(__file__).parents[2]
LABKIT = ROOT / "labkit"
SOURCES = {path: path.read_text(encoding="utf-8") for path in sorted(LABKIT.rglob("*.py"))}
OTHERS = [path for path in SOURCES if LABKIT / "borrowed" not in path.parents]
CLASSES = Classes(SOURCES.values())


@pytest.fixture(scope="module", autouse=True)
def environment():
    """DeepSpeed looks at it when it is imported."""
    from labkit.train.strategies import set_environment

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DS_ACCELERATOR", "cpu")  # put back afterwards
        set_environment(simulated=True)
        yield


# -- calls: what is overridden, replaced or called has the parameters that labkit gives it

SELF = "self"
STAGE = "torch.distributed.pipelining.stage:_PipelineStageBase"
CALLS = [
    ("torch.py", "torch.utils._python_dispatch:_disable_current_modes", (), ()),
    ("torch.py", "torch.utils._python_dispatch:_get_current_dispatch_mode_stack", (), ()),
    ("torch.py", "torch.utils._pytree:tree_iter", ("tree",), ()),
    ("torch.py", "torch.utils._pytree:tree_map", ("function", "tree"), ()),
    ("torch.py", "torch.optim.optimizer:_get_fused_kernels_supported_devices", (), ()),
    ("torch_fsdp.py", "torch.distributed.fsdp:FSDPModule._get_fsdp_state", (SELF,), ()),
    ("torch_fsdp.py", f"{FSDP}._fsdp_param:FSDPParam.alloc_all_gather_outputs", (SELF,), ()),
    ("torch_fsdp.py", f"{FSDP}._fsdp_param:FSDPParam.free_unsharded_param", (SELF,), ()),
    ("torch_fsdp.py", f"{FSDP}._fsdp_param_group:FSDPParamGroup._validate_no_meta_params", (SELF,), ()),
    ("torch_fsdp.py", f"{FSDP}._fsdp_api:AllGather.allocate", (SELF, "size"), ("dtype", "device")),
    ("torch_fsdp.py", f"{FSDP}._fsdp_api:AllGather.__call__", (SELF, "output", "input", "group"), ("async_op",)),
    ("torch_fsdp.py", f"{FSDP}._fsdp_api:ReduceScatter.allocate", (SELF, "size"), ("dtype", "device")),
    ("torch_fsdp.py", f"{FSDP}._fsdp_api:ReduceScatter.__call__", (SELF, "output", "input", "group", "op"),
     ("async_op",)),
    ("torch_pipelining.py", f"{PIPELINING}:_sorted_batch_p2p", ("operations",), ("desc",)),
    ("torch_pipelining.py", f"{PIPELINING}:_wait_batch_p2p", ("work",), ()),
    ("torch_pipelining.py", f"{PIPELINING}:ScheduleGPipe._initialize_stage", (SELF, "args", "kwargs"), ()),
    ("torch_pipelining.py", f"{PIPELINING}:ScheduleGPipe._maybe_compute_loss",
     (SELF, "stage", "output", "targets", "i"), ()),
    ("torch_pipelining.py", f"{PIPELINING}:ScheduleGPipe._maybe_get_loss", (SELF, "stage", "i"), ()),
    *(("torch_pipelining.py", f"{STAGE}.{name}", (SELF, "i"), ()) for name in (
        "get_fwd_recv_ops", "get_fwd_send_ops", "get_bwd_recv_ops", "get_bwd_send_ops")),
    ("torch_pipelining.py", f"{STAGE}.clear_runtime_states", (SELF,), ()),
    ("torch_pipelining.py", f"{STAGE}.forward_one_chunk", (SELF, "i", "args", "kwargs"), ()),
    ("torch_pipelining.py", f"{STAGE}.backward_one_chunk", (SELF, "i"), ("loss", "last_backward")),
    ("lightning.py", "lightning.pytorch.strategies:DeepSpeedStrategy._setup_model_and_optimizer",
     (SELF, "model", "optimizer", "lr_scheduler"), ()),
    ("lightning.py", "lightning.pytorch.strategies:DeepSpeedStrategy._init_deepspeed_distributed", (SELF,), ()),
    ("lightning.py", "lightning.pytorch.strategies:DDPStrategy._configure_launcher", (SELF,), ()),
    ("transformers.py", "transformers.core_model_loading:log_conversion_errors", ("key", "info"), ()),
    ("bitsandbytes.py", "bitsandbytes.optim.optimizer:Optimizer8bit.get_state_buffer", (SELF, "p"), ("dtype",)),
    ("deepspeed.py", f"{ZERO}.stage_1_and_2:DeepSpeedZeroOptimizer._optimizer_step", (SELF, "group"), ()),
    ("deepspeed.py", f"{ZERO}.stage_1_and_2:DeepSpeedZeroOptimizer.async_accumulate_grad_in_cpu_via_gpu",
     (SELF, "parameter"), ()),
    ("deepspeed.py", f"{ZERO}.stage3:DeepSpeedZeroOptimizer_Stage3._optimizer_step", (SELF, "group"), ()),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("place", "name", "positional", "by_name"), CALLS, ids=lambda value: str(value)[-60:])
def test_what_is_called_or_replaced_takes_what_it_is_given(place, name, positional, by_name):
    signature = inspect.signature(named(name))
    try:
        signature.bind(*positional, **dict.fromkeys(by_name))
    except TypeError as error:
        pytest.fail(f"labkit/borrowed/{place}: {name}{signature} takes something else: {error}")


# -- attributes: what is read or written is something that the library stores


def source_of(cls):
    return ast.parse(textwrap.dedent(inspect.getsource(cls)))


@functools.cache
def stored(cls):
    """Names that a class and its bases give to themselves, in their bodies and to what their methods call ``self``."""
    found = set()
    for base in cls.__mro__:
        if base.__module__ == "builtins":
            continue
        found |= set(vars(base))
        try:
            tree = source_of(base)
        except (OSError, TypeError):  # of C, or made by a decorator
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                found.add(node.attr)
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                found.add(node.target.id)
    return found


ATTRIBUTES = [
    ("torch.py", "torch.nn:Module", (*of_torch.MODULE_TABLES, "_non_persistent_buffers_set")),
    ("torch.py", "torch.nn.parallel:DistributedDataParallel", ("_has_rebuilt_buckets",)),
    ("torch_fsdp.py", f"{FSDP}._fsdp_param_group:FSDPParamGroup", ("fsdp_params",)),
    ("torch_fsdp.py", f"{FSDP}._fsdp_param:FSDPParam", ("device", "all_gather_outputs")),
    ("torch_pipelining.py", f"{PIPELINING}:ScheduleGPipe", ("_stage", "_internal_losses", "_n_microbatches")),
    ("torch_pipelining.py", STAGE, ("has_backward",)),
    ("lightning.py", "lightning.pytorch:LightningModule", of_lightning.TRAINER),
    ("lightning.py", "lightning.pytorch.strategies:DDPStrategy", ("_lightning_module",)),
    ("bitsandbytes.py", "bitsandbytes.nn:Params4bit", ("quant_state",)),
    ("bitsandbytes.py", "bitsandbytes.nn:Linear4bit", ("support_avx512bf16_for_cpu",)),
    ("bitsandbytes.py", "bitsandbytes.functional:QuantState", ("state2", "shape")),
    ("deepspeed.py", "deepspeed.ops.adam:DeepSpeedCPUAdam", ("ds_opt_adam", "opt_id")),
]


@pytest.mark.slow
@pytest.mark.parametrize(("place", "name", "attributes"), ATTRIBUTES, ids=lambda value: str(value)[-60:])
def test_what_is_read_or_written_is_an_attribute_of_the_library(place, name, attributes):
    missing = set(attributes) - stored(named(name))
    assert not missing, f"labkit/borrowed/{place}: {name} has no {sorted(missing)}"


@pytest.mark.slow
@pytest.mark.parametrize("stage", [2, 3])
def test_zero_stores_what_its_tables_name(stage):
    from labkit.borrowed import deepspeed as fence

    cls = {2: fence.DeepSpeedZeroOptimizer, 3: fence.DeepSpeedZeroOptimizer_Stage3}[stage]
    has = stored(cls)
    for table in (fence.MASTERS, fence.SUMS, fence.GRADIENTS):
        for offloads in (False, True):
            assert set(table[stage, offloads]) <= has
    assert set(fence.IN_HOST_MEMORY[stage]) <= has
    assert {"ipg_buckets", "optimizer", *({"module", "offload_optimizer"} if stage == 3 else {"cpu_offload"})} <= has


def test_the_look_at_attributes_sees_which_is_missing():
    assert "_not_there" not in stored(nn.Module)
    assert {"_buffers", "training", "forward"} <= stored(nn.Module)


# -- what the fences do


def test_a_storage_has_one_key_through_all_its_tensors():
    tensor = torch.zeros(4)
    keys = {of_torch.storage_key(t.untyped_storage()) for t in (tensor, tensor[1:], tensor.detach())}
    assert len(keys) == 1
    assert of_torch.storage_key(torch.zeros(4).untyped_storage()) not in keys


def test_the_holders_of_a_storage_are_counted():
    tensor = torch.zeros(4)
    before = of_torch.storage_uses(tensor.untyped_storage())
    view = tensor[1:]
    assert of_torch.storage_uses(tensor.untyped_storage()) > before
    del view
    assert of_torch.storage_uses(tensor.untyped_storage()) == before


def test_a_sparse_tensor_has_indices_and_values_before_it_is_coalesced():
    with torch.sparse.check_sparse_tensor_invariants():
        sparse = torch.sparse_coo_tensor([[0, 0]], [1.0, 2.0], (3,))
    indices, values = of_torch.sparse_parts(sparse)
    assert (indices.tolist(), values.tolist()) == ([[0, 0]], [1.0, 2.0])


def test_modes_are_told_and_left():
    class Seen(of_torch.TorchDispatchMode):
        count = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            self.count += 1
            return func(*args, **(kwargs or {}))

    with Seen() as mode:
        assert of_torch.entered_modes() == [mode]
        torch.ones(1).add(1)
        seen = mode.count
        with of_torch.without_modes():
            torch.ones(1).add(1)
        assert mode.count == seen > 0


def test_trees_are_walked_and_put_through():
    tree = {"a": [1, (2, None)], "b": 3}
    assert list(of_torch.tree_iter(tree)) == [1, 2, None, 3]
    assert of_torch.tree_map(lambda leaf: leaf and leaf * 2, tree) == {"a": [2, (4, None)], "b": 6}


def test_a_schema_tells_what_is_written_into():
    told = of_torch.schema(torch.ops.aten.add_.Tensor)
    assert told.name == "aten::add_"
    assert told.arguments[0].alias_info.is_write and told.arguments[1].alias_info is None
    assert [one.alias_info.is_write for one in told.returns] == [True]


def test_operations_on_lists_are_told_by_their_names():
    tensors = [torch.ones(2), torch.ones(3)]
    of_torch.multiply_all(tensors, 2.0)
    assert [t.tolist() for t in tensors] == [[2.0] * 2, [2.0] * 3]
    assert torch.ops.aten._foreach_mul_.Scalar.__name__.startswith(of_torch.ON_LISTS)
    assert all(operation.__name__.startswith(of_torch.ON_LISTS) for operation in of_torch.FUSED_SGD)


ATTENTION = {
    of_torch.FLASH_ATTENTION_ON_CPU: ["query", "key", "value", "dropout_p", "is_causal", "attn_mask", "scale"],
    of_torch.FLASH_ATTENTION: ["query", "key", "value", "dropout_p", "is_causal", "return_debug_mask", "scale"],
    of_torch.CUDNN_ATTENTION: [
        "query", "key", "value", "attn_bias", "compute_log_sumexp", "dropout_p", "is_causal", "return_debug_mask",
        "scale",
    ],
    of_torch.EFFICIENT_ATTENTION: [
        "query", "key", "value", "attn_bias", "compute_log_sumexp", "dropout_p", "is_causal", "scale",
    ],
    of_torch.ATTENTION_BY_MATH: [
        "query", "key", "value", "attn_mask", "dropout_p", "is_causal", "dropout_mask", "scale", "enable_gqa",
    ],
}  # fmt: skip


@pytest.mark.parametrize("kernel", ATTENTION, ids=str)
def test_a_kernel_of_attention_takes_what_it_took(kernel):
    assert [argument.name for argument in of_torch.schema(kernel.default).arguments] == ATTENTION[kernel]


def test_optimizers_ask_there_which_devices_have_fused_kernels(monkeypatch):
    parameter = nn.Parameter(torch.zeros(2, device="meta"))
    parameter.grad = torch.zeros_like(parameter)
    optimizer = torch.optim.AdamW([parameter], fused=True)
    with pytest.raises(RuntimeError, match="supported devices"):
        optimizer.step()
    monkeypatch.setattr(*of_torch.FUSED_DEVICES, lambda: ["meta"])
    optimizer.step()


def test_a_buffer_that_is_not_saved_is_told():
    module = nn.Module()
    module.register_buffer("saved", torch.zeros(1))
    module.register_buffer("made", torch.zeros(1), persistent=False)
    assert [of_torch.is_persistent(module, name) for name in ("saved", "made")] == [True, False]
    assert set(module.state_dict()) == {"saved"}


def test_buckets_are_filled_up_to_their_limits_and_the_first_is_as_torch_has_it():
    parameters = [nn.Parameter(torch.zeros(100)) for _ in range(4)]
    assert of_torch.bucket_assignment(parameters, [400, 800]) == [[0], [1, 2], [3]]
    assert FIRST_BUCKET_BYTES == dist._DEFAULT_FIRST_BUCKET_BYTES


@pytest.fixture
def mesh():
    dist.init_process_group("fake", store=of_torch.fake_store(), rank=0, world_size=2)
    yield init_device_mesh("cpu", (2,))
    dist.destroy_process_group()


def test_a_sharded_tensor_is_told_and_gives_its_part(mesh):
    part = torch.ones(3)
    whole = DTensor.from_local(part, mesh)
    assert of_torch.is_sharded(whole) and not of_torch.is_sharded(part)
    assert of_torch.local(whole) is whole._local_tensor and of_torch.local(part) is part


def test_fsdp_has_a_group_of_parameters_that_may_stay_on_meta(mesh):
    module = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    fully_shard(module, mesh=mesh)
    (group,) = of_fsdp.parameter_groups(module)
    assert len(group.fsdp_params) == 2
    group._validate_no_meta_params()
    of_fsdp.keep_on_meta(group)
    assert {parameter.device.type for parameter in group.fsdp_params} == {"meta"}
    assert all(callable(getattr(parameter, name)) for parameter in group.fsdp_params for name in of_fsdp.GATHERING)
    assert len(of_fsdp.parameter_groups(fully_shard(nn.ReLU(), mesh=mesh))) == 0


def test_steps_of_a_strategy_that_are_overridden_are_called():
    class Asked(of_lightning.OpenDeepSpeed):
        def make_engine(self, model, optimizer, lr_scheduler=None):
            return model, lr_scheduler

        def choose_launcher(self):
            self.chosen = True

    asked = object.__new__(Asked)  # which needs CUDA
    assert asked._setup_model_and_optimizer("model", "optimizer", "scheduler") == ("model", "scheduler")
    asked._configure_launcher()
    assert asked.chosen


def test_a_strategy_gets_and_gives_its_module():
    strategy = DDPStrategy()
    module = of_lightning.LightningModule()
    of_lightning.set_module(strategy, module)
    assert strategy.lightning_module is module
    of_lightning.set_module(strategy, None)
    assert strategy.lightning_module is None


def test_an_error_while_a_weight_is_converted_is_raised_and_what_hides_it_is_put_back():
    from transformers import core_model_loading

    hiding = core_model_loading.log_conversion_errors
    with pytest.raises(MemoryError), of_transformers.conversion_errors():
        hidden = core_model_loading.log_conversion_errors("weight", None)
        with hidden:
            raise MemoryError
    assert core_model_loading.log_conversion_errors is hiding


def test_transformers_still_asks_for_the_mark_and_has_a_way_to_checkpoint():
    from transformers import PreTrainedModel

    assert inspect.getsource(PreTrainedModel).count('"_is_hf_initialized"') > 0
    assert any(hasattr(PreTrainedModel, f"{name}_checkpointing_enable") for name in ("activation", "gradient"))
    layer = nn.Linear(1, 1)
    of_transformers.mark_initialized(layer)
    assert layer._is_hf_initialized and layer.weight._is_hf_initialized


def test_only_a_weight_in_4_bits_has_a_state_and_only_a_paged_tensor_the_mark():
    import bitsandbytes

    weight = bitsandbytes.nn.Params4bit(torch.ones(64, 64), requires_grad=False).to("cpu")
    assert isinstance(of_bitsandbytes.quant_state(weight), bitsandbytes.functional.QuantState)
    assert of_bitsandbytes.quant_state(nn.Parameter(torch.ones(1))) is None
    tensor = torch.zeros(1)
    assert not of_bitsandbytes.is_paged(tensor)
    tensor.is_paged = True
    assert of_bitsandbytes.is_paged(tensor)
    assert 'getattr(v, "is_paged", False)' in inspect.getsource(bitsandbytes.optim.optimizer)


def test_layers_in_4_bits_keep_their_packing():
    import bitsandbytes

    model = nn.Sequential(bitsandbytes.nn.Linear4bit(2, 2), nn.Linear(2, 2))
    model[0].support_avx512bf16_for_cpu = True
    of_bitsandbytes.keep_packing(model)
    assert model[0].support_avx512bf16_for_cpu is False
    assert not hasattr(model[1], "support_avx512bf16_for_cpu")


def test_the_hub_has_an_address_of_its_own():
    from labkit.borrowed.huggingface_hub import DEFAULT_ENDPOINT

    assert DEFAULT_ENDPOINT == "https://huggingface.co"


# -- mirrors: sources that labkit does over are what they were


@pytest.mark.slow
@pytest.mark.parametrize("mirror", MIRRORS, ids=lambda mirror: mirror.source)
def test_a_source_that_is_repeated_is_what_it_was_when_it_was_read(mirror):
    change = mirror.change()
    assert change is None, change


@pytest.mark.parametrize("mirror", MIRRORS, ids=lambda mirror: mirror.source)
def test_a_mirror_names_a_place_that_exists_and_its_releases(mirror):
    assert (ROOT / mirror.place).is_file()
    assert mirror.read and all(key.startswith(f"{mirror.library} ") for key in mirror.read)


@pytest.mark.parametrize(
    "mirror",
    [
        dataclasses.replace(MIRRORS[0], read={"torch 0.4": "0123456789abcdef"}),
        Mirror("torch.nn:NotThere", MIRRORS[0].place, "it is gone", {"torch 0.4": "0123456789abcdef"}),
    ],
    ids=["changed", "gone"],
)
def test_a_source_that_has_changed_names_place_and_releases(mirror):
    change = mirror.change()
    assert mirror.place in change and "torch 0.4" in change and torch.__version__.partition("+")[0] in change


# -- no other room uses a private name


@pytest.mark.slow
@pytest.mark.parametrize("path", OTHERS, ids=lambda path: str(path.relative_to(LABKIT)))
def test_no_other_room_touches_a_private_name(path):
    found = list(touched(SOURCES[path], CLASSES))
    assert not found, f"{path} touches {found}; labkit/borrowed is the room for it"


def test_the_fences_themselves_touch_many():
    touching = [path.stem for path in SOURCES if path not in OTHERS and list(touched(SOURCES[path], CLASSES))]
    assert touching == [
        "deepspeed", "huggingface_hub", "lightning", "torch", "torch_fsdp", "torch_pipelining", "transformers",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("import torch.utils._pytree", ["torch.utils._pytree"]),
        ("from torch.utils._pytree import tree_iter", ["torch.utils._pytree.tree_iter"]),
        ("def f():\n    from torch.optim.optimizer import _x", ["torch.optim.optimizer._x"]),
        ("def f(storage):\n    return storage._cdata", ["_cdata"]),
        ("def f(m):\n    m._is_hf_initialized = True", ["_is_hf_initialized"]),
        ('getattr(grad, "_local_tensor", grad)', ["_local_tensor"]),
        ('NAMES = ("_trainer", "plain")', ["_trainer"]),
        ("class A(Base):\n    def f(self):\n        self._stage.run()", ["_stage"]),
        ("class A(Base):\n    def _go(self):\n        super()._go()", ["_go"]),
        ("class A:\n    def __init__(self): self._x = 1\nclass B:\n    def f(self): return self._x", ["_x"]),
        # its own
        ("class A:\n    def __init__(self): self._x = 1\n    def f(self): return self._x", []),
        ("class A:\n    _x: int = 1\nclass B(A):\n    def f(self): return self._x", []),
        ("class A:\n    def _go(self): pass\nclass B(A):\n    def _go(self): super()._go()", []),
        ("class A:\n    def __init__(self): self._x = 1\ndef f(a):\n    return a._x", []),
        ("class A:\n    __slots__ = ('_x',)\n    def f(self): return self._x", []),
        ("import os, _thread\nos._exit(1)", []),
        ("from labkit.train import _own\nimport labkit._own", []),
        ("a.__dict__\nb._repr_html_()\nfor _ in c: pass", []),
        ('name.endswith("_gpu")\nf"{name}_{other}_bytes"\n" ".join(("_x",))', []),
    ],
)
def test_the_look_for_private_names_sees_one_and_leaves_our_own_alone(source, names):
    assert [name for _, name in touched(source, Classes([source]))] == names


def taken(cls):
    """Private names that a class gives to itself, and a class of a library that it extends has too."""
    tops = [(base, base.__module__.partition(".")[0]) for base in cls.__mro__]
    theirs = [base for base, top in tops if base is not cls and top not in sys.stdlib_module_names | {"labkit"}]
    names = {name for base in theirs for name in stored(base)}
    return {name for name in defined_in(source_of(cls)) if is_private(name)} & names


@pytest.mark.slow
def test_no_class_takes_a_private_name_of_a_library_class_that_it_extends():
    """Overridden or by accident: of Lightning's strategies and torch's modules it would be the same to them."""
    found = {}
    for path in OTHERS:
        if path.relative_to(LABKIT).parts[0] not in ("memory", "train", "plan") or "torch" not in SOURCES[path]:
            continue
        module = importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
        for cls in vars(module).values():
            if inspect.isclass(cls) and cls.__module__ == module.__name__ and taken(cls):
                found[cls.__qualname__] = taken(cls)
    assert not found


def test_the_look_at_classes_sees_a_name_that_is_taken():
    class Wrapping(DDPStrategy):
        def __init__(self):
            self._own = self._launcher = None

        def _setup_model(self, model):
            return model

    assert taken(Wrapping) == {"_setup_model", "_launcher"}


@pytest.mark.slow
def test_no_production_code_imports_mock():
    for path, source in SOURCES.items():
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
                assert not any("mock" in name for name in names), path
