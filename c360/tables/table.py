"""A typed table: committed values from a store, seen through the transaction's own writes.

A value is decoded at most once while it stays in memory and encoded at most once per commit. Values may be changed in
place after `load`, then named with `touch`; after an abort what was touched is forgotten and read again.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Generic, TypeVar

from c360.tables.store import Entry, Store

V = TypeVar("V")

ENTRY_BYTES = 150  # of a key in a dictionary, and of what is known to be absent
SIZES_SEEN = 100_000
OBJECT_FACTOR = 4  # decoded Python objects against their encoded size: measured 3 to 5 for fragments


def after(prefix: bytes) -> bytes:
    """The least key greater than all keys with this prefix, of which one byte is not 255: that of the table."""
    kept = prefix.rstrip(b"\xff")
    return kept[:-1] + bytes([kept[-1] + 1])


class Table(Generic[V]):
    """Values of type V by key. `prefix` is one byte, unique in the task. How many stay decoded is the store's budget."""

    def __init__(
        self,
        prefix: bytes,
        encode: Callable[[V], bytes],
        decode: Callable[[bytes], V],
    ) -> None:
        assert len(prefix) == 1
        self.prefix = prefix
        self.encode = encode
        self.decode = decode
        self.live: dict[bytes, V | None] = {}  # None: known to be absent
        self.old: dict[bytes, V | None] = {}  # the generation before; moved over when used, dropped when `live` is full
        self.sized = [0, 0]  # how many values have been encoded or decoded, and their bytes
        self.dirty: dict[bytes, None] = {}
        self.order: list[bytes] = []  # the dirty keys as of the last scan, in order: many scans may follow one another
        self.store: Store

    def bind(self, store: Store) -> None:
        self.store = store

    def load(self, keys: Collection[bytes]) -> dict[bytes, V | None]:
        """Make all keys present in the returned dictionary, with one multi-get for what is not in memory."""
        live = self.live
        missing = [k for k in keys if k not in live]
        if missing:
            old = self.old
            if old:
                unread = []
                for key in missing:
                    if key in old:
                        live[key] = old.pop(key)
                    else:
                        unread.append(key)
                missing = unread
            prefix = self.prefix
            decode = self.decode
            size = count = 0
            for key, data in zip(missing, self.store.get_many([prefix + k for k in missing]), strict=True):
                if data is None:
                    live[key] = None
                else:
                    live[key] = decode(data)
                    size += len(data)
                    count += 1
            self._measured(count, size)
        return live

    def get(self, key: bytes) -> V | None:
        """The value of one key, loaded if need be."""
        return self.load((key,))[key]

    def touch(self, keys: Iterable[bytes]) -> None:
        """These loaded keys were changed in place."""
        self.dirty.update(dict.fromkeys(keys))

    def put(self, key: bytes, value: V) -> None:
        self.old.pop(key, None)
        self.live[key] = value
        self.dirty[key] = None

    def delete(self, key: bytes) -> None:
        self.old.pop(key, None)
        self.live[key] = None
        self.dirty[key] = None

    def scan(self, start: bytes = b"", stop: bytes | None = None) -> Iterator[tuple[bytes, V]]:
        """Entries by key order with start <= key < stop, uncommitted writes included. Keys must not change meanwhile."""
        low = self.prefix + start
        high = after(self.prefix) if stop is None else self.prefix + stop
        if len(self.order) != len(self.dirty):  # it only grows until the end of the transaction
            self.order = sorted(self.dirty)
        first = bisect_left(self.order, start)
        changed = self.order[first:] if stop is None else self.order[first : bisect_left(self.order, stop)]
        position = 0
        for full, data in self.store.scan(low, high):
            key = full[1:]
            while position < len(changed) and changed[position] < key:
                value = self.live[changed[position]]
                if value is not None:
                    yield changed[position], value
                position += 1
            if position < len(changed) and changed[position] == key:
                continue  # yielded from memory in the next turn of the loop above
            yield key, self.decode(data)
        for key in changed[position:]:
            value = self.live[key]
            if value is not None:
                yield key, value

    # ------------------------------------------------------------------------------------------------ transaction
    def changes(self) -> list[Entry]:
        """Dirty entries as they go into the changelog; the same go to the store after the commit."""
        prefix, live, encode = self.prefix, self.live, self.encode
        entries: list[Entry] = []
        size = count = 0
        for key in self.dirty:
            value = live[key]
            data = None if value is None else encode(value)
            if data is not None:
                size += len(data)
                count += 1
            entries.append((prefix + key, data))
        self._measured(count, size)
        return entries

    def committed(self) -> None:
        """The dirty entries are in the store now."""
        self._clean()
        if self.outgrown():
            self.old, self.live = self.live, {}

    def outgrown(self) -> bool:
        """Whether it has more in memory than its part: a commit is due, after which clean values may go."""
        return self.store.budget.outgrown(self, self._weight())

    def _measured(self, count: int, size: int) -> None:
        sized = self.sized
        sized[0] += count
        sized[1] += size
        if sized[0] > SIZES_SEEN:  # what was long ago counts less
            sized[:] = sized[0] // 2, sized[1] // 2

    def _weight(self) -> int:
        """About the bytes that `live` takes: its values are as large as those seen lately are on average."""
        count, size = self.sized
        return len(self.live) * (ENTRY_BYTES + (OBJECT_FACTOR * size // count if count else 0))

    def rolled_back(self) -> None:
        """The transaction is gone: forget what it changed."""
        for key in self.dirty:
            self.live.pop(key, None)
            self.old.pop(key, None)
        self._clean()

    def _clean(self) -> None:
        self.dirty.clear()
        self.order.clear()

    def restored(self, entries: Sequence[Entry], store: Store) -> Iterable[Entry]:
        """Changelog entries of this table (full keys, each once) as store entries."""
        return entries
