"""outside: questions that people did not let be asked, kept until they do. Of one task of an asking agent.

    caller ──not now──► {app}.outside.{name}.withheld ──► noted ──somebody agrees──► asked again
                                                            └──refresh later, or forgotten──► gone

The caller says what it did not ask; it is noted by the identifiers whose decisions count, and nothing reads it again before
something is decided on one of these, or a decision ends. Whether it may be asked then is again the caller's to say.

A question is asked again once for each time that it was withheld: the task knows of each subject and identifier which
question was the last, and how often that one was asked (`AskedAt`), and what says otherwise is late or came twice. So what
comes after somebody was forgotten is of nobody, too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import msgspec

from c360.agents.wire import Question, decode_question, encode
from c360.engine.agent import Outbox
from c360.engine.global_table import GlobalTable
from c360.engine.transport import Batch
from c360.errors import Shut, Stale
from c360.governance.consent import Verdict, decode_state, verdict
from c360.governance.names import Vault
from c360.governance.purposes import Purpose
from c360.governance.suppressed import decode_suppressed
from c360.plan import Plan
from c360.tables.inverse import Inverse
from c360.tables.table import Table
from c360.tables.timers import Timers

ASKED, NOTED, HOLDERS, LOOKS = b"a", b"w", b"i", b"t"  # tables
PORTION = 1_000  # questions looked at in one commit
LATER_MS, LATER_MOST_MS = 1_000, 3_600_000  # until one is looked at that was asked again and withheld again


class AskedAt(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """When a question was due last: append time of the record that it came with, ms. `again`: how often that question was
    asked again, as somebody had agreed."""

    at: int
    again: int = 0


class Noted(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A question that was withheld. look: when it is looked at next; until: when it is forgotten; epoch ms."""

    question: bytes
    look: int
    until: int


@dataclass
class WithheldCounters:
    """For metrics; work that was aborted counts again."""

    noted: int = 0
    agreed: int = 0  # asked again
    expired: int = 0
    late: int = 0  # of a question that is not the last any more, or came twice


# ------------------------------------------------------------------------------------------------- what people decided
class Decided:
    """Of a purpose, by the process's copy. `veil`: of an app that erases. Used by one thread; raises Stale."""

    def __init__(self, plan: Plan, purpose: Purpose, governance: GlobalTable | None, vault: Vault | None) -> None:
        self.plan, self.purpose, self.governance = plan, purpose, governance
        self.veil: Callable[[str], str] = _itself if vault is None else vault.names.veil

    def suppressed(self, question: Question) -> bool:
        """Whether it is about, or names, somebody who is forgotten."""
        if not self.plan.erases:
            return False
        assert self.governance is not None
        named = [self.veil(label).encode() for label in question.labels]
        for label, value in zip(question.labels, self.governance.get_many(named, self.plan.suppressed), strict=True):
            if value is not None:
                said = decode_suppressed(value)
                if said.stands or (label == question.subject and question.life < said.life):
                    return True
        return False

    def verdict(self, question: Question, now: int) -> Verdict:
        """Whether it may be asked, by the identifiers of the record that it came with."""
        if not self.purpose.asks:
            return verdict(self.purpose, {}, now)
        assert self.governance is not None
        values = self.governance.get_many([label.encode() for label in question.labels], self.plan.consent)
        said = zip(question.labels, values, strict=True)
        return verdict(self.purpose, {label: decode_state(state) for label, state in said if state is not None}, now)


def _itself(label: str) -> str:
    return label


