"""What the engine asks of a log with partitions, groups and transactions: the words that Kafka and the in-memory log share.

Two implementations, one contract suite (`tests/contract/test_transport.py`): `engine.kafka` for real brokers and
`engine.memory` for the demo, the test driver and simulation. Errors are the classes of `c360.errors`, chosen by
remedy; no caller ever sees a client's own exception.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from c360.errors import OutOfLog

QUOTAS = ("consumer_byte_rate", "producer_byte_rate", "request_percentage")
Headers = list[tuple[str, bytes]]
Delivered = Callable[[int, int | None], None]
"""Told of a record that is in the log: its offset, and when it was appended by the broker's clock, ms; None in a topic that
keeps the producers' times (`message.timestamp.type` is not LogAppendTime)."""


class TP(NamedTuple):
    """A topic-partition."""

    topic: str
    partition: int


@dataclass(slots=True)
class Batch:
    """Consecutive records of one topic-partition as columns, in offset order: a loop over lists costs less than objects."""

    tp: TP
    offsets: list[int]
    keys: list[bytes | None]
    values: list[bytes | None]
    times: list[int]  # broker or producer timestamp, ms; -1 when the record has none
    headers: Callable[[int], Headers]  # of the record at an index; a call, as most records never need theirs

    def __len__(self) -> int:
        return len(self.offsets)

    def slice(self, start: int, stop: int) -> Batch:
        """The records at indexes `start` to `stop - 1` as a batch."""
        headers = self.headers
        return Batch(
            self.tp,
            self.offsets[start:stop],
            self.keys[start:stop],
            self.values[start:stop],
            self.times[start:stop],
            lambda i: headers(start + i),
        )


def out_of_log(tp: TP, offset: int, start: int) -> OutOfLog:
    """A reader was sent to where there is nothing any more."""
    return OutOfLog(f"{tp.topic}/{tp.partition}: offset {offset} is not in the log any more, which begins at {start}")


class Rebalance(Protocol):
    """Told of changes to a group member's partitions, inside `Consumer.poll`. Must return fast and must not raise."""

    def assigned(self, partitions: Sequence[TP]) -> None: ...
    def revoked(self, partitions: Sequence[TP]) -> None: ...
    def lost(self, partitions: Sequence[TP]) -> None: ...


class Consumer(Protocol):
    """A member of a consumer group, read_committed.

    The group assigns partitions of the subscribed topics through `Rebalance`; nothing is fetched until `fetch` names
    a partition (of those, or any other that belongs with them) and the offset to start from.
    """

    def subscribe(self, topics: Sequence[str], listener: Rebalance) -> None: ...
    def unsubscribe(self) -> None: ...
    def poll(self, max_records: int, timeout_s: float) -> list[Batch]:
        """Up to `max_records` records, in batches per partition; [] when none came in time. Runs rebalance callbacks.

        Raises EngineFatal for a fatal client error, OutOfLog when a start offset is no longer in the log.
        """
        ...

    def fetch(self, positions: Mapping[TP, int]) -> None:
        """Start reading each partition at its offset; one already read is moved there and its buffered records dropped."""
        ...

    def unfetch(self, partitions: Sequence[TP]) -> None:
        """Stop reading; unknown partitions are ignored."""
        ...

    def committed(self, partitions: Sequence[TP], timeout_s: float) -> dict[TP, int | None]:
        """The group's committed offsets, None where there is none. Waits while a transaction that moves them is open.

        Raises BrokerAway after `timeout_s`. Safe to call from another thread.
        """
        ...

    def group(self) -> Any:
        """Membership (group, member, generation) as `Producer.send_offsets` wants it; fetch it anew for each commit."""
        ...

    def close(self) -> None: ...


