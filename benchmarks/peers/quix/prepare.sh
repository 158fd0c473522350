#!/bin/sh
# Quix pins an older Kafka client than c360 needs, so it has an environment of its own.
set -e
"$PYTHON" -m venv "$BUILD/venv"
"$BUILD/venv/bin/python" -m pip install --quiet --disable-pip-version-check quixstreams==3.28.1 orjson
