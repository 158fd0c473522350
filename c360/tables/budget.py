"""The memory that the state of one process may take: one number, divided among what needs it.

| part | of it | holds |
|---|---|---|
| values | 1/2 | decoded values in tables, those of the open transaction included |
| blocks | 1/3 | RocksDB's block cache, with its indexes and filters |
| writes | 1/6 | RocksDB's write buffers; at least 0.5 MB for each task of the process |

The first is an estimate of Python's objects, the other two are kept by RocksDB. What clients of the log queue is beside it.
"""

from __future__ import annotations

from weakref import WeakSet

DEFAULT_BYTES = 384 << 20
SMALL_BYTES = 256 << 10  # a table of less is let be


class Budget:
    """Shared by the stores and tables of a process."""

    def __init__(self, total: int = DEFAULT_BYTES) -> None:
        self.values, self.blocks, self.writes = total // 2, total // 3, total // 6
        self._tables: WeakSet[object] = WeakSet()  # those that hold more than a little

    def outgrown(self, table: object, weight: int) -> bool:
        """Whether a table with values of so many bytes has more than its part; all that hold many have equal ones.

        A part is for values in use; as much is for those used before, which are let go first.
        """
        if weight <= SMALL_BYTES:
            return False
        self._tables.add(table)
        return weight > self.values // 2 // len(self._tables)
