"""Prints READY when the worker on this port says so, as the other contestants do; then it is gone."""

import os
import re
import sys
import time
import urllib.error
import urllib.request

BEGUN = time.monotonic()
WORKER = os.getppid()


def get(page: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{sys.argv[1]}/{page}", timeout=30) as answer:
        return str(answer.read().decode())


while True:
    try:
        get("ready")
        break
    except (urllib.error.URLError, OSError):  # nobody listens yet, or 503
        if os.getppid() != WORKER:
            sys.exit("the worker is gone")
        time.sleep(0.1)
page = get("metrics")
restored = sum(float(n) for n in re.findall(r"^c360_restored_records_total{.*} (\S+)$", page, re.M))
# The agents restore side by side.
busy = max(float(n) for n in re.findall(r"^c360_restore_seconds_total{.*} (\S+)$", page, re.M))
print(f"READY restored={restored:.0f} secs={time.monotonic() - BEGUN:.2f} busy={busy:.2f}")
