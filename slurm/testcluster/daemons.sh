# Daemons of the cluster: munge, database and daemon of the accounting, the controller.

start_munge() {
  head -c 128 /dev/urandom >"$DIR/key/munge"
  chmod 400 "$DIR/key/munge"
  # force: a folder above may have mode 0700
  munged --force --num-threads=4 --socket="$DIR/munge/socket" --key-file="$DIR/key/munge" \
    --pid-file="$DIR/run/munged.pid" --seed-file="$DIR/key/seed" --log-file="$DIR/log/munged.log" \
    2>>"$DIR/log/munged.log" || fail "munged did not start: $(tail -n 3 "$DIR/log/munged.log")"
}

start_accounting() {
  make_database
  start_database
  wait_for 30 port_answers 127.0.0.1 "$DATABASE_PORT" || fail "MariaDB did not start; see $DIR/log/mariadbd.log"
  slurmdbd
  wait_for 30 port_answers 127.0.0.1 "$ACCOUNTING_PORT" || fail "slurmdbd did not start; see $DIR/log/slurmdbd.log"
}

make_database() { # as mariadb-install-db does, which is only in the large package
  local scripts=/usr/share/mysql
  {
    printf '%s\n' "create database mysql;" "use mysql;"
    cat "$scripts"/mysql_{system_tables,performance_tables,system_tables_data}.sql
  } | mariadbd --no-defaults --user="$OWNER" --bootstrap --datadir="$DIR/database" --tmpdir="$DIR/scratch" \
    --innodb-log-file-size=8M --skip-networking >"$DIR/log/mariadbd.log" 2>&1 || fail "MariaDB did not create the database; see $DIR/log/mariadbd.log"
  cat >"$DIR/database.sql" <<SQL
CREATE DATABASE IF NOT EXISTS slurm_acct_db;
CREATE USER IF NOT EXISTS 'slurm'@'127.0.0.1' IDENTIFIED BY 'slurm';
GRANT ALL ON slurm_acct_db.* TO 'slurm'@'127.0.0.1';
SQL
}

start_database() {
  setsid mariadbd --no-defaults --user="$OWNER" --datadir="$DIR/database" --tmpdir="$DIR/scratch" \
    --init-file="$DIR/database.sql" \
    --socket="$DIR/run/mariadb" --pid-file="$DIR/run/mariadbd.pid" \
    --bind-address=127.0.0.1 --port="$DATABASE_PORT" --skip-name-resolve \
    --innodb-buffer-pool-size=64M --innodb-log-file-size=8M --innodb-lock-wait-timeout=900 \
    --innodb-flush-log-at-trx-commit=0 >>"$DIR/log/mariadbd.log" 2>&1 </dev/null &
}

start_controller() {
  slurmctld -c
  wait_for 30 port_answers "$(controller_address)" "$CONTROLLER_PORT" ||
    fail "slurmctld did not start; see $DIR/log/slurmctld.log"
}

controller_is_registered() {
  sacctmgr --noheader list cluster format=ControlPort | grep -q "$CONTROLLER_PORT"
}

open_account() { # jobs of users without one are refused; root has one from the start
  [ "$OWNER" != root ] || return 0
  sacctmgr --immediate --quiet add account name=test
  sacctmgr --immediate --quiet add user name="$OWNER" account=test
}

nodes_are_idle() {
  [ "$(sinfo --noheader --partition=main --states=idle --format=%D)" = "$NODES" ]
}
