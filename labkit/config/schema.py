"""RunConfig: every key of a run, typed and documented, and the rules that combinations must keep."""

import ast
import dataclasses
import functools
import hashlib
import inspect
import json
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from labkit.config import values
from labkit.config.catalogue.architecture import Architecture
from labkit.config.catalogue.models import COURSE_MODEL, architecture
from labkit.config.combinations import broken_combinations
from labkit.config.device import OLD_NAMES as OLD_DEVICES
from labkit.config.device import SIMULATED, Device, is_cuda, is_simulated
from labkit.config.errors import ConfigError, nearest
from labkit.config.precision import DTYPES, Dtypes, Precision
from labkit.config.ranges import MOST, Above, AtLeast, Range, Share
from labkit.config.strategy import OLD_NAMES as OLD_STRATEGIES
from labkit.config.strategy import PLACEMENTS, Placement, Strategy

Optim = Literal["adamw", "sgd", "adam_8bit", "paged_adam_8bit", "deepspeed_cpu"]


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """The settings of one run. Each experiment of the course is a difference to ``baseline``.

    Checked when it is made: ``ConfigError`` names the key or the two keys that cannot stand together. Its ``others``
    are what else cannot.
    """

    # -- model and data
    model_name: str = COURSE_MODEL
    """Name of a known model (``labkit configs --models`` lists them), or a folder that ``save_pretrained`` wrote."""
    weights: Literal["pretrained", "random"] = "pretrained"
    """``pretrained`` loads the model's checkpoint (``labkit fetch`` brings it), ``random`` builds the same model with
    random weights: the same memory and time, and no download. Stand-ins of a profile are random."""
    dataset: str = "fluent_emoji"
    """Name in the data registry, or a folder in a Hugging Face data set layout with ``image`` and ``text``."""
    num_train_samples: Annotated[int | None, AtLeast(1)] = 512
    """Samples to train on, drawn with ``seed``; empty takes all."""
    val_fraction: Annotated[float, Share()] = 0.0
    """Share of the samples held out for a validation loss after each epoch."""
    max_length: Annotated[int, AtLeast(1, most=10**6)] = 50
    """Text tokens a caption is cut or padded to; the image tokens come on top."""
    num_workers: Annotated[int, AtLeast(0, most=1024)] = 8
    """Loader processes; they decode and tokenize, so that the training step only trains."""

    # -- training
    lr: Annotated[float, Above(0)] = 5e-6
    """Learning rate of the first step after warm-up."""
    lr_scaling: Literal["none", "linear", "sqrt"] = "none"
    """What more devices do to ``lr``: nothing, times their number, or times its square root."""
    lr_schedule: Literal["constant", "linear", "cosine"] = "constant"
    """How the learning rate changes after ``warmup_steps``: level, or down to zero at the last step."""
    warmup_steps: Annotated[int, AtLeast(0)] = 0
    """Optimizer steps over which the learning rate rises from zero."""
    batch_size: Annotated[int, AtLeast(1, most=10**9)] = 64
    """Samples of one forward and backward (a micro batch) on one device."""
    accumulate_grad_batches: Annotated[int, AtLeast(1)] = 1
    """Micro batches whose gradients are summed before one optimizer step."""
    global_batch_size: Annotated[int | None, AtLeast(1)] = None
    """Samples of one optimizer step over all devices; sets ``accumulate_grad_batches`` to what divides it, and
    lowers ``batch_size`` where a device's share is less."""
    loss_average: Literal["tokens", "batches"] = "tokens"
    """``tokens``: sum over the caption tokens of all micro batches, divided by their number. ``batches``: mean of
    the micro batches' means, which weighs a token by how short its batch's captions are."""
    precision: Precision = "32-true"
    """Number format of weights and arithmetic, in Lightning's words."""
    optim: Optim = "adamw"
    """Optimizer; ``adam_8bit`` is AdamW with 8-bit state from bitsandbytes. ``paged_adam_8bit`` keeps that state in
    memory that CUDA moves between host and GPU as it is used; it counts as the host's."""
    optim_impl: Literal["foreach", "fused", "for-loop"] = "foreach"
    """How adamw and sgd walk the parameters; foreach needs temporaries as large as the parameters."""
    dropout: Annotated[float | None, Share()] = None
    """Dropout probability in the connector and the language model; empty keeps the architecture's own."""
    cudnn_attention: bool = False
    """Let torch take cuDNN's attention kernel where it prefers it (H100, H200, B200 in 16 bits). Off by default:
    with a mask its gradients have been NaN there (pytorch issue 196678)."""
    act_ckpt: bool = False
    """Activation checkpointing: keep only the layers' inputs, compute the rest again in backward."""
    max_epochs: Annotated[int, AtLeast(1)] = 2
    """Passes over the data."""
    max_steps: Annotated[int | None, AtLeast(1)] = None
    """Optimizer steps after which training ends, whatever ``max_epochs`` says; empty sets no limit."""
    limit_train_batches: Annotated[int | None, AtLeast(1)] = None
    """Micro batches per epoch at most; empty sets no limit."""
    seed: Annotated[int, AtLeast(0)] = 42
    """Seed of weights, shuffling and dropout. Same config, same seed, same losses (on a CPU bit by bit)."""
    freeze_vision: bool = False
    """Do not train the vision tower."""
    freeze_connector: bool = False
    """Do not train the connector, which hands the image's features to the language model."""
    freeze_language: bool = False
    """Do not train the language model."""

    # -- adapters
    use_lora: bool = False
    """Train low-rank adapters instead of the weights."""
    use_qlora: bool = False
    """LoRA over base weights in 4 bits."""
    lora_r: Annotated[int, AtLeast(1, most=2**16)] = 16
    """Rank of the adapters."""
    lora_alpha: Annotated[int, AtLeast(1)] = 32
    """Scale of the adapters' output, divided by ``lora_r``."""
    lora_dropout: Annotated[float, Share()] = 0.05
    """Dropout before the adapters."""
    double_quant: bool = False
    """QLoRA: quantize the scales of the 4-bit blocks too; 0.13 instead of 0.5 bits a weight."""
    lora_targets: tuple[str, ...] | None = None
    """Names of the layers that get adapters; empty takes the query and value projections."""

    # -- machine
    device: Device = SIMULATED
    """``simulated`` is the CPU with a hard memory capacity (``virtual`` is its old name); ``cuda`` a GPU."""
    capacity_gib: Annotated[float | None, Above(0)] = None
    """Memory of the device in GiB. A simulated GPU needs it; on CUDA it caps what PyTorch reserves,
    empty takes the whole GPU."""
    compute_capability: Annotated[float | None, Above(0)] = None
    """What a GPU can do, by NVIDIA's number (9.0 on H100, 8.0 on A100). Only a plan reads it: cuBLAS keeps larger
    workspaces from 9.0 on. Empty plans for 9.0."""
    devices: Annotated[int, AtLeast(1, most=100_000)] = 1
    """Number of devices of a node; each has a process of its own, a rank."""
    num_nodes: Annotated[int, AtLeast(1, most=100_000)] = 1
    """Number of nodes. On more than one a launcher (``torchrun``) starts the run on each."""
    strategy: Strategy = "auto"
    """Which device holds what. ``ddp``: each has everything. ``fsdp`` and ZeRO (``deepspeed_stage_2``, ``_3``): each
    has a share of gradients and optimizer state, and except in stage 2 of the weights too. ``pipeline`` (pipeline
    parallel; its old name is ``layer_split``): each has a part of the layers. ``_offload`` keeps optimizer state and
    master weights in host memory, in stage 3 the weights too. On the simulated GPU, fetching them back costs nothing,
    since a CPU moves no memory."""
    collective_timeout_s: Annotated[float, Above(0, most=10**8)] = 600.0  # no clock runs for longer
    """How long a rank waits for the others in an operation that all take part in; then the run ends as a time-out."""

    # -- what is written
    report_every: Annotated[int, AtLeast(1)] = 50
    """Memory is reported at optimizer steps 0 and 1 and then at every step divisible by this."""
    enable_checkpointing: bool = False
    """Save the run's state now and then; the same command resumes such a run where it stopped."""
    save_every: Annotated[int | None, AtLeast(1)] = None
    """Optimizer steps between checkpoints; empty writes one at every 5% of the steps."""
    keep_checkpoints: Annotated[int, AtLeast(1)] = 2
    """How many of the newest checkpoints are kept."""
    save_model: bool = False
    """Write a ``save_pretrained`` folder with the processor at the end of the run."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, coerce(field.name, getattr(self, field.name)))
        if self.global_batch_size is not None:
            _refuse(_out_of_range(self))
            self._divide(self.global_batch_size)
        wrong = _out_of_range(self)
        odd = {key for error in wrong for key in error.keys}
        _refuse([*wrong, *(error for error in broken_combinations(self) if not odd & set(error.keys))])

    def _divide(self, global_batch_size: int) -> None:
        share, left = divmod(global_batch_size, self.shares)
        if left:
            many = "devices" if self.devices > 1 else "num_nodes"
            raise ConfigError(
                f"global_batch_size={global_batch_size} does not divide into devices={self.devices} x num_nodes="
                f"{self.num_nodes}; use a multiple of {self.shares}.",
                ("global_batch_size", many),
            )
        batch_size = min(self.batch_size, share)
        if share % batch_size:
            raise ConfigError(
                f"global_batch_size={global_batch_size} does not divide into batch_size={self.batch_size} "
                f"x devices={self.devices}; use a multiple of {batch_size * self.shares}.",
                ("global_batch_size", "batch_size"),
            )
        object.__setattr__(self, "batch_size", batch_size)
        object.__setattr__(self, "accumulate_grad_batches", share // batch_size)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON or YAML."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}

    @property
    def hash(self) -> str:
        """Twelve hexadecimal digits that are the same for the same settings."""
        return _hash_of(self.to_dict())

    @functools.cached_property
    def architecture(self) -> Architecture:
        """What is known of the model. Raises ``ConfigError`` for a folder that holds none."""
        try:
            return architecture(self.model_name)
        except ConfigError as error:
            error.keys = ("model_name",)
            raise

    @property
    def frozen(self) -> tuple[str, ...]:
        """The model's attributes that are not trained, by ``freeze_*``."""
        parts = self.architecture.parts
        return tuple(name for part, names in parts.items() if getattr(self, f"freeze_{part}") for name in names)

    @property
    def placement(self) -> Placement:
        """What ``strategy`` means."""
        return PLACEMENTS[self.strategy]

    @property
    def dtypes(self) -> Dtypes:
        """What ``precision`` means."""
        return DTYPES[self.precision]

    @property
    def simulated(self) -> bool:
        """``device`` is the CPU with a hard memory capacity."""
        return is_simulated(self.device)

    @property
    def on_cuda(self) -> bool:
        """``device`` is a real GPU."""
        return is_cuda(self.device)

    @property
    def world_size(self) -> int:
        """Ranks of the run: one for each device of each node."""
        return self.devices * self.num_nodes

    @property
    def shares(self) -> int:
        """Parts that each global batch is divided into; where layers are split, every rank sees all of it."""
        return 1 if self.placement.splits_layers else self.world_size

    @property
    def scaled_lr(self) -> float:
        """``lr`` as ``lr_scaling`` has it for so many devices."""
        return self.lr * {"none": 1, "linear": self.shares, "sqrt": self.shares**0.5}[self.lr_scaling]

    @property
    def capacity_bytes(self) -> int | None:
        """``capacity_gib`` in bytes."""
        return None if self.capacity_gib is None else int(self.capacity_gib * 2**30)


