# Settings of every job, each with its reason. Sourced by the scripts beside it; yours win where they are set before.
# Jobs of lediflow.submit see to the same themselves.

# Where the ranks meet. The batch script runs on the first node, so the port is looked for where it will be used.
export MASTER_ADDR=${MASTER_ADDR:-$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)}
free_port() { # below the ephemeral range (32768 and up): no outgoing connection sits there
    local port
    for port in $(seq $((20000 + SLURM_JOB_ID % 10000)) 29999); do
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { echo "$port"; return; }
    done
}
export MASTER_PORT=${MASTER_PORT:-$(free_port)}

# One thread for each core of a rank: torch would otherwise take all cores it sees, in every rank.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-${SLURM_CPUS_PER_TASK:-1}}

# srun no longer takes --cpus-per-task from the job (SLURM 22.05 and later): without this every rank has one core.
export SRUN_CPUS_PER_TASK=${SRUN_CPUS_PER_TASK:-${SLURM_CPUS_PER_TASK:-1}}

# Only where nodes have several networks and NCCL picks the slow one: export LEDIFLOW_INTERFACE=ib0 before.
if [ -n "${LEDIFLOW_INTERFACE:-}" ]; then
    export NCCL_SOCKET_IFNAME=$LEDIFLOW_INTERFACE GLOO_SOCKET_IFNAME=$LEDIFLOW_INTERFACE
fi

# Compiled kernels belong on the node's own disk: many ranks that lock files on a shared one wait for each other.
scratch=${TMPDIR:-/tmp}/lediflow-$(id -u)
export TORCHINDUCTOR_CACHE_DIR=${TORCHINDUCTOR_CACHE_DIR:-$scratch/inductor}
export TRITON_CACHE_DIR=${TRITON_CACHE_DIR:-$scratch/triton}

# Python writes what it says at once, so that a log of a killed job is whole.
export PYTHONUNBUFFERED=1
