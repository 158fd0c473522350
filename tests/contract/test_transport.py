"""What any log promises the engine, asked of Kafka and of the in-memory log in the same words."""

from __future__ import annotations

import asyncio
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiokafka.client import AIOKafkaClient  # type: ignore[import-untyped]
from aiokafka.protocol.admin import DescribeClientQuotasRequest  # type: ignore[import-untyped]

from c360.clock import system
from c360.engine.kafka import KafkaAdmin, KafkaCluster
from c360.engine.memory import MemoryCluster
from c360.engine.transport import TP, Batch, Cluster, Consumer, Headers, Producer, TopicSpec
from c360.errors import (
    BrokerAway,
    EngineFatal,
    Fenced,
    NeedsOperator,
    Replaced,
    TaskMigrated,
    TransactionAborted,
)

DEADLINE_S = 20.0
QUIET_S = 0.3  # how long to look for what must not come
WAITS_S = 10.0

Record = tuple[int, int, bytes | None, bytes | None]  # partition, offset, key, value


PROTOCOLS = {"kafka": "classic", "kafka-consumer": "consumer"}  # with each of Kafka's two group protocols


@pytest.fixture(scope="module", params=["memory", *(pytest.param(one, marks=pytest.mark.kafka) for one in PROTOCOLS)])
def log(request: pytest.FixtureRequest) -> str:
    """Which log is asked."""
    return str(request.param)


@pytest.fixture(scope="module")
def cluster(log: str, request: pytest.FixtureRequest) -> Cluster:
    if log == "memory":
        return MemoryCluster()
    quick = {"group.protocol": PROTOCOLS[log], "heartbeat.interval.ms": "100"}  # members hear of it at once
    return KafkaCluster(request.getfixturevalue("kafka"), quick)


@pytest.fixture(scope="module")
def impatient(cluster: Cluster, log: str, request: pytest.FixtureRequest) -> Cluster:
    """The same log, whose members are out when they have not polled for 1.5 s: a test need not wait a minute."""
    if isinstance(cluster, MemoryCluster):
        return cluster
    waits = {"session.timeout.ms": "1500", "heartbeat.interval.ms": "100", "max.poll.interval.ms": "1500"}
    return KafkaCluster(request.getfixturevalue("kafka"), {"group.protocol": PROTOCOLS[log], **waits})


Feed = Callable[..., None]


@pytest.fixture(scope="module")
def feed(cluster: Cluster) -> Iterator[Feed]:
    """Writes plain records; with one producer for all tests, as a new one takes half a second to get its id."""
    producer = cluster.producer()

    def feed(topic: str, *written: str, partition: int = 0) -> None:
        write(producer, topic, *written, partition=partition)
        producer.flush()

    yield feed
    producer.close()


@pytest.fixture
def name() -> str:
    """A prefix for topics, groups and ids that no other test has."""
    return f"t{uuid.uuid4().hex[:10]}"


@pytest.fixture
def topic(cluster: Cluster, name: str) -> str:
    make(cluster, name, 2)
    return name


def make(cluster: Cluster, name: str, partitions: int, **config: str) -> None:
    admin = cluster.admin()
    admin.create([TopicSpec(name, partitions, {k.replace("_", "."): v for k, v in config.items()})])
    admin.close()


@dataclass
class Member:
    """A listener that notes what it is told, and fetches nothing by itself."""

    consumer: Consumer
    owned: set[TP] = field(default_factory=set)
    told: list[tuple[str, frozenset[TP]]] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)

    def assigned(self, partitions: Sequence[TP]) -> None:
        self.told.append(("assigned", frozenset(partitions)))
        self.owned |= set(partitions)

    def revoked(self, partitions: Sequence[TP]) -> None:
        self.told.append(("revoked", frozenset(partitions)))
        self.owned -= set(partitions)

    def lost(self, partitions: Sequence[TP]) -> None:
        self.told.append(("lost", frozenset(partitions)))
        self.owned -= set(partitions)

    def turn(self, timeout_s: float = 0.05) -> None:
        self.records += records_of(self.consumer.poll(1000, timeout_s))


@pytest.fixture
def join(cluster: Cluster) -> Iterator[Callable[..., Member]]:
    members: list[Member] = []

    def join(group: str, *topics: str) -> Member:
        member = Member(cluster.consumer(group))
        members.append(member)
        member.consumer.subscribe(list(topics), member)
        return member

    yield join
    for member in members:
        member.consumer.close()


def records_of(batches: list[Batch]) -> list[Record]:
    return [(b.tp.partition, b.offsets[i], b.keys[i], b.values[i]) for b in batches for i in range(len(b))]


def values(records: list[Record], partition: int = 0) -> list[bytes | None]:
    return [value for p, _, _, value in records if p == partition]


def is_member(member: Member) -> bool:
    """Whether the group has taken it in."""
    try:
        return bool(member.consumer.group())
    except TaskMigrated:
        return False


def until(done: Callable[[], object], *members: Member) -> None:
    """Turn the members until something is so."""
    deadline = time.monotonic() + DEADLINE_S
    while not done():
        assert time.monotonic() < deadline, "it did not happen in time"
        for member in members:
            member.turn(0.02)


def still(holds: Callable[[], object], *members: Member, quiet_s: float = QUIET_S) -> None:
    """Turn the members for a while; something stays so."""
    deadline = time.monotonic() + quiet_s
    while time.monotonic() < deadline:
        for member in members:
            member.turn(0.02)
        assert holds()


def partitions(topic: str, n: int = 2) -> set[TP]:
    return {TP(topic, p) for p in range(n)}


def write(producer: Producer, topic: str, *written: str, partition: int = 0) -> None:
    for value in written:
        producer.produce(topic, b"k", value.encode(), partition)


