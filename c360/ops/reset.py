"""Rewind an agent safely: its tables, changelogs and positions begin again; nobody counts twice.

In numbered steps, in an order in which a crash leaves a state that workers refuse to start from and that the same
command finishes:

1. refuse while the group has members, or while something downstream has read what would be written again;
2. truncate the changelogs: no record of before is left, and a worker finds them empty while the group has offsets;
3. write the first records of the new life: `reset` (voids every local store), for a projection the digests of its
   output topic, for an identity who was assigned where, then `positions`;
4. move the group's offsets. Now positions and offsets agree, and a worker may start.

A projection writes nothing until it has caught up with where the inputs ended at the reset; then it writes each profile
that is not as in the output topic, and removes those that are no more. Readers never see customers vanish and return. So it
is with a door; what somebody forbids meanwhile it takes back as soon as it has read who that is.

Identity does so, too: it reads the links again, and what nodes said to each other before never, as that was said by nodes
that are no more; it publishes when what follows from those links has come to rest. Its numbers go on above those of before,
because its life is in them (docs/decisions/0013).

Consent keeps what it knows: it is written as the beginning of the new life, out of `{app}.consent`, and what is read again is
joined to it. So a refusal that retention has cut is not lost, and nothing that is old is said again. `{app}.consent` itself is
not touched, nor are the suppressed table, keys and the fence by any reset: what doors look at is whole at every step, and as
consent does not run, the fence shuts by itself.

Erasure is not reset at all.

Messages between tasks are not history: they say what tasks knew that are no more. `parts` is read on from its end; who is
to hold what is said anew by the homes, as they read assignments and records again. Until the last partition has caught up,
a profile of several may be written without members who are told of later.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from c360.agents import door as doors
from c360.agents import identity as identities
from c360.agents.anew import OUTPUT
from c360.agents.consent import CONSENTS, NOW, Held, encode_held
from c360.agents.profiles import PROFILES, notes_of_reset, written_before
from c360.agents.wire import decode_assignment
from c360.engine.lag import ends_of_records
from c360.engine.restore import last_positions
from c360.engine.state import POSITIONS, RESET, encode_positions, encode_reset
from c360.engine.transport import TP, Admin, Cluster, Producer, Reader
from c360.errors import NeedsOperator
from c360.governance.consent import decode_state
from c360.governance.suppressed import decode_suppressed
from c360.identity.facts import OPERATORS, decode_fact
from c360.ops.audit import Run, Told
from c360.ops.records import follow, records
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
    if agent_name == "erasure":
        raise NeedsOperator(
            "erasure is never reset: how often a customer was erased, and for which request they are suppressed, comes from no"
            " record that could be read again, so whom it forgot would come back. An empty C360_STATE_DIR is restored from"
            " its changelog; where the group's offsets were moved, `c360 worker --adopt` goes on from its state"
        )
    admin = cluster.admin()
    existing = admin.topics()
    members = admin.group_members(agent.group)
    if members:
        raise NeedsOperator(
            f"{agent_name} is running: its group {agent.group} has {members} members. Stop its workers first"
        )
    if (view := plan.governing(agent_name)) is not None:
        if len(plan.governs) > 1:
            raise NeedsOperator(
                f"{agent.name} runs beside another version of govern, and they share the dead letters. Declare one more beside,"
                f" govern={(*plan.governs, max(plan.governs) + 1)} of the App, and take this one out"
            )
        plan = view
        refuse_after_lift(plan, cluster)
        _refuse_with_readers(plan, admin)
    inputs = [TP(t, p) for t in agent.reads for p in range(existing.get(t, 0))]
    links = {view.links for view in plan.views}
    reader = cluster.reader()
    try:
        if agent_name == "consent":
            _refuse_unwritten(plan, admin, reader)
        starts = reader.starts(inputs)
        # What its own tasks have said to each other. (Identity also takes back links, of who was erased: these are history.)
        said = reader.ends([tp for tp in inputs if tp.topic in agent.writes and tp.topic not in links])
        starts |= said
        now = admin.group_offsets(agent.group)
        if agent_name == "consent":  # whom to forget was said once, and may have come back since
            starts |= {tp: now[tp] for tp in inputs if tp.topic == plan.erase and now.get(tp, -1) > starts[tp]}
        ends = ends_of_records(reader, starts)
    finally:
        reader.close()
    moves = {tp: (now.get(tp), starts[tp]) for tp in inputs}
    cut = sorted({tp.topic for tp in inputs if starts[tp] > 0 and tp not in said})
    notes = [f"{topic}: retention has cut its beginning; data is complete only from there" for topic in cut]
    derived = list(agent.writes) if view is not None else []
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


def _refuse_unwritten(plan: Plan, admin: Admin, reader: Reader) -> None:
    """What consent knows is taken out of its topic; if that was made anew, it is in the changelog only, which is cleared."""
    (log,) = plan.agent("consent").changelogs
    said = last_positions(reader, TP(log, 0)) if log in admin.topics() else None
    noted = None if said is None else said.notes.get(OUTPUT)
    if noted and noted != admin.topic_ids([plan.consent]).get(plan.consent):
        raise NeedsOperator(
            f"{plan.consent} was deleted since the consent agent ran last, and what was decided is not in it any more. Let"
            " `c360 worker --only consent` run until `c360 verify consent` is content: it writes all of it again; then reset"
        )


def _refuse_with_readers(plan: Plan, admin: Admin) -> None:
    for agent in plan.agents:
        if plan.governing(agent.name) is None and any(n > 0 for n in admin.group_offsets(agent.group).values()):
            raise NeedsOperator(
                f"{agent.name} has read what govern wrote and would see every record twice. Run another version beside instead,"
                f" App({plan.app!r}, govern={(*plan.governs, max(plan.governs) + 1)}) (docs/operations.md), or give"
                f" {agent.name} up and delete its group {agent.group} first"
            )


def refuse_after_lift(plan: Plan, cluster: Cluster) -> None:
    """What was sent before an erasure is void for ever, and a raw record does not say of which life it is."""
    if not plan.erases:
        return
    reader = cluster.reader()
    try:
        places = [TP(plan.suppressed, p) for p in range(cluster.admin().topics().get(plan.suppressed, 0))]
        found = dict[bytes, bytes]()
        follow(reader, reader.starts(places), found)
        lifted = [read for value in found.values() if not (read := decode_suppressed(value)).stands]
        if not lifted:
            return
        last = max(hold.lifted for read in lifted for hold in read.holds.values())
        raw = [TP(s.topic, p) for s in plan.sources for p in range(cluster.admin().topics().get(s.topic, 0))]
        older = sorted({tp.topic for tp in raw if _first(reader, tp) < last})
    finally:
        reader.close()
    if older:
        raise NeedsOperator(
            f"{len(lifted)} identifiers were erased and lifted, and {', '.join(older)} still have records from before: govern"
            " would take them in again, as of the new life. Erase those customers again, or delete what was before the lift"
            " (kafka-delete-records); then again"
        )


def _first(reader: Reader, tp: TP) -> float:
    """When the first record that is there was appended, ms; of none: never."""
    for batches in reader.read(reader.starts([tp])):
        for batch in batches:
            return batch.times[0]
    return float("inf")


def reset_told(plan: Plan, cluster: Cluster, agent_name: str, run: Run) -> ResetPlan:
    """Look, and do it, by a person: told in the audit log, also when it is refused."""
    told = Told("reset", after={"agent": plan.agent(agent_name).name})
    with run.refusing(told):
        planned = plan_reset(plan, cluster, agent_name)
    with run.acting(_told(planned)):
        execute_reset(plan, cluster, planned)
    return planned


def _told(planned: ResetPlan) -> Told:
    return Told(
        "reset",
        before={"positions": _positions({tp: now for tp, (now, _) in planned.moves.items()})},
        after={
            "agent": planned.agent,
            "positions": _positions({tp: to for tp, (_, to) in planned.moves.items()}),
            "clears": ", ".join(planned.clears),
        },
    )


def _positions(offsets: Mapping[TP, int | None]) -> str:
    """Per topic the offsets of its partitions in order, `-` for none: "web.clicks 12 7 -, crm.customers 4"."""
    by_topic: dict[str, list[str]] = {}
    for tp, offset in sorted(offsets.items()):
        by_topic.setdefault(tp.topic, []).append("-" if offset is None else str(offset))
    return ", ".join(f"{topic} {' '.join(said)}" for topic, said in by_topic.items())


def execute_reset(plan: Plan, cluster: Cluster, reset: ResetPlan, *, life: int | None = None) -> None:
    """Do it. May be repeated after a crash at any point. `life`: of identity, minutes since 1970; by the clock if None."""
    agent = plan.agent(reset.agent)
    admin, reader = cluster.admin(), cluster.reader()
    try:
        # 2 truncate
        cleared = [TP(t, p) for t in reset.clears for p in range(admin.topics()[t])]
        cut = reader.ends(cleared)
        if plan.links in reset.clears:
            _say_again(cluster, reader, {tp: cut[tp] for tp in cleared if tp.topic == plan.links})
        admin.delete_records(cut)
        # 3 the first records of the new life
        projection = next((p for p in plan.projections if p.agent == reset.agent), None)
        producer = cluster.producer()
        incarnation = encode_reset(time.time_ns() // 1000)
        positions = {tp: to for tp, (_, to) in reset.moves.items()}
        before: Mapping[int, Mapping[bytes, bytes]] = {}
        if projection is not None:
            folding = Folding(projection.attributes)
            topic = plan.projected(projection)
            before = _digests(topic, PROFILES, lambda digest: written_before(folding, digest), admin, reader)
        door = next((d for d in plan.doors if d.agent == reset.agent), None)
        if door is not None:
            before = _digests(plan.leaves(door), doors.HELD, doors.held_before, admin, reader)
        identity = next((i for i in plan.identities if i.agent == reset.agent), None)
        life = time.time_ns() // 60_000_000_000 if life is None else life
        if identity is not None:
            life, before = _assigned(plan, identity, admin, reader, life)
        if reset.agent == "consent":
            asked = any(reset.ends[tp] > to for tp, to in positions.items() if tp.topic == plan.erase)
            before = _decided(plan, admin, reader, life=0 if asked else NOW)
        for log in (tp for tp in cleared if tp.topic in agent.changelogs):
            own = {tp: n for tp, n in positions.items() if _belongs(plan, agent, tp, log)}
            upto = {f"{tp.topic}/{tp.partition}": reset.ends[tp] for tp in own if reset.ends[tp] > own[tp]}
            notes: dict[str, Any] = {}
            if projection is not None:
                notes = notes_of_reset(upto)
            elif reset.agent == "consent":  # what is known was taken out of this one
                notes = {OUTPUT: admin.topic_ids([plan.consent]).get(plan.consent, "")}
            elif identity is not None:
                notes = identities.notes_of_reset(life, upto)
            elif door is not None:
                notes = doors.notes_of_reset(
                    {name: end for name, end in upto.items() if not name.startswith(plan.erase)}
                )
            first = encode_positions(own, agent.fingerprint, notes)
            first_records(producer, log, incarnation, before.get(log.partition, {}), first)
        producer.flush()
        producer.close()
        # 4 the group
        admin.set_group_offsets(agent.group, positions)
    finally:
        reader.close()


def first_records(
    producer: Producer, log: TP, incarnation: bytes, rows: Mapping[bytes, bytes], positions: bytes
) -> None:
    """How a life begins in a partition of a changelog: what was before is void, what is known already, where it begins."""
    producer.produce(log.topic, RESET, incarnation, log.partition)
    for key, state in rows.items():
        producer.produce(log.topic, key, state, log.partition)
    producer.produce(log.topic, POSITIONS, positions, log.partition)


def _say_again(cluster: Cluster, reader: Reader, ends: Mapping[TP, int]) -> None:
    """What operators have said of who is who, and why, comes from no record: it is said again behind the ends."""
    producer = cluster.producer()
    for batches in reader.read(reader.starts(list(ends)), ends):
        for batch in batches:
            for i, (key, value) in enumerate(zip(batch.keys, batch.values, strict=True)):
                if key is not None and value is not None and _is_of_operators(key, value):
                    producer.produce(batch.tp.topic, key, value, batch.tp.partition, batch.headers(i))
    producer.flush()
    producer.close()


def _is_of_operators(key: bytes, value: bytes) -> bool:
    try:
        return decode_fact(key, value).source == OPERATORS
    except ValueError:  # no fact: the agent has put it aside
        return False


def _belongs(plan: Plan, agent: PlannedAgent, tp: TP, log: TP) -> bool:
    """Whether an input is of the task that this changelog partition holds."""
    if agent.name == "consent":  # one task for all
        return True
    if tp.partition != log.partition:
        return False
    if (view := plan.governing(agent.name)) is None:
        return True
    plan = view
    source = next(s for s in plan.sources if plan.govern_changelog(s) == log.topic)
    return tp.topic in (source.topic, plan.replay(source), plan.truncates(source))


def _digests(
    topic: str, table: bytes, row_of: Callable[[bytes], bytes], admin: Admin, reader: Reader
) -> Mapping[int, Mapping[bytes, bytes]]:
    """By partition: states without records, but with the digest of what the output topic holds for their profile."""
    found: dict[int, dict[bytes, bytes]] = {}
    partitions = [TP(topic, p) for p in range(admin.topics().get(topic, 0))]
    for tp, _, key, value in records(reader, reader.starts(partitions)):
        assert key is not None
        held = found.setdefault(tp.partition, {})
        if value is None:
            held.pop(table + key, None)
        else:
            held[table + key] = row_of(digest_of(value))
    return found


def _decided(plan: Plan, admin: Admin, reader: Reader, *, life: int) -> Mapping[int, Mapping[bytes, bytes]]:
    """What is known of identifiers, in the one partition of the changelog.

    Where somebody is still to be forgotten, what is known of whoever was ever erased is of a life that may be over.
    """
    partitions = [TP(plan.consent, p) for p in range(admin.topics().get(plan.consent, 0))]
    found: dict[bytes, bytes] = {}
    for _, _, key, value in records(reader, reader.starts(partitions)):
        assert key is not None
        if value is None:
            found.pop(CONSENTS + key, None)
        else:
            found[CONSENTS + key] = encode_held(Held(life, decode_state(value)))
    return {0: found}


def _assigned(
    plan: Plan, identity: Identity, admin: Admin, reader: Reader, life: int
) -> tuple[int, Mapping[int, Mapping[bytes, bytes]]]:
    """The life that begins, and by partition what was assigned before. Lives are minutes, or more where they are short."""
    topic = plan.assignments(identity)
    found: dict[int, dict[bytes, bytes]] = {}
    partitions = [TP(topic, p) for p in range(admin.topics().get(topic, 0))]
    for tp, _, key, value in records(reader, reader.starts(partitions)):
        assert key is not None
        held = found.setdefault(tp.partition, {})
        if value is None:
            held.pop(identities.SENT + key, None)
            continue
        said = decode_assignment(value)
        life = max(life, identities.life_after(said.seq))
        row, state = identities.sent_before(key, said)
        held[row] = state
    return life, found
