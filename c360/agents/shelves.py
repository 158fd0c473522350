"""Rows of large nodes: what a hub's neighbours and a large block hold, each entry by itself, in the tables of a task.

To `c360.identity` they are mappings. Rows of one node have one prefix, a digest of its key: of fixed length, so that no
two nodes can be confused, whatever their keys are.
"""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, MutableMapping, ValuesView
from typing import Any, TypeVar

import msgspec

from c360.identity.messages import Told
from c360.identity.node import LeadShelves, Neighbour, NeighbourShelves
from c360.identity.resolve import Evidence
from c360.tables.shelf import OWNER_BYTES, ShelfTable, owner_of

V = TypeVar("V")

NEIGHBOURS, WAITING, LENT, EVIDENCE, HOLDERS, TOLD = b"b", b"w", b"u", b"e", b"h", b"t"


def owner(node: str) -> bytes:
    return owner_of(node.encode())


class _Items(ItemsView[str, V]):
    def __init__(self, shelf: Shelf[V]) -> None:
        super().__init__(shelf)
        self.shelf = shelf

    def __iter__(self) -> Iterator[tuple[str, V]]:
        return iter(self.shelf.rows())


class _Values(ValuesView[V]):
    def __init__(self, shelf: Shelf[V]) -> None:
        super().__init__(shelf)
        self.shelf = shelf

    def __iter__(self) -> Iterator[V]:
        return iter([value for _, value in self.shelf.rows()])


class Shelf(MutableMapping[str, V]):
    """The rows of one node in one table, as a mapping. Its length is not known without reading all of it."""

    __slots__ = ("prefix", "table")

    def __init__(self, table: ShelfTable[V], prefix: bytes) -> None:
        self.table, self.prefix = table, prefix

    def row(self, key: str) -> bytes:
        """The key in the table."""
        return self.prefix + key.encode()

    def rows(self) -> list[tuple[str, V]]:
        width = len(self.prefix)
        return [(key[width:].decode(), value) for key, value in self.table.rows(self.prefix)]

    def get(self, key: str, default: Any = None) -> Any:
        value = self.table.get(self.prefix + key.encode())
        return default if value is None else value

    def __getitem__(self, key: str) -> V:
        value = self.table.get(self.prefix + key.encode())
        if value is None:
            raise KeyError(key)
        return value

    def __setitem__(self, key: str, value: V) -> None:
        self.table.put(self.prefix + key.encode(), value)

    def __delitem__(self, key: str) -> None:
        self.table.delete(self.prefix + key.encode())

    def __iter__(self) -> Iterator[str]:
        return iter([key for key, _ in self.rows()])

    def __len__(self) -> int:
        return len(self.table.rows(self.prefix))

    def items(self) -> ItemsView[str, V]:
        return _Items(self)

    def values(self) -> ValuesView[V]:
        return _Values(self)

    def clear(self) -> None:
        for key, _ in self.table.rows(self.prefix):
            self.table.delete(key)


class HolderRows:
    """Which subjects of a block hold which identifiers: a row for each pair."""

    __slots__ = ("prefix", "table")

    def __init__(self, table: ShelfTable[bool], prefix: bytes) -> None:
        self.table, self.prefix = table, prefix

    def add(self, identifier: str, subject: str) -> None:
        self.table.put(self.prefix + owner(identifier) + subject.encode(), True)

    def discard(self, identifier: str, subject: str) -> None:
        self.table.delete(self.prefix + owner(identifier) + subject.encode())

    def of(self, identifier: str) -> list[str]:
        return [key[2 * OWNER_BYTES :].decode() for key, _ in self.table.rows(self.prefix + owner(identifier))]

    def clear(self) -> None:
        for key, _ in self.table.rows(self.prefix):
            self.table.delete(key)


class TaskShelves:
    """The shelves of all nodes of a task."""

    def __init__(self) -> None:
        pack = msgspec.msgpack.Encoder().encode
        of: Any = msgspec.msgpack.Decoder
        self.near: ShelfTable[Neighbour] = ShelfTable(NEIGHBOURS, pack, of(Neighbour).decode)
        self.waiting: ShelfTable[bool] = ShelfTable(WAITING, _nothing, _there)
        self.lent: ShelfTable[int] = ShelfTable(LENT, pack, of(int).decode)
        self.evidence: ShelfTable[Evidence] = ShelfTable(EVIDENCE, pack, of(Evidence).decode)
        self.holders: ShelfTable[bool] = ShelfTable(HOLDERS, _nothing, _there, 2 * OWNER_BYTES)
        self.told: ShelfTable[Told] = ShelfTable(TOLD, pack, of(Told).decode)
        self.tables = (self.near, self.waiting, self.lent, self.evidence, self.holders, self.told)

    def neighbours(self, node: str) -> NeighbourShelves:
        prefix = owner(node)
        return NeighbourShelves(Shelf(self.near, prefix), Shelf(self.waiting, prefix), Shelf(self.lent, prefix))

    def lead(self, node: str) -> LeadShelves:
        prefix = owner(node)
        return LeadShelves(Shelf(self.evidence, prefix), HolderRows(self.holders, prefix), Shelf(self.told, prefix))


def _nothing(_: bool) -> bytes:
    return b""


def _there(_: bytes) -> bool:
    return True