def commit(producer: Producer, topic: str, *written: str, partition: int = 0) -> None:
    producer.begin()
    write(producer, topic, *written, partition=partition)
    producer.commit()


def read(cluster: Cluster, *tps: TP) -> list[Record]:
    """Everything committed in the partitions, up to their ends now."""
    reader = cluster.reader()
    found = [r for batches in reader.read(reader.starts(tps)) for r in records_of(batches)]
    reader.close()
    return found


# ================================================================================================== transactions
def test_committed_records_are_seen_once_and_in_order_and_aborted_ones_never(
    cluster: Cluster, topic: str, name: str, join: Callable[..., Member]
) -> None:
    producer = cluster.producer(name)
    for n in range(0, 30, 3):
        producer.begin()
        for i in range(n, n + 3):
            write(producer, topic, str(i), partition=i % 2)
        producer.abort() if n % 2 else producer.commit()
    wanted = [i for n in range(0, 30, 3) if not n % 2 for i in range(n, n + 3)]
    member = join(name, topic)
    until(lambda: member.owned, member)
    member.consumer.fetch(dict.fromkeys(member.owned, 0))
    until(lambda: len(member.records) >= len(wanted), member)
    still(lambda: len(member.records) == len(wanted), member)
    for partition in (0, 1):
        assert values(member.records, partition) == [str(i).encode() for i in wanted if i % 2 == partition]
    assert sorted(read(cluster, *partitions(topic))) == sorted(member.records)


def test_an_open_transaction_holds_readers_back_from_all_that_follows(
    cluster: Cluster, topic: str, name: str, join: Callable[..., Member]
) -> None:
    first, second = cluster.producer(f"{name}-1"), cluster.producer(f"{name}-2")
    commit(first, topic, "before")
    first.begin()
    first.produce(topic, b"k", b"open", 0)
    reader = cluster.reader()
    tp = TP(topic, 0)
    until(lambda: reader.ends([tp])[tp] == 3)  # the open record has arrived
    commit(second, topic, "after")
    member = join(name, topic)
    until(lambda: tp in member.owned, member)
    member.consumer.fetch({tp: 0})
    until(lambda: member.records, member)
    still(lambda: values(member.records) == [b"before"], member)
    first.commit()
    until(lambda: len(member.records) == 3, member)
    assert values(member.records) == [b"before", b"open", b"after"]
    reader.close()


def test_offsets_in_a_transaction_count_from_its_commit_and_are_gone_after_an_abort(
    cluster: Cluster, topic: str, name: str, join: Callable[..., Member], feed: Feed
) -> None:
    producer, member, (one, two) = cluster.producer(name), join(name, topic), sorted(partitions(topic))
    until(lambda: member.owned == {one, two}, member)
    consumer = member.consumer
    assert consumer.committed([one, two], WAITS_S) == {one: None, two: None}
    feed(topic, "a", "b", "c", "d", "e")
    producer.begin()
    producer.send_offsets({one: 3}, consumer.group())
    with pytest.raises(BrokerAway):
        consumer.committed([one], 0.2)
    producer.commit()
    assert consumer.committed([one, two], WAITS_S) == {one: 3, two: None}
    producer.begin()
    producer.send_offsets({one: 5, two: 1}, consumer.group())
    producer.abort()
    assert consumer.committed([one, two], WAITS_S) == {one: 3, two: None}
    admin = cluster.admin()
    assert admin.group_offsets(name) == {one: 3}
    assert admin.group_offsets(f"{name}-unknown") == {}


def test_offsets_and_records_of_a_transaction_are_one_decision(
    cluster: Cluster, topic: str, name: str, join: Callable[..., Member]
) -> None:
    producer, member, one = cluster.producer(name), join(name, topic), TP(topic, 0)
    until(lambda: member.owned, member)
    for value, at in (("a", 1), ("b", 2)):
        producer.begin()
        write(producer, topic, value, partition=1)
        producer.send_offsets({one: at}, member.consumer.group())
        producer.abort() if value == "a" else producer.commit()
    assert values(read(cluster, TP(topic, 1)), 1) == [b"b"]
    assert member.consumer.committed([one], WAITS_S) == {one: 2}


def test_a_second_producer_of_an_id_aborts_and_fences_the_first(cluster: Cluster, topic: str, name: str) -> None:
    first = cluster.producer(name)
    first.begin()
    write(first, topic, "zombie")
    second = cluster.producer(name)
    commit(second, topic, "alive")
    with pytest.raises(Fenced):  # at the latest
        first.commit()
    with pytest.raises(Fenced):
        first.abort()
    assert values(read(cluster, TP(topic, 0))) == [b"alive"]


def test_who_asks_is_told_since_when_a_transaction_is_open(cluster: Cluster, topic: str, name: str) -> None:
    admin = cluster.admin()
    assert admin.transaction_since(name) is None, "nobody has that id yet"
    producer = cluster.producer(name)
    assert admin.transaction_since(name) is None, "none has begun"
    before_ms = system()
    producer.begin()
    producer.produce(topic, b"k", b"1", 0)
    until(lambda: admin.transaction_since(name) is not None)  # Kafka's begins with the first record that arrives
    since = admin.transaction_since(name)
    assert since is not None
    assert before_ms <= since <= system()
    producer.commit()
    assert admin.transaction_since(name) is None
    producer.begin()
    producer.produce(topic, b"k", b"2", 0)
    until(lambda: admin.transaction_since(name) is not None)
    again = admin.transaction_since(name)
    assert again is not None
    assert again >= since
    cluster.producer(name).close()  # as an heir ends it
    assert admin.transaction_since(name) is None
    producer.close()
    admin.close()


def test_a_fenced_producer_can_begin_nothing_new(cluster: Cluster, topic: str, name: str) -> None:
    first = cluster.producer(name)
    commit(first, topic, "a")
    cluster.producer(name)

    def try_again() -> None:
        commit(first, topic, "zombie")

    with pytest.raises(Fenced):
        try_again()
    assert values(read(cluster, TP(topic, 0))) == [b"a"]


