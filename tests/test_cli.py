"""The command: its help, its errors, and what it prints for machines."""

import json
import os
import subprocess
import sys

import pytest

from labkit.cli import VERBS, main
from labkit.config.workspace import Workspace

HEAVY = ("torch", "lightning", "transformers", "bitsandbytes", "datasets", "numpy", "PIL", "tokenizers")


def labkit(*arguments: str, **more) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "labkit.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, **more)


@pytest.mark.parametrize("verb", [verb.__name__.rpartition(".")[2] for verb in VERBS])
def test_every_verb_has_help_with_examples(verb, capsys):
    with pytest.raises(SystemExit) as end:
        main([verb, "--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert f"  labkit {verb}" in text
    assert "--json" in text


BAD_INPUT = [
    (["reduced_batch", "batchsize=8"], "'batchsize'", "'batch_size'"),
    (["reduced_batch", "batch_size=many"], "batch_size='many'", "whole number"),
    (["reduced_batch", "batch_size=0"], "batch_size=0", "at least 1"),
    (["reduced_batch", "capacity_gib=0"], "capacity_gib=0", "above 0"),
    (["reduced_batch", "precision=bf16"], "precision='bf16'", "bf16-true"),
    (["reduced_batch", "precision=16-true"], "precision=16-true", "device=simulated"),
    (["reduced_batch", "optim=adam_8bit", "strategy=deepspeed_stage_2_offload"], "optim=adam_8bit", "strategy="),
    (["reduced_batch", "global_batch_size=50"], "global_batch_size=50", "batch_size=16"),
    (["reduced_batch", "use_lora=true", "use_qlora=true"], "use_lora=True", "use_qlora=True"),
    (["reduced_batch", "model_name=Salesforce/blip2-opt-2.7"], "model_name", "'Salesforce/blip2-opt-2.7b'"),
    (["reduced_batch", "dataset=fluent_emojis"], "dataset='fluent_emojis'", "'fluent_emoji'"),
    (["reduced_batch", "max_length=121"], "max_length=121", "at most 120"),
    (["reduced_batch", "batch_size"], "'batch_size'", "KEY=VALUE"),
    (["reduced_batches"], "'reduced_batches'", "'reduced_batch'"),
    (["nowhere.yaml"], "nowhere.yaml", "no experiment file"),
    (["reduced_batch", "--profile", "tinny"], "'tinny'", "'tiny'"),
    (["reduced_batch", "--timeout-s", "0"], "--timeout-s", "above 0"),
    ([], "--all", "name"),
]


@pytest.mark.parametrize(("arguments", "what", "next_step"), BAD_INPUT, ids=[" ".join(a[0])[:40] for a in BAD_INPUT])
def test_bad_input_is_one_line_exit_code_2_and_writes_nothing(arguments, what, next_step, ledger, capsys):
    assert main(["run", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("error: ")
    assert what in err
    assert next_step in err
    assert not ledger.root.exists()


@pytest.mark.slow
def test_a_config_error_imports_nothing_heavy():
    code = (
        "import sys; from labkit.cli import main; status = main(['run', 'reduced_batch', 'batchsize=8']);"
        f"print(status, [m for m in {HEAVY} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split(maxsplit=1) == ["2", "[]\n"]


def test_show_config_tells_the_layer_of_every_value(capsys):
    assert main(["run", "larger_model", "lr=1e-4", "--show-config", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["lr"] == {"value": 1e-4, "from": "command line"}
    assert shown["precision"]["from"] == "experiment larger_model"
    assert shown["batch_size"]["from"] == "profile tiny, larger_model"
    assert shown["max_epochs"]["from"] == "baseline"
    assert shown["report_every"]["from"] == "default"
    assert "stands in for Salesforce/blip2-opt-6.7b" in shown["model_name"]["from"]
    assert main(["run", "larger_model", "--show-config"]) == 0
    assert capsys.readouterr().out.count("\n") == len(shown) + 1


def test_values_may_stand_after_options(capsys):
    for line in (["reduced_batch", "--show-config", "--json", "batch_size=8"], ["--all", "lr=0.1", "--show-config"]):
        assert main(["run", *line]) == 0
        assert "command line" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["run", "reduced_batch", "--nothing", "batch_size=8"])


@pytest.mark.slow
def test_compare_and_show_for_people_and_machines(course_ledger, monkeypatch, capsys):
    monkeypatch.setenv("LABKIT_RUNS", str(course_ledger.root))
    assert main(["compare", "--profile", "tiny", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["status"] for row in rows].count("oom") == 3
    assert main(["compare", "--check"]) == 0
    assert "15 of 15 as expected" in capsys.readouterr().out
    assert main(["show", "baseline"]) == 0
    assert "out of memory" in capsys.readouterr().out
    assert main(["show", rows[1]["run"], "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["experiment"] == "reduced_batch"
    assert main(["show", "nothing"]) == 2
    assert "'nothing'" in capsys.readouterr().err


@pytest.mark.slow
def test_check_fails_when_a_run_is_missing(ledger, capsys):
    assert main(["compare"]) == 0
    assert main(["compare", "--check"]) == 1
    assert "0 of 15" in capsys.readouterr().out


@pytest.mark.slow
def test_configs_and_profiles_list_what_there_is(capsys):
    workspace = Workspace.find()
    assert main(["configs", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == len(list(workspace.configs.glob("*.yaml")))
    assert main(["configs", "--keys", "--json"]) == 0
    assert all(row["meaning"] and row["type"] for row in json.loads(capsys.readouterr().out))
    assert main(["configs", "--models"]) == 0
    assert "Salesforce/blip2-flan-t5-xxl" in capsys.readouterr().out
    assert main(["profiles", "--json"]) == 0
    assert {row["profile"] for row in json.loads(capsys.readouterr().out)} == {"tiny", "h100-94gb", "a100-80gb"}
    assert main(["profiles", "tiny"]) == 0
    assert "expected oom, forward of step 1" in capsys.readouterr().out


@pytest.mark.slow
def test_a_reader_that_stops_early_is_no_error():
    done = subprocess.run(
        f"{sys.executable} -m labkit.cli configs --keys | head -1", shell=True, capture_output=True, text=True
    )
    assert done.stderr == ""


@pytest.mark.slow
def test_no_workspace_is_named(tmp_path):
    done = labkit("configs", env={"LABKIT_WORKSPACE": str(tmp_path), "PATH": ""})
    assert done.returncode == 2
    assert str(tmp_path) in done.stderr


def test_a_profile_of_stand_ins_has_nothing_to_fetch(capsys):
    assert main(["fetch"]) == 0
    assert "needs no checkpoint" in capsys.readouterr().out
    assert main(["fetch", "--profile", "tiny", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_a_fetch_on_a_machine_that_is_offline_is_one_line(capsys):
    for what in (["Salesforce/blip2-opt-2.7b"], ["--profile", "h100-94gb"]):
        assert main(["fetch", *what]) == 2
        out, err = capsys.readouterr()
        assert (out, err.count("\n")) == ("", 1)
        assert "HF_HUB_OFFLINE=1" in err


@pytest.mark.slow
def test_a_plan_is_printed_for_people_and_for_machines(capsys):
    assert main(["plan", "xxl_lora", "--gpu", "tiny"]) == 0
    said = capsys.readouterr().out
    assert "xxl_lora on tiny: fits (predicted)\n  tiny/blip2-t5-large, batch_size=8, precision=32-true\n" in said
    assert main(["plan", "six_full_split", "devices=4", "batch_size=5"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert (
        "batch_size=5, precision=bf16-true; of 4 devices with strategy=pipeline the one that needs most, rank 3" in said
    )
    assert main(["plan", "multi_fsdp"]) == 0
    assert "of 2 devices with strategy=fsdp the first" in " ".join(capsys.readouterr().out.split())
    assert main(["plan", "xxl_lora", "--gpu", "tiny", "--json", "batch_size=32"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert (row["verdict"], row["expected"]) == ("out of memory", None)
    assert row["peak_bytes"] > row["capacity_bytes"]
    assert (row["reserved_bytes"], row["host_bytes"] > 0) == (None, True)
    assert row["died_in"]["phase"] == "forward"
    assert row["requested_bytes"] > 0
    assert row["margin"] < 0
    assert main(["plan", "xxl_lora", "--gpu", "tiny", "batch_size=32"]) == 0
    assert "dies in forward of step 0: aten." in capsys.readouterr().out


@pytest.mark.slow
def test_a_plan_with_adapters_does_not_load_the_compiler_of_torch(tmp_path):
    code = (
        "import os, sys; from labkit.cli import main; main(['plan', 'xxl_lora', '--gpu', 'tiny']);"
        "names = ('bitsandbytes', 'torch._inductor.compile_fx'); variable = os.environ.get('TORCHDYNAMO_DISABLE');"
        "print([name in sys.modules for name in names], variable, file=sys.stderr)"
    )
    for before in ({}, {"TORCHDYNAMO_DISABLE": "0"}):
        env = os.environ | {"LABKIT_RUNS": str(tmp_path / str(len(before)))} | before
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
        assert done.stderr.splitlines()[-1] == f"[True, False] {before.get('TORCHDYNAMO_DISABLE')}"


@pytest.mark.slow
def test_a_plan_of_several_devices_is_one_of_each(capsys):
    peaks = []
    for typed in ([], ["strategy=ddp", "devices=4"], ["strategy=fsdp", "devices=4"]):
        assert main(["plan", "bf16_true", "--json", *typed]) == 0
        peaks.append(json.loads(capsys.readouterr().out)["peak_bytes"])
    alone, ddp, fsdp = peaks
    assert fsdp < alone < ddp


@pytest.mark.slow
def test_offload_is_planned_with_its_host_memory(capsys):
    assert main(["plan", "xxl_cpu_offload"]) == 0
    assert "host memory 230." in capsys.readouterr().out


def test_a_plan_that_cannot_be_made_is_no_success(capsys):
    assert main(["plan", "xxl_cpu_offload", "precision=bf16-mixed"]) == 1
    assert "precision=bf16-mixed with strategy=deepspeed_stage_2_offload cannot be predicted" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--gpu", "a100-81"], "Did you mean 'a100-80gb'"),
        (["--gpu", "0GiB"], "2GiB to 1024GiB"),
        (["model_name=Salesforce/blip2-opt-2.8b"], "Did you mean 'Salesforce/blip2-opt-2.7b'"),
        (["batch_size=-3"], "batch_size=-3"),
        (["max_length=many"], "max_length='many'"),
    ],
)
def test_bad_input_to_a_plan_is_one_line(words, said, capsys):
    assert main(["plan", "reduced_batch", *words]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert said in err


@pytest.mark.slow
def test_a_plan_for_any_gpu_by_name_or_size(capsys):
    for gpu in ("a6000-48gb", "24GiB"):
        assert main(["plan", "xxl_checkpointing", "--gpu", gpu, "--json", "model_name=tiny/blip2-t5-large"]) == 0
        row = json.loads(capsys.readouterr().out)
        assert row["verdict"] == "fits"
        assert 20 * 2**30 < row["capacity_bytes"] < 48 * 2**30


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["baseline", "--gpu", "h100-95"], ["'h100-95'", "'h100-94gb'", "24GiB"]),
        (["baseline", "--gpu", "0GiB"], ["'0GiB'"]),
        (["baselin"], ["'baseline'"]),
        ([], ["--all"]),
    ],
)
def test_a_plan_that_cannot_be_is_one_line(arguments, parts, capsys):
    assert main(["plan", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    for part in parts:
        assert part in error
