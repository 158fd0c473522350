"""Dead letters: counts, one of them, and back to work after a fix."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from c360.agents.sealing import LETTER, LETTERS
from c360.agents.wire import (
    ORIGIN,
    SEALED,
    TIME,
    MisfitRecord,
    Original,
    decode_enclosed,
    decode_misfit,
    original_of,
)
from c360.engine.transport import TP, Cluster
from c360.errors import Misfit, UsageError
from c360.governance.keys import Opener
from c360.governance.sealing import read_sealed
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


def open_letter(value: Any, opener: Opener) -> Original:
    """The raw record of a sealed letter. Raises Misfit, Destroyed, NeedsOperator."""
    return original_of(decode_enclosed(opened_letter(value, opener)))


def opened_letter(value: Any, opener: Opener) -> bytes:
    sealed = read_sealed(value)
    if not sealed.subject.startswith(LETTERS):
        raise Misfit("sealed-elsewhere", "a sealed value stands where a dead letter was expected")
    return opener.open(value, subjects=(sealed.subject,), fields=(LETTER,), complete=True)


def shown(misfit: MisfitRecord, opener: Opener | None) -> MisfitRecord:
    """The same with what is sealed in it opened, where there are keys for it."""
    if misfit.sealed is None or opener is None:
        return misfit
    found = decode_enclosed(opened_letter(misfit.sealed, opener))
    return msgspec.structs.replace(
        misfit, key=found.key, value=found.value, headers=found.headers, traceback=found.traceback, sealed=None
    )


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
        if misfit.topic not in sources or misfit.stage != "govern":
            result["other"] += 1
        elif misfit.sha256 is not None:
            result["cut"] += 1
        else:
            chosen[misfit.topic, misfit.partition, misfit.offset] = letter
    producer = cluster.producer()
    for (raw, partition, offset), letter in sorted(chosen.items(), key=lambda item: item[0]):
        misfit = letter.misfit
        key, value, headers = original_of(misfit)
        if misfit.sealed is not None:  # govern opens it itself: it stays sealed on the way
            key, value, headers = None, msgspec.json.encode(misfit.sealed), [(SEALED, b"1")]
        headers = [*headers, (ORIGIN, str(offset).encode()), (TIME, str(misfit.timestamp).encode())]
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
