"""Rewind an agent safely: its tables, changelogs and positions begin again; nobody counts twice.

In numbered steps, in an order in which a crash leaves a state that workers refuse to start from and that the same
command finishes:

1. refuse while the group has members, or while something downstream has read what would be written again;
2. truncate the changelogs: no record of before is left, and a worker finds them empty while the group has offsets;
3. write the first records of the new life: `reset` (voids every local store), for a projection the digests of its
   output topic, then `positions`;
4. move the group's offsets. Now positions and offsets agree, and a worker may start.

A projection writes nothing until it has caught up with where the inputs ended at the reset; then it writes each profile
that is not as in the output topic, and removes those that are no more. Readers never see customers vanish and return.

Identity does so, too: it reads the links again, and what nodes said to each other before never, as that was said by nodes
that are no more; it publishes when what follows from those links has come to rest. Its numbers go on above those of before,
because its life is in them (docs/decisions/0013).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from c360.agents.identity import LIFE, SENT, Sent, encode_sent
from c360.agents.projection import PROFILES, ProfileCodec, ProfileState
from c360.agents.wire import decode_assignment
from c360.declare import ProjectionDeclaration
from c360.engine.state import POSITIONS, RESET, encode_positions, encode_reset
from c360.engine.transport import TP, Admin, Cluster, Reader
from c360.errors import NeedsOperator
from c360.ops.records import records
from c360.plan import Identity, Plan, PlannedAgent
from c360.profile.fold import Folding
from c360.profile.format import digest_of


@dataclass(frozen=True)
class ResetPlan:
    """What a reset would do: per input from → to, what is cleared, and what stands in its way."""

    agent: str
    group: str
    moves: dict[TP, tuple[int | None, int]]
    ends: dict[TP, int]
    clears: tuple[str, ...]
    records: int
    notes: tuple[str, ...]


def plan_reset(plan: Plan, cluster: Cluster, agent_name: str) -> ResetPlan:
    """Look at what `--to-earliest` would do. Raises UsageError for an unknown agent, NeedsOperator when it is refused."""
    agent = plan.agent(agent_name)
    admin = cluster.admin()
    existing = admin.topics()
    members = admin.group_members(agent.group)
    if members:
        raise NeedsOperator(
            f"{agent_name} is running: its group {agent.group} has {members} members. Stop its workers first"
        )
    if agent_name == "govern":
        _refuse_with_readers(plan, admin)
    inputs = [TP(t, p) for t in agent.reads for p in range(existing.get(t, 0))]
    reader = cluster.reader()
    try:
        starts = reader.starts(inputs)
        said = reader.ends([tp for tp in inputs if tp.topic in agent.writes])
        starts |= said
        ends = _ends_of_records(reader, starts)
    finally:
        reader.close()
    now = admin.group_offsets(agent.group)
    moves = {tp: (now.get(tp), starts[tp]) for tp in inputs}
    cut = sorted({tp.topic for tp in inputs if starts[tp] > 0 and tp not in said})
    notes = [f"{topic}: retention has cut its beginning; data is complete only from there" for topic in cut]
    derived = [*(plan.governed(s) for s in plan.sources), plan.dlq] if agent_name == "govern" else []
    clears = [*agent.changelogs, *derived]
    return ResetPlan(
        agent_name,
        agent.group,
        moves,
        ends,
        tuple(t for t in clears if t in existing),
        sum(ends[tp] - starts[tp] for tp in inputs),
        tuple(notes),
    )


def _ends_of_records(reader: Reader, starts: dict[TP, int]) -> dict[TP, int]:
    """The offset after each partition's last record. What is beyond are marks of transactions, which nobody reads."""
    ends, found, look = reader.ends(list(starts)), dict(starts), 64
    open_ = {tp for tp in starts if ends[tp] > starts[tp]}
    while open_:
        begin = {tp: max(starts[tp], ends[tp] - look) for tp in open_}
        for batches in reader.read(begin, {tp: ends[tp] for tp in open_}):
            for batch in batches:
                found[batch.tp] = batch.offsets[-1] + 1
        open_ = {tp for tp in open_ if found[tp] == starts[tp] and begin[tp] > starts[tp]}
        look *= 64
    return found


