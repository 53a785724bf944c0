"""Liger-Kernel's published memory of plain PyTorch layers, beside what labkit's engine predicts for them.

    PYTHONPATH=. python tests/truth/liger.py FILE.csv

A row is one layer or loss, measured by a script of that project as ``max_memory_allocated`` in MiB, the middle one of
ten runs with the peak reset before each. What is built, kept and run here is what the script of that kernel does: it
also allocates the same layer of the other provider, whose weights are counted. One thing is fitted, to one row, which
is not scored (``_left_over``).
"""

import csv
import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from labkit.config.errors import ConfigError
from labkit.config.gpus import find_gpu
from labkit.config.schema import RunConfig
from labkit.plan.errors import PredictionError
from labkit.plan.semantics import DeviceSemantics, replacing
from labkit.plan.shapes import ShapeTracker
from labkit.plan.workspaces import workspace_bytes

MIB = 2**20
CLOSE = 0.005
"""How far off a prediction may be, as a share of what was measured."""

_COLUMNS = ("kernel_name", "kernel_provider", "kernel_operation_mode", "x_name", "x_value", "y_value_50", "gpu_name",
            "timestamp", "extra_benchmark_config_str")  # fmt: skip
_RUNS = 3
"""Gradients exist from the second run on, so the third is like all that follow."""


class NotPredicted(Exception):
    """Why a row has no prediction."""


@dataclass(frozen=True)
class Layer:
    """What a script measures. ``backward`` is given what ``forward`` returned."""

    forward: Callable[[], Any]
    backward: Callable[[Any], Any]


# -- layers


def _empty(*size: int, dtype: torch.dtype = torch.float32, grad: bool = False) -> Tensor:
    return torch.empty(*size, dtype=dtype, requires_grad=grad)


def _labels(classes: int, *size: int) -> Tensor:
    """Their values are not read."""
    return torch.empty(*size, dtype=torch.int64)


def _new_gradient(y: Tensor) -> None:
    y.backward(torch.empty_like(y), retain_graph=True)


def _given_gradient(gradient: Tensor) -> Callable[[Tensor], None]:
    return lambda y: y.backward(gradient, retain_graph=True)


def _input(*size: int, dtype: torch.dtype, given: bool) -> tuple[Tensor, Callable[[Tensor], None]]:
    """An input, and backward with a gradient that is ``given`` from the start, or else drawn in each run."""
    x = _empty(*size, dtype=dtype)
    backward = _given_gradient(torch.empty_like(x)) if given else _new_gradient
    return x.requires_grad_(), backward


def _is_newer(c: dict[str, Any]) -> bool:
    """Whether it is of the scripts since April 2026, which build the layer of one provider and draw each gradient."""
    return "hidden_size" in c or "vocab_size" in c


def _tokens(c: dict[str, Any]) -> int:
    count: int = c["BT"] if "BT" in c else c["T"]
    return count


class _GatedMlp(nn.Module):
    """Llama's."""

    def __init__(self, hidden: int, inner: int, activation: str) -> None:
        super().__init__()
        self.gate, self.up = nn.Linear(hidden, inner, bias=False), nn.Linear(hidden, inner, bias=False)
        self.down = nn.Linear(inner, hidden, bias=False)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        gate = self.gate(x)
        return self.down((F.silu(gate) if self.activation == "silu" else F.gelu(gate, approximate="tanh")) * self.up(x))


def _mlp(c: dict[str, Any]) -> Layer:
    batch = c["bsz"] if "bsz" in c else c["B"]
    if c["hidden_act"] not in ("silu", "gelu_pytorch_tanh"):
        raise NotPredicted(f"activation {c['hidden_act']} is not written down")
    x = _empty(batch, c["T"], c["hidden_size"], dtype=c["dtype"], grad=True)
    layer = _GatedMlp(c["hidden_size"], c["intermediate_size"], c["hidden_act"]).to(c["dtype"])
    return Layer(lambda: layer(x), _new_gradient)


