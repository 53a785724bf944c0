"""Ends in the data and in the step: data sets, batches, precision, gradients.

A comment names where the text was read: an issue of a public tracker, or the release of an installed library.
"""

from labkit.help.diagnosis.symptoms.wrapped import wrapped

SYMPTOMS = (
    # -- data sets
    wrapped(
        "dataset_script",
        # lm-evaluation-harness#3171; Patho-Bench#27; dspy#8590; datasets 5.2
        r"Dataset scripts are no longer supported, but found (?P<script>\S{1,100})",
        "The data set is loaded by a script ({script}), which datasets 4 and later do not run any more.",
        "load_dataset(NAME, revision='refs/convert/parquet')  # the hub's own conversion, where there is one",
        "pip install 'datasets<4'  # with trust_remote_code=True, once you have read the script",
    ),
    wrapped(
        "dataset_schema",
        # datasets pull request 6509; Visual-CoT#29; mini_qwen#2; dataset-viewer#2601; datasets 5.2
        r"All the data files must have the same columns"
        r"|because column names don't match"
        r"|Couldn't cast array of type",
        "The data set's files do not have the same columns, or not of the same types.",
        "load_dataset('json', data_files={'train': 'a.jsonl'})  # file by file: which one differs",
        "load_dataset(..., features=Features({...}))  # or say the columns yourself; add the missing ones as null",
        "load_dataset(..., download_mode='force_redownload')  # after a file was repaired",
    ),
    wrapped(
        "dataset_lengths",
        # datasets#1817, #2070, #2226, #6879; llm_unlearn#6
        r"Column \d+ named (?P<column>\S{1,60}) expected length (?P<expected>\d+) but got length (?P<got>\d+)",
        "map(batched=True) returned {got} rows for {column} while other columns still have {expected}.",
        "dataset.map(f, batched=True, remove_columns=dataset.column_names)  # the old columns go; only new ones stay",
        "dataset.map(f, batched=False)  # or one sample at a time, if each gives one",
    ),
    wrapped(
        "dataset_broken",
        # pyarrow 26, datasets 5.2, pandas
        r"ArrowInvalid: (?:JSON parse error|Parquet magic bytes not found|Not an Arrow file|Failed to parse string)"
        r"|JSON parse error: "
        r"|ParserError: Error tokenizing data"
        r"|Parquet magic bytes not found",
        "A data file is not what its name says: broken JSON, a comma too many, a git-lfs pointer, or half a download.",
        "head -c 300 FILE  # 'version https://git-lfs' is a pointer: git lfs pull",
        "python -c \"import json; [json.loads(l) for l in open('FILE')]\"  # JSON lines: the line that fails",
        "rm -r $HF_DATASETS_CACHE/NAME  # a cache that a killed run left",
    ),
    wrapped(
        "dataset_map_died",
        # datasets 5.2, py_utils.py
        r"One of the subprocesses has abruptly died during map operation",
        "A process that prepares the data was killed, most often since the host's memory was used up.",
        "dataset.map(f, num_proc=1)  # shows the error itself, if it is one; dataset_num_proc in TRL",
        "dataset.map(f, batched=True, batch_size=100, writer_batch_size=100)  # images: less at a time",
        "sudo dmesg -T | grep -i 'killed process'  # the kernel's own word",
    ),
    wrapped(
        "columns_dropped",
        # transformers#25054 (remove_unused_columns=False solved it); VLM2Vec#42; transformers 5.23
        r"No columns in the dataset match the model's forward method signature",
        "The Trainer dropped every column, since none has the name of an input of the model.",
        "TrainingArguments(remove_unused_columns=False)  # if your collator makes the inputs out of them",
        "dataset.map(tokenize, batched=True)  # if the text was not tokenized: it needs input_ids and labels",
    ),
    wrapped(
        "dataset_generation",
        # datasets 5.2, builder.py: an echo of the error above it
        r"An error occurred while generating the dataset",
        "The data set could not be made; the reason stands in the trace above.",
        "load_dataset(..., streaming=True)  # next(iter(...)) then shows the first sample that fails",
        "rm -r $HF_DATASETS_CACHE/NAME  # a cache that a killed run left",
        tier="follow_up",
    ),
    wrapped(
        "dataset_missing",
        # datasets 5.2, load.py and data_files.py
        r"Couldn't find any data file at"
        r"|No \(supported\) data files found in"
        r"|DataFilesNotFoundError: ",
        "There is no data set of this name and no folder either, or none of the folder's files is of a known type.",
        "ls PATH  # absolute, and as the container or the node sees it",
        "load_dataset('json', data_files='PATH/*.jsonl')  # say type and files yourself",
        "hf auth login  # a private or gated data set is not found without",
    ),
    wrapped(
        "dataset_empty",
        # trl#362, #1337; autotrain-advanced#432; ru-gpts#15; torch 2.13, sampler.py
        r"num_samples should be a positive integer value, but got num_samples=0"
        r"|has enough samples to at least yield one packed sequence",
        "The data set has no sample left: a filter took all, or packing needs more text than there is for one block.",
        "print(len(dataset))  # after each filter and map: where it becomes 0",
        "SFTConfig(packing=False)  # TRL; or a smaller max_length, so that one block is full (scripts: block_size)",
        "load_dataset(..., download_mode='force_redownload')  # if an empty result was cached",
    ),
    wrapped(
        "image_broken",
        # PyTorch-YOLOv3#162; labelme#335; Pillow
        r"image file is truncated \(\d+ bytes not processed\)"
        r"|cannot identify image file",
        "A picture of the data set is cut, empty, or no picture at all.",
        "find DATA -name '*.jpg' -size -2k  # empty ones, git-lfs pointers, web pages saved as pictures",
        "Image.open(path).load()  # over all files, in try: lists every broken one",
        "ImageFile.LOAD_TRUNCATED_IMAGES = True  # from PIL import ImageFile: takes pictures that are only cut",
    ),
    # -- batches
    wrapped(
        "image_tokens",
        # trl pull requests 5904, 5927 (max_length); LlamaFactory#6559 (cutoff_len); Qwen-VL-Series-Finetune#125, #128
        r"(?:Image|Video|Audio) features and (?:image|video|audio) tokens do not match"
        r"|causes image placeholder tokens in input_ids to be truncated"
        # transformers#29835; LlamaFactory#5344; lmms-finetune#63: a longer maximal length
        r"|The number of image tokens is \d+ while the number of image given",
        "The text has another number of places for the image than the image has features: it was cut at a maximal "
        "length, or a sample names another number of images than it has.",
        "SFTConfig(max_length=None)  # TRL: nothing is cut; or longer",
        "cutoff_len: 8192  # LLaMA-Factory; sequence_len in axolotl",
        "AutoProcessor.from_pretrained(NAME, max_pixels=512*28*28)  # fewer tokens for each image",
        "print(text.count('<image>'), len(images))  # sample by sample: the two must agree",
    ),
    wrapped(
        "batch_lengths",
        # transformers#24546, #28691, #39266; ChatGLM2-6B#264; argilla#4513; transformers 5.23
        r"Unable to create tensor, you should probably activate truncation and/or padding"
        r"|expected sequence of length \d+ at dim \d+ \(got \d+\)"
        r"|too many dimensions 'str'",
        "Samples of different length, or columns of text, were to become one tensor: the collator does not fill up the "
        "labels.",
        "DataCollatorForSeq2Seq(tokenizer, padding=True, label_pad_token_id=-100)  # fills up labels too",
        "dataset.remove_columns(['text'])  # columns of text cannot become tensors",
        "tokenizer(..., truncation=True, max_length=1024)  # and no labels from DataCollatorForLanguageModeling twice",
    ),
    wrapped(
        "batch_stack",
        # segmentation_models.pytorch#472; humannerf#21; SimpleTuner#59; torch 1.x to 2.13
        r"stack expects each tensor to be equal size"
        r"|each element in list of batch should be of equal size"
        r"|Trying to resize storage that is not resizable",
        "Samples of one batch have different sizes, so they do not stack.",
        "DataLoader(..., collate_fn=pad)  # fill up to the longest: torch.nn.utils.rnn.pad_sequence",
        "transforms.Resize((224, 224))  # images to one size; the model's own processor does it",
        "per_device_train_batch_size=1  # with gradient_accumulation_steps: works at once, and is slower",
    ),
    wrapped(
        "batch_types",
        # torch 2.13, utils/data/_utils/collate.py
        r"default_collate: batch must contain tensors, numpy arrays, numbers, dicts or lists; found"
        r" (?P<found>[^\n]{1,80})",
        "A sample holds what cannot become a tensor: {found}.",
        "transforms.ToTensor()  # or the model's processor, for an image (PIL)",
        "if image is None: raise ValueError(path)  # in __getitem__: a file that could not be read gives None",
    ),
    wrapped(
        "cannot_pickle",
        # multiprocessing with spawn, datasets.map
        r"(?:Can't pickle|cannot pickle) (?:local object )?(?P<thing><?'?[\w.<>]{1,80})",
        "An object was to be sent to a worker process and cannot be: {thing}.",
        "dataloader_num_workers=0  # no workers: works at once; Windows and notebooks always spawn",
        "def collate(batch): ...  # at the top of the module, in place of a lambda or a function in a function",
    ),
    wrapped(
        "no_loss",
        # transformers#34392 (labels); MeZO#19; qlora#179; transformers 5.23
        r"The model did not return a loss from the inputs",
        "The batch has no labels, or under a name that the model does not take, so there is no loss.",
        "batch['labels'] = batch['input_ids'].clone()  # in the collator; -100 where nothing is to be learnt",
        "TrainingArguments(label_names=['labels'])  # adapters hide the model's own names",
        "AutoModelForCausalLM.from_pretrained(NAME)  # AutoModel has no head, and so no loss",
    ),
    # -- precision and shapes
    wrapped(
        "half_on_cpu",
        # torch 1.x to 2.2 on a CPU
        r"\w\\?\" not implemented for '(?:Half|BFloat16)'",
        "The CPU was to compute in 16 bits, for which this PyTorch has no code.",
        "nvidia-smi ; python -c 'import torch; print(torch.cuda.is_available())'  # was a GPU meant?",
        "from_pretrained(..., torch_dtype=torch.float32)  # on a CPU",
        "pip install -U torch  # newer ones compute more of it on a CPU",
    ),
    wrapped(
        "dtype_mismatch",
        # unsloth#212, #320; LlamaFactory#2022; textgen#3333, #6093; adapters#766; torch 1.x to 2.13
        r"mat1 and mat2 (?:must|to) have the same dtype"
        r"|(?:self|m1) and (?:mat2|m2) (?:must|to) have the same dtype"
        r"|expected scalar type \w+ but found \w+"
        r"|Input type \([^)\n]{1,60}\) and (?:weight|bias) type \([^)\n]{1,60}\) should be the same"
        r"|Found dtype \w+ but expected \w+",
        "Two precisions met in one operation: part of the model was cast, the rest or the inputs were not.",
        "TrainingArguments(bf16=True)  # autocast joins them; precision='bf16-mixed' in Lightning",
        "model = prepare_model_for_kbit_training(model)  # QLoRA: once, before get_peft_model",
        "inputs = inputs.to(model.dtype)  # in a loop of your own; images stay float32 otherwise",
    ),
    wrapped(
        "shapes_differ",
        # torch 2.13; models with learnt positions, captions longer than them
        r"The size of tensor a \((?P<a>\d+)\) must match the size of tensor b \((?P<b>\d+)\)"
        r"|mat1 and mat2 shapes cannot be multiplied \((?P<shapes>\w+ and \w+)\)",
        "Two tensors do not fit. If one number is the model's longest input (77, 512, 1024), a sample is longer.",
        "tokenizer(..., truncation=True, max_length=model.config.max_position_embeddings)  # cuts it",
        "print({k: v.shape for k, v in batch.items()})  # else: a head or projector of another model",
    ),
    # -- gradients
    wrapped(
        "no_gradient",
        # peft#137; transformers#26334, #26377, #42489; Qwen3-Coder#384; trl pull request 1006
        r"does not require grad and does not have a grad_fn",
        "The loss hangs on nothing that is trained: gradient checkpointing cuts the way to the adapter, or all "
        "is frozen.",
        "model.enable_input_require_grads()  # before get_peft_model: the known cure with gradient checkpointing",
        "TrainingArguments(gradient_checkpointing_kwargs={'use_reentrant': False})  # does not cut it",
        "model.print_trainable_parameters()  # 0: load the adapter with is_trainable=True; no torch.no_grad() around",
    ),
    wrapped(
        "inputs_without_gradient",
        # torch 1.x to 2.13, utils/checkpoint.py: a warning
        r"None of the inputs have requires_grad=True\. Gradients will be None",
        "Gradient checkpointing warned that it cuts the way to what is trained.",
        "model.enable_input_require_grads()  # before get_peft_model",
        tier="warning",
    ),
    wrapped(
        "backward_twice",
        # DeepSpeed#4528 (own LoRA, kept tensors); LlamaFactory#10395 (use_unsloth_gc); champ#175 (checkpointing)
        r"Trying to backward through the graph a second time",
        "A tensor of the step before is used again in this one, and its graph is gone.",
        "hidden = hidden.detach()  # what is kept from step to step; loss.item() for sums",
        "TrainingArguments(gradient_checkpointing_kwargs={'use_reentrant': False})  # if it comes with checkpointing",
        "loss.backward(retain_graph=True)  # only if two losses share a graph: it keeps the memory",
    ),
    wrapped(
        "inplace",
        # torch 2.13, autograd
        r"modified by an inplace operation",
        "A tensor that the backward pass needs was overwritten in the forward pass.",
        "torch.autograd.set_detect_anomaly(True)  # names the line of the forward pass",
        "x = x + y  # in place of x += y; nn.ReLU(inplace=False)",
        "DistributedDataParallel(..., broadcast_buffers=False)  # if it happens only with several GPUs",
    ),
    wrapped(
        "recomputation",
        # trl#4314, #5217; LlamaFactory#6438; torchtitan#1117; torchtune#2684
        r"Recomputed values for the following tensors have different metadata"
        r"|A different number of tensors was saved during the original forward and recomputation",
        "Gradient checkpointing computed a block again and got other shapes: ZeRO-3 or FSDP shards it, experts chose "
        "otherwise, or checkpointing is on twice.",
        "TrainingArguments(gradient_checkpointing_kwargs={'use_reentrant': True})  # does not compare; with ZeRO-3",
        "fsdp_activation_checkpointing: true  # FSDP: its own, and gradient_checkpointing=False in the Trainer",
        "TrainingArguments(gradient_checkpointing=False)  # to see whether it is that; takes more memory",
    ),
    # -- what is not there
    wrapped(
        "module_missing",
        # Python; a package whose name for pip may differ
        r"ModuleNotFoundError: No module named '(?P<module>[\w.]{1,100})'",
        "A Python package is not installed in the environment that ran: {module}.",
        "python -m pip install {module}  # with the python that runs the job; its name for pip may differ",
        "which -a python torchrun ; head -1 $(which torchrun)  # is it the environment that you installed it in?",
    ),
    wrapped(
        "scaler_empty",
        # diffusers#5004; torch 2.13, amp/grad_scaler.py
        r"No inf checks were recorded",
        "The gradient scaler of fp16 found no gradient: no parameter of the optimizer took part in the loss.",
        "[p.requires_grad for g in optimizer.param_groups for p in g['params']]  # frozen ones have no gradient",
        "PeftModel.from_pretrained(model, ADAPTER, is_trainable=True)  # an adapter that is loaded is frozen otherwise",
        "TrainingArguments(bf16=True, fp16=False)  # needs no scaler; Lightning: precision='bf16-mixed'",
    ),
)
