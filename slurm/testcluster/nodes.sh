# Nodes: one slurmd each, in its own namespaces if they are permitted.

make_bridge() {
  ip link add "$BRIDGE" type bridge
  ip addr add "$NET.1/24" dev "$BRIDGE"
  ip link set "$BRIDGE" up
}

node_pid_file() { # of the node's first process, with its number on this machine
  echo "$DIR/run/node$1.pid"
}

slurmd_pid_file() { # with its number on the node
  echo "$DIR/run/slurmd-node$1.pid"
}

start_node() {
  mkdir -p "$DIR/spool/node$1"
  if [ "$ISOLATE" = none ] || is_running "$(node_pid_file "$1")" bash; then
    run_on_node "$1" slurmd -N "node$1"
  else
    boot_node "$1"
  fi
  wait_for 10 test -s "$(slurmd_pid_file "$1")" || fail "node$1 has no slurmd; see $DIR/log/slurmd-node$1.log"
}

boot_node() {
  local cable=$BRIDGE-$1 pid
  ip link del "$cable" 2>/dev/null || true
  setsid unshare --net --uts --mount --ipc --pid --fork --kill-child --mount-proc \
    "$HERE/cluster.sh" node-init "$1" </dev/null >>"$DIR/log/node$1.log" 2>&1 &
  pid=$(only_child $!) || fail "node$1 did not start; see $DIR/log/node$1.log"
  echo "$pid" >"$(node_pid_file "$1")"
  ip link add "$cable" type veth peer name eth0 netns "$pid"
  ip link set "$cable" master "$BRIDGE" up
}

only_child() { # PID
  local children=/proc/$1/task/$1/children
  wait_for 5 grep -q . "$children" && tr -d ' ' <"$children"
}

node_init() { # the first process of node N
  hostname "node$1"
  mount --bind "$DIR/hosts" /etc/hosts
  mount -t tmpfs -o size=1g,mode=1777 tmpfs /dev/shm
  ip link set lo up
  wait_for 10 ip link show eth0
  ip addr add "$(address "$1")/24" dev eth0
  ip link set eth0 up
  slurmd -D -N "node$1" &
  # stays when slurmd dies, as a machine does, and reaps orphans
  while :; do
    wait -n || true
    sleep 0.5
  done
}

run_on_node() { # N COMMAND...
  if [ "$ISOLATE" = none ]; then
    "${@:2}"
  else
    nsenter --target "$(cat "$(node_pid_file "$1")")" --all "${@:2}"
  fi
}

kill_node() {
  if [ "$ISOLATE" = none ]; then
    kill_slurmd "$1"
    kill_tasks "$1"
  else
    stop "$(node_pid_file "$1")" bash KILL # and with the first process its whole namespace
    rm -f "$(slurmd_pid_file "$1")"
    ip link del "$BRIDGE-$1" 2>/dev/null || true
  fi
}

kill_slurmd() {
  local pid
  pid=$(cat "$(slurmd_pid_file "$1")" 2>/dev/null) || return 0
  run_on_node "$1" kill -KILL "$pid" 2>/dev/null || true
  rm -f "$(slurmd_pid_file "$1")"
}

kill_tasks() { # of node N, among all on this machine: slurmstepd first, else it would report their ends
  local tasks
  mapfile -t tasks < <(tasks_of "$1")
  for pid in "${tasks[@]}"; do kill_if_step "$(ps -o ppid= -p "$pid")"; done
  [ ${#tasks[@]} = 0 ] || kill -KILL "${tasks[@]}" 2>/dev/null || true
}

tasks_of() {
  for environment in /proc/[0-9]*/environ; do
    if grep -qszxF "SLURMD_NODENAME=node$1" "$environment" && grep -qszxF "SLURM_CONF=$SLURM_CONF" "$environment"; then
      basename "$(dirname "$environment")"
    fi
  done
}

kill_if_step() { # PID
  case $(cat "/proc/${1// /}/comm" 2>/dev/null) in slurmstepd*) kill -KILL "${1// /}" ;; esac
}
