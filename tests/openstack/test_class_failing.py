"""A class, five of whom cannot get a node, each for another reason; what was wrong is put right, and a re-run completes
the five.

Seven students, so that all tests end in time; RIG_CLASS=30 is the class of thirty.
"""

import os
import shutil

from conftest import METAL, VM
from rig.remains import remains
from test_paths import TOKEN, command

from provisioning import chameleon, servers
from provisioning.volumes import WORK

ILL = ("typo", "named", "taken", "broken", "moved")
SIZE = int(os.environ.get("RIG_CLASS") or 7)
WELL = [f"s{number:02}" for number in range(SIZE - len(ILL))]
AT_ONCE = "6"


def test_a_class_with_five_that_fail_for_five_reasons_and_a_re_run_that_completes_them(plane, book, tmp_path):
    nodes = {netid: VM for netid in (*WELL, *ILL)} | {"typo": "g1.h100.pci1", "taken": METAL}
    roster = tmp_path / "class.csv"
    write = lambda: roster.write_text("netid,node\n" + "".join(f"{who},{what}\n" for who, what in nodes.items()))  # noqa: E731
    write()
    bookings = {netid: book(netid, METAL if netid == "taken" else VM) for netid in nodes}

    # somebody's server that has our name and not our tag
    named, other = bookings["named"], book("other", METAL)
    chameleon.ensure_lease(other)  # has the only node of its kind: "taken" finds none
    server = chameleon.ensure_server(other)
    other.cloud.nova.servers.update(server, name=named.name)
    # a disk that the site has lost, with work on it
    broken = bookings["broken"]
    chameleon.ensure_lease(broken)
    disk = chameleon.ensure_volume(broken)
    servers.mark(broken, {WORK: "yes"})
    plane.admin.block_storage.reset_volume_status(disk.id, status="error")
    # a server that was made from another machine, whose key is not here
    moved = bookings["moved"]
    for step in (chameleon.ensure_lease, chameleon.ensure_volume, chameleon.ensure_server):
        step(moved)
    shutil.rmtree(moved.folder)
    moved.folder.mkdir()

    up = command("up", "--class", str(roster), "--at-once", AT_ONCE, timeout=1200)
    lines = up.stdout.splitlines()
    assert up.returncode == 1, up.stdout + up.stderr
    some = f"{len(WELL)} of {SIZE} ok"
    assert some in lines
    assert sorted(line.split()[1] for line in lines if line.startswith("ok ")) == WELL
    summary = lines[lines.index(some) + 1 :]
    whys = {line.split(":")[0].strip(): line.partition(": ")[2] for line in summary}
    begins = {
        "typo": "UsageError: node 'g1.h100.pci1' is in no site of sites.yaml. Known: g1.h100.pci.1",
        "named": "NotOursError: server llm_single_named",
        "taken": "NoSlotError: no compute_gigaio at CHI@UC is free now",
        "broken": "UncollectedWorkError: volume llm_single_broken is in error and holds work",
        "moved": "SshError: ssh root@",
    }
    assert set(whys) == set(ILL)
    assert [netid for netid, text in begins.items() if not whys[netid].startswith(text)] == [], whys
    assert "next is free at" in whys["taken"]
    assert TOKEN not in up.stdout + up.stderr
    print("\n".join(summary))

    status = command("status", "--class", str(roster), "--cost")
    assert status.stdout.count("server ACTIVE") >= len(WELL)
    assert "not counted, since it could not be read: typo" in status.stdout
    assert "rates: https://chameleoncloud.org" in status.stdout and " SU\n" in status.stdout
    assert f"token={TOKEN}" in command("link", WELL[0], "--node", VM).stdout
    extend = command("extend", WELL[0], "--node", VM, "--by", "30m")
    assert extend.returncode == 0, extend.stdout

    # put right, as the five lines say
    nodes["typo"] = VM
    write()
    other.cloud.nova.servers.update(server, name=other.name)
    chameleon.teardown(other)
    plane.admin.block_storage.reset_volume_status(disk.id, status="available")
    chameleon.teardown(moved)
    again = command("up", "--class", str(roster), "--at-once", AT_ONCE, timeout=1200)
    assert again.returncode == 0, again.stdout + again.stderr
    assert f"{SIZE} of {SIZE} ok" in again.stdout.splitlines()
    there = remains(plane)
    counted = {kind: len(names) for kind, names in there.items()}
    assert counted == {
        "servers": SIZE, "volumes": SIZE - 1, "addresses": SIZE, "groups": SIZE - 1, "keys": SIZE, "leases": SIZE,
    }  # fmt: skip
    assert all(len(set(names)) == len(names) for kind, names in there.items() if kind != "groups")

    down = command("down", "--class", str(roster), "--at-once", AT_ONCE, timeout=1200)
    assert down.returncode == 0, down.stdout + down.stderr  # whatever the list says of a node: all of a netID goes
    assert f"{SIZE} of {SIZE} ok" in down.stdout.splitlines()
    assert remains(plane) == {}
