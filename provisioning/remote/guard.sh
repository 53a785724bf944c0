#!/usr/bin/env bash
# The idle guard, once a minute by systemd: guard.sh MINUTES|off ACTIVITY, where ACTIVITY is the text of activity.sh.
# After MINUTES without anything busy it saves what is in memory to disk, writes down when, and stops Jupyter. The node
# stays up: a node that is shut down costs the same until its lease ends, and its work could not be collected any more.
set -euo pipefail
minutes=$1 activity=${2:-}
problem() { echo "problem: $*" >&2; exit 1; }
folder=$HOME/.labkit-idle
unit=labkit-idle
if [ "$minutes" = off ]; then
  sudo systemctl disable --now $unit.timer > /dev/null 2>&1 || true # it may never have been there
  rm -rf "$folder"
  echo "idle guard: off"
  exit 0
fi
mkdir -p "$folder"
printf '%s\n' "$activity" > "$folder/activity.sh"
cat > "$folder/watch.sh" << 'WATCH'
#!/usr/bin/env bash
# watch.sh FOLDER MINUTES: one look; stops Jupyter when nothing has been busy for that long
set -euo pipefail
folder=$1 minutes=$2
# a server that cannot be asked is not stopped
told=$(IDLE_GUARD="$folder" bash "$folder/activity.sh") || exit 0
verdict=$(python3 - "$folder/seen" "$minutes" "$told" << 'PYTHON'
import json, pathlib, sys, time

seen, minutes, told = pathlib.Path(sys.argv[1]), float(sys.argv[2]), json.loads(sys.argv[3])
if not told["running"]:
    seen.unlink(missing_ok=True)  # the next start begins from zero
    sys.exit()
seen.with_name("stopped").unlink(missing_ok=True)  # it was started again
if told["busy"]:
    seen.touch()
else:
    quiet_s = min(told["quiet_s"], time.time() - seen.stat().st_mtime if seen.exists() else float("inf"))
    print("idle" if quiet_s >= minutes * 60 else "")
PYTHON
)
[ "$verdict" = idle ] || exit 0
sync
date -u +%Y-%m-%dT%H:%M:%S+00:00 > "$folder/stopped"
# kernels get the signal to end; with 'docker stop' it stays stopped after a reboot too, until 'up' starts it
sudo docker stop --time 120 labkit > /dev/null
WATCH
sudo tee /etc/systemd/system/$unit.service > /dev/null << UNIT
[Unit]
Description=Stops Jupyter when it has not been used for $minutes minutes
[Service]
Type=oneshot
ExecStart=/bin/bash $folder/watch.sh $folder $minutes
UNIT
sudo tee /etc/systemd/system/$unit.timer > /dev/null << UNIT
[Timer]
OnActiveSec=60
OnUnitActiveSec=60
[Install]
WantedBy=timers.target
UNIT
sudo systemctl daemon-reload >&2 || problem "systemd does not read the idle guard"
sudo systemctl enable --now $unit.timer >&2 || problem "the idle guard does not start. Look at 'systemctl status $unit.timer'"
echo "idle guard: stops Jupyter after $minutes min without use"
