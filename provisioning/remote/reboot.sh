#!/usr/bin/env bash
# Reboots so that a driver is loaded, and notes that it did: reboot.sh DRIVER_VERSION keep|stop
# While a container runs: keep says "busy" and its name and does nothing; stop stops it, and it stays so: started by
# Docker at boot, its port would be open before anything limits it.
set -euo pipefail
version=$1 containers=$2
problem() { echo "problem: $*" >&2; exit 1; }
running=""
if command -v docker > /dev/null; then
  running=$(sudo docker ps --format '{{.Names}}') ||
    problem "Docker does not say what runs. Look at 'journalctl -u docker' on the node"
fi
if [ -n "$running" ]; then
  if [ "$containers" != stop ]; then
    echo "busy ${running//$'\n'/, }"
    exit 0
  fi
  while read -r name; do
    sudo docker stop "$name" >&2 || problem "container $name cannot be stopped. Stop it, then run this again"
  done <<< "$running"
fi
printf '%s %s\n' "$version" "$(cat "${BOOT_ID:-/proc/sys/kernel/random/boot_id}")" > ~/.labkit-rebooted
sync
sudo systemctl --no-block reboot || problem "the node does not reboot. Reboot it from the site's page"
