#!/usr/bin/env bash
# Installs an NVIDIA driver of the oldest branch that is new enough; it runs after the next boot: upgrade_driver.sh OLDEST
set -euo pipefail
oldest=$1
problem() { echo "problem: $*" >&2; exit 1; }
apt() {
  # cloud-init and unattended upgrades may hold apt's lock in the first minutes
  sudo DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 apt-get -o DPkg::Lock::Timeout=600 "$@" >&2
}
update() { apt update || problem "apt-get update failed. Has the node a network?"; }
offered() {
  # NVIDIA's own packages first: they are there only where its repository is, and the two kinds do not mix
  local kind name branch
  for kind in '^cuda-drivers-[0-9]+$' '^nvidia-driver-[0-9]+-server$' '^nvidia-driver-[0-9]+$'; do
    while read -r name _; do
      branch=${name//[!0-9]/}
      if [ "$branch" -ge "$oldest" ]; then
        echo "$name"
        return
      fi
    done < <(apt-cache search --names-only "$kind" | sort -V)
  done
}
grep -qsix 0x10de "${PCI_DEVICES:-/sys/bus/pci/devices}"/*/vendor ||
  problem "this node has no NVIDIA GPU on its PCI bus. Take another one"
# what an interruption left half done
sudo DEBIAN_FRONTEND=noninteractive dpkg --configure -a >&2 ||
  problem "dpkg cannot finish what was begun. Look at 'dpkg --audit' on the node"
update
package=$(offered)
if [ -z "$package" ]; then
  # shellcheck source=/dev/null
  . "${OS_RELEASE:-/etc/os-release}"
  site=https://developer.download.nvidia.com/compute/cuda/repos/$ID${VERSION_ID//./}/$(uname -m)
  curl -fsSL "$site/cuda-keyring_1.1-1_all.deb" -o ~/.labkit-cuda-keyring.deb ||
    problem "apt has no driver $oldest or newer, and $site cannot be fetched. Take a newer image"
  sudo dpkg --install ~/.labkit-cuda-keyring.deb >&2 || problem "NVIDIA's apt repository cannot be set up"
  update
  package=$(offered)
  [ -n "$package" ] || problem "neither the distribution nor NVIDIA has a driver $oldest or newer. Take a newer image"
fi
# the module is built for the kernel that runs, and for that it needs its headers
apt install -y "linux-headers-$(uname -r)" "$package" || problem "$package cannot be installed"
on_disk=$(sudo modinfo --field version nvidia) || on_disk=0
[ "${on_disk%%.*}" -ge "$oldest" ] ||
  problem "$package made no module for kernel $(uname -r). Look at 'dkms status' on the node"
echo "$package, $on_disk"