def _rms_norm(c: dict[str, Any]) -> Layer:
    newer = _is_newer(c)
    size, count = (c["hidden_size"], _tokens(c)) if newer else (c["H"], c["M"])
    weight, *other = (_empty(size, grad=True) for _ in range(1 if newer else 2))
    x, backward = _input(count, size, dtype=c["dtype"], given=not newer)

    def forward(kept: Any = other) -> Tensor:
        numbers = x.float()
        squares = numbers.pow(2).mean(-1, keepdim=True)
        numbers = numbers * torch.rsqrt(squares + c["eps"])
        return weight * numbers.to(x.dtype)

    return Layer(forward, backward)


def _layer_norm(c: dict[str, Any]) -> Layer:
    newer = _is_newer(c)
    size, count = (c["hidden_size"], _tokens(c)) if newer else (c["N"], c["M"])
    dtype = c["dtype"] if newer else torch.float32
    layers = [nn.LayerNorm(size, eps=c["eps"], dtype=dtype) for _ in range(1 if newer else 2)]
    x, backward = _input(count, size, dtype=c["dtype"], given=not newer)
    return Layer(lambda: layers[0](x), backward)


def _group_norm(c: dict[str, Any]) -> Layer:
    newer = _is_newer(c)
    size, count = (c["hidden_size"], max(1, _tokens(c) // c["H"])) if newer else (c["C"], c["M"])
    dtype = c["dtype"] if newer else torch.float32
    groups = size // c["channels_per_group"]
    layers = [nn.GroupNorm(groups, size, eps=c["eps"], dtype=dtype) for _ in range(1 if newer else 2)]
    x, backward = _input(count, size, c["H"], dtype=c["dtype"], given=not newer)
    return Layer(lambda: layers[0](x), backward)


def _megatron_rms_norm(c: dict[str, Any]) -> Layer:
    layer = nn.RMSNorm(c["H"], eps=1e-6).to(torch.bfloat16)
    x = _empty(c["S"], c["B"], c["H"], dtype=torch.bfloat16, grad=True)
    return Layer(lambda: layer(x), lambda y: y.sum().backward())


def _megatron_swiglu(c: dict[str, Any]) -> Layer:
    x = _empty(c["S"], c["B"], 2 * c["ffn_local"], dtype=torch.bfloat16, grad=True)

    def forward() -> Tensor:
        x.grad = None
        gate, up = torch.chunk(x, 2, -1)
        return F.silu(gate) * up

    return Layer(forward, lambda y: y.sum().backward())


def _softmax(c: dict[str, Any]) -> Layer:
    if _is_newer(c):
        x = _empty(_tokens(c), c["hidden_size"], dtype=c["dtype"], grad=True)
        return Layer(lambda: torch.softmax(x, -1), _new_gradient)
    x = _empty(c["N"], dtype=c["dtype"], grad=True)  # the script makes one row of N numbers and does not use M
    return Layer(lambda: torch.softmax(x, -1), lambda y: y.backward(torch.ones_like(y), retain_graph=True))


def _sparsemax(c: dict[str, Any]) -> Layer:
    newer = _is_newer(c)
    size = (_tokens(c), c["hidden_size"]) if newer else (c["B"] * c["T"], c["V"])
    x, backward = _input(*size, dtype=c["dtype"], given=not newer)
    dim = c.get("dim", -1)

    def forward() -> Tensor:
        ordered, _ = torch.sort(x, dim=dim, descending=True)
        sums = torch.cumsum(ordered, dim=dim)
        places = torch.arange(1, x.size(dim) + 1, dtype=x.dtype).view(1, -1)
        bound = 1 + places * ordered
        support = bound > sums
        count = support.sum(dim=dim, keepdim=True).clamp(min=1)
        total = (ordered * support).sum(dim=dim, keepdim=True)
        threshold = (total - 1) / count
        return torch.clamp(x - threshold, min=0)

    return Layer(forward, backward)


def _neighborhood_attention(c: dict[str, Any]) -> Layer:
    batch, length, hidden, heads = c["batch_size"], c["seq_len"], c["hidden_size"], c["num_heads"]
    size = hidden // heads
    four = [[nn.Linear(hidden, hidden, bias=c["bias"]).to(c["dtype"]) for _ in range(4)] for _ in range(2)]
    to_query, to_key, to_value, to_out = four[0]
    x, backward = _input(batch, length, hidden, dtype=c["dtype"], given=True)

    def forward(kept: Any = four) -> Tensor:
        query, key, value = to_query(x), to_key(x), to_value(x)
        query = query.view(batch, length, heads, size).transpose(1, 2)
        key = key.view(batch, length, heads, size).transpose(1, 2)
        value = value.view(batch, length, heads, size).transpose(1, 2)
        scores = torch.matmul(query, key.transpose(-2, -1)) * size**-0.5
        mask = torch.zeros(length, length, dtype=torch.bool)  # its values are written one by one, from the host
        scores = scores.masked_fill(~mask, float("-inf"))
        weights = torch.softmax(scores, dim=-1)
        attended = torch.matmul(weights, value)
        attended = attended.transpose(1, 2).contiguous().view(batch, length, hidden)
        return to_out(attended)

    return Layer(forward, backward)


def _convolved_attention(c: dict[str, Any]) -> Layer:
    raise NotPredicted("its convolution: what cuDNN takes for it is chosen at run time and not planned")


def _moe(c: dict[str, Any]) -> Layer:
    """A loop over the experts that have tokens. Which have which is drawn here as there, by another generator."""
    tokens, experts, hidden, inner, chosen = c["T"], c["E"], c["H"], c["intermediate_dim"], c["K"]
    dtype = c["dtype"]
    x = _empty(tokens, hidden, dtype=dtype, grad=True)
    gate_up = _empty(experts, 2 * inner, hidden, dtype=dtype, grad=True) * 0.02
    down = _empty(experts, hidden, inner, dtype=dtype, grad=True) * 0.02
    with torch.device("cpu"):
        drawn = torch.rand(tokens, experts, generator=torch.Generator().manual_seed(42)).topk(chosen, dim=-1).indices
        counts = drawn.flatten().bincount(minlength=experts).tolist()
    index = torch.empty(tokens, chosen, dtype=torch.int32)
    weights = torch.empty(tokens, chosen, dtype=dtype).requires_grad_()

    def forward() -> Tensor:
        final = torch.zeros_like(x)
        with torch.no_grad():
            mask = torch.zeros(tokens, chosen, experts, dtype=torch.int64)
            mask.scatter_(-1, index.long().unsqueeze(-1), 1)
            mask = mask.permute(2, 1, 0)
            hit = torch.empty(sum(map(bool, counts)), 1, dtype=torch.int64)
        for expert, count in enumerate(counts):
            if not count:
                continue
            mask[expert].contiguous()  # torch.where reads it in order
            places = torch.empty(2, count, dtype=torch.int64)
            place, token = places.unbind(0)
            current = x[token]
            gate, up = F.linear(current, gate_up[expert]).chunk(2, dim=-1)
            current = F.silu(gate) * up
            current = F.linear(current, down[expert])
            current = current * weights[token, place, None]
            final.index_add_(0, token, current.to(final.dtype))
        del hit
        return final

    return Layer(forward, _new_gradient)


def _llama4_rope(c: dict[str, Any]) -> Layer:
    hidden = c["hidden_size"] if "hidden_size" in c else c["H"]
    length = c["seq_len"] if "seq_len" in c else c["T"]
    size = hidden // c["num_q_heads"]
    query, key = (_empty(1, length, c[heads], size, dtype=c["dtype"], grad=True)
                  for heads in ("num_q_heads", "num_kv_heads"))  # fmt: skip
    gradients = torch.empty_like(query), torch.empty_like(key)
    kept = torch.empty(1, length, dtype=torch.int64), _empty(size // 2)  # positions and inverse frequencies
    angles = torch.empty(1, length, size // 2, dtype=torch.complex64)

    torch.mm(kept[1][:, None], kept[1][None])  # the embedding multiplies them

    def forward(kept: Any = kept) -> Any:
        pairs = [torch.view_as_complex(t.float().reshape(*t.shape[:-1], -1, 2)) for t in (query, key)]
        turned = [torch.view_as_real(pair * angles[:, :, None, :]).flatten(3) for pair in pairs]
        return turned[0].type_as(query), turned[1].type_as(key)

    def backward(turned: Any) -> None:
        torch.autograd.grad(turned, (query, key), gradients, allow_unused=True, retain_graph=True)

    return Layer(forward, backward)


# -- losses


def _cross_entropy(c: dict[str, Any]) -> Layer:
    newer = _is_newer(c)
    count, classes = (_tokens(c), c["vocab_size"]) if newer else (c["B"] * c["T"], c["V"])
    x, target = _empty(count, classes, grad=True), _labels(classes, count)
    return Layer(lambda: F.cross_entropy(x, target), _new_gradient if newer else lambda y: y.backward())


def _linear_cross_entropy(c: dict[str, Any]) -> Layer:
    newer = _is_newer(c)
    hidden, classes = (c["hidden_size"], c["vocab_size"]) if newer else (c["H"], c["V"])
    layers = [nn.Linear(hidden, classes, bias=False, dtype=c["dtype"]) for _ in range(1 if newer else 2)]
    x, target = _empty(_tokens(c), hidden, dtype=c["dtype"], grad=True), _labels(classes, _tokens(c))

    def forward() -> Tensor:
        logits = layers[0](x)
        return F.cross_entropy(logits, target)

    return Layer(forward, _new_gradient if newer else lambda y: y.backward())


def _divergence(mine: Tensor, other: Tensor) -> Tensor:
    """Jensen and Shannon's, of logarithms of probabilities, half and half."""
    mine, other = mine.float(), other.float()
    middle = torch.lerp(torch.exp(other), torch.exp(mine), 0.5)
    to_other = F.kl_div(torch.log(middle), other, reduction="batchmean", log_target=True)
    return 0.5 * to_other + 0.5 * F.kl_div(torch.log(middle), mine, reduction="batchmean", log_target=True)


def _divergence_by_row(mine: Tensor, other: Tensor) -> Tensor:
    mine, other = mine.float(), other.float()
    middle = torch.lerp(torch.exp(mine), torch.exp(other), 0.5)
    to_other = 0.5 * F.kl_div(torch.log(middle), other, reduction="none", log_target=True).sum(-1)
    loss = to_other + 0.5 * F.kl_div(torch.log(middle), mine, reduction="none", log_target=True).sum(-1)
    return (loss / mine.shape[0]).sum()


def _jsd(c: dict[str, Any]) -> Layer:
    newer = _is_newer(c)
    rows, classes = (_tokens(c), c["vocab_size"]) if newer else (c["B"] * c["T"], c["V"])
    x, target = _empty(rows, classes, grad=True).log_softmax(-1), _empty(rows, classes).log_softmax(-1)
    if newer:
        return Layer(lambda: _divergence_by_row(x, target), _new_gradient)
    return Layer(lambda: _divergence(x, target), lambda y: y.backward(retain_graph=True))


def _linear_jsd(c: dict[str, Any]) -> Layer:
    """Both providers' layers share their weights."""
    student, teacher = (nn.Linear(c["H"], c["V"], bias=False, dtype=c["dtype"]) for _ in range(2))
    x, y = _empty(c["BT"], c["H"], dtype=c["dtype"], grad=True), _empty(c["BT"], c["H"], dtype=c["dtype"])

    def forward() -> Tensor:
        logits, teachers = student(x), teacher(y)
        mine = torch.log_softmax(logits / 1.0, dim=-1)
        other = torch.log_softmax(teachers / 1.0, dim=-1)
        return _divergence(mine, other).to(c["dtype"])

    return Layer(forward, lambda loss: loss.backward())


def _tvd(c: dict[str, Any]) -> Layer:
    newer = _is_newer(c)
    size = (_tokens(c), c["vocab_size"]) if newer else (c["B"] * c["T"], c["V"])
    if c.get("reduction", "batchmean") != "batchmean":
        raise NotPredicted(f"reduction {c['reduction']} is not written down")
    x, target = _empty(*size, grad=True).softmax(-1), _empty(*size).softmax(-1)

    def forward() -> Tensor:
        distance = torch.abs(x - target) / 2.0
        return torch.sum(distance) / x.size(0)

    return Layer(forward, _new_gradient if newer else lambda y: y.backward(retain_graph=True))


def _log_probabilities(logits: Tensor, labels: Tensor) -> Tensor:
    """Of the labels, on average over a sequence."""
    mask = labels != -100
    labels = torch.where(labels == -100, 0, labels)
    of_labels = torch.gather(logits.log_softmax(-1), dim=2, index=labels.unsqueeze(2)).squeeze(2)
    return (of_labels * mask).sum(-1) / mask.sum(-1)


def _preference(difference: Callable[[Tensor, Tensor], Tensor]) -> Callable[[dict[str, Any]], Layer]:
    """A linear layer and a loss of pairs: the first half of the batch is chosen, the other rejected."""

    def build(c: dict[str, Any]) -> Layer:
        layers = [nn.Linear(c["H"], c["V"], bias=False, dtype=c["dtype"]) for _ in range(2)]
        x, target = _empty(c["B"], c["T"], c["H"], dtype=c["dtype"], grad=True), _labels(c["V"], c["B"], c["T"])
        half = c["B"] // 2
        kept = _left_over(c)

        def both() -> tuple[Tensor, Tensor, Tensor, Tensor]:
            outputs = x @ layers[0].weight.t()
            logits = outputs.float()
            entropy = F.cross_entropy(logits[:half].view(-1, logits.shape[-1]), target[:half].view(-1))
            return _log_probabilities(logits, target), logits[:half], logits[half:], entropy

        def forward(kept: Any = kept) -> Tensor:
            probabilities, *logits, entropy = both()
            loss = entropy - difference(probabilities[:half], probabilities[half:]).mean()
            del logits
            return loss

        return Layer(forward, lambda y: y.backward())

    return build


def _left_over(c: dict[str, Any]) -> list[Tensor]:
    """What the process still holds of Liger's own loss of pairs, which its script measured before, compiled.

    Read off one row (``FITTED``): the weight, its gradient, and of a pair of sequences, in which that loss goes through
    a batch, five copies and three of its labels. Why that torch kept them is not known; torch 2.13 keeps nothing.
    """
    pair = 2 * c["T"]
    kept = [_empty(c["V"], c["H"], dtype=c["dtype"]) for _ in range(2)]
    kept += [_empty(pair, c["H"], dtype=c["dtype"]) for _ in range(5)]
    return kept + [_labels(c["V"], pair) for _ in range(3)]


FITTED = {"kernel_name": "fused_linear_orpo_loss", "x_value": "2", "timestamp": "2024-11-13 22:08:56"}
"""The row that what is left over was read off. It is not predicted."""


def _odds_ratio(chosen: Tensor, rejected: Tensor) -> Tensor:
    odds = (chosen - rejected) - (torch.log1p(-torch.exp(chosen)) - torch.log1p(-torch.exp(rejected)))
    return 0.1 * F.logsigmoid(odds)


def _sigmoid(chosen: Tensor, rejected: Tensor) -> Tensor:
    return F.logsigmoid(0.1 * (chosen - rejected))


def _kto(c: dict[str, Any]) -> Layer:
    """The batch is split by labels drawn at random; how does not matter, as both parts are copied."""
    layers = [nn.Linear(c["H"], c["V"], bias=c["bias"], dtype=c["dtype"]) for _ in range(4)]
    linear, reference = layers[:2]
    x, other = (_empty(c["B"], c["T"], c["H"], dtype=c["dtype"]) for _ in range(2))
    target = _labels(c["V"], c["B"], c["T"])
    chosen, rejected = (torch.empty(c["B"] // 2, dtype=torch.int64) for _ in range(2))

    def logits_of(numbers: Tensor, layer: nn.Linear) -> Tensor:
        outputs = numbers @ layer.weight.t()
        return outputs if layer.bias is None else outputs + layer.bias

    def both() -> list[Tensor]:
        outputs = logits_of(x, linear)
        logits = outputs.float()
        probabilities = _log_probabilities(logits, target)
        return [probabilities[chosen], probabilities[rejected], logits[chosen], logits[rejected]]

    def forward(kept: Any = layers) -> Tensor:
        mine = both()
        with torch.no_grad():
            others = _log_probabilities(logits_of(other, reference), target)
        gains = mine[0] - others[chosen], others[rejected] - mine[1]
        losses = torch.cat([1 - torch.sigmoid(c["beta"] * gain) for gain in gains])
        for part in mine:
            part.detach().sum()
        return losses.mean()

    return Layer(forward, lambda y: y.backward())


def _grpo(c: dict[str, Any]) -> Layer:
    layers = [nn.Linear(c["H"], c["V"], bias=False, dtype=c["dtype"]) for _ in range(4)]
    x = _empty(c["B"], c["T"], c["H"], dtype=c["dtype"], grad=True)
    tokens = _labels(c["V"], c["B"], c["T"])
    mask, gains = torch.ones(c["B"], c["T"]), _empty(c["B"], 1, dtype=c["dtype"])
    other = _empty(c["B"], c["T"], c["H"], dtype=c["dtype"])

    def forward() -> Tensor:
        logits = x @ layers[0].weight.t()
        logs = F.log_softmax(logits.float(), dim=-1)
        mine = logs.gather(dim=-1, index=tokens.unsqueeze(-1)).squeeze(-1)
        with torch.no_grad():
            other_logits = other @ layers[1].weight.t()
            other_logs = F.log_softmax(other_logits.float(), dim=-1)
            theirs = other_logs.gather(dim=-1, index=tokens.unsqueeze(-1)).squeeze(-1)
        ratio = torch.exp(mine - mine.detach())
        loss = -torch.min(ratio * gains, torch.clamp(ratio, 0.8, 1.2) * gains)
        divergence = torch.exp(theirs - mine) - (theirs - mine) - 1.0
        loss = loss + 0.1 * divergence
        return (loss * mask).sum() / torch.clamp(mask.sum(), min=1.0)

    return Layer(forward, lambda y: y.backward())


def _distilled(soft: Callable[[Tensor, Tensor], Tensor]) -> Callable[[dict[str, Any]], Layer]:
    """A student of half the size learns labels and a teacher's logits."""

    def build(c: dict[str, Any]) -> Layer:
        hidden, classes, dtype = c["H"], c["V"], c["dtype"]
        layers = [nn.Linear(size, classes, bias=c["bias"], dtype=dtype) for size in (hidden // 2, hidden) * 2]
        drawn = _empty(c["BT"], hidden // 2, dtype=dtype)
        x, kept = (drawn.clone().requires_grad_() for _ in range(2))
        teacher, target = _empty(c["BT"], hidden, dtype=dtype), _labels(classes, c["BT"])

        def both() -> tuple[Tensor, Tensor, Tensor]:
            outputs = x @ layers[0].weight.t()
            with torch.no_grad():
                teachers = teacher @ layers[1].weight.t()
            logits, others = outputs.float(), teachers.float()
            return logits, others, F.cross_entropy(logits, target)

        def forward(kept: Any = (drawn, kept)) -> Tensor:
            logits, others, hard = both()
            logits /= 1.0
            others /= 1.0
            return c["weight_hard_loss"] * hard + c["weight_soft_loss"] * soft(logits, others)

        return Layer(forward, lambda y: y.backward())

    return build


def _soft_divergence(logits: Tensor, others: Tensor) -> Tensor:
    mine, other = F.log_softmax(logits, dim=-1), F.log_softmax(others, dim=-1)
    middle = 0.5 * mine.exp() + 0.5 * other.exp()
    middle_log = middle.log()
    to_mine = F.kl_div(middle_log, mine, reduction="batchmean", log_target=True)
    to_other = F.kl_div(middle_log, other, reduction="batchmean", log_target=True)
    return 0.5 * to_other + 0.5 * to_mine


def _soft_cosine(logits: Tensor, others: Tensor) -> Tensor:
    mine, other = F.normalize(logits, p=2, dim=-1), F.normalize(others, p=2, dim=-1)
    cosine = F.cosine_similarity(mine, other, dim=-1)
    return (1.0 * (1 - cosine)).mean()


# -- rows


@dataclass(frozen=True)
class Kernel:
    """How a kernel's script measures: whether it multiplies matrices, and whether it looks at the mode at all.
    ``known_from`` is the day of the oldest script, where rows are older than that and the loss has changed since."""

    build: Callable[[dict[str, Any]], Layer]
    multiplies: bool = False
    by_mode: bool = False
    known_from: str = ""


KERNELS = {
    "cross_entropy": Kernel(_cross_entropy),
    "distill_cosine_loss": Kernel(_distilled(_soft_cosine), multiplies=True),
    "distill_jsd_loss": Kernel(_distilled(_soft_divergence), multiplies=True, known_from="2025-01-31"),
    "fused_linear_cpo_loss": Kernel(_preference(_sigmoid), multiplies=True),
    "fused_linear_cross_entropy": Kernel(_linear_cross_entropy, multiplies=True),
    "fused_linear_grpo_loss_sequence": Kernel(_grpo, multiplies=True),
    "fused_linear_grpo_loss_token": Kernel(_grpo, multiplies=True),
    "fused_linear_jsd": Kernel(_linear_jsd, multiplies=True),
    "fused_linear_orpo_loss": Kernel(_preference(_odds_ratio), multiplies=True),
    "fused_linear_simpo_loss": Kernel(_preference(_sigmoid), multiplies=True),
    "fused_moe": Kernel(_moe, multiplies=True, by_mode=True),
    "fused_neighborhood_attention": Kernel(_neighborhood_attention, multiplies=True),
    "geglu": Kernel(_mlp, multiplies=True, by_mode=True),
    "group_norm": Kernel(_group_norm),
    "jsd": Kernel(_jsd),
    "kto_loss": Kernel(_kto, multiplies=True),
    "layer_norm": Kernel(_layer_norm),
    "llama4_rope": Kernel(_llama4_rope),
    "megatron_rms_norm": Kernel(_megatron_rms_norm),
    "megatron_swiglu": Kernel(_megatron_swiglu),
    "multi_token_attention": Kernel(_convolved_attention),
    "rms_norm": Kernel(_rms_norm),
    "softmax": Kernel(_softmax, by_mode=True),
    "sparse_multi_token_attention": Kernel(_convolved_attention),
    "sparsemax": Kernel(_sparsemax),
    "swiglu": Kernel(_mlp, multiplies=True, by_mode=True),
    "tiled_geglu": Kernel(_mlp, multiplies=True, by_mode=True),
    "tiled_swiglu": Kernel(_mlp, multiplies=True, by_mode=True),
    "tvd": Kernel(_tvd),
}


def predict(row: dict[str, str]) -> int:
    """The peak in bytes; ``NotPredicted`` says why there is none."""
    kernel = KERNELS.get(row["kernel_name"])
    if kernel is None:
        raise NotPredicted("nobody has written down what this kernel's script does")
    if row["kernel_provider"] not in ("huggingface", "torch"):
        raise NotPredicted(f"{row['kernel_provider']} is no provider of plain layers")
    if FITTED.items() <= row.items():
        raise NotPredicted("what another kernel leaves in the process was read off this row")
    if row["timestamp"] < kernel.known_from:
        raise NotPredicted("it was measured before the oldest known version of its script")
    mode = row["kernel_operation_mode"] if kernel.by_mode else "full"
    if mode not in ("forward", "backward", "full"):
        raise NotPredicted(f"there is no mode {mode!r}")
    try:
        machine = RunConfig(**find_gpu(row["gpu_name"]).values)
    except ConfigError as error:
        raise NotPredicted(str(error)) from error
    try:
        with replacing(), DeviceSemantics(machine), ShapeTracker() as tracker, torch.device("meta"):
            tracker.workspace_bytes, tracker.on_cuda = workspace_bytes(machine), True
            return _peak_bytes(kernel, _config(row), mode, tracker)
    except KeyError as error:
        raise NotPredicted(f"its settings have no {error}, as this version of the script has") from error
    except PredictionError as error:
        raise NotPredicted(str(error)) from error
    except (ArithmeticError, AttributeError, RuntimeError, TypeError, ValueError) as error:
        raise NotPredicted(f"its settings build no layer: {error}".splitlines()[0]) from error


def _config(row: dict[str, str]) -> dict[str, Any]:
    config = {key: value for key, value in json.loads(row["extra_benchmark_config_str"]).items() if value is not None}
    if "dtype" in config:
        config["dtype"] = getattr(torch, config["dtype"].removeprefix("torch."))
    try:
        config[row["x_name"]] = int(float(row["x_value"]))
    except ValueError as error:
        raise NotPredicted(f"its {row['x_name']} is {row['x_value']!r}, not a number") from error
    return config


def _peak_bytes(kernel: Kernel, config: dict[str, Any], mode: str, tracker: ShapeTracker) -> int:
    if kernel.multiplies:  # speed, or another mode, is measured before in the same process: both workspaces are there
        torch.mm(_empty(1, 1, grad=True), _empty(1, 1)).backward(_empty(1, 1))
    layer = kernel.build(config)
    if mode == "forward":
        run: Callable[[], Any] = layer.forward
    elif mode == "backward":
        y = layer.forward()
        gradient = torch.empty_like(y)
        run = lambda: y.backward(gradient, retain_graph=True)  # noqa: E731
    else:

        def run() -> None:
            out = layer.forward()
            layer.backward(out)

    for _ in range(_RUNS):
        tracker.peak_bytes = tracker.allocated_bytes
        run()
    return tracker.peak_bytes


@dataclass(frozen=True)
class Result:
    """A row with its prediction, or with why it has none."""

    row: dict[str, str]
    measured_mib: float
    predicted_mib: float | None = None
    reason: str = ""

    @property
    def error(self) -> float:
        """As a share of what was measured."""
        return (self.predicted_mib or 0) / self.measured_mib - 1

    @property
    def close(self) -> bool:
        """Whether it was predicted, and well."""
        return self.predicted_mib is not None and abs(self.error) <= CLOSE


class BadFile(Exception):
    """Of a file that cannot be read, what is wrong in one line."""


def read(path: Path) -> list[dict[str, str]]:
    """All rows of a file."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file, strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadFile(f"{path}: {error}") from error
    for number, row in enumerate(rows, 1):
        missing = [name for name in _COLUMNS if not row.get(name)]
        if missing:
            raise BadFile(f"{path}: row {number} has no {', '.join(missing)}")
        try:
            positive = 0 < float(row["y_value_50"]) < float("inf")
            settings = json.loads(row["extra_benchmark_config_str"])
        except ValueError as error:
            raise BadFile(f"{path}: row {number}: {error}") from error
        if not positive or not isinstance(settings, dict):
            raise BadFile(f"{path}: row {number}: the memory is not above 0, or the settings are not a dictionary")
    return rows


def compare(rows: Iterable[dict[str, str]]) -> list[Result]:
    """Predict all rows."""
    results = []
    for row in rows:
        measured_mib = float(row["y_value_50"])
        try:
            results.append(Result(row, measured_mib, predict(row) / MIB))
        except NotPredicted as error:
            results.append(Result(row, measured_mib, reason=str(error)))
    return results


def by_kernel(results: Iterable[Result]) -> dict[str, list[Result]]:
    """Results by the name of the kernel, in order of names."""
    found: dict[str, list[Result]] = {}
    for result in sorted(results, key=lambda result: result.row["kernel_name"]):
        found.setdefault(result.row["kernel_name"], []).append(result)
    return found


def report(results: list[Result]) -> str:
    """A table by kernel, and every row that is off or has no prediction."""
    lines = ["| kernel | rows | predicted | within 0.5% | worst |", "| --- | --- | --- | --- | --- |"]
    for name, some in [*by_kernel(results).items(), ("all", results)]:
        predicted = [result for result in some if result.predicted_mib is not None]
        worst = max((result.error for result in predicted), key=abs, default=None)
        lines.append(
            f"| {name} | {len(some)} | {len(predicted)} | {sum(result.close for result in some)} | "
            f"{'' if worst is None else f'{worst:+.3%}'} |"
        )
    lines += ["", "| row | measured MiB | predicted MiB | off, or why not |", "| --- | --- | --- | --- |"]
    for result in results:
        if not result.close:
            row, mib = result.row, result.predicted_mib
            name = (f"{row['kernel_name']} {row['kernel_operation_mode']} {row['x_name']}={row['x_value']}, "
                    f"{row['gpu_name'].removeprefix('NVIDIA ')}, {row['timestamp'][:10]}")  # fmt: skip
            told = result.reason if mib is None else f"{result.error:+.3%}"
            lines.append(f"| {name} | {result.measured_mib:.3f} | {'' if mib is None else f'{mib:.3f}'} | {told} |")
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    """Print the report on one file."""
    if len(arguments) != 1:
        print("usage: python tests/truth/liger.py FILE.csv", file=sys.stderr)
        return 2
    try:
        rows = read(Path(arguments[0]))
    except BadFile as error:
        print(error, file=sys.stderr)
        return 1
    print(report(compare(rows)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
