"""The transport on real brokers, through librdkafka: group membership, transactions, reading to an end, topics, groups.

Knows what the client library gets wrong or leaves open, and nothing of what records mean. `kafka_settings` holds its
settings, `kafka_errors` the remedies; nobody outside of these modules sees a client's exception.

Facts from librdkafka 2.16 that shape this one:

* `incremental_unassign` completes a pending revocation also when called outside of the callback: the member joins again
  and its partitions go to others while it still works on them, with a generation that fences nobody. So partitions
  leave the client only at the end of a revoke callback; until then they are paused, and positions move by seek.
* A subscribe during a rebalance is put off and merged with what was subscribed before: unsubscribing and subscribing
  again would then give nothing back. Unsubscribing therefore closes the client.
* A member that lost its session has no member id, and its generation may be -1: in a transaction the broker takes
  offsets with those from anybody. `group` refuses to hand them out.
* confluent-kafka 2.16 lets no second thread into a consumer that is polled all the time: `committed` called from the
  restore thread did not come back for a minute. It has a client of its own that never joins.
* The broker counts a group's generation up before its members hear of it, by the answer to a join or, in the new protocol,
  to a heartbeat, and refuses offsets of the one before. That is no loss of membership: who left for it would have the
  group move on again, and the others do the same. Who is really out is told so by the next heartbeat.
* `incremental_assign` makes the client forget that the assignment was lost: the callback is then the one for revoking.
* `send_offsets_to_transaction` does not look at its time-out and never comes back when the broker that coordinates the
  group was gone from the metadata for a moment, such as a single broker that restarts (librdkafka #5456 and #5511).
  It is waited for from another thread, and a producer that hangs is left behind.
* In the same moment a client may lose the only broker it knew, or learn that partitions do not exist, for good. What
  asks for topics and offsets makes itself a new client after an error.
* A topic that is assigned but was never asked for is looked up once a second: 0.9 s until the first record, 0.01 s when
  its metadata has been fetched before.
"""

from __future__ import annotations

import logging
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from itertools import groupby
from typing import Any, Final, TypeVar

from confluent_kafka import (
    TIMESTAMP_LOG_APPEND_TIME,
    ConsumerGroupTopicPartitions,
    KafkaError,
    KafkaException,
    Message,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka import Consumer as ConsumerClient
from confluent_kafka import Producer as ProducerClient
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # public, but not declared as exported
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ConfigSource,
    NewTopic,
    ResourceType,
)

from c360.engine.kafka_errors import OUT_OF_LOG, error_of, remedy, remedy_of
from c360.engine.kafka_settings import ClientSettings
from c360.engine.transport import (
    TP,
    Admin,
    Batch,
    Consumer,
    Delivered,
    Headers,
    Producer,
    Reader,
    Rebalance,
    TopicSpec,
    out_of_log,
)
from c360.errors import (
    BrokerAway,
    C360Error,
    EngineFatal,
    NeedsOperator,
    OutcomeUnknown,
    OutOfLog,
    TaskMigrated,
    TransactionAborted,
    UsageError,
)

log = logging.getLogger("c360.kafka")
T = TypeVar("T")

REQUEST_S: Final = 10.0  # a broker that has not answered by then is away
OFFSETS_S: Final = 5.0  # to bring offsets into a transaction; less than the transaction may take
TRIED_S: Final = 0.5  # one look at committed offsets or metadata; closing a consumer waits for it
# Without a time-out of their own both may take twice the transaction's, and a worker has 30 s to stop.
COMMIT_S: Final = 15.0
ABORT_S: Final = 5.0  # the next producer of the id aborts what is left
MADE_S: Final = 30.0  # until a new topic is known to every broker
READ_RECORDS: Final = 10_000
# Of a topic that is compacted only, while records are deleted from it.
MAY_DELETE: Final = {"cleanup.policy": "compact,delete", "retention.ms": "-1", "retention.bytes": "-1"}
LATEST, EARLIEST = -1, -2  # in place of a time, in requests for offsets

_error, _topic, _partition, _offset = Message.error, Message.topic, Message.partition, Message.offset
_key, _value, _timestamp = Message.key, Message.value, Message.timestamp


class KafkaCluster:
    """Clients for the brokers at `bootstrap`. `settings`: librdkafka's own names, each passed to the clients it is for.

    Raises UsageError for a setting that exactly-once processing depends on.
    """

    def __init__(self, bootstrap: str, settings: Mapping[str, str] | None = None) -> None:
        self.name = bootstrap
        self._settings = ClientSettings(bootstrap, settings or {})

    def consumer(self, group: str, *, instance: str | None = None) -> Consumer:
        return KafkaConsumer(_as_it_can_leave(self._settings.consumer(group, instance)), partial(self._set_up, group))

    def _set_up(self, group: str) -> None:
        """In the new group protocol the broker keeps what a member of the classic one says by itself."""
        if settings := self._settings.group():
            admin = KafkaAdmin(self._settings.admin(), self._settings.watermarks())
            admin.set_up_group(group, settings)
            admin.close()

    def producer(self, transactional_id: str | None = None) -> Producer:
        """Raises BrokerAway while the coordinator does not answer, Fenced if another process takes over meanwhile."""
        return KafkaProducer(self._settings.producer(transactional_id))

    def reader(self) -> Reader:
        return KafkaReader(self._settings.reader(), self._settings.watermarks())

    def admin(self) -> Admin:
        return KafkaAdmin(self._settings.admin(), self._settings.watermarks())


