"""A Slurm cluster on this machine: munge, the controller and two nodes, on loopback, with GPUs that are empty devices.

Where Slurm is not there it is installed, as root, from Debian's packages. All it writes lies in one folder, and all it
has started ends with it.
"""

import contextlib
import os
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
from pathlib import Path

WAIT_S = 60.0
STOP_S = 20.0
GPUS = {"n1": "a100", "n2": "v100"}
"""The nodes and the kind of their two GPUs each, which is a feature too."""

CONF = """\
ClusterName=course
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
AuthType=auth/munge
# a job that is queued again waits as long as its credential lasts
AuthInfo=socket={folder}/munge.socket,cred_expire=2
CredType=cred/munge
SlurmUser=root
SlurmdUser=root
SlurmdParameters=config_overrides
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=2
MpiDefault=none
SwitchType=switch/none
ReturnToService=2
KillWait=20
GresTypes=gpu
NodeName=n1 NodeAddr=127.0.0.1 NodeHostname={host} Port={ports[1]} CPUs=64 Gres=gpu:a100:2 Feature=a100
NodeName=n2 NodeAddr=127.0.0.1 NodeHostname={host} Port={ports[2]} CPUs=64 Gres=gpu:v100:2 Feature=v100
PartitionName=course Nodes=n1,n2 Default=YES MaxTime=60 State=UP
"""
GRES = """\
NodeName=n1 Name=gpu Type=a100 File={folder}/gpu[0-1]
NodeName=n2 Name=gpu Type=v100 File={folder}/gpu[2-3]
"""


class Cluster:
    """Use it as a context: the cluster is up inside. ``environment`` is what its commands and jobs need."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="slurm-"))  # short, for the path of a socket
        self._started: list[subprocess.Popen] = []

    @property
    def environment(self) -> dict[str, str]:
        """Two nodes on one machine meet on loopback; names of nodes are none of hosts here."""
        return {"SLURM_CONF": f"{self.folder}/slurm.conf", "MASTER_ADDR": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo"}

    def __enter__(self) -> "Cluster":
        try:
            self._start()
        except BaseException:  # Ctrl-C too: servers that were started are stopped, and the error is raised again
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        if (self.folder / "slurm.conf").exists():
            with contextlib.suppress(subprocess.SubprocessError):
                self.command("scancel", "--user", "root")
                self._wait("jobs do not end", lambda: not self.command("squeue", "--noheader"))
        for child in reversed(self._started):
            child.terminate()
            try:
                child.wait(STOP_S)
            except subprocess.TimeoutExpired:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def command(self, *argv: str) -> str:
        """What a command of Slurm's prints."""
        env = os.environ | self.environment
        done = subprocess.run(argv, env=env, capture_output=True, text=True, check=True, timeout=WAIT_S)
        return done.stdout.strip()

    def _start(self) -> None:
        if shutil.which("slurmctld") is None or shutil.which("munged") is None:
            install = ["apt-get", "install", "-y", "--no-install-recommends", "slurm-wlm", "munge"]
            subprocess.run(["apt-get", "update"], check=True)
            subprocess.run(install, check=True, env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"})
        folder = self.folder
        folder.chmod(0o755)  # munge wants that others can read the way to its socket
        (folder / "munge.key").write_bytes(secrets.token_bytes(128))
        (folder / "munge.key").chmod(0o400)
        for name in ("state", "spool-n1", "spool-n2", "log"):
            (folder / name).mkdir()
        for number in range(4):  # like /dev/null: Slurm only looks whether a GPU's device is there
            os.mknod(folder / f"gpu{number}", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        facts = {"folder": folder, "host": socket.gethostname().partition(".")[0], "ports": _free_ports(3)}
        (folder / "slurm.conf").write_text(CONF.format(**facts))
        (folder / "gres.conf").write_text(GRES.format(**facts))
        files = {"key-file": "munge.key", "socket": "munge.socket", "pid-file": "munged.pid", "seed-file": "munge.seed",
                 "log-file": "log/munged.log"}  # fmt: skip
        self._run("munged", "--foreground", *(f"--{option}={folder}/{name}" for option, name in files.items()))
        self._wait("munged does not answer", (folder / "munge.socket").exists)
        self._run("slurmctld", "-D", "-i")
        for node in GPUS:
            self._run("slurmd", "-D", "-N", node)
        self._wait("nodes do not come up", self._is_up)

    def _is_up(self) -> bool:
        try:
            return self.command("sinfo", "--noheader", "--Node", "--format=%T").split() == ["idle"] * len(GPUS)
        except subprocess.CalledProcessError:
            return False

    def _run(self, *argv: str) -> None:
        env = os.environ | self.environment
        with (self.folder / "log" / f"{argv[0]}{len(self._started)}.out").open("wb") as log:
            child = subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                     start_new_session=True)  # fmt: skip
        self._started.append(child)

    def _wait(self, what: str, ready: object) -> None:
        deadline = time.monotonic() + WAIT_S
        while not ready():
            if time.monotonic() > deadline or any(child.poll() is not None for child in self._started):
                tails = [f"{log.name}: {log.read_text(errors='replace')[-500:]}" for log in self.folder.glob("log/*")]
                raise RuntimeError("\n".join([what, *tails]))
            time.sleep(0.2)


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
