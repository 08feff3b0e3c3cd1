# Settings of every job, each with its reason. Sourced by the scripts in this folder; values that are set before are kept.
# Jobs of lediflow.submit have the same settings.

# Where the ranks connect. The batch script runs on the first node, so the port is searched where it will be used.
export MASTER_ADDR=${MASTER_ADDR:-$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)}
free_port() { # below the ephemeral range (32768 and up), which outgoing connections use
    local port
    for port in $(seq $((20000 + SLURM_JOB_ID % 10000)) 29999); do
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { echo "$port"; return; }
    done
}
export MASTER_PORT=${MASTER_PORT:-$(free_port)}

# One thread for each core of a rank: otherwise torch would use all visible cores, in every rank.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-${SLURM_CPUS_PER_TASK:-1}}

# srun no longer takes --cpus-per-task from the job (SLURM 22.05 and later): without this every rank has one core.
export SRUN_CPUS_PER_TASK=${SRUN_CPUS_PER_TASK:-${SLURM_CPUS_PER_TASK:-1}}

# Only if nodes have several networks and NCCL chooses a slow one: export LEDIFLOW_INTERFACE=ib0 before.
if [ -n "${LEDIFLOW_INTERFACE:-}" ]; then
    export NCCL_SOCKET_IFNAME=$LEDIFLOW_INTERFACE GLOO_SOCKET_IFNAME=$LEDIFLOW_INTERFACE
fi

# Compiled kernels on the node's own disk: on a shared one many ranks would wait for each other's file locks.
scratch=${TMPDIR:-/tmp}/lediflow-$(id -u)
export TORCHINDUCTOR_CACHE_DIR=${TORCHINDUCTOR_CACHE_DIR:-$scratch/inductor}
export TRITON_CACHE_DIR=${TRITON_CACHE_DIR:-$scratch/triton}

# Python writes output at once, so that the log of a killed job is complete.
export PYTHONUNBUFFERED=1
