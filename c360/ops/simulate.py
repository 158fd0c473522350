"""Many seeds of `c360.testing.simulate`, on all cores."""

from __future__ import annotations

import logging
import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from c360.app import App
from c360.testing.simulate import simulate

TEXT_MAX = 2_000  # of an error
CHUNK = 8

_app: App | None = None  # of one process of the pool: an app cannot be sent to it


@dataclass(frozen=True)
class Failure:
    """A seed that went wrong, and what it said."""

    seed: int
    error: str


@dataclass(frozen=True)
class Simulations:
    """What `c360 simulate --json` prints."""

    seeds: int
    failed: int
    first_failure: Failure | None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def run_seeds(
    load: Callable[[], App], first: int, seeds: int, done: Callable[[int], None] = lambda n: None
) -> Simulations:
    """Simulate `seeds` seeds from `first` on; `done` is told how many are. The first failure is that of the least seed.

    `load` gives the app, in every process anew; it must be a function of a module, or a partial of one.
    """
    failures = []
    context = multiprocessing.get_context("spawn")  # a fork would take over locks of threads that it has not
    with ProcessPoolExecutor(os.cpu_count(), context, initializer=_begin, initargs=(load,)) as pool:
        for n, failure in enumerate(pool.map(_one, range(first, first + seeds), chunksize=CHUNK), 1):
            if failure is not None:
                failures.append(failure)
            done(n)
    return Simulations(seeds, len(failures), failures[0] if failures else None)


def _begin(load: Callable[[], App]) -> None:
    global _app
    _app = load()
    logging.disable(logging.CRITICAL)  # thousands of injected faults are nobody's news


def _one(seed: int) -> Failure | None:
    assert _app is not None
    try:
        simulate(_app, seed)
    except BaseException as error:  # whatever ends a worker is what we are after
        if isinstance(error, KeyboardInterrupt):
            raise
        return Failure(seed, f"{type(error).__name__}: {error}"[:TEXT_MAX])
    return None
