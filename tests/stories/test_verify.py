"""`c360 verify` on a real broker: one record that is not as it must be makes it fail."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from c360.engine.transport import TP, Producer
from c360.ops.records import Found, records
from c360.ops.verify import verify
from tests.stories.notes import NOTES
from tests.stories.sent import Sent
from tests.stories.tools import c360, stop, wait_for_rest, working

APP = "tests.stories.notes:app"


Differences = list[tuple[str, str]]  # kind and topic of each


def differences(sent: Sent) -> Differences:
    report = verify(sent.plan, sent.cluster, [])
    assert len(report.examples) == report.differences
    return [(e["kind"], e["topic"]) for e in report.examples]


def test_a_lost_an_altered_and_a_doubled_record_are_each_found(sent: Sent, kafka: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with working(kafka, tmp_path / "state", log, APP, STORY=sent.name) as process:
        for n in range(30):
            sent.good(to=f"crm:{n}")
        sent.producer.flush()
        wait_for_rest(sent.plan, sent.cluster, process, log)
        assert stop(process) == 0
    assert differences(sent) == []

    profiles, governed = f"{sent.name}.customer.v1", f"{sent.name}.governed.{NOTES}.v1"
    reader = sent.cluster.reader()
    last = {topic: next(records(reader, reader.starts([TP(topic, 0)]))) for topic in (profiles, governed)}
    reader.close()

    def plant(topic: str, change: Callable[[bytes], bytes | None]) -> Differences:
        found: Found = last[topic]
        assert found.value is not None
        producer: Producer = sent.cluster.producer()
        producer.produce(topic, found.key, change(found.value), found.tp.partition)
        producer.flush()
        producer.close()
        return differences(sent)

    assert plant(profiles, lambda value: None) == [("lost", profiles)]
    assert plant(profiles, lambda value: value.replace(b'"notes":1', b'"notes":2')) == [("altered", profiles)]
    assert plant(profiles, lambda value: value) == []
    assert c360(kafka, APP, "verify", STORY=sent.name).returncode == 0
    assert plant(profiles, lambda value: value) == [("doubled", profiles)]
    # A projection that had read it would count it as well; its lag is no difference.
    assert plant(governed, lambda value: value) == [("doubled", governed), ("doubled", profiles)]
    done = c360(kafka, APP, "verify", "--json", STORY=sent.name)
    assert (done.returncode, json.loads(done.stdout)["differences"]) == (1, 2)
