#!/usr/bin/env bash
#SBATCH --job-name=lacuna
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:TERM@120
# A run on Slurm: sbatch jobs/slurm.sh CONFIG [KEY=VALUE ...]
# Starts Ray on all nodes of the allocation and the run on the first one. Requeued after preemption or the time limit,
# the same script goes on from what the output holds; output.path must be on a file system that all nodes share.
set -euo pipefail
if [ $# -eq 0 ]; then
  echo "usage: sbatch jobs/slurm.sh CONFIG [KEY=VALUE ...]" >&2
  exit 2
fi
cd "${SLURM_SUBMIT_DIR:?run me with sbatch}"
export PATH="$PWD/.venv/bin:$PATH" RAY_USAGE_STATS_ENABLED=0
# Nodes are shared with other users: only who holds the token (in the home folder, for nobody else to read) may use this
# Ray.
export RAY_AUTH_MODE=token
(umask 077 && ray get-auth-token --generate >/dev/null)

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${nodes[0]}
head_ip=$(srun --nodes=1 --ntasks=1 -w "$head" hostname --ip-address | awk '{print $1}')
# Three of its own, and the agents' and workers' at random: two jobs may share a node.
port=$((20000 + SLURM_JOB_ID % 4000 * 3))
cpus=${SLURM_CPUS_PER_TASK:-1}
# gpu:h100:8 or 8: the number is what comes last
gpus=${SLURM_GPUS_ON_NODE:-${SLURM_GPUS_PER_NODE:-0}}
gpus=${gpus##*:}
start=(--num-cpus="$cpus" --num-gpus="$gpus" --disable-usage-stats --block)
start+=(--dashboard-agent-listen-port=0 --min-worker-port=0 --max-worker-port=0)

log=$(mktemp)
trap 'rm -f "$log"' EXIT
srun --nodes=1 --ntasks=1 -w "$head" ray start --head --node-ip-address="$head_ip" --port="$port" \
  --dashboard-port="$((port + 1))" --ray-client-server-port="$((port + 2))" "${start[@]}" >"$log" 2>&1 &
head_process=$!
export RAY_ADDRESS="$head_ip:$port"
until ray health-check --address "$RAY_ADDRESS" >/dev/null 2>&1; do
  # SECONDS: since this script began
  if ! kill -0 "$head_process" 2>/dev/null || [ "$SECONDS" -gt "${LACUNA_HEAD_TIMEOUT:-300}" ]; then
    tail -n 30 "$log" >&2
    echo "lacuna: the Ray head did not start on $head, as its last lines above tell. Its sockets are in RAY_TMPDIR, or" \
      "else TMPDIR (${RAY_TMPDIR:-${TMPDIR:-/tmp}}), which must be this user's and short: they take 107 bytes in all" >&2
    kill -TERM "$head_process" 2>/dev/null || true
    exit 1
  fi
  sleep 2
done
if [ "${#nodes[@]}" -gt 1 ]; then
  others=$((${#nodes[@]} - 1))
  srun --nodes="$others" --ntasks="$others" --exclude="$head" ray start --address="$RAY_ADDRESS" "${start[@]}" &
fi

# In the background, so that the trap runs at once; TERM stops the run as Ctrl-C does.
python jobs/generate.py "$@" &
run=$!
trap 'kill -TERM "$run" 2>/dev/null || true' TERM
code=0
wait "$run" || code=$?
while kill -0 "$run" 2>/dev/null; do wait "$run" || code=$?; done
# 130: interrupted, by the time limit or by preemption. Ask for another turn.
if [ "$code" -eq 130 ]; then scontrol requeue "$SLURM_JOB_ID"; fi
exit "$code"
