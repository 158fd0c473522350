"""What `c360 erase` and the test driver say to the erasure agent, where a request stands, and what is left of a customer."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from c360.agents.erasure import ERASURES, KNOWN, Ordered, decode_command, encode_command, promise
from c360.agents.wire import decode_assignment
from c360.engine.transport import TP, Cluster
from c360.governance.certificate import Certificate, Policy, decode_certificate
from c360.governance.erasure import Erasure, Known, Stage, decode_erasure, decode_known, stage_of, waits_for
from c360.governance.names import is_veiled
from c360.ops.records import Message, records
from c360.plan import Plan, PlannedTopic
from c360.tables.rocks import SWEEP_S, entries_of


# ------------------------------------------------------------------------------------------------------------- asking
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


def message(plan: Plan, order: Ordered) -> Message:
    """The same as a record that is written with what the audit log is told."""
    return Message(plan.erasure_commands, None, encode_command(order), 0)


def named(plan: Plan, cluster: Cluster, ticket: str) -> str:
    """What the request of a ticket is called."""
    for offset, _, value in _read(plan.erasure_commands, cluster, [0]):
        if value is not None and ticket.encode() in value and decode_command(value).ticket == ticket:
            return f"{plan.erasure_commands}/0/{offset}"
    raise AssertionError("what was committed is not in its topic")


# ------------------------------------------------------------------------------------------------------ where it stands
class Where(NamedTuple):
    """A request as the agent's books have it. `waits`: who keeps it where it is."""

    erasure: Erasure
    stage: Stage
    waits: tuple[str, ...]


def certificate_of(plan: Plan, cluster: Cluster, request: str) -> Certificate | None:
    """The certificate of a request; None while there is none."""
    found = [value for _, key, value in _read(plan.erasures, cluster, [0]) if key == request.encode() and value]
    return decode_certificate(found[-1]) if found else None


def books(plan: Plan, cluster: Cluster) -> tuple[Known, dict[str, Erasure]]:
    """All requests, as the erasure agent has them."""
    rows: dict[bytes, bytes | None] = {}
    for _, key, value in _read(f"{plan.app}.erasure.changelog", cluster, [0]):
        if key is not None and key[:1] in (KNOWN, ERASURES):
            rows[key] = value
    known = rows.pop(KNOWN, None)
    found = [decode_erasure(row) for row in rows.values() if row is not None]
    return Known() if known is None else decode_known(known), {erasure.request: erasure for erasure in found}


def where(plan: Plan, cluster: Cluster, request: str) -> Where | None:
    """Where a request stands; None while the agent has not read it."""
    known, erasures = books(plan, cluster)
    erasure = erasures.get(request)
    return None if erasure is None else Where(erasure, stage_of(erasure, known), waits_for(erasure, known))


def request_of(plan: Plan, cluster: Cluster, veiled: str, label: str) -> str | None:
    """The newest request that names an identifier and is not lifted."""
    _, erasures = books(plan, cluster)
    found = [e for e in erasures.values() if e.identifier in (veiled, label) and not e.lifted]
    return max(found, key=lambda e: e.asked_at).request if found else None


# ------------------------------------------------------------------------------------------------------------ dry run
class Profile(NamedTuple):
    """Who goes with an identifier, by any rule set; and who holds it without being of the profile."""

    subjects: list[str]
    identifiers: list[str]
    beside: list[str]


def profile_of(plan: Plan, cluster: Cluster, label: str) -> Profile:
    """As the assignments have it now."""
    subjects, identifiers, beside = {label} if _is_subject(plan, label) else set[str](), {label}, set[str]()
    for identity in plan.identities:
        said = {}
        topic = plan.assignments(identity)
        for _, key, value in _read(topic, cluster, range(cluster.admin().topics().get(topic, 0))):
            assert key is not None
            said[key.decode()] = None if value is None else decode_assignment(value)
        live = {subject: found for subject, found in said.items() if found is not None}
        homes = {found.profile for subject, found in live.items() if label == subject or label in found.identifiers}
        for subject, found in live.items():
            if found.profile in homes:
                subjects.add(subject)
                identifiers.update(found.identifiers)
        # All of these are suppressed: what others say later of one of them is dropped, so they are named.
        beside.update(s for s, found in live.items() if any(held in identifiers for held, _ in found.deferred))
    return Profile(sorted(subjects), sorted(identifiers - subjects), sorted(beside - subjects))


def _is_subject(plan: Plan, label: str) -> bool:
    return label.partition(":")[0] in plan.subject_kinds


# -------------------------------------------------------------------------------------------------------------- check
class Place(NamedTuple):
    """A topic, or the state directory, and what of a customer stands in it.

    `ids`: how often, `values`: bytes of them, in what compaction leaves. `before`: how often either stands in what it removes.
    `promise`: what is to hold. `gone_by`: epoch ms; None: no bound.
    """

    place: str
    policy: Policy | None
    promise: str
    ids: int
    values: int
    before: int
    gone_by: int | None

    @property
    def holds(self) -> bool:
        if self.policy == "user":
            return True
        return not self.values and (self.policy == "delete" or not self.ids)


PROMISES: dict[Policy | None, str] = {
    "compact": "nothing after compaction",
    "delete": "nothing personal readable; open fields go with retention",
    "user": "the topic is yours: c360 leaves it as it is",
    None: "nothing, once the worker has swept it",
}
UNDECLARED = "nothing: the app declares no more what it is of, so nobody forgets there; delete it"
_OURS = re.compile(
    r"(.+\.)?(changelog|parts|questions)|(activation|assignments|governed|identity|identity-changes|links|outside)\..+"
)