def _refuse_with_readers(plan: Plan, admin: Admin) -> None:
    for agent in plan.agents:
        if agent.name != "govern" and any(n > 0 for n in admin.group_offsets(agent.group).values()):
            raise NeedsOperator(
                f"{agent.name} has read what govern wrote and would see every record twice. Build beside instead: a new"
                f" App name over the same raw topics; or give {agent.name} up and delete its group {agent.group} first"
            )


def execute_reset(plan: Plan, cluster: Cluster, reset: ResetPlan, *, life: int | None = None) -> None:
    """Do it. May be repeated after a crash at any point. `life`: of identity, minutes since 1970 if it is not given."""
    agent = plan.agent(reset.agent)
    admin, reader = cluster.admin(), cluster.reader()
    try:
        # 2 truncate
        cleared = [TP(t, p) for t in reset.clears for p in range(admin.topics()[t])]
        admin.delete_records(reader.ends(cleared))
        # 3 the first records of the new life
        projection = next((p for p in plan.projections if p.agent == reset.agent), None)
        producer = cluster.producer()
        incarnation = encode_reset(time.time_ns() // 1000)
        positions = {tp: to for tp, (_, to) in reset.moves.items()}
        digests = _digests(plan, projection, admin, reader) if projection is not None else {}
        identity = next((i for i in plan.identities if i.agent == reset.agent), None)
        life = int(time.time() // 60) if life is None else life
        if identity is not None:
            digests, newest = _sent(plan, identity, admin, reader)
            life = max(life, newest + 1)
        for log in (tp for tp in cleared if tp.topic in agent.changelogs):
            own = {tp: n for tp, n in positions.items() if _belongs(plan, agent, tp, log)}
            notes: dict[str, Any] = {}
            if projection is not None or identity is not None:
                notes["catch_up"] = {
                    f"{tp.topic}/{tp.partition}": reset.ends[tp] for tp in own if reset.ends[tp] > own[tp]
                }
            if identity is not None:
                notes |= {"life": life, "settling": {}}
            producer.produce(log.topic, RESET, incarnation, log.partition)
            for key, state in digests.get(log.partition, {}).items():
                producer.produce(log.topic, key, state, log.partition)
            producer.produce(log.topic, POSITIONS, encode_positions(own, agent.fingerprint, notes), log.partition)
        producer.flush()
        producer.close()
        # 4 the group
        admin.set_group_offsets(agent.group, positions)
    finally:
        reader.close()


def _belongs(plan: Plan, agent: PlannedAgent, tp: TP, log: TP) -> bool:
    """Whether an input is of the task that this changelog partition holds."""
    if tp.partition != log.partition:
        return False
    if agent.name != "govern":
        return True
    source = next(s for s in plan.sources if plan.govern_changelog(s) == log.topic)
    return tp.topic in (source.topic, plan.replay(source), plan.truncates(source))


def _digests(
    plan: Plan, projection: ProjectionDeclaration, admin: Admin, reader: Reader
) -> Mapping[int, Mapping[bytes, bytes]]:
    """By partition: states without records, but with the digest of what the output topic holds for their profile."""
    folding = Folding(projection.attributes)
    codec = ProfileCodec(folding)
    topic = plan.projected(projection)
    found: dict[int, dict[bytes, bytes]] = {}
    partitions = [TP(topic, p) for p in range(admin.topics().get(topic, 0))]
    for tp, _, key, value in records(reader, reader.starts(partitions)):
        assert key is not None
        held = found.setdefault(tp.partition, {})
        if value is None:
            held.pop(PROFILES + key, None)
        else:
            held[PROFILES + key] = codec.encode(ProfileState(folding.empty(), digest_of(value)))
    return found


def _sent(
    plan: Plan, identity: Identity, admin: Admin, reader: Reader
) -> tuple[Mapping[int, Mapping[bytes, bytes]], int]:
    """By partition: what the assignments topic holds of each subject; and the latest life that wrote there."""
    topic = plan.assignments(identity)
    found: dict[int, dict[bytes, bytes]] = {}
    newest = -1
    partitions = [TP(topic, p) for p in range(admin.topics().get(topic, 0))]
    for tp, _, key, value in records(reader, reader.starts(partitions)):
        assert key is not None
        held = found.setdefault(tp.partition, {})
        held.pop(SENT + key, None)
        if value is not None:
            said = decode_assignment(value)
            held[SENT + key] = encode_sent(Sent(said.profile, said.was))
            newest = max(newest, said.seq >> LIFE)
    return found, newest
