"""Checks of libraries and weights: versions, what an experiment needs in addition, the Hugging Face hub, a token."""

import json
import os
import shlex
import sys
import urllib.error
import urllib.request
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from labkit.config.extras import missing_for
from labkit.config.versions import version_of
from labkit.help.doctor.machine import Check, Machine, Needs
from labkit.memory.units import counted

HUB_TIMEOUT_S = 5.0

LOCK = "LABKIT_LOCK"
"""The variable that names a file of pins, as the image does; without it a checkout has one."""


def lock() -> Path:
    """The file of pins to compare with. Where there is none, pip knows the ranges that labkit needs."""
    return Path(os.environ.get(LOCK) or Path(__file__).parents[3] / "requirements.txt")


def check_versions(requirements: Path | None = None) -> Check:
    """What is installed against the lock of a checkout or image, else against the ranges of the installed package."""
    requirements = requirements or lock()
    wanted = _wanted(requirements)
    if not wanted:
        found = f"no {requirements} to compare with, and labkit is not installed"
        return Check(name="versions", level="amber", found=found, fix="pip check")
    here = [(need, version_of(need.name)) for need in wanted]
    lacking = [need for need, version in here if version == "missing" and not need.marker]
    # of an extra only what is there counts, for not all need it
    other = [
        (need, version) for need, version in here
        if version != "missing" and not need.specifier.contains(version, prereleases=True)
    ]  # fmt: skip
    needed = [need for need, version in here if need in lacking or (need, version) in other]
    said = f"-r {requirements}" if requirements.is_file() else shlex.join(f"{n.name}{n.specifier}" for n in needed)
    fix = f"{sys.executable} -m pip install {said}"
    if lacking:
        names = ", ".join(f"{need.name} {_versions(need)}".strip() for need in lacking)
        return Check(name="versions", level="red", found=f"not installed: {names}", fix=fix)
    if other:
        names = ", ".join(f"{need.name} {version}, not {_versions(need)}" for need, version in other)
        return Check(name="versions", level="amber", found=f"not as tested: {names}", fix=fix)
    counted_here = counted(len({need.name for need, version in here if version != "missing"}), "package")
    pinned = all(str(need.specifier).startswith("==") for need in wanted)
    found = f"{counted_here} as pinned" if pinned else f"{counted_here} in the ranges of labkit {version_of('labkit')}"
    return Check(name="versions", level="green", found=found)


def _versions(need: Requirement) -> str:
    return str(need.specifier).removeprefix("==")


def _wanted(requirements: Path) -> list[Requirement]:
    """What the file names, else what pip knows labkit to require; empty where neither is there."""
    try:
        lines = requirements.read_text(encoding="utf-8").splitlines()
    except OSError:
        try:
            lines = metadata.requires("labkit") or []
        except metadata.PackageNotFoundError:
            lines = []
    needs = [Requirement(line) for line in lines if line.strip() and not line.startswith("#")]
    return [need for need in needs if need.name != "labkit"]  # an extra may bring another


def check_extras(needs: Needs) -> list[Check]:
    """What the experiment needs and a small installation does not have; nothing where it is there."""
    reason = missing_for(needs.config) if needs.config else None
    if reason is None:
        return []
    found, _, fix = reason.rpartition(": ")
    return [Check(name="extras", level="red", found=found, fix=fix)]


def check_hub(machine: Machine, needs: Needs) -> list[Check]:
    """Whether the weights are here or can be fetched. Asks the hub, with a short time-out; never says the token."""
    model = _model_to_fetch(needs)
    if needs.config is not None and model is None:
        return [Check(name="weights", level="green", found="the run has random weights or its own; nothing to fetch")]
    here = model is not None and _in_cache(machine, model)
    fetch = f"labkit fetch {model or '--profile ' + needs.profile}"
    weights = [Check(name="weights", level="green", found=f"{model} is in the cache")] if here else []
    if model is not None and not here:
        weights = [Check(name="weights", level="amber", found=f"{model} is not in the cache yet", fix=fetch)]
    if machine.environment.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "ON", "YES"):
        found = "HF_HUB_OFFLINE keeps this machine off the hub"
        level = "green" if here or needs.simulated else "amber"
        return [*weights, Check(name="hub", level=level, found=found,
                                fix="" if level == "green" else f"HF_HUB_OFFLINE=0 {fetch}")]  # fmt: skip
    token, where = _token(machine)
    status, answer = _ask(machine, f"/api/models/{model}" if model else "/api/whoami-v2", token)
    return [*weights, _reachable(status, answer, here, needs, fetch), _token_check(status, answer, token, where, model)]


