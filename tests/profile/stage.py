"""A world driven by hand: what is told is folded at once, what is sent waits until it is delivered."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import count, islice
from random import Random
from typing import Any

from tests.profile.moving import IDS, History, World
from tests.profile.moving_task import Outcome, Record, Rules, Task
from tests.profile.oracle import Item, Rule, Source


class Stage:
    """`at(2)` is a name on partition 2; `at(2, 1)` another one there."""

    def __init__(self, rules: Sequence[Rule], partitions: int = 3) -> None:
        self.rules = Rules([IDS, *rules], partitions)
        self.world = World(History(self.rules), Random(0), crash=0)

    def at(self, partition: int, nth: int = 0) -> str:
        names = (name for name in map("crm:{}".format, count()) if self.rules.partition(name) == partition)
        return next(islice(names, nth, None))

    def home(self, key: str) -> Task:
        return self.world.tasks[self.rules.partition(key)]

    def tell(self, key: str, *values: Any) -> Outcome:
        """One step with these inputs of one key."""
        topics = {"Assigned": "assignments", "Unassigned": "assignments", "Erased": "erased", "Day": "days"}
        for value in values:
            topic = value.item.source if isinstance(value, Record) else topics[type(value).__name__]
            self.world.history.topics[topic].append((key, value))
        outcome = self.home(key).step([(key, value) for value in values])
        self.world._commit(self.home(key), outcome)
        return outcome

    def fold(
        self,
        subject: str,
        source: Source = "events",
        *,
        at: int = 0,
        sign: int = 1,
        mask: int = 0,
        life: int = 0,
        **fields: Any,
    ) -> Outcome:
        """One step with one record. `fields` that are not given are None; a record's id is what is in it."""
        names = {name for rule in self.rules.rules for _, name in rule.inputs}
        item = Item(
            source, at, mask, dict.fromkeys(names) | fields | {"id": f"{subject}#{source} {at} {mask} {fields}"}
        )
        return self.tell(subject, Record(subject, item, sign, life))

    def deliver(self, sender: str, receiver: str, n: int = 1) -> None:
        """The next messages that the task of one key has sent to that of another."""
        task = self.home(receiver)
        queue = self.world.pairs[task.partition][self.rules.partition(sender)]
        for _ in range(n):
            assert queue, "nothing is on its way"
            self.world._commit(task, task.step([queue.popleft()]))

    def on_the_way(self, sender: str, receiver: str) -> int:
        return len(self.world.pairs[self.rules.partition(receiver)][self.rules.partition(sender)])

    def rest(self) -> None:
        """Deliver everything; then the output is what it means."""
        self.world.run()
        self.world.assert_at_rest()
        assert self.world.diverged() == ""

    def record(self, profile: str) -> Any:
        """The latest record as JSON; None without one."""
        data = self.world.records.get((0, profile))
        return None if data is None else json.loads(data)

    def shows(self, profile: str, name: str) -> Any:
        record = self.record(profile)
        return None if record is None else record["attributes"][name]

    def members(self, profile: str) -> list[str]:
        record = self.record(profile)
        return [] if record is None else record["subjects"]
