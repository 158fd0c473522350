"""What a story sends to the raw topics of the notes app, and what it remembers of that."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from c360.engine.kafka import KafkaCluster
from c360.engine.transport import Producer, TopicSpec
from c360.ops import dlq
from c360.plan import Plan
from tests.stories.notes import NOTES, ROWS, plan_of

SECRET = "Wilhelmina Secret"  # in every bad value, and nowhere in a log
Letter = tuple[str, int, int]  # raw topic, partition, offset


def note(id: str | None, text: Any = "fine", **more: Any) -> bytes:
    return json.dumps({"id": id, "text": text, **more}).encode()


@dataclass
class Sent:
    """Records to one partition after the other, and what is expected of them."""

    name: str
    cluster: KafkaCluster
    bad: dict[Letter, str] = field(default_factory=dict)  # -> expected reason
    either: set[Letter] = field(default_factory=set)
    notes: dict[str, int] = field(default_factory=dict)  # by subject
    count: int = 0

    def __post_init__(self) -> None:
        self.plan: Plan = plan_of(self.name)
        self.topics = {short: f"{self.name}.{short}" for short in (NOTES, ROWS)}
        # As `c360 load` makes them: a record of 5 MB is none of the broker's business.
        large = {"max.message.bytes": str(16 << 20)}
        self.cluster.admin().create([TopicSpec(t, 2, large) for t in self.topics.values()])
        self.producer: Producer = self.cluster.producer()

    def __call__(
        self,
        key: bytes | None,
        value: bytes | None,
        *,
        bad: str = "",
        either: bool = False,
        to: str = NOTES,
        partition: int | None = None,
    ) -> None:
        """One record. `bad`: the reason it is put aside for; `either`: it may be."""
        self.count += 1
        topic, partition = self.topics[to], self.count % 2 if partition is None else partition

        def delivered(offset: int, _: int | None) -> None:
            if bad:
                self.bad[topic, partition, offset] = bad
            if either:
                self.either.add((topic, partition, offset))

        self.producer.produce(topic, key, value, partition, delivered=delivered)

    def good(self, *, to: str = "crm:good") -> None:
        """A note that nothing is wrong with."""
        said = f"good {self.count}"
        self(to.removeprefix("crm:").encode(), note(said, said))
        self.notes[to] = self.notes.get(to, 0) + 1

    def letters(self) -> dict[Letter, list[dlq.DeadLetter]]:
        """What govern has put aside."""
        found: dict[Letter, list[dlq.DeadLetter]] = {}
        for letter in dlq.read(self.plan, self.cluster):
            if letter.misfit.stage == "govern":
                found.setdefault((letter.misfit.topic, letter.misfit.partition, letter.misfit.offset), []).append(
                    letter
                )
        return found
