"""The benchmark's workload (spec.md) on Quix Streams 3.28, exactly once.

One stateful function per event; Quix has one store per StreamingDataFrame and no batch API for it, so the update is
published once per event. State lives in Quix' own RocksDB store: one record for the profile and one per event id, both
under the customer's prefix.
"""

import math
import signal
import time
from os import environ

import orjson
from quixstreams import Application
from quixstreams.state import recovery

PREFIX = environ["PREFIX"]
BEGUN = time.time()


def ready(records, seconds):
    print(f"READY restored={records} secs={time.time() - BEGUN:.2f} restore_secs={seconds:.2f}", flush=True)


do_recovery, assign = recovery.RecoveryManager.do_recovery, Application._assign_partitions


def timed_recovery(self):
    begun = time.time()
    partitions = [r for d in self._recovery_partitions.values() for r in d.values()]
    records = sum(max(r.changelog_highwater - max(r.offset or 0, 0), 0) for r in partitions)
    do_recovery(self)
    ready(records, time.time() - begun)


def timed_assign(self, tps):
    assign(self, tps)
    if not self._state_manager.recovery_required:
        ready(0, 0)


recovery.RecoveryManager.do_recovery, Application._assign_partitions = timed_recovery, timed_assign

app = Application(
    broker_address=environ["BROKERS"],
    consumer_group=PREFIX,
    auto_offset_reset="earliest",
    processing_guarantee="exactly-once",
    state_dir=environ["STATE_DIR"],
    loglevel="WARNING",
    commit_interval=float(environ["COMMIT_MS"]) / 1000,
    auto_create_topics=True,
    producer_extra_config={"compression.type": "lz4", "linger.ms": 20, "transactional.id": PREFIX},
)
events = app.topic(environ["INPUT"], value_deserializer="bytes", key_deserializer="str")
profiles = app.topic(f"{PREFIX}-profiles", value_serializer="bytes", key_serializer="str")
dead = app.topic(f"{PREFIX}-dlq", value_serializer="bytes", key_serializer="str")


def parse(value):
    try:
        e = orjson.loads(value)
    except ValueError:
        return (None, value)
    if type(e) is not dict or any(type(e.get(k)) is not str for k in ("event_id", "customer_id", "type")):
        return (None, value)
    return (e if type(e.get("ts")) is int else None, value)


# A profile is a list: events, opted out, time of that choice, orders, revenue, first seen, last seen, top sku, its count,
# email, its time, {sku: count}
def fold(pair, state):
    e = pair[0]
    seen = "i" + e["event_id"]
    if state.get(seen) is not None:
        return None
    state.set(seen, 1)
    p = state.get("p") or [0, False, None, 0, 0, None, None, None, 0, None, None, {}]
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
    state.set("p", p)
    return orjson.dumps(
        {
            "customer_id": e["customer_id"],
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


frame = app.dataframe(events).apply(parse)
frame[frame.apply(lambda pair: pair[0] is None)].apply(lambda pair: pair[1]).to_topic(dead)
frame.filter(lambda pair: pair[0] is not None).apply(fold, stateful=True).filter(lambda v: v is not None).to_topic(
    profiles
)
signal.signal(signal.SIGTERM, lambda *_: app.stop())
app.run()
