"""The clock as an argument: production passes `system`, tests pass their own."""

from __future__ import annotations

import time
from collections.abc import Callable

Clock = Callable[[], int]  # epoch milliseconds
DAY_MS = 86_400_000


def system() -> int:
    """Now, in epoch milliseconds."""
    return time.time_ns() // 1_000_000