class Hearing:
    """What is new in the process's copy of what people decided, for listeners who keep how far they have heard (`seen`)."""

    def __init__(self, plan: Plan, governance: GlobalTable, veil: Callable[[str], str]) -> None:
        self.governance, self.veil, self.suppressed = governance, veil, plan.suppressed
        self.topics = (plan.consent, *((plan.suppressed,) if plan.erases else ()))
        self._at: tuple[int, dict[str, Any]] | None = None  # version of the copy, and where it stands

    def whole(self, seen: Mapping[str, Any] | None) -> bool:
        """Whether the copy has all that was heard before: a task that comes from another process may be ahead of it."""
        now = self._where()
        if now is None or seen is None or all(self._has(now, seen, topic) for topic in self.topics):
            return now is not None
        self._at = None  # marks of transactions move it without a change
        now = self._where()
        return now is not None and all(self._has(now, seen, topic) for topic in self.topics)

    @staticmethod
    def _has(now: Mapping[str, Any], seen: Mapping[str, Any], topic: str) -> bool:
        """One that was made anew has nothing to catch up with."""
        if seen["ids"].get(topic) != now["ids"][topic]:
            return True
        return all(have >= heard for have, heard in zip(now["next"][topic], seen["next"][topic], strict=False))

    def has_news(self, seen: Mapping[str, Any] | None) -> bool:
        """False while there is no whole copy: then it cannot be said."""
        now = self._where()
        if now is None:
            return False
        if seen is None or any(seen["ids"].get(topic) != now["ids"][topic] for topic in self.topics):
            return True
        return any(
            have > (seen["next"][topic][number] if number < len(seen["next"][topic]) else 0)
            for topic in self.topics
            for number, have in enumerate(now["next"][topic])
        )

    def news(self, seen: Mapping[str, Any] | None, limit: int) -> tuple[list[str], dict[str, Any], bool]:
        """Veiled labels that were decided on; what to ask with next; whether any may have been. Raises Stale."""
        asked = None
        if seen is not None:  # of the other topics nothing: the fence says something four times a second
            now = self.governance.mark()
            mine = self.topics
            asked = {
                "ids": {topic: seen["ids"].get(topic, one) if topic in mine else one for topic, one in now["ids"].items()},
                "next": {topic: seen["next"].get(topic, []) if topic in mine else ends for topic, ends in now["next"].items()},
                "ms": seen["ms"],
            }  # fmt: skip
        told = self.governance.changes(asked, limit)
        labels = [
            key.decode() if topic == self.suppressed else self.veil(key.decode())
            for topic, key in told.keys
            if topic in self.topics
        ]
        return list(dict.fromkeys(labels)), self._mine(told.seen), told.anew

    def _where(self) -> dict[str, Any] | None:
        """Where the copy stands, asked once for all tasks; None: it is not whole."""
        version = self.governance.version
        if self._at is None or self._at[0] != version:
            try:
                self._at = version, self.governance.mark()
            except Stale:
                return None
        return self._at[1]

    def _mine(self, seen: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "ids": {topic: seen["ids"][topic] for topic in self.topics},
            "next": {topic: seen["next"][topic] for topic in self.topics},
            "ms": seen["ms"],
        }