# ====================================================================================================== consumer
class KafkaConsumer:
    """A group member. All calls from one thread, except `committed`. `set_up` is called before it joins."""

    def __init__(self, config: Mapping[str, Any], set_up: Callable[[], None] = lambda: None) -> None:
        self.ignored: Counter[str] = Counter()  # transient errors by name
        self._config = dict(config)
        self._static = "group.instance.id" in config
        self._set_up = set_up
        self._client: ConsumerClient | None = _consumer(self._config)
        self._asking: ConsumerClient | None = None  # for `committed`, from whatever thread
        self._subscribed = False
        self._guard = threading.Lock()  # clients may not go while another thread is inside of them
        self._forget()

    def _forget(self) -> None:
        self._assigned: set[TP] = set()  # known to the client, paused or not
        self._reading: set[TP] = set()  # delivered to the caller
        self._paused: set[TP] = set()  # the client remembers it beyond the assignment
        self._moves: dict[TP, int] = {}  # wanted positions the client does not have yet
        self._in_callback = False
        self._stale: set[TP] = set()  # moved or given up since the client handed out records
        self._known: set[str] = set()  # topics the client has metadata of
        self._raised: BaseException | None = None  # by the listener

    def subscribe(self, topics: Sequence[str], listener: Rebalance) -> None:
        if self._static and not self._subscribed:
            from c360.engine.aio import make_way  # here: only static members need it, and it takes 80 ms

            make_way(self._config, topics)
        if not self._subscribed:
            self._set_up()
        if self._client is None:
            self._client = _consumer(self._config)
        try:
            self._client.subscribe(
                list(topics),
                on_assign=partial(self._on_assign, listener),
                on_revoke=partial(self._on_revoke, listener),
                on_lost=partial(self._on_lost, listener),
            )
        except KafkaException as raised:
            raise remedy_of(raised, "subscribing") from None
        self._subscribed = True

    def unsubscribe(self) -> None:
        self._close_client()
        self._forget()

    def poll(self, max_records: int, timeout_s: float) -> list[Batch]:
        client = self._live()
        self._stale.clear()
        if self._moves:
            self._move()
        try:
            first = client.poll(min(timeout_s, 0.02) if self._moves else timeout_s)
            messages = [] if first is None else [first]
            if messages and max_records > 1:
                messages += client.consume(max_records - 1, 0)
        except KafkaException as raised:
            raise remedy_of(raised, "polling") from None
        if self._raised is not None:
            error, self._raised = self._raised, None
            raise error
        if not messages:
            return []
        if any(map(_error, messages)):
            messages = self._records(messages)
        runs = _runs(messages)
        deliver = self._reading - self._stale
        return [_batch(tp, run) for tp, run in runs.items() if tp in deliver]

    def _records(self, messages: list[Message]) -> list[Message]:
        """Those that are records. Errors that time mends are counted, others raised."""
        records = []
        for message in messages:
            error = message.error()
            if error is None:
                records.append(message)
                continue
            found = _remedy_at(error, message, "reading")
            if not isinstance(found, BrokerAway):
                raise found
            if not self.ignored[error.name()]:
                log.info("%s: %s", self._config["group.id"], found)
            self.ignored[error.name()] += 1
        return records

    def fetch(self, positions: Mapping[TP, int]) -> None:
        self._moves |= positions
        self._reading -= positions.keys()
        if self._in_callback:  # what the client has handed out already is of before; the next poll moves
            self._stale |= positions.keys()
        else:
            self._move()

    def _move(self) -> None:
        """Bring the client to the wanted positions; one that is just starting or stopping is left for the next poll."""
        client = self._live()
        fresh = {tp: offset for tp, offset in self._moves.items() if tp not in self._assigned}
        moved = set(fresh)
        try:
            for tp in self._moves.keys() - fresh.keys():
                if _seek(client, tp, self._moves[tp]):
                    moved.add(tp)
            if paused := self._paused & moved:
                client.resume([TopicPartition(*tp) for tp in paused])
                self._paused -= paused
            if fresh:
                _learn(client, fresh, self._known)
                client.incremental_assign([TopicPartition(*tp, offset) for tp, offset in fresh.items()])
                self._assigned |= fresh.keys()
        except KafkaException as raised:
            raise remedy_of(raised, "moving to a position") from None
        for tp in moved:
            del self._moves[tp]
        self._reading |= moved

    def unfetch(self, partitions: Sequence[TP]) -> None:
        mine = self._assigned.intersection(partitions)
        for tp in mine:
            self._moves.pop(tp, None)
        self._reading -= mine
        self._stale |= mine
        if fresh := mine - self._paused:
            try:
                self._live().pause([TopicPartition(*tp) for tp in fresh])
            except KafkaException as raised:
                raise remedy_of(raised, "stopping to read") from None
            self._paused |= fresh

    def committed(self, partitions: Sequence[TP], timeout_s: float) -> dict[TP, int | None]:
        if not partitions:
            return {}

        def ask(left_s: float) -> dict[TP, int | None]:
            doing = f"committed offsets of {self._config['group.id']}"
            wanted = [TopicPartition(*tp) for tp in partitions]
            try:
                with self._guard:
                    found = self._asker().committed(wanted, timeout=max(0.01, min(TRIED_S, left_s)))
            except KafkaException as raised:
                raise remedy_of(raised, doing) from None
            for part in found:
                if part.error:
                    raise remedy(part.error, doing)
            return {TP(p.topic, p.partition): p.offset if p.offset >= 0 else None for p in found}

        return _patiently(ask, timeout_s, pause_s=0.01)  # the pause lets `close` in

    def _asker(self) -> ConsumerClient:
        """A client of the same group that never joins: the member's own lets no other thread in while one polls."""
        self._live()
        if self._asking is None:
            self._asking = _consumer({k: v for k, v in self._config.items() if k != "group.instance.id"})
        return self._asking

    def group(self) -> bytes:
        metadata = self._membership()
        if metadata is None:
            raise TaskMigrated(f"{self._config['group.id']}: this consumer is not a member of its group")
        return metadata

    def _membership(self) -> bytes | None:
        """As the client says it; None without a generation or a member id: lost, or not joined yet."""
        metadata = self._live().consumer_group_metadata()
        assert isinstance(metadata, bytes)
        assert metadata.startswith(b"CGMDv2:"), "confluent-kafka writes group metadata in another format now"
        (generation,) = struct.unpack_from("=i", metadata, 7)
        return metadata if generation > 0 and _member_id(metadata) else None

    def close(self) -> None:
        self._close_client()
        self._forget()

    def _close_client(self) -> None:
        if self._client is None:
            return
        if self._subscribed:  # nobody is told; callbacks only let go
            self._in_callback, self._raised = True, None
        member = self._membership() if self._subscribed and self._static else None
        with self._guard:
            client, self._client = self._client, None
            if self._asking is not None:
                self._asking.close()
                self._asking = None
            try:
                client.close()
            except KafkaException as raised:
                raise remedy_of(raised, "leaving the group") from None
            finally:
                self._subscribed = False
        if member is not None:
            from c360.engine.aio import leave

            leave(self._config, _member_id(member))

    def _live(self) -> ConsumerClient:
        if self._client is None:
            raise TaskMigrated(f"{self._config['group.id']}: this consumer has left its group")
        return self._client

    # ------------------------------------------------------------------------------------------------- callbacks
    def _on_assign(self, listener: Rebalance, client: ConsumerClient, parts: list[TopicPartition]) -> None:
        client.incremental_assign([])  # without a call the binding would assign, and read from who knows where
        if parts:
            self._tell(listener.assigned, parts)

    def _on_revoke(self, listener: Rebalance, client: ConsumerClient, parts: list[TopicPartition]) -> None:
        # An assign of ours between the loss and this call makes the client forget that it was a loss.
        member = self._client is None or self._membership() is not None
        if member:
            self._let_go(listener.revoked, client, parts)
        else:
            self._on_lost(listener, client, parts)

    def _on_lost(self, listener: Rebalance, client: ConsumerClient, parts: list[TopicPartition]) -> None:
        self._let_go(listener.lost, client, parts)
        if self._static and not self._raised:  # the client would join by itself, without looking at the group first
            self._raised = TaskMigrated(f"{self._config['group.id']}: the session was lost")

    def _let_go(
        self, tell: Callable[[Sequence[TP]], None], client: ConsumerClient, parts: list[TopicPartition]
    ) -> None:
        self._tell(tell, parts)
        taken = {TP(p.topic, p.partition) for p in parts}
        self._reading -= taken
        # Now is the time also for partitions that were only paused.
        gone = self._assigned - self._reading - (self._moves.keys() - taken)
        for tp in gone & taken:
            self._moves.pop(tp, None)
        self._assigned -= gone
        self._stale |= gone
        client.incremental_unassign([TopicPartition(*tp) for tp in gone])  # also of none: it answers the broker

    def _tell(self, tell: Callable[[Sequence[TP]], None], parts: list[TopicPartition]) -> None:
        if self._client is None:
            return
        self._in_callback = True
        try:
            tell([TP(p.topic, p.partition) for p in parts])
        except BaseException as error:  # the binding would leave the rebalance half done; `poll` raises it
            self._raised = self._raised or error
        finally:
            self._in_callback = False


