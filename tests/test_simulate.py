"""`make simulate` says in its last line how many diverged, and fails if any did."""

from __future__ import annotations

import pytest

from tests import simulate


def test_the_last_line_counts_runs_of_all_suites(capsys: pytest.CaptureFixture[str]) -> None:
    assert simulate.main(["--runs", "7", "--from", "4000"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "runs 7 divergences 0"


def test_a_seed_that_diverges_is_named_and_counted(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def odd_fail(seed: int) -> None:
        assert seed % 2 == 0, "it is odd"

    monkeypatch.setattr(simulate, "SUITES", (("numbers", odd_fail),))
    assert simulate.main(["--runs", "5", "--from", "10"]) == 1
    said = capsys.readouterr()
    assert said.out.splitlines()[-1] == "runs 5 divergences 2"
    assert "numbers: seed 11" in said.err
    assert "it is odd" in said.err