def read_config(values: Mapping[str, Any]) -> RunConfig:
    """The config of a record; ``ConfigError`` for one that another version of labkit has written."""
    if unknown := values.keys() - set(keys()):
        raise ConfigError(f"the run's config has the key {min(unknown)!r}, unknown to this labkit; run it again.")
    return RunConfig(**values)


def hash_today(config_values: dict[str, Any], written: str) -> str:
    """The hash that a record's settings have today; ``written`` is the one that they had when the run was made.

    A key that was added later has its default in older runs, and a renamed value is the same value, so such settings
    count as the same. Where ``written`` is not the hash of these values, or they cannot be read, it stays.
    """
    known, renamed = set(keys()), any(value_today(*item) != item[1] for item in config_values.items())
    if not (config_values.keys() < known or (renamed and config_values.keys() == known)):
        return written
    if _hash_of(config_values) != written:
        return written
    try:
        return read_config(config_values).hash
    except ConfigError:
        return written


def _hash_of(plain: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:12]


def keys() -> tuple[str, ...]:
    """All keys, in the order of the class."""
    return tuple(field.name for field in dataclasses.fields(RunConfig))


@functools.cache
def key_docs() -> dict[str, str]:
    """The documentation of every key, read from the class itself."""
    (body,) = (node.body for node in ast.parse(inspect.getsource(RunConfig)).body if isinstance(node, ast.ClassDef))
    docs: dict[str, str] = {}
    for pair in zip(body, body[1:], strict=False):
        match pair:
            case ast.AnnAssign(target=ast.Name(id=key)), ast.Expr(value=ast.Constant(value=str(text))):
                docs[key] = inspect.cleandoc(text).replace("\n", " ")
    return docs


