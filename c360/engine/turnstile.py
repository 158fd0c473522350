"""One loop of a process computes at a time, so that threads do not pass the interpreter to and fro.

Python runs one thread at a time, and every call into a client library is an occasion for another to take over: with two
loops that is at every record that is sent, and each time the objects both use move to another core's cache. Through this
gate a loop keeps the interpreter for a batch; waiting for the broker is done outside of it. (docs/decisions/0009)

It is for speed only. Nothing is protected by it, and who has waited long goes on without it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock

PATIENCE_S = 0.2  # a batch takes 0.02 s; longer is a user's function that waits for something, or the disk


class Turnstile:
    """Shared by the loops of a process."""

    def __init__(self) -> None:
        self._lock = RLock()  # a commit may be in the middle of a batch

    @contextmanager
    def turn(self) -> Iterator[None]:
        mine = self._lock.acquire(timeout=PATIENCE_S)
        try:
            yield
        finally:
            if mine:
                self._lock.release()
