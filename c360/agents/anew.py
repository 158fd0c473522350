"""What an agent has said so far, said again when its output topic was deleted and created anew.

Who copies such a topic has forgotten what was in it, and compaction keeps no trace that there was anything. So the agent notes
the id of the topic that holds all it knows, with its positions; where another topic has the name, it writes all rows of its
table again, in portions, and notes the new id in the transaction of the last one. Until then it is not told how far it is
(`engine.teller`), so that doors stay shut. What changes meanwhile is written as always.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any, TypeVar

from c360.tables.table import Table

OUTPUT = "output"  # among the notes: id of the topic that holds all that is known
AGAIN = "again"  # and of the one that is being given it, with the last key so far
PORTION = 20_000  # rows in one transaction
V = TypeVar("V")


class Anew:
    """Of one task. `output`: the id of the topic, as it was seen last; "" while it is gone."""

    def __init__(self, output: Callable[[], str]) -> None:
        self.output = output
        self.whole, self.again = "", ("", "")
        self.written = 0  # rows, in this process

    def resume(self, notes: Mapping[str, Any]) -> None:
        again = notes.get(AGAIN, ("", ""))
        self.whole, self.again = notes.get(OUTPUT, ""), (again[0], again[1])

    def notes(self) -> dict[str, Any]:
        return {OUTPUT: self.whole} | ({AGAIN: list(self.again)} if self.again[0] else {})

    @property
    def due(self) -> bool:
        return self.output() not in ("", self.whole)

    @property
    def begun(self) -> bool:
        """Whether a part of it is written already."""
        return self.again[0] == self.output()

    def portion(self, table: Table[V]) -> list[tuple[bytes, V]]:
        """The next rows that are to be written; with the last of them the topic is whole."""
        found = self.output()
        start = f"{self.again[1]}\0".encode() if self.begun else b""
        rows = list(islice(table.scan(start), PORTION))
        if len(rows) < PORTION:
            self.whole, self.again = found, ("", "")
        else:
            self.again = found, rows[-1][0].decode()
        self.written += len(rows)
        return rows
