"""Dead letters: counts, one of them, and back to work after a fix.

Each goes back to who put it aside: govern has a replay topic for each source, consent reads them among its commands. Of a
request to be forgotten a dead letter keeps the place only, as what it says of people is what is to go: so it is read where it
lies, and asked for as `c360 erase` asks, by the identifiers that it names.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec

from c360.agents.erasure import Ordered, RequestReader
from c360.agents.sealing import LETTER, LETTERS
from c360.agents.wire import (
    ORIGIN,
    RAW,
    SEALED,
    TIME,
    MisfitRecord,
    Original,
    decode_enclosed,
    decode_misfit,
    decode_question,
    original_of,
)
from c360.engine.transport import TP, Cluster
from c360.errors import Misfit, UsageError
from c360.governance.keys import Opener
from c360.governance.names import Names
from c360.governance.sealing import read_sealed
from c360.ops import erase
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


def _kind(stage: str) -> str:
    """Of an agent's name, without the version."""
    return stage.partition("@")[0]


def replay(plan: Plan, cluster: Cluster, *, topic: str | None, reason: str | None) -> dict[str, int]:
    """Send misfits of raw topics back to govern and consent, with their origin, and questions to who asks outside; each once,
    in offset order.

    Returns counts: `replayed`; `cut`, which are larger than a dead letter keeps and must come from their producer
    again; `other`, which are not raw records, or requests to be forgotten (`requests`). Sending one twice is harmless: govern
    takes each origin once, and a decision that is known is no news.
    """
    sources = {s.topic: s for s in plan.sources}
    deciding, outside = {s.asked.topic for s in plan.consents}, {plan.questions(o) for o in plan.outsides}
    chosen: dict[tuple[str, str, int, int], DeadLetter] = {}
    result = {"replayed": 0, "cut": 0, "other": 0}
    for letter in _wanted(plan, cluster, topic, reason):
        misfit = letter.misfit
        asked = misfit.topic in outside and misfit.reason != "not-a-question"
        if not asked and misfit.topic not in {"govern": sources, "consent": deciding}.get(_kind(misfit.stage), ()):
            result["other"] += 1
        elif misfit.sha256 is not None:
            result["cut"] += 1
        else:
            chosen[misfit.stage, misfit.topic, misfit.partition, misfit.offset] = letter
    producer = cluster.producer()
    for (stage, raw, partition, offset), letter in sorted(chosen.items(), key=lambda item: item[0]):
        misfit = letter.misfit
        key, value, headers = original_of(misfit)
        if raw in outside:  # its identifier, where it is sealed, is opened when it is asked again
            assert value is not None
            about = decode_question(value).labels[0].encode()
            producer.produce(raw, about, value, None, [(ORIGIN, str(offset).encode())])
            result["replayed"] += 1
            continue
        if misfit.sealed is not None:  # who put it aside opens it itself: it stays sealed on the way
            key, value, headers = None, msgspec.json.encode(misfit.sealed), [(SEALED, b"1")]
        headers = [*headers, (ORIGIN, str(offset).encode()), (TIME, str(misfit.timestamp).encode())]
        if _kind(stage) == "govern":  # versions of it read one topic, and each takes what it has put aside itself
            producer.produce(plan.replay(sources[raw]), key, value, partition, headers)
        else:
            producer.produce(plan.consent_commands, key, value, 0, [*headers, (RAW, f"{raw}/{partition}".encode())])
        result["replayed"] += 1
    producer.flush()
    producer.close()
    return result


def _wanted(plan: Plan, cluster: Cluster, topic: str | None, reason: str | None) -> Iterator[DeadLetter]:
    for letter in read(plan, cluster):
        if topic in (None, letter.misfit.topic) and reason in (None, letter.misfit.reason):
            yield letter


def requests(plan: Plan, cluster: Cluster, letters: Iterable[DeadLetter], names: Callable[[], Names]) -> list[Asked]:
    """What requests to be forgotten that were put aside say now, in their raw topics, as far as they are there still.

    Each as the labels that it names; [] of one that still is a misfit. `names`: asked where there are any.
    """
    asked = {source.asked.topic: source.asked for source in plan.erasures_said}
    places = {(m.topic, m.partition, m.offset) for m in (letter.misfit for letter in letters) if m.stage == "erasure"}
    places = {place for place in places if place[0] in asked}
    if not places:
        return []
    readers = {topic: RequestReader(plan, one, names()) for topic, one in asked.items()}
    found = []
    reader = cluster.reader()
    try:
        for topic, partition, offset in sorted(places):
            tp = TP(topic, partition)
            if offset < reader.starts([tp])[tp]:
                continue
            for batches in reader.read({tp: offset}, {tp: offset + 1}):
                for batch in batches:
                    (record,) = readers[topic].decoder.decode(batch.values)
                    if record is not None and not isinstance(record, Misfit):
                        found.append(
                            Asked(f"{topic}/{partition}/{offset}", readers[topic].about(record, batch.keys[0]).labels)
                        )
    finally:
        reader.close()
    return found


class Asked(NamedTuple):
    """A request of a raw topic: where it lies, and whom it names."""

    place: str
    labels: tuple[str, ...]


def replay_told(
    plan: Plan,
    cluster: Cluster,
    run: Run,
    *,
    topic: str | None,
    reason: str | None,
    names: Callable[[], Names] | None = None,
) -> dict[str, int]:
    """As `replay`, by a person: told in the audit log. With `names` also requests to be forgotten, of identifiers that no
    request that stands names yet."""
    chosen = {"topic": topic or "all", "misfits": reason or "all"}
    with run.acting(Told("dlq replay", after=chosen)) as told:
        result = replay(plan, cluster, topic=topic, reason=reason)
        if names is not None:
            again = _ask_again(
                plan, cluster, run, requests(plan, cluster, _wanted(plan, cluster, topic, reason), names), names
            )
            result = {**result, "replayed": result["replayed"] + again, "other": result["other"] - again}
        told |= {name: str(count) for name, count in result.items()}
    return result


def _ask_again(plan: Plan, cluster: Cluster, run: Run, asked: Sequence[Asked], names: Callable[[], Names]) -> int:
    """How many requests could be read."""
    if not asked:
        return 0
    _, erasures = erase.books(plan, cluster)
    standing = {erasure.identifier for erasure in erasures.values() if not erasure.lifted}
    for label in dict.fromkeys(label for one in asked for label in one.labels):
        veiled = names().veil(label)
        if standing.isdisjoint((label, veiled)):
            order = Ordered(identifier=label, reason="dlq replay")
            run.say("done", Told("erase", about=(veiled,)), [erase.message(plan, order)])
    return sum(1 for one in asked if one.labels)
