#!/usr/bin/env bash
# A real SLURM of several nodes on one Linux machine, without systemd; see README.md.
#
#   cluster.sh install              install the Debian packages it needs (root, once)
#   cluster.sh up | down            start and remove it; may be repeated; down leaves nothing behind
#   cluster.sh status               show nodes, queue and daemons
#   cluster.sh env                  print environment variables for a shell: eval "$(cluster.sh env)"
#   cluster.sh kill-node N          power failure: kill every process of the node
#   cluster.sh kill-slurmd N        kill SLURM's daemon alone; the node's jobs live on
#   cluster.sh start-node N         boot the node, or restart its slurmd
#   cluster.sh exec N COMMAND...    run a command on the node
#
# Options, from the environment of `up`; the other commands need TESTCLUSTER_DIR alone:
#   TESTCLUSTER_DIR=/tmp/testcluster  folder of all files; at most 60 characters, since paths of sockets have at most 108
#   TESTCLUSTER_NODES=4               each with TESTCLUSTER_CPUS=8, TESTCLUSTER_MEM_MB=4000 and TESTCLUSTER_GPUS=4, which
#                                     are declared, whatever the machine has
#   TESTCLUSTER_PORT=26800            first of the 60 ports it uses
#   TESTCLUSTER_NET=10.77.0           its network: nodes are .11, .12, ...
#   TESTCLUSTER_NODE_TIMEOUT_S=10     silence after which a node counts as down
#   TESTCLUSTER_GRACE_S=30            time that a preempted job of partition low has left
#   TESTCLUSTER_ISOLATE=auto          namespaces: a node has its own host name, address, processes, /dev/shm;
#                                     none: all nodes are this machine; auto: namespaces if permitted
#   TESTCLUSTER_ACCOUNTING=1          0: no slurmdbd and no MariaDB, so no sacct
set -euo pipefail

HERE=$(dirname "$(readlink -f "$0")")
DIR=${TESTCLUSTER_DIR:-/tmp/testcluster}
export SLURM_CONF=$DIR/slurm.conf PATH=$PATH:/usr/sbin:/sbin # where the daemons are

for part in options processes packages configuration daemons nodes; do
  # shellcheck source=/dev/null
  source "$HERE/$part.sh"
done

up() {
  if is_running "$DIR/run/slurmctld.pid" slurmctld; then
    echo "already up: $DIR"
    return
  fi
  require_packages
  check_options
  down >/dev/null
  make_folders
  save_options
  write_configuration
  start_munge
  [ "$ISOLATE" = none ] || make_bridge # before slurmdbd: SLURM resolves no host if loopback has the only address
  [ "$ACCOUNTING" = 0 ] || start_accounting
  start_controller
  for n in $(seq "$NODES"); do start_node "$n"; done
  wait_for 60 nodes_are_idle || fail "nodes that do not answer: $(sinfo --noheader -o '%n %T' | tr '\n' ' '); logs: $DIR/log"
  if [ "$ACCOUNTING" = 1 ]; then
    # a job that is submitted before the controller has registered is missing from sacct
    wait_for 30 controller_is_registered || fail "slurmdbd knows no controller; see $DIR/log/slurmdbd.log"
    open_account
  fi
  sinfo
  print_environment
}

down() {
  if [ ! -d "$DIR" ]; then
    echo "not up: $DIR"
    return
  fi
  stop "$DIR/run/slurmctld.pid" slurmctld KILL # first, so that it requeues none of the jobs that are killed now
  for n in $(seq "$NODES"); do kill_node "$n"; done
  ip link del "$BRIDGE" 2>/dev/null || true
  remove_node_names
  stop "$DIR/run/slurmdbd.pid" slurmdbd KILL
  stop "$DIR/run/mariadbd.pid" mariadbd KILL
  stop "$DIR/run/munged.pid" munged TERM
  rm -rf "$DIR"
  echo "down: $DIR"
}

status() {
  require_up
  sinfo --Node --long
  squeue
  for file in "$DIR"/run/*.pid; do echo "$(basename "$file" .pid) $(cat "$file")"; done
}

require_up() {
  # without the file every SLURM command retries for a minute
  [ -e "$SLURM_CONF" ] || fail "not up: $DIR"
}

print_environment() {
  echo "export SLURM_CONF=$SLURM_CONF"
}

number() { # of nodeN, or N
  local n=${1#node}
  [[ $n =~ ^[0-9]+$ ]] && [ "$n" -ge 1 ] && [ "$n" -le "$NODES" ] || fail "no node $1; there are node1 to node$NODES"
  echo "$n"
}

usage() {
  sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"
}

command=${1:-}
case $command in
  install) install_packages ;;
  up | down | status) "$command" ;;
  env) print_environment ;;
  start-node | kill-node | kill-slurmd)
    require_up
    n=$(number "${2:-}")
    "${command//-/_}" "$n"
    ;;
  exec)
    require_up
    n=$(number "${2:-}")
    run_on_node "$n" "${@:3}"
    ;;
  node-init) node_init "$2" ;;
  *) usage && exit 2 ;;
esac
