"""Logs that end in a step: its loss, precision, shapes or gradients."""

from log_parts import DEEPSPEED, LOADING, SRUN, STEPS, TORCHRUN, Told, packages, trace

TRAIN = "train.py:66:main:trainer.train()"
BACKWARD = f"{packages('torch/_tensor.py')}:648:backward:torch.autograd.backward("

LOGS = (
    Told(
        "no_loss",
        trace(
            "ValueError: The model did not return a loss from the inputs, only the following keys: logits. For "
            "reference, "
            "the inputs it received are input_ids,attention_mask.",
            TRAIN,
        ),
        ("labels", "label_names"),
        ("NaN",),
    ),
    Told(
        "half_on_cpu",
        trace("RuntimeError: \"addmm_impl_cpu_\" not implemented for 'Half'", TRAIN),
        ("float32", "is_available"),
        ("cuda out",),
    ),
    Told(
        "dtype_mismatch",
        trace(
            "RuntimeError: expected mat1 and mat2 to have the same dtype, but got: float != c10::BFloat16",
            TRAIN,
            f"{packages('torch/nn/modules/linear.py')}:134:forward:return F.linear(input, self.weight, self.bias)",
        ),
        ("bf16=True", "prepare_model_for_kbit_training"),
        ("memory",),
    ),
    Told(
        "dtype_mismatch",
        trace(
            "RuntimeError: Input type (torch.cuda.FloatTensor) and weight type (torch.cuda.HalfTensor) should "
            "be the same",
            TRAIN,
        ),
        ("model.dtype",),
        ("memory",),
    ),
    Told(
        "shapes_differ",
        trace(
            "RuntimeError: The size of tensor a (1540) must match the size of tensor b (1024) at non-singleton "
            "dimension "
            "1",
            TRAIN,
            before=STEPS,
            after=SRUN,
        ),
        ("truncation=True", "1024"),
        ("memory",),
    ),
    Told(
        "no_gradient",
        "/opt/env/lib/python3.11/site-packages/torch/utils/checkpoint.py:85: UserWarning: None of the inputs have "
        "requires_grad=True. Gradients will be None\n  warnings.warn(\n"
        + trace(
            "RuntimeError: element 0 of tensors does not require grad and does not have a grad_fn",
            TRAIN,
            BACKWARD,
            before=LOADING,
        ),
        ("enable_input_require_grads", "'use_reentrant': False"),
        ("{{", "memory"),
    ),
    Told(
        "backward_twice",
        trace(
            "RuntimeError: Trying to backward through the graph a second time (or directly access saved tensors "
            "after they "
            "have already been freed). Saved intermediate values of the graph are freed when you call .backward() or "
            "autograd.grad().",
            TRAIN,
            BACKWARD,
            before=STEPS,
            after=DEEPSPEED,
        ),
        ("detach", "use_reentrant"),
        ("memory ran out",),
    ),
    Told(
        "inplace",
        trace(
            "RuntimeError: one of the variables needed for gradient computation has been modified by an inplace "
            "operation: "
            "[torch.cuda.FloatTensor [16, 64]], which is output 0 of ReluBackward0, is at version 1; expected "
            "version 0 "
            "instead.",
            TRAIN,
            BACKWARD,
            before=STEPS,
        ),
        ("set_detect_anomaly", "broadcast_buffers"),
        ("memory",),
    ),
    Told(
        "recomputation",
        trace(
            "torch.utils.checkpoint.CheckpointError: torch.utils.checkpoint: Recomputed values for the "
            "following tensors "
            "have different metadata than during the forward pass.\ntensor at position 4:\nsaved metadata: {'shape': "
            "torch.Size([2048])}\nrecomputed metadata: {'shape': torch.Size([0])}",
            TRAIN,
            BACKWARD,
            before=STEPS,
            after=TORCHRUN,
        ),
        ("'use_reentrant': True", "fsdp_activation_checkpointing"),
        ("cut",),
    ),
    Told(
        "module_missing",
        trace(
            "ModuleNotFoundError: No module named 'peft'",
            "train.py:4:<module>:from peft import LoraConfig",
            before="",
            after=SRUN,
        ),
        ("python -m pip install peft", "which -a"),
        ("MODULE",),
    ),
)
