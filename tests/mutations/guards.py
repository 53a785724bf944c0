"""The guards: lines that stand between labkit and what somebody else brings, or between a run and a lie.

One more: a name, why it is there, the file, a snippet that occurs in it once, what is left without the guard, and the
fastest tests that should notice. ``mutate.py`` takes them out one by one.
"""

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Guard:
    """One guard: ``before`` is the code as it is, ``after`` the code without it; ``tests`` are nodes of pytest."""

    name: str
    why: str
    file: str
    before: str
    after: str
    tests: tuple[str, ...]

    def removed_from(self, text: str) -> str:
        """The text of the file without the guard. ``ValueError`` where the snippet is not there just once."""
        if (count := text.count(self.before)) != 1:
            raise ValueError(f"guard {self.name!r}: {self.file} has its snippet {count} times; follow it there.")
        return text.replace(self.before, self.after)


PANEL = "tests/lab/panel/test_panel_server.py"
PANEL_GUARDS = "tests/lab/panel/test_panel_guards.py"
ARCHIVE = "tests/lab/handin/test_archive.py"
SUBMIT = "tests/lab/handin/test_submit.py"
COLLECT = "tests/lab/handin/test_collect.py"
GRADE = "tests/lab/handin/test_grade.py"
SIGNS = "tests/lab/handin/test_signs.py"
SECRETS = "tests/config/test_secrets.py"
SCHEMA = "tests/config/test_schema.py"
LAYERS = "tests/config/test_layers.py"
RECORDS = "tests/runs/test_records.py"
RESUME = "tests/runs/test_resume.py"
FORKS = "tests/runs/test_fork_server.py"
RANKS = "tests/runs/ranks/test_ranks.py"
CHECKPOINTS = "tests/train/test_checkpoints.py"
STATE_FILES = "tests/train/test_state_files.py"
OWN_STATE = "tests/train/test_own_state.py::test_each_generator_goes_on_where_it_was_saved"
OURS = "tests/provisioning/test_ours.py"
NODE_ARCHIVES = "tests/provisioning/test_archives.py"
ENTRYPOINT = "tests/docker/test_entrypoint.py"
TRACKER = "tests/memory/test_tracker.py"
ALLOCATOR = "tests/plan/test_allocator.py"
SSH = "tests/provisioning/test_ssh_way.py"
HANDLERS = "labkit/lab/panel/handlers.py"
NAMES = "labkit/lab/panel/names.py"