def test_a_delivery_report_gives_the_offset_when_the_commit_returns(cluster: Cluster, topic: str, name: str) -> None:
    producer = cluster.producer(name)
    at: list[int] = []

    def delivered(offset: int, appended_ms: int | None) -> None:
        assert appended_ms is None, "its topic keeps the times of producers"
        at.append(offset)

    for _ in range(2):
        producer.begin()
        producer.produce(topic, b"k", b"a", 1)
        producer.produce(topic, b"k", b"b", 1, None, delivered)
        producer.commit()
    assert at == [1, 4]  # a marker has an offset too
    without = cluster.producer()
    without.produce(topic, b"k", b"c", 1, delivered=delivered)
    without.flush()
    assert at == [1, 4, 6]


@pytest.mark.parametrize("transactional", [False, True])
def test_a_delivery_report_gives_the_time_of_append_of_a_topic_that_keeps_it(
    cluster: Cluster, name: str, transactional: bool
) -> None:
    make(cluster, name, 1, message_timestamp_type="LogAppendTime")
    producer = cluster.producer(name if transactional else None)
    told: list[tuple[int, int | None]] = []
    before_ms = system()
    if transactional:
        producer.begin()
    for timestamp in (None, 1_000):
        producer.produce(name, b"k", b"v", 0, None, lambda offset, ms: told.append((offset, ms)), timestamp=timestamp)
    producer.commit() if transactional else producer.flush()
    after_ms = system()
    reader = cluster.reader()
    found = [
        (offset, ms)
        for batches in reader.read({TP(name, 0): 0})
        for b in batches
        for offset, ms in zip(b.offsets, b.times, strict=True)
    ]
    assert told == found
    assert all(before_ms <= (ms or 0) <= after_ms for _, ms in told)
    reader.close()
    producer.close()


def test_a_record_larger_than_its_topic_takes_ends_in_an_error_that_nobody_retries(cluster: Cluster, name: str) -> None:
    make(cluster, name, 1, max_message_bytes="1000")
    producer = cluster.producer(name)
    producer.begin()

    def finish() -> None:
        producer.produce(name, b"k", os.urandom(5000), 0)
        producer.commit()

    with pytest.raises((EngineFatal, AssertionError)):
        finish()


# ======================================================================================================== groups
def test_nothing_is_delivered_before_a_fetch_nor_after_an_unfetch(
    cluster: Cluster, topic: str, name: str, join: Callable[..., Member], feed: Feed
) -> None:
    for partition in (0, 1):
        feed(topic, "a", "b", "c", partition=partition)
    member = join(name, topic)
    until(lambda: member.owned == partitions(topic), member)
    still(lambda: not member.records, member)
    member.consumer.fetch({TP(topic, 1): 1})
    until(lambda: member.records, member)
    still(lambda: member.records == [(1, 1, b"k", b"b"), (1, 2, b"k", b"c")], member)
    member.consumer.unfetch([TP(topic, 1), TP("never", 7)])
    feed(topic, "d", partition=1)
    still(lambda: len(member.records) == 2, member)
    member.consumer.fetch({TP(topic, 1): 3, TP(topic, 0): 2})
    until(lambda: len(member.records) == 4, member)
    assert sorted(member.records[2:]) == [(0, 2, b"k", b"c"), (1, 3, b"k", b"d")]


def test_a_second_fetch_moves_back_and_what_was_buffered_does_not_come(
    cluster: Cluster, topic: str, name: str, join: Callable[..., Member], feed: Feed
) -> None:
    feed(topic, *map(str, range(2000)))
    member, tp = join(name, topic), TP(topic, 0)
    until(lambda: tp in member.owned, member)
    member.consumer.fetch({tp: 0})

    def first_of_next_poll() -> int:
        member.records.clear()
        until(lambda: member.records, member)
        return member.records[0][1]

    assert first_of_next_poll() == 0
    for back_to in (1500, 700, 0, 1999, 3, 3):
        member.consumer.fetch({tp: 5})
        member.consumer.fetch({tp: back_to})
        assert first_of_next_poll() == back_to
    until(lambda: len(member.records) == 1997, member)
    assert [offset for _, offset, _, _ in member.records] == list(range(3, 2000))


def test_two_members_share_and_the_one_that_stays_keeps_its_own(
    cluster: Cluster, name: str, join: Callable[..., Member], feed: Feed
) -> None:
    make(cluster, name, 4)
    everything = partitions(name, 4)
    first = join(name, name)
    until(lambda: first.owned == everything, first)
    for p in range(4):
        feed(name, "a", partition=p)
    first.consumer.fetch(dict.fromkeys(everything, 0))
    until(lambda: len(first.records) == 4, first)
    second = join(name, name)
    until(lambda: len(first.owned) == len(second.owned) == 2, first, second)
    assert first.owned | second.owned == everything
    assert [what for what, _ in first.told] == ["assigned", "revoked"]
    second.consumer.fetch(dict.fromkeys(second.owned, 1))
    for p in range(4):
        feed(name, "b", partition=p)
    until(lambda: len(first.records) + len(second.records) == 8, first, second)
    assert {p for p, offset, _, _ in first.records if offset == 1} == {tp.partition for tp in first.owned}
    assert {p for p, *_ in second.records} == {tp.partition for tp in second.owned}
    admin = cluster.admin()
    assert admin.group_members(name) == 2
    # One leaves: the other gets the rest, and is not told of what it has.
    kept = frozenset(first.owned)
    second.consumer.close()
    until(lambda: first.owned == everything, first)
    assert first.told[2:] == [("assigned", frozenset(everything) - kept)]
    until(lambda: admin.group_members(name) == 1)
    for tp in kept:
        feed(name, "c", partition=tp.partition)
    until(lambda: [r for r in first.records if r[3] == b"c"], first)  # reading was never interrupted for good


