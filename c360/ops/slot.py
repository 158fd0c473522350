"""The slot of a worker: the name under which it writes. Two processes must never share one."""

from __future__ import annotations

import fcntl
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from c360.errors import Fenced, NeedsOperator, UsageError

NAME = re.compile(r"[A-Za-z0-9._-]{1,64}\Z")


@contextmanager
def slot_in(state_dir: Path, wanted: str | None) -> Iterator[str]:
    """Hold the state directory and yield the slot's name: `wanted`, else one made once and kept there.

    Raises Fenced while another process holds the directory, NeedsOperator when it cannot be written.
    """
    if wanted is not None and not NAME.match(wanted):
        raise UsageError(f"C360_SLOT {wanted!r}: a slot is letters, digits, '.', '_' and '-', at most 64")
    try:
        state_dir.mkdir(parents=True, exist_ok=True)
        lock = (state_dir / "lock").open("a")
    except OSError as error:
        raise NeedsOperator(f"the state directory {state_dir} cannot be used: {error.strerror}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise Fenced(
                f"the state directory {state_dir} is in use by another worker: stop that one, or give this one its own"
                " C360_STATE_DIR"
            ) from error
        kept = state_dir / "slot"
        try:
            if not kept.exists():
                kept.write_text(uuid.uuid4().hex[:12])
            yield wanted or kept.read_text().strip()
        except OSError as error:
            if error.filename == str(kept):
                raise NeedsOperator(f"{kept} cannot be written or read: {error.strerror}") from error
            raise
