"""Raw records from JSON lines into raw topics: `{topic, key, timestamp, headers, value}` per line, plain or gzip."""

from __future__ import annotations

import base64
import gzip
import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from c360.engine.transport import Cluster, Headers, TopicSpec
from c360.errors import UsageError


@dataclass(frozen=True)
class RawRecord:
    """One record to produce. `timestamp` in ms; None: now, by the broker or client."""

    topic: str
    key: bytes | None
    value: bytes | None
    timestamp: int | None = None
    headers: Headers = field(default_factory=list)


def read_lines(path: Path) -> Iterator[RawRecord]:
    """Records of one file. Raises UsageError naming file and line for one that cannot be read."""
    try:
        raw = path.open("rb")
        zipped = raw.peek(2)[:2] == b"\x1f\x8b"
        lines: Iterable[bytes] = gzip.open(raw) if zipped else raw  # noqa: SIM115 - closed with `raw`
        with raw:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield _record(path, number, line)
    except (OSError, EOFError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from error


def _record(path: Path, number: int, line: bytes) -> RawRecord:
    try:
        said = orjson.loads(line)
    except ValueError:
        try:  # what orjson is too strict for (numbers beyond 64 bit, lone surrogates), the standard library reads
            said = json.loads(line)
        except ValueError as error:
            raise UsageError(f"{path}:{number} is not JSON") from error
    if not isinstance(said, dict) or not isinstance(said.get("topic"), str):
        raise UsageError(
            f'{path}:{number}: a line is an object with "topic", "key", "timestamp", "headers" and "value"'
        )
    timestamp = said.get("timestamp")
    try:
        headers = [(str(name), _plain(value) or b"") for name, value in _pairs(said.get("headers"))]
    except (TypeError, ValueError) as error:
        raise UsageError(f'{path}:{number}: "headers" is an object, or a list of [name, value]') from error
    try:
        key, value = _bytes(said, "key"), _bytes(said, "value")
    except (TypeError, ValueError) as error:
        raise UsageError(f'{path}:{number}: "key_base64" or "value_base64" is not base64') from error
    return RawRecord(said["topic"], key, value, timestamp if isinstance(timestamp, int) else None, headers)


def _pairs(headers: Any) -> list[tuple[Any, Any]]:
    if isinstance(headers, dict):
        return list(headers.items())
    return [(name, value) for name, value in headers or []]


def _bytes(said: dict[str, Any], name: str) -> bytes | None:
    """`name_base64` for bytes that are no text; else text as it is; anything else as compact JSON."""
    if f"{name}_base64" in said:
        return base64.b64decode(said[f"{name}_base64"], validate=True)
    return _plain(said.get(name))


def _plain(value: Any) -> bytes | None:
    if value is None:
        return None
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    try:
        return orjson.dumps(value)
    except TypeError:
        return json.dumps(value, separators=(",", ":")).encode()


def load(
    records: Iterable[RawRecord],
    cluster: Cluster,
    *,
    partitions: int,
    rate: float | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> dict[str, int]:
    """Produce the records in order; returns how many went to each topic. Missing topics are created."""
    admin = cluster.admin()
    existing = set(admin.topics())
    producer = cluster.producer()
    counts: dict[str, int] = {}
    begun = time.monotonic()
    done = 0
    for record in records:
        if record.topic not in existing:
            # Timestamps of history must not be refused nor expire at once.
            admin.create(
                [TopicSpec(record.topic, partitions, {"retention.ms": "-1", "max.message.bytes": str(16 << 20)})]
            )
            existing.add(record.topic)
        producer.produce(
            record.topic, record.key, record.value, None, record.headers or None, timestamp=record.timestamp
        )
        counts[record.topic] = counts.get(record.topic, 0) + 1
        done += 1
        if done % 1000 == 0:
            progress(1000)
        if rate is not None and (ahead := done / rate - (time.monotonic() - begun)) > 0:
            time.sleep(ahead)
    producer.flush()
    producer.close()
    progress(done % 1000)
    return counts
