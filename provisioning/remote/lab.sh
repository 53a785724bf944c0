#!/usr/bin/env bash
# Stops the lab's container, or starts again one that was stopped: lab.sh stop|start NAME
set -euo pipefail
what=$1 name=$2
problem() { echo "problem: $*" >&2; exit 1; }
# one that is not there has nothing to stop
sudo docker inspect --format '{{.State.Running}}' "$name" > /dev/null 2>&1 || exit 0
sudo docker "$what" "$name" >&2 || problem "container $name does not $what. Look at 'docker logs $name' on the node"
