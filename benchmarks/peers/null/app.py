"""The floor: consume, and produce the same bytes in one transaction per COMMIT_MS; no work in between."""

import gc
import signal
import time
from os import environ

from confluent_kafka import Consumer, Producer, TopicPartition

BROKERS, INPUT, PREFIX = environ["BROKERS"], environ["INPUT"], environ["PREFIX"]
COMMIT_S = float(environ["COMMIT_MS"]) / 1000
OUTPUT = f"{PREFIX}-profiles"

stopped: list[int] = []
signal.signal(signal.SIGTERM, lambda number, frame: stopped.append(number))
gc.disable()

consumer = Consumer(
    {
        "bootstrap.servers": BROKERS,
        "group.id": PREFIX,
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
        "queued.max.messages.kbytes": 65536,
        "queued.min.messages": 50000,
        "fetch.queue.backoff.ms": 20,
    }
)
producer = Producer(
    {
        "bootstrap.servers": BROKERS,
        "transactional.id": PREFIX + environ.get("MEMBER", ""),
        "transaction.timeout.ms": 15000,
        "linger.ms": 20,
        "compression.type": "lz4",
        "queue.buffering.max.messages": 2000000,
        "queue.buffering.max.kbytes": 1048576,
        "batch.size": 262144,
        "batch.num.messages": 20000,
    }
)
producer.init_transactions()
next_offsets: dict[int, int] = {}
begun = 0.0


def commit() -> None:
    """Also before partitions go to another member: it begins where the group's offsets are."""
    if next_offsets:
        offsets = [TopicPartition(INPUT, partition, offset) for partition, offset in next_offsets.items()]
        producer.send_offsets_to_transaction(offsets, consumer.consumer_group_metadata())
        producer.commit_transaction()
        next_offsets.clear()


consumer.subscribe(
    [INPUT],
    on_assign=lambda client, parts: print("READY restored=0 secs=0", flush=True),
    on_revoke=lambda client, parts: commit(),
)
while not stopped:
    messages = consumer.consume(2000, min(0.02, COMMIT_S / 4))
    if messages:
        if not next_offsets:
            producer.begin_transaction()
            begun = time.monotonic()
        produce = producer.produce
        for message in messages:
            partition, offset = message.partition(), message.offset()
            assert partition is not None
            assert offset is not None
            produce(OUTPUT, message.value(), message.key(), partition)
            next_offsets[partition] = offset + 1
    if next_offsets and time.monotonic() - begun >= COMMIT_S:
        commit()
consumer.close()
