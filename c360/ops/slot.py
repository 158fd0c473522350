"""The slot of a worker: the name under which it writes. Two processes must never share one."""

from __future__ import annotations

import fcntl
import re
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TextIO

from c360.errors import Fenced, NeedsOperator, UsageError

NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,64}\Z")
LOOK_S: Final = 0.1


@contextmanager
def slot_in(state_dir: Path, wanted: str | None, *, wait_s: float = 0.0) -> Iterator[str]:
    """Hold the state directory and yield the slot's name: `wanted`, else one made once and kept there.

    `wait_s`: for another process that is about to let go of the directory.
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
        until = time.monotonic() + wait_s
        while not _locked(lock):
            if time.monotonic() >= until:
                raise Fenced(
                    f"the state directory {state_dir} is in use by another worker: stop that one, or give this one its own"
                    " C360_STATE_DIR"
                )
            time.sleep(LOOK_S)
        yield wanted or _kept(state_dir / "slot")


def _locked(lock: TextIO) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _kept(file: Path) -> str:
    """The name in this file. It comes there whole: two workers with half a name would be one."""
    try:
        name = file.read_text().strip() if file.exists() else ""
        if not name:
            name, beside = uuid.uuid4().hex[:12], file.with_name(".slot.new")
            beside.write_text(name)
            beside.replace(file)
        return name
    except OSError as error:
        raise NeedsOperator(f"{file} cannot be written or read: {error.strerror}") from error
