"""The permutation suites of identity and of profiles in their long form: `python -m tests.simulate --runs 100000 --from 0`.

Runs are shared out: a node's protocol by itself, the agent in its engine with crashes, profiles that move. The last line is
`runs N divergences 0`, or says how many diverged; what went wrong stands above it.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence

from tests.identity import agent, permutations
from tests.profile import moving
from tests.seeds import diverging, options_of


def _nothing_wrong(seed: int) -> None:
    failure = moving.failure_of(seed)
    assert not failure, failure


SUITES: tuple[tuple[str, Callable[[int], None]], ...] = (
    ("nodes", permutations.run),
    ("identity agent", agent.run),
    ("profiles", _nothing_wrong),
)


def main(arguments: Sequence[str] | None = None) -> int:
    options = options_of(arguments, "tests.simulate", __doc__, 1_000)  # of all suites together
    runs = diverged = 0
    for i, (name, run) in enumerate(SUITES):
        share = options.runs // len(SUITES) + (i < options.runs % len(SUITES))
        seeds = range(options.first, options.first + share)
        found = diverging(run, seeds, Exception, share, f"{name}: seed")
        print(f"{name}: runs {share} divergences {len(found)}", flush=True)
        runs, diverged = runs + share, diverged + len(found)
    print(f"runs {runs} divergences {diverged}")
    return 1 if diverged else 0


if __name__ == "__main__":
    logging.disable(logging.ERROR)  # faults are injected, and logged
    sys.exit(main())
