#!/bin/sh
# Submit a config to a Ray head started here for it, follow the job to its end, and stop that head again.
#   jobs/submit.sh [CONFIG] [KEY=VALUE ...]
# On a real cluster only the `ray job submit` line is needed, with RAY_ADDRESS=http://HEAD:8265.
set -eu
cd "$(dirname "$0")/.."
config=${1:-configs/quickstart.yaml}
[ $# -eq 0 ] || shift

# Ports of its own, so that a head already running on this machine is neither joined nor stopped.
port=${LACUNA_HEAD_PORT:-6390}
dashboard=${LACUNA_DASHBOARD_PORT:-8275}
session=$(mktemp -d)
export RAY_USAGE_STATS_ENABLED=0
ray start --head --port="$port" --dashboard-port="$dashboard" --ray-client-server-port=0 --temp-dir="$session" \
  --num-cpus="$(getconf _NPROCESSORS_ONLN)" --disable-usage-stats >"$session.log" 2>&1 || { cat "$session.log"; exit 1; }
head=$(pgrep -f "gcs_server.*$session" || true)
# `ray stop` would stop every head of the machine; only the processes of this session's folder are ended.
trap 'pkill -TERM -f "$session" 2>/dev/null || true; sleep 1; pkill -KILL -f "$session" 2>/dev/null || true; rm -rf "$session" "$session.log"' EXIT INT TERM
[ -n "$head" ] || { cat "$session.log"; echo "lacuna: the Ray head did not start" >&2; exit 1; }

# Inside a job a relative output would land in Ray's package cache, so the path is made absolute here.
ray job submit --address="http://127.0.0.1:$dashboard" --working-dir=. \
  -- python jobs/generate.py "$config" "output.path=$PWD/out/job" "$@"
