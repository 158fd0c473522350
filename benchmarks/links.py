"""What identity costs those who do not need it: `python -m benchmarks.links [--against DIRECTORY]`.

Without `--against`: what govern pays for links that are known already. The shop's clicks, each of which says a login, go
through two tasks of govern batch by batch in turn, one of the app as it is, one of the same without link fields.

With it: an app without link fields (the workload of `benchmarks.run`) through govern and projection of this code and of a
checkout of another, each in a process of its own, batch by batch in turn.

A batch is processed and written to a store in memory, as a commit would. CPU is that of the thread; medians of batches.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from time import thread_time
from typing import Any

from c360.agents.govern import Govern
from c360.agents.projection import ProjectionAgent
from c360.engine.agent import Processor, Task
from c360.engine.transport import TP, Batch, Headers
from c360.governance.names import Vault
from c360.plan import Plan
from c360.tables.store import MemoryStore

ROOT = Path(__file__).parents[1]
BATCH, WARM = 1000, 30
AT = 1_793_610_000_000
Record = tuple[bytes, bytes]


class Out:
    """Keeps what goes to one topic, counts the rest."""

    def __init__(self, kept: str = "") -> None:
        self.kept, self.records = kept, list[Record]()
        self.counts: Counter[str] = Counter()

    def send(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        partition: int | None = None,
        headers: Headers | None = None,
    ) -> None:
        self.counts[topic] += 1
        if topic == self.kept:
            self.records.append((key or b"", value or b""))


class Driven:
    """A task, fed by the batch."""

    def __init__(self, processor: Processor, tp: TP, out: Out) -> None:
        self.processor, self.tp, self.out, self.offset = processor, tp, out, 0
        self.store = MemoryStore()
        for table in processor.tables:
            table.bind(self.store)
        processor.resume({})

    def take(self, records: Sequence[Record]) -> float:
        """CPU seconds of one batch and its commit."""
        n = len(records)
        keys: list[bytes | None] = [key for key, _ in records]
        values: list[bytes | None] = [value for _, value in records]
        batch = Batch(self.tp, list(range(self.offset, self.offset + n)), keys, values, [AT] * n, lambda _: [])
        self.offset += n
        begun = thread_time()
        self.processor.process(batch, self.out)
        self.processor.settle(self.out)
        self.processor.finish({self.tp: self.offset}, AT, self.out)
        for table in self.processor.tables:
            self.store.write(table.changes())
            table.committed()
        return thread_time() - begun


def govern(plan: Plan, topic: str, kept: str = "", vault: Vault | None = None) -> Driven:
    tp = TP(topic, 0)
    return Driven(Govern(plan, dict, vault).processor(Task(tp, (tp,))), tp, Out(kept))


# ------------------------------------------------------------------------------------------------------- known links
def clicks(cookies: int, batches: int) -> Iterator[list[Record]]:
    """The first of them say all links there are."""
    dice = Random(1)
    first = iter(range(cookies))
    for number in range(batches):
        batch = []
        for i in range(BATCH):
            n = next(first, None)
            cookie = dice.randrange(cookies) if n is None else n
            at = f"2026-11-02T{number // 60:02}:{number % 60:02}:00Z"
            click = {"id": f"{number}-{i}", "cookie": f"cookie-{cookie:06d}", "customer": None,
                     "login": f"User{cookie}@shop.test", "category": "a/b", "ts": at}  # fmt: skip
            batch.append((b"k", json.dumps(click).encode()))
        yield batch


def known_links(cookies: int, batches: int) -> dict[str, Any]:
    from tests.clear_shop import app  # nothing is sealed: what that costs is another question (`benchmarks.sealing`)

    plan = app.plan()
    tasks = [govern(replace(plan, links_of={}, identities=()), "web.clicks"), govern(plan, "web.clicks")]
    warm = max(WARM, cookies // BATCH + 1)
    times: list[list[float]] = []
    facts = 0
    for number, batch in enumerate(clicks(cookies, warm + batches)):
        if number == warm:
            facts = tasks[1].out.counts[plan.links]
        turn = tasks if number % 2 else tasks[::-1]
        took = {id(task): task.take(batch) for task in turn}
        if number >= warm:
            times.append([took[id(task)] for task in tasks])
    return {
        "cookies": cookies,
        "facts_meanwhile": tasks[1].out.counts[plan.links] - facts,
        **compared(times, ("without", "with")),
    }


def compared(times: Sequence[Sequence[float]], names: Sequence[str]) -> dict[str, Any]:
    """µs per record: medians, and the median of the differences, pair by pair."""
    one, other = ([t * 1e6 / BATCH for t in column] for column in zip(*times, strict=True))
    differences = [b - a for a, b in zip(one, other, strict=True)]
    return {
        names[0]: round(statistics.median(one), 2),
        names[1]: round(statistics.median(other), 2),
        "difference": round(statistics.median(differences), 2),
        "quartiles": [round(q, 2) for q in statistics.quantiles(differences, n=4)[::2]],
        "fastest": [round(min(one), 2), round(min(other), 2)],
        "batches": len(times),
    }


# ----------------------------------------------------------------------------------------------------- other versions
def hops(batches: int) -> Iterator[tuple[float, float]]:
    """Govern and projection of the workload's app, batch by batch: CPU seconds of each."""
    from benchmarks.peers.c360.app import app
    from benchmarks.workload import records

    plan = app.plan()
    first = govern(plan, plan.sources[0].topic, plan.governed(plan.sources[0]))
    (projection,) = plan.projections
    tp = TP(first.out.kept, 0)
    second = Driven(ProjectionAgent(plan, projection).processor(Task(tp, (tp,))), tp, Out())
    source = iter(records(batches * BATCH, 20_000))
    for _ in range(batches):
        batch = [next(source) for _ in range(BATCH)]
        took = first.take(batch)
        yield took, second.take(first.out.records)
        first.out.records.clear()


