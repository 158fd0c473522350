"""The benchmark's workload (spec.md) on Faust 0.15: two RocksDB tables (rocksdict driver), one agent, at least once.

The update is published once per event, as `send` belongs to the event.
"""

import asyncio
import sys
import time
from os import environ

import faust
import orjson
from rules import fold, nobody, parse, shown

PREFIX = environ["PREFIX"]
BEGUN = time.time()

app = faust.App(
    PREFIX,
    broker="kafka://" + environ["BROKERS"],
    key_serializer="raw",
    value_serializer="raw",
    topic_partitions=4,
    topic_replication_factor=1,
    topic_disable_leader=True,
    web_enabled=False,
    stream_buffer_maxsize=4096,
    datadir=environ["STATE_DIR"],
    store="rocksdb://",
    broker_commit_interval=float(environ["COMMIT_MS"]) / 1000,
    producer_compression_type="lz4",
    producer_linger=0.05,  # without it: twice the CPU
    producer_max_batch_size=131072,
    consumer_auto_offset_reset="earliest",
    broker_max_poll_records=2000,
)
RAW = {"key_type": bytes, "value_type": bytes, "key_serializer": "raw", "value_serializer": "raw"}
events = app.topic(environ["INPUT"], key_type=bytes, value_type=bytes, value_serializer="raw")
profiles = app.topic(f"{PREFIX}-profiles", **RAW)
dead = app.topic(f"{PREFIX}-dlq", **RAW)
seen = app.Table("seen", partitions=4, options={"driver": "rocksdict"}, key_type=bytes, value_type=bytes)
states = app.Table("profile", partitions=4, options={"driver": "rocksdict"}, key_type=bytes, value_type=bytes)


@app.agent(events)
async def run(stream):
    async for key, value in stream.items():
        e = parse(value)
        if e is None:
            await dead.send(key=key, value=value)
            continue
        event_id = e["event_id"].encode()
        if event_id in seen:
            continue
        seen[event_id] = b"1"
        state = states.get(key)
        p = nobody() if state is None else orjson.loads(state)
        fold(p, e)
        states[key] = orjson.dumps(p)
        await profiles.send(key=key, value=shown(e["customer_id"], p))


@app.task
async def ready():
    recovery = app.tables.recovery
    while not recovery.completed.is_set():
        await asyncio.sleep(0.05)
    restored = sum(max(offset, 0) for offset in recovery.active_offsets.values())
    print(f"READY restored={restored} secs={time.time() - BEGUN:.2f}", file=sys.__stdout__, flush=True)


if __name__ == "__main__":
    app.main()
