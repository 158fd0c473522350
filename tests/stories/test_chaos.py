"""The short form of `make chaos`: three workers, with each group protocol, through the faults that differ most."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.chaos import faults
from tests.chaos.run import Course, run, told

FAULTS = {
    "classic": (faults.kill, faults.short_cut, faults.rolling_restart),
    "consumer": (faults.kill_worker_and_broker,),
}


@pytest.mark.timeout(400)  # each wait inside has its own deadline
@pytest.mark.parametrize("protocol", FAULTS)
def test_workers_and_a_broker_fail_and_every_record_counts_once_in_order(
    kafka: str, tmp_path: Path, protocol: str
) -> None:
    """(`kafka`: where one can run at all.)"""
    seed = random.randrange(1 << 32)  # told when it fails
    brokers = 3 if protocol == "consumer" else 1
    course = Course(0, seed, brokers, protocol, faults=FAULTS[protocol], pause_s=(0, 1))
    said: list[str] = []
    outcome = run(course, tmp_path, said.append)
    assert outcome.fine, "\n".join([*said, *told(outcome)])
    assert [done.fault for done in outcome.disturbances] == [fault.__name__ for fault in FAULTS[protocol]]
    assert outcome.verdict.records > 1000