def test_a_member_asked_to_give_partitions_up_has_them_until_it_was_told(
    cluster: Cluster, name: str, join: Callable[..., Member], feed: Feed
) -> None:
    """Moving a position, or stopping to read, at that moment must not answer the group in the listener's place."""
    make(cluster, name, 4)
    for p in range(4):
        feed(name, "a", partition=p)
    first = join(name, name)
    until(lambda: len(first.owned) == 4, first)
    first.consumer.fetch(dict.fromkeys(first.owned, 0))
    until(lambda: len(first.records) == 4, first)
    second = join(name, name)
    until(lambda: is_member(second), second)  # and the first is asked with its next heartbeat
    still(lambda: not second.owned, second)
    for p, quiet_s in ((3, 0.2), (2, 0.2), (3, 1.5)):  # a client joins again at most once a second
        first.consumer.unfetch([TP(name, p)])
        first.consumer.fetch({TP(name, p): 0, TP(name, 0): 0})
        still(lambda: not second.owned, second, quiet_s=quiet_s)
    assert [what for what, _ in first.told] == ["assigned"]
    until(lambda: len(first.owned) == len(second.owned) == 2, first, second)
    assert first.owned.isdisjoint(second.owned)
    second.consumer.fetch(dict.fromkeys(second.owned, 0))
    first.consumer.fetch(dict.fromkeys(first.owned, 0))
    until(lambda: {r[0] for r in first.records[4:]} == {tp.partition for tp in first.owned}, first, second)
    until(lambda: {r[0] for r in second.records} == {tp.partition for tp in second.owned}, first, second)


def test_a_member_that_was_away_is_fenced_loses_its_partitions_and_joins_again(
    impatient: Cluster, log: str, topic: str, name: str
) -> None:
    hung, other = Member(impatient.consumer(name)), Member(impatient.consumer(name))
    producer = impatient.producer(name)
    hung.consumer.subscribe([topic], hung)
    until(lambda: hung.owned == partitions(topic), hung)
    kept: Any = hung.consumer.group()
    if isinstance(impatient, MemoryCluster):
        impatient.expire(hung.consumer)
    other.consumer.subscribe([topic], other)
    until(lambda: other.owned == partitions(topic), other)  # without the other's consent
    for anew in (False, True):  # the client says that it is over, or the broker does
        producer.begin()
        with pytest.raises(TaskMigrated):
            producer.send_offsets({TP(topic, 0): 1}, hung.consumer.group() if anew else kept)
        producer.abort()
    hung.consumer.fetch({TP(topic, 0): 0})  # a restore that ends just now does not make the loss an orderly end
    until(lambda: len(hung.owned) == len(other.owned) == 1, hung, other)
    taken = [told for told in hung.told if told[0] != "assigned"]
    assert partitions(topic) == frozenset().union(*(gone for _, gone in taken))
    if PROTOCOLS.get(log) != "consumer":  # there, what it was asked to give up before it was lost is told as that
        assert {what for what, _ in taken} == {"lost"}
    producer.begin()
    producer.send_offsets(dict.fromkeys(hung.owned, 1), hung.consumer.group())
    producer.commit()
    hung.consumer.close()
    other.consumer.close()


def test_a_generation_that_is_over_fences_and_its_member_stays(
    cluster: Cluster, topic: str, name: str, join: Callable[..., Member]
) -> None:
    """The group may have moved on with the member, which hears of it a moment later: no reason to leave."""
    first, producer = join(name, topic), cluster.producer(name)
    until(lambda: first.owned, first)
    old = first.consumer.group()
    second = join(name, topic)
    until(lambda: len(first.owned) == len(second.owned) == 1, first, second)
    producer.begin()
    write(producer, topic, "a")
    with pytest.raises(TransactionAborted):
        producer.send_offsets({TP(topic, 0): 1}, old)
    producer.abort()
    producer.begin()
    write(producer, topic, "b")
    producer.send_offsets({TP(topic, 0): 1}, first.consumer.group())
    producer.commit()
    assert values(read(cluster, TP(topic, 0))) == [b"b"]


def test_who_is_not_a_member_has_no_membership_to_commit_with(cluster: Cluster, topic: str, name: str) -> None:
    consumer = cluster.consumer(name)
    with pytest.raises(TaskMigrated):
        consumer.group()
    consumer.close()
    consumer.unfetch([TP(topic, 0)])


def test_unsubscribing_gives_all_back_and_subscribing_gets_it_anew(
    cluster: Cluster, topic: str, name: str, join: Callable[..., Member], feed: Feed
) -> None:
    feed(topic, "a")
    member = join(name, topic)
    until(lambda: member.owned == partitions(topic), member)
    member.consumer.fetch({TP(topic, 0): 0})
    until(lambda: member.records, member)
    member.consumer.unsubscribe()
    assert len(member.told) == 1  # who unsubscribes knows
    with pytest.raises(TaskMigrated):
        member.consumer.group()
    again = Member(member.consumer)
    member.consumer.subscribe([topic], again)
    until(lambda: again.owned == partitions(topic), again)
    still(lambda: not again.records, again)
    again.consumer.fetch({TP(topic, 0): 0})
    until(lambda: again.records, again)


