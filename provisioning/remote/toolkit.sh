#!/usr/bin/env bash
# The NVIDIA container toolkit, and Docker set up for it: the runtime, and the cgroupfs driver. With systemd's driver
# containers lose their GPU when systemd reloads its units. toolkit.sh keep|stop: what to do with a lab that runs.
set -euo pipefail
lab=$1
problem() { echo "problem: $*" >&2; exit 1; }
export DEBIAN_FRONTEND=noninteractive
site=https://nvidia.github.io/libnvidia-container
keyring=/usr/share/keyrings/nvidia-container-toolkit-keyring.gpg
list=/etc/apt/sources.list.d/nvidia-container-toolkit.list
if ! command -v nvidia-ctk > /dev/null; then
  curl -fsSL $site/gpgkey | sudo gpg --batch --yes --dearmor -o $keyring || problem "NVIDIA's key cannot be fetched"
  curl -fsSL $site/stable/deb/nvidia-container-toolkit.list |
    sed "s#deb https://#deb [signed-by=$keyring] https://#g" | sudo tee $list > /dev/null ||
    problem "NVIDIA's list of packages cannot be fetched"
  sudo apt-get -o DPkg::Lock::Timeout=300 update >&2 || problem "apt-get update failed. Has the node a network?"
  sudo apt-get -o DPkg::Lock::Timeout=300 install -y nvidia-container-toolkit >&2 ||
    problem "the NVIDIA container toolkit cannot be installed"
fi
daemon=${DOCKER_DAEMON_JSON:-/etc/docker/daemon.json} # tests put it elsewhere
settings() {
  sudo python3 - "$1" "$daemon" << 'PYTHON'
import json, pathlib, sys

verb, path = sys.argv[1], pathlib.Path(sys.argv[2])
text = path.read_text() if path.exists() else ""
settings = json.loads(text) if text.strip() else {}
wanted = "native.cgroupdriver=cgroupfs"
if verb == "check":
    sys.exit("nvidia" not in settings.get("runtimes", {}) or wanted not in settings.get("exec-opts", []))
others = [option for option in settings.get("exec-opts", []) if not option.startswith("native.cgroupdriver=")]
settings["exec-opts"] = [*others, wanted]
path.write_text(json.dumps(settings, indent=2) + "\n")
PYTHON
}
# a restart stops a Jupyter that runs, so only when something is missing
if ! settings check; then
  if [ "$lab" != stop ] && [ "$(sudo docker inspect --format '{{.State.Running}}' labkit 2> /dev/null)" = true ]; then
    problem "Docker must be restarted for the GPU, and a lab runs in it. Save your work and run it with --restart"
  fi
  sudo nvidia-ctk runtime configure --runtime=docker --config="$daemon" >&2 || problem "nvidia-ctk cannot set up Docker"
  settings write || problem "$daemon cannot be written"
  sudo systemctl restart docker >&2 || problem "Docker does not start again. Look at 'journalctl -u docker' on the node"
fi
echo "NVIDIA container toolkit, cgroupfs"
