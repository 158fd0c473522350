"""How long a change takes: raw append to a read_committed reader of the projection, at a steady rate through all hops.

Traffic and reader are a process of their own, as in life: in the worker's they would wait for its interpreter, and it for
theirs.
"""

from __future__ import annotations

import multiprocessing
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any

from c360.agents.wire import CAUSE
from c360.engine.transport import TP, Cluster
from c360.ops.traffic import traffic

RATE = 2_000.0
WARM_S = 5.0  # not counted: a broker that has just been started compiles its code
STEP = 40  # records sent at once, 20 ms apart: more requests would measure the broker


def latency(cluster: Cluster, output: Sequence[TP], seconds: float, at_rest: Callable[[], None]) -> dict[str, Any]:
    """`c360 bench`'s `latency_ms`. `output`: partitions of the projection; `at_rest` waits until all is worked off.

    A worker that is up to date has to be running. The cluster is one that another process can reach.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    driver = context.Process(target=_drive, args=(cluster, tuple(output), seconds, theirs), daemon=True)
    driver.start()
    theirs.close()  # so that its end is seen here
    ours.recv()  # all is sent
    at_rest()
    ours.send(None)
    delays: list[float] = sorted(ours.recv())
    driver.join()
    if not delays:
        return {"p50": None, "p99": None, "samples": 0, "events_per_s": RATE}
    return {
        "p50": round(statistics.median(delays), 1),
        "p99": round(delays[int(len(delays) * 0.99)], 1),
        "samples": len(delays),
        "events_per_s": RATE,
    }


def _drive(cluster: Cluster, output: Sequence[TP], seconds: float, parent: Connection) -> None:
    stop = threading.Event()
    delays: list[float] = []
    counted_from = time.monotonic() + WARM_S
    reader = cluster.reader()
    positions = reader.ends(output)
    reader.close()

    def watch() -> None:
        consumer = cluster.consumer(f"c360-latency-{time.time_ns()}")
        consumer.fetch(positions)
        while not stop.is_set():
            for batch in consumer.poll(1000, 0.05):
                now_ms = time.time_ns() / 1e6
                causes = [dict(batch.headers(i)).get(CAUSE) for i in range(len(batch))]
                if time.monotonic() > counted_from:
                    delays.extend(now_ms - int(cause) for cause in causes if cause is not None)
        consumer.close()

    watcher = threading.Thread(target=watch, name="latency")
    watcher.start()
    _send(cluster, WARM_S + seconds)
    parent.send(None)
    parent.recv()
    stop.set()
    watcher.join()
    parent.send(delays)


def _send(cluster: Cluster, seconds: float) -> None:
    """The shop's traffic at RATE, each record with the time at which it is sent as its timestamp."""
    now_ms = time.time_ns() // 1_000_000
    records = traffic(int(RATE * seconds), seed=now_ms % 1_000_003, end_ms=now_ms)
    producer = cluster.producer()
    begun = time.monotonic()
    for done, record in enumerate(records, 1):
        sent_ms = time.time_ns() // 1_000_000
        producer.produce(record.topic, record.key, record.value, None, record.headers or None, timestamp=sent_ms)
        if done % STEP == 0:
            producer.flush()  # no waiting for a batch to fill
            time.sleep(max(0.0, begun + done / RATE - time.monotonic()))
    producer.flush()
    producer.close()
