"""Two processes against one: `python -m benchmarks.scaling`. Each is pinned to a core of its own, beside the same broker.

A second process cannot give twice the speed where the broker has to share the cores, so c360's gain is compared with that
of the null limit, which only passes bytes on, in the same rounds. Output is checked after every run.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import sys
from collections.abc import Sequence
from contextlib import ExitStack, closing
from operator import truediv
from typing import Any

from benchmarks.contestants import ALL, Contestant
from benchmarks.race import Course, Failed, Process, Progress, check, follow, make_topics, prepare
from benchmarks.run import machine, make_course, say

PAIR = ("null", "c360")
FROM, TO = 0.3, 0.9  # of the work: everybody has joined, nobody has come to the end


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    parser.add_argument("--events", type=int, default=800_000, help="raw records (default: %(default)s)")
    parser.add_argument("--customers", type=int, default=100_000, help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--json", action="store_true", help="print all figures as JSON")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        say("two processes need two cores")
        return 2
    rates: dict[str, dict[int, list[float]]] = {name: {1: [], 2: []} for name in PAIR}
    with ExitStack() as stack:
        course = make_course(stack, events=options.events, customers=options.customers)
        for number in range(options.rounds):
            for name in PAIR:
                for count in (1, 2) if number % 2 else (2, 1):
                    rate = speed(ALL[name], course, f"{name}-{count}-{number}-{os.getpid()}", cores[:count])
                    rates[name][count].append(rate)
                    say(f"round {number + 1}: {name} in {count}: {rate:,.0f} events/s, load {os.getloadavg()[0]:.1f}")
    found = {name: _gain(of) for name, of in rates.items()}
    result = {
        "machine": machine(),
        **found,
        "of_null_gain": round(found["c360"]["gain"] / found["null"]["gain"], 2),
    }
    if options.json:
        print(json.dumps(result, indent=2))
    else:
        for name in PAIR:
            told = found[name]
            print(f"{name}: one {told['one']:,} events/s, two {told['two']:,}, gain {told['gain']} {told['gains']}")
        print(f"c360's gain is {result['of_null_gain']} of the null limit's")
    return 0


def speed(contestant: Contestant, course: Course, prefix: str, cores: Sequence[int]) -> float:
    """Events per second in the middle of the work, by as many processes as cores. Raises Failed when output is wrong."""
    build = prepare(contestant)
    names = {"prefix": prefix, "input": course.input}
    with closing(course.cluster.admin()) as admin, closing(course.cluster.reader()) as reader, ExitStack() as stack:
        make_topics(contestant, prefix, admin)
        progress = Progress(contestant.stages, names, admin, reader)
        running = []
        for core in cores:
            at = course.work / f"{prefix}-{core}"
            running.append(Process(contestant, course, prefix, build, at, at.with_suffix(".log"), core=core))
            stack.callback(running[-1].stop)
        samples = follow(running, progress)
        wrong = list(check(contestant, course, names, admin, reader, {"events": course.events}))
    if wrong:
        raise Failed(f"{prefix}: {'; '.join(wrong)}")
    ends = samples[-1].committed
    done = [(sample.at_s, statistics.mean(map(truediv, sample.committed, ends))) for sample in samples]
    first = next(sample for sample in done if sample[1] >= FROM)
    last = next(sample for sample in done if sample[1] >= TO)
    if last[0] == first[0]:
        raise Failed(f"{prefix}: all was done between two looks; take more events")
    rate: float = course.events * (last[1] - first[1]) / (last[0] - first[0])
    return rate


def _gain(rates: dict[int, list[float]]) -> dict[str, Any]:
    gains = [round(two / one, 2) for one, two in zip(rates[1], rates[2], strict=True)]
    return {
        "one": round(statistics.median(rates[1])),
        "two": round(statistics.median(rates[2])),
        "gain": round(statistics.median(gains), 2),
        "gains": gains,
    }


if __name__ == "__main__":
    sys.exit(main())
