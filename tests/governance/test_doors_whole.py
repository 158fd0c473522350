"""Doors with the agents that they rest on: what people say comes in raw topics, and merges come from identity.

Of a seed: records, decisions, withdrawals, ends of decisions, merges and un-merges, crashes, lost disks, rebalances, a consent
agent that is stopped, resets. Whenever all has come to rest with everybody at work, the oracle of `c360 verify` says what the
far sides hold; and whenever the consent agent has been down for longer than a second, nothing new has left.
"""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from typing import Any

import pytest

from c360.agents.door import DoorAgent
from c360.assembly import Stepping
from c360.testing import TestDriver
from tests.governance.door_shop import HOUR, NOW, SECOND, shop

STEPS = 40
PEOPLE, COOKIES = 4, 4


class Town(TestDriver):
    """The shop with all of its agents, of which consent may be stopped."""

    __test__ = False

    def __init__(self) -> None:
        self.silent = False
        self.said = 0
        super().__init__(shop(), now=NOW)

    def _process(self) -> Stepping:
        made = super()._process()
        if not self.silent:
            return made
        stopped = [loop for loop in made.loops if loop.agent.name == "consent"]
        of_consent = [teller for teller in made.tellers if teller.group == self.plan.agent("consent").group]
        for loop in stopped:
            loop.close()
        for teller in of_consent:
            teller.close()
        tellers = [teller for teller in made.tellers if teller not in of_consent]
        return Stepping([loop for loop in made.loops if loop not in stopped], made.tables, tellers)

    def again(self, *, silent: bool) -> None:
        """Another worker in its place, with the consent agent or without."""
        self.stop()
        self.silent = silent
        self.start()

    def customer(self, n: int, cookie: str | None, name: str) -> None:
        self.said += 1
        source = {"ts_ms": self.now_ms, "lsn": self.said}
        row = {"id": str(n), "cookie": cookie, "name": name}
        envelope = {"before": None, "after": row, "op": "u", "ts_ms": self.now_ms, "source": source}
        self.send("customers", key=str(n), value=envelope)

    def click(self, cookie: str) -> None:
        self.said += 1
        self.send("clicks", key=cookie, value={"id": str(self.said), "cookie": cookie, "page": f"/{self.said % 3}"})

    def choose(self, n: int, purpose: str, status: str, at: datetime, ends: datetime | None = None) -> None:
        said = {"id": str(n), "purpose": purpose, "granted": status == "granted", "at": at.isoformat()}
        self.send("choices", key=str(n), value=said | ({} if ends is None else {"expires_at": ends.isoformat()}))

    def held(self) -> object:
        return [list(self.read(self.plan.leaves(door))) for door in self.plan.doors if door.purpose.asks]

    def checked(self) -> None:
        self.verify(*(door.agent for door in self.plan.doors))


def happens(t: Town, dice: random.Random) -> None:
    now = NOW + timedelta(milliseconds=t.now_ms - int(NOW.timestamp() * 1000))
    match dice.randrange(14):
        case 0 | 1 | 2:
            cookie = dice.choice([None, *(f"c{n}" for n in range(COOKIES))])
            t.customer(dice.randrange(PEOPLE), cookie, f"N{dice.randrange(5)}")
        case 3 | 4:
            t.click(f"c{dice.randrange(COOKIES)}")
        case 5 | 6 | 7:
            purpose, status = dice.choice(("marketing", "stats")), dice.choice(("granted", "granted", "denied"))
            ends = now + dice.choice((1, 3600)) * SECOND if dice.random() < 0.3 else None
            t.choose(dice.randrange(PEOPLE), purpose, status, now - dice.randrange(3) * SECOND, ends)
        case 8:
            t.advance(dice.choice((SECOND, HOUR)))
        case 9:
            t.crash()
        case 10:
            t.lose_disk()
        case 11:
            t.rebalance()
        case 12:
            t.again(silent=dice.random() < 0.5)
            if t.silent:
                t.advance(2 * SECOND)
        case 13:
            if not t.silent:
                t.reset(dice.choice(["customer@1:marketing", "sink:crm-sync"]))


@pytest.mark.parametrize("seed", range(5))
def test_far_sides_hold_what_they_should_whatever_happens(seed: int) -> None:
    dice = random.Random(seed)
    with Town() as t:
        for _ in range(STEPS):
            happens(t, dice)
            if t.silent:
                t.settle()
                before = t.held()
                t.customer(dice.randrange(PEOPLE), None, "nobody may know")
                t.settle()
                assert not delivered_since(before, t.held())
            elif dice.random() < 0.3:
                t.checked()
        t.again(silent=False)
        t.checked()


def delivered_since(before: object, after: object) -> list[object]:
    """Records that are no tombstones, and were not there."""
    assert isinstance(before, list)
    assert isinstance(after, list)
    return [one for old, new in zip(before, after, strict=True) for one in new if one not in old and one[1] is not None]


def test_a_withdrawal_in_a_raw_topic_empties_view_and_sink_and_an_erasure_all_doors() -> None:
    with Town() as t:
        t.customer(1, "a", "Ann")
        t.click("a")
        t.choose(1, "marketing", "granted", NOW - HOUR)
        assert t.view("marketing").keys() == t.sink("crm-sync").keys() == {"crm:1"}
        t.advance(HOUR)
        t.choose(1, "marketing", "denied", NOW)
        assert t.view("marketing") == t.sink("crm-sync") == {}
        assert t.view("service").keys() == {"crm:1"}
        t.choose(1, "marketing", "granted", NOW + HOUR)
        assert t.sink("crm-sync").keys() == {"crm:1"}
        t.send("forget", key="1", value={"id": "1"})
        assert t.view("service") == t.view("marketing") == t.sink("crm-sync") == {}
        for _ in range(5):
            t.advance(HOUR)
            t.settle()
        doors = [loop for loop in t.loops if isinstance(loop.agent, DoorAgent)]
        rows = [
            row for loop in doors for task in loop.tasks.values() if task.processor for row in _rows(task.processor)
        ]
        assert not [row for row in rows if b"crm:1" in row[0] or b"crm:1" in str(row[1]).encode()]
        (certificate,) = t.topic(t.plan.erasures)
        assert certificate


def _rows(processor: Any) -> list[tuple[bytes, Any]]:
    return [row for table in processor.tables for row in table.scan()]
