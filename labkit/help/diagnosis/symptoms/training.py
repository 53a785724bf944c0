"""The training itself: losses that are not a number, and steps that autograd, DDP or a scaler refuse."""

from labkit.help.diagnosis.symptoms.symptom import symptom

_NUMBER = r"[\"']?\s*(?:is|=|:|\||,)?\s*(?:tensor\()?[\"']?(?:nan|[+-]?inf)\b"

SYMPTOMS = (
    symptom(
        "ready_twice",
        r"Expected to mark a variable ready only once",
        "DDP saw a parameter's gradient twice in one step: most often activation checkpointing of the reentrant kind "
        "under DDP, with LoRA or with parameters that not every step uses.",
        'gradient_checkpointing_kwargs={"use_reentrant": False}  # TrainingArguments; torch.utils.checkpoint: '
        "use_reentrant=False",
        "ddp_find_unused_parameters=False  # TrainingArguments (Lightning: strategy='ddp'); every step then uses all "
        "of "
        "them",
        "DistributedDataParallel(model, static_graph=True)  # if every step does the same",
    ),
    symptom(
        "unscale_fp16",
        r"Attempting to unscale FP16 gradients",
        "The weights that are trained are in fp16 while a GradScaler is at work (fp16 mixed precision), which wants "
        "them "
        "in fp32.",
        "for p in model.parameters(): p.data = p.data.float() if p.requires_grad else p.data  # fp32 for what is "
        "trained: "
        "LoRA's and modules_to_save",
        "bf16=True in place of fp16=True  # bf16 needs no scaler (A100 and later)",
    ),
    symptom(
        "nan_loss",
        r"Current loss scale already at minimum|FloatingPointError: (?:Minimum loss scale|Loss is)"
        r"|(?:ValueError|RuntimeError|FloatingPointError|AssertionError): [^\n]{0,80}\b(?:NaN|nan|non-?finite"
        r"|infinite)\b"
        r"[^\n]{0,80}loss|loss is (?:nan|infinite|nan or infinite)[^\n]{0,40}(?:stop|abort|exit)",
        "The loss or its gradients left the range of numbers, and the program stopped.",
        "{nan}",
    ),
    symptom(
        "nan_loss",
        rf"\b(?:\w+[/_])?loss{_NUMBER}|(?:NaN|Inf)s? (?:or (?:NaN|Inf)s? )?(?:found|detected|encountered)|Detected NaN"
        rf"|\bppl{_NUMBER}|[\"']loss[\"']: 0\.0, [\"']grad_norm[\"']: [\"']?nan",
        "The loss is not a number any more (in 16 bits most often); what was trained since is lost.",
        "{nan}",
        tier="note",
    ),
)
