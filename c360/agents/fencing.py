"""The fence as a door meets it: statements and copies of this process, and which inputs there are, in one question.

    governance copy ──statements, how far it is──┐
    broker ──which partitions the inputs have────┴──► held? ──► Answer

A raw topic that does not exist has no partitions, and cannot hold a withdrawal; so which there are is asked of the broker
every few seconds. By so much a door may be late to notice a partition that was added. One that somebody has spoken of and that
is not seen any more (deleted, or hidden from this process by an ACL) still counts. `c360.governance.fence` decides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from c360.engine.global_table import GlobalTable
from c360.engine.transport import TP
from c360.errors import Shut
from c360.governance.fence import (
    WHYS,
    Answer,
    Place,
    Statement,
    ask,
    decode_statement,
    encode_statement,
    kept,
    statement_key,
)
from c360.governance.purposes import Purpose
from c360.plan import Plan

INPUTS_S = 5.0  # between two looks at which partitions there are


class Stater(NamedTuple):
    """An agent that states how far it is: what it reads, and what it writes."""

    inputs: tuple[str, ...]
    output: str


def staters_of(plan: Plan, purpose: Purpose) -> tuple[Stater, ...]:
    """Whose statements a door of this purpose needs; none: there is no fence.

    Where people are not asked, it is only whether they asked to be forgotten.
    """
    found = []
    if purpose.asks:
        topics = (*(s.asked.topic for s in plan.consents), plan.consent_commands)
        found.append(Stater(tuple(dict.fromkeys(topics)), plan.consent))
    if plan.erases:
        topics = (*(s.asked.topic for s in plan.erasures_said), plan.erasure_commands)
        found.append(Stater(tuple(dict.fromkeys(topics)), plan.suppressed))
    return tuple(found)


class Fence:
    """Of one agent's doors. Used by one thread; `governance` is followed by another."""

    def __init__(
        self,
        plan: Plan,
        purpose: Purpose,
        governance: GlobalTable,
        partitions: Callable[[], Mapping[str, int]],
        *,
        max_age_ms: int,
        inputs_s: float = INPUTS_S,
    ) -> None:
        """`partitions`: how many each topic of the broker has."""
        self.topic, self.staters = plan.fence, staters_of(plan, purpose)
        self.governance, self.partitions, self.max_age_ms, self.inputs_s = governance, partitions, max_age_ms, inputs_s
        self.age_ms = 0  # of the oldest statement that was needed, when it was asked last
        self._asked_s: float | None = None
        self._inputs: list[list[Place]] = []
        self._said: list[dict[Place, tuple[Statement, ...]]] = [{} for _ in self.staters]
        self._others: set[Place] = set()  # of which the newest statement is about a topic that is not the one copied

    def held(self, now: int) -> Answer:
        """Whether something may leave at `now`. Raises Stale while there is no whole copy, BrokerAway."""
        until = None
        for number, inputs in enumerate(self._places()):
            if not inputs:
                return Answer(False, "silent")
            copied = {Place(*tp): offset for tp, offset in self.governance.reached().items()}
            said = self._statements(number, inputs, copied)
            answer = ask(inputs, said, copied, now=now, fence_max_age_ms=self.max_age_ms)
            if answer.why == "silent" and answer.input in self._others:
                answer = Answer(False, "anew", answer.input)
            if not answer.deliver:
                newest = max((s.at for s in said.get(answer.input or inputs[0], ())), default=0)
                self.age_ms = now - newest
                return answer
            assert answer.until is not None
            until = answer.until if until is None else min(until, answer.until)
        if until is not None:
            self.age_ms = max(0, now + self.max_age_ms + 1 - until)
        return Answer(True, "open", None, until)

    def _places(self) -> list[list[Place]]:
        now_s = self.governance.monotonic()
        if self._asked_s is None or now_s - self._asked_s >= self.inputs_s:
            counts = self.partitions()
            self._inputs = [
                [
                    place
                    for topic in stater.inputs
                    for place in [Place(topic, p) for p in range(counts.get(topic, 0))]
                    or self._spoken_of(topic, stater)
                ]
                for stater in self.staters
            ]
            self._asked_s = now_s
        return self._inputs

    def _spoken_of(self, topic: str, stater: Stater) -> list[Place]:
        said = statement_key(Place(topic, 0), stater.output).removesuffix(b"0")
        return [decode_statement(value).input for _, value in self.governance.scan(said, self.topic)]

    def _statements(
        self, number: int, inputs: list[Place], copied: Mapping[Place, int]
    ) -> Mapping[Place, tuple[Statement, ...]]:
        """Of these inputs, as far as they may still be needed: the table has the newest only, which may not be reached yet.

        One that is about another output says nothing here, be it one of the same name that is deleted.
        """
        output, known = self.staters[number].output, self._said[number]
        of = self.governance.ids().get(output, "")
        keys = [statement_key(place, output) for place in inputs]
        found: dict[Place, tuple[Statement, ...]] = {}
        for place, value in zip(inputs, self.governance.get_many(keys, self.topic), strict=True):
            said = {s.at: s for s in known.get(place, ()) if s.of == of}
            self._others.discard(place)
            if value is not None:
                statement = decode_statement(value)
                if statement.of != of:
                    self._others.add(place)
                elif statement.input == place and statement.ends and all(p.topic == output for p, _ in statement.ends):
                    said[statement.at] = statement
            found[place] = kept(said.values(), copied)
        self._said[number] = found
        return found


def shut_by(answer: Answer) -> Shut:
    """What a door raises that is told to wait."""
    of = f"{answer.input.topic}/{answer.input.partition}: " if answer.input is not None else ""
    return Shut(answer.why, f"{of}{WHYS[answer.why]}")


def statement(of: TP, at_ms: int, ends: Sequence[tuple[TP, int]], topic_id: str) -> tuple[bytes, bytes]:
    """Key and value of a statement of the fence."""
    said = Statement(Place(*of), at_ms, tuple((Place(*tp), end) for tp, end in ends), topic_id)
    return statement_key(said.input, ends[0][0].topic), encode_statement(said)
