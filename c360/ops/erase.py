"""What `c360 erase` and the test driver say to the erasure agent, and where a request stands."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from c360.agents.erasure import ERASURES, KNOWN, Ordered, encode_command
from c360.engine.transport import TP, Cluster
from c360.governance.certificate import Certificate, decode_certificate
from c360.governance.erasure import Erasure, Known, Stage, decode_erasure, decode_known, stage_of, waits_for
from c360.ops.records import records
from c360.plan import Plan


class Where(NamedTuple):
    """A request as the agent's books have it. `waits`: who keeps it where it is."""

    erasure: Erasure
    stage: Stage
    waits: tuple[str, ...]


def ask(plan: Plan, cluster: Cluster, order: Ordered) -> str:
    """Say it to the erasure agent; the request's name (that of a lift is the request that it lifts)."""
    producer = cluster.producer()
    placed: list[int] = []
    try:
        delivered: Any = lambda offset, *_: placed.append(offset)  # noqa: E731
        producer.produce(plan.erasure_commands, None, encode_command(order), 0, delivered=delivered)
        producer.flush()
    finally:
        producer.close()
    return order.lift or f"{plan.erasure_commands}/0/{placed[0]}"


def certificate_of(plan: Plan, cluster: Cluster, request: str) -> Certificate | None:
    """The certificate of a request; None while there is none."""
    found = [value for key, value in _read(plan.erasures, cluster) if key == request.encode() and value is not None]
    return decode_certificate(found[-1]) if found else None


def where(plan: Plan, cluster: Cluster, request: str) -> Where | None:
    """Where a request stands; None while the agent has not read it."""
    rows: dict[bytes, bytes | None] = {}
    wanted = (KNOWN, ERASURES + request.encode())
    for key, value in _read(f"{plan.app}.erasure.changelog", cluster):
        if key in wanted:
            rows[key] = value
    row, known = rows.get(wanted[1]), rows.get(KNOWN)
    if row is None:
        return None
    erasure = decode_erasure(row)
    of: Known = Known() if known is None else decode_known(known)
    return Where(erasure, stage_of(erasure, of), waits_for(erasure, of))


def _read(topic: str, cluster: Cluster) -> Iterator[tuple[bytes, bytes | None]]:
    reader = cluster.reader()
    try:
        tp = TP(topic, 0)
        if cluster.admin().topics().get(topic) is None:
            return
        for _, _, key, value in records(reader, reader.starts([tp])):
            if key is not None:
                yield key, value
    finally:
        reader.close()
