"""Claims: every number and every claim that a lesson prints, read back and computed again from the records.

Each sentence that an explanation or a topic prints is one of those listed here, with what makes it true. The runs are
those that ship: measured on the simulated GPU, and planned for two GPUs. What is computed here reads phases of records,
and takes nothing from the lessons.
"""

import contextlib
import dataclasses
import itertools
import re

import pytest
import torch
from msgspec.structs import replace

from labkit.config.workspace import Workspace
from labkit.lab.counts import Captions, Rounding
from labkit.lab.lesson import LABS, Question, lesson_of
from labkit.lab.reference import read_reference
from labkit.lab.result import Result
from labkit.ledger.parts import Predicted
from labkit.memory.categories import STACKED_CATEGORIES as DEVICE

MACHINES = ("tiny", "h100-94gb", "a100-80gb")
SAID = [
    (lab, one) for lab in LABS for one in (*lesson_of(lab).questions, *lesson_of(lab).topics)
]  # fmt: skip
UNITS = {"bytes": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
NUMBER = r"(\d+(?:\.\d+)?(?: (?:bytes|KiB|MiB|GiB)\b|%)?)"
STATES = ("parameters", "gradients", "optimizer_gpu")
WORDS = {"optimizer state": "optimizer_gpu"}


def parsed(text):
    """A printed number: bytes, a share of 1, or as it is."""
    number, _, unit = text.partition(" ")
    return float(number[:-1]) / 100 if number.endswith("%") else float(number) * UNITS[unit or "bytes"]


def sentences(text):
    return [one for one in re.split(r"(?<=\D)\.(?:\s+|$)|(?<=\d)\.(?:\s+(?=[A-Z])|$)", text) if one]


def pattern(words):
    """``{}`` is a number, ``{words}`` anything."""
    return re.compile(
        re.escape(words).replace(r"\{\}", NUMBER).replace(r"\{words\}", "(.+)"),
    )  # fmt: skip


class Told:
    """What a record tells, from its phases."""

    def __init__(self, result):
        self.result, self.record, self.config = result, result.record, result.record.config
        self.phases = self.record.memory.phases
        predicted = self.record.prediction
        self.planned = predicted.phases if isinstance(predicted, Predicted) else []

    def top(self, *categories):
        """Highest bytes of each, summed; also what was held when memory ran out."""
        held = self.record.out_of_memory.held if self.record.out_of_memory else {}
        return sum(max([p.highest[c] for p in self.phases] + [held.get(c, 0)]) for c in categories)

    def foretold(self, *categories):
        """The same as predicted, with memory enough."""
        return sum(max(p.highest[c] for p in self.planned) for c in categories)

    def between_steps(self, *categories):
        """Bytes after the last optimizer step."""
        end = [p.end for p in self.phases if p.phase == "after_optimizer_step"][-1]
        return sum(end[c] for c in categories)

    @property
    def at_peak(self):
        return max(self.phases, key=lambda p: sum(p.peak[c] for c in DEVICE))

    @property
    def peak(self):
        return sum(self.at_peak.peak[c] for c in DEVICE)

    @property
    def foretold_peak(self):
        return max(sum(p.peak[c] for c in DEVICE) for p in self.planned)

    @property
    def capacity(self):
        return self.record.memory.capacity_bytes


def near(*pairs):
    """Whether numbers are what they should be, but for the digits that are not printed."""
    flat = list(pairs)
    return all(
        abs(one - other) <= 0.0055 * max(abs(other), 1) for one, other in zip(flat[::2], flat[1::2], strict=True)
    )  # fmt: skip


def listed(text, by_category):
    """``activations 3 MiB, gradients 2 MiB``: the largest first, nothing large left out."""
    found = [one.rsplit(" ", 2) for one in text.split(", ")]
    sizes = [parsed(f"{number} {unit}") for _, number, unit in found]
    names = [WORDS.get(words, words) for words, _, _ in found]
    wanted = [by_category[name] for name in names]
    left = sum(by_category[c] for c in DEVICE if c not in names)
    return (
        sizes == sorted(sizes, reverse=True)
        and near(*itertools.chain(*zip(sizes, wanted, strict=True)))
        and (left < 0.02 * sum(wanted))
    )


def held_then(told):
    return told.record.out_of_memory.held if told.record.out_of_memory else told.at_peak.peak


def is_at(told, words):
    return told.at_peak.phase == "after_" + words.replace(" ", "_")


def each_of_state(told):
    return told.top("optimizer_gpu") / (told.top("parameters") / 2)


def bf16(number):
    return torch.tensor(number, dtype=torch.bfloat16).item()


CLAIMS = {
    # 00
    "At the highest moment {} of {} are parameters": lambda r, a, b: near(
        a, r[0].at_peak.peak["parameters"], b, r[0].peak),
    "The rest is there because the model is trained: gradients, optimizer state, activations, temporaries": lambda r: (
        sum(r[0].at_peak.peak[c] for c in (*STATES, "activations", "temporaries")) > 0.97 * r[0].peak),
    # 01
    "It ends in the {words} of step {}": lambda r, words, step: (
        (r[0].record.died_in.phase.replace("_", " "), r[0].record.died_in.step) == (words, step)),
    "It would need {} (predicted), and the device has {}": lambda r, a, b: (
        near(a, r[0].foretold_peak, b, r[0].capacity) and a > b),
    "{} of state for {} of parameters, {} times: a mean and a mean square of the gradient for each": (
        lambda r, a, b, c: r[0].config["optim"] == "adamw" and near(
            a, r[0].top("optimizer_gpu"), b, r[0].top("parameters"), c, a / b)),
    "In the {words} it held {words}": lambda r, words, text: is_at(r[0], words) and listed(text, r[0].at_peak.peak),
    "With few activations, the temporaries of the optimizer decide": lambda r: (
        r[0].at_peak.peak["temporaries"] > 3 * r[0].at_peak.peak["activations"]),
    "The last allocation asked for {}": lambda r, a: near(a, r[0].record.out_of_memory.requested_bytes),
    "At that moment {} of {} were in use:": lambda r, a, b: near(
        a, r[0].record.out_of_memory.allocated_bytes, b, r[0].capacity),
    "With memory enough the run would hold {}; the device has {}": lambda r, a, b: near(
        a, r[0].foretold_peak, b, r[0].capacity),
    "activations {words}": lambda r, text: listed(f"activations {text}", held_then(r[0])),
    # 02
    "{} (predicted for the baseline, which does not get to keep them) against {}: they grow with the batch, sample by "
    "sample": lambda r, a, b: near(
        a, r[0].foretold("activations"), b, r[1].top("activations"),
        a / b, r[0].config["batch_size"] / r[1].config["batch_size"]) and r[0].record.status == "oom",
    "Batches of {} and {}": lambda r, a, b: (a, b) == (r[0].config["batch_size"], r[1].config["batch_size"]),
    "{} times: {} against {}": lambda r, a, b, c: near(a, b / c) and {True} == {
        any(near(one, told.peak) for told in r) for one in (b, c)},
    "Each micro batch's activations are gone before the next one comes; only the sum of the gradients stays": (
        lambda r: near(r[1].top("activations"), r[0].top("activations"))
        and max(told.config["accumulate_grad_batches"] for told in r) > 1),
    "{words} {} after {} optimizer steps, {words} {} after {} optimizer steps, {words} {} after {} optimizer steps": (
        lambda r, *said: all(
            (said[3 * at], said[3 * at + 2]) == (told.record.experiment, len(told.record.losses))
            and near(said[3 * at + 1], told.record.losses[-1]) for at, told in enumerate(r))),
    "Accumulation makes fewer steps with the same samples; a larger learning rate makes up for some": lambda r: (
        len(r[1].record.losses) < len(r[0].record.losses) and len({told.record.samples for told in r}) == 1
        and r[0].record.losses[-1] < r[2].record.losses[-1] < r[1].record.losses[-1]
        and r[2].config["lr"] > r[1].config["lr"]),
    # 03
    "Parameters, gradients, optimizer state and nearly all activations are half as large": lambda r: all(
        near(r[1].top(c), r[0].top(c) / 2) for c in STATES) and (
        0.5 <= r[1].top("activations") / r[0].top("activations") < 0.56),
    "{} of parameters, as in 32-true": lambda r, a: near(a, r[1].top("parameters"), a, r[0].top("parameters")),
    "Arithmetic is in 16 bits, on copies": lambda r: r[1].config["precision"] == "bf16-mixed",
    "Activations: {} against {}": lambda r, a, b: near(a, r[1].top("activations"), b, r[0].top("activations")),
    "Those in 16 bits are half as large, and the copy of each layer's weights is kept for backward besides": lambda r: (
        r[1].top("activations") > 0.6 * r[0].top("activations")),
    "So mixed precision saves time, and hardly memory": lambda r: 0.85 < r[1].peak / r[0].peak < 1.05,
    "{} in bf16-true, {} in bf16-mixed": lambda r, a, b: near(
        100 * a, 100 * r[0].lost_share("bf16-true", 2e-5), 100 * b, 100 * r[0].lost_share("bf16-mixed", 2e-5)),
    "bf16 has {} significant bits: a weight changes only if the update is larger than about one part in {} of it": (
        lambda r, bits, part: bits == 1 + 7 and bf16(1 + 2.0**-bits) == 1 and bf16(1 + 2.0 ** (1 - bits)) > 1
        and all(bf16(one * (1 + 0.9 / part)) == bf16(one) for one in (1.0, 1.25, 1.5, 1.75))
        and bf16(1.9921875 * (1 + 1.2 / part)) > 1.9921875),
    "Mixed precision adds the update to a copy in {} bits": lambda r, a: a == 32,
    # 04
    "{} of {}": lambda r, a, b: (near(a, r[0].peak, b, r[0].capacity) if len(r) == 1
                                 else near(a, r[1].top("activations"), b, r[0].top("activations"))),
    "What {} bits saved is spent on parameters": lambda r, bits: (
        bits == 16 and r[0].config["precision"] == "bf16-true" and r[0].top(*STATES) > 0.6 * r[0].peak),
    "Parameters, gradients and optimizer state alone take {} (predicted), and the device has {}": lambda r, a, b: near(
        a, r[0].foretold(*STATES), b, r[0].capacity),
    "Activations of one sample are {}; in the optimizer step {} of temporaries come on top": lambda r, a, b: (
        near(a, r[0].foretold("activations"), b, r[0].foretold("temporaries")) and r[0].config["batch_size"] == 1
        and r[0].foretold(*STATES) + b > r[0].capacity),
    "The optimizer makes its state at its first step, and needs temporaries besides: {} and up to {} (predicted)": (
        lambda r, a, b: near(a, r[0].foretold("optimizer_gpu"), b, r[0].foretold("temporaries"))
        and all(p.end["optimizer_gpu"] == 0 for p in r[0].planned
                if p.step == 0 and p.phase != "after_optimizer_step")),
    # 05
    "{} of {}, with {} of optimizer state in place of {} (predicted for xxl)": lambda r, a, b, c, d: near(
        a, r[1].peak, b, r[1].capacity, c, r[1].top("optimizer_gpu"), d, r[0].foretold("optimizer_gpu")),
    "{}: one byte for the mean and one for the mean square, and a scale for each block of {} numbers": (
        # two scales of four bytes a block; what is too small for a block is left out at full size
        lambda r, a, b: near(a, each_of_state(r[0])) and abs(8 / b / (each_of_state(Told(ADAM8)) - 2) - 1) < 0.02),
    "AdamW in bf16 keeps four bytes, in fp32 eight": lambda r: r[0].config["precision"] == "bf16-true",
    "{words}: loss {} to {} in {} steps and {} samples": lambda r, name, a, b, c, d: any(
        (told.record.experiment, len(told.record.losses), told.record.samples) == (name, c, d)
        and near(a, told.record.losses[0], b, told.record.losses[-1]) for told in r),
    "The two saw different batches and numbers of samples, so this is no contest; SGD wants its own learning rate": (
        lambda r: len({told.config["batch_size"] for told in r}) == len({told.record.samples for told in r}) == 2),
    # 06
    "Only the input of each layer is kept; what is inside is computed again when backward comes there": lambda r: (
        r[1].config["act_ckpt"] and r[1].top("activations") < r[0].top("activations") / 3),
    "{} times the speed: every layer's forward is computed twice": lambda r, a: (
        near(a, r[1].result.samples_per_second / r[0].result.samples_per_second) and a < 1),
    "What the optimizer step takes stays as it is, and with a slow one the difference looks small": lambda r: (
        r[0].config["optim"] == r[1].config["optim"]),
    "{words}: activations {}, peak {}": lambda r, name, a, b: any(
        told.record.experiment == name and near(a, told.top("activations"), b, told.peak) for told in r),
    # 07
    "{}; xxl would have {} there (predicted)": lambda r, a, b: near(
        a, r[1].top("optimizer_gpu"), b, r[0].foretold("optimizer_gpu")),
    "The step itself is done by the CPU": lambda r: r[1].top("optimizer_cpu") > 0,
    "{} times: {} for {} of {}-bit parameters": lambda r, a, b, c, bits: near(
        a, b / c, b, r[0].top("parameters_cpu", "optimizer_cpu"), c, r[0].top("parameters"), bits, 16),
    "For each there lie a copy in {} bits, two numbers of state and a gradient in {} bits too, and two buffers in {} "
    "bits for what is on its way: {} bytes for {}": lambda r, a, b, c, host, device: (
        host == (a + 3 * b + 2 * c) / 8 and device == 2 and near(
            r[0].top("parameters_cpu", "optimizer_cpu") / r[0].top("parameters"), host / device)),
    "{} optimizer steps took {} s, {} samples a second": lambda r, a, b, c: (
        a == len(r[0].record.losses) and abs(b - r[0].record.train_seconds) < 0.06
        and abs(c - r[0].result.samples_per_second) < 0.06),
    "On a simulated GPU host and device are the same memory: nothing moves, so this time says nothing about a GPU": (
        lambda r: r[0].config["device"] == "simulated"),
    # 08
    "{} of gradients for {} of parameters": lambda r, a, b: near(
        a, r[0].top("gradients"), b, r[0].top("parameters")) and a < b / 20,
    "The smaller the model, the larger the share: a rank of {} is much for a narrow layer": lambda r, rank: (
        rank == r[0].config["lora_r"] and SHARES["tiny"] > 3 * SHARES["h100-94gb"]),
    "{} of them were named exactly before, {} with the adapter": lambda r, a, b: (
        (a, b) == (r[0].base_share, r[0].share)),
    "xxl would hold {} of parameters, gradients and state (predicted), in {words}": lambda r, a, words: (
        near(a, r[0].foretold(*STATES)) and words == r[0].config["precision"]),
    "xxl_lora holds {}, in {words}": lambda r, a, words: (
        near(a, r[1].top(*STATES)) and words == r[1].config["precision"]),
    # 09
    "{} times: {} of {}": lambda r, a, b, c: near(a, b / c, b, r[1].top("parameters"), c, r[0].top("parameters")),
    "Embeddings, the output layer, the connector and each layer that the method leaves out stay as they were, and "
    "every block of {}-bit numbers has a scale": lambda r, bits: (
        bits == 4 and r[1].config["use_qlora"] and r[1].top("parameters") > r[0].top("parameters") * (0.5625 / 4)),
    "In 4 bits with their scales: {}": lambda r, a: near(a, r[0].record.model.quantized_bytes),
    "Not quantized: {words}": lambda r, text: near(
        sum(parsed(" ".join(one.rsplit(" ", 2)[1:])) for one in text.split("; ")),
        r[0].top("parameters") - r[0].record.model.quantized_bytes - r[0].top("gradients")),
    "LoRA with checkpointing alone keeps {} of activations, and {} without, at the same batch": lambda r, a, b: any(
        near(a, one.top("activations"), b, other.top("activations"))
        and one.config["batch_size"] == other.config["batch_size"]
        and (one.config["act_ckpt"], other.config["act_ckpt"]) == (True, False)
        for one, other in itertools.permutations(r, 2)),
    # 10
    "It asked for {} when {} were in use": lambda r, a, b: near(
        a, r[0].record.out_of_memory.requested_bytes, b, r[0].record.out_of_memory.allocated_bytes),
    "The last drop is not what filled the glass; read what was held": lambda r: (
        r[0].record.out_of_memory.requested_bytes < max(r[0].record.out_of_memory.held.values())),
    "{words}, by signal {}: it leaves no time to say anything, so its watcher does": lambda r, words, number: (
        words == r[0].record.status and f"signal {number:.0f}" in r[0].record.reason),
    "status: {words}": lambda r, words: words == r[0].record.status,
    "where: {words} of step {}": lambda r, words, step: (
        (words, step) == (r[0].record.died_in.phase.replace("_", " "), r[0].record.died_in.step)),
    "asked for: {}": lambda r, a: near(a, r[0].record.out_of_memory.requested_bytes),
    "message: {words}": lambda r, words: words in (r[0].record.reason or "none when planned"),
    "{words}: {words}": lambda r, name, status: any(
        (told.result.name, told.record.status) == (name, status) for told in r),
    # 11
    "It needs {} (predicted), and such a GPU leaves about {} to a program (assumed)": lambda r, a, b: (
        near(a, r[0].foretold_peak, b, r[0].capacity)),
    "needs {}, has {}: {words} (predicted)": lambda r, a, b, words: any(
        near(a, told.peak, b, told.capacity) and words == ("fits" if told.record.status == "ok" else "out of memory")
        for told in r),
    # 12
    "{words} {}, of it parameters {} and temporaries {} at most, {words} {}, of it parameters {} and temporaries {} at "
    "most": lambda r, *said: all(
        said[4 * at] == told.result.name and near(
            said[4 * at + 1], told.peak, said[4 * at + 2], told.top("parameters"),
            said[4 * at + 3], told.top("temporaries")) for at, told in enumerate(r)),
    "Weights in {} bits are the smallest, and they are computed with as copies that come and go": lambda r, bits: (
        bits == 4 and r[1].top("parameters") < r[0].top("parameters")
        and r[1].top("temporaries") > r[0].top("temporaries")),
    "In a small model such a copy is a large part of the peak; in a large one it is a small part": lambda r: (
        COPIES["tiny"] > 0.3 and COPIES["h100-94gb"] < 0.1),
    # 13
    "{} at the peak against {}": lambda r, a, b: near(a, r[1].peak, b, r[0].peak),
    "Each has all of the model, and its gradients lie in buckets that are never given back": lambda r: (
        near(r[1].top("parameters"), r[0].top("parameters")) and r[1].top("gradients") > 1.9 * r[0].top("gradients")),
    "DDP makes a run faster where each device is a GPU of its own, and never smaller": lambda r: r[1].peak >= r[0].peak,
    "{} against {}: {} devices see as many batches at once": lambda r, a, b, c: (
        (a, b, c) == (len(r[0].record.losses), len(r[1].record.losses), r[1].config["devices"]) and near(a / b, c)),
    "Fewer and larger steps, so the learning rate may grow too": lambda r: (
        len(r[1].record.losses) < len(r[0].record.losses)),
    "rank {words}: peak {}, {words}": lambda r, rank, a, text: ranks_hold(r[-1], int(rank), a, text),
    "one of {} devices: peak {}; the others are like it": lambda r, a, b: (
        a == r[-1].config["devices"] and near(b, r[-1].peak)),
    # 14
    "{} against {} with DDP: a share for each of {} devices": lambda r, a, b, c: (
        near(a, r[1].between_steps(*STATES), b, r[0].between_steps(*STATES))
        and c == r[1].config["devices"] and abs(b / a / c - 1) < 0.01),
    "{} against {}": lambda r, a, b: near(a, r[1].top("activations"), b, r[0].top("activations")),
    "They follow the batch of a device, and that is what it was": lambda r: (
        near(r[1].top("activations"), r[0].top("activations"))
        and r[0].config["batch_size"] == r[1].config["batch_size"]),
    "FSDP does not replace checkpointing": lambda r: r[1].config["strategy"] == "fsdp" and not r[1].config["act_ckpt"],
    "killed by signal {} (SIGKILL)": lambda r, number: (
        number == 9 and any(told.record.reason == "killed by signal 9 (SIGKILL)" for told in r)),
    "stopped after the {} s it was given": lambda r, a: any(
        told.record.reason == f"stopped after the {a:g} s it was given" for told in r),
    # said where a plan does not tell
    "{words}: not available when planned": lambda r, _: all(told.result.planned for told in r),
    "{words}: time is not available when planned": lambda r, _: all(told.result.planned for told in r),
    # of no record: tests of runs and diagnoses hold them
    "At that moment:": None,
    "The base itself is as it was: with the adapter off it says what it said before": None,
    "This time we sent the signal; a diagnosis tells that from the kernel, which counts what it kills": None,
}  # fmt: skip
"""What a sentence needs to be true of the runs ``r`` that it is about and of the numbers and words in it."""


def ranks_hold(told, rank, peak, text):
    memory = [told.record.memory, *(one.memory for one in told.record.ranks)][rank]
    phases = memory.phases
    by_category = {c: max(p.highest[c] for p in phases) for c in DEVICE}
    assert near(peak, max(sum(p.peak[c] for c in DEVICE) for p in phases))
    return listed(text, by_category)


BY_LENGTH = [
    (pattern(words), CLAIMS[words]) for words in sorted(CLAIMS, key=lambda one: -len(re.sub("{.*?}", "", one)))
]
"""The words that leave least open come first."""


def evidence_of(machine):
    """Every run that ships for a machine, and one of each kind that a notebook hands in."""
    runs = {one.name: one for one in read_reference(Workspace.find(), machine)}
    reduced, full = runs["reduced_batch"], {one.name: one for one in read_reference(Workspace.find(), "h100-94gb")}
    true, mixed = ("bf16-true", 2e-5), ("bf16-mixed", 2e-5)
    counted = [
        {"precision": precision, "lr": lr, "updates": [1000], "lost": [lost], "losses": [7.0, 5.7]}
        for (precision, lr), lost in {true: 743, mixed: 12}.items()
    ]
    rows = [
        {"image": "x.png", "wanted": "key", "caption": "key" * (at < 1), "base_caption": "key" * (at < 8)}
        for at in range(10)
    ]
    small = full["bf16_true"].record
    return runs | {
        "?rounding": Rounding(counted),
        "?rest": Captions(reduced, "fluent_emoji_rest", rows),
        "?killed": changed(reduced, status="killed", reason="killed by signal 9 (SIGKILL)"),
        "?late": changed(reduced, status="timeout", reason="stopped after the 7 s it was given"),
        "?small": changed(full["bf16_true"], status="oom", memory=dataclasses.replace(
            small.memory, capacity_bytes=23 * 2**30)),
        "?large": full["bf16_true"],
    }  # fmt: skip


def changed(result, **values):
    return Result(replace(result.record, **values))


EVIDENCE = {machine: evidence_of(machine) for machine in MACHINES}
ADAM8 = EVIDENCE["h100-94gb"]["xxl_adam8bit"]
SHARES = {
    machine: Told(runs["xxl_lora"]).top("gradients") / Told(runs["xxl_lora"]).top("parameters")
    for machine, runs in EVIDENCE.items()
}
COPIES = {
    machine: Told(runs["xxl_qlora"]).top("temporaries") / Told(runs["xxl_qlora"]).peak
    for machine, runs in EVIDENCE.items()
}


def printed():
    """Every sentence with the machine, the lab, the id and the evidence that it is about."""
    for machine, runs in EVIDENCE.items():
        for lab, one in SAID:
            about = {name: runs[name] for name in one.about}
            if isinstance(one, Question):
                if one.truth(about) is None:  # nothing is explained then
                    continue
                lines = [one.because(about)]
            else:
                lines = one.say(about)
            told = [Told(found) if isinstance(found, Result) else found for found in about.values()]
            for line in lines:
                for sentence in sentences(line):
                    yield f"{machine} {lab} {one.id}", sentence, told


def read(sentence):
    """Claim, and the numbers and words in a sentence; None of one that no claim covers."""
    for words, claim in BY_LENGTH:
        if found := words.fullmatch(sentence):
            return claim, found
    return None


def values(found):
    """Numbers as numbers, words as they are; in the order of the sentence."""
    return [parsed(one) if re.fullmatch(NUMBER, one) else one for one in found.groups() if one is not None]


PRINTED = list(printed())


@pytest.mark.parametrize("where", sorted({where for where, _, _ in PRINTED}))
def test_every_number_and_claim_that_is_printed_follows_from_the_records(where):
    for of, sentence, told in PRINTED:
        if of == where:
            assert (covered := read(sentence)) is not None, f"nothing here says what makes this true: {sentence}"
            claim, found = covered
            assert claim is None or claim(told, *values(found)), sentence


def test_another_number_in_any_of_them_would_be_seen():
    seen, missed = 0, []
    for where, sentence, told in PRINTED:
        claim, found = read(sentence)
        given = values(found)
        for at, one in enumerate(given):
            is_rank = sentence.startswith("rank ") and at == 0  # two that hold the same
            if claim is not None and isinstance(one, float) and not is_rank:
                other = [*given[:at], one * 1.02 + 1 if one < 2 else one * 1.5, *given[at + 1 :]]
                seen += 1
                with contextlib.suppress(AssertionError, IndexError):
                    missed += [(where, sentence, one)] * bool(claim(told, *other))
    assert seen > 150 and not missed, missed


def test_every_claim_here_is_printed_somewhere():
    used = {id(read(sentence)[1].re) for _, sentence, _ in PRINTED}
    left = [words.pattern for words, _ in BY_LENGTH if id(words) not in used]
    assert not left
