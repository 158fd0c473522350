"""Rewind an agent safely: its tables, changelogs and positions begin again; nobody counts twice.

A command asks for it, the next worker begins it. Between the two nothing is destroyed, so that it can be undone. Each step is
in the agent's record in `{app}.control`, the journal, before it is taken; whoever is killed on the way is followed by the same
command, or by the next worker, which do the rest the same way: the targets are in the journal.

    nothing ──1──► resetting ──2──► reset ──3──► beginning ──4──► nothing
                       │              │
                       └──────────────┴──► undoing ──► nothing

1. refuse while the group has members, or while something downstream has read what would be written again; then the journal
2. move the group's offsets to where it will begin, but not those of what its own tasks have said: what they have not read is
   deleted below them. Now positions and offsets disagree, and no worker goes on with the old state
3. a worker starts. It ends what the last owners of the tasks have left open, truncates the changelogs, and writes the first
   records of the new life: `reset` (voids every local store), for a projection the digests of its output topic, for an identity
   who was assigned where. It alone does so: its producer fences any other's
4. it moves the offsets that were left, and in one transaction writes `positions` and takes the journal away

govern's output is emptied with its changelogs, before anybody can read it again: there the command takes all steps itself.

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
from collections.abc import Mapping
from dataclasses import dataclass, field

from c360.agents.control import ResetJournal
from c360.clock import system
from c360.engine.lag import NEAR, ends_of_records
from c360.engine.state import named, partitions_of
from c360.engine.transport import TP, Admin, Cluster, Reader
from c360.errors import Evicted, NeedsOperator, TransactionAborted, UsageError
from c360.governance.suppressed import decode_suppressed
from c360.ops import control
from c360.ops import journal as journals
from c360.ops.audit import Run, Told
from c360.ops.beginning import begin_life, changelogs, end_owners, refuse_unwritten
from c360.ops.beginning import first_records as first_records  # rebuilds begin a life so, too
from c360.ops.journal import command, loops_of, read_journal, refuse_active
from c360.ops.records import follow
from c360.ops.targets import EARLIEST, Target, histories, meaning, time_text
from c360.plan import Plan, PlannedAgent

NEVER = float("inf")


@dataclass(frozen=True)
class ResetPlan:
    """What a reset would do: per input from → to, what is cleared, what it will mean. Or what an `--undo` would.

    starts, begins: of inputs, the first retained offset and when that record was appended (ms, NEVER where there is none).
    lasting: why it cannot be undone. journal: of one that was begun before, and is to be finished.
    """

    agent: str
    group: str
    moves: dict[TP, tuple[int | None, int | None]]
    ends: dict[TP, int] = field(default_factory=dict)
    clears: tuple[str, ...] = ()
    records: int = 0
    notes: tuple[str, ...] = ()
    target: str = EARLIEST.text
    meaning: tuple[str, ...] = ()
    starts: Mapping[TP, int] = field(default_factory=dict)
    begins: Mapping[TP, float] = field(default_factory=dict)
    cut: Mapping[TP, int] = field(default_factory=dict)
    lasting: str = ""
    journal: ResetJournal | None = None


# -------------------------------------------------------------------------------------------------------------- looking
def plan_reset(
    plan: Plan, cluster: Cluster, agent_name: str, target: Target = EARLIEST, *, now_ms: int | None = None
) -> ResetPlan:
    """Look at what a reset would do. Raises UsageError for an unknown agent or a place that makes no sense for it,
    NeedsOperator when it is refused."""
    agent = plan.agent(agent_name)
    if agent_name == "erasure":
        raise NeedsOperator(
            "erasure is never reset: how often a customer was erased, and for which request they are suppressed, comes from no"
            " record that could be read again, so whom it forgot would come back. An empty C360_STATE_DIR is restored from"
            " its changelog; where the group's offsets were moved, `c360 worker --adopt` goes on from its state"
        )
    if any(outside.agent == agent_name for outside in plan.outsides):
        raise NeedsOperator(
            f"{agent_name} is never reset: it would ask again about everybody. What was answered is in {agent.group}, and is"
            " read by whatever is rebuilt; to ask sooner, give it a shorter refresh="
        )
    if not target.whole:
        _refuse_part(plan, agent, target)
    _refuse_beside(plan, cluster, agent_name)
    admin = cluster.admin()
    existing = admin.topics()
    journal = read_journal(plan, cluster, existing, agent_name)
    refuse_active(admin, agent)
    if journal is not None:
        return _planned_before(plan, cluster, agent, journal, target)
    if plan.governing(agent_name) is not None:
        if len(plan.governs) > 1:
            raise NeedsOperator(
                f"{agent.name} runs beside another version of govern, and they share the dead letters. Declare one more beside,"
                f" govern={(*plan.governs, max(plan.governs) + 1)} of the App, and take this one out"
            )
        refuse_after_lift(plan, cluster)
        _refuse_with_readers(plan, admin)
    inputs = _inputs(agent, existing)
    now = admin.group_offsets(agent.group)
    reader = cluster.reader()
    try:
        if agent_name == "consent":
            refuse_unwritten(plan, admin, reader)
        starts = reader.starts(inputs)
        # What its own tasks have said to each other. (Identity also takes back links, of who was erased: these are history.)
        said = reader.ends([tp for tp in inputs if tp.topic in loops_of(plan, agent)])
        begins = _firsts(reader, {tp: starts[tp] for tp in inputs if tp not in said})
        to = starts | said
        if agent_name == "consent":  # whom to forget was said once, and may have come back since
            to |= {tp: now[tp] for tp in inputs if tp.topic == plan.erase and now.get(tp, -1) > starts[tp]}
        cut, notes = dict[TP, int](), list[str]()
        if not target.whole:
            known = _Known(starts, reader.ends(inputs), begins, now, system() if now_ms is None else now_ms)
            cut, notes = _points(plan, agent, admin, known, target)
            to |= cut
        ends = ends_of_records(reader, to)
        since = _since(reader, starts, begins, cut, target)
    finally:
        reader.close()
    whole = sorted({tp.topic for tp in inputs if starts[tp] > 0 and tp not in said})
    for topic in whole:
        from_ = max(begins[tp] for tp in inputs if tp.topic == topic and starts[tp] > 0)
        when = "; nothing is left of it" if from_ == NEVER else f" ({time_text(from_)})"
        notes.append(f"{topic}: retention has cut its beginning; data is complete only from there{when}")
    derived = list(agent.writes) if plan.governing(agent_name) is not None else []
    clears = [*agent.changelogs, *derived]
    projection = next((p for p in plan.projections if p.agent == agent_name), None)
    return ResetPlan(
        agent_name,
        agent.group,
        {tp: (now.get(tp), to[tp]) for tp in inputs},
        ends,
        tuple(t for t in clears if t in existing),
        sum(ends[tp] - to[tp] for tp in inputs),
        tuple(notes),
        target.text,
        () if projection is None or not since else meaning(plan, projection, since),
        starts,
        begins,
        cut,
        f"{', '.join(derived)} are emptied" if derived else "",
    )


def plan_undo(plan: Plan, cluster: Cluster, agent_name: str) -> ResetPlan:
    """Look at what `--undo` would do. Raises UsageError for an unknown agent, NeedsOperator when it cannot be undone (any
    more)."""
    agent, admin = plan.agent(agent_name), cluster.admin()
    existing = admin.topics()
    journal = read_journal(plan, cluster, existing, agent_name)
    if journal is None:
        raise NeedsOperator(
            f"there is no reset of {agent_name} to undo: it was not reset, or has run since and goes on from there"
        )
    if plan.governing(agent_name) is not None:
        raise NeedsOperator(
            "a reset of govern empties what it wrote, and cannot be undone. Finish it:"
            f" {command(agent_name, journal.target)}"
        )
    if journal.step == "beginning":
        raise NeedsOperator(
            f"a worker has begun to run {agent_name} anew: what was before is gone. Start a worker, which goes on"
        )
    refuse_active(admin, agent)
    now, before = admin.group_offsets(agent.group), partitions_of(journal.before)
    places = dict.fromkeys([*now, *before])
    return ResetPlan(
        agent_name,
        agent.group,
        {tp: (now.get(tp), before.get(tp)) for tp in places},
        target="--undo",
        journal=journal,
    )


def _refuse_beside(plan: Plan, cluster: Cluster, agent: str) -> None:
    """A version that is being built begins anew by the command that builds it; one that is retired not at all."""
    for projection in plan.projections:
        if projection.agent == agent:
            stage = control.read(plan, cluster).stage(plan, projection.name, projection.version)
            if stage == "retired":
                raise NeedsOperator(f"{agent} is retired: there is nothing to reset")
            if stage in ("new", "building"):
                raise NeedsOperator(f"{agent} is not built yet. Build it: c360 rebuild {agent} --execute")


def _inputs(agent: PlannedAgent, existing: Mapping[str, int]) -> list[TP]:
    return [TP(t, p) for t in agent.reads for p in range(existing.get(t, 0))]


def _planned_before(
    plan: Plan, cluster: Cluster, agent: PlannedAgent, journal: ResetJournal, target: Target
) -> ResetPlan:
    """What is left of a reset that was begun, as it was planned then. Raises NeedsOperator for another than that."""
    to, ends = partitions_of(journal.to), partitions_of(journal.ends)
    asked = {tp: n for tp, n in (target.offsets or {}).items() if tp.topic in {tp.topic for tp in to}}
    histories_ = {tp.topic for tp in partitions_of(journal.cut)}
    if journal.step == "undoing":
        raise NeedsOperator(
            f"a reset of {agent.name} is half undone. Finish that: {command(agent.name, '--undo')}; then begin again"
        )
    if journal.target != target.text or any(to[tp] != n for tp, n in asked.items() if tp.topic in histories_):
        undo = "" if plan.governing(agent.name) is not None else f"; or undo it: {command(agent.name, '--undo')}"
        raise NeedsOperator(
            f"{agent.name} is being reset, to somewhere else. Finish that: {command(agent.name, journal.target)}, and run"
            f" its workers{undo}"
        )
    reader = cluster.reader()
    try:
        starts = reader.starts(list(to))
        begins = _firsts(reader, starts)
        since = _since(reader, starts, begins, partitions_of(journal.cut), target)
    finally:
        reader.close()
    projection = next((p for p in plan.projections if p.agent == agent.name), None)
    before = partitions_of(journal.before)
    return ResetPlan(
        agent.name,
        agent.group,
        {tp: (before.get(tp), n) for tp, n in to.items()},
        ends,
        tuple(journal.clears),
        sum(ends[tp] - n for tp, n in to.items()),
        (f"it was begun before ({journal.step}), and is finished as it was planned then",),
        journal.target,
        () if projection is None or not since else meaning(plan, projection, since),
        starts,
        begins,
        partitions_of(journal.cut),
        "what govern wrote is emptied" if plan.governing(agent.name) is not None else "",
        journal,
    )


# ---------------------------------------------------------------------------------------------------- a part of history
def _refuse_part(plan: Plan, agent: PlannedAgent, target: Target) -> None:
    """Who cannot begin in the middle, and why."""
    projection = next((p for p in plan.projections if p.agent == agent.name), None)
    if projection is not None:
        if not histories(plan, projection):
            raise UsageError(
                f"{agent.name} reads rows only, which are read whole: one that is taken back must have been added. Use"
                " --to-earliest"
            )
        return
    if plan.governing(agent.name) is not None:
        why = "govern would throw away what it governed before. Reset a projection to that point"
    elif agent.name == "consent":
        why = "consent keeps what is decided, whatever is read again, so a part of it says nothing new"
    elif any(i.agent == agent.name for i in plan.identities):
        why = f"{plan.links} says who is who, not what happened: of a part of it people would fall apart"
    else:
        why = f"{', '.join(t for t in agent.reads if t != plan.erase)} says how profiles are: who is not read would be removed"
    raise UsageError(f"{agent.name} cannot begin at a point ({target.text}): {why}. Use --to-earliest")


@dataclass(frozen=True)
class _Known:
    """Of inputs: first retained offset, end, when the first record was appended, and where the group stands; now, ms."""

    starts: Mapping[TP, int]
    ends: Mapping[TP, int]
    begins: Mapping[TP, float]
    group: Mapping[TP, int]
    now_ms: int


def _points(
    plan: Plan, agent: PlannedAgent, admin: Admin, known: _Known, target: Target
) -> tuple[dict[TP, int], list[str]]:
    """Where to begin in each history, and what to say of it. Raises NeedsOperator where that cannot be, UsageError for a
    partition that is not read."""
    projection = next(p for p in plan.projections if p.agent == agent.name)
    topics = histories(plan, projection)
    places = [tp for tp in known.starts if tp.topic in topics]
    notes = [
        f"times are those at which the broker appended records to {', '.join(topics)}, not their own: for these say since=…"
        " on attributes of a new version"
    ]
    if target.at_ms is not None:
        if target.at_ms > known.now_ms:
            raise NeedsOperator(f"{time_text(target.at_ms)} is in the future: there is nothing to begin from")
        for tp in places:
            if known.starts[tp] > 0 and known.begins[tp] > target.at_ms:
                raise _before_retention(tp, known)
        return admin.offsets_for_time(places, target.at_ms), notes
    if target.current:
        given = {tp: known.group.get(tp, known.starts[tp]) for tp in places}
    else:
        assert target.offsets is not None
        unknown = [f"{tp.topic}/{tp.partition}" for tp in target.offsets if tp not in known.starts]
        if unknown:
            raise UsageError(f"{agent.name} does not read {', '.join(unknown)}; it reads {', '.join(agent.reads)}")
        given = {tp: offset for tp, offset in target.offsets.items() if tp.topic in topics}
        for topic in {tp.topic for tp in given}:
            if missing := [tp.partition for tp in places if tp.topic == topic and tp not in given]:
                raise UsageError(
                    f"{target.text}: of {topic} partitions {', '.join(map(str, missing))} are missing: customers would be"
                    " folded from different points. Name all of a topic, or none"
                )
        whole = sorted({tp.topic for tp in target.offsets if tp.topic not in topics})
        notes = [f"{topic} is read whole, whatever offsets are said: it says how things are" for topic in whole]
    for tp, offset in given.items():
        if offset < known.starts[tp]:
            raise _before_retention(tp, known)
        if offset > known.ends[tp]:
            raise NeedsOperator(
                f"{tp.topic}/{tp.partition}: offset {offset} is after the end, which is {known.ends[tp]}"
            )
    return given, notes


def _before_retention(tp: TP, known: _Known) -> NeedsOperator:
    begins = known.begins[tp]
    when = "is empty" if begins == NEVER else f"has data from {time_text(begins)} on"
    return NeedsOperator(
        f"{tp.topic}/{tp.partition} begins at offset {known.starts[tp]} and {when}: retention has cut what was before. For all"
        " that is there: --to-earliest"
    )


def _since(
    reader: Reader, starts: Mapping[TP, int], begins: Mapping[TP, float], cut: Mapping[TP, int], target: Target
) -> dict[str, str]:
    """By topic of which a part is folded, or left: from when on all of it is."""
    since: dict[str, float] = {}
    for tp, begin in begins.items():
        if starts[tp] > 0 and begin != NEVER:
            since[tp.topic] = max(since.get(tp.topic, 0), begin)
    said = {topic: time_text(at) for topic, at in since.items()}
    for topic in {tp.topic for tp in cut}:
        if target.at_ms is not None:
            said[topic] = time_text(target.at_ms)
            continue
        places = [tp for tp in cut if tp.topic == topic]
        at = min(_firsts(reader, {tp: cut[tp] for tp in places}).values())
        said[topic] = "now" if at == NEVER else time_text(at)
        if all(cut[tp] == starts[tp] for tp in places):
            del said[topic]
    return said


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
        older = sorted({tp.topic for tp, at in _firsts(reader, reader.starts(raw)).items() if at < last})
    finally:
        reader.close()
    if older:
        raise NeedsOperator(
            f"{len(lifted)} identifiers were erased and lifted, and {', '.join(older)} still have records from before: govern"
            " would take them in again, as of the new life. Erase those customers again, or delete what was before the lift"
            " (kafka-delete-records); then again"
        )


def _firsts(reader: Reader, positions: Mapping[TP, int]) -> dict[TP, float]:
    """Of each partition when the first record from there on was appended, ms; NEVER where there is none."""
    found: dict[TP, float] = {}
    look, left, all_ends = NEAR, dict(positions), reader.ends(list(positions))
    while left:
        ends = {tp: min(all_ends[tp], offset + look) for tp, offset in left.items()}
        for batches in reader.read(left, ends):  # of many partitions at once: one by one each costs 30 ms
            for batch in batches:
                found.setdefault(batch.tp, batch.times[0])
        left = {tp: offset for tp, offset in left.items() if tp not in found and ends[tp] < all_ends[tp]}
        look *= 64
    return {tp: found.get(tp, NEVER) for tp in positions}


# ---------------------------------------------------------------------------------------------------- asked for, undone
def reset_told(
    plan: Plan, cluster: Cluster, agent_name: str, run: Run, target: Target = EARLIEST, *, now_ms: int | None = None
) -> ResetPlan:
    """Look, and do it, by a person: told in the audit log, also when it is refused."""
    told = Told("reset", after={"agent": plan.agent(agent_name).name, "target": target.text})
    with run.refusing(told):
        planned = plan_reset(plan, cluster, agent_name, target, now_ms=now_ms)
    with run.acting(_told(planned)):
        order_reset(plan, cluster, planned)
    return planned


def undo_told(plan: Plan, cluster: Cluster, agent_name: str, run: Run) -> ResetPlan:
    """The same of `--undo`."""
    told = Told("reset", after={"agent": plan.agent(agent_name).name, "target": "--undo"})
    with run.refusing(told):
        planned = plan_undo(plan, cluster, agent_name)
    with run.acting(_told(planned)):
        undo(plan, cluster, planned)
    return planned


def _told(planned: ResetPlan) -> Told:
    return Told(
        "reset",
        before={"positions": _positions({tp: now for tp, (now, _) in planned.moves.items()})},
        after={
            "agent": planned.agent,
            "target": planned.target,
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


def order_reset(plan: Plan, cluster: Cluster, planned: ResetPlan, *, life: int | None = None) -> None:
    """Do what a command does of it: steps 1 and 2, of govern all. May be repeated after a crash at any point.

    `life`: of identity, minutes since 1970; by the clock if None.
    """
    agent, admin = plan.agent(planned.agent), cluster.admin()
    journal = planned.journal
    if journal is None:
        # 1 what is open ends before it is written where everything stands; then the journal
        reader = cluster.reader()
        try:
            end_owners(cluster, reader, changelogs(agent, admin))
        finally:
            reader.close()
        now, stood = admin.group_offsets(agent.group), {tp: n for tp, (n, _) in planned.moves.items()}
        if any(now.get(tp) != offset for tp, offset in stood.items()):
            raise NeedsOperator(f"{agent.name} has gone on since it was looked at: nothing was changed. Run it again")
        now_us = time.time_ns() // 1000
        journal = ResetJournal(
            step="resetting",
            target=planned.target,
            incarnation=now_us,
            life=now_us // 60_000_000 if life is None else life,
            before=named({tp: now for tp, (now, _) in planned.moves.items() if now is not None}),
            to=named({tp: to for tp, (_, to) in planned.moves.items() if to is not None}),
            ends=named(planned.ends),
            clears=list(planned.clears),
            cut=named(planned.cut),
        )
        journals.write(plan, cluster, agent, journal)
    if plan.governing(planned.agent) is not None or journal.step == "beginning":
        begin_life(plan, cluster, agent.name, by_command=True)
        return
    if journal.step == "reset":
        return
    # 2 the group
    own = loops_of(plan, agent)
    try:
        admin.set_group_offsets(
            agent.group, {tp: to for tp, to in partitions_of(journal.to).items() if tp.topic not in own}
        )
    except NeedsOperator:  # somebody has come in between, and nothing was moved
        if planned.journal is None:
            journals.write(plan, cluster, agent, None)
        raise
    journals.write(plan, cluster, agent, journals.at(journal, "reset"))


def execute_reset(plan: Plan, cluster: Cluster, planned: ResetPlan, *, life: int | None = None) -> None:
    """All of it, also what is a worker's to do: for callers that have loops without one."""
    order_reset(plan, cluster, planned, life=life)
    begin_life(plan, cluster, planned.agent)


