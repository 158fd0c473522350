"""How fast a version is built: as fast as it goes, so many MB a second, or as fast as those who serve do not notice.

The processes that build follow a file, which the process that began them writes. `auto` looks at two things that live readers
feel, once a second, and compares with what they were while nothing was built:

* freshness: from a record's append to its profile's, by the broker's clock alone (`c360-cause` and append time)
* read latency: how long a broker takes to say where a partition ends

If either is worse than it may be, the pace is halved; else it grows by a little (additive increase, multiplicative decrease:
the rule by which flows share a line, Chiu and Jain 1989). What "quiet" is changes with the day, so now and then the build rests
for a few seconds and it is looked at again.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from c360.agents.wire import CAUSE
from c360.engine.pace import LEAST, Pace
from c360.engine.transport import TP, Batch, Cluster
from c360.errors import C360Error

FOLLOW_S = 0.25  # between two looks of a process at its file
LOOK_S = 1.0
QUIET_S = 5.0  # for which a build rests, to see how fresh profiles are without it
QUIET_EVERY_S = 120.0
TOLERANCE = 1.1  # of quiet
NOISE_MS = 5.0  # that is no difference
READ_MS = 20.0  # a broker that answers so soon is not busy
FIRST = 2_000_000.0  # bytes a second of one process, to begin with
STEP = 500_000.0
MOST = 100_000_000.0  # no process folds as much
RESTS = 1.0  # bytes a second; a pace below LEAST is LEAST, so almost nothing

Rate = float | Literal["auto"] | None  # bytes a second of all processes


# ------------------------------------------------------------------------------------------------------------------ the file
def write_pace(path: Path, rate: float | None) -> None:
    """Bytes a second of each process; None: no bound."""
    beside = path.with_name(f".{path.name}.new")
    beside.write_text("" if rate is None else f"{rate:.0f}")
    beside.replace(path)


def read_pace(path: Path) -> float | None:
    """As above; no bound where there is no file."""
    with suppress(FileNotFoundError, ValueError):
        return float(path.read_text())
    return None


def follow(path: Path, pace: Pace, stopped: threading.Event) -> None:
    """In a thread of a process that builds."""
    while not stopped.wait(FOLLOW_S):
        pace.rate = read_pace(path)


# ------------------------------------------------------------------------------------------------------------------- deciding
class Felt(NamedTuple):
    """What live readers feel, in a while; None where there was nothing to see."""

    fresh_ms: float | None
    read_ms: float | None


NOTHING = Felt(None, None)


def suffers(now: Felt, quiet: Felt) -> bool:
    """Whether they feel that something is built."""
    if now.fresh_ms is not None and quiet.fresh_ms is not None and now.fresh_ms > quiet.fresh_ms * TOLERANCE + NOISE_MS:
        return True
    return now.read_ms is not None and now.read_ms > max(READ_MS, 3 * (quiet.read_ms or 0.0))


def next_rate(rate: float, now: Felt, quiet: Felt) -> float:
    """Bytes a second of a process, from now on."""
    if suffers(now, quiet):
        return max(LEAST, rate / 2)
    if now.fresh_ms is None:  # nobody is served: nobody suffers
        return min(MOST, rate * 2)
    return min(MOST, rate + max(STEP, rate / 10))


def percentile(values: Sequence[float], share: float) -> float | None:
    found = sorted(values)
    return found[min(len(found) - 1, int(len(found) * share))] if found else None


# -------------------------------------------------------------------------------------------------------------------- feeling
class Feeler:
    """Follows the live output on a thread of its own; `felt` is what was seen since it was asked last."""

    SAMPLES = 20  # of a batch: more would cost those who serve
    KEPT = 5_000

    def __init__(self, cluster: Cluster, topics: Sequence[str], partitions: int) -> None:
        self.cluster = cluster
        self.output = [TP(topic, p) for topic in topics for p in range(partitions)]
        self.stopped = threading.Event()
        self.seen: deque[float] = deque(maxlen=self.KEPT)
        self.reader = cluster.reader()
        self.thread = threading.Thread(target=self._run, name="feel", daemon=True)

    def start(self) -> None:
        self.thread.start()

    def _run(self) -> None:
        while not self.stopped.is_set():
            reader = self.cluster.reader()
            try:
                for batches, _ in reader.follow(reader.ends(self.output)):
                    for batch in batches:
                        self.seen.extend(freshness(batch, self.SAMPLES))
                    if self.stopped.is_set():
                        break
            except C360Error:  # a broker that is away for a while: there is nothing to see
                self.stopped.wait(LOOK_S)
            finally:
                reader.close()

    def felt(self) -> Felt:
        values = list(self.seen)
        self.seen.clear()
        begun = time.monotonic()
        try:
            self.reader.ends(self.output[:1])
            read_ms: float | None = (time.monotonic() - begun) * 1000
        except C360Error:
            read_ms = None
        return Felt(percentile(values, 0.95), read_ms)

    def stop(self) -> None:
        self.stopped.set()
        if self.thread.ident is not None:
            self.thread.join()
        self.reader.close()


def freshness(batch: Batch, samples: int) -> list[float]:
    """Of some records of a batch: ms from the append of what they come of to their own."""
    found = []
    for i in range(0, len(batch), max(1, len(batch) // samples)):
        for name, value in batch.headers(i):
            if name == CAUSE:
                found.append(float(batch.times[i] - int(value)))
    return found


# ------------------------------------------------------------------------------------------------------------------- governing
@dataclass
class Governor:
    """Sets the pace of `processes`. Asked by whoever waits for them; time is the caller's."""

    path: Path
    rate: Rate
    processes: int
    felt: Callable[[], Felt]
    monotonic: Callable[[], float] = time.monotonic
    each: float = FIRST  # bytes a second of one process, while it is auto
    quiet: Felt = NOTHING
    looked: float = 0.0
    resting: bool = field(default=False, init=False)
    since: float = 0.0  # it rests, or builds

    def begin(self) -> None:
        """Before anybody builds. With `auto` they rest at first: then it is quiet."""
        if self.rate == "auto":
            self.resting, self.since, self.looked = True, self.monotonic(), self.monotonic()
            self.felt()  # of before
            write_pace(self.path, RESTS)
        else:
            write_pace(self.path, None if self.rate is None else self.rate / self.processes)

    def step(self) -> None:
        """Now and then."""
        now = self.monotonic()
        if self.rate != "auto" or now - self.looked < (QUIET_S if self.resting else LOOK_S):
            return
        self.looked = now
        if self.resting:
            self.quiet, self.resting, self.since = self.felt(), False, now
        elif now - self.since >= QUIET_EVERY_S:
            self.felt()
            self.resting, self.since = True, now
        else:
            self.each = next_rate(self.each, self.felt(), self.quiet)
        write_pace(self.path, RESTS if self.resting else self.each)