def _reachable(status: int | None, answer: Any, here: bool, needs: Needs, fetch: str) -> Check:
    if status is not None:
        return Check(name="hub", level="green", found="the hub answers")
    unneeded = here or needs.simulated
    level = "green" if unneeded else "amber" if needs.config is None else "red"
    found = f"the hub is out of reach ({answer})" + ("; nothing of it is needed" if unneeded else "")
    return Check(name="hub", level=level, found=found, fix="" if unneeded else f"{fetch}  # on a node with a network")


def _token_check(status: int | None, answer: Any, token: str | None, where: str, model: str | None) -> Check:
    gated = isinstance(answer, dict) and answer.get("gated")
    if token is None and (gated or (model and status in (401, 403))):
        return Check(name="token", level="red", found=f"{model} is gated or private, and there is no token",
                     fix="hf auth login")  # fmt: skip
    if token is None:
        return Check(name="token", level="green", found="none; the models of the course need none")
    if status in (401, 403):
        return Check(name="token", level="red", found=f"the hub does not accept the token of {where} (HTTP {status})",
                     fix="hf auth login")  # fmt: skip
    said = "accepted" if status == 200 else "not tried"
    return Check(name="token", level="green" if status == 200 else "amber", found=f"from {where}, {said}",
                 fix="" if status == 200 else "hf auth whoami")  # fmt: skip


def _model_to_fetch(needs: Needs) -> str | None:
    if needs.config is None or needs.config.weights != "pretrained":
        return None
    name = needs.config.model_name
    return None if name.startswith("tiny/") or Path(name).is_dir() else name


def _cache(machine: Machine) -> Path:
    home = Path(machine.environment.get("HOME") or "/")
    cache = Path(machine.environment.get("XDG_CACHE_HOME") or home / ".cache")
    return Path(machine.environment.get("HF_HOME") or cache / "huggingface")


def _in_cache(machine: Machine, model: str) -> bool:
    hub = Path(machine.environment.get("HF_HUB_CACHE") or _cache(machine) / "hub")
    return any((hub / f"models--{model.replace('/', '--')}").glob("snapshots/*/config.json"))


def _token(machine: Machine) -> tuple[str | None, str]:
    for variable in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        if value := machine.environment.get(variable, "").strip():
            return value, variable
    path = Path(machine.environment.get("HF_TOKEN_PATH") or _cache(machine) / "token")
    try:
        return path.read_text(encoding="utf-8").strip() or None, str(path)
    except OSError:
        return None, ""


class _StayHere(urllib.request.HTTPRedirectHandler):
    """A token is not carried to where a redirect leads."""

    def redirect_request(self, req: Any, fp: Any, code: Any, msg: Any, headers: Any, newurl: Any) -> None:
        """Follow none."""


def _ask(machine: Machine, path: str, token: str | None) -> tuple[int | None, Any]:
    """Status and answer of the hub; without a status why it is out of reach."""
    from labkit.borrowed.huggingface_hub import DEFAULT_ENDPOINT

    endpoint = machine.environment.get("HF_ENDPOINT") or DEFAULT_ENDPOINT
    try:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        request = urllib.request.Request(endpoint.rstrip("/") + path, headers=headers)
        with urllib.request.build_opener(_StayHere).open(request, timeout=HUB_TIMEOUT_S) as answer:
            return answer.status, json.loads(answer.read(2**20))
    except urllib.error.HTTPError as error:
        return error.code, None
    except (OSError, ValueError) as error:  # no way there, a time-out, an endpoint that is not an address
        return None, str(getattr(error, "reason", error)) or type(error).__name__
