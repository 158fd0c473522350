"""What doors refuse, as the audit log is told of it: counted by reason, and now and then. A door that refuses a million
profiles must not write a million entries.

Of each reason at most one count in a minute. Nothing counted is lost: what was not told yet is kept with the task's state,
so it commits with the refusals, and the first of a quiet time is told at once. Knows no log and no clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from c360.governance.audit import Entry

PAUSE_MS = 60_000  # between two counts of one reason


class Denials:
    """Refusals of one task. Counting is cheap, `entry` is asked once in a commit."""

    __slots__ = ("_told", "_untold")

    def __init__(self) -> None:
        self._untold: dict[str, list[int]] = {}  # reason → how many since the last count, and when the first of them
        self._told: dict[str, int] = {}  # reason → when it was counted last, ms

    def count(self, reason: str, now_ms: int) -> None:
        """One more. reason: a word of the door's own, never what a record says."""
        if (untold := self._untold.get(reason)) is not None:
            untold[0] += 1
        else:
            self._untold[reason] = [1, now_ms]

    def due_ms(self) -> int | None:
        """When `entry` has something to tell; None: nothing was refused."""
        return min((self._told.get(reason, -PAUSE_MS) + PAUSE_MS for reason in self._untold), default=None)

    def entry(self, who: str, now_ms: int) -> Entry | None:
        """What is to be told now, and is told with that. after: how many by reason; before: since when, epoch ms.

        A clock that was set back does not silence a door.
        """
        due = [r for r in self._untold if not 0 <= now_ms - self._told.get(r, -PAUSE_MS) < PAUSE_MS]
        if not due:
            return None
        untold = {reason: self._untold.pop(reason) for reason in sorted(due)}
        self._told = {reason: at for reason, at in self._told.items() if 0 <= now_ms - at < PAUSE_MS}
        self._told |= dict.fromkeys(due, now_ms)
        return Entry(
            who=who,
            what="deny",
            at=now_ms,
            reason="",
            before={"since": str(min(first for _, first in untold.values()))},
            after={reason: str(number) for reason, (number, _) in untold.items()},
        )

    def notes(self) -> dict[str, Any]:
        """As JSON; {} when there is nothing to remember."""
        if not self._untold and not self._told:
            return {}
        return {
            "untold": {r: list(n) for r, n in sorted(self._untold.items())},
            "told": dict(sorted(self._told.items())),
        }

    def resume(self, notes: Mapping[str, Any]) -> None:
        self._untold = {reason: list(untold) for reason, untold in notes.get("untold", {}).items()}
        self._told = dict(notes.get("told", {}))
