#!/usr/bin/env bash
# Builds the image from the uploaded project: build.sh FOLDER IMAGE
set -euo pipefail
folder=$1 image=$2
problem() { echo "problem: $*" >&2; exit 1; }
[ -f "$folder/docker/Dockerfile" ] || problem "there is no docker/Dockerfile in the project. Fetch the whole project"
if [ -n "$(sudo docker images --quiet "$image")" ]; then
  echo "$image is built already"
  exit 0
fi
sudo docker build --tag "$image" --file "$folder/docker/Dockerfile" "$folder" >&2 || problem "docker build failed"
echo "$image"
