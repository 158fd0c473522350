"""The long form of a suite of seeds: `python -m tests.identity.… [--runs N] [--from SEED]` ends with how many diverged."""

from __future__ import annotations

import argparse
import traceback
from collections.abc import Callable, Sequence


def run_seeds(
    run: Callable[[int], object],
    arguments: Sequence[str] | None,
    *,
    program: str,
    about: str | None,
    runs: int,
    failures: type[Exception],
) -> int:
    """The exit code: 1 if `run` raised one of `failures` for a seed. `runs`: how many unless the user says."""
    parser = argparse.ArgumentParser(prog=f"python -m {program}", description=(about or "").split("\n")[0])
    parser.add_argument("--runs", type=int, default=runs)
    parser.add_argument("--from", type=int, default=0, dest="first", help="the first seed")
    options = parser.parse_args(arguments)
    diverged = []
    for seed in range(options.first, options.first + options.runs):
        try:
            run(seed)
        except failures:
            diverged.append(seed)
            if len(diverged) == 1:
                traceback.print_exc()
    print(f"runs {options.runs}, from seed {options.first}")
    if diverged:
        print(f"first seeds {diverged[:10]}")
    print(f"divergences {len(diverged)}")
    return 1 if diverged else 0
