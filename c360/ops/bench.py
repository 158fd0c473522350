"""What c360 costs on this machine: CPU per event of each stage, restore, latency, and beside them the null limit.

Every figure is of one process against one broker. Stages run one after the other over the same records, each between
its first and its last commit; CPU is the process's own (`time.process_time`), broker and generator apart. On a shared
machine believe ratios to the null limit of the same run, not absolute figures.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from c360.assembly import Worker, tune_process
from c360.engine.transport import TP, Cluster
from c360.governance.keys import LocalMasterKeys, MasterKeys
from c360.governance.sealing import KEY_BYTES
from c360.ops import topics
from c360.ops.keys import make_secret_once
from c360.ops.latency import latency
from c360.ops.load import load
from c360.ops.progress import at_rest
from c360.ops.traffic import traffic
from c360.plan import Plan
from c360.tables.rocks import RocksStores

Say = Callable[[str], None]
LATENCY_S = 10.0  # for the default number of events; fewer take less
DEADLINE_S = 900.0


def run_bench(cluster: Cluster, plan: Plan, events: int, say: Say) -> dict[str, Any]:
    """The figures of `c360 bench --json`; units are in the names. The cluster should have no data of this app."""
    tune_process()
    now_ms = time.time_ns() // 1_000_000
    say(f"loading {events} raw records")
    counts = load(traffic(events, seed=now_ms % 1_000_000_007, end_ms=now_ms), cluster, partitions=4)
    result: dict[str, Any] = {"events": sum(counts.values()), "broker": cluster.name}
    with tempfile.TemporaryDirectory(prefix="c360-bench-") as directory:
        null = _null(cluster, plan, counts)
        result["null"] = null
        say(f"null limit: {null['cpu_us_per_event']} µs CPU per event")
        master = _keys(cluster, plan)
        for name in _agents(plan):
            measured = _stage(cluster, plan, master, name, Path(directory) / "state")
            result[name] = measured
            say(f"{name}: {measured['cpu_us_per_event']} µs CPU per event, {measured['events_per_s']} events/s")
        result["restore"] = _restore(cluster, plan, master, Path(directory) / "fresh")
        say(f"restore: {result['restore']['records_per_s']} records/s")
        result["latency_ms"] = _latency(
            cluster, plan, master, Path(directory) / "fresh", min(LATENCY_S, max(2.0, events / 20_000))
        )
        say(f"latency: {result['latency_ms']}")
    return result


class _Clocked:
    """CPU and wall time between entering and leaving."""

    def __enter__(self) -> _Clocked:
        self.cpu, self.wall = time.process_time(), time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        self.cpu, self.wall = time.process_time() - self.cpu, time.monotonic() - self.wall

    def per(self, events: int) -> dict[str, Any]:
        return {
            "events": events,
            "cpu_us_per_event": round(self.cpu / events * 1e6, 2),
            "events_per_s": round(events / self.wall),
            "seconds": round(self.wall, 2),
        }


def _until(done: Callable[[], bool], worker: Worker | None = None) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not done():
        if worker is not None and worker.error is not None:
            raise worker.error
        assert time.monotonic() < deadline, "the benchmark did not come to its end in time"
        time.sleep(0.25)  # looking costs CPU too, and this process is measured


def _agents(plan: Plan) -> list[str]:
    """Who is measured: from raw records to profiles. Consent, erasure and doors have benchmarks of their own."""
    return ["govern", *(i.agent for i in plan.identities), *(p.agent for p in plan.projections)]


def _keys(cluster: Cluster, plan: Plan) -> MasterKeys:
    """Keys for as long as the benchmark runs."""
    master = LocalMasterKeys([os.urandom(KEY_BYTES)])
    if plan.needs_keys:
        topics.apply(plan, cluster.admin())
        make_secret_once(plan, cluster, master, os.urandom)
    return master


def _worker(cluster: Cluster, plan: Plan, master: MasterKeys, state: Path, only: Iterable[str]) -> Worker:
    worker = Worker(plan, cluster, RocksStores(state), "bench", only=tuple(only), master=master)
    worker.prepare()
    return worker


def _stage(cluster: Cluster, plan: Plan, master: MasterKeys, agent: str, state: Path) -> dict[str, Any]:
    """One agent over all of its input, from ready to the last commit."""
    worker = _worker(cluster, plan, master, state, [agent])
    loop = worker.loops[0]
    admin, reader = cluster.admin(), cluster.reader()
    with _Clocked() as clocked:
        worker.start()
        _until(lambda: at_rest(plan, admin, reader, [agent]), worker)
    worker.stop()
    worker.join()
    reader.close()
    measured = clocked.per(loop.metrics.records)
    measured["commits"] = loop.metrics.commits
    measured["processor_us_per_event"] = round(loop.metrics.process_cpu_s / loop.metrics.records * 1e6, 2)
    return measured


class _Joined:
    """Knows when the only member of a group has its partitions."""

    ready = False

    def assigned(self, partitions: Sequence[TP]) -> None:
        self.ready = True

    def revoked(self, partitions: Sequence[TP]) -> None:
        self.ready = False

    lost = revoked


def _null(cluster: Cluster, plan: Plan, counts: dict[str, int]) -> dict[str, Any]:
    """Consume and produce the same bytes in transactions of 100 ms: what any design on this client has to pay."""
    from c360.engine.transport import TopicSpec

    topic = max(counts, key=lambda t: counts[t])
    admin, reader = cluster.admin(), cluster.reader()
    count = admin.topics()[topic]
    output = f"{plan.app}-null-{time.time_ns()}"
    admin.create([TopicSpec(output, count)])
    partitions = [TP(topic, p) for p in range(count)]
    starts, ends = reader.starts(partitions), reader.ends(partitions)
    consumer, producer = cluster.consumer(output), cluster.producer(output)
    owned = _Joined()
    consumer.subscribe([topic], owned)
    _until(lambda: not consumer.poll(1, 0.25) and owned.ready)
    consumer.fetch(starts)
    positions = dict(starts)
    events = 0
    with _Clocked() as clocked:
        producer.begin()
        committed = time.monotonic()
        while any(positions[tp] < end for tp, end in ends.items()):
            for batch in consumer.poll(1000, 0.05):
                produce = producer.produce
                for key, value in zip(batch.keys, batch.values, strict=True):
                    produce(output, key, value, batch.tp.partition)
                positions[batch.tp] = batch.offsets[-1] + 1
                events += len(batch)
            if time.monotonic() - committed >= 0.1:
                producer.send_offsets(positions, consumer.group())
                producer.commit()
                producer.begin()
                committed = time.monotonic()
        producer.commit()
    consumer.close()
    producer.close()
    reader.close()
    admin.delete([output])
    return clocked.per(events)


def _restore(cluster: Cluster, plan: Plan, master: MasterKeys, state: Path) -> dict[str, Any]:
    """Start with an empty disk; count changelog records until every task runs."""
    worker = _worker(cluster, plan, master, state, _agents(plan))
    begun = time.monotonic()
    worker.start()
    _until(lambda: all(loop.metrics.restores for loop in worker.loops), worker)
    seconds = time.monotonic() - begun
    worker.stop()
    worker.join()
    records = sum(loop.metrics.restored_records for loop in worker.loops)
    busy = max(loop.metrics.restore_s for loop in worker.loops)  # they restore at the same time
    return {"records": records, "records_per_s": round(records / busy) if busy else 0, "ready_s": round(seconds, 2)}


def _latency(cluster: Cluster, plan: Plan, master: MasterKeys, state: Path, seconds: float) -> dict[str, Any]:
    worker = _worker(cluster, plan, master, state, _agents(plan))
    worker.start()
    reader = cluster.reader()

    def rest() -> None:
        _until(lambda: at_rest(plan, worker.admin, reader, _agents(plan)), worker)

    _until(lambda: bool(worker.loops) and all(loop.metrics.restores for loop in worker.loops), worker)
    rest()
    output = plan.projected(plan.projections[0])
    measured = latency(cluster, [TP(output, p) for p in range(plan.partitions)], seconds, rest)
    worker.stop()
    worker.join()
    reader.close()
    return measured
