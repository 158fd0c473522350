"""`make fuzz RUNS=1000000`: ends with one line of JSON, and with 1 where a record was at fault.

{"runs", "values", "ignored", "misfits": {reason: n}, "crashes": 0, "hangs": 0, "peak_mb"}
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from tests.fuzz.corpus import FORMATS, Raw
from tests.fuzz.target import BATCH, MEMORY, Target, Told, serve

# How long a batch may take: 30 to 100 ms is usual; the machine may be busy, so it is CPU time that tells.
HANG_S, SLOW_CPU_S = 30.0, 4.0
KNOWN = frozenset((
    "batch", "data-format", "empty", "missing-attribute", "missing-field", "no-key", "no-position", "no-schema-id",
    "no-subject", "no-zone", "not-a-change", "not-an-object", "not-avro", "not-base64", "not-json", "not-protobuf",
    "not-utf8", "other-message", "out-of-range",
    "schema", "specversion", "too-deep", "too-large", "unknown-row", "unknown-schema", "unmatched", "wrong-type",
    "unfit-time", "unfit-value",
))  # fmt: skip
_spawn = multiprocessing.get_context("spawn")


@dataclass
class Fault:
    """A record that is at fault, or several together."""

    topic: str
    kind: str  # crash, hang
    what: str
    batch: int
    start: int
    stop: int

    def to_text(self, seed: int) -> str:
        text = f"{self.kind}: {self.topic} batch {self.batch} records {self.start}..{self.stop - 1}: {self.what}"
        for raw in Target(self.topic, seed).records(self.batch, self.start, self.stop)[:1]:
            text += f"\n  {_shown(raw)}"
        return text


def _shown(raw: Raw) -> str:
    value = raw.value or b""
    return f"key {(raw.key or b'')[:80]!r} headers {raw.headers!r:.200} value of {len(value)} bytes {value[:300]!r}"


class Keeper:
    """Keeps a process that answers, and starts another when it no longer does."""

    def __init__(self, topic: str, seed: int, memory: int, target: Callable[..., None] = serve) -> None:
        self.topic, self.seed, self.memory, self.target = topic, seed, memory, target
        self.process: BaseProcess | None = None
        self.pipe: Connection | None = None

    def ask(self, batch: int, start: int, stop: int) -> Told | Fault:
        """What became of a range of a batch."""
        if self.process is None:
            self.pipe, theirs = _spawn.Pipe()
            self.process = _spawn.Process(
                target=self.target, args=(theirs, self.topic, self.seed, self.memory), daemon=True
            )
            self.process.start()
            theirs.close()
            assert self.pipe.poll(120), f"{self.topic} does not start"
            assert self.pipe.recv() == "ready"
        assert self.pipe is not None

        def at_fault(kind: str, what: str) -> Fault:
            self.close()
            return Fault(self.topic, kind, what, batch, start, stop)

        try:
            self.pipe.send((batch, start, stop))
            if not self.pipe.poll(HANG_S):
                return at_fault("hang", f"no answer in {HANG_S:.0f} s")
            told: Told = self.pipe.recv()
        except (EOFError, OSError):
            self.process.join(5)
            return at_fault("crash", f"the process ended with {self.process.exitcode}")
        if told.error:
            return at_fault("crash", told.error)
        if told.cpu_s > SLOW_CPU_S:
            return at_fault("hang", f"{told.cpu_s:.1f} s of CPU")
        if unknown := told.misfits.keys() - KNOWN:
            return at_fault("crash", f"reasons that are not known: {', '.join(sorted(unknown))}")
        return told

    def close(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.join()
            self.process = None
        if self.pipe is not None:
            self.pipe.close()


@dataclass
class Report:
    total: Told = field(default_factory=Told)
    faults: list[Fault] = field(default_factory=list)

    def summary(self) -> dict[str, Any]:
        kinds = [fault.kind for fault in self.faults]
        return {
            "runs": self.total.runs, "values": self.total.values, "ignored": self.total.ignored,
            "misfits": dict(sorted(self.total.misfits.items())),
            "crashes": kinds.count("crash"), "hangs": kinds.count("hang"), "peak_mb": self.total.peak_mb,
        }  # fmt: skip


def fuzz(
    topics: Sequence[str],
    runs: int,
    seed: int,
    *,
    most: int = 20,
    memory: int = MEMORY,
    target: Callable[..., None] = serve,
) -> Report:
    """So many records of each topic. Stops after `most` faults."""
    report = Report()
    for topic in topics:
        keeper = Keeper(topic, seed, memory, target)
        try:
            for batch in range(-(-runs // BATCH)):
                start, end = 0, min(BATCH, runs - batch * BATCH)
                while start < end and len(report.faults) < most:
                    start = _step(keeper, report, batch, start, end)
        finally:
            keeper.close()
    return report


def _step(keeper: Keeper, report: Report, batch: int, start: int, end: int) -> int:
    """Run a range, or find what in it is at fault; where to go on."""
    answer = keeper.ask(batch, start, end)
    if isinstance(answer, Told):
        report.total.add(answer)
        return end
    fault = answer
    while fault.stop - fault.start > 1:  # 500 records are nine questions
        middle = (fault.start + fault.stop) // 2
        for low, high in ((fault.start, middle), (middle, fault.stop)):
            half = keeper.ask(batch, low, high)
            if isinstance(half, Fault):
                fault = half
                break
        else:
            break  # only together
    report.faults.append(fault)
    report.total.runs += fault.stop - fault.start
    if fault.start > start:
        before = keeper.ask(batch, start, fault.start)
        if isinstance(before, Told):
            report.total.add(before)
    return fault.stop


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--runs", type=int, default=20_000, help="records, over all formats")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--format", action="append", choices=FORMATS, help="only this one; may be said again")
    args = parser.parse_args()
    topics = args.format or FORMATS
    begun = time.monotonic()
    report = Report()
    for topic in topics:
        one = fuzz([topic], -(-args.runs // len(topics)), args.seed)
        report.total.add(one.total)
        report.faults += one.faults
        us = one.total.cpu_s / max(1, one.total.runs) * 1e6
        print(
            f"{topic:18} {one.total.runs:9,} records {us:7.1f} us each, {len(one.faults)} faults",
            file=sys.stderr,
            flush=True,
        )
        firsts = {(f.kind, f.what): f for f in reversed(one.faults)}
        for fault in firsts.values():
            print(fault.to_text(args.seed), file=sys.stderr, flush=True)
    print(f"{time.monotonic() - begun:.0f} s", file=sys.stderr)
    print(json.dumps(report.summary()))
    return 1 if report.faults else 0


if __name__ == "__main__":
    sys.exit(main())
