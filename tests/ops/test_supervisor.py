"""What is done about a process that has ended, and that it is done."""

from __future__ import annotations

import errno
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import pytest

from c360.ops.slot import slot_in
from c360.ops.supervisor import Again, GiveUp, Supervisor, after
from tests.stories.test_processes import children
from tests.stories.tools import alive, stop, wait_until, working


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


def test_one_that_is_told_to_stop_before_it_can_listen_has_not_failed() -> None:
    """A stop in the middle of a start once ended with code 241."""
    started = Supervisor(lambda k: [sys.executable, "-c", "import time; time.sleep(60)"], 2, stop_s=20)
    assert started.run(within(60, lambda: all(child.process is not None for child in started.children))) == 0


class Full(Supervisor):
    """On a machine that has no room for another process, at first."""

    refused = 0

    def _begin(self, number: int) -> subprocess.Popen[bytes]:
        if self.refused < 2:
            self.refused += 1
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        return super()._begin(number)


def test_one_that_cannot_be_started_now_is_started_later() -> None:
    full = Full(lambda k: [sys.executable, "-c", "import time; time.sleep(60)"], 2, stop_s=20)
    assert full.run(within(60, lambda: all(child.process is not None for child in full.children))) == 0
    assert full.refused == 2


def test_processes_of_a_killed_supervisor_end_and_those_of_the_next_wait_for_that(tmp_path: Path) -> None:
    """One that began after its supervisor was gone took init for it, and held its directory for ever; and the next supervisor
    gave up when it found a directory in use (exit code 3)."""
    nowhere, arguments = "127.0.0.1:9", ("tests.clear_shop:app", "--processes", "2")  # a worker waits for its broker
    log = tmp_path / "log"
    for moment in ("as they begin", "at work"):
        with working(nowhere, tmp_path / "state", log, *arguments) as first:
            wait_until(lambda: len(children(first.pid)) == 2, first, log)
            if moment == "at work":
                wait_until(lambda: log.read_text().count("; state in") == 2, first, log)
            mine = children(first.pid).values()
            first.kill()
            first.wait()
            _taken_over(nowhere, tmp_path, moment, mine, *arguments)
        log.write_text("")


def _taken_over(broker: str, directory: Path, moment: str, orphans: Collection[int], *arguments: str) -> None:
    log = directory / moment
    with working(broker, directory / "state", log, *arguments) as process:
        wait_until(lambda: not any(alive(pid) for pid in orphans), process, log)
        wait_until(lambda: log.read_text().count("; state in") == 2, process, log)
        assert stop(process) == 0, log.read_text()


@pytest.mark.parametrize("left", [b"", b"\n"])
def test_a_slot_of_which_the_name_was_never_written_is_named_anew(tmp_path: Path, left: bytes) -> None:
    """By a process that was killed, or a full disk. Two workers without a name would have been one."""
    (tmp_path / "slot").write_bytes(left)
    with slot_in(tmp_path, None) as name:
        assert len(name) == 12
    with slot_in(tmp_path, None) as again:
        assert again == name


def test_one_that_does_not_stop_is_killed(tmp_path: Path) -> None:
    code = WAITS.format(
        directory=str(tmp_path), then="signal.signal(signal.SIGTERM, signal.SIG_IGN); mine.write_text('deaf')"
    )
    deaf = within(60, lambda: (tmp_path / "0").exists() and (tmp_path / "0").read_text() == "deaf")
    stubborn = Supervisor(lambda k: [sys.executable, "-c", code, str(k)], 1, stop_s=0.2)
    assert stubborn.run(deaf) == -9
