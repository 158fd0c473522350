"""Topics read from outside of the agents: record by record, or as the table that a compacted topic is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from c360.engine.transport import TP, Headers, Reader


class Found(NamedTuple):
    """One record and where it lies."""

    tp: TP
    offset: int
    key: bytes | None
    value: bytes | None


class Message(NamedTuple):
    """One record to be written."""

    topic: str
    key: bytes | None
    value: bytes | None
    partition: int
    headers: Headers | None = None


def records(reader: Reader, positions: Mapping[TP, int], ends: Mapping[TP, int] | None = None) -> Iterator[Found]:
    """Committed records from these positions up to `ends`, or what is the end now, each partition in order."""
    for batches in reader.read(positions, ends):
        for batch in batches:
            for offset, key, value in zip(batch.offsets, batch.keys, batch.values, strict=True):
                yield Found(batch.tp, offset, key, value)


def follow(
    reader: Reader, positions: dict[TP, int], table: dict[bytes, bytes], ends: Mapping[TP, int] | None = None
) -> None:
    """Bring `table` (key -> last value) from `positions` to the end, or to `ends` of some, and `positions` with it."""
    at = positions.copy() if ends is None else {tp: positions[tp] for tp in ends}
    for tp, offset, key, value in records(reader, at, ends):
        assert key is not None
        positions[tp] = offset + 1
        if value is None:
            table.pop(key, None)
        else:
            table[key] = value
