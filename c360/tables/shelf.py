"""A table of which parts are read by prefix: the rows of one owner, of a few that have very many."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from hashlib import blake2b
from heapq import merge
from itertools import islice
from operator import itemgetter
from typing import TypeVar

from c360.tables.table import Table, after

V = TypeVar("V")

OWNER_BYTES = 16


def owner_of(key: bytes) -> bytes:
    """A digest: the prefix of one owner's rows, of fixed length, so that no two owners can be confused."""
    return blake2b(key, digest_size=OWNER_BYTES).digest()


class ShelfTable(Table[V]):
    """A table of which parts are read by prefix, with what was changed there: the rest of the transaction costs nothing."""

    def __init__(
        self, prefix: bytes, encode: Callable[[V], bytes], decode: Callable[[bytes], V], width: int = OWNER_BYTES
    ) -> None:
        """`width`: of the prefixes that are read often."""
        super().__init__(prefix, encode, decode)
        self.width = width
        self.changed: dict[bytes, dict[bytes, None]] = {}  # prefix → dirty keys

    def put(self, key: bytes, value: V) -> None:
        super().put(key, value)
        self.changed.setdefault(key[: self.width], {})[key] = None

    def delete(self, key: bytes) -> None:
        super().delete(key)
        self.changed.setdefault(key[: self.width], {})[key] = None

    def rows(self, prefix: bytes) -> list[tuple[bytes, V]]:
        """All entries below a prefix, in no order."""
        low, dirty, live = self.prefix + prefix, self.dirty, self.live
        found = [
            (full[1:], self.decode(data)) for full, data in self.store.scan(low, after(low)) if full[1:] not in dirty
        ]
        return found + [(key, value) for key in self._changed(prefix) if (value := live[key]) is not None]

    def portion(self, prefix: bytes, start: bytes, limit: int) -> list[tuple[bytes, V]]:
        """Entries below a prefix by key order, from `prefix + start` on, at most so many."""
        low, stop, dirty, live = prefix + start, after(self.prefix + prefix), self.dirty, self.live
        stored = (
            (full[1:], self.decode(data))
            for full, data in self.store.scan(self.prefix + low, stop)
            if full[1:] not in dirty
        )
        changed = sorted(key for key in self._changed(prefix) if key >= low)
        own = ((key, value) for key in changed if (value := live[key]) is not None)
        return list(islice(merge(stored, own, key=itemgetter(0)), limit))

    def _changed(self, prefix: bytes) -> Iterable[bytes]:
        if len(prefix) < self.width:
            return [key for keys in self.changed.values() for key in keys if key.startswith(prefix)]
        return self.changed.get(prefix, ())

    def committed(self) -> None:
        self.changed.clear()
        super().committed()

    def rolled_back(self) -> None:
        self.changed.clear()
        super().rolled_back()
