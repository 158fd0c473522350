"""A loop reads no faster than the pace of its process, commits as when it is behind, and loses nothing by it."""

from __future__ import annotations

from dataclasses import replace

from c360.engine.loop import LoopSettings
from c360.engine.memory import MemoryCluster
from c360.engine.pace import LEAST, SLICE_S, Pace
from c360.tables.store import MemoryStores
from tests.engine.toy import OFTEN, World

RATE = 100_000.0


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_so_many_bytes_a_second_and_no_more_than_a_slice_at_once() -> None:
    clock = Clock()
    pace = Pace(RATE, clock)
    for _ in range(200):
        records, rest_s = pace.next(1000)
        clock.now += max(0.0, rest_s)
        pace.spend(records, records * 1000)
    assert records * 1000 <= 1.1 * RATE * SLICE_S
    begun, read = clock.now, 0
    while clock.now < begun + 10.0:
        records, rest_s = pace.next(1000)
        clock.now += max(0.0, rest_s)
        pace.spend(records, records * 1000)
        read += records * 1000
    assert 0.95 * 10 * RATE <= read <= 1.05 * 10 * RATE


def test_what_was_not_read_is_not_owed() -> None:
    clock = Clock()
    pace = Pace(RATE, clock)
    clock.now += 3600.0
    pace.spend(10, 100_000)
    assert pace.next(1000)[1] == 1.0


def test_without_a_rate_it_reads_as_it_likes_and_with_too_small_a_one_it_still_gets_on() -> None:
    clock = Clock()
    pace = Pace(None, clock)
    pace.spend(1000, 1 << 30)
    assert pace.next(1000) == (1000, 0.0)
    pace.rate = 1.0
    pace.spend(1, round(LEAST))
    records, rest_s = pace.next(1000)
    assert (records >= 1, rest_s) == (True, 1.0)


def test_a_loop_that_is_ahead_of_its_pace_rests_and_does_not_commit_for_it() -> None:
    world, clock = World(MemoryCluster()), Clock()
    pace = Pace(RATE, clock)
    settings = replace(OFTEN, batch_records=1000, behind_s=3600.0, commit_s=0.0, commit_share=0.0, pace=pace)
    loop = world.loop(MemoryStores(), settings=settings)
    for _ in range(4):
        loop.turn(0.0)
    world.feed("a", value=b"x" * 200_000)
    assert loop.turn(0.0) == 1
    commits = loop.metrics.commits
    world.feed("b")
    for _ in range(5):
        assert loop.turn(0.0) == 0
    assert loop.metrics.commits == commits, "it is not idle: there is more to read"
    clock.now += 2.1
    assert loop.turn(0.0) == 1
    clock.now += 1.0
    world.until(world.idle, loop)
    world.check()
    world.close()


def test_a_loop_without_a_pace_has_none_to_keep() -> None:
    assert LoopSettings().pace is None
