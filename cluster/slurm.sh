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
#SBATCH --open-mode=append
# GPUs: sbatch --gpus-per-node=1 cluster/slurm.sh ... --set resources.gpus_per_worker=0.25
set -euo pipefail

cd "${SLURM_SUBMIT_DIR:?start me with sbatch}"
PATH="$PWD/.venv/bin:$PATH"
# other nodes cannot reach 127.x, which is what some give their own name
address=$({ hostname --ip-address; hostname --all-ip-addresses; } | tr ' ' '\n' |
    grep -E '^[0-9.]+$' | grep -v -m 1 '^127\.') || { echo "error: no address but 127.x" >&2; exit 1; }
port=$((20000 + SLURM_JOB_ID % 10000))

# a token that dies with the allocation; readable by its owner alone, and never an argument
RAY_AUTH_TOKEN_PATH=$(umask 077 && mktemp "$PWD/.ray-token-XXXXXXXX")
od -An -N32 -tx1 /dev/urandom | tr -d ' \n' > "$RAY_AUTH_TOKEN_PATH"
export PATH RAY_AUTH_TOKEN_PATH RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0 RAY_ADDRESS="$address:$port"

clean_up() {
    trap - EXIT
    mapfile -t running < <(jobs -p)
    kill "${running[@]}" 2> /dev/null || true  # srun passes it on
    wait
    rm -f "$RAY_AUTH_TOKEN_PATH"
}
trap clean_up EXIT

# Each node removes its files when Ray ends. Jobs may share a node: the agent has no fixed port. A raylet
# gives up after 15 s, which a first start from a cold file system can take, so it is tried again.
export folder="/tmp/ray-$SLURM_JOB_ID"
# shellcheck disable=SC2016  # for the shell on each node
run_ray='trap "stopped=1; kill \$ray" TERM
for _ in 1 2 3; do
    ray start --num-cpus="$SLURM_CPUS_PER_TASK" --temp-dir="$folder" \
        --dashboard-agent-listen-port=0 --block "$@" & ray=$!
    wait $ray; wait $ray; status=$?
    [ $status -ne 0 ] && [ -z "$stopped" ] || break
done
rm -rf "$folder"; exit $status'
nodes=()
wait_for_nodes() {  # until so many are alive; ends the job if one fails
    # shellcheck disable=SC2016  # the inner shell's
    timeout 600 bash -c 'until python -c "import ray, time; ray.init(log_to_driver=False)
while sum(node[\"Alive\"] for node in ray.nodes()) < $1: time.sleep(1)"; do sleep 1; done' - "$1" 2> /dev/null &
    local all_alive=$!
    wait -n "$all_alive" "${nodes[@]}" || true
    if kill -0 "$all_alive" 2> /dev/null || ! wait "$all_alive"; then
        echo "error: Ray is not alive on $1 node(s) of $SLURM_JOB_NODELIST: see above" >&2
        exit 1
    fi
}
bash -c "$run_ray" ray --head --node-ip-address="$address" --port="$port" --include-dashboard=true \
    --ray-client-server-port="$((port + 10000))" &
nodes+=($!)
wait_for_nodes 1
for node in $(scontrol show hostnames "$SLURM_JOB_NODELIST"); do
    [ "$node" != "$SLURMD_NODENAME" ] || continue
    srun --overlap --nodes=1 --ntasks=1 --nodelist="$node" --cpus-per-task="$SLURM_CPUS_PER_TASK" \
        bash -c "$run_ray" ray --address="$RAY_ADDRESS" &
    nodes+=($!)
done
wait_for_nodes "$SLURM_JOB_NUM_NODES"

"$@"
