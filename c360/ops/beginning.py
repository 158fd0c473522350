"""The first records of a new life: what a worker does when it starts an agent that was reset (`c360.ops.reset`).

Knows how each kind of agent begins anew; not who has asked for it, nor where to.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from c360.agents import door as doors
from c360.agents import identity as identities
from c360.agents.anew import OUTPUT
from c360.agents.consent import CONSENTS, NOW, Held, encode_held
from c360.agents.control import Controls, Logic, ResetJournal, encode, logic_key
from c360.agents.profiles import PROFILES, notes_of_reset, written_before
from c360.agents.wire import decode_assignment
from c360.declare import ProjectionDeclaration
from c360.engine.restore import PATIENCE_S, last_positions, where_cut
from c360.engine.state import POSITIONS, RESET, decode_positions, encode_positions, encode_reset, named, partitions_of
from c360.engine.transport import TP, Admin, Cluster, Producer, Reader
from c360.errors import BrokerAway, Evicted, Fenced, NeedsOperator, OutcomeUnknown, OutOfLog, TransactionAborted
from c360.governance.consent import decode_state
from c360.identity.facts import OPERATORS, decode_fact
from c360.ops import control
from c360.ops import journal as journals
from c360.ops.journal import command, commit, fence, refuse_active
from c360.ops.records import Message, records
from c360.plan import Identity, Plan, PlannedAgent
from c360.profile.fold import Folding
from c360.profile.format import digest_of

log = logging.getLogger("c360.reset")

CHUNK = 5_000  # records of one transaction: it is over long before the broker ends it
TRIES = 3
LOOK_S = 0.5
OTHERS_S = 30.0  # so long another worker is let begin; twice as long each time it has not


def begin_lives(
    plan: Plan,
    cluster: Cluster,
    controls: Controls,
    names: Sequence[str],
    stopped: Callable[[], bool] = lambda: False,
    *,
    patience_s: float = 0.0,
) -> bool:
    """At the start of a worker: begin what was asked for of these agents. Whether there was anything.

    `patience_s`: how long one that is half reset is waited for, as the command may be at it just now; and members of its group.
    Raises NeedsOperator where one of them, or what it reads, stays half reset.
    """
    until, waited = time.monotonic() + patience_s, False
    while half := _half_reset(plan, controls, names):
        if stopped():
            return waited
        if time.monotonic() >= until:
            raise NeedsOperator(half)
        if not waited:
            log.info("waiting, as a command may be at it: %s", half)
        waited = True
        time.sleep(LOOK_S)
        controls = control.read(plan, cluster)
    chosen = [name for name in names if name in controls.resets]
    for name in chosen:
        begin_life(plan, cluster, name, stopped=stopped, patience_s=patience_s)
    return waited or bool(chosen)


def _half_reset(plan: Plan, controls: Controls, names: Sequence[str]) -> str:
    """Which of them, or of what they read, is half reset, and what to do; "" where none is."""
    for name, journal in controls.resets.items():
        reading = [n for n in names if n == name or set(plan.agent(n).reads) & set(journal.clears)]
        if reading and journal.step not in ("reset", "beginning"):
            undo = "" if plan.governing(name) is not None else f"; or go back: {command(name, '--undo')}"
            return (
                f"{name} is half reset ({journal.step}), so {reading[0]} does not start. Finish it:"
                f" {command(name, '--undo' if journal.step == 'undoing' else journal.target)}"
                f"{undo if journal.step == 'resetting' else ''}"
            )
    return ""


def begin_life(
    plan: Plan,
    cluster: Cluster,
    agent_name: str,
    *,
    by_command: bool = False,
    stopped: Callable[[], bool] = lambda: False,
    patience_s: float = 0.0,
) -> None:
    """Steps 3 and 4, if they are to be taken. Returns when they have been, by whomever, or when stopped.

    `patience_s`: how long members of its group are waited for: who joined before it was asked for may not go on, and leaves.
    """
    agent, others_s, tries, left_by = plan.agent(agent_name), OTHERS_S, TRIES, time.monotonic() + patience_s
    while not stopped():
        producer: Producer | None = None
        try:
            # Ends what one that was killed has left open, also in the journal
            producer = cluster.producer(fence(agent))
            journal = control.read(plan, cluster).reset(agent_name)
            if journal is not None:
                _begin(plan, cluster, producer, agent, journal, by_command=by_command)
            return
        except (TransactionAborted, OutcomeUnknown, OutOfLog):  # the last: one that is fenced by now has deleted, late
            tries -= 1
            if not tries:
                raise
        except NeedsOperator:
            if control.read(plan, cluster).reset(agent_name) is None:  # others have begun it, and run it already
                return
            if time.monotonic() >= left_by or not _has_members(cluster, agent):
                raise
            time.sleep(LOOK_S)
        except Evicted:  # another worker is at it
            until = time.monotonic() + others_s
            while time.monotonic() < until and not stopped() and control.read(plan, cluster).reset(agent_name):
                time.sleep(LOOK_S)
            others_s *= 2
        finally:
            if producer is not None:
                producer.close()


def _has_members(cluster: Cluster, agent: PlannedAgent) -> bool:
    admin = cluster.admin()
    try:
        return admin.group_members(agent.group) > 0
    finally:
        admin.close()


def _begin(
    plan: Plan, cluster: Cluster, producer: Producer, agent: PlannedAgent, journal: ResetJournal, *, by_command: bool
) -> None:
    if not by_command and journal.step not in ("reset", "beginning"):
        raise NeedsOperator(f"{agent.name} is half reset. Finish it: {command(agent.name, journal.target)}")
    admin, reader = cluster.admin(), cluster.reader()
    try:
        refuse_active(admin, agent)
        if agent.name == "consent" and journal.step == "reset":
            refuse_unwritten(plan, admin, reader)
        # 3 the first records, instead of all that was. Up to where that is decided while nobody else is at it: deleting is not
        # fenced, and may come late
        cleared = [TP(t, p) for t in journal.clears for p in range(admin.topics().get(t, 0))]
        cut = reader.ends(cleared)
        log.info("%s begins anew (%s)", agent.name, journal.target)
        mine = journal if journal.step == "resetting" else journals.at(journal, "beginning")
        commit(producer, [journals.message(plan, agent, mine)])
        logs = changelogs(agent, admin)
        end_owners(cluster, reader, logs)
        first = _first_records(plan, agent, admin, reader, journal)
        if plan.links in journal.clears:
            _say_again(cluster, reader, {tp: cut[tp] for tp in cleared if tp.topic == plan.links})
        admin.delete_records(cut)
        for chunk in _chunks(first.rows(logs, journal.incarnation)):
            commit(producer, chunk)
        # 4 the offsets that were left, and the end
        admin.set_group_offsets(agent.group, partitions_of(journal.to))
        last = [Message(at.topic, POSITIONS, first.positions(at), at.partition) for at in logs]
        if agent.logic:
            last.append(Message(plan.control, logic_key(agent.name), encode(Logic(list(agent.logic))), 0))
        commit(producer, [*last, journals.message(plan, agent, None)])
    except Exception:
        with suppress(Exception):  # what holds readers back is ended; if not, by the next producer of this id
            producer.abort()
        raise
    finally:
        reader.close()


def first_records(
    producer: Producer, log: TP, incarnation: bytes, rows: Mapping[bytes, bytes], positions: bytes
) -> None:
    """How a life begins in a partition of a changelog: what was before is void, what is known already, where it begins.

    For whoever needs no fence, as nobody can have begun it: a version that is built.
    """
    producer.produce(log.topic, RESET, incarnation, log.partition)
    for key, state in rows.items():
        producer.produce(log.topic, key, state, log.partition)
    producer.produce(log.topic, POSITIONS, positions, log.partition)


def _chunks(messages: Iterator[Message]) -> Iterator[list[Message]]:
    chunk: list[Message] = []
    for message in messages:
        chunk.append(message)
        if len(chunk) == CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def refuse_unwritten(plan: Plan, admin: Admin, reader: Reader) -> None:
    """What consent knows is taken out of its topic; if that was made anew, it is in the changelog only, which is cleared."""
    (log,) = plan.agent("consent").changelogs
    said = last_positions(reader, TP(log, 0)) if log in admin.topics() else None
    noted = None if said is None else said.notes.get(OUTPUT)
    if noted and noted != admin.topic_ids([plan.consent]).get(plan.consent):
        raise NeedsOperator(
            f"{plan.consent} was deleted since the consent agent ran last, and what was decided is not in it any more. Let"
            " `c360 worker --only consent` run until `c360 verify consent` is content: it writes all of it again; then reset"
        )


def changelogs(agent: PlannedAgent, admin: Admin) -> list[TP]:
    """Their partitions, one for each task."""
    existing = admin.topics()
    return [TP(topic, partition) for topic in agent.changelogs for partition in range(existing.get(topic, 0))]


def end_owners(cluster: Cluster, reader: Reader, logs: Sequence[TP]) -> None:
    """End what the last owners of tasks have left open: they are dead, or zombies, which are fenced by that."""
    ended = {""}
    for at in logs:
        owner = _last_owner(reader, at)
        if owner not in ended:
            with suppress(BrokerAway, Fenced):  # then the broker does it, in its time
                cluster.producer(owner).close()
            ended.add(owner)


def _last_owner(reader: Reader, at: TP) -> str:
    """Who wrote the last positions of a changelog, also while something is open behind them; "" where there are none."""
    return where_cut(lambda: _owner_at_the_end(reader, at))


def _owner_at_the_end(reader: Reader, at: TP) -> str:
    (end,), (start,) = reader.ends([at]).values(), reader.starts([at]).values()
    back = 16
    while True:
        first, found, came = max(start, end - back), b"", time.monotonic()
        for batches in reader.read({at: first}, {at: end}):
            if not batches and time.monotonic() - came > PATIENCE_S:
                break
            for batch in batches:
                came = time.monotonic()
                said = [value for key, value in zip(batch.keys, batch.values, strict=True) if key == POSITIONS]
                found = (said[-1] if said else None) or found
        if found or first == start:
            return decode_positions(found).owner if found else ""
        back *= 16


@dataclass(frozen=True)
class _FirstRecords:
    """What the changelogs of a new life begin with: rows by partition, and positions."""

    before: Mapping[int, Mapping[bytes, bytes]]
    positions: Callable[[TP], bytes]

    def rows(self, logs: Sequence[TP], incarnation: int) -> Iterator[Message]:
        for at in logs:
            yield Message(at.topic, RESET, encode_reset(incarnation), at.partition)
            for key, state in self.before.get(at.partition, {}).items():
                yield Message(at.topic, key, state, at.partition)


def _first_records(
    plan: Plan, agent: PlannedAgent, admin: Admin, reader: Reader, journal: ResetJournal
) -> _FirstRecords:
    to, ends, life = partitions_of(journal.to), partitions_of(journal.ends), journal.life
    before: Mapping[int, Mapping[bytes, bytes]] = {}
    projection = next((p for p in plan.projections if p.agent == agent.name), None)
    door = next((d for d in plan.doors if d.agent == agent.name), None)
    identity = next((i for i in plan.identities if i.agent == agent.name), None)
    if projection is not None:
        before = written_by(plan, projection, admin, reader)
    elif door is not None:
        before = _digests(plan.leaves(door), doors.HELD, doors.held_before, admin, reader)
    elif identity is not None:
        life, before = _assigned(plan, identity, admin, reader, life)
    elif agent.name == "consent":
        asked = any(ends[tp] > n for tp, n in to.items() if tp.topic == plan.erase)
        before = _decided(plan, admin, reader, life=0 if asked else NOW)

    def note(upto: dict[str, int]) -> dict[str, Any]:
        if projection is not None:
            return notes_of_reset(upto)
        if door is not None:
            return doors.notes_of_reset({name: end for name, end in upto.items() if not name.startswith(plan.erase)})
        if agent.name == "consent":  # what is known was taken out of this one
            return {OUTPUT: admin.topic_ids([plan.consent]).get(plan.consent, "")}
        return {} if identity is None else identities.notes_of_reset(life, upto)

    def positions(at: TP) -> bytes:
        own = {tp: n for tp, n in to.items() if tp.topic in agent.reads and _belongs(plan, agent, tp, at)}
        notes = note(named({tp: ends[tp] for tp in own if ends[tp] > own[tp]}))
        if cut := {name: n for name, n in journal.cut.items() if name in named(own)}:
            notes["cut"] = cut
        return encode_positions(own, agent.fingerprint, notes)

    return _FirstRecords(before, positions)


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
    if plan.governing(agent.name) is None:
        return True
    source = next(s for s in plan.sources if plan.govern_changelog(s) == log.topic)
    return tp.topic in (source.topic, plan.replay(source), plan.truncates(source))


def written_by(
    plan: Plan, projection: ProjectionDeclaration, admin: Admin, reader: Reader
) -> Mapping[int, Mapping[bytes, bytes]]:
    """By partition of its changelog: rows of the profiles that a version has written, without which it would not take back
    those that it has no more."""
    folding = Folding(projection.attributes)
    topic = plan.projected(projection)
    return _digests(topic, PROFILES, lambda digest: written_before(folding, digest), admin, reader)


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
