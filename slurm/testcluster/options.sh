# The cluster's options: from the environment of `up`, afterwards from its own folder.

OPTIONS=(NODES CPUS MEM_MB GPUS PORT NET NODE_TIMEOUT_S GRACE_S ISOLATE ACCOUNTING)

set_options() {
  NODES=${TESTCLUSTER_NODES:-4}
  CPUS=${TESTCLUSTER_CPUS:-8}
  MEM_MB=${TESTCLUSTER_MEM_MB:-4000}
  GPUS=${TESTCLUSTER_GPUS:-4}
  PORT=${TESTCLUSTER_PORT:-26800}
  NET=${TESTCLUSTER_NET:-10.77.0}
  NODE_TIMEOUT_S=${TESTCLUSTER_NODE_TIMEOUT_S:-10}
  GRACE_S=${TESTCLUSTER_GRACE_S:-30}
  ISOLATE=${TESTCLUSTER_ISOLATE:-auto}
  ACCOUNTING=${TESTCLUSTER_ACCOUNTING:-1}
  derive_the_rest
}

derive_the_rest() { # values that follow from the options
  DATABASE_PORT=$PORT
  CONTROLLER_PORT=$((PORT + 1))
  ACCOUNTING_PORT=$((PORT + 2))
  NODE_PORT=$((PORT + 10)) # node n has + n if all share an address
  BRIDGE=tc$PORT
  MACHINE=$(hostname -s)
  OWNER=$(id -un)
}

check_options() {
  set_options
  [ ${#DIR} -le 60 ] || fail "TESTCLUSTER_DIR is ${#DIR} characters long; paths of sockets leave at most 60: $DIR"
  [ "$NODES" -le 40 ] || fail "TESTCLUSTER_NODES=$NODES; at most 40, since there are ports for 40"
  case $ISOLATE in
    auto) if can_isolate; then ISOLATE=namespaces; else ISOLATE=none; fi ;;
    namespaces | none) ;;
    *) fail "TESTCLUSTER_ISOLATE=$ISOLATE; give auto, namespaces or none" ;;
  esac
}

can_isolate() {
  unshare --net --uts --mount --ipc --pid --fork --mount-proc true 2>/dev/null &&
    ip link add "$BRIDGE" type bridge 2>/dev/null && ip link del "$BRIDGE"
}

save_options() {
  for option in "${OPTIONS[@]}"; do printf '%s=%q\n' "$option" "${!option}"; done >"$DIR/options"
}

set_options
if [ -e "$DIR/options" ]; then
  # shellcheck source=/dev/null
  source "$DIR/options"
  derive_the_rest
fi
