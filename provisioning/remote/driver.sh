#!/usr/bin/env bash
# Reads the NVIDIA driver, and changes nothing. Five lines: the version that runs, the one whose module is on the disk,
# the id of this boot, "VERSION BOOT" of the reboot that reboot.sh last asked for, and what nvidia-smi said if it failed.
set -euo pipefail
boot=$(cat "${BOOT_ID:-/proc/sys/kernel/random/boot_id}") # tests put it elsewhere
running="" said="there is no nvidia-smi"
if command -v nvidia-smi > /dev/null; then
  if said=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader 2>&1); then
    running=${said%%$'\n'*} said=""
  fi
fi
# sudo: modinfo is not on everybody's PATH
on_disk=$(sudo modinfo --field version nvidia 2> /dev/null) || on_disk=""
rebooted=$(cat ~/.labkit-rebooted 2> /dev/null) || rebooted=""
printf '%s\n' "$running" "$on_disk" "$boot" "$rebooted" "${said//$'\n'/ }"
