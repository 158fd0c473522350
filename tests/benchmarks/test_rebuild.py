"""What `make bench-rebuild` makes of what it has measured."""

from __future__ import annotations

from benchmarks.rebuild import summary


def test_figures_are_medians_and_ratios_are_of_pairs() -> None:
    rates = [(900.0, 1000.0), (50.0, 50.0), (2000.0, 1900.0)]
    found = summary(rates, [(100.0, 105.0), (50.0, 60.0), (300.0, 270.0)])
    assert (found["rate"], found["projection_rate"]) == (900, 1000)
    assert found["ratio"] == 1.0
    assert (found["live_p99_ms_quiet"], found["live_p99_ms_rebuilding"]) == (100.0, 105.0)
    assert found["latency_ratio"] == 1.05
