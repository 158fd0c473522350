"""The turnstile makes loops take turns, and never stops one."""

from __future__ import annotations

import threading
import time

from c360.engine import turnstile
from c360.engine.turnstile import Turn, Turnstile


def test_the_second_waits_until_the_first_has_left() -> None:
    shared = Turnstile()
    first, second = Turn(shared), Turn(shared)
    seen: list[str] = []
    first.take()
    first.take()  # in the middle of a batch it commits

    def other() -> None:
        second.take()
        seen.append("second")
        second.leave()

    thread = threading.Thread(target=other)
    thread.start()
    seen.append("first")
    first.leave()
    thread.join(10)
    assert seen == ["first", "second"]
    first.take()
    assert first._mine, "the second has left"
    first.leave()
    first.leave()


def test_who_has_waited_long_goes_on_without_it(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(turnstile, "PATIENCE_S", 0.01)
    shared = Turnstile()
    first, second = Turn(shared), Turn(shared)
    first.take()  # and never comes back
    second.take()
    second.leave()
    assert first._mine, "what it did not get it cannot give away"


def test_behind_a_loop_keeps_its_turn_for_several_batches(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    turn = Turn(Turnstile())
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    turn.take()
    turn.leave(unless_fresh=True)
    assert turn._mine
    now += 2 * turnstile.HELD_S
    turn.leave(unless_fresh=True)
    assert not turn._mine