def key_type(key: str) -> str:
    """A key's type in words, for help and error texts."""
    return values.words(_hints()[key])


def key_choices(key: str) -> tuple[str, ...]:
    """The values that a key can have, where it is one of a list; else none."""
    return values.choices(_hints()[key])


def coerce(key: str, value: Any) -> Any:
    """``value`` in the type of ``key``; text as typed on a command line is read.

    Raises ``ConfigError`` for an unknown key or a value of another type.
    """
    if key not in _hints():
        raise ConfigError(f"unknown key {key!r}.{nearest(key, keys())} 'labkit configs --keys' lists all keys.")
    kind = _hints()[key]
    try:
        return values.read(kind, value_today(key, value))
    except (ValueError, OverflowError):
        hint = nearest(value, values.choices(kind))
        raise ConfigError(f"{key}={value!r} is not valid: {key} is {values.words(kind)}.{hint}", (key,)) from None


_OLD_NAMES: dict[str, Mapping[str, str]] = {"device": OLD_DEVICES, "strategy": OLD_STRATEGIES}


def value_today(key: str, value: Any) -> Any:
    """``value``, and where it is a name that one of the key's values had before, that value's name of today."""
    names = _OLD_NAMES.get(key, {})
    return names.get(value, value) if isinstance(value, str) else value


