#!/bin/bash
# Auxiliary model, then flow and latent sampler side by side, then numbers, each after what it needs:
#   slurm/pipeline.sh EXPERIMENT DATA RUNS [option of sbatch ...]
#   slurm/pipeline.sh ffhq256_sdv data/ffhq256_sdv runs/mine --account=ME
# What fails keeps what comes after it from starting. `python -m lediflow.submit pipeline=...` also prepares and encodes,
# knows what is done already, and submits again what failed alone.
set -euo pipefail
[ $# -ge 3 ] || { sed -n '2,5p' "$0" >&2; exit 2; }
experiment=$1 data=$2 runs=$3; shift 3
here=$(dirname "$0")
after() { # JOB[:JOB] SCRIPT OPTION...: submit it behind these jobs; its id
    local jobs=$1; shift
    sbatch --parsable "${options[@]}" ${jobs:+--dependency=afterok:$jobs --kill-on-invalid-dep=yes} "$@"
}
options=("$@")
train=("$here/train.sbatch" "data.path=$data" ${ENGINE:-engine=node_4xa100})
auxiliary=$(after "" "${train[@]}" "experiment=${experiment}_auxiliary" "run=$runs/auxiliary")
flow=$(after "$auxiliary" "${train[@]}" "experiment=${experiment}_flow" "run=$runs/flow" "parent=$runs/auxiliary")
sampler=$(after "$auxiliary" "${train[@]}" "experiment=${experiment}_latent_sampler" "run=$runs/sampler" "parent=$runs/auxiliary")
numbers=$(after "$flow:$sampler" "$here/evaluate.sbatch" "run=$runs/flow" "sampler=$runs/sampler" "data.path=$data")
printf '%-10s %s\n' auxiliary "$auxiliary" flow "$flow" sampler "$sampler" evaluate "$numbers"