class Producer(Protocol):
    """An idempotent producer, transactional when made with a transactional id. Keys without a partition: murmur2."""

    def begin(self) -> None: ...
    def produce(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        partition: int | None = None,
        headers: Headers | None = None,
        delivered: Delivered | None = None,
        timestamp: int | None = None,
    ) -> None:
        """Queue one record. `delivered` is called, at the latest inside `commit` or `flush`.

        `timestamp`: ms, for topics with CreateTime; None is now.
        """
        ...

    def send_offsets(self, offsets: Mapping[TP, int], group: Any) -> None: ...
    def commit(self) -> None: ...
    def abort(self) -> None: ...
    def flush(self, timeout_s: float | None = None) -> None:
        """Non-transactional use: return when all is acknowledged.

        Raises EngineFatal if a delivery failed, BrokerAway after `timeout_s`: then it may still come to be.
        """
        ...

    def close(self) -> None: ...


class Reader(Protocol):
    """Reads partitions that no group assigns, read_committed: restore, tools, checkers."""

    def ends(self, partitions: Sequence[TP]) -> dict[TP, int]:
        """High watermarks (not last stable offsets)."""
        ...

    def starts(self, partitions: Sequence[TP]) -> dict[TP, int]:
        """First retained offsets."""
        ...

    def read(self, positions: Mapping[TP, int], ends: Mapping[TP, int] | None = None) -> Iterator[list[Batch]]:
        """Yield batches from the given offsets until every partition has reached its end (default: `ends()` now).

        A partition whose last transaction is still open is waited for. Yields an empty list about every 0.1 s
        while nothing comes, so that a caller can look at a deadline or a stop flag.
        """
        ...

    def follow(self, positions: Mapping[TP, int]) -> Iterator[tuple[list[Batch], dict[TP, int]]]:
        """Yield what is committed from the given offsets on, and what comes, for ever; ([], {}) as `read` does.

        With the batches, offsets below which all that is committed was yielded, of some partitions: behind the last
        records they pass the marks of transactions, which are no records. Raises as `read` does.
        """
        ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class TopicSpec:
    """A topic as it should be. `config` holds broker topic settings by their Kafka names."""

    name: str
    partitions: int
    config: Mapping[str, str] = field(default_factory=dict)


class Admin(Protocol):
    def topics(self) -> dict[str, int]:
        """Names of all topics and their partition counts."""
        ...

    def topic_ids(self, names: Sequence[str]) -> dict[str, str]:
        """The id of each topic that exists: another one when it was deleted and created again."""
        ...

    def topic_configs(self, names: Sequence[str]) -> dict[str, dict[str, str]]: ...
    def create(self, topics: Sequence[TopicSpec]) -> None:
        """Create what does not exist; returns when the topics can be produced to. Existing ones are left as they are."""
        ...

    def delete(self, names: Sequence[str]) -> None: ...
    def group_members(self, group: str) -> int:
        """Members of a group now; 0 for an unknown one."""
        ...

    def group_offsets(self, group: str) -> dict[TP, int]: ...
    def set_group_offsets(self, group: str, offsets: Mapping[TP, int]) -> None:
        """Move an inactive group's offsets. Raises NeedsOperator while it has members."""
        ...

    def delete_group(self, group: str) -> None:
        """Forget a group; an unknown one is fine."""
        ...

    def offsets_for_time(self, partitions: Sequence[TP], time_ms: int) -> dict[TP, int]:
        """The first offset at or after a time; the end where there is none."""
        ...

    def delete_records(self, before: Mapping[TP, int]) -> None: ...
    def transaction_since(self, transactional_id: str) -> int | None:
        """When the open transaction of this id began, epoch ms by the broker's clock; None if none is open."""
        ...

    def set_quota(self, client_id: str, quota: Mapping[str, float]) -> None:
        """What the brokers let clients of this id do at most ("consumer_byte_rate", "producer_byte_rate": bytes a second and
        broker); of what is not named, as much as of others."""
        ...

    def topic_bytes(self, names: Sequence[str]) -> dict[str, int] | None:
        """Bytes of topics on the brokers' disks, copies included; None where the brokers do not say."""
        ...

    def close(self) -> None: ...


class Cluster(Protocol):
    """Where an app's log lives; makes the clients above. `name` is fit for messages ("embedded", "localhost:9092")."""

    name: str

    def consumer(self, group: str, *, instance: str | None = None) -> Consumer: ...
    def producer(self, transactional_id: str | None = None) -> Producer: ...
    def reader(self) -> Reader: ...
    def admin(self) -> Admin: ...
