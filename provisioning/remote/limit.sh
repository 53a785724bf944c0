#!/usr/bin/env bash
# Bare metal has no security groups: drops what reaches a container's port from elsewhere. limit.sh PORT ADDRESS
set -euo pipefail
port=$1 address=$2
problem() { echo "problem: $*" >&2; exit 1; }
chain=LABKIT-JUPYTER
sudo iptables -N $chain 2> /dev/null || sudo iptables -F $chain || problem "iptables cannot be used"
sudo iptables -A $chain -s "$address" -j RETURN
# the container reaches out from the same port range, and the node itself asks whether Jupyter answers
sudo iptables -A $chain -i lo -j RETURN
sudo iptables -A $chain -j DROP
match=(-p tcp -m conntrack --ctdir ORIGINAL --ctorigdstport "$port")
for hook in DOCKER-USER INPUT; do
  sudo iptables -C $hook "${match[@]}" -j $chain 2> /dev/null ||
    sudo iptables -I $hook "${match[@]}" -j $chain || problem "iptables has no chain $hook"
done
