"""Customers are forgotten although workers die in the middle of it. More of it: `python -m tests.governance.kafka`."""

from __future__ import annotations

from pathlib import Path

import pytest

from c360.engine.kafka import KafkaCluster
from tests.governance.kafka import one_round


@pytest.mark.timeout(300)
def test_two_workers_are_killed_at_any_moment_of_an_erasure_and_it_ends_proven(kafka: str, tmp_path: Path) -> None:
    assert one_round(kafka, KafkaCluster(kafka), tmp_path, 1, 3, put_back=False).kills == 3


@pytest.mark.timeout(300)
def test_directories_of_before_an_erasure_that_are_put_back_bring_nothing_back(kafka: str, tmp_path: Path) -> None:
    one_round(kafka, KafkaCluster(kafka), tmp_path, 2, 0, put_back=True)
