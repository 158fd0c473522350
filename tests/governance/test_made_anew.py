"""Topics that doors and govern believe, deleted and created again: it is all written again, and until then all waits."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from c360.agents import anew
from c360.agents.door import DoorAgent
from c360.engine.transport import TP
from c360.errors import NeedsOperator
from c360.governance.consent import decode_state
from c360.governance.fence import decode_statement
from c360.ops import topics
from c360.ops.reset import plan_reset
from c360.testing import TestDriver
from tests.governance.door_shop import NOW, SECOND, shop

CONSENT, SUPPRESSED, FENCE = "doors.consent", "doors.suppressed", "doors.fence"
CLOSER = 6  # seconds: longer than between two looks at which topics there are


class Town(TestDriver):
    """The shop with all of its agents."""

    __test__ = False

    def __init__(self) -> None:
        super().__init__(shop(), now=NOW)
        self.said = 0

    def customer(self, n: int, cookie: str | None = None, name: str = "Ann") -> None:
        self.said += 1
        source = {"ts_ms": self.now_ms, "lsn": self.said}
        row = {"id": str(n), "cookie": cookie, "name": name}
        self.send(
            "customers",
            key=str(n),
            value={"before": None, "after": row, "op": "u", "ts_ms": self.now_ms, "source": source},
        )

    def choose(self, n: int, *, granted: bool) -> None:
        at = (NOW + timedelta(milliseconds=self.now_ms - int(NOW.timestamp() * 1000))).isoformat()
        self.send("choices", value={"id": str(n), "purpose": "marketing", "granted": granted, "at": at})

    def make_anew(self, topic: str) -> None:
        admin = self.cluster.admin()
        admin.delete([topic])
        topics.apply(self.plan, admin)

    def look(self) -> None:
        """Agents look at what topics there are, and copies too."""
        self.now_ms += 1000 * CLOSER
        for loop in self.loops:
            loop._look_again = 0.0

    def decided(self) -> dict[str, str]:
        held = {k.decode(): v for k, v in self.read(CONSENT) if k is not None and v is not None}
        return {who: decode_state(value)["marketing"].holds.status for who, value in sorted(held.items())}

    def topic_id(self, topic: str) -> str:
        return self.cluster.admin().topic_ids([topic])[topic]

    def stated_of(self, topic: str) -> set[str]:
        """Ids of the topic that the newest statements are about."""
        newest = {k: decode_statement(v) for k, v in self.read(FENCE) if k is not None and v is not None}
        return {said.of for said in newest.values() if said.ends[0][0].topic == topic}


def two_who_are_one() -> Town:
    """A profile of two customers, of whom one allows marketing and the other does not."""
    t = Town()
    t.customer(1, "a")
    t.customer(2, "a")
    t.choose(1, granted=False)
    t.choose(2, granted=True)
    assert t.view("marketing") == t.sink("crm-sync") == {}
    assert len(t.view("service")) == 1
    return t


def door_of(t: TestDriver) -> DoorAgent:
    return next(a for loop in t.loops if isinstance(a := loop.agent, DoorAgent) and a.name == "customer@1:marketing")


def said_again(t: Town) -> None:
    """Somebody who allows it says so once more: the only word that would be in the new topic by itself."""
    t.now_ms += 1000
    t.choose(2, granted=True)


# ---------------------------------------------------------------------------------------------------------- consent
@pytest.mark.parametrize("portion", [1, 20_000])
def test_what_was_decided_is_written_again_and_a_refusal_is_not_forgotten(
    portion: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(anew, "PORTION", portion)
    with two_who_are_one() as t:
        t.make_anew(CONSENT)
        assert list(t.read(CONSENT)) == []
        said_again(t)
        assert t.view("marketing") == t.sink("crm-sync") == {}
        t.look()
        assert t.view("marketing") == t.sink("crm-sync") == {}
        assert t.decided() == {"crm:1": "denied", "crm:2": "granted"}
        assert t.stated_of(CONSENT) == {t.topic_id(CONSENT)}
        t.verify()
        t.now_ms += 1000
        t.choose(1, granted=True)
        assert len(t.view("marketing")) == len(t.sink("crm-sync")) == 1
        t.verify()


def test_until_it_is_written_the_fence_is_shut_and_says_so() -> None:
    """The agent has not looked yet: a new word is in the new topic, and the old ones are not."""
    with two_who_are_one() as t:
        t.make_anew(CONSENT)
        t.now_ms += 1000 * CLOSER  # copies look, the agent does not
        said_again(t)
        t.settle()
        assert t.decided() == {"crm:2": "granted"}
        assert t.view("marketing") == t.sink("crm-sync") == {}
        shut = door_of(t).counters.shut
        assert shut["anew"] or shut["stale"], shut
        assert t.stated_of(CONSENT) != {t.topic_id(CONSENT)}, "nothing is told of a topic that does not hold all"


def test_a_door_whose_copy_is_still_of_the_old_topic_waits() -> None:
    """It has read further in that one than the new one goes, and not the refusal that is in the new one only."""
    t = Town()
    t.customer(1, name="Ann")
    for _ in range(5):
        t.now_ms += 100
        t.choose(1, granted=True)
        t.settle()
    assert [record["attributes"]["name"] for record in t.view("marketing").values()] == ["Ann"]
    with t:
        t.make_anew(CONSENT)
        for loop in t.loops:
            loop._look_again = 0.0
        t.now_ms += 100
        t.choose(1, granted=False)
        t.settle()
        assert t.stated_of(CONSENT) == {t.topic_id(CONSENT)}
        t.customer(1, name="a name that nobody may know")
        t.settle()
        held = [value for _, value in t.read("doors.customer.v1.marketing") if value is not None]
        assert not any(b"nobody may know" in value for value in held)
        assert door_of(t).counters.shut["anew"]
        t.look()
        assert t.view("marketing") == {}
        t.verify()


@pytest.mark.parametrize("accident", ["crash", "lose_disk", "rebalance"])
def test_a_crash_in_the_middle_of_writing_it_again_loses_nothing(
    accident: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(anew, "PORTION", 1)
    with two_who_are_one() as t:
        t.make_anew(CONSENT)
        t.look()
        (consent,) = [loop for loop in t.loops if loop.agent.name == "consent"]
        while not list(t.read(CONSENT)):
            consent.turn(0.0)
        assert len(t.decided()) == 1
        getattr(t, accident)()
        assert t.view("marketing") == {}
        assert t.decided() == {"crm:1": "denied", "crm:2": "granted"}
        t.verify()


def test_it_is_noticed_also_while_nothing_ran_and_once_more_while_it_is_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(anew, "PORTION", 1)
    with two_who_are_one() as t:
        t.stop()
        t.make_anew(CONSENT)
        t.start()
        (consent,) = [loop for loop in t.loops if loop.agent.name == "consent"]
        while not list(t.read(CONSENT)):
            consent.turn(0.0)
        t.make_anew(CONSENT)
        t.look()
        assert t.view("marketing") == {}
        assert t.decided() == {"crm:1": "denied", "crm:2": "granted"}


def test_a_reset_does_not_take_what_is_known_out_of_a_topic_that_does_not_have_it() -> None:
    with two_who_are_one() as t:
        t.stop()
        t.make_anew(CONSENT)
        with pytest.raises(
            NeedsOperator, match=r"doors.consent was deleted .* run until `c360 verify consent` is content"
        ):
            plan_reset(t.plan, t.cluster, "consent")
        t.start()
        t.settle()
        t.reset("consent")
        assert t.decided() == {"crm:1": "denied", "crm:2": "granted"}
        assert t.view("marketing") == {}


def test_nothing_is_written_twice_while_the_topic_is_the_same() -> None:
    with two_who_are_one() as t:
        before = list(t.read(CONSENT))
        t.look()
        t.settle()
        t.lose_disk()
        t.rebalance()
        t.reset("consent")
        t.settle()
        assert list(t.read(CONSENT)) == before


# ------------------------------------------------------------------------------------------------------- suppressed
def erased_one() -> Town:
    t = Town()
    t.customer(1, "a")
    t.customer(3, "c", "Bob")
    t.choose(1, granted=True)
    t.choose(3, granted=True)
    assert len(t.view("marketing")) == 2
    assert t.erase("crm:1") is not None
    assert len(t.view("marketing")) == 1
    return t


def test_who_is_suppressed_is_written_again_and_nobody_who_was_forgotten_comes_back() -> None:
    with erased_one() as t:
        ends = t.cluster.reader().ends([TP(SUPPRESSED, p) for p in range(2)])
        t.make_anew(SUPPRESSED)
        t.look()
        t.customer(1, "a", "Ann again")
        assert len(t.view("marketing")) == len(t.view("service")) == 1
        assert t.stated_of(SUPPRESSED) == {t.topic_id(SUPPRESSED)}
        now = t.cluster.reader().ends([TP(SUPPRESSED, p) for p in range(2)])
        assert all(now[tp] >= end for tp, end in ends.items()), "what govern has passed would count for what comes"
        t.now_ms += 1000
        t.choose(1, granted=True)
        assert len(t.view("marketing")) == 1
        t.verify()
        t.look()
        certificate = t.erase("crm:3")
        assert certificate is not None
        assert t.view("marketing") == t.view("service") == {}
        t.lift(certificate)
        t.customer(3, "d", "Bob")
        assert len(t.view("service")) == 1
        t.verify()


def test_until_it_is_written_govern_takes_nothing_in_and_doors_are_shut() -> None:
    """Only copies have noticed it."""
    with erased_one() as t:
        govern: Any = next(loop for loop in t.loops if loop.agent.name == "govern")
        t.make_anew(SUPPRESSED)
        t.now_ms += 1000 * CLOSER
        for table in t.processes[0].tables:
            for _ in range(10):
                table.turn()
        t.customer(1, "a", "Ann again")
        for _ in range(50):
            for loop in t.loops:
                if loop.agent.name == "erasure":
                    continue
                loop.turn(0.0)
        assert "suppressed-unknown" in govern.shut_told
        governed = t.plan.governed(next(s for s in t.plan.sources if s.topic == "customers"))
        assert len(list(t.read(governed))) == 2, "the two of before"
        assert door_of(t).counters.shut
        t.look()
        assert len(t.view("service")) == 1
        t.verify()


def test_it_is_noticed_also_while_nothing_ran() -> None:
    with erased_one() as t:
        t.stop()
        t.make_anew(SUPPRESSED)
        t.start()
        t.now_ms += int(SECOND.total_seconds() * 1000)
        t.customer(1, "a", "Ann again")
        assert len(t.view("service")) == 1
        t.look()
        assert t.erase("crm:3") is not None
        assert t.view("service") == {}
        t.verify()
