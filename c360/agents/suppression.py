"""Who is suppressed, as the tasks of one process ask it: its copy of the table, and in memory which labels are in it at all.

So a record of an app in which nobody was ever erased costs nothing, and any other one look into a set for each of its labels.
A task that decides on what it finds here begins once the copy was read to its end (`begin`, `ready`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from threading import Lock
from typing import NamedTuple

from c360.engine.global_table import GlobalTable
from c360.engine.transport import TP
from c360.errors import Shut, Stale
from c360.governance.fence import decode_statement
from c360.governance.messages import Erase
from c360.governance.names import Names
from c360.governance.suppressed import Suppressed, decode_suppressed
from c360.identity.namespace import shown
from c360.plan import Plan

VEILED_KEPT = 1 << 16  # labels; veiling one takes about 2 µs
Ends = Callable[[Sequence[TP]], Mapping[TP, int]]
"""Where partitions end now, marks of transactions included."""


class News(NamedTuple):
    """Veiled labels whose records are new since `seen` was given. `seen`: to be kept with what was made of them."""

    veiled: list[str]
    seen: list[int]


class Suppression:
    """One per process; any thread may ask. All that looks raises Shut while the copy is not whole."""

    def __init__(self, plan: Plan, table: GlobalTable, names: Names, ends: Ends) -> None:
        self.topic, self.fence, self.table, self.ends = plan.suppressed, plan.fence, table, ends
        self.partitions = [TP(plan.suppressed, p) for p in range(plan.partitions)]
        self.veil = lru_cache(VEILED_KEPT)(names.veil)
        self.hide = names.veil  # the same of what does not come again
        self._lock = Lock()
        self._next: list[int] = []  # of the partitions, what is in `_known`
        self._known: set[int] = set()  # hashes of veiled labels: 70 bytes each
        self.held: Mapping[TP, int] = {}  # below these offsets all is known

    def begin(self) -> Mapping[TP, int]:
        """What a task that begins now has to wait for: the end of the table. Raises BrokerAway."""
        return self.ends(self.partitions)

    def ready(self, until: Mapping[TP, int]) -> None:
        """Raises Shut while the copy does not hold everything below these offsets."""
        self.refresh()
        if not all(self.held.get(tp, -1) >= end for tp, end in until.items()):
            raise _shut("is not read to its end yet")

    def reached(self) -> list[int]:
        """Where the copy stands, partition by partition: a cheap question whether there may be news."""
        reached = self.table.reached()
        return [reached.get(tp, -1) for tp in self.partitions]

    def refresh(self) -> None:
        """Take in what is new."""
        try:
            held = {tp: n for tp, n in self.table.reached().items() if tp.topic == self.topic}
            if held == self.held and self._next:
                return
            self._check_same()
            with self._lock:
                found = self._since(self._next)
                if found is None:
                    found = News([], self._mark())
                    self._known = {hash(key) for key, _ in self.table.scan(topic=self.topic)}
                self._known.update(hash(veiled.encode()) for veiled in found.veiled)
                self._next, self.held = found.seen, held
        except Stale as error:
            raise _shut("is not whole") from error

    def _check_same(self) -> None:
        """Of a topic that was made anew nothing is believed until the erasure agent has said what it is about (`agents.anew`).

        Where it has never said anything, there is nobody to be missed.
        """
        about = f"{self.topic} ".encode()
        said = {decode_statement(value).of for _, value in self.table.scan(about, self.fence)}
        if said and self.table.ids().get(self.topic) not in said:
            raise _shut(
                "is of a topic that was deleted and created again, to which the erasure agent has not written it yet"
            )

    def _mark(self) -> list[int]:
        found: list[int] = self.table.mark()["next"][self.topic]
        return found

    def _since(self, seen: Sequence[int]) -> News | None:
        """None: what is new cannot be told one by one."""
        if not seen:
            return None
        veiled: list[str] = []
        at = list(seen)
        while True:
            mark = self.table.mark()
            mark["next"] = {**mark["next"], self.topic: at}  # nothing of the other topics
            changes = self.table.changes(mark)
            if changes.anew:
                return None
            veiled += [key.decode() for topic, key in changes.keys if topic == self.topic]
            after: list[int] = changes.seen["next"][self.topic]
            if after == at:
                return News(list(dict.fromkeys(veiled)), at)
            at = after

    def news(self, seen: Sequence[int]) -> News:
        """What is new since then, for a listener of its own; [] of one that knows nothing."""
        try:
            found = self._since(seen)
            if found is None:
                at = self._mark()
                found = News([key.decode() for key, _ in self.table.scan(topic=self.topic)], at)
            return found
        except Stale as error:
            raise _shut("is not whole") from error

    def __bool__(self) -> bool:
        """Whether anybody was ever erased, as far as `refresh` has seen."""
        return bool(self._known)

    def look(self, label: str) -> Suppressed | None:
        """What is said of an identifier, as it is written: a twin is what it is of."""
        return self.of(self.veil(shown(label)))

    def of(self, veiled: str) -> Suppressed | None:
        """The same of a veiled one."""
        key = veiled.encode()
        if hash(key) not in self._known:
            return None
        try:
            data = self.table.get(key, self.topic)
        except Stale as error:
            raise _shut("is not whole") from error
        return None if data is None else decode_suppressed(data)

    def due(self, erase: Erase) -> bool:
        """Whether it is still to be done: not of a request that is over, or lifted. Raises Shut while that is not known."""
        self.refresh()
        said = self.look(erase.identifier)
        if said is None or said.life < erase.life:
            raise _shut("does not have the suppression of an erasure yet")
        hold = said.holds.get(erase.request)
        return hold is not None and not (hold.lifted or hold.proven)

    def lives(self, labels: Iterable[str]) -> dict[str, int]:
        """How often they were erased, of those that were."""
        if not self._known:
            return {}
        return {label: said.life for label in labels if (said := self.look(label)) is not None}


def _shut(what: str) -> Shut:
    return Shut(
        "suppressed-unknown",
        f"this process's copy of who is suppressed {what}; nothing is made of records until it is, which comes by itself"
        " when the broker answers",
    )


class Watch:
    """Of one task: it begins when the copy holds what was said before the task began."""

    def __init__(self, suppression: Suppression) -> None:
        self.suppression = suppression
        self.until: Mapping[TP, int] | None = None
        self.begun = False

    def again(self) -> None:
        """It has been restored: on this machine it may have been away for long."""
        self.until, self.begun = None, False

    def begin(self) -> None:
        """Before records are looked at. Raises Shut while what is suppressed is not known."""
        if self.begun:
            self.suppression.refresh()
            return
        if self.until is None:
            self.until = self.suppression.begin()
        self.suppression.ready(self.until)
        self.begun = True
