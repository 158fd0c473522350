"""Dead letters: counts, one of them, and back to work after a fix."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from c360.agents.wire import ORIGIN, TIME, MisfitRecord, decode_misfit
from c360.engine.transport import TP, Cluster
from c360.errors import UsageError
from c360.ops.audit import Run, Told
from c360.ops.records import records
from c360.plan import Plan


@dataclass(frozen=True)
class DeadLetter:
    """A misfit where it lies in the dead-letter topic."""

    partition: int
    offset: int
    key: bytes | None
    misfit: MisfitRecord

    @property
    def id(self) -> str:
        return f"{self.partition}/{self.offset}"


def read(plan: Plan, cluster: Cluster) -> Iterator[DeadLetter]:
    """All dead letters, by partition. An app that has none yet has no topic: nothing."""
    count = cluster.admin().topics().get(plan.dlq)
    if count is None:
        return
    partitions = [TP(plan.dlq, p) for p in range(count)]
    reader = cluster.reader()
    try:
        for tp, offset, key, value in records(reader, reader.starts(partitions)):
            if value is not None:
                yield DeadLetter(tp.partition, offset, key, decode_misfit(value))
    finally:
        reader.close()


def counts(plan: Plan, cluster: Cluster) -> dict[tuple[str, str], int]:
    """How many misfits by (raw topic, reason)."""
    return dict(Counter((d.misfit.topic, d.misfit.reason) for d in read(plan, cluster)))


def find(plan: Plan, cluster: Cluster, wanted: str) -> DeadLetter:
    """The dead letter "partition/offset". Raises UsageError when there is none."""
    for letter in read(plan, cluster):
        if letter.id == wanted:
            return letter
    raise UsageError(f"there is no dead letter {wanted!r}; `c360 dlq list` shows where they are")


def replay(plan: Plan, cluster: Cluster, *, topic: str | None, reason: str | None) -> dict[str, int]:
    """Send misfits of raw topics to their replay topics, with their origin; each once, in offset order.

    Returns counts: `replayed`; `cut`, which are larger than a dead letter keeps and must come from their producer
    again; `other`, which are not raw records. Sending one twice is harmless: govern takes each origin once.
    """
    sources = {s.topic: s for s in plan.sources}
    chosen: dict[tuple[str, int, int], DeadLetter] = {}
    result = {"replayed": 0, "cut": 0, "other": 0}
    for letter in read(plan, cluster):
        misfit = letter.misfit
        if (topic is not None and misfit.topic != topic) or (reason is not None and misfit.reason != reason):
            continue
        if misfit.topic not in sources:
            result["other"] += 1
        elif misfit.sha256 is not None:
            result["cut"] += 1
        else:
            chosen[misfit.topic, misfit.partition, misfit.offset] = letter
    producer = cluster.producer()
    for (raw, partition, offset), letter in sorted(chosen.items(), key=lambda item: item[0]):
        misfit = letter.misfit
        headers = [(n, base64.b64decode(v)) for n, v in misfit.headers]
        headers += [(ORIGIN, str(offset).encode()), (TIME, str(misfit.timestamp).encode())]
        key = None if misfit.key is None else base64.b64decode(misfit.key)
        value = None if misfit.value is None else base64.b64decode(misfit.value)
        producer.produce(plan.replay(sources[raw]), key, value, partition, headers)
        result["replayed"] += 1
    producer.flush()
    producer.close()
    return result


def replay_told(plan: Plan, cluster: Cluster, run: Run, *, topic: str | None, reason: str | None) -> dict[str, int]:
    """As `replay`, by a person: told in the audit log."""
    chosen = {"topic": topic or "all", "misfits": reason or "all"}
    with run.acting(Told("dlq replay", after=chosen)) as told:
        result = replay(plan, cluster, topic=topic, reason=reason)
        told |= {name: str(count) for name, count in result.items()}
    return result
