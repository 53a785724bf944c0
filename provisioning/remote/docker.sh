#!/usr/bin/env bash
# Docker, from the distribution, and this user in its group.
set -euo pipefail
problem() { echo "problem: $*" >&2; exit 1; }
export DEBIAN_FRONTEND=noninteractive
if ! command -v docker > /dev/null; then
  # cloud-init may hold apt's lock in the first minutes
  sudo apt-get -o DPkg::Lock::Timeout=300 update >&2 || problem "apt-get update failed. Has the node a network?"
  sudo apt-get -o DPkg::Lock::Timeout=300 install -y docker.io docker-buildx >&2 || problem "Docker cannot be installed"
fi
sudo systemctl enable --now docker >&2 || problem "Docker does not start. Look at 'journalctl -u docker' on the node"
id -nG | grep -qw docker || sudo usermod -aG docker "$(id -un)" >&2
version=$(sudo docker version --format '{{.Server.Version}}') ||
  problem "Docker does not answer. Look at 'journalctl -u docker' on the node"
echo "Docker $version"
