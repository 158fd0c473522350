"""Those who had our tasks before us, and may have died with output in the air.

What a dead worker has left open in its changelogs holds up the restore of its tasks, and is ended there. Output alone holds up
nobody but its readers, until the broker ends it (15 to 25 s). So after a restore the last owners of its tasks are asked
about at the transaction coordinator, until each has been seen at rest or at work, or has had the same transaction open for
longer than a worker that is behind leaves one open (docs/decisions/0012).
"""

from __future__ import annotations

import time
from collections.abc import Callable

from c360.clock import Clock
from c360.errors import C360Error

LOOK_S = 1.0
GIVE_UP_S = 60.0  # by then the broker has ended it; and one that refuses to tell is not asked for ever


class LastOwners:
    """Transactional ids under suspicion. `add` and `look` are called on the restore thread, `due` on the loop's."""

    def __init__(
        self, since: Callable[[str], int | None], evict: Callable[[str], None], clock: Clock, abandoned_s: float
    ) -> None:
        """`since`: when the open transaction of an id began, epoch ms; None: none is open. `abandoned_s` 0: never look."""
        self._since, self._evict, self._clock = since, evict, clock
        self._abandoned_ms = abandoned_s * 1000
        self._seen: dict[str, int | None] = {}  # id -> the beginning that was seen at the last look
        self._until: dict[str, float] = {}
        self._next = 0.0

    def add(self, owner: str) -> None:
        if self._abandoned_ms:
            self._seen.setdefault(owner, None)
            self._until[owner] = time.monotonic() + GIVE_UP_S

    def due(self) -> bool:
        return bool(self._seen) and time.monotonic() >= self._next

    def look(self) -> None:
        """Ask about each once; evict those whose transaction was the same at the last look, and is old."""
        self._next = time.monotonic() + LOOK_S
        for owner, before in list(self._seen.items()):
            if time.monotonic() >= self._until[owner]:
                del self._seen[owner]
                continue
            try:
                began = self._since(owner)
            except C360Error:
                continue  # asked again
            if began is None or before not in (None, began):
                del self._seen[owner]
            elif before is not None and self._clock() - began >= self._abandoned_ms:
                del self._seen[owner]
                self._evict(owner)
            else:
                self._seen[owner] = began
