"""What goes to a node, and what comes back: same bytes for the same project, and nothing trusted."""

import io
import json
import tarfile

import pytest

from provisioning import collect, project, sites
from provisioning.errors import RemoteError


def names(data):
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {member.name for member in tar.getmembers()}


@pytest.mark.slow
def test_the_project_is_sent_without_what_is_a_students_or_can_be_made_again():
    data, digest = project.archive()
    sent = names(data)
    assert {"pyproject.toml", "requirements.txt", "labkit/cli.py", "workspace/configs/baseline.yaml"} <= sent
    assert {str(path.relative_to(project.ROOT)) for path in (project.ROOT / "labkit").rglob("*.py")} <= sent
    assert not [name for name in sent if "__pycache__" in name]
    assert not [name for name in sent if name.startswith((".", *project.STUDENTS))]
    assert {name for name in sent if name.startswith("tests")} == set(project.CHECKS)
    assert len(data) < 30e6
    assert len(digest) == 12


def test_same_files_have_the_same_digest_for_any_owner_and_others_have_another(tmp_path):
    for name in ("one", "two"):
        folder = tmp_path / name / "labkit"
        folder.mkdir(parents=True)
        (folder / "a.py").write_text("1")
        (folder / "__pycache__").mkdir()
        (folder / "__pycache__" / name).write_text(name)
    (tmp_path / "two" / "labkit" / "a.py").touch()
    assert project.archive(tmp_path / "one") == project.archive(tmp_path / "two")
    (tmp_path / "two" / "labkit" / "a.py").write_text("2")
    assert project.archive(tmp_path / "one")[1] != project.archive(tmp_path / "two")[1]


def test_what_is_a_students_is_not_sent(tmp_path):
    kept = ("labkit/runs/runner.py", "workspace/configs/baseline.yaml")
    for name in (
        *kept,
        "workspace/runs/tiny/x/record.json",
        "workspace/data/photo.png",
        "workspace/results/gpu_check-tiny.json",
        "tests/benchmarks/test_gpu_check.py",
        "workspace/submission-A.tar.gz",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    with tarfile.open(fileobj=io.BytesIO(project.archive(tmp_path)[0])) as tar:
        assert {member.name for member in tar.getmembers() if member.isfile()} == set(kept)


def packed(tmp_path, *members):
    path = tmp_path / "work.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for member in members:
            tar.addfile(member, io.BytesIO(b"x" * member.size))
    return path


def member(name, kind=tarfile.REGTYPE, link="", size=1):
    made = tarfile.TarInfo(name)
    made.type, made.linkname, made.size = kind, link, size if kind == tarfile.REGTYPE else 0
    return made


@pytest.mark.parametrize(
    "bad",
    [
        member("../outside"),
        member("runs/../../outside"),
        member("link", tarfile.SYMTYPE, "/etc/passwd"),
        member("link", tarfile.SYMTYPE, "../../outside"),
        member("hard", tarfile.LNKTYPE, "../outside"),
        member("device", tarfile.CHRTYPE),
    ],
    ids=lambda bad: f"{bad.name} {bad.linkname}",
)
def test_an_archive_that_reaches_out_of_its_folder_is_refused(tmp_path, bad):
    (tmp_path / "outside").write_text("kept")
    archive = packed(tmp_path, bad)
    with pytest.raises(RemoteError, match="is not safe to unpack") as error:
        collect.unpack(archive, tmp_path / "in" / "work")
    assert "\n" not in str(error.value)
    assert (tmp_path / "outside").read_text() == "kept"


def test_an_absolute_name_stays_inside(tmp_path):
    collect.unpack(packed(tmp_path, member("/runs/record.json")), tmp_path / "work")
    assert (tmp_path / "work" / "runs" / "record.json").exists()


def test_a_whole_archive_is_unpacked_and_a_damaged_one_is_said(tmp_path, monkeypatch):
    archive = packed(tmp_path, member("runs/record.json"), member("labs/01.ipynb"), member("labs", tarfile.DIRTYPE))
    assert collect.unpack(archive, tmp_path / "work") == 2
    archive.write_bytes(archive.read_bytes()[:40])
    with pytest.raises(RemoteError, match="is damaged.*Collect again"):
        collect.unpack(archive, tmp_path / "again")
    monkeypatch.setattr(collect, "LARGEST_BYTES", 10)
    with pytest.raises(RemoteError, match="would unpack to"):
        collect.unpack(packed(tmp_path, member("runs/a", size=11)), tmp_path / "large")


def test_notebooks_are_committed_without_outputs_and_without_a_name():

    found = sorted(sites.HERE.glob("*.ipynb"))
    assert [path.name[:2] for path in found] == ["1_", "2_", "3_", "4_"]
    for path in found:
        for cell in json.loads(path.read_text())["cells"]:
            if cell["cell_type"] == "code":
                assert (cell["outputs"], cell["execution_count"]) == ([], None)
                assert len(cell["source"]) <= 12
    source = "".join(line for cell in json.loads(found[0].read_text())["cells"] for line in cell["source"])
    assert 'NETID = ""\n' in source