GUARDS = (
    # -- the panel: what Jupyter's server says, and to whom
    Guard(
        "panel: the page asks who looks",
        "a page names runs",
        HANDLERS,
        "    @web.authenticated\n    async def get(self, *run: str) -> None:\n        if run and",
        "    async def get(self, *run: str) -> None:\n        if run and",
        (f"{PANEL_GUARDS}::test_only_who_may_use_the_server_is_told_anything",),
    ),
    Guard(
        "panel: the list asks who looks",
        "it names runs",
        HANDLERS,
        "    @web.authenticated\n    async def get(self) -> None:\n        self.say(await",
        "    async def get(self) -> None:\n        self.say(await",
        (f"{PANEL_GUARDS}::test_only_who_may_use_the_server_is_told_anything",),
    ),
    Guard(
        "panel: the feed asks who looks",
        "it has losses, memory and the reason",
        HANDLERS,
        "    @web.authenticated\n    async def get(self, *run: str) -> None:\n        seen",
        "    async def get(self, *run: str) -> None:\n        seen",
        (f"{PANEL_GUARDS}::test_only_who_may_use_the_server_is_told_anything",),
    ),
    Guard(
        "panel: the GPUs ask who looks",
        "what the machine does is nobody else's business",
        HANDLERS,
        "    @web.authenticated\n    async def get(self) -> None:\n        self.say(json",
        "    async def get(self) -> None:\n        self.say(json",
        (f"{PANEL_GUARDS}::test_only_who_may_use_the_server_is_told_anything",),
    ),
    Guard(
        "panel: names of runs",
        "a name with .. leads out of the ledger",
        NAMES,
        "    if not all(NAME.fullmatch(part) for part in (profile, experiment, id)):\n        return None\n",
        "",
        (f"{PANEL_GUARDS}::test_only_names_of_runs_in_the_ledger_have_a_panel",),
    ),
    Guard(
        "panel: only this ledger's runs",
        "a cell would show a page of another folder",
        "labkit/lab/panel/__init__.py",
        " or not folder.startswith(runs + os.sep)",
        "",
        (f"{PANEL}::test_a_cell_has_the_panel_where_a_server_shows_its_ledger",),
    ),
    Guard(
        "panel: a cell's address",
        "a quote in it begins an attribute",
        "labkit/lab/panel/__init__.py",
        "escape(self.url, quote=True)",
        "self.url",
        (f"{PANEL}::test_a_cell_has_the_panel_where_a_server_shows_its_ledger",),
    ),
    # -- archives that students hand in
    Guard(
        "archive: names",
        "a member may lead out of every folder",
        "labkit/lab/handin/archive.py",
        "if not is_member(member.name):",
        "if False:",
        (f"{ARCHIVE}::test_what_does_not_belong_is_refused_on_one_line_and_nothing_is_written",),
    ),
    Guard(
        "archive: plain files only",
        "links and devices",
        "labkit/lab/handin/archive.py",
        "if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):",
        "if False:",
        (f"{ARCHIVE}::test_what_does_not_belong_is_refused_on_one_line_and_nothing_is_written",),
    ),
    Guard(
        "archive: no name twice",
        "the second would replace what was checked",
        "labkit/lab/handin/archive.py",
        "if name in sha256:",
        "if False:",
        (f"{ARCHIVE}::test_what_does_not_belong_is_refused_on_one_line_and_nothing_is_written",),
    ),
    Guard(
        "archive: a member's size",
        "one member fills the memory",
        "labkit/lab/handin/archive.py",
        "if not 0 <= member.size <= most_bytes(member.name):",
        "if not 0 <= member.size:",
        (f"{ARCHIVE}::test_a_member_above_its_own_limit_is_refused_whatever_it_packs_to",),
    ),
    Guard(
        "archive: a bomb",
        "some KB unpack to GB",
        "labkit/lab/handin/archive.py",
        "if self._total > self._most:",
        "if False:",
        (f"{ARCHIVE}::test_many_members_that_are_small_each_are_stopped_by_their_sum_and_number",),
    ),
    Guard(
        "archive: how many members",
        "a million empty members take hours",
        "labkit/lab/handin/archive.py",
        "for _ in range(MEMBERS + 1):",
        "while True:",
        (f"{ARCHIVE}::test_many_members_that_are_small_each_are_stopped_by_their_sum_and_number",),
    ),
    Guard(
        "archive: its end",
        "what lies after it is read by other programs",
        "labkit/lab/handin/archive.py",
        "if self._zlib.unused_data or self._file.read(1):",
        "if False:",
        (f"{ARCHIVE}::test_nothing_may_lie_behind_the_end",),
    ),
    Guard(
        "archive: numbers",
        "arithmetic with a number of 5000 digits raises",
        "labkit/lab/handin/archive.py",
        'if b"0" * 24 in data.translate(_DIGITS) and _NUMBER_TOO_LONG.search(data):',
        "if False:",
        (f"{ARCHIVE}::test_json_that_no_labkit_writes_is_refused_or_plain",),
    ),
    Guard(
        "submit: links stay",
        "a link in a run hands in any file of the machine",
        "labkit/lab/handin/submit.py",
        "if not folder.path.is_symlink():",
        "if True:",
        (f"{SUBMIT}::test_links_and_files_that_are_too_large_are_left_out_and_named",),
    ),
    Guard(
        "submit: nothing is written over",
        "yesterday's archive is gone",
        "labkit/lab/handin/submit.py",
        "    if not os.path.lexists(path):\n        return path\n",
        "    return path\n",
        (f"{SUBMIT}::test_nothing_is_ever_written_over",),
    ),
    Guard(
        "collect: whose work it is",
        "one student's work under another's name",
        "labkit/lab/handin/collect.py",
        "if found.name != student:",
        "if False:",
        (f"{COLLECT}::test_the_work_of_somebody_else_is_refused",),
    ),
    Guard(
        "collect: how much a node sends",
        "it fills the instructor's disk",
        "labkit/lab/handin/collect.py",
        "if total > LARGEST_BYTES:",
        "if False:",
        (f"{COLLECT}::test_a_node_that_sends_more_than_a_submission_may_have_is_cut_off",),
    ),
    Guard(
        "collect: a node that hangs",
        "one node stops the whole class",
        "labkit/lab/handin/collect.py",
        "alarm = threading.Timer(BOUND_S, child.kill)",
        "alarm = threading.Timer(BOUND_S + 100, child.kill)",
        (f"{COLLECT}::test_a_node_that_hangs_is_left",),
    ),
    Guard(
        "collect: words stay words",
        "a name of a student is a command on the node",
        "labkit/lab/handin/collect.py",
        "target, shlex.join(there)]",
        'target, " ".join(there)]',
        (f"{COLLECT}::test_what_is_typed_there_is_quoted",),
    ),
    Guard(
        "grade: no path from a record",
        "an experiment's name would be opened as a file",
        "labkit/lab/handin/grade.py",
        "        and run.record.experiment in names  # never a path, which would be read\n",
        "",
        (f"{GRADE}::test_no_file_of_this_machine_is_read_because_a_record_names_it",),
    ),
    Guard(
        "grade: the settings are those that are named",
        "an edited config is taken for the course's",
        "labkit/lab/handin/work.py",
        "return self.record.status in ENDED and self.config_hash == self.record.config_hash",
        "return self.record.status in ENDED",
        (f"{GRADE}::test_a_run_whose_settings_were_edited_is_none_of_the_course",),
    ),
    Guard(
        "grade: members are what the manifest says",
        "a member that was exchanged",
        "labkit/lab/handin/signs.py",
        "elif there[name] != listed[name]:",
        "elif False:",
        (f"{SIGNS}::test_a_member_that_was_exchanged_in_the_archive_has_a_sign",),
    ),
    # -- secrets
    Guard(
        "secrets: the environment of children",
        "a library prints its environment",
        "labkit/config/secrets.py",
        "if not _NAME.search(name) or _is_path(value)}",
        "}",
        (f"{SECRETS}::test_a_variable_that_is_named_like_a_secret_is_one",),
    ),
    Guard(
        "secrets: passwords in addresses",
        "https://user:password@ in an error",
        "labkit/config/credentials.py",
        r"""    ("password in a URL", ("://",), re.compile(r"(?<=://)[^/\s\"'<>`\\]+(?=@[\w\[.-])")),""" + "\n",
        "",
        (f"{SECRETS}::test_what_looks_like_a_secret_is_taken_out_once",),
    ),
    Guard(
        "secrets: the longest first",
        "a part of a secret is left over",
        "labkit/config/secrets.py",
        ", key=len, reverse=True)",
        ", key=len)",
        (f"{SECRETS}::test_of_two_secrets_of_which_one_is_part_of_the_other_nothing_is_left",),
    ),
    Guard(
        "secrets: a file that cannot be cleaned",
        "it would be left with its secret",
        "labkit/config/secrets.py",
        "        for rest in (path, partial):\n            with contextlib.suppress(OSError):\n"
        "                rest.unlink()\n",
        "        return\n",
        (f"{SECRETS}::test_a_file_that_cannot_be_cleaned_is_not_left_with_its_secret",),
    ),
    Guard(
        "secrets: records",
        "a reason may quote one",
        "labkit/runs/records.py",
        "json.dump(redact(data), file, indent=1)",
        "json.dump(data, file, indent=1)",
        (f"{RECORDS}::test_a_secret_that_comes_into_a_record_is_not_written",),
    ),
    Guard(
        "secrets: logs",
        "a library prints one at its end",
        "labkit/runs/runner.py",
        "            redact_file(log)\n",
        "            pass\n",
        ("tests/runs/test_no_secrets.py::test_a_run_and_all_that_is_said_of_it_holds_no_secret",),
    ),
    # -- processes
    Guard(
        "run: the whole group is killed",
        "loader workers hold the GPU's memory",
        "labkit/runs/runner.py",
        "            os.killpg(child.pid, signal.SIGKILL)",
        "            os.kill(child.pid, signal.SIGKILL)",
        ("tests/runs/test_runner.py::test_all_that_a_child_has_started_ends_with_it",),
    ),
    Guard(
        "run: a child ends with who watches it",
        "training that nobody can stop holds the GPU",
        "labkit/train/fit.py",
        "        while os.read(0, 1):\n            pass\n",
        "        while True:\n            signal.pause() if os.read(0, 1) else threading.Event().wait()\n",
        ("tests/runs/test_runner.py::test_a_child_ends_with_the_process_that_watches_it",),
    ),
    Guard(
        "run: a record never says for ever that it runs",
        "a watcher that failed",
        "labkit/runs/runner.py",
        'if record.status == "running":  # a record of a run that is over never says that it goes on',
        "if False:",
        ("tests/runs/test_runner.py::test_a_watcher_that_fails_leaves_no_run_that_goes_on_for_ever",),
    ),
    Guard(
        "fork server: what a killed server has forked is killed",
        "it would be counted as dead and go on",
        "labkit/runs/fork_server.py",
        "                    os.killpg(self.pid, signal.SIGKILL)\n",
        "                    pass\n",
        (f"{FORKS}::test_what_a_killed_server_has_forked_counts_as_killed",),
    ),
    Guard(
        "fork server: an edit of labkit",
        "a run of the code as it was",
        "labkit/runs/fork_server.py",
        " and self._source == _newest_source()",
        "",
        (f"{FORKS}::test_an_edit_of_labkit_is_seen",),
    ),
    Guard(
        "ranks: nothing outlives who watches",
        "ranks wait for each other for ever",
        "labkit/runs/ranks/watch.py",
        "        os.killpg(0, signal.SIGKILL)\n",
        "        pass\n",
        (f"{RANKS}::test_nothing_outlives_who_watches",),
    ),
    Guard(
        "ranks: the others end with the first that failed",
        "a hanging rank holds its GPU",
        "labkit/runs/ranks/watch.py",
        "                        rank.process.kill()\n                        rank.process.wait()\n",
        "                        pass\n",
        (f"{RANKS}::test_the_first_rank_that_failed_says_how_the_run_ended",),
    ),
    Guard(
        "ranks: the loopback",
        "the port of the rendezvous is open to the network",
        "labkit/runs/ranks/watch.py",
        '"MASTER_ADDR": "127.0.0.1"',
        '"MASTER_ADDR": "0.0.0.0"',
        (f"{RANKS}::test_ranks_are_told_who_they_are_as_torchrun_tells_it",),
    ),
    Guard(
        "ranks: an old word is none",
        "a rank joins the run of yesterday",
        "labkit/runs/ranks/meeting.py",
        "if word is None or not word.run.is_watched:",
        "if word is None:",
        ("tests/runs/ranks/test_meeting.py::test_a_word_on_a_run_that_nobody_watches_is_an_old_one",),
    ),
    # -- the ledger
    Guard(
        "ledger: whole or not there",
        "a crash leaves half a record",
        "labkit/runs/records.py",
        'partial = path.with_name(f".{path.name}.partial")',
        "partial = path",
        (f"{RECORDS}::test_a_crash_while_writing_leaves_what_was_there",),
    ),
    Guard(
        "ledger: the lock of a run",
        "nobody can tell a run from one whose watcher was killed",
        "labkit/runs/records.py",
        "                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)\n                request",
        "                request",
        (f"{RECORDS}::test_a_run_is_running_while_it_is_watched_and_killed_when_nobody_does",),
    ),
    Guard(
        "ledger: one that runs is not resumed",
        "two processes train into one folder",
        "labkit/runs/records.py",
        "                _lock(lock)\n",
        "",
        (f"{RESUME}::test_a_run_that_goes_on_still_cannot_be_resumed",),
    ),
    Guard(
        "events: a line that never ends",
        "it fills the memory",
        "labkit/runs/events.py",
        "if not ended and len(line) < LONGEST_BYTES:",
        "if not ended:",
        ("tests/runs/test_events.py::test_a_line_that_never_ends_is_passed_over_in_pieces",),
    ),
    # -- checkpoints and weights
    Guard(
        "weights: the bytes that the header names",
        "a cut file is read to its end and the rest is noise",
        "labkit/train/shards.py",
        "if end != size:",
        "if False:",
        (f"{CHECKPOINTS}::test_a_damaged_shard_is_named_before_anything_is_loaded",),
    ),
    Guard(
        "weights: the length of the header",
        "a damaged length asks for exabytes",
        "labkit/train/shards.py",
        "if size < 8 or not 2 <= length <= min(size - 8, _LONGEST_HEADER):",
        "if False:",
        (f"{CHECKPOINTS}::test_a_damaged_shard_is_named_before_anything_is_loaded",),
    ),
    Guard(
        "weights: checksums",
        "one flipped bit",
        "labkit/train/model_files.py",
        "if found != expected.lower():",
        "if False:",
        (f"{CHECKPOINTS}::test_checksums_are_held_against_every_file_they_name",),
    ),
    Guard(
        "weights: none is drawn at random",
        "a missing layer trains from noise without a word",
        "labkit/train/checkpoints.py",
        'if report["missing_keys"]:',
        "if False:",
        (f"{CHECKPOINTS}::test_missing_weights_are_never_drawn_at_random",),
    ),
    Guard(
        "fetch: checksums of the hub",
        "what arrived is not what the hub has",
        "labkit/train/fetch.py",
        "    if found != file.sha256:",
        "    if False:",
        (
            "tests/train/test_fetch.py::test_a_file_that_is_not_what_the_hub_says_is_removed_and_brought_again_next_time",
        ),
    ),
    Guard(
        "resume: no pickle is executed",
        "a checkpoint that somebody sends runs a program",
        "labkit/train/state_files.py",
        'map_location="cpu", weights_only=True)',
        'map_location="cpu", weights_only=False)',
        (f"{STATE_FILES}::test_what_a_file_asks_for_is_named_and_not_called",),
    ),
    Guard(
        "resume: the same settings",
        "another run's state is loaded",
        "labkit/runs/resume.py",
        "record.config_hash != resolved.config.hash or ",
        "",
        (f"{RESUME}::test_the_newest_run_with_the_same_config_and_environment_goes_on",),
    ),
    Guard(
        "resume: torch's random state",
        "dropout takes other units than in one piece",
        "labkit/train/own_state.py",
        '    torch.set_rng_state(state["torch"])\n',
        "",
        (OWN_STATE,),
    ),
    Guard(
        "resume: NumPy's random state",
        "augmentation draws what it drew before",
        "labkit/train/own_state.py",
        '    numpy.random.set_state(tuple(state["numpy"]))\n',
        "",
        (OWN_STATE,),
    ),
    Guard(
        "resume: Python's random state",
        "augmentation draws what it drew before",
        "labkit/train/own_state.py",
        "    random.setstate((version, tuple(keys), gauss))\n",
        "",
        (OWN_STATE,),
    ),
    Guard(
        "resume: random states are put back",
        "dropout takes other units than in one piece",
        "labkit/train/saved_steps.py",
        "            set_random_state(self._random_state)\n",
        "",
        (f"{RESUME}::test_a_run_that_goes_on_ends_as_one_in_one_piece[1]",),
    ),
    Guard(
        "resume: the order of the data",
        "samples are seen twice and others never",
        "labkit/train/data.py",
        "len(samples), config.seed, first_epoch, done_samples, config.batch_size",
        "len(samples), config.seed, first_epoch, 0, config.batch_size",
        ("tests/train/test_data.py::test_a_loader_that_goes_on_gives_what_is_left_of_the_epoch_and_then_whole_ones",),
    ),
    # -- the simulated GPU, and the model of CUDA's allocator
    Guard(
        "simulated GPU: full is full",
        "one byte too many fits",
        "labkit/memory/tracker.py",
        "and self.allocated_bytes + size_bytes > self.capacity_bytes",
        "and self.allocated_bytes + size_bytes > self.capacity_bytes + 1",
        (f"{TRACKER}::test_a_device_that_is_one_byte_too_small_is_full",),
    ),
    Guard(
        "simulated GPU: full after room was made",
        "one byte too many fits",
        "labkit/memory/tracker.py",
        "if self.allocated_bytes + requested_bytes > self.capacity_bytes:",
        "if self.allocated_bytes + requested_bytes > self.capacity_bytes + 1:",
        (f"{TRACKER}::test_a_device_that_is_one_byte_too_small_is_full",),
    ),
    Guard(
        "simulated GPU: sizes are rounded",
        "many small tensors are counted too low",
        "labkit/memory/tracker.py",
        "size_bytes = -(-storage.nbytes() // BLOCK_BYTES) * BLOCK_BYTES",
        "size_bytes = storage.nbytes()",
        (f"{TRACKER}::test_sizes_are_rounded_up_to_512_bytes",),
    ),
    Guard(
        "allocator: sizes are rounded",
        "a prediction below what CUDA takes",
        "labkit/plan/allocator.py",
        "size = -(-size_bytes // BLOCK_BYTES) * BLOCK_BYTES",
        "size = size_bytes",
        (f"{ALLOCATOR}::test_sizes_are_rounded_up_to_512_bytes",),
    ),
    Guard(
        "allocator: the capacity",
        "a segment more than the GPU has",
        "labkit/plan/allocator.py",
        "if self.capacity_bytes is not None and reserved > self.capacity_bytes:",
        "if self.capacity_bytes is not None and reserved > self.capacity_bytes + 1:",
        (f"{ALLOCATOR}::test_the_virtual_gpu_counts_bytes_and_nothing_else",),
    ),
    Guard(
        "predictions: other versions are other entries",
        "steps of another torch are replayed",
        "labkit/plan/cache.py",
        "json.dumps([values, _versions()], sort_keys=True)",
        "json.dumps([values], sort_keys=True)",
        ("tests/plan/test_cache.py::test_other_versions_are_other_entries",),
    ),
    # -- configs
    Guard(
        "config: a combination",
        "LoRA twice over",
        "labkit/config/combinations.py",
        "(config.use_lora and config.use_qlora, ",
        "(False, ",
        (f"{SCHEMA}::test_an_impossible_combination_names_both_keys_with_their_values",),
    ),
    Guard(
        "config: a range",
        "a batch of none divides by zero",
        "labkit/config/schema.py",
        '"num_train_samples", "max_length", "batch_size", "accumulate_grad_batches"',
        '"num_train_samples", "max_length", "accumulate_grad_batches"',
        (f"{SCHEMA}::test_a_value_out_of_range_is_refused",),
    ),
    Guard(
        "config: numbers are finite",
        "NaN passes every comparison",
        "labkit/config/values.py",
        "if not abs(number) < LARGEST or ",
        "if ",
        (f"{SCHEMA}::test_a_number_is_finite",),
    ),
    Guard(
        "config: YAML makes plain values",
        "a tag of YAML calls Python",
        "labkit/config/yaml_files.py",
        "class _Loader(yaml.SafeLoader):",
        "class _Loader(yaml.UnsafeLoader):",
        ("tests/test_trust.py::test_the_loader_of_yaml_makes_nothing_but_plain_values",),
    ),
    Guard(
        "config: no alias",
        "ten lines of YAML become a billion values",
        "labkit/config/yaml_files.py",
        "if self.check_event(yaml.AliasEvent):",
        "if False:",
        (f"{LAYERS}::test_a_broken_experiment_file_is_named_on_one_line_with_what_is_wrong",),
    ),
    Guard(
        "config: no key twice",
        "the second hides the first",
        "labkit/config/yaml_files.py",
        "if (key.tag, key.value) in seen:",
        "if False:",
        (f"{LAYERS}::test_a_broken_experiment_file_is_named_on_one_line_with_what_is_wrong",),
    ),
    Guard(
        "config: no escapes",
        "a name in a record moves the cursor of a terminal",
        "labkit/config/values.py",
        "if isinstance(value, str) and value and not _UNPRINTABLE.search(value):",
        "if isinstance(value, str) and value:",
        (f"{SCHEMA}::test_a_name_that_would_move_a_terminal_is_refused",),
    ),
    # -- the rooms, and how the command ends
    Guard(
        "rooms: runs starts training as a process",
        "a notebook that looks at runs imports torch",
        "labkit/runs/host.py",
        "import re\n",
        "import re\n\nimport labkit.train.errors\n",
        ("tests/test_rooms.py::test_imports_go_one_way",),
    ),
    Guard(
        "command: exit codes",
        "a script takes bad input for a run that failed",
        "labkit/cli.py",
        "        return carries_out, EXIT_USAGE\n",
        "        return carries_out, EXIT_FAILED\n",
        ("tests/test_cli.py::test_bad_input_is_one_line_exit_code_2_and_writes_nothing",),
    ),
    # -- provisioning: nodes, keys, work
    Guard(
        "ssh: a node's host key is kept",
        "somebody else answers at the address",
        "provisioning/ssh.py",
        '"StrictHostKeyChecking": "accept-new"',
        '"StrictHostKeyChecking": "no"',
        (f"{SSH}::test_nothing_of_the_users_own_configuration_and_no_question_is_asked",),
    ),
    Guard(
        "ssh: arguments stay arguments",
        "a key or a name is a command on the node",
        "provisioning/ssh.py",
        'shlex.join(["bash", "-c", text, script, *arguments])',
        '" ".join([shlex.join(["bash", "-c", text, script]), *arguments])',
        (f"{SSH}::test_arguments_arrive_as_they_are",),
    ),
    Guard(
        "ssh: a script that hangs",
        "one node stops the whole class",
        "provisioning/ssh.py",
        "alarm = threading.Timer(bound_s, child.kill)",
        "alarm = threading.Timer(bound_s + 100, child.kill)",
        (f"{SSH}::test_a_script_that_hangs_is_stopped",),
    ),
    Guard(
        "link: shown without its token",
        "a saved notebook gives the node away",
        "provisioning/jupyter.py",
        "    __repr__ = __str__\n",
        "    __repr__ = url.fget\n",
        (f"{SSH}::test_a_link_shows_the_tunnel_and_not_the_token",),
    ),
    Guard(
        "link: only its owner reads it",
        "the token lies open to all users",
        "provisioning/jupyter.py",
        "os.O_EXCL, 0o600)",
        "os.O_EXCL, 0o644)",
        (f"{SSH}::test_a_link_shows_the_tunnel_and_not_the_token",),
    ),
    Guard(
        "node: what comes back is unpacked with a filter",
        "a member leads out of the folder",
        "provisioning/collect.py",
        'tar.extractall(folder, filter="data")',
        'tar.extractall(folder, filter="fully_trusted")',
        (f"{NODE_ARCHIVES}::test_an_archive_that_reaches_out_of_its_folder_is_refused",),
    ),
    Guard(
        "node: what comes back has a size",
        "it fills the instructor's disk",
        "provisioning/collect.py",
        "if size > LARGEST_BYTES:",
        "if False:",
        (f"{NODE_ARCHIVES}::test_a_whole_archive_is_unpacked_and_a_damaged_one_is_said",),
    ),
    Guard(
        "node: a student's runs are not sent",
        "one student's work lies on another's node",
        "provisioning/project.py",
        'STUDENTS = {"workspace/runs", "workspace/data"}',
        'STUDENTS = {"workspace/data"}',
        (f"{NODE_ARCHIVES}::test_what_is_a_students_is_not_sent",),
    ),
    Guard(
        "node: a netID is a name",
        "it becomes part of folders and of what is deleted",
        "provisioning/booking.py",
        'if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,30}", netid):',
        "if False:",
        (
            "tests/provisioning/test_provisioning_command.py::"
            "test_a_netid_that_would_be_no_name_is_refused_before_logging_in",
        ),
    ),
    Guard(
        "node: only what is ours is deleted",
        "another student's server is torn down",
        "provisioning/servers.py",
        "    return [server for server in servers if server.metadata.get(TAG) == booking.name]\n",
        "    return servers\n",
        (f"{OURS}::test_what_others_have_is_never_found",),
    ),
    Guard(
        "node: work that was not collected",
        "a teardown deletes a week of work",
        "provisioning/teardown.py",
        "        collect.refuse_to_lose(booking)\n",
        "        pass\n",
        (f"{OURS}::test_a_teardown_deletes_nothing_while_there_is_work_to_lose",),
    ),
    Guard(
        "node: an earlier lease's server",
        "a student works on a node that ends any minute",
        "provisioning/servers.py",
        'if made_under != lease.id and server.status != "ERROR":',
        "if False:",
        (f"{OURS}::test_a_server_of_an_earlier_lease_is_refused",),
    ),
    Guard(
        "node: our name without our tag",
        "another's server is taken over",
        "provisioning/servers.py",
        "if server.name == booking.name and server.metadata.get(TAG) != booking.name:",
        "if False:",
        (f"{OURS}::test_our_name_without_our_tag_is_not_taken_for_ours",),
    ),
    Guard(
        "node: only what is ours is deleted, volumes",
        "another student's disk is deleted",
        "provisioning/volumes.py",
        "    return [volume for volume in volumes if volume.metadata.get(TAG) == booking.name]\n",
        "    return volumes\n",
        (f"{OURS}::test_what_others_have_is_never_found",),
    ),
    Guard(
        "node: Jupyter listens on the loopback",
        "its port is open to the world",
        "provisioning/runtime.py",
        'bind = "0.0.0.0" if open_port else "127.0.0.1"',
        'bind = "0.0.0.0"',
        (f"{OURS}::test_jupyter_listens_on_the_nodes_loopback_and_the_work_is_marked_before_it_can_be_written",),
    ),
    Guard(
        "node: work is marked before it is written",
        "a teardown in between loses it",
        "provisioning/runtime.py",
        "    servers.mark(booking, {WORK: YES})\n",
        "",
        (f"{OURS}::test_jupyter_listens_on_the_nodes_loopback_and_the_work_is_marked_before_it_can_be_written",),
    ),
    Guard(
        "node: an open port is open to one",
        "Jupyter's port is open to the world",
        "provisioning/access.py",
        'f"{caller}/32"',
        "ANYBODY",
        (f"{OURS}::test_an_open_port_is_open_to_the_one_who_asks_and_an_older_rule_goes",),
    ),
    Guard(
        "node: rules of an address that we had",
        "whoever has it now reaches Jupyter",
        "provisioning/access.py",
        '                    neutron.delete_security_group_rule(rule["id"])\n',
        "                    pass\n",
        (f"{OURS}::test_an_open_port_is_open_to_the_one_who_asks_and_an_older_rule_goes",),
    ),
    Guard(
        "node: the folder with the key",
        "other users of the machine list it",
        "provisioning/booking.py",
        "exist_ok=True, mode=0o700)",
        "exist_ok=True)",
        (f"{OURS}::test_the_folder_with_the_key_is_its_owners",),
    ),
    # -- the container
    Guard(
        "container: the token's file",
        "every user of the machine reads it",
        "docker/entrypoint.py",
        "path.touch(mode=0o600)",
        "path.touch()",
        (f"{ENTRYPOINT}::test_each_start_has_a_token_of_its_own_that_only_its_user_reads",),
    ),
    Guard(
        "container: no token in the environment of nobody",
        "Jupyter without a token is open to all",
        "docker/entrypoint.py",
        'if not os.environ.keys() & {"JUPYTER_TOKEN", "JUPYTER_TOKEN_FILE"}:',
        "if False:",
        (f"{ENTRYPOINT}::test_the_command_runs_with_the_token_in_a_file_and_nowhere_else",),
    ),
    Guard(
        "container: the student's files stay",
        "an edited notebook is written over",
        "docker/entrypoint.py",
        "if path.is_dir() or os.path.lexists(place):",
        "if path.is_dir():",
        (f"{ENTRYPOINT}::test_an_edited_file_stays_and_a_new_lab_comes",),
    ),
    Guard(
        "container: bound where it was asked",
        "Jupyter's port is open to the network",
        "docker/start",
        '--publish "$BIND:$PORT:8888"',
        '--publish "$PORT:8888"',
        ("tests/docker/test_start.py::test_the_container_has_its_name_label_port_gpus_and_workspace",),
    ),
)
