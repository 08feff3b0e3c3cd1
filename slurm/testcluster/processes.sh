# Processes by their pid files, and waiting.

fail() {
  printf 'testcluster: %s\n' "$*" >&2
  exit 1
}

wait_for() { # SECONDS COMMAND...
  local end=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    [ "$SECONDS" -lt "$end" ] || return 1
    sleep 0.05
  done
}

is_running() { # PIDFILE NAME: the pid may have been reused by another program
  local pid
  pid=$(cat "$1" 2>/dev/null) && [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = "$2" ] && ! is_zombie "$pid"
}

is_zombie() {
  grep -qs '^State:.Z' "/proc/$1/status"
}

is_gone() {
  [ ! -e "/proc/$1" ] || is_zombie "$1"
}

stop() { # PIDFILE NAME SIGNAL
  if is_running "$1" "$2"; then
    local pid
    pid=$(cat "$1")
    kill "-$3" "$pid"
    wait_for 10 is_gone "$pid" || kill -KILL "$pid"
  fi
  rm -f "$1"
}

port_answers() { # ADDRESS PORT
  (exec 3<>"/dev/tcp/$1/$2") 2>/dev/null
}
