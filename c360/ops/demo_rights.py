"""The last act of the demo: a customer withdraws, and one asks to be forgotten, over the same topics as in production."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

import orjson

from c360.engine.transport import TP, Cluster, Reader
from c360.errors import C360Error
from c360.governance.certificate import Certificate, decode_certificate
from c360.ops.records import follow, records
from c360.plan import Plan

T = TypeVar("T")

PATIENCE_S = 120.0
LOOK_S = 0.01


@dataclass(frozen=True)
class Withdrawal:
    """Who withdrew (a profile's id), and how long it took until the sink was told to hold nothing of them."""

    customer: str
    held_before: int
    held_after: int
    ms: int


@dataclass(frozen=True)
class Forgotten:
    """Who asked to be forgotten, what the certificate says, and how many profiles of theirs are left anywhere."""

    customer: str
    certificate: Certificate
    left: int


@dataclass(frozen=True)
class Rights:
    withdrawal: Withdrawal
    forgotten: Forgotten


def act(plan: Plan, cluster: Cluster, check: Callable[[], None]) -> Rights | None:
    """Both, one after the other; None where the sink holds fewer than two known customers. `check` raises if the worker failed.

    Raises C360Error when it takes longer than two minutes.
    """
    door = next(door for door in plan.doors if door.sink is not None)
    reader = cluster.reader()
    try:
        sink = _Table(plan, reader, plan.leaves(door))
        chosen = sorted(key for key in sink.read() if key.startswith(b"crm:"))[:2]
        if len(chosen) < 2:
            return None
        leaving, forgotten = (key.decode() for key in chosen)
        return Rights(_withdraw(cluster, sink, leaving, check), _forget(plan, cluster, reader, forgotten, check))
    finally:
        reader.close()


class _Table:
    """A compacted topic, read on."""

    def __init__(self, plan: Plan, reader: Reader, topic: str) -> None:
        self.reader = reader
        self.positions = reader.starts([TP(topic, p) for p in range(plan.partitions)])
        self.rows: dict[bytes, bytes] = {}

    def read(self) -> Mapping[bytes, bytes]:
        follow(self.reader, self.positions, self.rows)
        return self.rows


def _withdraw(cluster: Cluster, sink: _Table, customer: str, check: Callable[[], None]) -> Withdrawal:
    before = len(sink.rows)
    said = {"customer": customer.removeprefix("crm:"), "purpose": "marketing", "granted": False, "at": _now()}
    begun = time.monotonic()
    _send(cluster, "web.consent", customer, said)
    _until(lambda: customer.encode() not in sink.read() or None, check, "the sink holds a customer who has withdrawn")
    return Withdrawal(customer, before, len(sink.rows), round((time.monotonic() - begun) * 1000))


def _forget(plan: Plan, cluster: Cluster, reader: Reader, customer: str, check: Callable[[], None]) -> Forgotten:
    proofs = TP(plan.erasures, 0)
    known = reader.ends([proofs])
    _send(cluster, "privacy.requests", customer, {"customer": customer.removeprefix("crm:")})

    def proven() -> Certificate | None:
        return next((decode_certificate(r.value) for r in records(reader, known) if r.value is not None), None)

    certificate = _until(proven, check, "an erasure is not proven")
    topics = [plan.projected(door.projection) for door in plan.doors] + [plan.leaves(door) for door in plan.doors]
    left = sum(customer.encode() in _Table(plan, reader, topic).read() for topic in dict.fromkeys(topics))
    return Forgotten(customer, certificate, left)


def _send(cluster: Cluster, topic: str, customer: str, said: Mapping[str, object]) -> None:
    producer = cluster.producer()
    producer.produce(topic, customer.removeprefix("crm:").encode(), orjson.dumps(said))
    producer.flush()
    producer.close()


def _now() -> str:
    return datetime.now(UTC).isoformat()


def _until(look: Callable[[], T | None], check: Callable[[], None], what: str) -> T:
    deadline = time.monotonic() + PATIENCE_S
    while (found := look()) is None:
        check()
        if time.monotonic() > deadline:
            raise C360Error(f"after {PATIENCE_S:.0f} s {what}; run the demo again with C360 logs: c360 worker")
        time.sleep(LOOK_S)
    return found
