"""One loop of a process computes at a time, so that threads do not pass the interpreter to and fro.

Python runs one thread at a time, and every call into a client library is an occasion for another to take over: with two
loops that is at every record that is sent, and each time the objects both use move to another core's cache. Through this
gate a loop keeps the interpreter for a batch, or for several while it is behind; waiting for the broker is done outside
of it. (docs/decisions/0009)

It is for speed only. Nothing is protected by it, and who has waited long goes on without it.
"""

from __future__ import annotations

import time
from threading import Lock

PATIENCE_S = 0.3  # longer than HELD_S and a batch: a user's function that waits for something, or the disk
HELD_S = 0.1


class Turnstile:
    """Shared by the loops of a process."""

    def __init__(self) -> None:
        self.lock = Lock()


class Turn:
    """One loop's place at a turnstile; of one thread."""

    def __init__(self, turnstile: Turnstile) -> None:
        self._lock = turnstile.lock
        self._mine = False
        self._since = 0.0

    def take(self) -> None:
        """Wait for the turn, but not for ever. Taking it twice is taking it once."""
        if not self._mine:
            self._mine = self._lock.acquire(timeout=PATIENCE_S)
            self._since = time.monotonic()

    def leave(self, *, unless_fresh: bool = False) -> None:
        """Let others go. `unless_fresh`: not yet, if it was taken only a moment ago."""
        if self._mine and not (unless_fresh and time.monotonic() - self._since < HELD_S):
            self._mine = False
            self._lock.release()
