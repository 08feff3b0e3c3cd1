#!/bin/bash
# Auxiliary model, then flow and latent sampler in parallel, then evaluation, as dependent jobs:
#   slurm/pipeline.sh EXPERIMENT DATA RUNS [option of sbatch ...]
#   slurm/pipeline.sh ffhq256_sdv data/ffhq256_sdv runs/mine --account=ME
# More options of the commands: TRAIN="engine=node_4xa100" (the default), EVALUATE="count=50000".
# Dependents of a failed job do not start. `python -m lediflow.submit pipeline=...` also prepares and encodes, skips what is
# done, and submits only what failed.
set -euo pipefail
[ $# -ge 3 ] || { sed -n '2,6p' "$0" >&2; exit 2; }
experiment=$1 data=$2 runs=$3; shift 3
here=$(dirname "$0")
after() { # JOB[:JOB] SCRIPT OPTION...: submit it with these dependencies; prints its id
    local jobs=$1; shift
    sbatch --parsable "${options[@]}" ${jobs:+--dependency=afterok:$jobs --kill-on-invalid-dep=yes} "$@"
}
options=("$@")
trained() { # JOB[:JOB] STAGE OPTION...: EXPERIMENT_STAGE if there is such a file, else EXPERIMENT with its option
    local jobs=$1 stage=$2; shift 2
    local what=("experiment=$experiment" "stage=$stage")
    [ ! -e "$here/../conf/experiment/${experiment}_$stage.yaml" ] || what=("experiment=${experiment}_$stage")
    after "$jobs" "$here/train.sbatch" "${what[@]}" "data.path=$data" ${TRAIN:-engine=node_4xa100} "$@"
}
auxiliary=$(trained "" auxiliary "run=$runs/auxiliary")
flow=$(trained "$auxiliary" flow "run=$runs/flow" "parent=$runs/auxiliary")
sampler=$(trained "$auxiliary" latent_sampler "run=$runs/sampler" "parent=$runs/auxiliary")
numbers=$(after "$flow:$sampler" "$here/evaluate.sbatch" "run=$runs/flow" "sampler=$runs/sampler" "data.path=$data" ${EVALUATE:-})
printf '%-10s %s\n' auxiliary "$auxiliary" flow "$flow" sampler "$sampler" evaluate "$numbers"
