"""What the benchmark makes of its samples: which part of them counts, who goes first, what the table says."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmarks.contestants import ALL, DEFAULT, Contestant
from benchmarks.measure import counted, cpu_s, instructions_at, peak_rss_mb, perf_command
from benchmarks.race import Sample, figures
from benchmarks.run import main, order, summary, table

PERF = """# started on Wed Nov 25 10:00:00 2026
     0.250104,1000,,instructions,250000,100.00,,
     0.500213,3000,,instructions,250000,100.00,,
     0.600000,<not counted>,,cycles,0,0.00,,
"""


def test_the_second_half_of_the_work_counts() -> None:
    samples = [
        Sample(1.0, (0,), 2.0, 0.0),
        Sample(2.0, (500,), 7.0, 1.0),
        Sample(3.0, (1000,), 8.0, 3.0),
    ]
    found = figures(samples, 1000, [(0.0, 0), (2.0, 5_000_000), (3.0, 6_000_000)])
    assert found["cpu_us_per_event"] == 2000.0  # 1 s over 500 events
    assert found["cpu_us_per_event_whole"] == 8000.0
    assert found["instructions_per_event"] == 2000
    assert found["events_per_s"] == 500
    assert found["broker_cpu_us_per_event"] == 4000.0


def test_of_two_hops_both_count_although_the_first_runs_ahead() -> None:
    samples = [
        Sample(1.0, (1000, 0), 10.0, 0.0),  # the first has done all of its work: half of all
        Sample(2.0, (1000, 980), 20.0, 0.0),
    ]
    assert figures(samples, 1000, [(0.0, 0)])["cpu_us_per_event"] == 20_000.0
    assert figures(samples, 1000, [(0.0, 0)])["instructions_per_event"] is None


def test_what_was_committed_between_two_samples_has_no_steady_part() -> None:
    found = figures([Sample(1.0, (0,), 1.0, 0.0), Sample(2.0, (1000,), 2.0, 0.0)], 1000, [(0.0, 0)])
    assert found["cpu_us_per_event"] is None
    assert found["events_per_s"] is None
    assert found["cpu_us_per_event_whole"] == 2000.0


def test_instructions_are_read_as_perf_writes_them() -> None:
    found = counted(PERF)
    assert found == [(0.0, 0), (0.250104, 1000), (0.500213, 4000)]
    assert instructions_at(found, 0.125052) == 500
    assert instructions_at(found, 9.0) == 4000


def test_cpu_and_memory_of_a_process_are_seen_where_there_is_proc() -> None:
    if not os.path.isdir("/proc/self/task"):
        pytest.skip("needs Linux")
    before = cpu_s([os.getpid()])
    while cpu_s([os.getpid()]) < before + 0.02:
        pass
    assert 1 < peak_rss_mb([os.getpid()]) < 100_000


def test_every_round_begins_with_another_one_and_a_hop_follows_the_hop_that_it_reads() -> None:
    orders = [order(DEFAULT, number) for number in range(1, len(DEFAULT) + 1)]
    assert {frozenset(names) for names in orders} == {frozenset(DEFAULT)}
    assert len({names[0] for names in orders}) >= len(DEFAULT) - 1
    for names in orders:
        assert names.index("c360_projection") == names.index("c360_govern") + 1


def test_medians_ratios_and_a_failed_check_are_in_the_table() -> None:
    def run(cpu: float, check: str = "ok") -> dict[str, object]:
        return {"cpu_us_per_event": cpu, "events_per_s": 10_000, "check": check}

    contestants = {
        "kafka_streams": summary(ALL["kafka_streams"], [run(30), run(20), run(25)]),
        "c360": summary(ALL["c360"], [run(10), run(20, "1 lost: c0000001"), {"check": "failed: it ended"}]),
    }
    assert contestants["kafka_streams"]["cpu_us_per_event"] == 25
    assert contestants["c360"]["cpu_us_per_event"] == 15
    assert contestants["c360"]["check"] == "1 lost: c0000001; failed: it ended"
    lines = table(contestants).splitlines()
    assert lines[3].startswith("| c360 | 15 | 0.60 | – |")
    assert lines[3].endswith("| WRONG |")
    assert lines[4] == "c360: 1 lost: c0000001; failed: it ended"


@pytest.mark.parametrize("contestant", ALL.values(), ids=ALL)
def test_every_contestant_can_be_started(contestant: Contestant) -> None:
    scripts = [contestant.home / "run.sh", *contestant.home.glob("prepare.sh")]
    assert all(os.access(script, os.X_OK) for script in scripts)


@pytest.mark.parametrize("peers", ["flink", "c360_projection", "c360_projection,c360_govern"])
def test_who_cannot_take_part_is_refused(peers: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        main(["--peers", peers])
    assert refused.value.code == 2
    assert peers.split(",")[0] in capsys.readouterr().err


def test_without_a_perf_that_can_count_the_command_runs_bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    perf = tmp_path / "perf"
    perf.write_text("#!/bin/sh\necho '<not supported>,,instructions,0,100.00,,' >&2\n")
    perf.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    assert perf_command(tmp_path / "report") == []
    perf.write_text("#!/bin/sh\necho '123456,,instructions,1000,100.00,,' >&2\n")
    assert perf_command(tmp_path / "report")[0] == str(perf)
    monkeypatch.setenv("PATH", "")
    assert perf_command(tmp_path / "report") == []
