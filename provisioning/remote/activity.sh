#!/usr/bin/env bash
# How busy the node is, as one line of JSON. Busy is a kernel that computes, a terminal's or kernel's processes that use
# the CPU, or a GPU in use; quiet_s is how long ago a kernel or a terminal last said something.
set -euo pipefail
name=labkit
problem() { echo "problem: $*" >&2; exit 1; }
mark=${IDLE_GUARD:-$HOME/.labkit-idle}/stopped
state=$(sudo docker inspect --format '{{.State.Running}} {{.State.StartedAt}}' $name 2> /dev/null) || state=false
if [ "${state%% *}" != true ]; then
  printf '{"running": false, "stopped_by_guard": "%s"}\n' "$(cat "$mark" 2> /dev/null || true)"
  exit 0
fi
gpu=$(nvidia-smi --query-gpu=utilization.gpu --format=csv,noheader,nounits | sort -n | tail -n 1) ||
  problem "nvidia-smi finds no GPU. Reboot the node, or take another one"
sudo docker exec --interactive $name python - "${state#* }" "$gpu" << 'PYTHON' || problem "Jupyter does not answer. Look at 'docker logs $name' on the node"
import datetime, json, pathlib, subprocess, sys, time, urllib.request

CPU_PERCENT, GPU_PERCENT = 20.0, 5.0  # of one core, and of a GPU; an open page alone stays far below
begun, gpu = sys.argv[1], float(sys.argv[2]) if sys.argv[2].isdigit() else 0.0
listed = subprocess.run(["jupyter", "server", "list", "--json"], capture_output=True, text=True, check=True).stdout
server = json.loads(listed.splitlines()[-1])


def ask(what):
    url = f"http://127.0.0.1:{server['port']}{server['base_url']}api/{what}"
    request = urllib.request.Request(url, headers={"Authorization": f"token {server['token']}"})
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.load(answer)


def moment(text):
    if "." in text:  # Docker writes nanoseconds
        whole, _, rest = text.partition(".")
        digits = rest.rstrip("Z")
        text = f"{whole}.{digits[:6]:0<6}Z"
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))


def ticks():
    """CPU time of all that Jupyter started, by process."""
    parents, used = {}, {}
    for path in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        pid = int(path.parent.name)
        parents[pid], used[pid] = int(fields[1]), int(fields[11]) + int(fields[12])

    def is_below(pid):
        while pid in parents and pid != server["pid"]:
            pid = parents[pid]
        return pid == server["pid"]

    return {pid: used[pid] for pid in used if pid != server["pid"] and is_below(pid)}


kernels, terminals = ask("kernels"), ask("terminals")
before, started = ticks(), time.monotonic()
time.sleep(2)
after, took = ticks(), time.monotonic() - started
cpu = sum(after[pid] - before.get(pid, 0) for pid in after) / 100 / took * 100  # Linux counts in hundredths of a second
lasts = [moment(thing["last_activity"]) for thing in kernels + terminals] + [moment(begun)]
quiet = (datetime.datetime.now(datetime.timezone.utc) - max(lasts)).total_seconds()
busy = sum(kernel["execution_state"] == "busy" for kernel in kernels)
print(json.dumps({
    "running": True, "kernels": len(kernels), "busy_kernels": busy, "cpu_percent": round(cpu, 1), "gpu_percent": gpu,
    "busy": bool(busy or cpu >= CPU_PERCENT or gpu >= GPU_PERCENT), "quiet_s": round(max(0.0, quiet)),
}))
PYTHON
