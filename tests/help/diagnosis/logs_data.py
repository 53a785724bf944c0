"""Logs that end in a data set or a batch."""

from log_parts import SRUN, STEPS, TORCHRUN, Told, packages, trace

TRAIN = "train.py:66:main:trainer.train()"
DATA = "train.py:24:main:data = load_dataset(args.data, split='train')"
MAP = "train.py:27:main:data = data.map(tokenize, batched=True)"
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
