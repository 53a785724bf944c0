"""Nodes: sshd on all floating IPs, which lets in whom Nova says, into the server that holds the address.

An address accepts the key that the server behind it was made with, as long as that server is active, and every server
has a home folder of its own. Commands that would need a real machine are stand-ins on the PATH of the session.
"""

import shutil
import subprocess
import sys
from pathlib import Path

from .block import SSH_PORT, Block
from .processes import Processes
from .stores import Database

STAND_INS = Path(__file__).parents[1] / "stand_ins"
LISTENS = 16
"""Addresses of one sshd; it has room for no more."""
SERVER_OF = (
    "from neutron.floatingips f join neutron.ports p on p.id = f.fixed_port_id "
    "join nova_cell1.instances i on i.uuid = p.device_id "
    "where i.vm_state = 'active' and i.deleted = 0 and f.floating_ip_address = '{address}'"
)
CONFIG = """\
Port {port}
HostKey {folder}/host_key
PidFile none
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
StrictModes no
UsePAM no
AuthorizedKeysFile none
KexAlgorithms curve25519-sha256
SetEnv SHLVL=1
"""
"""The quickest key exchange; with a level, bash leaves alone the .bashrc of this machine's root, which it else reads
at each login by SSH."""
OF_ONE_ADDRESS = """\
Match LocalAddress {address}
    AuthorizedKeysCommand {query} -e "select i.key_data {server}"
    AuthorizedKeysCommandUser root
    AuthorizedKeysFile {folder}/also_allowed/{address}
    ForceCommand {folder}/session {address}
"""
SESSION = """\
#!/bin/bash
# the inside of a node: a home folder for each server, stand-ins and plain tools on the PATH, nothing else
server=$({query} -e "select i.uuid {server}")
export HOME={folder}/homes/$server STAND_INS={stand_ins}
export PATH=$STAND_INS:$HOME/.bin:{folder}/tools
export NODE_CALLS=$HOME/.calls NODE_FAULTS=$HOME/.faults DOCKER_DAEMON_JSON=$HOME/daemon.json
export BOOT_ID=$HOME/.boot-id PCI_DEVICES=$HOME/.pci OS_RELEASE=$STAND_INS/os-release
mkdir -p "$HOME/.ssh" "$HOME/.bin" "$PCI_DEVICES/0000:17:00.0" && cd "$HOME" || exit 1
[ -e "$BOOT_ID" ] || cat /proc/sys/kernel/random/uuid > "$BOOT_ID"
[ -e "$PCI_DEVICES/0000:17:00.0/vendor" ] || echo 0x10de > "$PCI_DEVICES/0000:17:00.0/vendor"
# the stand-in for a reboot says for how many logins it is away: ssh's own code for "no answer"
left=$(cat .away-logins 2> /dev/null)
if [ "${{left:-0}}" -gt 0 ]; then echo $((left - 1)) > .away-logins; exit 255; fi
ln -sf {folder}/also_allowed/$1 "$HOME/.ssh/authorized_keys"
exec bash -c "${{SSH_ORIGINAL_COMMAND:-true}}"
"""
TOOLS = """
bash cat cp cut env find grep gzip head id ln mkdir mv printf python3 rm sed seq sh sha256sum sleep sort sync
tail tar touch uname
"""
"""What a node has of this machine. No apt-get, docker or systemctl: a test can never reach the real ones."""


class Nodes:
    """What lies behind the floating IPs."""

    def __init__(self, folder: Path, block: Block, database: Database, processes: Processes) -> None:
        self.folder, self.block, self.database, self.processes = folder, block, database, processes

    def start(self) -> None:
        """Start sshd on all addresses."""
        (self.folder / "also_allowed").mkdir(parents=True, exist_ok=True)
        tools = self.folder / "tools"
        tools.mkdir(exist_ok=True)
        for tool in TOOLS.split():
            if not (tools / tool).exists():
                (tools / tool).symlink_to(
                    sys.executable if tool == "python3" else shutil.which(tool, path="/usr/bin:/bin")
                )
        Path("/run/sshd").mkdir(exist_ok=True)  # sshd refuses to start without it
        make_key = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.folder / "host_key")]
        if not (self.folder / "host_key").exists():
            subprocess.run(make_key, check=True)
        query = " ".join(self.database.query)
        session = self.folder / "session"
        server = SERVER_OF.format(address="$1")
        session.write_text(SESSION.format(query=query, server=server, folder=self.folder, stand_ins=STAND_INS))
        session.chmod(0o755)
        for number, addresses in enumerate(self._batches()):
            config = CONFIG.format(port=SSH_PORT, folder=self.folder)
            config += "".join(f"ListenAddress {address}\n" for address in addresses)
            for address in addresses:
                server = SERVER_OF.format(address=address)
                config += OF_ONE_ADDRESS.format(address=address, query=query, server=server, folder=self.folder)
            path = self.folder / f"sshd_config_{number}"
            path.write_text(config)
            self.processes.start(f"sshd-{number}", ["/usr/sbin/sshd", "-D", "-e", "-f", str(path)])
        for number, addresses in enumerate(self._batches()):
            self.processes.wait_for_port(f"sshd-{number}", addresses[-1], SSH_PORT)

    def _batches(self) -> list[list[str]]:
        nodes = self.block.nodes
        return [nodes[first : first + LISTENS] for first in range(0, len(nodes), LISTENS)]

    def stop(self) -> None:
        """No address answers any more."""
        for number in range(len(self._batches())):
            self.processes.stop(f"sshd-{number}")

    def home(self, server_id: str) -> Path:
        """The home folder of a server's user."""
        return self.folder / "homes" / server_id

    def calls(self, server_id: str) -> list[str]:
        """What stand-in commands were called on a server, in order."""
        path = self.home(server_id) / ".calls"
        return path.read_text().splitlines() if path.exists() else []
