"""The open port of a bare-metal node where firewalld runs, with a stand-in that keeps rules as firewalld does."""

import os
import subprocess
from pathlib import Path

import pytest

from provisioning.ssh import REMOTE

STAND_INS = Path(__file__).parents[1] / "openstack" / "stand_ins"
MATCH = "-p tcp -m conntrack --ctdir ORIGINAL --ctorigdstport 8888 -j LABKIT-JUPYTER"


@pytest.fixture
def limit(tmp_path):
    """Runs limit.sh for an address on a node where firewalld runs."""
    (tmp_path / "firewall-cmd").symlink_to(STAND_INS / "installed" / "firewall-cmd")
    env = os.environ | {
        "HOME": str(tmp_path), "STAND_INS": str(STAND_INS), "NODE_CALLS": str(tmp_path / ".calls"),
        "NODE_FAULTS": str(tmp_path / ".faults"), "PATH": f"{STAND_INS}:{tmp_path}:/usr/bin:/bin",
    }  # fmt: skip

    def run(address):
        command = ["bash", str(REMOTE / "limit.sh"), "8888", address]
        return subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True)

    return run


def rules(folder, which):
    return sorted((folder / f".firewalld-{which}").read_text().splitlines())


@pytest.mark.slow
def test_the_port_is_open_to_the_last_address_only_now_and_after_a_reload(limit, tmp_path):
    for address in ("198.51.100.7", "198.51.100.8", "198.51.100.8"):
        done = limit(address)
        assert (done.returncode, done.stderr) == (0, "")
    wanted = [
        "chain ipv4 filter LABKIT-JUPYTER",
        "rule ipv4 filter LABKIT-JUPYTER 0 -s 198.51.100.8 -j RETURN",
        "rule ipv4 filter LABKIT-JUPYTER 1 -i lo -j RETURN",
        "rule ipv4 filter LABKIT-JUPYTER 2 -j DROP",
        f"rule ipv4 filter DOCKER-USER 0 {MATCH}",
        f"rule ipv4 filter INPUT 0 {MATCH}",
        'rich rule family="ipv4" source address="198.51.100.8" port port="8888" protocol="tcp" accept',
    ]
    assert rules(tmp_path, "running") == sorted(wanted)
    # when firewalld starts, Docker has yet to make its chain
    assert rules(tmp_path, "lasting") == sorted([*wanted, "chain ipv4 filter DOCKER-USER"])
    assert "iptables" not in (tmp_path / ".calls").read_text()


@pytest.mark.slow
def test_what_firewalld_refuses_is_said_and_where_it_does_not_run_it_is_left_alone(limit, tmp_path):
    (tmp_path / ".faults").write_text("firewall-cmd --quiet --direct --add-rule: 1 COMMAND_FAILED\n")
    done = limit("198.51.100.7")
    assert done.returncode == 1
    assert "problem: firewalld refuses '--direct --add-rule ipv4 filter LABKIT-JUPYTER 0" in done.stderr
    (tmp_path / ".faults").write_text("firewall-cmd --state: 252 not running\n")
    (tmp_path / ".calls").write_text("")
    assert limit("198.51.100.7").returncode == 0
    assert "iptables -A LABKIT-JUPYTER -s 198.51.100.7 -j RETURN" in (tmp_path / ".calls").read_text()