def _member_id(metadata: bytes) -> str:
    return metadata[11:].split(b"\0", 2)[1].decode()


def _as_it_can_leave(config: Mapping[str, str]) -> Mapping[str, str]:
    """A member whose requests of its own cannot be made, for want of a way to log in, is no static one."""
    if "group.instance.id" not in config:
        return config
    from c360.engine.aio import security

    try:
        security(config)
    except ValueError as lacking:
        log.info("%s: no static member, which would need more than %s", config["group.id"], lacking)
        return {name: value for name, value in config.items() if name != "group.instance.id"}
    return config


def _consumer(config: Mapping[str, Any]) -> ConsumerClient:
    try:
        return ConsumerClient(dict(config), logger=log)
    except KafkaException as raised:
        raise UsageError(f"a Kafka setting is wrong: {error_of(raised).str()}") from None


def _learn(client: ConsumerClient, partitions: Collection[TP], known: set[str]) -> None:
    """Fetch metadata of topics that are about to be assigned and are not in `known`, so that reading begins at once."""
    for topic in {tp.topic for tp in partitions} - known:
        try:
            client.list_topics(topic, timeout=TRIED_S)
        except KafkaException as raised:  # it will look by itself, once a second
            log.debug("metadata of %s: %s", topic, raised)
            return
        known.add(topic)


def _seek(client: ConsumerClient, tp: TP, offset: int) -> bool:
    """Move a partition that is read, dropping what is buffered of it. False: not now, it is starting or stopping."""
    try:
        client.seek(TopicPartition(*tp, offset))
    except KafkaException as raised:
        if error_of(raised).code() in (KafkaError._STATE, KafkaError._PREV_IN_PROGRESS):
            return False
        raise
    return True


