#!/usr/bin/env bash
# Bare metal has no security groups: drops what reaches a container's port from elsewhere. limit.sh PORT ADDRESS
set -euo pipefail
port=$1 address=$2
problem() { echo "problem: $*" >&2; exit 1; }
chain=LABKIT-JUPYTER
match=(-p tcp -m conntrack --ctdir ORIGINAL --ctorigdstport "$port")

by_iptables() {
  sudo iptables -N $chain 2> /dev/null || sudo iptables -F $chain || problem "iptables cannot be used"
  sudo iptables -A $chain -s "$address" -j RETURN
  # the container reaches out from the same port range, and the node itself asks whether Jupyter answers
  sudo iptables -A $chain -i lo -j RETURN
  sudo iptables -A $chain -j DROP
  local hook
  for hook in DOCKER-USER INPUT; do
    sudo iptables -C $hook "${match[@]}" -j $chain 2> /dev/null ||
      sudo iptables -I $hook "${match[@]}" -j $chain || problem "iptables has no chain $hook"
  done
}

# firewalld takes iptables' rules away when it reloads, but for those that it made itself. $lasting is what it makes when
# it starts, or nothing for what runs now
firewalld() { sudo firewall-cmd "${lasting[@]}" "$@"; }
must() { firewalld --quiet "$@" || problem "firewalld refuses '$*'. Look at 'journalctl -u firewalld' on the node"; }
has() { firewalld --quiet --direct "$@"; }

by_firewalld() {
  local hook rule
  has --query-chain ipv4 filter $chain || must --direct --add-chain ipv4 filter $chain
  must --direct --remove-rules ipv4 filter $chain
  must --direct --add-rule ipv4 filter $chain 0 -s "$address" -j RETURN
  must --direct --add-rule ipv4 filter $chain 1 -i lo -j RETURN
  must --direct --add-rule ipv4 filter $chain 2 -j DROP
  # when it starts, Docker has yet to make its chain
  if [ ${#lasting[@]} != 0 ]; then
    has --query-chain ipv4 filter DOCKER-USER || must --direct --add-chain ipv4 filter DOCKER-USER
  fi
  for hook in DOCKER-USER INPUT; do
    has --query-rule ipv4 filter $hook 0 "${match[@]}" -j $chain ||
      must --direct --add-rule ipv4 filter $hook 0 "${match[@]}" -j $chain
  done
  # its zone lets nothing in that it was not told of, and the address may be another one than last time
  local accept="port port=\"$port\" protocol=\"tcp\" accept"
  while IFS= read -r rule; do
    case $rule in *"$accept") must --remove-rich-rule="$rule" ;; esac
  done < <(firewalld --list-rich-rules)
  must --add-rich-rule="rule family=\"ipv4\" source address=\"$address\" $accept"
}

if command -v firewall-cmd > /dev/null && sudo firewall-cmd --state > /dev/null 2>&1; then
  lasting=()
  by_firewalld
  lasting=(--permanent)
  by_firewalld
else
  by_iptables
fi
