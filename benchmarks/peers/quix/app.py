"""The benchmark's workload (spec.md) on Quix Streams 3.28, exactly once.

One stateful function per event; Quix has one store per StreamingDataFrame and no batch API for it, so the update is
published once per event. State lives in Quix' own RocksDB store: one record for the profile and one per event id, both
under the customer's prefix.
"""

import signal
import time
from os import environ

from quixstreams import Application
from quixstreams.state import recovery
from rules import fold, nobody, parse, shown

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


def parsed(value):
    return (parse(value), value)


def folded(pair, state):
    e = pair[0]
    seen = "i" + e["event_id"]
    if state.get(seen) is not None:
        return None
    state.set(seen, 1)
    p = state.get("p") or nobody()
    fold(p, e)
    state.set("p", p)
    return shown(e["customer_id"], p)


frame = app.dataframe(events).apply(parsed)
frame[frame.apply(lambda pair: pair[0] is None)].apply(lambda pair: pair[1]).to_topic(dead)
frame.filter(lambda pair: pair[0] is not None).apply(folded, stateful=True).filter(lambda v: v is not None).to_topic(
    profiles
)
signal.signal(signal.SIGTERM, lambda *_: app.stop())
app.run()
