#!/usr/bin/env bash
# The address that the node sees us by.
set -euo pipefail
echo "${SSH_CONNECTION%% *}"
