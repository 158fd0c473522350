"""librdkafka's settings as the engine needs them, and which of a user's own go to which client. Pure: only strings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from c360.errors import UsageError

COMMON: Final[Mapping[str, str]] = {"log_level": "0"}
READING: Final[Mapping[str, str]] = {
    "isolation.level": "read_committed",
    "enable.auto.commit": "false",
    "auto.offset.reset": "error",
    "allow.auto.create.topics": "false",
    "fetch.wait.max.ms": "20",
    "fetch.queue.backoff.ms": "20",
    "queued.min.messages": "20000",
    "queued.max.messages.kbytes": "32768",
}
MEMBER: Final[Mapping[str, str]] = {
    "partition.assignment.strategy": "cooperative-sticky",
    "session.timeout.ms": "6000",
    "heartbeat.interval.ms": "500",
    "max.poll.interval.ms": "60000",  # a fail-over of a broker must not cost the membership
    "topic.metadata.refresh.interval.ms": "10000",  # partitions added to a raw topic are noticed within this
}
TO_AN_END: Final[Mapping[str, str]] = {"enable.partition.eof": "true", "queued.min.messages": "100000"}
WRITING: Final[Mapping[str, str]] = {
    "partitioner": "murmur2_random",  # Java's
    "enable.idempotence": "true",
    "retry.backoff.ms": "10",  # the coordinator answers "concurrent transactions" while it writes the last markers
    "linger.ms": "20",  # a commit waits for none of it; 5 ms cost 3 % of the CPU and 10 ms of latency (docs/decisions/0011)
    "compression.type": "lz4",
    "queue.buffering.max.messages": "1000000",
    "message.max.bytes": str((16 << 20) + (64 << 10)),  # the largest topic's limit and room for a frame
}
TRANSACTIONS: Final[Mapping[str, str]] = {"transaction.timeout.ms": "15000"}

# What exactly-once rests on is no setting.
FIXED: Final = frozenset(
    {
        "acks",
        "auto.offset.reset",
        "bootstrap.servers",
        "delivery.report.only.error",
        "enable.auto.commit",
        "enable.auto.offset.store",
        "enable.idempotence",
        "enable.partition.eof",
        "group.id",
        "group.instance.id",
        "isolation.level",
        "partition.assignment.strategy",
        "partitioner",
        "request.required.acks",
        "transactional.id",
    }
)
# In the new group protocol (KIP-848) the broker keeps these, for each group, and no client may.
OF_GROUP: Final[Mapping[str, str]] = {
    "heartbeat.interval.ms": "consumer.heartbeat.interval.ms",
    "session.timeout.ms": "consumer.session.timeout.ms",  # last: it must be longer than the other
}
NOT_OF_NEW_PROTOCOL: Final = {"partition.assignment.strategy", *OF_GROUP}
FOR_MEMBERS: Final = frozenset(
    {
        "coordinator.query.interval.ms",
        "group.protocol",
        "group.protocol.type",
        "group.remote.assignor",
        "heartbeat.interval.ms",
        "max.poll.interval.ms",
        "session.timeout.ms",
    }
)
FOR_READERS: Final = frozenset(
    {
        "check.crcs",
        "fetch.error.backoff.ms",
        "fetch.max.bytes",
        "fetch.message.max.bytes",
        "fetch.min.bytes",
        "fetch.queue.backoff.ms",
        "fetch.wait.max.ms",
        "max.partition.fetch.bytes",
        "queued.max.messages.kbytes",
        "queued.min.messages",
    }
)
FOR_WRITERS: Final = frozenset(
    {
        "batch.num.messages",
        "batch.size",
        "compression.codec",
        "compression.level",
        "compression.type",
        "delivery.timeout.ms",
        "enable.gapless.guarantee",
        "linger.ms",
        "message.send.max.retries",
        "message.timeout.ms",
        "queue.buffering.backpressure.threshold",
        "queue.buffering.max.kbytes",
        "queue.buffering.max.messages",
        "queue.buffering.max.ms",
        "request.timeout.ms",
        "retries",
        "sticky.partitioning.linger.ms",
    }
)
ONLY_SOME: Final = FOR_MEMBERS | FOR_READERS | FOR_WRITERS | TRANSACTIONS.keys()


@dataclass(frozen=True)
class ClientSettings:
    """Settings for each kind of client. `own`: the user's, which win; raises UsageError for one in FIXED."""

    bootstrap: str
    own: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if fixed := sorted(FIXED & self.own.keys()):
            raise UsageError(f"{', '.join(fixed)}: exactly-once processing rests on it, c360 sets it itself; remove it")

    def _of(self, *kinds: frozenset[str]) -> dict[str, str]:
        return {k: v for k, v in self.own.items() if k not in ONLY_SOME or any(k in kind for kind in kinds)}

    def admin(self) -> dict[str, str]:
        return {**COMMON, **self._of(), "bootstrap.servers": self.bootstrap}

    def reader(self) -> dict[str, str]:
        # The client library asks for a group; nothing joins it or stores offsets in it.
        return {**self.admin(), **READING, **TO_AN_END, **self._of(FOR_READERS), "group.id": "c360-reader"}

    def watermarks(self) -> dict[str, str]:
        """For looking at ends: where the log ends, not where committed records do."""
        return {**self.reader(), "isolation.level": "read_uncommitted"}

    def consumer(self, group: str, instance: str | None) -> dict[str, str]:
        settings = {**self.admin(), **READING, **MEMBER, **self._of(FOR_READERS, FOR_MEMBERS), "group.id": group}
        if self._new_protocol:
            # Nor a static id: there a killed member that comes back early is refused for good.
            return {k: v for k, v in settings.items() if k not in NOT_OF_NEW_PROTOCOL}
        return settings if instance is None else {**settings, "group.instance.id": instance}

    def group(self) -> dict[str, str]:
        """Settings of each group that the broker is to keep, by its names; none in the classic protocol."""
        return {name: self.own.get(ours, MEMBER[ours]) for ours, name in OF_GROUP.items()} if self._new_protocol else {}

    @property
    def _new_protocol(self) -> bool:
        return self.own.get("group.protocol") == "consumer"

    def producer(self, transactional_id: str | None) -> dict[str, str]:
        settings = {**self.admin(), **WRITING, **self._of(FOR_WRITERS)}
        if transactional_id is None:
            return settings
        own = {k: v for k, v in self.own.items() if k in TRANSACTIONS}
        return {**settings, **TRANSACTIONS, **own, "transactional.id": transactional_id}
