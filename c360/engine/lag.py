"""How many records are left to read. The end of a log does not tell: transactions leave marks there, which are no records."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from c360.engine.transport import TP, Reader
from c360.errors import OutOfLog

NEAR = 64  # offsets before the end that are looked at; further away a few marks do not matter
LOOKS = 10  # of about 0.1 s, for a transaction that is still open


def records_left(reader: Reader, positions: Mapping[TP, int], ends: Mapping[TP, int] | None = None) -> dict[TP, int]:
    """Records from each position to `ends`, or what is the end now: counted near it, else the distance of offsets, which is a
    little more."""
    return _where_there_is(reader, positions, lambda at: _left(reader, at, ends))


def _left(reader: Reader, positions: Mapping[TP, int], ends: Mapping[TP, int] | None) -> dict[TP, int]:
    ends = reader.ends(list(positions)) if ends is None else ends
    distance = {tp: max(0, ends[tp] - offset) for tp, offset in positions.items()}
    near = {tp: positions[tp] for tp, n in distance.items() if 0 < n <= NEAR}
    left = distance | dict.fromkeys(near, 0)
    silent = 0
    for batches in reader.read(near, ends):
        silent = 0 if batches else silent + 1
        if silent == LOOKS:
            return distance
        for batch in batches:
            left[batch.tp] += len(batch)
    return left


def ends_of_records(reader: Reader, starts: Mapping[TP, int]) -> dict[TP, int]:
    """The offset after each partition's last record. What is beyond are marks of transactions, which nobody reads."""
    return _where_there_is(reader, starts, lambda begins: _ends(reader, begins))


def _ends(reader: Reader, starts: Mapping[TP, int]) -> dict[TP, int]:
    ends, found, look = reader.ends(list(starts)), dict(starts), NEAR
    open_ = {tp for tp in starts if ends[tp] > starts[tp]}
    while open_:
        begin = {tp: max(starts[tp], ends[tp] - look) for tp in open_}
        for batches in reader.read(begin, {tp: ends[tp] for tp in open_}):
            for batch in batches:
                found[batch.tp] = batch.offsets[-1] + 1
        open_ = {tp for tp in open_ if found[tp] == starts[tp] and begin[tp] > starts[tp]}
        look *= 64
    return found


def _where_there_is(
    reader: Reader, positions: Mapping[TP, int], look: Callable[[Mapping[TP, int]], dict[TP, int]]
) -> dict[TP, int]:
    """A look from these positions on; again where a log was cut meanwhile, as loops are below what was read."""
    try:
        return look(positions)
    except OutOfLog:
        starts = reader.starts(list(positions))
        return look({tp: max(offset, starts[tp]) for tp, offset in positions.items()})
