"""How long a change takes: raw append to a read_committed reader of the projection, at a steady rate through all hops.

Traffic and reader are a process of their own, as in life: in the worker's they would wait for its interpreter, and it for
theirs.
"""

from __future__ import annotations

import multiprocessing
import statistics
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from multiprocessing.connection import Connection
from typing import Any

from c360.agents.wire import CAUSE
from c360.engine.transport import TP, Batch, Cluster
from c360.ops.load import RawRecord
from c360.ops.traffic import traffic

RATE = 2_000
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
    measured = ours.recv()
    driver.join()
    return {**summary(measured), "events_per_s": RATE}


def summary(delays_ms: Sequence[float]) -> dict[str, Any]:
    if not delays_ms:
        return {"p50": None, "p99": None, "samples": 0}
    ranked = sorted(delays_ms)
    return {
        "p50": round(statistics.median(ranked), 1),
        "p99": round(ranked[int(len(ranked) * 0.99)], 1),
        "samples": len(ranked),
    }


def _drive(cluster: Cluster, output: Sequence[TP], seconds: float, parent: Connection) -> None:
    def wait_for_rest() -> None:
        parent.send(None)
        parent.recv()

    now_ms = time.time_ns() // 1_000_000
    records = traffic(int(RATE * (WARM_S + seconds)), seed=now_ms % 1_000_003, end_ms=now_ms)
    parent.send(delays(cluster, records, output, cause, wait_for_rest))


def cause(batch: Batch, i: int) -> int | None:
    """When the newest raw record that is in the profile was sent, epoch ms; None where no record made it change."""
    said = dict(batch.headers(i)).get(CAUSE)
    return None if said is None else int(said)


def delays(
    cluster: Cluster,
    records: Iterable[RawRecord],
    output: Sequence[TP],
    sent_at: Callable[[Batch, int], int | None],
    wait_for_rest: Callable[[], None],
    warm_s: float = WARM_S,
) -> list[float]:
    """Milliseconds from `sent_at` to here, of what comes out after `warm_s`, while the records are sent at RATE.

    Each gets the time at which it is sent as its timestamp. `wait_for_rest` returns when nothing more will come out.
    """
    stop = threading.Event()
    found: list[float] = []
    counted_from = time.monotonic() + warm_s
    reader = cluster.reader()
    positions = reader.ends(output)
    reader.close()

    def watch() -> None:
        consumer = cluster.consumer(f"c360-latency-{time.time_ns()}")
        consumer.fetch(positions)
        while not stop.is_set():
            for batch in consumer.poll(1000, 0.05):
                now_ms = time.time_ns() / 1e6
                if time.monotonic() > counted_from:
                    sent = (sent_at(batch, i) for i in range(len(batch)))
                    found.extend(now_ms - at for at in sent if at is not None)
        consumer.close()

    watcher = threading.Thread(target=watch, name="latency")
    watcher.start()
    try:
        _send(cluster, records)
        wait_for_rest()
    finally:
        stop.set()
        watcher.join()
    return found


def _send(cluster: Cluster, records: Iterable[RawRecord]) -> None:
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
