#!/usr/bin/env bash
# The NVIDIA driver must be able to run torch's CUDA: driver.sh OLDEST_DRIVER CUDA_MAJOR
set -euo pipefail
oldest=$1 cuda=$2
problem() { echo "problem: $*" >&2; exit 1; }
command -v nvidia-smi > /dev/null || problem "this node has no NVIDIA driver. Is it the image with CUDA in its name?"
version=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader | head -n 1) ||
  problem "nvidia-smi finds no GPU. Reboot the node, or take another one"
[ "${version%%.*}" -ge "$oldest" ] 2> /dev/null ||
  problem "driver '$version' is older than $oldest, which CUDA $cuda needs. Install it: sudo apt-get install nvidia-driver-$oldest-server, then reboot"
echo "NVIDIA driver $version runs CUDA $cuda"
