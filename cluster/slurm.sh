#!/usr/bin/env bash
# One Ray cluster in one Slurm allocation, one job on it, gone afterwards:
#   sbatch cluster/slurm.sh python jobs/train.py --preset default --run monthly --storage /shared/gangru
# Needs .venv (make setup) on a file system that all nodes see. Requeued after a preemption, the job
# continues where it stopped.
#SBATCH --job-name=gangru
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --mem=48G
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --output=gangru-%j.log
# GPUs: sbatch --gpus-per-node=1 cluster/slurm.sh ... --set resources.gpus_per_worker=0.25
set -euo pipefail

cd "${SLURM_SUBMIT_DIR:?start me with sbatch}"
PATH="$PWD/.venv/bin:$PATH"
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
port=$((20000 + SLURM_JOB_ID % 10000))

# a token that dies with the allocation; readable by its owner alone, and never an argument
RAY_AUTH_TOKEN_PATH=$(umask 077 && mktemp "$PWD/.ray-token-XXXXXXXX")
trap 'rm -f "$RAY_AUTH_TOKEN_PATH"' EXIT
od -An -N32 -tx1 /dev/urandom | tr -d ' \n' > "$RAY_AUTH_TOKEN_PATH"
export PATH RAY_AUTH_TOKEN_PATH RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0

address=$(srun --nodes=1 --ntasks=1 --nodelist="$head" hostname --ip-address | awk '{print $1}')
each=(--num-cpus="$SLURM_CPUS_PER_TASK" --temp-dir="/tmp/ray-$SLURM_JOB_ID" --block)
srun --nodes=1 --ntasks=1 --nodelist="$head" --overlap \
    ray start --head --node-ip-address="$address" --port="$port" --include-dashboard=true "${each[@]}" &
for _ in $(seq 60); do
    ray health-check --address "$address:$port" 2> /dev/null && break
    sleep 2
done
if [ "$SLURM_JOB_NUM_NODES" -gt 1 ]; then
    workers=$((SLURM_JOB_NUM_NODES - 1))
    srun --nodes="$workers" --ntasks="$workers" --exclude="$head" --overlap \
        ray start --address="$address:$port" "${each[@]}" &
fi

RAY_ADDRESS="$address:$port" "$@"
