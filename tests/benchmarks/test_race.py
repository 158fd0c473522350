"""A race on a real broker: contestants come to their end, and what they wrote is what the oracle says."""

from __future__ import annotations

import time

import pytest

from benchmarks.contestants import ALL, Contestant
from benchmarks.oracle import outcome
from benchmarks.race import PARTITIONS, Course, Failed, race
from benchmarks.workload import records
from c360.engine.kafka import KafkaCluster
from c360.engine.transport import TopicSpec

EVENTS, CUSTOMERS = 4_000, 300


@pytest.fixture(scope="module")
def course(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> Course:
    cluster, topic = KafkaCluster(kafka), f"benchmark-{time.time_ns()}"
    cluster.admin().create([TopicSpec(topic, PARTITIONS)])
    raw = list(records(EVENTS, CUSTOMERS))
    producer = cluster.producer()
    for key, value in raw:
        producer.produce(topic, key, value)
    producer.flush()
    producer.close()
    return Course(cluster, kafka, topic, outcome(raw), EVENTS, tmp_path_factory.mktemp("race"), commit_ms=100)


@pytest.mark.parametrize("name", ["null", "c360"])
def test_a_contestant_reads_everything_and_passes_the_check(course: Course, name: str) -> None:
    found = race(ALL[name], course, f"race-{name}-{time.time_ns()}", restore=name == "c360")
    assert found["check"] == "ok"
    assert found["events"] == EVENTS
    assert found["cpu_us_per_event_whole"] > 0
    assert found["peak_rss_mb"] > 10
    if name == "c360":
        assert found["restore"]["line"].startswith("READY restored=")


def test_the_hops_of_c360_run_one_after_the_other(course: Course) -> None:
    prefix = f"race-hops-{time.time_ns()}"
    for name in ("c360_govern", "c360_projection"):
        found = race(ALL[name], course, prefix)
        assert found["check"] == "ok"
    assert found["events"] == course.right.accepted < EVENTS


def test_wrong_output_is_told_not_raised(course: Course) -> None:
    """The null contestant copies raw events, which are not what govern would have written of them."""
    wrong = Contestant("wrong", "null", profiles=None, dead=None, copies="{prefix}-profiles", writes="accepted")
    found = race(wrong, course, f"race-wrong-{time.time_ns()}")
    assert f"{EVENTS} records in race-wrong-" in found["check"]


def test_a_contestant_that_ends_early_fails_with_the_end_of_its_log(course: Course) -> None:
    broken = Contestant("broken", "null", environment={"COMMIT_MS": "soon"})
    with pytest.raises(Failed, match="could not convert string to float"):
        race(broken, course, f"race-broken-{time.time_ns()}")