def undo(plan: Plan, cluster: Cluster, planned: ResetPlan) -> None:
    """Give the group its offsets back; nothing else was changed. May be repeated after a crash at any point.

    Raises NeedsOperator where a worker was faster.
    """
    agent, admin = plan.agent(planned.agent), cluster.admin()
    producer = cluster.producer(journals.fence(agent))
    try:
        journal = control.read(plan, cluster).reset(agent.name)
        if journal is None or journal.step == "beginning":
            raise NeedsOperator(f"a worker has begun to run {agent.name} anew: what was before is gone")
        journals.commit(producer, [journals.message(plan, agent, journals.at(journal, "undoing"))])
    except (Evicted, TransactionAborted) as error:
        raise NeedsOperator(f"a worker begins to run {agent.name} anew just now: nothing was undone") from error
    finally:
        producer.close()
    before = partitions_of(journal.before)
    if admin.group_offsets(agent.group).keys() - before.keys():
        admin.delete_group(agent.group)  # an offset cannot be taken back alone
    admin.set_group_offsets(agent.group, before)
    if (found := admin.group_offsets(agent.group)) != before:
        raise NeedsOperator(
            f"the group {agent.group} is to stand at {_positions(before)}, and stands at {_positions(found)}: somebody else"
            f" moves it. Stop that, then: {command(agent.name, '--undo')}"
        )
    journals.write(plan, cluster, agent, None)
