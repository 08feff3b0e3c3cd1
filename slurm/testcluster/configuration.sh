# SLURM's configuration files: slurm.conf, gres.conf, slurmdbd.conf, and the hosts of the cluster.

make_folders() {
  mkdir -p "$DIR"/{munge,key,state,spool,run,log,gpus,database,scratch}
  chmod 755 "$DIR" "$DIR/munge"
  chmod 700 "$DIR/key"
}

write_configuration() {
  write_hosts
  write_gpus
  { controller_lines && scheduling_lines && accounting_lines && node_lines && partition_lines; } >"$SLURM_CONF"
  [ "$ACCOUNTING" = 0 ] || write_accounting_daemon
}

address() { # of node N
  if [ "$ISOLATE" = none ]; then echo 127.0.0.1; else echo "$NET.$((10 + $1))"; fi
}

controller_address() {
  if [ "$ISOLATE" = none ]; then echo 127.0.0.1; else echo "$NET.1"; fi
}

controller_lines() {
  cat <<CONF
ClusterName=test
SlurmctldHost=$MACHINE($(controller_address))
SlurmctldPort=$CONTROLLER_PORT
SlurmdPort=$NODE_PORT
AuthType=auth/munge
# a launch that a busy node takes up later than cred_expire fails, and the job is held; a requeued job waits as long
# before it may restart; values below 5 count as 120
AuthInfo=socket=$DIR/munge/socket,cred_expire=$((NODE_TIMEOUT_S > 5 ? NODE_TIMEOUT_S : 5))
CredType=cred/munge
SlurmUser=$OWNER
SlurmdUser=$OWNER
StateSaveLocation=$DIR/state
SlurmdSpoolDir=$DIR/spool/%n
SlurmctldPidFile=$DIR/run/slurmctld.pid
SlurmdPidFile=$DIR/run/slurmd-%n.pid
SlurmctldLogFile=$DIR/log/slurmctld.log
SlurmdLogFile=$DIR/log/slurmd-%n.log
MailProg=/bin/true
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SlurmdParameters=config_overrides
SlurmdTimeout=$NODE_TIMEOUT_S
# nodes are polled in rounds, and a round waits this long for a node that does not answer
MessageTimeout=$NODE_TIMEOUT_S
SlurmctldTimeout=10
ReturnToService=2
KillWait=5
MinJobAge=600
# programs that keep files by job id (submitit) would take ids that start at 1 in every cluster for older jobs
FirstJobId=$(($(date +%s) / 5 % 600000 * 100 + 1))
CONF
}

scheduling_lines() {
  cat <<CONF
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=100
GresTypes=gpu
JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
# a preempted job gets the signal that it requested (--signal), not TERM
SlurmctldParameters=preempt_send_user_signal
SchedulerParameters=bf_interval=1,batch_sched_delay=0,sched_interval=5
CONF
}

accounting_lines() {
  if [ "$ACCOUNTING" = 0 ]; then
    printf '%s\n' JobAcctGatherType=jobacct_gather/none AccountingStorageType=accounting_storage/none
    return
  fi
  cat <<CONF
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=10
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort=$ACCOUNTING_PORT
AccountingStoragePass=$DIR/munge/socket
AccountingStorageTRES=gres/gpu
AccountingStorageEnforce=associations
CONF
}

node_lines() {
  local shared=
  for n in $(seq "$NODES"); do
    [ "$ISOLATE" != none ] || shared="NodeHostname=$MACHINE Port=$((NODE_PORT + n))"
    echo "NodeName=node$n NodeAddr=$(address "$n") $shared CPUs=$CPUS RealMemory=$MEM_MB Gres=gpu:$GPUS State=UNKNOWN"
  done
}

partition_lines() {
  local all="Nodes=ALL State=UP MaxTime=INFINITE DefaultTime=60"
  cat <<CONF
PartitionName=main $all PriorityTier=10 PreemptMode=OFF Default=YES
PartitionName=low $all PriorityTier=1 PreemptMode=REQUEUE GraceTime=$GRACE_S
PartitionName=hard $all PriorityTier=1 PreemptMode=REQUEUE GraceTime=0
PartitionName=high $all PriorityTier=100 PreemptMode=OFF
CONF
}

write_hosts() {
  {
    echo "127.0.0.1 localhost"
    echo "$(controller_address) $MACHINE"
    for n in $(seq "$NODES"); do echo "$(address "$n") node$n"; done
  } >"$DIR/hosts"
  if [ "$ISOLATE" = none ]; then publish_node_names; fi
}

publish_node_names() { # the ranks of a job connect to its first node by name
  if [ -w /etc/hosts ]; then
    flock /etc/hosts sed "1,2d;s|\$| # testcluster $DIR|" "$DIR/hosts" >>/etc/hosts
  else
    echo "testcluster: /etc/hosts is not writable, so that the names of nodes do not resolve" >&2
  fi
}

remove_node_names() {
  local mark=" # testcluster $DIR"
  grep -qsF "$mark" /etc/hosts && [ -w /etc/hosts ] || return 0
  # a mount in containers: written in place, never replaced
  flock /etc/hosts bash -c 'left=$(grep -vF "$1" /etc/hosts); printf "%s\n" "$left" >/etc/hosts' - "$mark"
}

write_gpus() { # any character device works; with a plain file SLURM sets no CUDA_VISIBLE_DEVICES
  : >"$DIR/gres.conf"
  [ "$GPUS" -gt 0 ] || return 0
  for gpu in $(seq 0 $((GPUS - 1))); do ln -s /dev/null "$DIR/gpus/gpu$gpu"; done
  echo "NodeName=node[1-$NODES] Name=gpu File=$DIR/gpus/gpu[0-$((GPUS - 1))]" >"$DIR/gres.conf"
}

write_accounting_daemon() {
  cat >"$DIR/slurmdbd.conf" <<CONF
AuthType=auth/munge
AuthInfo=socket=$DIR/munge/socket
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort=$ACCOUNTING_PORT
SlurmUser=$OWNER
LogFile=$DIR/log/slurmdbd.log
PidFile=$DIR/run/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort=$DATABASE_PORT
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm_acct_db
CONF
  chmod 600 "$DIR/slurmdbd.conf"
}
