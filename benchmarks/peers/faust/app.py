"""The benchmark's workload (spec.md) on Faust 0.15: two RocksDB tables (rocksdict driver), one agent, at least once.

The update is published once per event, as `send` belongs to the event.
"""

import asyncio
import math
import sys
import time
from os import environ

import faust
import orjson

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


def parse(value):
    try:
        e = orjson.loads(value)
    except ValueError:
        return None
    if type(e) is not dict or any(type(e.get(k)) is not str for k in ("event_id", "customer_id", "type")):
        return None
    return e if type(e.get("ts")) is int else None


# A profile is a list: events, opted out, time of that choice, orders, revenue, first seen, last seen, top sku, its count,
# email, its time, {sku: count}
def fold(p, e):
    at, props = e["ts"], e.get("props") or {}
    p[0] += 1
    p[5] = at if p[5] is None else min(p[5], at)
    p[6] = at if p[6] is None else max(p[6], at)
    choice = e.get("consent")
    if choice is not None and (p[2] is None or at > p[2] or (at == p[2] and choice["profiling"])):
        p[1], p[2] = not choice["profiling"], at
    email = e.get("email")
    if email is not None and (p[10] is None or (at, email) > (p[10], p[9])):
        p[9], p[10] = email, at
    sku = props.get("sku")
    if sku is not None:
        n = p[11][sku] = p[11].get(sku, 0) + 1
        if n > p[8] or (n == p[8] and sku < p[7]):
            p[7], p[8] = sku, n
    if e["type"] == "order":
        p[3] += 1
        p[4] += math.floor(props["amount"] * 100 + 0.5)


def shown(customer, p):
    return orjson.dumps(
        {
            "customer_id": customer,
            "events": p[0],
            "opted_out": p[1],
            "orders": p[3],
            "revenue_cents": p[4],
            "first_seen": p[5],
            "last_seen": p[6],
            "distinct_skus": len(p[11]),
            "top_sku": p[7],
            "email": p[9],
        }
    )


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
        p = [0, False, None, 0, 0, None, None, None, 0, None, None, {}] if state is None else orjson.loads(state)
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
