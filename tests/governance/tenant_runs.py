"""Cross-tenant fuzz, longer: each tenant must have what it would have alone. Ends with how many seeds diverge.

`python -m tests.governance.tenant_runs --runs 40`: each run is an app of its own and 250 records of six tenants, together and
tenant by tenant; every other run with accidents.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from tests.governance.tenant_town import differences
from tests.seeds import run_seeds

RECORDS = 250


def run(seed: int) -> None:
    """Raises AssertionError with what leaked."""
    found = differences(seed, RECORDS, accidents=seed % 2 == 1)
    assert not found, "\n".join(found)


def main(arguments: Sequence[str] | None = None) -> int:
    program = "tests.governance.tenant_runs"
    return run_seeds(run, arguments, program=program, about=__doc__, runs=40, failures=AssertionError)


if __name__ == "__main__":
    sys.exit(main())
