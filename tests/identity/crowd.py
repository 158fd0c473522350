"""Small random histories side by side: each of a few people of its own, who meet, are refused and part; for the people app.

What a history has of its own: its people's identifiers, its rows and the ids of its events, so that nothing of one says
anything about another, and each is one answer to compare.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from typing import Any

from c360.engine.partition import partition_of
from c360.engine.transport import Producer
from c360.identity.facts import Claim, Fact, cannot, encode_fact, link
from c360.ops.load import RawRecord
from c360.plan import OPERATOR, Plan
from c360.testing.records import Maker

OPERATED = 0.04  # of the records, an operator says something, too
DEAD = 0.3  # of these, takes it back


class History(Maker):
    """Records of one history. A table that is emptied would be so for all, so none is."""

    def __init__(self, plan: Plan, seed: int, number: int) -> None:
        super().__init__(plan, random.Random(f"history {seed} {number}"))
        self.number, self.said = number, 0

    def record(self, now_ms: int) -> RawRecord:
        while True:
            made = super().record(now_ms)
            if made.value is None or b'"op": "t"' not in made.value:
                return made

    def operated(self, now_ms: int) -> list[Fact]:
        """An operator says that two are one customer, or not, or takes that back; mostly nothing."""
        one, two = sorted((self.subject(), self.subject()))
        if self.dice.random() >= OPERATED or one == two:
            return []
        self.said += 1
        claim = Claim(now_ms + self.said, dead=self.dice.random() < DEAD, first_seen=now_ms)
        if self.dice.random() < 0.5:
            return [cannot(one, two, "operator", claim)]
        case = f"{OPERATOR}:h{self.number}-{self.dice.randrange(2)}"
        return [link(subject, case, "operator", claim) for subject in (one, two)]

    def _identifier(self, normalize: Any) -> str:
        made = super()._identifier(normalize)
        bare = made.strip().lower()
        if not bare.startswith("v"):
            return made  # nobody's
        said = f"h{self.number}{bare}"
        return f" {said.upper()} " if made != bare and normalize(f" {said.upper()} ") == normalize(said) else said

    def _plain(self, kind: Any) -> Any:
        made = super()._plain(kind)
        if kind is int:
            return self.number * 100 + made + 1
        return f"h{self.number}{made}" if kind is str else made


def crowd(plan: Plan, seed: int, histories: int, records: int, now_ms: int) -> Iterator[RawRecord | Fact]:
    """All of them, mixed; each keeps its order. `records`: of each history, and facts of operators come on top."""
    made = [History(plan, seed, number) for number in range(histories)]
    turns = [history for history in made for _ in range(records)]
    random.Random(seed).shuffle(turns)
    for history in turns:
        yield history.record(now_ms)
        yield from history.operated(now_ms)


def say(fact: Fact, plan: Plan, producer: Producer) -> None:
    """Write a fact as `c360 identity` does."""
    key, value = encode_fact(fact)
    producer.produce(plan.links, key, value, partition_of(fact.subject.encode(), plan.partitions))


def history_of(label: str) -> int | None:
    """The number of the history that a subject's label is of; None of what is nobody's."""
    found = re.fullmatch(r"[a-z_]+:h(\d+)v\d+", label)
    return int(found[1]) if found else None
