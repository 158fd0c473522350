"""What is to happen at a time, in the order of times: schedule, cancel, take what is due; a table like the others.

What is due is a key of it: time, then what it is about. So the earliest is found with one look, and the same time holds
any number. Knows no clock and no unit: the projections count days, doors milliseconds.
"""

from __future__ import annotations

from itertools import islice
from typing import NamedTuple

from c360.tables.store import Store
from c360.tables.table import Table


class Due(NamedTuple):
    """A timer whose time has come."""

    at: int
    key: bytes
    data: bytes


class Timers(Table[bytes]):
    """Timers by (time, key), each with some bytes. `width`: bytes of a time in its key; times before 0 sort first.

    What was taken or cancelled leaves marks in a store until they are compacted away: a look from the very start would
    pass them all. So it begins where, as far as this table knows, the earliest is.
    """

    def __init__(self, prefix: bytes, width: int = 8) -> None:
        super().__init__(prefix, bytes, bytes)
        self.width = width
        self._bias = 1 << 8 * width - 1
        self._low = self._base_low = b""  # before it there is nothing; the second: as of the last commit
        self._first: int | None = None  # time of the earliest; None: not known

    def bind(self, store: Store) -> None:
        super().bind(store)
        self._low = self._base_low = b""
        self._first = None

    def _key(self, at: int) -> bytes:
        return (at + self._bias).to_bytes(self.width, "big")

    def schedule(self, at: int, key: bytes, data: bytes = b"") -> None:
        """One with the same time and key is replaced."""
        row = self._key(at) + key
        self.put(row, data)
        self._low = min(self._low, row)
        if self._first is not None:
            self._first = min(self._first, at)

    def cancel(self, at: int, key: bytes) -> None:
        """One that is not there is fine."""
        self.delete(self._key(at) + key)
        if at == self._first:
            self._first = None

    def wants(self, now: int) -> bool:
        """Whether one is due; costs a comparison, and a look into the store after one was taken."""
        if self._first is None:
            row = next((row for row, _ in self.scan(self._low)), None)
            if row is None:
                self._first = self._bias  # later than any
            else:
                self._low, self._first = row, self._at(row)
        return self._first <= now

    def pop(self, now: int, limit: int) -> list[Due]:
        """Take those due at `now` or before, the earliest first, at most so many."""
        stop = self._key(min(now + 1, self._bias - 1))
        found = list(islice(self.scan(self._low, stop), limit))
        for row, _ in found:
            self.delete(row)
        self._low = found[-1][0] + b"\0" if len(found) == limit else max(self._low, stop)
        self._first = None
        return [Due(self._at(row), row[self.width :], data) for row, data in found]

    def _at(self, row: bytes) -> int:
        return int.from_bytes(row[: self.width], "big") - self._bias

    def committed(self) -> None:
        super().committed()
        self._base_low = self._low

    def rolled_back(self) -> None:
        super().rolled_back()
        self._low, self._first = self._base_low, None
