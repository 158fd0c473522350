"""Copies of the tasks that others run: their changelogs followed into stores of our own, so that a take-over reads a tail.

A copy is what a restore leaves that was interrupted: committed records only, each batch with the position after it. So
a task that becomes ours closes its copy and is restored as ever, and one that goes to another becomes a copy again.

Everything here happens on the loop's restore thread, in slices between restores: no store is ever open twice, and who
waits for a restore waits for one slice. No error of a disk or a broker here ends a worker; what failed is copied again later.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass

from c360.clock import Clock
from c360.engine.agent import Agent
from c360.engine.restore import begin
from c360.engine.state import AWAY_MS, TaskState
from c360.engine.transport import TP, Admin, Cluster, Reader
from c360.errors import BrokerAway, C360Error, TaskCorrupted
from c360.tables.store import Stores

log = logging.getLogger("c360.engine")

SLICE_S = 0.25  # a restore may have to wait so long
LOOK_S = 10.0  # between two looks at which partitions there are
CALM = 60  # times `every_s` after a failure; a disk that is full has more important things to hold


@dataclass
class Copies:
    """What is told of the copies, for metrics. `left`: records that they are behind, about."""

    tasks: int = 0
    records: int = 0
    left: int = 0
    failures: int = 0


class Standby:
    """One agent's copies. All calls from one thread at a time, except `due`.

    `every_s`: between two looks at what is new; 0: whenever asked, and without regard to time, for seeds that repeat.
    """

    def __init__(self, agent: Agent, cluster: Cluster, stores: Stores, clock: Clock, *, every_s: float = 1.0) -> None:
        self.agent, self.cluster, self.stores, self.clock = agent, cluster, stores, clock
        self.every_s = every_s
        self.copies = Copies()
        self.states: dict[TP, TaskState] = {}  # by lead partition; their stores are open
        self._reached: dict[TP, int] = {}  # by lead partition: end up to which there was nothing more
        self._followed: dict[TP, int] = {}  # by lead partition: when it was looked at last
        self._reader: Reader | None = None
        self._admin: Admin | None = None
        self._leads: list[TP] = []
        self._looked = -LOOK_S
        self._calm_until = 0.0
        self._next = 0.0

    # ----------------------------------------------------------------------------------------- on the loop's thread
    def due(self) -> bool:
        """Whether it is time for a slice."""
        return time.monotonic() >= self._next

    # -------------------------------------------------------------------------------------- on the restore thread
    def follow(self, owned: Collection[TP]) -> None:
        """One slice: copy what others have committed since. `owned`: leads of the tasks that are ours."""
        behind = False
        try:
            if time.monotonic() >= self._calm_until:
                behind = self._follow(owned)
        except BrokerAway as error:
            log.debug("%s: standby: %s", self.agent.name, error)
            self._forget_clients()
        except C360Error as error:
            self._failed(error, self.states)
        finally:
            self._next = time.monotonic() + (0.0 if behind else self.every_s)

    def _follow(self, owned: Collection[TP]) -> bool:
        """True when there is more to copy."""
        # 1 what has become ours is not ours to copy
        leads = [lead for lead in self._all_leads() if lead not in owned]
        self.release(self.states.keys() - set(leads))
        # 2 open what is new, and look where everything stands
        reader = self._reader = self._reader or self.cluster.reader()
        for lead in leads:
            if lead not in self.states:
                self.states[lead] = self._opened(lead)
        self._forget_what_was_away()
        logs = {self.agent.changelog(lead): lead for lead in self.states}
        self.copies.tasks = len(logs)
        positions, ends = begin(reader, {log: self.states[lead] for log, lead in logs.items()})
        # After the last record there is the mark of its transaction: a position alone does not tell that it is all.
        new = {log: at for log, at in positions.items() if at < ends[log] and self._reached.get(logs[log]) != ends[log]}
        self.copies.left = sum(max(0, ends[log] - at) for log, at in new.items())
        if not new:
            return False
        # 3 copy, until there is no more for now, or time is up
        until = time.monotonic() + SLICE_S
        with closing(reader.read(new, ends)) as reading:  # type: ignore[type-var]  # both readers give generators
            for batches in reading:
                for batch in batches:
                    try:
                        self.states[logs[batch.tp]].apply(batch)
                    except TaskCorrupted as error:
                        self._failed(error, [logs[batch.tp]])
                        return False
                    self.copies.records += len(batch)
                    self.copies.left = max(0, self.copies.left - len(batch))
                if not batches:
                    return False  # of a transaction that is still open
                if self.every_s and time.monotonic() > until:
                    return True
        self.copies.left = 0
        self._reached |= {logs[log]: ends[log] for log in new}
        return False

    def _forget_what_was_away(self) -> None:
        """A process may be stopped for days and go on: deletions may be gone from the log unseen, as for a store."""
        now = self.clock()
        for lead, state in self.states.items():
            if now - self._followed.get(lead, now) > AWAY_MS:
                state.forget()
                self._reached.pop(lead, None)
        self._followed = dict.fromkeys(self.states, now)

    def _all_leads(self) -> list[TP]:
        """Of changelogs that exist. Topics may be created at any time."""
        if time.monotonic() - self._looked >= LOOK_S:
            self._admin = self._admin or self.cluster.admin()
            found = self._admin.topics()
            every = (TP(t, p) for t in self.agent.lead_topics() for p in range(found.get(t, 0)))
            self._leads = [lead for lead in every if self.agent.changelog(lead).topic in found]
            self._looked = time.monotonic()
        return self._leads

    def _opened(self, lead: TP) -> TaskState:
        tables = self.agent.processor(self.agent.task(lead)).tables  # may ask the broker: before anything is open
        state = TaskState(self.stores.open(self.agent.store_name(lead)), tables, self.clock)
        try:
            state.open()
        except TaskCorrupted:
            state.store.destroy()
            raise
        return state

    def release(self, leads: Iterable[TP]) -> None:
        """Close the copies of tasks that are to be opened by others; what is on disk stays."""
        for lead in list(leads):
            state = self.states.pop(lead, None)
            self._reached.pop(lead, None)
            if state is not None:
                state.store.close()

    def _failed(self, error: C360Error, leads: Iterable[TP] | Mapping[TP, TaskState]) -> None:
        """Give up copies, with their place on the disk when that is the matter, and leave all alone for a while."""
        log.warning("%s: standby copies wait %.0f s: %s", self.agent.name, CALM * self.every_s, error)
        self.copies.failures += 1
        if isinstance(error, TaskCorrupted):
            for lead in list(leads):
                state = self.states.pop(lead, None)
                self._reached.pop(lead, None)
                if state is not None:
                    state.store.destroy()
        self.release(list(self.states))
        self._forget_clients()
        self._calm_until = time.monotonic() + CALM * self.every_s

    def _forget_clients(self) -> None:
        """One that has met an error may never learn better; the next slice makes new ones."""
        reader, self._reader = self._reader, None
        admin, self._admin = self._admin, None
        self._looked = -LOOK_S
        for client in (reader, admin):
            if client is not None:
                client.close()

    def close(self) -> None:
        self.release(list(self.states))
        self._forget_clients()