def _remedy_at(error: KafkaError, message: Message, doing: str) -> C360Error:
    """The remedy of an error that came as a message; of one about a position, with its name."""
    if error.code() in OUT_OF_LOG:
        return OutOfLog(
            f"{message.topic()}/{message.partition()}: offset {message.offset()} is not in the log (any more):"
            " retention has cut it, or the topic was made anew. `c360 doctor` says what is there"
        )
    return remedy(error, doing)


def _runs(messages: list[Message]) -> dict[TP, list[Message]]:
    """Messages by partition, in order. Columns by `map` over the client's methods: 0.1 µs per record."""
    partitions, topics = list(map(_partition, messages)), list(map(_topic, messages))
    one_topic = len(set(topics)) == 1  # then only partitions are compared: a restore reads a third faster
    if one_topic and len(set(partitions)) == 1:
        return {_tp(topics[0], partitions[0]): messages}
    runs: dict[TP, list[Message]] = {}
    start = 0
    for _, same in groupby(partitions if one_topic else zip(topics, partitions, strict=True)):
        stop = start + len(list(same))
        runs.setdefault(_tp(topics[start], partitions[start]), []).extend(messages[start:stop])
        start = stop
    return runs


def _tp(topic: str | None, partition: int | None) -> TP:
    assert topic is not None
    assert partition is not None
    return TP(topic, partition)


def _batch(tp: TP, run: list[Message]) -> Batch:
    offsets: list[int] = list(map(_offset, run))  # type: ignore[arg-type]  # records have one
    times = [time_ms for _, time_ms in map(_timestamp, run)]
    return Batch(tp, offsets, list(map(_key, run)), list(map(_value, run)), times, partial(_headers, run))


def _headers(run: list[Message], index: int) -> Headers:
    found: Any = run[index].headers() or []
    return [(name, value or b"") for name, value in found]


