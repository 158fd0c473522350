"""A process that governs mutated records of one format, as a worker does, and may not survive it.

It is asked for ranges of a batch: the same number gives the same records, so that the one at fault can be found.
"""

from __future__ import annotations

import resource
import time
import zlib
from collections import Counter
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random

import msgspec

from c360.agents.govern import Govern, GovernTask
from c360.engine.transport import TP, Batch, Headers
from c360.testing import TestDriver
from tests.fuzz.corpus import NINE, NINE_MS, Raw, app_of, records_of, registry_of
from tests.fuzz.mutate import mutated

BATCH = 500
MEMORY = 768 << 20  # of address space beyond what it has when it begins
_json = msgspec.json.Decoder().decode


@dataclass
class Told:
    """What became of records: those of a range, added up by who asks."""

    runs: int = 0
    values: int = 0
    ignored: int = 0
    misfits: Counter[str] = field(default_factory=Counter)
    cpu_s: float = 0.0
    peak_mb: int = 0
    error: str = ""  # of a crash that Python has a word for

    def add(self, other: Told) -> None:
        self.runs += other.runs
        self.values += other.values
        self.ignored += other.ignored
        self.misfits += other.misfits
        self.cpu_s += other.cpu_s
        self.peak_mb = max(self.peak_mb, other.peak_mb)


class Target:
    """The task of one topic, with its good records committed: what is mutated finds rows to change."""

    def __init__(self, topic: str, seed: int) -> None:
        registry, self.ids = registry_of()
        self.topic, self.seed = topic, seed
        self.good = records_of(topic, registry, self.ids)
        self.driver = TestDriver(app_of(sealed=topic.startswith("sealed")), partitions=1, now=NINE, registry=registry)
        self.driver.settle()
        loop = next(loop for loop in self.driver.loops if isinstance(loop.agent, Govern))
        assert isinstance(loop.agent, Govern)
        self.agent, self.tp = loop.agent, TP(topic, 0)
        running = loop.tasks[self.tp]
        assert isinstance(running.processor, GovernTask)
        assert running.state is not None
        self.task, self.state = running.processor, running.state
        self.said = Outputs(self.agent.plan.governed(self.agent.by_topic[topic]))
        self._govern(self.good)
        counters = self.task.counters
        assert counters.governed, f"no good record of {topic}: {counters}"
        self.state.written(self.state.changes(), b"{}", 1)

    def records(self, batch: int, start: int, stop: int) -> list[Raw]:
        """Each by its own dice, so that a part of a batch is the same as in the whole of it."""
        ids = list(self.ids.values())
        name = zlib.crc32(self.topic.encode())
        return [mutated(Random(f"{self.seed} {name} {batch} {i}"), self.good, ids) for i in range(start, stop)]

    def run(self, batch: int, start: int, stop: int) -> Told:
        """Raises whatever govern does: nothing should."""
        raws = self.records(batch, start, stop)
        counters = self.task.counters
        counters.misfits.clear()
        counters.governed = counters.ignored = counters.duplicates = counters.stale = 0
        begun = time.process_time()
        self._govern(raws)
        self.state.changes()  # what goes to the changelog can be written
        took_s = time.process_time() - begun
        for table in self.task.tables:
            table.rolled_back()
        misfits = Counter(counters.misfits)
        assert misfits.total() == self.said.letters, "each misfit is a dead letter"
        if self.agent.by_topic[self.topic].kind == "events":
            told = counters.governed + counters.duplicates + counters.ignored + misfits.total()
            assert told == len(raws), f"{len(raws)} records, {told} told of"
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        values = len(raws) - counters.ignored - misfits.total()
        return Told(len(raws), values, counters.ignored, misfits, took_s, peak_mb)

    def _govern(self, raws: list[Raw]) -> None:
        self.said.letters = 0
        n = len(raws)
        batch = Batch(
            self.tp,
            list(range(n)),
            [r.key for r in raws],
            [r.value for r in raws],
            [NINE_MS] * n,
            lambda i: list(raws[i].headers),
        )
        assert self.task.takes(batch) == n
        self.task.process(batch, self.said)
        self.task.finish({}, NINE_MS, self.said)


@dataclass
class Outputs:
    """Checks that records and dead letters are JSON, which is what reads them next."""

    governed: str
    letters: int = 0

    def send(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        partition: int | None = None,
        headers: Headers | None = None,
    ) -> None:
        is_letter = topic.endswith(".dlq")
        if is_letter or topic == self.governed:
            assert value is not None
            _json(value)
        self.letters += is_letter


def serve(pipe: Connection, topic: str, seed: int, memory: int) -> None:
    """Answer ranges until nobody asks any more."""
    target = Target(topic, seed)
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + memory, size + memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    pipe.send("ready")
    while (asked := pipe.recv()) is not None:
        try:
            told = target.run(*asked)
        except Exception as error:  # a crash, as a worker would see one
            pipe.send(Told(error=f"{type(error).__name__}: {error}"[:300]))
            return
        pipe.send(told)
