"""So many bytes a second: what the loops of a process read at most, so that others have the rest of machine and brokers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

LEAST = 50_000.0  # bytes a second; with less, a record of 16 MB would keep a loop from its group for minutes
SLICE_S = 0.25  # a loop takes no more at once than is allowed in so long, and so looks after its group often enough
GUESS = 200.0  # bytes of a record, before any was seen


class Bucket:
    """So many records a second, and at most those of one second at once. Used by one thread."""

    def __init__(self, rate: float, monotonic: Callable[[], float]) -> None:
        self.rate, self._monotonic = rate, monotonic
        self._left, self._at = max(1.0, rate), monotonic()

    def take(self, most: int) -> int:
        """How many of so many records may be read now; they are taken to be read."""
        now = self._monotonic()
        self._left = min(max(1.0, self.rate), self._left + (now - self._at) * self.rate)
        self._at = now
        taken = min(most, int(self._left))
        self._left -= taken
        return taken


class Pace:
    """Shared by the loops of a process; `rate` may be set by any thread. None: as fast as it goes."""

    def __init__(self, rate: float | None = None, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.rate, self._monotonic = rate, monotonic
        self._lock = threading.Lock()
        self._free = monotonic()  # when what was read so far is paid for
        self._mean = GUESS

    def next(self, most: int) -> tuple[int, float]:
        """How many records may be read now, at most `most`; and for how many seconds none."""
        rate = self.rate
        if rate is None:
            return most, 0.0
        with self._lock:
            return max(1, min(most, int(max(rate, LEAST) * SLICE_S / self._mean))), self._free - self._monotonic()

    def spend(self, records: int, size: int) -> None:
        """So much was read."""
        with self._lock:
            self._mean += 0.1 * (size / records - self._mean)
            if self.rate is not None:
                self._free = max(self._free, self._monotonic()) + size / max(self.rate, LEAST)