# --------------------------------------------------------------------------------------------------------------- task
class Withheld:
    """Of one partition of subjects. `asked`: the task's own table, whose rows are named as these are."""

    def __init__(
        self,
        decided: Decided,
        hearing: Hearing,
        asked: Table[AskedAt],
        *,
        questions: str,
        row_of: Callable[[str, str], bytes],
        keep_ms: int,
        counters: WithheldCounters,
    ) -> None:
        """`row_of`: of a subject and a label. `keep_ms`: how long a question is worth asking."""
        self.decided, self.hearing, self.asked = decided, hearing, asked
        self.questions, self.row_of, self.keep_ms, self.counters = questions, row_of, keep_ms, counters
        pack, unpack = msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder(Noted).decode
        self.noted: Table[Noted] = Table(NOTED, pack, unpack)
        self.holders = Inverse(HOLDERS)  # of a veiled label
        self.looks = Timers(LOOKS)
        self.tables = (self.noted, self.holders, self.looks)

    def resume(self, notes: Mapping[str, Any]) -> None:
        self.seen: dict[str, Any] | None = notes.get("seen")
        self.rest: list[tuple[str, str]] = [(label, start) for label, start in notes.get("rest", ())]
        self.sweep: str | None = notes.get("sweep")  # the row from which on all are looked at

    def notes(self) -> dict[str, Any]:
        notes: dict[str, Any] = {}
        if self.seen is not None:
            notes["seen"] = self.seen
        if self.rest:
            notes["rest"] = [list(one) for one in self.rest]
        if self.sweep is not None:
            notes["sweep"] = self.sweep
        return notes

    # --------------------------------------------------------------------------------------------------------- noting
    def take(self, batch: Batch) -> None:
        """What the caller did not ask. It is looked at when this commit ends: somebody may have agreed meanwhile."""
        said = [
            (decode_question(value), value, at) for value, at in zip(batch.values, batch.times, strict=True) if value
        ]
        rows = [self.row_of(question.subject, question.labels[0]) for question, _, _ in said]
        asked = self.asked.load(rows)
        self.noted.load(rows)
        for row, (question, value, at) in zip(rows, said, strict=True):
            if asked[row] != AskedAt(question.at, question.again):
                self.counters.late += 1
                continue
            self.forget(row)
            self._note(row, question, Noted(value, at + later_ms(question.again), at + self.keep_ms))
            self.counters.noted += 1

    def _note(self, row: bytes, question: Question, noted: Noted) -> None:
        self.noted.put(row, noted)
        self.looks.schedule(noted.look, row)
        for label in question.labels:
            self.holders.add(self.decided.veil(label).encode(), row)

    def forget(self, row: bytes) -> bool:
        """Whether there was something."""
        noted = self.noted.get(row)
        if noted is None:
            return False
        self.noted.delete(row)
        self.looks.cancel(noted.look, row)
        for label in decode_question(noted.question).labels:
            self.holders.remove(self.decided.veil(label).encode(), row)
        return True

    def forget_label(self, label: str) -> int:
        """All that name it; how many."""
        name, count = self.decided.veil(label).encode(), 0
        while members := self.holders.members(name, PORTION):
            for row in members:
                self.forget(row)
                self.holders.remove(name, row)
            count += len(members)
        return count

    # -------------------------------------------------------------------------------------------------------- looking
    def wants(self, now: int) -> bool:
        return self.hearing.whole(self.seen) and (
            bool(self.rest) or self.sweep is not None or self.looks.wants(now) or self.hearing.has_news(self.seen)
        )

    def finish(self, now: int, out: Outbox) -> None:
        """Ask again what may be asked by now, a portion. Nothing is done while it cannot be told. Raises Shut."""
        if not self.wants(now):
            return
        try:
            self._hear()
            due: dict[bytes, None] = {}
            self._due_by_name(due)
            self._due_by_sweep(due)
            if self.looks.wants(now):
                due.update((key, None) for _, key, _ in self.looks.pop(now, PORTION))
            self.noted.load(due)
            for row in due:
                self._look(row, now, out)
        except Stale as stale:
            raise Shut("copy", str(stale)) from stale

    def _hear(self) -> None:
        if self.rest or not self.hearing.has_news(self.seen):
            return
        labels, self.seen, anew = self.hearing.news(self.seen, PORTION)
        self.rest, self.sweep = [(label, "") for label in labels], "" if anew else self.sweep

    def _due_by_name(self, due: dict[bytes, None]) -> None:
        done = 0
        for label, start in self.rest:
            if (room := PORTION - len(due)) <= 0:
                break
            members = self.holders.members(label.encode(), room, start.encode())
            due.update(dict.fromkeys(members))
            if len(members) == room:
                self.rest[done] = label, members[-1].decode() + "\0"
                break
            done += 1
        del self.rest[:done]

    def _due_by_sweep(self, due: dict[bytes, None]) -> None:
        if self.sweep is None or len(due) >= PORTION:
            return
        found = [row for row, _ in islice(self.noted.scan(self.sweep.encode()), PORTION)]
        due.update(dict.fromkeys(found))
        self.sweep = found[-1].decode() + "\0" if len(found) == PORTION else None

    def _look(self, row: bytes, now: int, out: Outbox) -> None:
        noted = self.noted.get(row)
        if noted is None:
            return
        question = decode_question(noted.question)
        if self.decided.suppressed(question):
            self.forget(row)
            return
        if now >= noted.until:
            self.counters.expired += 1
            self.forget(row)
            return
        found = self.decided.verdict(question, now)
        if found.allowed:
            again = question.again + 1
            self.forget(row)
            self.asked.put(row, AskedAt(question.at, again))
            asks = msgspec.structs.replace(question, again=again)
            out.send(self.questions, question.labels[0].encode(), encode(asks))
            self.counters.agreed += 1
            return
        look = noted.until if found.changes_at is None else min(noted.until, found.changes_at)
        self.looks.cancel(noted.look, row)
        self.looks.schedule(look, row)
        if look != noted.look:
            self.noted.put(row, msgspec.structs.replace(noted, look=look))


def later_ms(again: int) -> int:
    """How long one that was withheld waits for its first look: the copies of two processes may differ for a moment."""
    return 0 if again == 0 else min(LATER_MOST_MS, LATER_MS * 2 ** min(again - 1, 30))
