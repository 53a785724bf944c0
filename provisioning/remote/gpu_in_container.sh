#!/usr/bin/env bash
# The proof: a container sees the GPU.
set -euo pipefail
problem() { echo "problem: $*" >&2; exit 1; }
name=$(sudo docker run --rm --gpus all ubuntu:24.04 nvidia-smi --query-gpu=name --format=csv,noheader) ||
  problem "a container does not see the GPU. Run install_runtime again, or reboot the node"
echo "in a container: ${name//$'\n'/, }"
