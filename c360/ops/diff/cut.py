"""How far two versions have read, waiting until both have read something, and who was told of in between.

Positions are those that agents commit with their state, in their changelogs: they are of one transaction with what was
written (ENGINE.md), and their notes say what an agent has still to do without any input.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from c360.agents.wire import decode_assignment
from c360.engine.lag import NEAR, records_left
from c360.engine.state import POSITIONS, Positions, decode_positions, partitions_of
from c360.engine.transport import TP, Reader
from c360.errors import BrokerAway, NeedsOperator
from c360.ops.diff.compare import Touched
from c360.ops.records import records
from c360.plan import Plan, PlannedAgent

PAUSE_S = 0.2
PATIENCE = 150  # pauses in which nothing moves
SILENT = 600  # looks of 0.1 s: a transaction that is left open is over by then
HOPS = 4  # of a projection's messages: Put, Held and Drop are three
HOPS_OF_LABELS = 12  # of those of identity, which may go on from node to node
BUSY = ("catch_up", "sweep", "expiring")  # notes of what is still to be written without any input

Waiting = Callable[[str, int], None]
"""Told of an agent and how many records it has still to read."""


def stages_of(plan: Plan, first: PlannedAgent, second: PlannedAgent) -> list[list[PlannedAgent]]:
    """Agents that only one of both rests on, such as an identity of its own, those first that others rest on; at last both."""
    alone = upstream(plan, first) ^ upstream(plan, second)
    left = [agent for agent in plan.agents if agent.name in alone]
    stages = []
    while left:
        ready = [a for a in left if not any(feeds(b) & set(a.reads) for b in left if b is not a)] or left
        stages.append(ready)
        left = [agent for agent in left if agent not in ready]
    return [*stages, list(dict.fromkeys([first, second]))]


def upstream(plan: Plan, agent: PlannedAgent) -> set[str]:
    """Names of the agents whose records it reads, and of those whose records these read."""
    found: dict[str, PlannedAgent] = {}
    queue = [agent]
    for one in queue:  # grows on the way
        for other in plan.agents:
            if other is not agent and other.name not in found and feeds(other) & set(one.reads):
                found[other.name] = other
                queue.append(other)
    return found.keys() - {agent.name}


def feeds(agent: PlannedAgent) -> set[str]:
    """What it writes for others."""
    return set(agent.writes) - set(agent.reads)


@dataclass(frozen=True)
class Stand:
    """How far an agent has read, and what it has still to do by itself."""

    positions: Mapping[TP, int]
    busy: frozenset[str]
    began: bool  # whether it ever committed anything


def stand(reader: Reader, logs: Sequence[TP]) -> Stand:
    """Of an agent, by its changelogs."""
    positions: dict[TP, int] = {}
    busy: set[str] = set()
    found = last_of(reader, logs)
    for said in found.values():
        for tp, offset in partitions_of(said.positions).items():
            positions[tp] = max(offset, positions.get(tp, 0))
        busy.update(said.notes.keys() & set(BUSY))
    return Stand(positions, frozenset(busy), bool(found))


def last_of(reader: Reader, logs: Sequence[TP]) -> dict[TP, Positions]:
    """The last record `positions` of each changelog that has one. It ends a transaction, so it is near the end."""
    ends, starts = reader.ends(logs), reader.starts(logs)
    found: dict[TP, bytes] = {}
    left, look = {log for log in logs if ends[log] > starts[log]}, NEAR
    while left:
        begin = {log: max(starts[log], ends[log] - look) for log in left}
        silent = 0
        for batches in reader.read(begin, {log: ends[log] for log in left}):
            silent = 0 if batches else silent + 1
            if silent > SILENT:
                raise BrokerAway(f"a transaction in {', '.join(sorted({log.topic for log in left}))} stays open")
            for batch in batches:
                for key, value in zip(batch.keys, batch.values, strict=True):
                    if key == POSITIONS and value is not None:
                        found[batch.tp] = value
        left = {log for log in left if log not in found and begin[log] > starts[log]}
        look *= 16
    return {log: decode_positions(value) for log, value in found.items()}


class Cuts:
    """Takes cuts of what two versions rest on. One thread; one reader, so that nothing else is read meanwhile."""

    def __init__(
        self,
        plan: Plan,
        reader: Reader,
        partitions: Mapping[str, int],
        stages: Sequence[Sequence[PlannedAgent]],
        *,
        pause: Callable[[float], None],
        waiting: Waiting,
    ) -> None:
        self.plan, self.reader, self.partitions = plan, reader, partitions
        self.stages, self.pause, self.waiting = stages, pause, waiting
        self.loops = frozenset(topic.name for topic in plan.topics if topic.role == "loop")

    # ------------------------------------------------------------------------------------------------------ partitions
    def _all(self, topics: Iterable[str]) -> list[TP]:
        return [TP(t, p) for t in dict.fromkeys(topics) for p in range(self.partitions.get(t, 0))]

    def inputs(self, agents: Iterable[PlannedAgent]) -> list[TP]:
        return self._all(t for agent in agents for t in agent.reads if t not in self.loops)

    def said(self, agents: Iterable[PlannedAgent]) -> list[TP]:
        """What their tasks say to each other."""
        return self._all(t for agent in agents for t in agent.reads if t in self.loops)

    def stand(self, agent: PlannedAgent) -> Stand:
        return stand(self.reader, self._all(agent.changelogs))

    # --------------------------------------------------------------------------------------------------------- waiting
    def wait(self, agents: Sequence[PlannedAgent], ends: Mapping[TP, int]) -> dict[str, Stand]:
        """Until all of these have read what is before `ends`, of what they read, and have nothing to do by themselves.

        Raises NeedsOperator where nothing moves any more.
        """
        before: object = None
        still = 0
        while True:
            stands = {agent.name: self.stand(agent) for agent in agents}
            behind = {agent.name: self._behind(agent, stands[agent.name], ends) for agent in agents}
            if not any(behind.values()) and not any(stand.busy for stand in stands.values()):
                return stands
            now = [(stand.positions, stand.busy) for stand in stands.values()]
            still = still + 1 if now == before else 0
            if still > PATIENCE:
                raise NeedsOperator(_stands_still(stands, behind))
            before = now
            for name, records_ in behind.items():
                self.waiting(name, records_)
            self.pause(PAUSE_S)

    def _behind(self, agent: PlannedAgent, stand: Stand, ends: Mapping[TP, int]) -> int:
        own = {tp: end for tp, end in ends.items() if tp.topic in agent.reads}
        left = {tp for tp, end in own.items() if stand.positions.get(tp, 0) < end}
        if not left:
            return 0
        starts = self.reader.starts(sorted(left))  # what it has read of a loop is deleted
        at = {tp: max(starts[tp], stand.positions.get(tp, 0)) for tp in left}
        return sum(records_left(self.reader, at, own).values())

    def catch_up(self) -> None:
        """Until both have read what is there now, and all that follows from it."""
        for stage in self.stages:
            self.wait(stage, self.reader.ends(self.inputs(stage)))
            self.drain(stage)

    def drain(self, agents: Sequence[PlannedAgent]) -> None:
        """Until what their tasks have said to each other so far is heard, and the answers to it."""
        said, before = self.said(agents), None
        hops = HOPS if agents is self.stages[-1] else HOPS_OF_LABELS
        for _ in range(hops):
            ends = self.reader.ends(said)
            if ends == before:
                return
            self.wait(agents, ends)
            before = ends

    # ------------------------------------------------------------------------------------------------------------ cuts
    def low(self) -> dict[TP, int]:
        """Positions before which both have read everything, and written all that follows from it.

        Of what only one of them reads, as another agent makes it for that one (`stages_of`): where it ended before these
        agents had read the same. What they made of later inputs is from there on.
        """
        *earlier, last = self.stages
        fed = {topic for stage in earlier for agent in stage for topic in feeds(agent)}
        alone = [tp for tp in self.inputs(last) if tp.topic in fed]
        begun = self.reader.ends(alone)
        for stage in earlier:
            self.wait(stage, self.reader.ends(self.inputs(stage)))
            self.drain(stage)
        found: dict[TP, int] = {}
        for tp, offset in self._of(last, self.wait(last, self.reader.ends(alone))):
            found[tp] = min(offset, found.get(tp, offset))
        self.drain(last)
        return {tp: min(offset, begun.get(tp, offset)) for tp, offset in found.items()}

    def high(self) -> dict[TP, int]:
        """Positions from which on neither has read anything."""
        last, found = self.stages[-1], dict[TP, int]()
        for tp, offset in self._of(last, {agent.name: self.stand(agent) for agent in last}):
            found[tp] = max(offset, found.get(tp, offset))
        return found

    def _of(self, stage: Sequence[PlannedAgent], stands: Mapping[str, Stand]) -> Iterable[tuple[TP, int]]:
        for agent in stage:
            for tp in self.inputs([agent]):
                yield tp, stands[agent.name].positions.get(tp, 0)

    def touched(self, low: Mapping[TP, int], high: Mapping[TP, int]) -> Touched:
        """Who is told of between two cuts."""
        open_ = {tp: offset for tp, offset in low.items() if high.get(tp, 0) > offset}
        if any(tp.topic == self.plan.days for tp in open_):
            return Touched(all_=True)
        if not open_:
            return Touched()
        assignments = {self.plan.assignments(identity) for identity in self.plan.identities}
        labels: set[str] = set()
        starts = self.reader.starts(list(open_))
        begin = {tp: max(starts[tp], offset) for tp, offset in open_.items()}
        for tp, _, key, value in records(self.reader, begin, {tp: high[tp] for tp in open_}):
            if key is None:
                return Touched(all_=True)
            labels.add(key.decode())
            if tp.topic in assignments and value is not None:
                said = decode_assignment(value)
                labels.update((said.profile, said.was or said.profile))
                labels.update(said.identifiers)
        return Touched(frozenset(labels))


def _stands_still(stands: Mapping[str, Stand], behind: Mapping[str, int]) -> str:
    said = [
        f"{name} is {records_} records behind"
        if records_
        else f"{name} has still to write ({', '.join(sorted(stands[name].busy))})"
        for name, records_ in behind.items()
        if records_ or stands[name].busy
    ]
    names = ",".join(behind)
    return f"{' and '.join(said)}, and nothing moves: does a worker run it? c360 worker --only {names}, then again"
