"""Logs that end in a data set, a batch, a precision or a gradient."""

from log_parts import DEEPSPEED, LOADING, SRUN, STEPS, TORCHRUN, Told, packages, trace

TRAIN = "train.py:66:main:trainer.train()"
DATA = "train.py:24:main:data = load_dataset(args.data, split='train')"
MAP = "train.py:27:main:data = data.map(tokenize, batched=True)"
BACKWARD = f"{packages('torch/_tensor.py')}:648:backward:torch.autograd.backward("
MAPPING = "Map:  44%|████▍     | 26000/58892 [00:31<00:39, 831.20 examples/s]\n"
COLLATE = f"{packages('torch/utils/data/_utils/fetch.py')}:55:fetch:return self.collate_fn(data)"

LOGS = (
    Told(
        "dataset_script",
        trace("RuntimeError: Dataset scripts are no longer supported, but found odd_captions.py", DATA, before=""),
        ("refs/convert/parquet", "datasets<4", "odd_captions.py"),
        ("SCRIPT",),
    ),
    Told(
        "dataset_schema",
        trace(
            "datasets.exceptions.DatasetGenerationCastError: An error occurred while generating the "
            "dataset\n\nAll the data "
            "files must have the same columns, but at some point there are 1 new columns ({'answer'}) and 1 "
            "missing columns "
            "({'output'}).",
            DATA,
            before="Generating train split: 0 examples [00:00, ? examples/s]\n",
        ),
        ("columns", "data_files"),
        ("memory",),
    ),
    Told(
        "dataset_lengths",
        trace(
            "pyarrow.lib.ArrowInvalid: Column 1 named input_ids expected length 1000 but got length 1096",
            MAP,
            before=MAPPING,
        ),
        ("input_ids", "remove_columns=dataset.column_names"),
        ("COLUMN",),
    ),
    Told(
        "dataset_broken",
        trace(
            "pyarrow.lib.ArrowInvalid: JSON parse error: Missing a closing quotation mark in string. in row 42",
            DATA,
            before="Generating train split: 0 examples [00:00, ? examples/s]\n",
        ),
        ("git-lfs", "json.loads"),
        ("memory",),
    ),
    Told(
        "dataset_map_died",
        trace(
            "RuntimeError: One of the subprocesses has abruptly died during map operation.To debug the error, disable "
            "multiprocessing.",
            MAP,
            before=MAPPING,
        ),
        ("num_proc=1", "dmesg"),
        ("advise",),
    ),
    Told(
        "columns_dropped",
        trace(
            "ValueError: No columns in the dataset match the model's forward method signature: (input_ids, "
            "attention_mask, "
            "labels). The following columns have been ignored: [text, image]. Please check the dataset and "
            "model. You may "
            "need to set `remove_unused_columns=False` in `TrainingArguments`.",
            TRAIN,
        ),
        ("remove_unused_columns=False",),
        ("memory",),
    ),
    Told(
        "dataset_generation",
        trace(
            "datasets.exceptions.DatasetGenerationError: An error occurred while generating the dataset",
            DATA,
            before="",
        ),
        ("streaming=True",),
        ("columns",),
    ),
    Told(
        "image_tokens",
        trace(
            "ValueError: Image features and image tokens do not match, tokens: 14650, features: 17152",
            TRAIN,
            f"{packages('transformers/models/qwen2_5_vl/modeling_qwen2_5_vl.py')}:1908:forward:raise ValueError(",
            before=STEPS,
            after=TORCHRUN,
        ),
        ("max_length=None", "cutoff_len"),
        ("memory",),
    ),
    Told(
        "batch_lengths",
        trace(
            "ValueError: Unable to create tensor, you should probably activate truncation and/or padding with "
            "'padding=True' "
            "'truncation=True' to have batched tensors with the same length. Perhaps your features (`labels` in "
            "this case) "
            "have excessive nesting (inputs type `list` where type `int` is expected).",
            TRAIN,
            COLLATE,
        ),
        ("DataCollatorForSeq2Seq", "remove_columns"),
        ("memory",),
    ),
    Told(
        "batch_stack",
        trace(
            "RuntimeError: stack expects each tensor to be equal size, but got [3, 430, 360] at entry 0 and [3, "
            "334, 500] "
            "at entry 1",
            TRAIN,
            COLLATE,
            before=STEPS,
        ),
        ("collate_fn", "Resize"),
        ("memory",),
    ),
    Told(
        "batch_types",
        trace(
            "TypeError: default_collate: batch must contain tensors, numpy arrays, numbers, dicts or lists; "
            "found <class "
            "'PIL.JpegImagePlugin.JpegImageFile'>",
            TRAIN,
            COLLATE,
        ),
        ("ToTensor", "PIL.JpegImagePlugin"),
        ("memory",),
    ),
    Told(
        "cannot_pickle",
        trace(
            "AttributeError: Can't pickle local object 'main.<locals>.collate'",
            TRAIN,
            f"{packages('torch/utils/data/dataloader.py')}:1170:__init__:w.start()",
        ),
        ("dataloader_num_workers=0", "top of the module"),
        ("THING",),
    ),
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
    Told(
        "dataset_missing",
        trace(
            "FileNotFoundError: Couldn't find any data file at /scratch/odd/captions. Couldn't find 'odd/captions' on "
            "the Hugging Face Hub either: LocalEntryNotFoundError: ...",
            DATA,
            before="",
        ),
        ("ls PATH", "data_files"),
        ("memory",),
    ),
    Told(
        "dataset_empty",
        trace(
            "ValueError: num_samples should be a positive integer value, but got num_samples=0",
            f"{packages('torch/utils/data/sampler.py')}:143:__init__:raise ValueError(",
        ),
        ("len(dataset)", "packing=False"),
        ("memory",),
    ),
    Told(
        "image_broken",
        trace("OSError: image file is truncated (12 bytes not processed)", COLLATE, before=STEPS, after=TORCHRUN),
        ("LOAD_TRUNCATED_IMAGES", "find DATA"),
        ("memory",),
    ),
    Told(
        "scaler_empty",
        trace("AssertionError: No inf checks were recorded for this optimizer.", TRAIN, after=SRUN),
        ("is_trainable=True", "bf16=True"),
        ("memory",),
    ),
    Told(
        "image_tokens",
        trace(
            "ValueError: The input provided to the model are wrong. The number of image tokens is 1 while the number "
            "of image given to the model is 2. This prevents correct indexing and breaks batch generation.",
            TRAIN,
        ),
        ("max_length",),
    ),
    Told(
        "batch_stack", trace("RuntimeError: Trying to resize storage that is not resizable", COLLATE), ("collate_fn",)
    ),
)
