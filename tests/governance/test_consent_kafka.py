"""The consent agent in a worker on a real broker: topics that come, statements, and another worker on an empty disk."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime

from c360 import App, Record
from c360.assembly import Worker
from c360.engine.kafka import KafkaCluster
from c360.engine.transport import TP, TopicSpec
from c360.governance.consent import decode_state
from c360.governance.fence import Place, Statement, decode_statement
from c360.ops.records import records
from c360.ops.verify import verify
from c360.plan import Plan
from c360.tables.store import MemoryStores

DEADLINE_S = 40.0


def app_named(name: str) -> App:
    app = App(name, partitions=2)

    @app.identifier("crm", priority=1, unique=True)
    class CrmId(str): ...

    app.purpose("marketing")
    for topic in ("first", "later"):

        @app.consent(f"{name}.{topic}", name=topic)
        class Choice(Record):
            crm: CrmId
            purpose: str
            granted: bool
            at: datetime

    return app


@contextmanager
def working(plan: Plan, cluster: KafkaCluster) -> Iterator[Worker]:
    worker = Worker(plan, cluster, MemoryStores(), uuid.uuid4().hex[:8])
    worker.prepare()
    worker.start()
    try:
        yield worker
    finally:
        worker.stop()
        worker.join()


def until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not done():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def test_topics_that_come_are_read_and_told_of_and_another_worker_goes_on(kafka: str) -> None:
    cluster = KafkaCluster(kafka, {"heartbeat.interval.ms": "50"})
    plan = app_named(f"c{uuid.uuid4().hex[:10]}").plan()
    admin, reader, producer = cluster.admin(), cluster.reader(), cluster.producer()
    first, later = (source.asked.topic for source in plan.consents)
    admin.create([TopicSpec(first, 2)])

    def decide(topic: str, who: str, at: str, *, granted: bool) -> None:
        record = {"crm": who, "purpose": "marketing", "granted": granted, "at": f"2026-11-02T{at}:00Z"}
        producer.produce(topic, None, json.dumps(record).encode(), 0)
        producer.flush()

    def table(topic: str, partitions: int) -> dict[bytes | None, bytes | None]:
        found = records(reader, reader.starts([TP(topic, p) for p in range(partitions)]))
        return {key: value for _, _, key, value in found}

    def decided() -> dict[str, str]:
        states = {k.decode(): decode_state(v) for k, v in table(plan.consent, 2).items() if k and v}
        return {who: state["marketing"].holds.status for who, state in sorted(states.items())}

    def told() -> dict[Place, Statement]:
        said = [decode_statement(v) for v in table(plan.fence, 1).values() if v is not None]
        return {statement.input: statement for statement in said}

    with working(plan, cluster):
        decide(first, "1", "08:00", granted=True)
        until(lambda: decided() == {"crm:1": "granted"})
        until(lambda: {Place(first, 0), Place(first, 1)} <= told().keys())
        assert not any(place.topic == later for place in told())
        admin.create([TopicSpec(later, 1)])
        decide(later, "1", "09:00", granted=False)
        until(lambda: decided() == {"crm:1": "denied"})
        until(lambda: Place(later, 0) in told())
        ends = {Place(*tp): end for tp, end in reader.ends([TP(plan.consent, p) for p in range(2)]).items()}
        until(lambda: all(statement.reached(ends) for statement in told().values()))
    with working(plan, cluster):
        decide(first, "2", "08:00", granted=True)
        decide(later, "1", "07:00", granted=True)
        until(lambda: decided() == {"crm:1": "denied", "crm:2": "granted"})
        before = told()[Place(later, 0)].at
        until(lambda: told()[Place(later, 0)].at > before)
    report = verify(plan, cluster, ["consent"])
    assert (report.differences, report.complete, report.lag) == (0, True, 0), report.to_text()
    for client in (admin, reader, producer):
        client.close()