# ====================================================================================================== producer
class KafkaProducer:
    """One producer, one thread. With a transactional id, its predecessor is fenced before the constructor returns."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._transactional = "transactional.id" in config
        self._id = config.get("transactional.id", "producer")
        self._failed: KafkaError | None = None  # first delivery that failed, non-transactional
        try:
            self._client: ProducerClient | None = ProducerClient(dict(config), logger=log)
        except KafkaException as raised:
            raise UsageError(f"a Kafka setting is wrong: {error_of(raised).str()}") from None
        if self._transactional:
            try:
                self._client.init_transactions(REQUEST_S)
            except KafkaException as raised:
                error = remedy_of(raised, f"{self._id}: taking over its transactions")
                self.close()
                raise error from None

    def begin(self) -> None:
        self._call("beginning a transaction", ProducerClient.begin_transaction)

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
        client = self._live()
        to = -1 if partition is None else partition
        report: Callable[[KafkaError | None, Message], None] | None = None
        if delivered is not None:
            report = partial(self._delivered, delivered)
        elif not self._transactional:
            report = self._reported
        while True:
            try:
                if report is None and headers is None and timestamp is None:
                    client.produce(topic, value, key, to)
                else:
                    named: Any = headers or None  # the binding's type leaves lists of pairs out
                    client.produce(topic, value, key, to, on_delivery=report, timestamp=timestamp or 0, headers=named)
                return
            except BufferError:
                self._call("waiting for room in the send queue", ProducerClient.poll, 0.05)
            except KafkaException as raised:
                if self._transactional and error_of(raised).code() == KafkaError._STATE:
                    # Something sent before has failed since, and with it the transaction; aborting tells if that is all.
                    raise TransactionAborted(
                        f"{self._id}: the transaction has failed while producing to {topic}"
                    ) from None
                raise self._remedy(raised, f"producing to {topic}") from None

    def send_offsets(self, offsets: Mapping[TP, int], group: Any) -> None:
        wanted = [TopicPartition(*tp, offset) for tp, offset in offsets.items()]
        client, deadline = self._live(), time.monotonic() + OFFSETS_S
        while True:
            left_s = deadline - time.monotonic()
            try:
                _beside(lambda: client.send_offsets_to_transaction(wanted, group, OFFSETS_S), left_s)
                return
            except TimeoutError:
                raise OutcomeUnknown(f"{self._id}: sending offsets: no answer in {OFFSETS_S:.0f} s") from None
            except KafkaException as raised:
                if not error_of(raised).retriable() or time.monotonic() > deadline:
                    raise self._remedy(raised, f"{self._id}: sending offsets") from None

    def commit(self) -> None:
        self._call(f"{self._id}: commit", ProducerClient.commit_transaction, COMMIT_S, deciding=True)

    def abort(self) -> None:
        self._call(f"{self._id}: abort", ProducerClient.abort_transaction, ABORT_S, deciding=True)

    def flush(self, timeout_s: float | None = None) -> None:
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        slice_s = 0.2 if timeout_s is None else min(0.2, timeout_s)
        while self._call("waiting for acknowledgements", ProducerClient.flush, slice_s):  # in slices, for Ctrl-C
            if deadline is not None and time.monotonic() >= deadline:
                raise BrokerAway(f"records were not acknowledged within {timeout_s:g} s")
        if self._failed is not None:
            error, self._failed = self._failed, None
            raise EngineFatal(f"records were not written: {error.str()} ({error.name()})")

    def close(self) -> None:
        """Drop what is queued. An open transaction stays open until a successor or the coordinator aborts it."""
        if self._client is not None:
            client, self._client = self._client, None
            try:
                client.purge()
            except KafkaException as raised:
                log.debug("%s: %s", self._id, raised)

    def _call(self, doing: str, method: Callable[..., Any], *args: object, deciding: bool = False) -> Any:
        try:
            return method(self._live(), *args)
        except KafkaException as raised:
            raise self._remedy(raised, doing, deciding=deciding) from None

    def _live(self) -> ProducerClient:
        assert self._client is not None, "this producer is closed"
        return self._client

    def _remedy(self, raised: KafkaException, doing: str, *, deciding: bool = False) -> C360Error:
        if error_of(raised).code() == KafkaError._FATAL:  # what it was is raised by the next poll, or by an abort
            try:
                self._live().poll(0)
                if self._transactional:
                    self._live().abort_transaction(ABORT_S)
            except KafkaException as cause:
                raised = cause
        return remedy_of(raised, doing, deciding=deciding)

    def _reported(self, error: KafkaError | None, message: Message) -> None:
        if error is not None and self._failed is None:
            self._failed = error

    def _delivered(self, tell: Delivered, error: KafkaError | None, message: Message) -> None:
        if error is None:
            if (offset := message.offset()) is not None:  # it is where a repeated send was found to be there already
                kind, time_ms = message.timestamp()
                tell(offset, time_ms if kind == TIMESTAMP_LOG_APPEND_TIME else None)
        elif not self._transactional:  # in a transaction the commit says so; after an abort it is expected
            self._reported(error, message)


def _beside(call: Callable[[], T], timeout_s: float) -> T:
    """Call in a thread that is left behind when it does not come back: TimeoutError. 0.1 ms more than a call."""
    answer: Future[T] = Future()

    def run() -> None:
        try:
            answer.set_result(call())
        except BaseException as error:  # whatever it is, it is the caller's
            answer.set_exception(error)

    threading.Thread(target=run, name="beside", daemon=True).start()
    return answer.result(timeout_s)


# ======================================================================================================== reader
class KafkaReader:
    """Reads what it is told to, committed records only."""

    def __init__(self, config: Mapping[str, Any], watermarks: Mapping[str, Any]) -> None:
        self._config = config
        self._client: ConsumerClient | None = None
        self._known: set[str] = set()  # topics that the client has heard of
        self._watermarks = _Watermarks(watermarks)

    def ends(self, partitions: Sequence[TP]) -> dict[TP, int]:
        return self._watermarks.offsets(partitions, LATEST)

    def starts(self, partitions: Sequence[TP]) -> dict[TP, int]:
        return self._watermarks.offsets(partitions, EARLIEST)

    def read(self, positions: Mapping[TP, int], ends: Mapping[TP, int] | None = None) -> Iterator[list[Batch]]:
        """As promised by the protocol. Raises OutOfLog for a position before the first retained offset."""
        ends = self.ends(list(positions)) if ends is None else ends
        todo = {tp: offset for tp, offset in positions.items() if offset < ends[tp]}
        for tp, start in self.starts(list(todo)).items():
            if todo[tp] < start:
                raise out_of_log(tp, todo[tp], start)
        return self._read(todo, ends) if todo else iter(())

    def follow(self, positions: Mapping[TP, int]) -> Iterator[tuple[list[Batch], dict[TP, int]]]:
        for tp, start in self.starts(list(positions)).items():
            if positions[tp] < start:
                raise out_of_log(tp, positions[tp], start)
        return self._follow(positions)

    def _follow(self, positions: Mapping[TP, int]) -> Iterator[tuple[list[Batch], dict[TP, int]]]:
        client = self._client = self._client or _consumer(self._config)
        yielded = time.monotonic()
        try:
            _learn(client, positions, self._known)
            client.assign([TopicPartition(*tp, offset) for tp, offset in positions.items()])
            while True:
                first = client.poll(0.1)
                messages = [] if first is None else [first, *client.consume(READ_RECORDS - 1, 0.005)]
                reached: dict[TP, int] = {}
                if any(map(_error, messages)):
                    messages = self._records(messages, reached)
                batches = [_batch(tp, run) for tp, run in _runs(messages).items()] if messages else []
                if batches or reached or time.monotonic() - yielded >= 0.1:
                    yield batches, reached
                    yielded = time.monotonic()
        except KafkaException as raised:
            raise remedy_of(raised, "following") from None
        finally:
            if self._client is not None:
                client.unassign()

    def _records(self, messages: list[Message], reached: dict[TP, int]) -> list[Message]:
        """Those that are records; where partitions have ended goes into `reached`."""
        records = []
        for message in messages:
            error = message.error()
            if error is None:
                records.append(message)
            elif error.code() == KafkaError._PARTITION_EOF:
                reached[_tp(message.topic(), message.partition())] = message.offset() or 0
            elif error.code() == KafkaError.GROUP_AUTHORIZATION_FAILED:
                continue  # the client looks for the coordinator of the group that it has to name; nothing here needs one
            elif not isinstance(found := _remedy_at(error, message, "reading"), BrokerAway):
                raise found
        return records

    def _read(self, todo: dict[TP, int], ends: Mapping[TP, int]) -> Iterator[list[Batch]]:
        client = self._client = self._client or _consumer(self._config)
        left = set(todo)
        yielded = time.monotonic()
        try:
            _learn(client, todo, self._known)
            client.assign([TopicPartition(*tp, offset) for tp, offset in todo.items()])
            while left:
                first = client.poll(0.1)
                messages = [] if first is None else [first, *client.consume(READ_RECORDS - 1, 0.005)]
                batches = self._ended(messages, ends, left)
                if batches or time.monotonic() - yielded >= 0.1:
                    yield batches
                    yielded = time.monotonic()
        except KafkaException as raised:
            raise remedy_of(raised, "reading") from None
        finally:
            if self._client is not None:
                client.unassign()

    def _ended(self, messages: list[Message], ends: Mapping[TP, int], left: set[TP]) -> list[Batch]:
        """Batches of records before the ends; partitions that have reached theirs are taken out of `left`."""
        reached: dict[TP, int] = {}
        if any(map(_error, messages)):
            messages = self._records(messages, reached)
        finished = {tp for tp, offset in reached.items() if offset >= ends[tp]}
        batches = []
        for tp, run in _runs(messages).items() if messages else ():
            if tp not in left:
                continue
            batch, end = _batch(tp, run), ends[tp]
            if batch.offsets[-1] >= end - 1:
                finished.add(tp)
                batch = batch.slice(0, sum(1 for offset in batch.offsets if offset < end))
            if batch.offsets:
                batches.append(batch)
        left -= finished
        return batches

    def close(self) -> None:
        self._watermarks.close()
        if self._client is not None:
            client, self._client = self._client, None
            client.close()


class _Watermarks:
    """Offsets by time, of the log as it is: a client that does not hide what is not committed.

    A consumer, as an admin client that has just been made takes up to 3 s for its first answer; this one takes 5 ms.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._config = config
        self._client: ConsumerClient | None = None

    def offsets(self, partitions: Sequence[TP], at: int) -> dict[TP, int]:
        """First offsets at or after a time in ms, or LATEST, or EARLIEST; -1: there is none. One request per broker.

        Raises BrokerAway also for a topic that does not exist.
        """
        if not partitions:
            return {}
        doing = f"offsets of {', '.join(sorted({tp.topic for tp in partitions}))}"

        def ask(left_s: float) -> dict[TP, int]:
            client = self._client = self._client or _consumer(self._config)
            try:
                found = client.offsets_for_times([TopicPartition(*tp, at) for tp in partitions], timeout=REQUEST_S)
            except KafkaException as raised:
                self.close()  # the next try asks with a new one
                raise remedy_of(raised, doing) from None
            for part in found:
                if part.error:
                    raise remedy(part.error, doing)
            return {TP(part.topic, part.partition): part.offset for part in found}

        return _patiently(ask, REQUEST_S, pause_s=0.05)  # the leader of a new topic may not know yet that it leads

    def close(self) -> None:
        if self._client is not None:
            client, self._client = self._client, None
            client.close()


