"""The app's own agents on a real broker: what they were killed over, or asked to leave over, they see again."""

from __future__ import annotations

import json
import time
import uuid
from pathlib import Path

from c360.engine.kafka import KafkaCluster
from c360.engine.transport import TP, TopicSpec
from c360.ops import topics
from c360.ops.records import records
from tests.stories.agents_town import PEOPLE, town
from tests.stories.tools import stop, wait_for_rest, wait_until, working

APP = "tests.stories.agents_town:app"
MANY, SLOW_S, LONG_S = 24, 0.25, 30.0  # the last: longer than a worker waits when it is asked to leave
Record = tuple[str, str]


def test_no_record_is_missed_by_an_agent_that_is_killed_or_leaves(kafka: str, tmp_path: Path) -> None:
    """One agent is slow and one is quick, over a topic whose offsets have marks of transactions between them."""
    name, cluster = f"agents-{uuid.uuid4().hex[:10]}", KafkaCluster(kafka)
    heard, log = tmp_path / "heard", tmp_path / "log"
    heard.mkdir()
    plan = town(name).plan()
    admin, producer, reader = cluster.admin(), cluster.producer(), cluster.reader()
    partitions = [TP(f"{name}.customer.v1", p) for p in range(2)]
    admin.create([TopicSpec(f"{name}.{PEOPLE}", 2)])
    topics.apply(plan, admin)

    def send(first: int, last: int) -> None:
        """So that the worker commits between two of them."""
        for n in range(first, last):
            said = {"id": f"e{n}", "customer": str(n), "word": f"w{n}"}
            producer.produce(plan.sources[0].topic, str(n).encode(), json.dumps(said).encode())
            producer.flush()
            time.sleep(0.1)

    def written() -> dict[Record, tuple[TP, int]]:
        """What there is to hear, and where it lies."""
        found = {}
        for tp, offset, _, value in records(reader, reader.starts(partitions)):
            said = json.loads(value or b"")
            found[said["profile_id"], said["attributes"]["word"]] = TP(tp.topic, tp.partition), offset
        return found

    def told(file: str) -> list[Record]:
        path = heard / file
        lines = path.read_text().splitlines() if path.exists() else []
        return [(line.split()[0], line.split()[1]) for line in lines if " " in line]

    settings = {"STORY": name, "HEARD": str(heard)}
    with working(kafka, tmp_path / "s", log, APP, SLOW_S=str(SLOW_S), **settings) as process:
        send(0, 1)
        wait_until(lambda: len(told("slow.done")) == 1, process, log)
        send(1, MANY)
        wait_until(lambda: len(told("slow.done")) >= 8, process, log)
        process.kill()
    at_kill = len(told("slow.done"))
    with working(kafka, tmp_path / "s", log, APP, SLOW_S=str(LONG_S), **settings) as process:
        begun = len(told("slow.begun"))
        send(MANY, MANY + 2)
        wait_until(lambda: len(told("slow.begun")) > begun, process, log)
        assert stop(process) == 0, log.read_text()
    with working(kafka, tmp_path / "s", log, APP, SLOW_S="0", **settings) as process:
        wait_for_rest(plan, cluster, process, log)
        wanted = written()
        wait_until(lambda: wanted.keys() <= {*told("slow.done")} & {*told("quick.done")}, process, log)
        assert stop(process) == 0, log.read_text()
    assert 8 <= at_kill < len(wanted), "it was killed over something"
    committed = admin.group_offsets(f"{name}.agents")
    assert all(committed[tp] > offset for tp, offset in wanted.values()), "and all is done with"
    for client in (admin, reader, producer):
        client.close()
