"""Where in a program it died: loading, forward, attention, loss, backward, optimizer, saving or evaluating."""

import re
from dataclasses import dataclass

_FRAME = re.compile(
    r'File "(?P<path>[^"\n]{1,400})", line \d+, in (?P<function>[^\n]{1,200})(?:\n(?P<code>[^\n]{0,400}))?'
)
_RANK = re.compile(r"^\[?(?:rank|default)?\d+\]?: ?", re.MULTILINE)
_WINDOW = 30_000
"""Characters before an event in which its traceback is looked for."""

_PATTERNS = (
    ("saving", r"(?<!load_)(?<!load_model_)state_dict|save_checkpoint|save_model|_save\b|save_pretrained|torch\.save"
               r"|summon_full_params|merge_and_unload|zero_to_fp32"),
    ("evaluating", r"evaluation_loop|eval_loop|prediction_step|\bevaluate\b|validation_step|\bgenerate\b"
                   r"|run_validation|\bpredict\b|compute_metrics|nested_concat|preprocess_logits"),
    ("loading", r"from_pretrained|load_state_dict|load_checkpoint|_load_pretrained|\.cuda\(|\bmodel\.to\(|\bin _apply\b"
                r"|\bin convert\b|prepare_model|DistributedDataParallel\(|FullyShardedDataParallel\(|dispatch_model"
                r"|set_module_tensor_to_device|_materialize|model_to_device|_configure_distributed_model"
                r"|safe_open|replace_with_bnb"),
    ("backward", r"\.backward\(|run_backward|\bin backward\b|_backward\b|_bwd|unpack_hook|recompute"),
    ("optimizer", r"torch/optim/|optimizer\.step|initialize_optimizer_states|_init_group|bitsandbytes/optim"
                  r"|_multi_tensor_|\bin _take_model_step\b|deepspeed/ops/adam|stage_1_and_2\.py.{0,60}\bstep\b"
                  r"|\bexp_avg\b"),
    ("forward", r"\bin forward\b|_call_impl|training_step|compute_loss|\bin closure\b"),
)  # fmt: skip
_PHASES = tuple((name, re.compile(pattern)) for name, pattern in _PATTERNS)
"""Of these the first that fits a frame."""
_STAYS = frozenset(("saving", "evaluating", "loading", "backward"))
"""Phases in which a forward may run that belongs to them: recomputed activations, an evaluation's batches."""

_ATTENTION = re.compile(r"attn|attention|sdpa|scaled_dot_product|softmax|_bmm\b|baddbmm", re.IGNORECASE)
_LOSS = re.compile(r"cross_entropy|nll_loss|loss_function|ForCausalLMLoss|lm_head|logits|CrossEntropyLoss|loss_fct")
_VISION = re.compile(
    r"_vl\b|_vl/|vision|visual|(?:\b|_)vit(?:\b|_)|clip|siglip|llava|idefics|internvl|paligemma|mllama|pixtral|blip",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Place:
    """``phase`` is one of saving, evaluating, loading, backward, optimizer, forward, or None where no frame tells.

    ``part`` is attention, loss or None; ``vision`` says whether a model with images is at work, ``replicated`` whether
    each GPU gets the whole model and ``sharded`` whether each has a part of it (FSDP). ``frame`` is the innermost line
    of code.
    """

    phase: str | None = None
    part: str | None = None
    vision: bool = False
    replicated: bool = False
    sharded: bool = False
    frame: str | None = None

    @property
    def words(self) -> str:
        """In words, for "the memory ran out ..."."""
        if self.phase is None:
            return f"in the {self.part}" if self.part else "in the program"
        said = {
            "saving": "while a checkpoint was saved", "evaluating": "while the model was evaluated",
            "loading": "while the weights were loaded or moved to the GPU", "backward": "in the backward pass",
            "optimizer": "in the optimizer step", "forward": "in the forward pass",
        }[self.phase]  # fmt: skip
        return (
            f"in the {self.part} of the {self.phase} pass"
            if self.part and self.phase in ("backward", "forward")
            else said
        )


def place_of(text: str, position: int) -> Place:
    """Where the program was when it printed what stands at ``position`` of its log, by the traceback before it."""
    window = _RANK.sub("", text[max(0, position - _WINDOW) : position])
    start = window.rfind("Traceback (most recent call last)")
    frames = list(_FRAME.finditer(window, max(0, start)))
    if start < 0:  # a piece of a log: the frames right before the message
        near = window.rfind("\n\n") if "\n\n" in window[-3000:] else max(0, len(window) - 3000)
        frames = [frame for frame in frames if frame.start() >= near]
    end = text.find("\n", position)
    line = text[text.rfind("\n", 0, position) + 1 : len(text) if end < 0 else min(end, position + 2000)]
    said = [f"{frame['path']} in {frame['function']} {(frame['code'] or '').strip()}" for frame in frames]
    phase: str | None = None
    for frame in said or [line]:
        found = next((name for name, pattern in _PHASES if pattern.search(frame)), None)
        if found and not (phase in _STAYS and found in ("forward", "optimizer", "loading")):
            phase = found
    inner = "\n".join(said[-4:])
    part = "loss" if _LOSS.search("\n".join(said[-2:])) else "attention" if _ATTENTION.search(inner) else None
    code = next((frame["code"].strip() for frame in reversed(frames) if (frame["code"] or "").strip()), None)
    last = f"{frames[-1]['path'].rpartition('/')[2]}, in {frames[-1]['function']}: {code}" if frames and code else None
    whole = "\n".join([*said, line])
    return Place(
        phase, part, vision=bool(_VISION.search("\n".join(said))), replicated="DistributedDataParallel" in whole,
        sharded="fsdp" in whole.lower() or "fully_shard" in whole, frame=last,
    )  # fmt: skip
