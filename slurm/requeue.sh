# run_and_requeue COMMAND...: the command on every task; the job goes back into the queue where its state is saved.
# 75: a signal asked for a stop, 79: the time limit is near. Every other status ends the job: 2 would fail again, 80 was a
# person's wish, 82 says that another start has the run, and after a crash you want to look first
# (`python -m lediflow.submit` tries crashes again, and leaves bad nodes out).
run_and_requeue() {
    local status mark=$SLURM_SUBMIT_DIR/.requeue-$SLURM_JOB_ID
    rm -f "$mark"
    trap : TERM USR1 USR2 # meant for the ranks, which get them too; the shell stays to see how they end
    srun --kill-on-bad-exit=1 bash -c 'trap : TERM USR1 USR2; mark=$0; "$@"; status=$?
        case $status in 75 | 79) touch "$mark" ;; *) exit $status ;; esac' "$mark" "$@" &
    local ranks=$!
    wait "$ranks"; status=$?
    while kill -0 "$ranks" 2>/dev/null; do wait "$ranks"; status=$?; done # a signal ends `wait`, not srun
    if [ "$status" = 0 ] && [ -e "$mark" ]; then
        rm -f "$mark"
        scontrol requeue "$SLURM_JOB_ID"
        sleep 120 # until SLURM ends this shell
    fi
    exit "$status"
}
