"""provisioning's lock: every pin has hashes, and the extra has the same pins."""

import re
import tomllib

from provisioning.sites import HERE

PIN = re.compile(r"^([A-Za-z0-9][\w.-]*)==([\w.]+)")


def pins(text):
    found = (PIN.match(line) for line in text.splitlines())
    return {re.sub(r"[-_.]+", "-", pin[1]).lower(): pin[2] for pin in found if pin}


def test_every_pin_of_the_lock_has_hashes_and_no_other_source():
    text = (HERE / "requirements.txt").read_text()
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert all(PIN.match(line) or re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}( \\)?", line) for line in lines)
    for one in re.split(r"\n(?=\S)", text.strip()):
        assert one.startswith("#") or one.count("--hash=sha256:") >= 1, one
    assert "://" not in text


def test_the_extra_and_the_lock_have_the_same_pins():
    wanted = pins((HERE / "requirements.in").read_text())
    assert len(wanted) > 100 and wanted == pins((HERE / "requirements.txt").read_text())


def test_make_installs_with_hashes_and_the_extra_without():
    make = (HERE.parent / "Makefile").read_text()
    assert "--require-hashes -r provisioning/requirements.txt" in make
    project = tomllib.loads((HERE.parent / "pyproject.toml").read_text())
    asked = pins("\n".join(project["project"]["optional-dependencies"]["chi"]))
    assert set(asked) == {"python-chi", "python-blazarclient", "python-zunclient"}
    assert asked.items() <= pins((HERE / "requirements.in").read_text()).items()
