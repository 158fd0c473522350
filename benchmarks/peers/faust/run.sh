#!/bin/sh
# Faust 0.15, at least once: exactly once is experimental there.
export PYTHONPATH="$(dirname "$0")/.."  # rules.py
exec "$BUILD/venv/bin/python" -u "$(dirname "$0")/app.py" worker -l warn --without-web
