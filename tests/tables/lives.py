"""The lives of a task's table: commits, rollbacks, and restarts from the store and from the changelog alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Generic, TypeVar

from hypothesis import strategies as st

from c360.tables.rocks import RocksStores
from c360.tables.store import MemoryStores, Store
from c360.tables.table import Table

T = TypeVar("T", bound=Table)  # type: ignore[type-arg]  # of whatever values

ENDS = ["commit", "abort", "restart", "move"]
ends = st.sampled_from(ENDS)


class Lives(Generic[T]):
    """One table over stores of a kind, and the changelog that others would have of it."""

    def __init__(self, make: Callable[[], T], kind: str) -> None:
        self.make, self.log = make, dict[bytes, bytes]()
        self._place = TemporaryDirectory()
        self.stores = MemoryStores() if kind == "memory" else RocksStores(Path(self._place.name))
        self.names = 0
        self._open()

    def _open(self) -> None:
        self.store: Store = self.stores.open(f"life/{self.names}")
        self.table = self.make()
        self.table.bind(self.store)

    def end(self, how: str) -> bool:
        """End the transaction in one of ENDS; whether what was done in it holds."""
        if how == "commit":
            changes = self.table.changes()
            for key, value in changes:
                if value is None:
                    self.log.pop(key, None)
                else:
                    self.log[key] = value
            self.store.write(changes)
            self.table.committed()
            return True
        if how == "abort":
            self.table.rolled_back()
        elif how == "restart":  # the process dies, its disk stays
            self.store.close()
            self._open()
        else:  # another takes over and has the changelog only
            self.store.close()
            self.names += 1
            self._open()
            self.store.write(self.table.restored(sorted(self.log.items()), self.store))
        return False

    def close(self) -> None:
        self.store.close()
        self._place.cleanup()
