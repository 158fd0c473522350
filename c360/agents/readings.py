"""Which versions of a projection a door reads, and of which one its rows are. Pure.

A reading is a version's topic, read from its start: a number that no other reading of the task has. A version that is taken
out of the app and declared again is read again from its start, as a tombstone may be gone by then that was never read; so
what is kept of the first reading is not what the second has read. Rows are of one reading, that of the version which is
delivered; when another is, all of them are looked at.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any


def delivered(notes: Mapping[str, Any]) -> int | None:
    """The version that a task delivers, by the notes of its last commit; None while profiles are still going over to it."""
    if notes.keys() & {"sweep", "catch_up"}:
        return None
    readings = notes.get("readings", {}).items()
    return next((int(version) for version, reading in readings if reading == notes.get("rows")), None)


@dataclass
class Readings:
    """`of`: each version's. `gone`: those of versions that are read no more. `rows`: that of the rows; None: none is chosen."""

    of: dict[int, int] = field(default_factory=dict)
    gone: list[int] = field(default_factory=list)
    last: int = 0
    rows: int | None = None

    @classmethod
    def resume(cls, notes: Mapping[str, Any], versions: Collection[int]) -> Readings:
        """As the notes have it, of versions that are read now."""
        before = {int(version): reading for version, reading in notes.get("readings", {}).items()}
        gone = [*notes.get("gone", ()), *(reading for version, reading in before.items() if version not in versions)]
        readings = cls({}, gone, notes.get("last", 0), notes.get("rows"))
        for version in sorted(versions):
            if version not in before:
                readings.last += 1
            readings.of[version] = before.get(version, readings.last)
        return readings

    def notes(self) -> dict[str, Any]:
        notes: dict[str, Any] = {"readings": {str(version): n for version, n in self.of.items()}, "last": self.last}
        if self.gone:
            notes["gone"] = self.gone
        if self.rows is not None:
            notes["rows"] = self.rows
        return notes

    @property
    def all(self) -> tuple[int, ...]:
        """Of which something may be kept."""
        return (*self.of.values(), *self.gone)

    @property
    def version(self) -> int | None:
        """That of the rows; None while they are of one that is read no more."""
        return next((version for version, reading in self.of.items() if reading == self.rows), None)
