"""When the last owner of a task is given up for dead."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from c360.engine import owners
from c360.engine.owners import LastOwners
from c360.errors import BrokerAway, C360Error


class Case:
    """An owner whose transactions are told one after the other, each `step_s` after the last."""

    def __init__(self, *told: int | C360Error | None, step_s: float = 1.0, abandoned_s: float = 5.0) -> None:
        self.told: Iterator[int | C360Error | None] = iter(told)
        self.now_ms = 1_000
        self.evicted: list[str] = []
        last = LastOwners(self._since, self.evicted.append, lambda: self.now_ms, abandoned_s)
        last.add("dead")
        self.looks = 0
        for _ in told:
            if not last.due():
                break
            last.look()
            self.looks += 1
            self.now_ms += int(step_s * 1000)
        self.still_asked = last.due()

    def _since(self, owner: str) -> int | None:
        assert owner == "dead"
        found = next(self.told)
        if isinstance(found, C360Error):
            raise found
        return found


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owners, "LOOK_S", 0.0)


def test_the_same_old_transaction_twice_is_a_dead_ones() -> None:
    case = Case(0, 0, step_s=6.0)
    assert case.evicted == ["dead"]
    assert not case.still_asked


def test_one_look_is_not_enough_however_old_it_is() -> None:
    """Clocks differ: a worker's may be ahead of the broker's by minutes."""
    assert Case(-600_000).evicted == []
    assert Case(-600_000).still_asked


def test_a_young_one_is_asked_about_until_it_is_old() -> None:
    case = Case(1_000, 1_000, 1_000, 1_000, 1_000, 1_000, 1_000)
    assert case.evicted == ["dead"]
    assert case.looks == 6


@pytest.mark.parametrize("then", [None, 2_000], ids=["at rest", "another"])
def test_who_ends_it_is_alive(then: int | None) -> None:
    case = Case(0, then, 0, step_s=60.0)
    assert case.evicted == []
    assert case.looks == 2
    assert not case.still_asked


def test_a_broker_that_does_not_answer_is_asked_again() -> None:
    assert Case(0, BrokerAway("injected"), 0, step_s=60.0).evicted == ["dead"]


def test_zero_is_never() -> None:
    assert Case(0, 0, step_s=60.0, abandoned_s=0.0).looks == 0


def test_a_broker_that_refuses_to_tell_is_not_asked_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owners, "GIVE_UP_S", 0.0)
    case = Case(BrokerAway("not allowed"))
    assert not case.still_asked