def test_partitions_beside_the_subscription_are_read_and_committed_for_the_lead(
    cluster: Cluster, name: str, join: Callable[..., Member], feed: Feed
) -> None:
    lead, inputs = f"{name}-lead", [f"{name}-a", f"{name}-b"]
    for made in (lead, *inputs):
        make(cluster, made, 4)
    producer = cluster.producer(name)
    positions: dict[TP, int] = {}

    @dataclass
    class Worker(Member):
        fresh: list[TP] = field(default_factory=list)

        def assigned(self, partitions: Sequence[TP]) -> None:
            super().assigned(partitions)
            self.fresh += partitions

        def revoked(self, partitions: Sequence[TP]) -> None:
            super().revoked(partitions)
            self.fresh = [tp for tp in self.fresh if tp not in partitions]
            self.consumer.unfetch([TP(t, tp.partition) for tp in partitions for t in inputs])

        def turn(self, timeout_s: float = 0.05) -> None:
            got = self.consumer.poll(1000, timeout_s)
            self.records += records_of(got)
            owned = {tp.partition for tp in self.owned}
            assert {b.tp.partition for b in got} <= owned
            moved = {b.tp: b.offsets[-1] + 1 for b in got}
            for batch in got:
                assert batch.offsets[0] == positions.get(batch.tp, 0), "every record once, none left out"
            if moved:
                producer.begin()
                producer.send_offsets(moved, self.consumer.group())
                producer.commit()
                positions.update(moved)
            for tp in self.fresh:  # late: outside of the callback
                own = [TP(t, tp.partition) for t in inputs]
                found = self.consumer.committed(own, WAITS_S)
                assert {t: n or 0 for t, n in found.items()} == {t: positions.get(t, 0) for t in own}
                self.consumer.fetch({t: n or 0 for t, n in found.items()})
            self.fresh = []

    def worker() -> Worker:
        made = Worker(cluster.consumer(f"{name}-group"))
        made.consumer.subscribe([lead], made)
        return made

    def feed_inputs() -> None:
        for t in inputs:
            for p in range(4):
                feed(t, "x", "y", partition=p)

    feed_inputs()
    first = worker()
    until(lambda: len(first.records) == 16, first)
    second = worker()
    until(lambda: len(first.owned) == len(second.owned) == 2, first, second)
    feed_inputs()
    until(lambda: len(first.records) + len(second.records) == 32, first, second)
    assert len(second.records) == 8
    second.consumer.close()
    until(lambda: len(first.owned) == 4, first)
    feed_inputs()
    until(lambda: len(first.records) == 40, first)
    assert positions == {TP(t, p): 6 for t in inputs for p in range(4)}
    first.consumer.close()


def test_an_exception_in_a_callback_comes_out_of_poll_and_the_rebalance_goes_on(
    cluster: Cluster, topic: str, name: str, join: Callable[..., Member]
) -> None:
    class Broken(Member):
        def revoked(self, partitions: Sequence[TP]) -> None:
            super().revoked(partitions)
            raise RuntimeError("a listener's mistake")

    broken = Broken(cluster.consumer(name))
    broken.consumer.subscribe([topic], broken)
    until(lambda: broken.owned == partitions(topic), broken)
    other = join(name, topic)

    def share() -> None:
        until(lambda: other.owned, broken, other)

    with pytest.raises(RuntimeError, match="a listener's mistake"):
        share()
    until(lambda: len(other.owned) == len(broken.owned) == 1, broken, other)
    broken.consumer.close()


def test_a_position_that_is_not_in_the_log_any_more_needs_an_operator(
    cluster: Cluster, topic: str, name: str, join: Callable[..., Member], feed: Feed
) -> None:
    feed(topic, "a", "b", "c")
    tp = TP(topic, 0)
    cluster.admin().delete_records({tp: 2})
    member = join(name, topic)
    until(lambda: tp in member.owned, member)
    member.consumer.fetch({tp: 1})

    def read_on() -> None:
        until(lambda: member.records, member)

    with pytest.raises(NeedsOperator, match=f"{topic}/0: offset 1 "):
        read_on()


def test_committed_offsets_can_be_asked_for_while_another_thread_polls(
    cluster: Cluster, topic: str, name: str, join: Callable[..., Member]
) -> None:
    member, tp = join(name, topic), TP(topic, 0)
    until(lambda: member.owned, member)
    cluster.admin()
    found: list[object] = []

    def ask() -> None:
        for _ in range(20):
            found.append(member.consumer.committed([tp], WAITS_S))

    thread = threading.Thread(target=ask)
    thread.start()
    until(lambda: not thread.is_alive(), member)
    assert found == [{tp: None}] * 20


def test_poll_gives_no_more_than_asked_and_loses_nothing_by_it(
    cluster: Cluster, topic: str, name: str, join: Callable[..., Member], feed: Feed
) -> None:
    for p in (0, 1):
        feed(topic, *map(str, range(50)), partition=p)
    member = join(name, topic)
    until(lambda: member.owned == partitions(topic), member)
    member.consumer.fetch(dict.fromkeys(member.owned, 0))
    got: list[Record] = []
    deadline = time.monotonic() + DEADLINE_S
    while len(got) < 100:
        assert time.monotonic() < deadline
        some = records_of(member.consumer.poll(7, 0.05))
        assert len(some) <= 7
        got += some
    for p in (0, 1):
        assert [offset for at, offset, _, _ in got if at == p] == list(range(50))


# ======================================================================================================= reading
def test_a_reader_ends_behind_aborted_records_and_markers(cluster: Cluster, topic: str, name: str) -> None:
    producer, tp, empty = cluster.producer(name), TP(topic, 0), TP(topic, 1)
    commit(producer, topic, "a", "b")
    reader = cluster.reader()
    producer.begin()
    write(producer, topic, "c")
    until(lambda: reader.ends([tp])[tp] == 4)
    producer.abort()
    until(lambda: reader.ends([tp])[tp] == 5)
    assert reader.ends([tp, empty]) == {tp: 5, empty: 0}
    assert reader.starts([tp, empty]) == {tp: 0, empty: 0}
    assert values([r for b in reader.read({tp: 0, empty: 0}) for r in records_of(b)]) == [b"a", b"b"]
    assert list(reader.read({empty: 0})) == []
    assert list(reader.read({tp: 5})) == []
    assert values([r for b in reader.read({tp: 3}) for r in records_of(b)]) == []
    commit(producer, topic, "d", "e")
    # An end that was asked for earlier: nothing after it comes.
    assert values([r for b in reader.read({tp: 1}, {tp: 5}) for r in records_of(b)]) == [b"b"]
    assert values([r for b in reader.read({tp: 1}, {tp: 6}) for r in records_of(b)]) == [b"b", b"d"]
    reader.close()


