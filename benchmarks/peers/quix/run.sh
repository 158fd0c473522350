#!/bin/sh
# Quix Streams 3.28, exactly once.
exec "$BUILD/venv/bin/python" -u "$(dirname "$0")/app.py"
