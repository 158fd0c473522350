"""Where the committed state of one task lies on this machine: a cache of the changelog, never ahead of it.

Keys are bytes in one ordered space; tables are prefixes (`c360.tables.table`). Two implementations under one contract
suite (`tests/contract/test_store.py`): `MemoryStore` here and `c360.tables.rocks.RocksStore`.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from c360.tables.budget import Budget

Entry = tuple[bytes, bytes | None]  # None deletes


class Store(Protocol):
    """Committed entries of one task. Errors of the disk are raised as TaskCorrupted."""

    @property
    def budget(self) -> Budget:
        """What the tables over this store may keep in memory, together with all others of the process."""

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]: ...
    def write(self, entries: Iterable[Entry]) -> None:
        """All entries, or none, in one write."""
        ...

    def scan(self, start: bytes, stop: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Entries with start <= key < stop in key order, as they were when the scan began."""
        ...

    def size_bytes(self) -> int: ...
    def close(self) -> None:
        """Keep what is on disk. Closing twice is fine."""
        ...

    def destroy(self) -> None:
        """Close and forget everything."""
        ...


class Stores(Protocol):
    """Opens the stores of tasks by name ("customer.v1/3")."""

    def open(self, name: str) -> Store:
        """Raises Fenced when another process has it open, NeedsOperator when the disk refuses."""
        ...

    def forget(self, name: str) -> None:
        """Destroy what is kept under a name, if anything is. Raises as `open`."""
        ...

    def close(self) -> None: ...


class MemoryStore:
    """A store in a dictionary, for the embedded demo and tests. `destroy` and `close` as on disk."""

    def __init__(self, budget: Budget | None = None) -> None:
        self.budget = budget or Budget()
        self.data: dict[bytes, bytes] = {}
        self.order: list[bytes] = []

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        return [self.data.get(k) for k in keys]

    def write(self, entries: Iterable[Entry]) -> None:
        for key, value in entries:
            if value is None:
                if self.data.pop(key, None) is not None:
                    del self.order[bisect_left(self.order, key)]
            else:
                if key not in self.data:
                    insort(self.order, key)
                self.data[key] = value

    def scan(self, start: bytes, stop: bytes) -> Iterator[tuple[bytes, bytes]]:
        keys = self.order[bisect_left(self.order, start) : bisect_left(self.order, stop)]
        return iter([(k, self.data[k]) for k in keys])

    def size_bytes(self) -> int:
        return sum(len(k) + len(v) for k, v in self.data.items())

    def close(self) -> None:
        pass

    def destroy(self) -> None:
        self.data.clear()
        self.order.clear()


class MemoryStores:
    """Memory stores by name. They outlive the tasks that open them, as a disk does."""

    def __init__(self) -> None:
        self.budget = Budget()
        self.stores: dict[str, MemoryStore] = {}

    def open(self, name: str) -> MemoryStore:
        return self.stores.setdefault(name, MemoryStore(self.budget))

    def forget(self, name: str) -> None:
        if name in self.stores:
            self.stores.pop(name).destroy()

    def close(self) -> None:
        pass
