# run_and_requeue COMMAND...: run the command on every task; requeue the job if its state is saved.
# 75: a signal requested a stop, 79: the time limit is near. Every other status ends the job: 2 would fail again, 80 is a
# user's request, 82 means that another session has taken over the run, and a crash should be inspected first
# (`python -m lediflow.submit` retries after crashes, and excludes bad nodes).
run_and_requeue() {
    local status mark=$SLURM_SUBMIT_DIR/.requeue-$SLURM_JOB_ID
    rm -f "$mark"
    trap : TERM USR1 USR2 # meant for the ranks, which get them too; the shell waits for their end
    srun --kill-on-bad-exit=1 bash -c 'trap : TERM USR1 USR2; mark=$0; "$@"; status=$?
        case $status in 75 | 79) touch "$mark" ;; *) exit $status ;; esac' "$mark" "$@" &
    local ranks=$!
    wait "$ranks"; status=$?
    while kill -0 "$ranks" 2>/dev/null; do wait "$ranks"; status=$?; done # a signal interrupts `wait`, not srun
    if [ "$status" = 0 ] && [ -e "$mark" ]; then
        rm -f "$mark"
        scontrol requeue "$SLURM_JOB_ID"
        sleep 120 # until SLURM ends this shell
    fi
    exit "$status"
}
