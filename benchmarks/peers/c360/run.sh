#!/bin/sh
# The ordinary worker, with all agents or those named in ONLY.
here=$(cd "$(dirname "$0")" && pwd)
export C360_BROKER="$BROKERS" C360_STATE_DIR="$STATE_DIR" PYTHONPATH="$here/../../.."
"$PYTHON" -ISu "$here/ready.py" "$PORT" &
exec "$PYTHON" -m c360 -A benchmarks.peers.c360.app:app worker --web-port "$PORT" --commit-ms "$COMMIT_MS" ${ONLY:+--only "$ONLY"}
