"""The audit log as a task of an agent writes it: entries in the task's own transaction, the head of its chain in its notes.

So an entry is there exactly when what it tells of is. A task whose notes are gone, after a reset, begins a chain under a new
name: the numbers of the old one are taken.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from c360.engine.agent import Outbox
from c360.governance.audit import Entry, Head, chained, encode_record, head_of, without_personal
from c360.governance.denials import Denials

NOTE = "audit"
NAME_BYTES = 8


class Chain:
    """A task's chain.

    `task`: a name that says whose it is, such as "customer@3:marketing/0". `personal`: namespaces whose identifiers are
    written as tokens. `random`: of which names are made.
    """

    def __init__(
        self, app: str, topic: str, task: str, *, personal: Collection[str], random: Callable[[int], bytes]
    ) -> None:
        self.app, self.topic, self.task, self.personal = app, topic, task, personal
        self._random = random
        self.writer: str | None = None  # until the first entry
        self.head: Head | None = None

    def add(self, entry: Entry, out: Outbox) -> None:
        """Tell it, with the transaction. Texts that are personal are left out, since a task cannot refuse to go on."""
        if self.writer is None:
            self.writer = f"{self.task}/{self._random(NAME_BYTES).hex()}"
        record = chained(self.app, without_personal(entry, self.personal), self.writer, self.head)
        out.send(self.topic, self.writer.encode(), encode_record(record), 0)
        self.head = head_of(record)

    def notes(self) -> dict[str, Any]:
        """To be among the task's notes: {"audit": …}, {} before the first entry."""
        if self.writer is None or self.head is None:
            return {}
        return {NOTE: [self.writer, self.head.number, self.head.hash]}

    def resume(self, notes: Mapping[str, Any]) -> None:
        """From the task's notes, those of its last commit."""
        self.writer, self.head = None, None
        if (kept := notes.get(NOTE)) is not None:
            writer, number, hashed = kept
            self.writer, self.head = str(writer), Head(int(number), str(hashed))


class DoorLog:
    """What a task of a door tells: its refusals, counted. `who`: the agent, as typed."""

    NOTE = "denied"

    def __init__(self, chain: Chain, who: str) -> None:
        self.chain, self.who = chain, who
        self.denials = Denials()

    def deny(self, reason: str, now_ms: int) -> None:
        """A profile, or a part of it, did not leave. In `process` or `finish`; cheap."""
        self.denials.count(reason, now_ms)

    def finish(self, now_ms: int, out: Outbox) -> None:
        """In the task's `finish`: one entry with what is due."""
        if (entry := self.denials.entry(self.who, now_ms)) is not None:
            self.chain.add(entry, out)

    def wants(self, now_ms: int) -> bool:
        """In the task's `wants`: something was refused and may be told."""
        due = self.denials.due_ms()
        return due is not None and due <= now_ms

    def notes(self) -> dict[str, Any]:
        denied = self.denials.notes()
        return {**self.chain.notes(), **({self.NOTE: denied} if denied else {})}

    def resume(self, notes: Mapping[str, Any]) -> None:
        self.chain.resume(notes)
        self.denials.resume(notes.get(self.NOTE, {}))
