"""Which members have a key: many to many, a row for each pair. A key that a million have costs no more to add to.

Rows of one key have one prefix, a digest of it: of fixed length, so that no two keys can be confused. The key itself is
not kept.
"""

from __future__ import annotations

from c360.tables.shelf import OWNER_BYTES, ShelfTable, owner_of


class Inverse(ShelfTable[bool]):
    """Sets of members by key. Adding and removing read nothing; what is there already, or is not, is fine."""

    def __init__(self, prefix: bytes) -> None:
        super().__init__(prefix, lambda _: b"", lambda _: True)

    def add(self, key: bytes, member: bytes) -> None:
        self.put(owner_of(key) + member, True)

    def remove(self, key: bytes, member: bytes) -> None:
        self.delete(owner_of(key) + member)

    def has(self, key: bytes, member: bytes) -> bool:
        return self.get(owner_of(key) + member) is not None

    def members(self, key: bytes, limit: int, start: bytes = b"") -> list[bytes]:
        """Those of a key in order, from `start` on, at most so many. The next portion: from the last one + NUL on."""
        return [row[OWNER_BYTES:] for row, _ in self.portion(owner_of(key), start, limit)]
