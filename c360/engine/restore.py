"""Bring the stores of tasks to the end of their changelogs. Runs beside the loop, never inside a rebalance callback."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol, TypeVar

from c360.engine.state import POSITIONS, Positions, TaskState, decode_positions
from c360.engine.transport import TP, Reader
from c360.errors import OutOfLog

T = TypeVar("T")


@dataclass
class Progress:
    """How far a restore is, for metrics and logs."""

    records: int = 0
    seconds: float = 0.0
    left: int = 0


TRIES = 3  # to read a changelog that is cut while it is read
PATIENCE_S = 1.0  # with a transaction that is open; one that is being committed takes less


def restore(
    reader: Reader,
    states: Mapping[TP, TaskState],
    progress: Progress,
    stopped: Callable[[], bool],
    evict: Callable[[str], None],
) -> bool:
    """Read each changelog from where its store stands to its high watermark. False if `stopped` said so first.

    Where a transaction is left open, `evict` is told the last owner of the changelog, once for each.
    """
    for state in states.values():
        state.open()
    return where_cut(lambda: _restore(reader, states, progress, stopped, evict))


def where_cut(read: Callable[[], T]) -> T:
    """What reading a changelog gives; it is looked at again where it was cut meanwhile, as a reset does: deleting is not
    fenced, and may come late."""
    for _ in range(TRIES - 1):
        with suppress(OutOfLog):
            return read()
    return read()


def _restore(
    reader: Reader,
    states: Mapping[TP, TaskState],
    progress: Progress,
    stopped: Callable[[], bool],
    evict: Callable[[str], None],
) -> bool:
    positions, ends = begin(reader, states)
    progress.left = sum(max(0, ends[log] - positions[log]) for log in states)
    begun = came = time.monotonic()
    earlier_s = progress.seconds
    evicted = {""}
    for batches in reader.read(positions, ends):
        if stopped():
            return False
        if batches:
            came = time.monotonic()
        elif time.monotonic() - came > PATIENCE_S:
            owners = {state.positions.owner for log, state in states.items() if state.next < ends[log]}
            for owner in sorted(owners - evicted):
                evict(owner)
            evicted |= owners
        for batch in batches:
            states[batch.tp].apply(batch)
            progress.records += len(batch)
            progress.left = max(0, progress.left - len(batch))
        progress.seconds = earlier_s + time.monotonic() - begun
    progress.left = 0
    for state in states.values():
        state.bind()
    return True


class Followed(Protocol):
    """What is in a store of one partition, and where it goes on."""

    @property
    def next(self) -> int: ...

    def forget(self) -> None: ...


def begin(reader: Reader, states: Mapping[TP, Followed]) -> tuple[dict[TP, int], dict[TP, int]]:
    """Where to read each changelog from, and where it ends (high watermarks).

    A store ahead of its changelog, or behind what the changelog still holds, belongs to another life of it and begins
    again from nothing.
    """
    logs: Sequence[TP] = list(states)
    ends, starts = reader.ends(logs), reader.starts(logs)
    for log, state in states.items():
        if state.next > ends[log] or (0 < state.next < starts[log]):
            state.forget()
    return {log: max(state.next, starts[log]) for log, state in states.items()}, ends


def last_positions(reader: Reader, log: TP) -> Positions | None:
    """What the last commit in a changelog says of its task. Each commit ends with that, so it is read from the end back."""
    return where_cut(lambda: _last_positions(reader, log))


def _last_positions(reader: Reader, log: TP) -> Positions | None:
    (end,), (start,) = reader.ends([log]).values(), reader.starts([log]).values()
    back = 16
    while True:
        first, found = max(start, end - back), None
        for batches in reader.read({log: first}, {log: end}):
            for batch in batches:
                said = [value for key, value in zip(batch.keys, batch.values, strict=True) if key == POSITIONS]
                found = said[-1] if said else found
        if found is not None or first == start:
            return None if found is None else decode_positions(found)
        back *= 16