# ========================================================================================================= admin
class KafkaAdmin:
    """Topics and groups. The client is kept: a temporary one is gone before its futures resolve."""

    def __init__(self, config: Mapping[str, Any], watermarks: Mapping[str, Any]) -> None:
        self._refused: list[str] = []  # why brokers do not let the client in; to it, they are away
        # Not a method: the client would hold this object, and one that nobody closes would stay until garbage is collected.
        self._config = {**config, "error_cb": partial(_hear_refusal, self._refused)}
        try:
            self._client: AdminClient = AdminClient(self._config, logger=log)
        except KafkaException as raised:
            raise UsageError(f"a Kafka setting is wrong: {error_of(raised).str()}") from None
        self._watermarks = _Watermarks(watermarks)

    def topics(self) -> dict[str, int]:
        return {name: len(leaders) for name, leaders in self._leaders()[0].items()}

    def _leaders(self) -> tuple[dict[str, list[int]], int]:
        """Per topic the leader of each partition (-1: none now), and how many brokers there are."""
        try:  # of all topics: asking for one that does not exist could create it
            metadata = self._client.list_topics(timeout=REQUEST_S)
        except KafkaException as raised:
            error = self._remedy(raised, "asking for topics")
            self._client = AdminClient(self._config, logger=log)  # one that has lost its only broker may stay lost
            raise error from None
        topics = {n: [p.leader for p in t.partitions.values()] for n, t in metadata.topics.items() if not t.error}
        return topics, len(metadata.brokers)

    def topic_ids(self, names: Sequence[str]) -> dict[str, str]:
        if not names:
            return {}
        futures = self._client.describe_topics(TopicCollection(list(names)), request_timeout=REQUEST_S)
        found = self._results(futures, "the id of", fine={KafkaError.UNKNOWN_TOPIC_OR_PART})
        return {name: str(topic.topic_id) for name, topic in found.items()}

    def topic_configs(self, names: Sequence[str]) -> dict[str, dict[str, str]]:
        found = self._describe(names)
        return {
            name: {k: str(entry.value) for k, entry in entries.items() if entry.value is not None}
            for name, entries in found.items()
        }

    def _describe(self, names: Sequence[str]) -> dict[str, dict[str, ConfigEntry]]:
        if not names:
            return {}
        resources = [ConfigResource(ResourceType.TOPIC, name) for name in names]
        futures = self._client.describe_configs(resources, request_timeout=REQUEST_S)
        found: dict[str, dict[str, ConfigEntry]] = {}
        for resource, future in futures.items():
            try:
                found[resource.name] = future.result()
            except KafkaException as raised:
                if error_of(raised).code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                    raise remedy_of(raised, f"settings of {resource.name}") from None
        return found

    def create(self, topics: Sequence[TopicSpec]) -> None:
        if not topics:
            return
        existing, brokers = self._leaders()
        copies = min(3, brokers)
        safe = {"min.insync.replicas": "2"} if copies == 3 else {}
        missing = {t.name: t for t in topics if t.name not in existing}
        new = [NewTopic(t.name, t.partitions, copies, config={**safe, **t.config}) for t in missing.values()]
        if new:
            futures = self._client.create_topics(new, request_timeout=REQUEST_S)
            self._results(futures, "creating", fine={KafkaError.TOPIC_ALREADY_EXISTS})
        wanted = {t.name: t.partitions if t.name in missing else len(existing[t.name]) for t in topics}
        _until(lambda: self._ready(wanted), f"{', '.join(wanted)}: created, but not every broker knows yet")

    def _ready(self, wanted: Mapping[str, int]) -> bool:
        leaders = self._leaders()[0]
        if not all(len(leaders.get(name, ())) >= n and min(leaders[name]) >= 0 for name, n in wanted.items()):
            return False
        if len(self._describe(list(wanted))) < len(wanted):
            return False
        every = [TP(name, p) for name, n in wanted.items() for p in range(n)]
        try:
            self._watermarks.offsets(every, LATEST)
        except BrokerAway:
            return False
        return True

    def delete(self, names: Sequence[str]) -> None:
        if not names:
            return
        futures = self._client.delete_topics(list(names), request_timeout=REQUEST_S)
        self._results(futures, "deleting", fine={KafkaError.UNKNOWN_TOPIC_OR_PART})
        _until(lambda: not self.topics().keys() & set(names), f"{', '.join(names)}: deleted, but still listed")

    def group_members(self, group: str) -> int:
        futures = self._client.describe_consumer_groups([group], request_timeout=REQUEST_S)
        found = self._results(futures, "members of", fine={KafkaError.GROUP_ID_NOT_FOUND})
        return len(found[group].members) if group in found else 0

    def group_offsets(self, group: str) -> dict[TP, int]:
        # Of a transaction that is still open, not yet; asking for stable ones only would answer with holes instead.
        asked = [ConsumerGroupTopicPartitions(group)]
        futures = self._client.list_consumer_group_offsets(asked, request_timeout=REQUEST_S)
        found = self._results(futures, "offsets of", fine={KafkaError.GROUP_ID_NOT_FOUND})
        parts = found[group].topic_partitions if group in found else []
        return {TP(p.topic, p.partition): p.offset for p in parts if p.offset >= 0}

    def set_group_offsets(self, group: str, offsets: Mapping[TP, int]) -> None:
        if members := self.group_members(group):
            raise _active(group, members)
        if not offsets:
            return
        asked = ConsumerGroupTopicPartitions(group, [TopicPartition(*tp, offset) for tp, offset in offsets.items()])
        futures = self._client.alter_consumer_group_offsets([asked], request_timeout=REQUEST_S)
        try:
            parts = futures[group].result().topic_partitions
        except KafkaException as raised:
            parts = [TopicPartition(group, 0)]
            parts[0].error = error_of(raised)
        for part in parts:
            if part.error:
                if part.error.code() in (KafkaError.UNKNOWN_MEMBER_ID, KafkaError.NON_EMPTY_GROUP):
                    raise _active(group, 1)
                raise remedy(part.error, f"moving {group} in {part.topic}/{part.partition}")

    def set_up_group(self, group: str, settings: Mapping[str, str]) -> None:
        """Settings that the broker keeps for a group. Those it refuses are told, and its own hold: they cost time only."""
        for name, value in settings.items():
            try:
                self._alter({group: {name: value}}, ResourceType.GROUP)
            except BrokerAway:
                raise
            except C360Error as error:
                log.warning("%s: the broker keeps its own %s, as it refuses %s (%s)", group, name, value, error)

    def delete_group(self, group: str) -> None:
        futures = self._client.delete_consumer_groups([group], request_timeout=REQUEST_S)
        try:
            futures[group].result()
        except KafkaException as raised:
            code = error_of(raised).code()
            if code == KafkaError.NON_EMPTY_GROUP:
                raise _active(group, self.group_members(group)) from None
            if code != KafkaError.GROUP_ID_NOT_FOUND:
                raise remedy_of(raised, f"deleting the group {group}") from None

    def offsets_for_time(self, partitions: Sequence[TP], time_ms: int) -> dict[TP, int]:
        found = self._watermarks.offsets(partitions, time_ms)
        return {**found, **self._watermarks.offsets([tp for tp, offset in found.items() if offset < 0], LATEST)}

    def transaction_since(self, transactional_id: str) -> int | None:
        from c360.engine.aio import transaction_since  # here: only heirs need it, and it takes 80 ms

        try:
            return transaction_since(self._config, transactional_id)
        except ValueError as error:  # a kind of security that aiokafka does not have
            raise BrokerAway(f"transactions of {transactional_id}: cannot be asked for with {error}") from None

    def set_quota(self, client_id: str, quota: Mapping[str, float]) -> None:
        from c360.engine.aio import set_quota  # here: only rebuilds need it

        try:
            set_quota(self._config, client_id, quota)
        except ValueError as error:
            raise BrokerAway(f"quotas of {client_id}: cannot be set with {error}") from None

    def topic_bytes(self, names: Sequence[str]) -> dict[str, int] | None:
        from c360.engine.aio import topic_bytes  # here: only reports need it

        try:
            return topic_bytes(self._config, names)
        except (ValueError, BrokerAway) as error:
            log.info("%s", error)
            return None

    def delete_records(self, before: Mapping[TP, int]) -> None:
        """Kafka refuses this for topics that are only compacted; those may delete for as long as it takes.

        Others may do the same at the same time, or have been killed at it: what is compacted only, is so in the end.
        """
        refused = self._delete_records(before)
        names = sorted({tp.topic for tp in refused})
        kept = {name: _retention(entries) for name, entries in self._describe(names).items()}

        def deleted() -> bool:
            nonlocal refused
            self._alter({name: dict(MAY_DELETE) for name in names})  # each time: others give theirs back
            refused = self._delete_records({tp: before[tp] for tp in refused})
            return not refused

        try:
            if refused:
                _until(deleted, f"{', '.join(names)}: the broker does not let its records go")
        finally:
            self._only_compact(kept)
        with suppress(EngineFatal, NeedsOperator):  # who may not look, or set it, leaves it to one who may
            others = self._describe(sorted({tp.topic for tp in before} - set(names)))
            self._only_compact({name: {} for name, entries in others.items() if _was_let_delete(entries)})

    def _only_compact(self, kept: Mapping[str, Mapping[str, str]]) -> None:
        """Again, with the settings of their own that topics had."""
        if kept:
            again: dict[str, dict[str, str | None]] = {
                name: {**dict.fromkeys(MAY_DELETE), **own, "cleanup.policy": "compact"} for name, own in kept.items()
            }
            self._alter(again)

    def _delete_records(self, before: Mapping[TP, int]) -> list[TP]:
        """Returns the partitions whose topic's policy forbids it."""
        if not before:
            return []
        parts = [TopicPartition(*tp, offset) for tp, offset in before.items()]
        refused = []
        for part, future in self._client.delete_records(parts, request_timeout=REQUEST_S).items():
            try:
                future.result()
            except KafkaException as raised:
                if error_of(raised).code() != KafkaError.POLICY_VIOLATION:
                    raise remedy_of(raised, f"deleting records of {part.topic}/{part.partition}") from None
                refused.append(TP(part.topic, part.partition))
        return refused

    def _alter(self, settings: Mapping[str, Mapping[str, str | None]], kind: ResourceType = ResourceType.TOPIC) -> None:
        """Set settings of topics, or groups; None gives one back to the broker's default."""
        resources = [
            ConfigResource(
                kind,
                name,
                incremental_configs=[
                    ConfigEntry(
                        key,
                        value,
                        incremental_operation=AlterConfigOpType.DELETE if value is None else AlterConfigOpType.SET,
                    )
                    for key, value in entries.items()
                ],
            )
            for name, entries in settings.items()
        ]
        self._results(self._client.incremental_alter_configs(resources, request_timeout=REQUEST_S), "settings of")

    def _results(self, futures: Mapping[Any, Any], doing: str, fine: Collection[int] = ()) -> dict[Any, Any]:
        """What each future gave, without those that failed with a code that is fine."""
        found = {}
        for name, future in futures.items():
            try:
                found[name] = future.result()
            except KafkaException as raised:
                if error_of(raised).code() not in fine:
                    raise self._remedy(raised, f"{doing} {getattr(name, 'name', name)}") from None
        return found

    def _remedy(self, raised: KafkaException, doing: str) -> C360Error:
        self._client.poll(0)  # hears what has happened meanwhile
        error = remedy_of(raised, doing)
        if isinstance(error, BrokerAway) and self._refused:
            return BrokerAway(f"{error}. It may be there, but does not let this client in: {self._refused[-1]}")
        return error

    def close(self) -> None:
        self._watermarks.close()
        del self._client


