#!/usr/bin/env bash
# Builds the image from the uploaded project, and removes those of earlier projects: build.sh FOLDER IMAGE
set -euo pipefail
folder=$1 image=$2
first_bytes=25000000000  # CUDA, torch and what apt and pip unpack on the way, when nothing of it is there
again_bytes=5000000000   # an edit rebuilds the last layers
most_bytes=30000000000
problem() { echo "problem: $*" >&2; exit 1; }
dockerfile=$folder/docker/Dockerfile
[ -f "$dockerfile" ] || problem "there is no docker/Dockerfile in the project. Fetch the whole project"

others() { sudo docker images --format '{{.Repository}}:{{.Tag}}' "${image%%:*}" | grep -vxF -e "$image" -e "${image%%:*}:<none>" || true; }
clean() { # a container's image stays, and so does what Docker refuses to remove
  local used old
  used=$(sudo docker ps --all --format '{{.Image}}')
  for old in $(others); do
    grep -qxF -- "$old" <<< "$used" || sudo docker rmi "$old" >&2 || true
  done
  sudo docker image prune --force >&2 || true
}
missing() { # bytes, of those that are needed
  local free
  free=$(df --output=avail --block-size=1 "$root" | sed -n '$p')
  echo $((free < $1 ? $1 - free : 0))
}

if [ -z "$(sudo docker images --quiet "$image")" ]; then
  root=$(sudo docker info --format '{{.DockerRootDir}}') || problem "Docker does not answer. Run install_runtime again"
  [ -n "$(others)" ] && need=$again_bytes || need=$first_bytes
  if [ "$(missing "$need")" -gt 0 ]; then clean; fi
  if [ "$(missing "$need")" -gt 0 ]; then # then everything is built again
    sudo docker builder prune --force >&2 || true
    need=$first_bytes
  fi
  short=$(missing "$need")
  [ "$short" = 0 ] || problem "no room: the build needs $need bytes in $root, and $short of them are missing. Free some:" \
    "look with 'sudo docker system df' and 'df -h'"
  base=$(sed -n 's/^ARG BASE_IMAGE=//p' "$dockerfile")
  if [ -n "$base" ] && ! sudo docker image inspect "$base" > /dev/null 2>&1; then
    sudo docker pull "$base" >&2 || problem "the base $base cannot be pulled. Has the node a network? If the registry" \
      "has it no more, docker/renew pins another one"
  fi
  sudo docker build --tag "$image" --file "$dockerfile" "$folder" >&2 || problem "docker build failed"
fi
clean
bytes=$(sudo docker image inspect --format '{{.Size}}' "$image")
size="$((bytes / 1000000000)).$((bytes / 100000000 % 10)) GB"
if [ "$bytes" -gt $most_bytes ]; then
  echo "$image, $size, which is more than $((most_bytes / 1000000000)) GB: look with 'sudo docker history $image'"
else
  echo "$image, $size"
fi
