"""When output of which task came, as a reader of committed records sees it: how long it stood still, if it flows."""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections.abc import Sequence
from typing import NamedTuple

import orjson

from c360.engine.transport import TP, Batch, Cluster
from c360.errors import BrokerAway
from c360.plan import Plan

NEVER = 1 << 62
Task = tuple[str, int]  # source or projection, partition of what the task reads


class Silence(NamedTuple):
    """How long output of a task stood still, and from when on."""

    seconds: float
    begun: float
    task: Task


class Arrivals:
    """Times at which output of each task came, rising. Pure."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        self.times: dict[Task, list[float]] = {task: [] for task in tasks}

    def add(self, task: Task, at: float) -> None:
        self.times[task].append(at)

    def flowing(self, since: float) -> bool:
        """Whether there was output of every task after that."""
        return not self.silent(since)

    def silent(self, since: float) -> list[Task]:
        return [task for task, times in self.times.items() if not times or times[-1] <= since]

    def longest_silence(self, begin: float, end: float) -> Silence:
        """Of any task: from an arrival, but not before `begin`, to the next one, if it began before `end`."""
        longest = Silence(0.0, begin, ("", 0))
        for task, times in self.times.items():
            last = begin
            for at in times[bisect_left(times, begin) :]:
                longest = max(longest, Silence(at - last, last, task))
                if at >= end:
                    break
                last = at
        return longest


class Watch:
    """A thread that reads all outputs of a plan as they are committed."""

    def __init__(self, plan: Plan, cluster: Cluster, partitions: int) -> None:
        governed = {plan.governed(source): source.name for source in plan.sources}
        projected = {plan.projected(projection): projection.name for projection in plan.projections}
        self.governed, self.projected = governed, projected
        self.arrivals = Arrivals([(name, p) for name in governed.values() for p in range(partitions)])
        for name in projected.values():
            self.arrivals.times |= {(name, p): [] for p in range(plan.partitions)}
        self.positions = {TP(topic, p): 0 for topic in (*governed, *projected) for p in range(plan.partitions)}
        self.cluster = cluster
        self.error: BaseException | None = None
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        while not self.over.is_set():
            reader = self.cluster.reader()
            try:
                for batches in reader.read(self.positions.copy(), dict.fromkeys(self.positions, NEVER)):
                    for batch in batches:
                        self._note(batch, time.monotonic())
                    if self.over.is_set():
                        break
            except BrokerAway:  # also: the topics are not there yet
                self.over.wait(0.1)
            except BaseException as error:  # raised by `finish`
                self.error = error
                return
            finally:
                reader.close()

    def _note(self, batch: Batch, at: float) -> None:
        self.positions[batch.tp] = batch.offsets[-1] + 1
        if name := self.projected.get(batch.tp.topic):
            self.arrivals.add((name, batch.tp.partition), at)
            return
        name = self.governed[batch.tp.topic]
        for partition in {orjson.loads(value or b"{}")["origin"][0] for value in batch.values}:
            self.arrivals.add((name, partition), at)

    def finish(self) -> None:
        self.over.set()
        self.thread.join()
        if self.error is not None:
            raise self.error
