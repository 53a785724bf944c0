#!/usr/bin/env bash
# Unpacks the project from standard input: upload.sh FOLDER DIGEST
set -euo pipefail
folder=$1 digest=$2
if [ "$(cat "$folder/.digest" 2> /dev/null)" = "$digest" ]; then
  exit 0
fi
# beside the old one first: an upload that breaks off leaves nothing half
rm -rf "$folder.new"
mkdir "$folder.new"
tar -xzf - -C "$folder.new"
echo "$digest" > "$folder.new/.digest"
rm -rf "$folder"
mv "$folder.new" "$folder"
