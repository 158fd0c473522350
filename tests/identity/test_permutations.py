"""Any order, repeated, lagging, on any partitions, crashed: in the end what the oracle says. The short form."""

from __future__ import annotations

import os

import pytest

from tests.identity.permutations import main, run

SEEDS = int(os.environ.get("C360_TEST_SEEDS", "1000")) * 2


def test_no_seed_diverges() -> None:
    for seed in range(SEEDS):
        try:
            run(seed)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error


def test_the_long_form_says_how_many_diverged(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--runs", "20", "--from", "5000000"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "divergences 0"
