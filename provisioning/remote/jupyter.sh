#!/usr/bin/env bash
# Starts Jupyter and says its token: jupyter.sh FOLDER WORKSPACE IMAGE BIND PORT keep|stop
# With keep a container that runs is left alone, whatever its image is; with stop another one takes its place.
set -euo pipefail
folder=$1 workspace=$2 image=$3 bind=$4 port=$5 running=$6
name=labkit
problem() { echo "problem: $*" >&2; exit 1; }
# what the student has is never overwritten
mkdir -p "$workspace"
cp -rn "$folder/workspace/." "$workspace/"
wanted="$image $bind $port"
case "$(sudo docker inspect --format '{{.State.Running}} {{index .Config.Labels "labkit"}}' $name 2> /dev/null)" in
  "true $wanted") start= ;;
  "true "*) [ "$running" = stop ] && start=yes || start= ;;
  *) start=yes ;;
esac
if [ -n "$start" ]; then
  # before the old one is stopped
  [ -n "$(sudo docker images --quiet "$image")" ] || problem "image $image is not there. Build it with build_image"
  sudo docker rm --force $name > /dev/null 2>&1 || true
  sudo IMAGE="$image" NAME=$name BIND="$bind" PORT="$port" WORKSPACE="$PWD/$workspace" LABEL="labkit=$wanted" \
    "$folder/docker/start" >&2 || problem "docker/start failed"
fi
for _ in $(seq "${JUPYTER_TRIES:-60}"); do
  # one line of JSON; it holds the token, so it goes to standard output, which is not logged
  if server=$(sudo docker exec $name jupyter server list --json 2> /dev/null) && [ -n "$server" ]; then
    printf '%s\n' "$server"
    exit 0
  fi
  sleep 1
done
problem "Jupyter does not answer. Look at 'docker logs $name' on the node"
