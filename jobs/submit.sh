#!/bin/sh
# Submit a config to a Ray head started here for it, follow the job to its end, and stop that head again.
#   jobs/submit.sh [CONFIG] [KEY=VALUE ...]
# On a real cluster only the `ray job submit` line is needed, with RAY_ADDRESS=http://HEAD:8265.
set -eu
cd "$(dirname "$0")/.."
config=${1:-configs/quickstart.yaml}
[ $# -eq 0 ] || shift

# Ports and a token of its own, so that a head already running on this machine is neither joined nor stopped, and does
# not stand in the way. Where it can be told to take any free port (0), Ray does; two it must be given: free ones below
# those that systems give to connections, so that nothing takes them until Ray does.
ports=$(python -c '
import contextlib, random, socket
free = []
for port in random.sample(range(20000, 32768), 100):
    with contextlib.suppress(OSError), socket.create_server(("", port)):
        free.append(port)
print(*free[:2])')
client=${ports#* }
address=http://127.0.0.1:${ports% *}

# The head's sockets are in a folder of its own, short everywhere: TMPDIR, on macOS, is longer than they can take.
short=${RAY_TMPDIR:-/tmp}
session=$(mktemp -d "$short/lacuna-XXXXXX") && [ ${#session} -lt 40 ] || {
  echo "lacuna: $short is no folder for the sockets of Ray, which take 64 bytes more of the 107 (macOS: 103) of a path:" \
    "set RAY_TMPDIR (TMPDIR is not used) to a short folder that is yours, or unset it for /tmp" >&2
  exit 1
}
case $(command -v python) in *' '*)
  echo "lacuna: Ray cannot start $(command -v python), whose path has a blank: set up Lacuna in another folder" >&2
  exit 1 ;;
esac
export RAY_USAGE_STATS_ENABLED=0 RAY_AUTH_MODE=token
RAY_AUTH_TOKEN=$(python -c 'import secrets; print(secrets.token_hex(32))')
export RAY_AUTH_TOKEN

# With --block the head is one process that ends all of its own when it is told to, and only those.
ray start --head --block --port=0 --dashboard-port="${address##*:}" --ray-client-server-port="$client" \
  --dashboard-agent-listen-port=0 --min-worker-port=0 --max-worker-port=0 --temp-dir="$session" \
  --num-cpus="$(getconf _NPROCESSORS_ONLN)" --disable-usage-stats >"$session.log" 2>&1 &
head=$!
trap 'kill -TERM $head 2>/dev/null || true; wait $head 2>/dev/null || true; rm -rf "$session" "$session.log"' EXIT
trap 'exit 130' INT TERM
waited=0
until ray job list --address="$address" >/dev/null 2>&1; do
  kill -0 $head 2>/dev/null && [ $waited -lt 60 ] || {
    tail -n 30 "$session.log" >&2
    echo "lacuna: the Ray head did not start; its last lines are above" >&2
    exit 1
  }
  waited=$((waited + 1))
  sleep 1
done

# Inside a job a relative output would land in Ray's package cache, so the path is made absolute here.
ray job submit --address="$address" --working-dir=. \
  -- python jobs/generate.py "$config" "output.path=$PWD/out/job" "$@" || {
  code=$?
  kill -0 $head 2>/dev/null || {
    tail -n 30 "$session.log" >&2
    echo "lacuna: the Ray head is gone; its last lines are above" >&2
  }
  exit $code
}
