"""What is done about a process that has ended, and that it is done."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from c360.ops.supervisor import Again, GiveUp, Supervisor, after


@pytest.mark.parametrize("code", [2, 3, 4])
def test_what_would_end_the_same_way_is_not_started_again(code: int) -> None:
    assert after(code, 0.1, 0) == GiveUp(code)


def test_pauses_grow_and_are_forgotten_after_a_healthy_life() -> None:
    pauses, failures = [], 0
    for _ in range(9):
        step = after(1, 0.1, failures)
        assert isinstance(step, Again)
        failures = step.failures
        pauses.append(step.pause_s)
    assert pauses == [0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]
    assert after(-9, 61.0, failures) == Again(0.0, 1)


def ran(code: str, processes: int, stopped: Callable[[], bool]) -> int:
    def command(number: int) -> Sequence[str]:
        return [sys.executable, "-c", code, str(number)]

    return Supervisor(command, processes, stop_s=20).run(stopped)


def within(seconds: float, done: Callable[[], bool]) -> Callable[[], bool]:
    deadline = time.monotonic() + seconds

    def stopped() -> bool:
        assert time.monotonic() < deadline, "it did not happen in time"
        return done()

    return stopped


WAITS = """
import signal, sys, time, pathlib
def stop(*_):
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
mine = pathlib.Path({directory!r}) / sys.argv[1]
with mine.open("a") as out:
    out.write("x")
{then}
while True:
    time.sleep(0.05)
"""


def test_one_that_fails_is_started_again_and_all_stop_together(tmp_path: Path) -> None:
    once = "if sys.argv[1] == '1' and mine.read_text() == 'x': sys.exit(1)"
    code = WAITS.format(directory=str(tmp_path), then=once)

    def both() -> bool:
        return (tmp_path / "0").exists() and (tmp_path / "1").exists() and (tmp_path / "1").read_text() == "xx"

    assert ran(code, 2, within(60, both)) == 0
    assert (tmp_path / "0").read_text() == "x"


def test_one_that_cannot_go_on_ends_them_all_with_its_code(tmp_path: Path) -> None:
    code = WAITS.format(directory=str(tmp_path), then="if sys.argv[1] == '1': sys.exit(4)")
    assert ran(code, 2, within(60, lambda: False)) == 4


def test_one_that_does_not_stop_is_killed(tmp_path: Path) -> None:
    code = WAITS.format(
        directory=str(tmp_path), then="signal.signal(signal.SIGTERM, signal.SIG_IGN); mine.write_text('deaf')"
    )
    deaf = within(60, lambda: (tmp_path / "0").exists() and (tmp_path / "0").read_text() == "deaf")
    stubborn = Supervisor(lambda k: [sys.executable, "-c", code, str(k)], 1, stop_s=0.2)
    assert stubborn.run(deaf) == -9