@functools.cache
def _hints() -> dict[str, Any]:
    return typing.get_type_hints(RunConfig)


def _refuse(found: list[ConfigError]) -> None:
    if found:
        raise ConfigError(str(found[0]), found[0].keys, found[1:])


def _out_of_range(config: RunConfig) -> list[ConfigError]:
    found = []
    for key, allowed in _ranges().items():
        value = getattr(config, key)
        if value is not None and (wrong := allowed.fault(value)) is not None:
            shown = f"{value:g}" if abs(value) >= 10**6 else value
            found.append(ConfigError(f"{key}={shown} is not valid: {key} must be {wrong}.", (key,)))
    if config.capacity_bytes == 0 and not any("capacity_gib" in error.keys for error in found):
        said = f"capacity_gib={config.capacity_gib} is not valid: it is less than one byte."
        found.append(ConfigError(said, ("capacity_gib",)))
    if 2**32 <= config.seed <= MOST:
        found.append(ConfigError(f"seed={config.seed} is not valid: seed must be below 2**32.", ("seed",)))
    return found


@functools.cache
def _ranges() -> dict[str, Range]:
    """The range that stands beside a field, by key."""
    hints = typing.get_type_hints(RunConfig, include_extras=True)
    return {key: found for key, hint in hints.items() for found in getattr(hint, "__metadata__", ())}
