#!/usr/bin/env bash
# Lets one more public key in: authorize.sh KEY
set -euo pipefail
key=$1
mkdir -p ~/.ssh
touch ~/.ssh/authorized_keys
grep -qxF -- "$key" ~/.ssh/authorized_keys || printf '%s\n' "$key" >> ~/.ssh/authorized_keys