def test_a_reader_waits_for_an_open_transaction_and_says_so_now_and_then(
    cluster: Cluster, topic: str, name: str
) -> None:
    producer, tp, reader = cluster.producer(name), TP(topic, 0), cluster.reader()
    commit(producer, topic, "a")
    producer.begin()
    write(producer, topic, "b")
    until(lambda: reader.ends([tp])[tp] == 3)  # the high watermark, not the last stable offset
    got: list[Record] = []
    empty = 0
    for batches in reader.read({tp: 0}):
        got += records_of(batches)
        empty += not batches
        if empty == 2 and not batches:
            assert values(got) == [b"a"]
            producer.commit()
    assert empty >= 2
    assert values(got) == [b"a", b"b"]
    reader.close()


def test_a_follower_is_told_what_comes_and_how_far_it_is_with_marks_and_without_what_is_aborted(
    cluster: Cluster, topic: str, name: str
) -> None:
    reader, producer = cluster.reader(), cluster.producer(name)
    following = reader.follow({TP(topic, 0): 0})
    reached: dict[TP, int] = {}
    for value, commit in ((b"1", True), (b"2", False), (b"3", True)):
        producer.begin()
        producer.produce(topic, b"k", value, 0)
        producer.flush()  # that there is something to abort
        if commit:
            producer.commit()
        else:
            producer.abort()
        # A commit returns before its mark is in the log; then the follower passes this end.
        end, deadline = reader.ends([TP(topic, 0)])[TP(topic, 0)], time.monotonic() + DEADLINE_S
        found: list[bytes | None] = []
        while reached.get(TP(topic, 0), 0) < end:
            assert time.monotonic() < deadline, (reached, end)
            batches, said = next(following)
            reached |= said
            found += [v for batch in batches for v in batch.values]
        assert found == ([value] if commit else [])
    following.close()  # type: ignore[attr-defined]  # a generator with both
    reader.close()
    producer.close()


def test_a_topic_that_is_made_again_has_another_id(cluster: Cluster, name: str) -> None:
    admin = cluster.admin()
    admin.create([TopicSpec(name, 1)])
    before = admin.topic_ids([name, f"{name}-nowhere"])
    assert admin.topic_ids([name]) == before
    assert before.keys() == {name}
    admin.delete([name])
    assert admin.topic_ids([name]) == {}
    admin.create([TopicSpec(name, 1)])
    assert admin.topic_ids([name])[name] != before[name]
    admin.close()


def test_a_reader_reads_partitions_of_many_topics_whole(cluster: Cluster, name: str, feed: Feed) -> None:
    topics = [f"{name}-{n}" for n in range(3)]
    for t in topics:
        make(cluster, t, 2)
        for p in (0, 1):
            feed(t, *(f"{t}/{p}/{i}" for i in range(500)), partition=p)
    reader = cluster.reader()
    got: dict[TP, list[bytes | None]] = {}
    for batches in reader.read({TP(t, p): 100 for t in topics for p in (0, 1)}):
        for batch in batches:
            got.setdefault(batch.tp, []).extend(batch.values)
    for (t, p), found in got.items():
        assert found == [f"{t}/{p}/{i}".encode() for i in range(100, 500)]
    assert len(got) == 6
    reader.close()


def test_records_deleted_from_the_front_move_the_start_also_of_a_compacted_topic(
    cluster: Cluster, name: str, feed: Feed
) -> None:
    config = {"cleanup_policy": "compact", "retention_ms": "77000000"}
    make(cluster, name, 2, **config)
    for p in (0, 1):
        feed(name, "a", "b", "c", partition=p)
    admin, reader, (one, two) = cluster.admin(), cluster.reader(), sorted(partitions(name))
    admin.delete_records({one: 2, two: 0})
    assert reader.starts([one, two]) == {one: 2, two: 0}
    assert reader.ends([one, two]) == {one: 3, two: 3}
    assert values(read(cluster, one)) == [b"c"]
    with pytest.raises(NeedsOperator, match=f"{name}/0: offset 1 "):
        reader.read({one: 1})
    admin.delete_records(reader.ends([one, two]))
    assert reader.starts([one, two]) == {one: 3, two: 3}
    assert list(reader.read({one: 3})) == []
    left = {"cleanup.policy": "compact", "retention.ms": "77000000"}.items()
    until(lambda: left <= admin.topic_configs([name])[name].items())
    reader.close()


LET = {"cleanup.policy": "compact,delete", "retention.ms": "-1", "retention.bytes": "-1"}


