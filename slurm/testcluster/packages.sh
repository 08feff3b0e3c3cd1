# The programs that a cluster is made of.

PACKAGES=(slurmctld slurmd slurm-client slurmdbd munge mariadb-server-core iproute2 procps)
PROGRAMS=(slurmctld slurmd sbatch sacct slurmdbd munged mariadbd ip ps unshare nsenter flock)

missing_programs() {
  for program in "${PROGRAMS[@]}"; do command -v "$program" >/dev/null || echo "$program"; done
}

require_packages() {
  local missing
  missing=$(missing_programs | tr '\n' ' ')
  [ -z "$missing" ] || fail "not installed: $missing; run $HERE/cluster.sh install"
}

install_packages() {
  if [ -z "$(missing_programs)" ]; then
    echo "testcluster: SLURM is installed"
  elif [ "$(id -u)" = 0 ] && [ -e /etc/debian_version ]; then
    with_services_off fetch_packages
    require_packages
  else
    echo "testcluster: SLURM is not installed, and only root on Debian or Ubuntu can install it here: ${PACKAGES[*]}"
  fi
}

fetch_packages() {
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${PACKAGES[@]}" >/dev/null
}

with_services_off() { # the packages would start daemons of their own
  local policy=/usr/sbin/policy-rc.d
  if [ -e "$policy" ]; then
    "$@"
    return
  fi
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod +x "$policy"
  trap 'rm -f /usr/sbin/policy-rc.d' EXIT
  "$@"
}