def undeclared(plan: Plan, existing: Collection[str]) -> list[str]:
    """Topics that the app has written when it was declared otherwise, by their names, or as they have a changelog."""
    prefix = f"{plan.app}."
    others = sorted(name for name in set(existing) - {topic.name for topic in plan.topics} if name.startswith(prefix))
    return [n for n in others if _OURS.fullmatch(n.removeprefix(prefix)) or f"{n}.changelog" in existing]


def words_of(plan: Plan, cluster: Cluster, request: str | None, label: str) -> list[str]:
    """Clear identifiers of an erasure, as far as what was asked of others is still there (7 days)."""
    found = {label}
    partitions = range(cluster.admin().topics().get(plan.erase, 0))
    for _, key, value in _read(plan.erase, cluster, partitions):
        if request is not None and key is not None and value is not None and f'"{request}"'.encode() in value:
            found.add(key.decode())
    return sorted(found)


def check(
    plan: Plan, cluster: Cluster, ids: Sequence[str], values: Sequence[str], state_dir: Path | None, now_ms: int
) -> list[Place]:
    """Scan every topic of the app, also of what it declares no more, and the state directory, byte by byte.

    A token is what the suppression is written under: it may stand there, and in what the erasure agent keeps of it.
    """
    admin = cluster.admin()
    existing = admin.topics()
    planned = {topic.name: topic for topic in plan.topics if topic.name in existing}
    left = undeclared(plan, existing)
    configs = admin.topic_configs(sorted([*planned, *left]))
    may_keep_tokens = {plan.suppressed, plan.erasures, f"{plan.app}.erasure.changelog"}
    found = []
    for name in sorted([*planned, *left]):
        topic = planned.get(name) or PlannedTopic(name, "changelog", existing[name])
        said = promise(topic, configs.get(name, {}))
        here = [word.encode() for word in ids if not (name in may_keep_tokens and is_veiled(word))]
        latest: dict[Any, list[bytes]] = {}
        before = 0
        for offset, key, value, data in _whole(name, cluster, existing[name]):
            which = key if said.policy == "compact" else (offset, len(latest))
            if which in latest:
                before += _count(latest[which], [*here, *_bytes(values)])
            latest[which] = [] if value is None and said.policy == "compact" else [data]
        kept = [data for each in latest.values() for data in each]
        gone_by = None if said.ms < 0 else now_ms + said.ms
        numbers = _count(kept, here), _sizes(kept, _bytes(values)), before
        policy, promised = (said.policy, PROMISES[said.policy]) if name in planned else (None, UNDECLARED)
        found.append(Place(name, policy, promised, *numbers, gone_by))
    if state_dir is not None and state_dir.exists():
        clear = [word.encode() for word in ids if not is_veiled(word)]
        seen = standing = 0
        for data in _state_bytes(state_dir):
            seen += _count([data], clear)
            standing += _sizes([data], _bytes(values))
        found.append(Place(str(state_dir), None, PROMISES[None], seen, standing, 0, now_ms + round(SWEEP_S * 1000)))
    return found


def _state_bytes(state_dir: Path) -> Iterator[bytes]:
    """What files of a state directory hold: of RocksDB's tables each entry, as their blocks are compressed."""
    for path in sorted(state_dir.rglob("*")):
        if path.is_file() and path.suffix != ".sst":
            with suppress(FileNotFoundError):  # a worker is at work
                yield path.read_bytes()
    for directory in sorted({path.parent for path in state_dir.rglob("*.sst")}):
        for key, value in entries_of(directory):
            yield key + b"\0" + value


def _bytes(words: Iterable[str]) -> list[bytes]:
    return [word.encode() for word in words]


def _sizes(datas: Iterable[bytes], words: Sequence[bytes]) -> int:
    return sum(data.count(word) * len(word) for data in datas for word in words)


def _count(datas: Iterable[bytes], words: Sequence[bytes]) -> int:
    return sum(data.count(word) for data in datas for word in words)


def _whole(topic: str, cluster: Cluster, partitions: int) -> Iterator[tuple[int, bytes | None, bytes | None, bytes]]:
    """Offset, key, value, and all bytes of each record: its headers, too."""
    reader = cluster.reader()
    try:
        for batches in reader.read(reader.starts([TP(topic, p) for p in range(partitions)])):
            for batch in batches:
                for i, offset in enumerate(batch.offsets):
                    key, value = batch.keys[i], batch.values[i]
                    said = [part for name, data in batch.headers(i) for part in (name.encode(), data or b"")]
                    yield offset, key, value, b"\0".join([key or b"", value or b"", *said])
    finally:
        reader.close()


def _read(topic: str, cluster: Cluster, partitions: Iterable[int]) -> Iterator[tuple[int, bytes | None, bytes | None]]:
    """Offset, key and value of what a topic holds; nothing where there is no such topic yet."""
    tps = [TP(topic, p) for p in partitions]
    if not tps or cluster.admin().topics().get(topic) is None:
        return
    reader = cluster.reader()
    try:
        for _, offset, key, value in records(reader, reader.starts(tps)):
            yield offset, key, value
    finally:
        reader.close()