def _answer(batches: int) -> None:
    """A process: a line per batch, each when it is asked for."""
    for pair in hops(batches):
        sys.stdin.readline()
        print(*pair, flush=True)


def other_version(directory: Path, batches: int) -> dict[str, Any]:
    def start(root: Path) -> subprocess.Popen[str]:
        environ = {**os.environ, "PYTHONPATH": str(root)}
        command = [str(root / ".venv/bin/python"), __file__, "--answer", "--batches", str(batches + WARM)]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, cwd=root, env=environ, **pipes)

    there, here = start(directory), start(ROOT)
    times: list[tuple[list[float], list[float]]] = []
    for number in range(batches + WARM):
        took = {id(p): _ask(p) for p in ((there, here) if number % 2 else (here, there))}
        if number >= WARM:
            times.append((took[id(there)], took[id(here)]))
    for process in (there, here):
        process.communicate()
    result = {}
    for at, name in enumerate(("govern", "projection")):
        found = compared([(a[at], b[at]) for a, b in times], ("there", "here"))
        result[name] = found | {"percent": round(100 * found["difference"] / found["there"], 1)}
    return result


def _ask(process: subprocess.Popen[str]) -> list[float]:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    return [float(word) for word in process.stdout.readline().split()]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.links", description=__doc__.split("\n")[0])
    parser.add_argument("--batches", type=int, default=200, help=f"of {BATCH} records (default: %(default)s)")
    parser.add_argument("--cookies", type=int, default=10_000, help="whose links are known (default: %(default)s)")
    parser.add_argument("--against", type=Path, metavar="DIRECTORY", help="a checkout with its .venv")
    parser.add_argument("--answer", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    gc.set_threshold(50_000, 50, 100)
    if options.answer:
        _answer(options.batches)
        return 0
    compare: Callable[[], dict[str, Any]] = lambda: known_links(options.cookies, options.batches)  # noqa: E731
    if options.against is not None:
        compare = lambda: other_version(options.against, options.batches)  # noqa: E731
    print(json.dumps(compare() | {"load": round(os.getloadavg()[0], 1)}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