def test_of_two_that_delete_from_a_compacted_topic_at_once_none_leaves_it_otherwise(kafka: str, name: str) -> None:
    """Each lets it delete for a moment, and gave back what it had found: that of the other, so it stayed so for ever.

    Of two workers that begin a reset agent one is fenced, but its deleting is not.
    """
    cluster = KafkaCluster(kafka)
    make(cluster, name, 1, cleanup_policy="compact")
    producer, tp = cluster.producer(), TP(name, 0)
    for _ in range(6):
        producer.produce(name, b"k", b"v", 0)
    producer.flush()
    other, one = cluster.admin(), cluster.admin()
    assert isinstance(other, KafkaAdmin)
    assert isinstance(one, KafkaAdmin)
    looked = one._describe

    def describe(names: Sequence[str]) -> Any:
        other._alter({name: dict(LET)})
        until(lambda: LET.items() <= other.topic_configs([name])[name].items())
        one._describe = looked  # type: ignore[method-assign]
        return looked(names)

    one._describe = describe  # type: ignore[method-assign]
    one.delete_records({tp: 2})
    until(lambda: other.topic_configs([name])[name]["cleanup.policy"] == "compact")
    # one that was killed at it is followed by the next, which is not refused
    other._alter({name: dict(LET)})
    until(lambda: LET.items() <= other.topic_configs([name])[name].items())
    one.delete_records({tp: 4})
    until(lambda: other.topic_configs([name])[name]["cleanup.policy"] == "compact")
    assert int(other.topic_configs([name])[name]["retention.ms"]) > 0, "that of the broker again"
    # of two at once both get through
    both = [threading.Thread(target=admin.delete_records, args=({tp: n},)) for admin, n in ((one, 5), (other, 6))]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    until(lambda: other.topic_configs([name])[name]["cleanup.policy"] == "compact")
    assert cluster.reader().starts([tp]) == {tp: 6}


def test_what_does_not_exist_yet_is_waited_for(cluster: Cluster, name: str) -> None:
    reader = cluster.reader()
    with pytest.raises(BrokerAway, match=name):
        reader.ends([TP(name, 0)])
    assert reader.ends([]) == {}
    reader.close()


# ======================================================================================================= records
def test_keys_choose_the_partition_that_java_chooses(cluster: Cluster, name: str) -> None:
    # Hashes of org.apache.kafka.common.utils.Utils.murmur2, from Kafka's own test of it.
    java = {
        b"21": -973932308,
        b"foobar": -790332482,
        b"a-little-bit-long-string": -985981536,
        b"a-little-bit-longer-string": -1486304829,
        b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
        b"abc": 479470107,
    }
    make(cluster, name, 7)
    producer = cluster.producer()
    for key in java:
        producer.produce(name, key, b"v")
    producer.flush()
    found = {key: p for p, _, key, _ in read(cluster, *partitions(name, 7))}
    assert found == {key: (h & 0x7FFFFFFF) % 7 for key, h in java.items()}


def test_nulls_empties_headers_and_timestamps_come_back_as_they_went(cluster: Cluster, topic: str, name: str) -> None:
    producer, tp = cluster.producer(), TP(topic, 0)
    headers: Headers = [("a", b"1"), ("a", b"2"), ("ü", b"")]
    producer.produce(topic, None, b"v", 0, headers, timestamp=1_000)
    producer.produce(topic, b"k", None, 0, timestamp=2_000)
    producer.produce(topic, b"", b"", 0, [])
    producer.flush()
    reader = cluster.reader()
    batches = [b for found in reader.read({tp: 0}) for b in found]
    assert records_of(batches) == [(0, 0, None, b"v"), (0, 1, b"k", None), (0, 2, b"", b"")]
    times = [t for b in batches for t in b.times]
    assert times[:2] == [1_000, 2_000]
    assert abs(times[2] - time.time() * 1000) < 60_000
    assert [b.headers(i) for b in batches for i in range(len(b))] == [headers, [], []]
    if len(batches[0]) > 1:
        assert batches[0].slice(1, 2).headers(0) == []
        assert batches[0].slice(1, 2).times == [2_000]
    admin = cluster.admin()
    assert admin.offsets_for_time([tp], 1_500) == {tp: 1}
    assert admin.offsets_for_time([tp, TP(topic, 1)], 10**13) == {tp: 3, TP(topic, 1): 0}
    reader.close()


def test_a_topic_with_log_append_time_has_the_brokers_time(cluster: Cluster, name: str) -> None:
    make(cluster, name, 1, message_timestamp_type="LogAppendTime")
    producer, reader = cluster.producer(), cluster.reader()
    producer.produce(name, b"k", b"v", timestamp=1_000)
    producer.flush()
    (batch,) = [b for found in reader.read({TP(name, 0): 0}) for b in found]
    assert abs(batch.times[0] - time.time() * 1000) < 60_000
    reader.close()


def test_records_without_a_key_spread_over_partitions(cluster: Cluster, topic: str) -> None:
    producer, reader = cluster.producer(), cluster.reader()
    deadline = time.monotonic() + DEADLINE_S
    while not all(reader.ends(sorted(partitions(topic))).values()):
        assert time.monotonic() < deadline
        producer.produce(topic, None, b"v")
        producer.flush()
    reader.close()


# ========================================================================================================= admin
def test_creating_a_topic_again_changes_nothing_and_deleting_is_final(cluster: Cluster, name: str, feed: Feed) -> None:
    admin = cluster.admin()
    wanted = {"cleanup.policy": "compact", "segment.bytes": "67108864"}
    admin.create([TopicSpec(name, 3, wanted)])
    feed(name, "a")  # can be produced to at once
    admin.create([TopicSpec(name, 5, {"cleanup.policy": "delete"}), TopicSpec(f"{name}-2", 1)])
    admin.create([])
    topics = admin.topics()
    assert (topics[name], topics[f"{name}-2"]) == (3, 1)
    configs = admin.topic_configs([name, f"{name}-never"])
    assert configs.keys() == {name}
    assert wanted.items() <= configs[name].items()
    assert values(read(cluster, TP(name, 0))) == [b"a"]
    admin.delete([name, f"{name}-never"])
    assert name not in admin.topics()
    admin.create([TopicSpec(name, 1)])
    assert read(cluster, TP(name, 0)) == []


