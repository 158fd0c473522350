"""An app with identity for tests that write the assignments themselves; and its profiles as an undisturbed run has them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from c360 import App, Projection, Record, collect, count, derived, distinct, first, maximum, newest, total
from c360.agents.projection import ProjectionAgent
from c360.agents.wire import Assignment, encode
from c360.assembly import drain
from c360.engine.loop import InlineExecutor, Loop, LoopSettings
from c360.engine.memory import MemoryCluster
from c360.engine.partition import partition_of
from c360.engine.transport import TP, Cluster, Producer, TopicSpec
from c360.ops.progress import at_rest
from c360.ops.records import records
from c360.tables.store import MemoryStores

app = App("moves", partitions=3)


@app.identifier("crm", priority=1)
class CrmId(str): ...


@app.identifier("email", personal=False, priority=3)
class Email(str): ...


@app.source("visits", event_id="id", at="ts", subject="customer")
class Visit(Record):
    id: str
    customer: CrmId
    login: Email | None
    page: str
    ts: datetime


@app.cdc("orders", key="id", subject="customer", at="placed")
class Order(Record):
    id: int
    customer: CrmId
    amount: Decimal
    placed: datetime


@app.projection("customer", version=1)
class Profile(Projection):
    visits: int = count(Visit)
    first_page: str | None = first(Visit.page)
    last_page: str | None = newest(Visit.page)
    pages: list[str] = collect(Visit.page)
    kinds: int = distinct(Visit.page, limit=3)
    visits_7d: int = count(Visit, within=timedelta(days=7))
    deep: int = count(Visit, where=lambda visit: 10 // len(visit.page) < 5)  # raises for an empty one
    orders: int = count(Order)
    spend: Decimal = total(Order.amount)
    largest: Decimal | None = maximum(Order.amount)

    @derived
    def usual(self) -> Decimal | None:
        return self.spend / self.orders if self.orders else None


PLAN = app.plan()
CUSTOMER = PLAN.projections[0]
ASSIGNMENTS = PLAN.assignments(PLAN.identities[0])
PARTS = PLAN.parts(CUSTOMER)
OUTPUT = PLAN.projected(CUSTOMER)


SOON = LoopSettings(commit_s=0.0, commit_share=0.0, behind_s=0.0)  # commits when nothing more waits


def visit(n: int, customer: str, page: str, ts: str = "2026-11-02T08:00:00Z") -> dict[str, Any]:
    return {"id": f"v{n}", "customer": customer, "login": None, "page": page, "ts": ts}


def assign(producer: Producer, subject: str, seq: int, profile: str | None, *identifiers: str) -> None:
    """What identity would say; `profile` None: a tombstone."""
    said = None
    if profile is not None:
        said = encode(Assignment(seq=seq, profile=profile, identifiers=list(identifiers), change="moved", cause=""))
    producer.produce(ASSIGNMENTS, subject.encode(), said)
    producer.flush()


def profiles(cluster: Cluster) -> dict[str, bytes]:
    """The latest record of each profile."""
    found: dict[str, bytes] = {}
    for key, value in read(cluster, OUTPUT):
        assert key is not None
        if value is None:
            del found[key.decode()]
        else:
            found[key.decode()] = value
    return found


def shown(cluster: Cluster) -> Mapping[str, Any]:
    return {key: json.loads(record) for key, record in profiles(cluster).items()}


def read(cluster: Cluster, topic: str) -> list[tuple[bytes | None, bytes | None]]:
    reader = cluster.reader()
    partitions = [TP(topic, p) for p in range(cluster.admin().topics()[topic])]
    return [(key, value) for _, _, key, value in records(reader, reader.starts(partitions))]


def undisturbed(cluster: Cluster, now_ms: int) -> dict[str, bytes]:
    """Profiles of a task that nothing happens to, which finds all governed records and assignments there when it starts."""
    fresh, topics = MemoryCluster(now_ms=lambda: now_ms), cluster.admin().topics()
    fresh.admin().create([TopicSpec(topic, n) for topic, n in topics.items()])
    producer, reader = fresh.producer(), cluster.reader()
    for topic in (*(PLAN.governed(source) for source in PLAN.sources_of(CUSTOMER)), ASSIGNMENTS):
        for batches in reader.read(reader.starts([TP(topic, p) for p in range(topics[topic])])):
            for batch in batches:
                for key, value in zip(batch.keys, batch.values, strict=True):
                    producer.produce(topic, key, value, batch.tp.partition)
    producer.flush()
    agent = ProjectionAgent(PLAN, CUSTOMER)
    loop = Loop(agent, fresh, MemoryStores(), slot="0", clock=lambda: now_ms, settings=SOON, executor=InlineExecutor())
    admin, look = fresh.admin(), fresh.reader()
    drain([loop], lambda: not loop.uncommitted and at_rest(PLAN, admin, look, (agent.name,)))
    loop.close()
    return profiles(fresh)


def on(partition: int, nth: int = 0) -> str:
    """The nth subject that lies on this partition."""
    names = (name for name in map("crm:{}".format, range(10_000)) if partition_of(name.encode(), 3) == partition)
    return [name for name, _ in zip(names, range(nth + 1), strict=False)][nth]
