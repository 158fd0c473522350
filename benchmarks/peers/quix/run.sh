#!/bin/sh
# Quix Streams 3.28, exactly once.
export PYTHONPATH="$(dirname "$0")/.."  # rules.py
exec "$BUILD/venv/bin/python" -u "$(dirname "$0")/app.py"
