"""The permutation suites of identity and of profiles in their long form: `python -m tests.simulate --runs 100000 --from 0`.

Runs are shared out: a node's protocol by itself, the agent in its engine with crashes, profiles that move. The last line is
`runs N divergences 0`, or says how many diverged; what went wrong stands above it.
"""

from __future__ import annotations

import argparse
import logging
import sys
import traceback
from collections.abc import Callable, Sequence

from tests.identity import agent, permutations
from tests.profile import moving


def _nothing_wrong(seed: int) -> None:
    failure = moving.failure_of(seed)
    assert not failure, failure


SUITES: tuple[tuple[str, Callable[[int], None]], ...] = (
    ("nodes", permutations.run),
    ("identity agent", agent.run),
    ("profiles", _nothing_wrong),
)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulate", description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=1_000, help="of all suites together (default: %(default)s)")
    parser.add_argument("--from", type=int, default=0, dest="first", help="the first seed of each")
    options = parser.parse_args(arguments)
    runs = diverged = 0
    for i, (name, run) in enumerate(SUITES):
        share = options.runs // len(SUITES) + (i < options.runs % len(SUITES))
        found = [seed for seed in range(options.first, options.first + share) if not _passes(name, run, seed)]
        print(f"{name}: runs {share} divergences {len(found)}", flush=True)
        runs, diverged = runs + share, diverged + len(found)
    print(f"runs {runs} divergences {diverged}")
    return 1 if diverged else 0


def _passes(name: str, run: Callable[[int], None], seed: int) -> bool:
    try:
        run(seed)
    except Exception:
        print(f"{name}: seed {seed}\n{traceback.format_exc()}", file=sys.stderr, flush=True)
        return False
    return True


if __name__ == "__main__":
    logging.disable(logging.ERROR)  # faults are injected, and logged
    sys.exit(main())
