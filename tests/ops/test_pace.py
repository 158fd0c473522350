"""How fast a version is built: the file that its processes follow, and the pace that gives way to live readers."""

from __future__ import annotations

from pathlib import Path

import pytest

from c360.engine.pace import LEAST
from c360.engine.transport import TP, Batch
from c360.ops import pace
from c360.ops.pace import Felt, Governor


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_file_says_how_fast_a_process_may_go(tmp_path: Path) -> None:
    path = tmp_path / "pace"
    assert pace.read_pace(path) is None
    pace.write_pace(path, 2_500_000.0)
    assert pace.read_pace(path) == 2_500_000.0
    pace.write_pace(path, None)
    assert pace.read_pace(path) is None


@pytest.mark.parametrize(("rate", "each"), [(None, None), (20e6, 5e6)])
def test_what_was_asked_for_is_shared_by_the_processes(tmp_path: Path, rate: float | None, each: float | None) -> None:
    governor = Governor(tmp_path / "pace", rate, 4, lambda: Felt(1e9, 1e9), Clock())
    governor.begin()
    governor.step()
    assert pace.read_pace(tmp_path / "pace") == each


def governed(tmp_path: Path, felt: list[Felt], seconds: int) -> list[float | None]:
    """The pace at each second."""
    clock, path = Clock(), tmp_path / "pace"
    governor = Governor(path, "auto", 1, lambda: felt.pop(0) if len(felt) > 1 else felt[0], clock)
    governor.begin()
    found = [pace.read_pace(path)]
    for _ in range(seconds):
        clock.now += 1.0
        governor.step()
        found.append(pace.read_pace(path))
    return found


def test_it_rests_until_it_knows_how_fresh_profiles_are_and_then_grows_while_they_stay_so(tmp_path: Path) -> None:
    found = governed(tmp_path, [Felt(50.0, 1.0)], 40)
    assert found[:5] == [pace.RESTS] * 5
    growing = [rate or 0.0 for rate in found[5:]]
    assert growing == sorted(growing)
    assert growing[-1] > 5 * pace.FIRST


@pytest.mark.parametrize("worse", [Felt(61.0, 1.0), Felt(50.0, 21.0), Felt(61.0, None)])
def test_it_halves_while_live_readers_feel_it_and_never_stops(tmp_path: Path, worse: Felt) -> None:
    found = governed(tmp_path, [Felt(50.0, 1.0), Felt(50.0, 1.0), worse], 40)
    assert found[6] == pace.FIRST / 2
    assert found[-1] == LEAST


def test_a_difference_that_is_noise_is_none() -> None:
    quiet = Felt(20.0, 2.0)
    assert not pace.suffers(Felt(26.9, 19.0), quiet)
    assert pace.suffers(Felt(27.1, 2.0), quiet)
    assert not pace.suffers(Felt(None, None), quiet)
    assert not pace.suffers(Felt(500.0, None), Felt(None, None)), "nobody knows what it was"


def test_where_nobody_is_served_it_soon_goes_as_fast_as_it_can(tmp_path: Path) -> None:
    assert governed(tmp_path, [Felt(None, 1.0)], 12)[-1] == pace.MOST


def test_now_and_then_it_rests_to_see_again_what_is_quiet(tmp_path: Path) -> None:
    found = governed(tmp_path, [Felt(50.0, 1.0)], 135)
    rests = [second for second, rate in enumerate(found) if rate == pace.RESTS]
    assert rests == [0, 1, 2, 3, 4, 125, 126, 127, 128, 129]


def test_freshness_is_from_the_cause_to_the_record_by_the_brokers_clock() -> None:
    causes = [900, 950, 990]
    batch = Batch(
        TP("shop.customer.v1", 0), [0, 1, 2], [b"k"] * 3, [b"v"] * 3, [1000, 1000, 1000],
        lambda i: [("other", b"x"), ("c360-cause", b"%d" % causes[i])],
    )  # fmt: skip
    assert pace.freshness(batch, 20) == [100.0, 50.0, 10.0]
    assert len(pace.freshness(batch, 1)) == 1
