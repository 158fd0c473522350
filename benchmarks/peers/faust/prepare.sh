#!/bin/sh
set -e
"$PYTHON" -m venv "$BUILD/venv"
"$BUILD/venv/bin/python" -m pip install --quiet --disable-pip-version-check faust-streaming==0.15.3 "aiokafka[lz4]" rocksdict==0.3.29 orjson
