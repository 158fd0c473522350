"""Suites of seeds: their long form, `python -m tests.… [--runs N] [--from SEED]`, and which seeds diverge."""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence


def options_of(arguments: Sequence[str] | None, program: str, about: str | None, runs: int) -> argparse.Namespace:
    """`runs` and `first`. `runs`: how many unless the user says."""
    parser = argparse.ArgumentParser(prog=f"python -m {program}", description=(about or "").split("\n")[0])
    parser.add_argument("--runs", type=int, default=runs)
    parser.add_argument("--from", type=int, default=0, dest="first", help="the first seed")
    return parser.parse_args(arguments)


def diverging(
    run: Callable[[int], object], seeds: Iterable[int], failures: type[Exception], shown: int, label: str = "seed"
) -> list[int]:
    """The seeds for which `run` raised one of `failures`; the first few are `shown` as they come."""
    diverged = []
    for seed in seeds:
        try:
            run(seed)
        except failures:
            diverged.append(seed)
            if len(diverged) <= shown:
                print(f"{label} {seed}\n{traceback.format_exc()}", file=sys.stderr, flush=True)
    return diverged


def run_briefly(
    run: Callable[[int], object], arguments: Sequence[str] | None, *, program: str, about: str | None, runs: int
) -> int:
    """All seeds, told in one line, with the first few that raised. The exit code: 1 if one did."""
    options = options_of(arguments, program, about, runs)
    diverged = len(diverging(run, range(options.first, options.first + options.runs), Exception, 3))
    print(f"runs {options.runs} divergences {diverged}")
    return 1 if diverged else 0


def run_seeds(
    run: Callable[[int], object],
    arguments: Sequence[str] | None,
    *,
    program: str,
    about: str | None,
    runs: int,
    failures: type[Exception],
) -> int:
    """The exit code: 1 if a seed diverged."""
    options = options_of(arguments, program, about, runs)
    diverged = diverging(run, range(options.first, options.first + options.runs), failures, 1)
    print(f"runs {options.runs}, from seed {options.first}")
    if diverged:
        print(f"first seeds {diverged[:10]}")
    print(f"divergences {len(diverged)}")
    return 1 if diverged else 0