def test_a_groups_offsets_are_moved_only_while_it_has_no_members(
    cluster: Cluster, topic: str, name: str, join: Callable[..., Member]
) -> None:
    admin, (one, two) = cluster.admin(), sorted(partitions(topic))
    assert admin.group_members(name) == 0
    admin.set_group_offsets(name, {one: 7, two: 0})
    assert admin.group_offsets(name) == {one: 7, two: 0}
    member = join(name, topic)
    until(lambda: member.owned, member)
    assert member.consumer.committed([one, two], WAITS_S) == {one: 7, two: 0}
    assert admin.group_members(name) == 1
    with pytest.raises(NeedsOperator, match=f"{name} has 1 members"):
        admin.set_group_offsets(name, {one: 1})
    with pytest.raises(NeedsOperator, match=name):
        admin.delete_group(name)
    member.consumer.close()
    until(lambda: admin.group_members(name) == 0)
    admin.set_group_offsets(name, {one: 1})
    assert admin.group_offsets(name) == {one: 1, two: 0}
    admin.delete_group(name)
    admin.delete_group(f"{name}-never")
    assert admin.group_offsets(name) == {}


def test_a_quota_of_clients_is_set_and_taken_away_and_sizes_of_topics_are_told(
    cluster: Cluster, name: str, topic: str, feed: Feed
) -> None:
    admin = cluster.admin()
    admin.set_quota(name, {"consumer_byte_rate": 2e6, "producer_byte_rate": 1.5e6})
    until(lambda: quotas(cluster, name) == {"consumer_byte_rate": 2e6, "producer_byte_rate": 1.5e6})
    admin.set_quota(name, {"consumer_byte_rate": 3e6})
    until(lambda: quotas(cluster, name) == {"consumer_byte_rate": 3e6})
    admin.set_quota(name, {})
    admin.set_quota(name, {})
    until(lambda: quotas(cluster, name) == {})
    feed(topic, "x" * 1000)
    sizes = admin.topic_bytes([topic])
    assert isinstance(cluster, MemoryCluster) if sizes is None else sizes[topic] > 50


def quotas(cluster: Cluster, client_id: str) -> dict[str, float]:
    """Of a client id, as the brokers have them."""
    if isinstance(cluster, MemoryCluster):
        return cluster.quotas.get(client_id, {})

    async def ask() -> dict[str, float]:
        client = AIOKafkaClient(bootstrap_servers=cluster.name)
        await client.bootstrap()
        request = DescribeClientQuotasRequest([("client-id", 0, client_id)], True)  # 0: exactly this one
        said = await client.send(client.get_random_node(), request)
        await client.close()
        return {key: value for _, values in said.entries for key, value in values}

    return asyncio.run(ask())


@pytest.mark.kafka
def test_a_static_member_leaves_when_it_is_closed_and_not_when_it_is_killed(kafka: str, name: str) -> None:
    """Its session is longer than this test waits."""
    cluster = KafkaCluster(kafka, {"session.timeout.ms": "45000"})
    make(cluster, name, 2)
    admin = cluster.admin()
    first = Member(cluster.consumer(name, instance="slot"))
    first.consumer.subscribe([name], first)
    until(lambda: first.owned == partitions(name, 2), first)
    again = Member(cluster.consumer(name, instance="slot"))  # its process was killed and is back
    again.consumer.subscribe([name], again)
    until(lambda: again.owned == partitions(name, 2), again)
    other = Member(cluster.consumer(name, instance="other"))
    other.consumer.subscribe([name], other)
    until(lambda: len(other.owned) == len(again.owned) == 1, again, other)
    again.consumer.close()
    until(lambda: other.owned == partitions(name, 2), other)
    other.consumer.close()
    until(lambda: admin.group_members(name) == 0)
    with pytest.raises(Replaced):
        until(lambda: False, first)  # it hears that another is in its place
    first.consumer.unsubscribe()  # and may try again
    first.consumer.subscribe([name], first)
    until(lambda: first.owned == partitions(name, 2), first)
    first.consumer.close()
    admin.close()


@pytest.mark.kafka
def test_what_a_static_member_still_owed_to_its_group_when_it_was_killed_finds_an_owner(kafka: str, name: str) -> None:
    """Killed between giving a partition up and saying so. The group stays as it is when the next one comes in its place,
    and the partition would belong to nobody for ever."""
    cluster = KafkaCluster(kafka, {"heartbeat.interval.ms": "50", "session.timeout.ms": "45000"})
    make(cluster, name, 2)
    again, other = Member(cluster.consumer(name, instance="slot")), Member(cluster.consumer(name, instance="other"))

    class Killed(Member):
        def revoked(self, partitions: Sequence[TP]) -> None:
            again.consumer.subscribe([name], again)
            until(lambda: again.owned, again, other)
            raise RuntimeError("killed")

    first = Killed(cluster.consumer(name, instance="slot"))
    first.consumer.subscribe([name], first)
    until(lambda: first.owned == partitions(name, 2), first)
    other.consumer.subscribe([name], other)
    with pytest.raises((RuntimeError, Replaced)):
        until(lambda: False, first, other)
    first.consumer.close()
    until(lambda: len(again.owned) == len(other.owned) == 1, again, other)
    assert again.owned | other.owned == partitions(name, 2)
    again.consumer.close()
    other.consumer.close()


@pytest.mark.kafka
def test_a_static_member_that_comes_back_with_a_new_topic_gets_its_partitions(kafka: str, name: str) -> None:
    cluster = KafkaCluster(kafka, {"session.timeout.ms": "45000"})
    topics = [f"{name}-{n}" for n in range(2)]
    for topic in topics:
        make(cluster, topic, 2)
    first = Member(cluster.consumer(name, instance="slot"))
    first.consumer.subscribe(topics[:1], first)
    until(lambda: first.owned == partitions(topics[0]), first)
    again = Member(cluster.consumer(name, instance="slot"))  # its process was killed, and is back with another app
    again.consumer.subscribe(topics, again)
    until(lambda: again.owned == partitions(topics[0]) | partitions(topics[1]), again)
    again.consumer.close()
    first.consumer.close()
