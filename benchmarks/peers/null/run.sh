#!/bin/sh
# The floor of any design on confluent-kafka.
exec "$PYTHON" -u "$(dirname "$0")/app.py"