def _own(entries: Mapping[str, ConfigEntry]) -> dict[str, str]:
    """Settings of a topic that are not the broker's."""
    dynamic = ConfigSource.DYNAMIC_TOPIC_CONFIG
    return {key: str(entry.value) for key, entry in entries.items() if ConfigSource(entry.source) is dynamic}


def _retention(entries: Mapping[str, ConfigEntry]) -> dict[str, str]:
    """What a compacted topic says of it, which means nothing there; "-1" is what deleting records has left, if anything."""
    return {k: v for k, v in _own(entries).items() if k in MAY_DELETE and k != "cleanup.policy" and v != "-1"}


def _was_let_delete(entries: Mapping[str, ConfigEntry]) -> bool:
    own = _own(entries)
    return all(own.get(key) == value for key, value in MAY_DELETE.items())


def _hear_refusal(refused: list[str], error: KafkaError) -> None:
    if error.code() in (KafkaError._AUTHENTICATION, KafkaError._SSL):
        refused[:] = [error.str()]


def _active(group: str, members: int) -> NeedsOperator:
    return NeedsOperator(f"the group {group} has {members} members: stop its workers first")


def _until(done: Callable[[], bool], otherwise: str) -> None:
    """Metadata spreads in its own time: ask again until it is there. Raises BrokerAway when it takes too long."""
    deadline = time.monotonic() + MADE_S
    while not done():
        if time.monotonic() > deadline:
            raise BrokerAway(otherwise)
        time.sleep(0.02)


def _patiently(ask: Callable[[float], T], timeout_s: float, *, pause_s: float) -> T:
    """What `ask`, told how many seconds are left, answers; again while the broker is away, up to the time-out."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            return ask(deadline - time.monotonic())
        except BrokerAway:
            if time.monotonic() >= deadline:
                raise
        time.sleep(pause_s)
