"""Identity with Kafka: `python -m benchmarks.merges [--only facts,merges,chain,star] [--json]`.

One broker, one ordinary worker process of the app in `benchmarks/merges_app.py`, on this machine.

| part | is |
|---|---|
| facts | the identity agent alone: a third of the link facts of a population, on top of the others, as a backlog |
| merges | all agents at `--load` of the most they take: logins that merge two profiles, from the raw append of the login |
| | to the merged record at a read_committed reader |
| chain, star | all agents. 1,000 nodes that become one component: seconds from the first append until its profile has |
| | everybody in it; all said at once, and when the last link joins two halves |

CPU is user + system time of the worker. Traffic of `merges`: visits of known cookies, one in `--novel` is of a new cookie
and says an e-mail. The most that the agents take is that of a backlog. Figures, never a verdict.
"""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks.identity import population
from benchmarks.measure import cpu_s, peak_rss_mb
from benchmarks.race import free_port
from benchmarks.run import machine, say
from c360.engine.kafka import KafkaCluster
from c360.engine.partition import partition_of
from c360.engine.transport import TP, Admin, Reader, TopicSpec
from c360.identity.facts import encode_fact
from c360.ops import dev_kafka
from c360.ops.latency import summary
from c360.ops.progress import at_rest
from c360.plan import Plan

ROOT, PARTITIONS, DEADLINE_S = Path(__file__).parents[1], 4, 300.0
STEP_S = 0.02  # between two sendings of steady traffic
Event = tuple[str, bytes, bytes]  # topic, key, value


# ------------------------------------------------------------------------------------------------------------- world
@dataclass
class World:
    """A worker with its topics, on a broker that others use, too."""

    cluster: KafkaCluster
    plan: Plan
    admin: Admin
    reader: Reader
    process: subprocess.Popen[bytes]
    port: int

    def metric(self, labelled: str) -> float:
        """The sum of a metric's lines that begin so; 0 when nobody answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=10) as answer:
                lines = answer.read().decode().splitlines()
        except OSError:
            return 0.0
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(labelled))

    def send(self, events: Iterable[Event]) -> None:
        producer = self.cluster.producer()
        for source, key, value in events:
            producer.produce(f"{source}.{self.plan.app}", key, value)
        producer.flush()
        producer.close()

    def cpu_s(self) -> float:
        return cpu_s([self.process.pid])

    def commits(self, agents: Iterable[str]) -> dict[str, tuple[float, float]]:
        """By agent: how many, and the seconds in them."""
        names = ("c360_commits_total", "c360_commit_seconds_total")
        return {a: (self.metric(f'{names[0]}{{agent="{a}"'), self.metric(f'{names[1]}{{agent="{a}"')) for a in agents}

    def committed(self, agents: Iterable[str]) -> int:
        groups = [a.group for a in self.plan.agents if a.name in agents]
        return sum(sum(self.admin.group_offsets(group).values()) for group in groups)

    def rest(self, agents: Sequence[str]) -> tuple[float, float]:
        """Wait until these have read and committed everything; when they last committed, and the CPU seconds then."""
        deadline, known = time.monotonic() + DEADLINE_S, -1
        last = (time.monotonic(), self.cpu_s())
        while True:
            committed = self.committed(agents)
            now = time.monotonic()
            if committed != known:
                known, last = committed, (now, self.cpu_s())
            elif now - last[0] > 0.5 and at_rest(self.plan, self.admin, self.reader, agents):
                return last
            if self.process.poll() is not None or now > deadline:
                raise RuntimeError("the worker did not come to the end: look at its log")
            time.sleep(0.2)


def world(stack: ExitStack, broker: str, name: str, *, only: str = "") -> World:
    """A worker that is ready, with topics whose names begin so."""
    os.environ["PREFIX"] = name
    sys.modules.pop("benchmarks.merges_app", None)
    from benchmarks.merges_app import app

    cluster = KafkaCluster(broker)
    plan, admin, reader = app.plan(), cluster.admin(), cluster.reader()
    stack.callback(admin.close)
    stack.callback(reader.close)
    admin.create([TopicSpec(source.topic, PARTITIONS, {"retention.ms": "-1"}) for source in plan.sources])
    home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=f"c360-{name}-")))
    port = free_port()
    environ = {n: v for n, v in os.environ.items() if not n.startswith("C360_") or n == "C360_MEMORY_MB"}
    environ |= {"C360_BROKER": broker, "C360_STATE_DIR": str(home / "state"), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "c360", "-A", "benchmarks.merges_app:app", "worker", "--web-port", str(port)]
    log = stack.enter_context((home / "log").open("wb"))
    process = subprocess.Popen(command + (["--only", only] if only else []), env=environ, stdout=log, stderr=log)
    found = World(cluster, plan, admin, reader, process, port)

    def end() -> None:
        process.send_signal(signal.SIGTERM)
        process.wait(60)

    stack.callback(end)
    wanted = PARTITIONS * (1 if only else 2 + len(plan.sources))
    deadline = time.monotonic() + 60
    while found.metric("c360_tasks{") < wanted or found.metric('c360_tasks{agent="identity@1",phase="running"') < 4:
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the worker did not start: {(home / 'log').read_text()[-2000:]}")
        time.sleep(0.1)
    return found


# ------------------------------------------------------------------------------------------------------------- facts
def facts(broker: str, count: int) -> dict[str, Any]:
    every = population(count // 2, random.Random(1))[: count * 3]
    with ExitStack() as stack:
        here = world(stack, broker, "facts", only="identity@1")

        def tell(some: Sequence[Any]) -> None:
            producer = here.cluster.producer()
            for fact in some:
                key, value = encode_fact(fact)
                producer.produce(here.plan.links, key, value, partition_of(fact.subject.encode(), PARTITIONS))
            producer.flush()
            producer.close()

        known = len(every) * 2 // 3
        tell(every[:known])
        here.rest(["identity@1"])
        time.sleep(1.0)
        names = ("c360_identity_messages_total", 'c360_commits_total{agent="identity@1"')
        before = [here.metric(name) for name in names]
        begun, cpu = time.monotonic(), here.cpu_s()
        tell(every[known:])
        ended, cpu_then = here.rest(["identity@1"])
        messages, commits = (here.metric(name) - was for name, was in zip(names, before, strict=True))
        news = len(every) - known
        return {
            "facts": news,
            "facts_per_s": round(news / (ended - begun)),
            "seconds": round(ended - begun, 1),
            "cpu_us_per_fact": round((cpu_then - cpu) * 1e6 / news),
            "facts_per_cpu_s": round(news / (cpu_then - cpu)),
            "messages_per_fact": round(messages / news, 2),
            "commits": round(commits),
            "peak_mb": round(peak_rss_mb([here.process.pid])),
        }


# ------------------------------------------------------------------------------------------------------------ merges
def account(n: str) -> Event:
    value = {"id": f"a-{n}", "customer": n, "crm": n, "email": f"{n}@shop.test", "ts": _now_ms()}
    return "accounts", n.encode(), json.dumps(value).encode()


def visit(event_id: str, cookie: str, login: str | None = None) -> Event:
    value = {"id": event_id, "cookie": cookie, "login": login and f"{login}@shop.test", "ts": _now_ms()}
    return "visits", cookie.encode(), json.dumps(value).encode()


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


class Traffic:
    """Visits of so many cookies of known people; one in `novel` is a new cookie's, of one who logs in."""

    def __init__(self, name: str, people: int, novel: int) -> None:
        self.name, self.people, self.novel = name, people, novel
        self.dice, self.done = random.Random(name), 0

    def people_first(self) -> Iterable[Event]:
        for n in range(self.people):
            yield account(f"p{n}")
            yield visit(f"{self.name}-first-{n}", f"cookie-p{n}", f"p{n}")

    def next(self) -> Event:
        self.done += 1
        n = self.dice.randrange(self.people)
        if self.novel and self.done % self.novel == 0:
            return visit(f"{self.name}-{self.done}", f"cookie-{self.name}-{self.done}", f"p{n}")
        return visit(f"{self.name}-{self.done}", f"cookie-p{n}", f"p{n}")


def _steady(broker: str, traffic: Traffic, rate: float, seconds: float, parent: Connection) -> None:
    """A process: traffic at this rate for so long; says when it begins, and the rate that came of it."""
    producer = KafkaCluster(broker).producer()
    parent.send(None)
    begun, sent = time.monotonic(), 0
    while (passed := time.monotonic() - begun) < seconds:
        while sent < passed * rate:
            source, key, value = traffic.next()
            producer.produce(f"{source}.merges", key, value)
            sent += 1
        time.sleep(STEP_S)
    producer.flush()
    parent.send(sent / (time.monotonic() - begun))


def merges(broker: str, options: argparse.Namespace) -> dict[str, Any]:
    agents = ["govern", "identity@1", "person@1"]
    count, logins_per_s = int(options.seconds * options.logins), options.logins
    with ExitStack() as stack:
        here = world(stack, broker, "merges")
        traffic = Traffic("known", options.people, options.novel)
        here.send(traffic.people_first())
        here.send(account(f"m{n}") for n in range(count))
        here.send(visit(f"m-first-{n}", f"cookie-m{n}") for n in range(count))
        here.rest(agents)
        begun, cpu = time.monotonic(), here.cpu_s()
        here.send(traffic.next() for _ in range(options.events))
        ended, cpu_then = here.rest(agents)
        most = options.events / (ended - begun)
        say(f"at most {most:.0f} events a second, {(cpu_then - cpu) * 1e6 / options.events:.0f} µs of CPU each")
        time.sleep(2.0)
        rate = most * options.load
        ours, theirs = multiprocessing.get_context("spawn").Pipe()
        traffic = Traffic("steady", options.people, options.novel)
        driver = multiprocessing.get_context("spawn").Process(
            target=_steady, args=(broker, traffic, rate, options.seconds + options.warm + 2, theirs), daemon=True
        )
        driver.start()
        ours.recv()
        time.sleep(options.warm)
        before, begun = here.commits(agents), time.monotonic()
        found = _merge(here, count, logins_per_s)
        commits = {
            name: {
                "per_s": round((n - before[name][0]) / (time.monotonic() - begun), 1),
                "ms": round((s - before[name][1]) * 1000 / max(1, n - before[name][0]), 1),
            }
            for name, (n, s) in here.commits(agents).items()
        }
        rate_came = ours.recv()
        driver.join()
        here.rest(agents)
        return {
            "most_events_per_s": round(most),
            "most_cpu_us_per_event": round((cpu_then - cpu) * 1e6 / options.events, 1),
            "events_per_s": round(rate_came),
            "logins": count,
            "missing": count - len(found),
            "merge_ms": summary(found),
            "merge_ms_max": round(max(found), 1) if found else None,
            "commits": commits,
        }


def _merge(here: World, count: int, per_s: float) -> list[float]:
    """Log customers in, one after the other; for each the milliseconds until the record with both is there."""
    output = [TP("merges.person.v1", p) for p in range(PARTITIONS)]
    consumer, producer = here.cluster.consumer(f"c360-merges-{time.time_ns()}"), here.cluster.producer()
    consumer.fetch(here.reader.ends(output))
    waiting: dict[bytes, float] = {}
    found: list[float] = []
    begun = time.monotonic()
    sent, deadline = 0, begun + count / per_s + 15
    while (sent < count or waiting) and time.monotonic() < deadline:
        if sent < count and time.monotonic() - begun >= sent / per_s:
            waiting[b"customer:m%d" % sent] = time.time_ns() / 1e6
            login = visit(f"m-login-{sent}", f"cookie-m{sent}", f"m{sent}")
            producer.produce(f"{login[0]}.merges", *login[1:])
            producer.flush()
            sent += 1
        for batch in consumer.poll(1000, 0.002):
            now_ms = time.time_ns() / 1e6
            for key, value in zip(batch.keys, batch.values, strict=True):
                if key in waiting and value is not None and _merged(value):
                    found.append(now_ms - waiting.pop(key))
    consumer.close()
    producer.close()
    return found


def _merged(value: bytes) -> bool:
    """Whether the record is of customer and cookie, with both visits of the cookie, the login among them."""
    said = json.loads(value)
    return bool(said["subjects_total"] == 2 and said["attributes"]["visits"] == 2)


# -------------------------------------------------------------------------------------------------------- components
def component(broker: str, kind: str) -> dict[str, Any]:
    """Two of them: one that is said at once in random order, and one whose two halves are joined by the last link."""
    with ExitStack() as stack:
        here = world(stack, broker, kind)
        result: dict[str, Any] = {}
        for name in ("cold", "at_once", "halves"):  # the first has the broker compile its code
            links = _links(kind, f"{kind}-{name}")
            last = len(links) // 2 if name == "halves" else None
            held = [] if last is None else _last(kind, links, last)
            random.Random(2).shuffle(rest := [link for link in links if link not in held])
            if held:
                here.send(rest)
                here.rest(["govern", "identity@1", "person@1"])
            before = here.metric("c360_identity_messages_total")
            seconds = _until_one(here, held or rest, len({visitor for visitor, _ in (_ends(e) for e in links)}))
            here.rest(["govern", "identity@1", "person@1"])
            messages = here.metric("c360_identity_messages_total") - before
            result[name] = {"facts": len(held or rest), "seconds": round(seconds, 2), "messages": round(messages)}
        return result


def _links(kind: str, name: str) -> list[Event]:
    if kind == "chain":
        pairs = [(i, i + far) for i in range(500) for far in (0, 1) if i + far < 500]
        return [_pass(f"{name}-v{i:04d}", f"{name}-t{j:04d}") for i, j in pairs]
    return [_pass(f"{name}-v{i:04d}", f"{name}-t") for i in range(999)]


def _last(kind: str, links: Sequence[Event], at: int) -> list[Event]:
    return [links[at]]


def _pass(visitor: str, token: str) -> Event:
    value = {"id": f"{visitor}/{token}", "visitor": visitor, "token": token, "ts": _now_ms()}
    return "passes", visitor.encode(), json.dumps(value).encode()


def _ends(event: Event) -> tuple[str, str]:
    said = json.loads(event[2])
    return said["visitor"], said["token"]


def _until_one(here: World, links: Sequence[Event], subjects: int) -> float:
    """Seconds from the first append until there is a profile of so many subjects with a pass of each link."""
    output = [TP(f"{here.plan.app}.person.v1", p) for p in range(PARTITIONS)]
    consumer = here.cluster.consumer(f"c360-component-{time.time_ns()}")
    consumer.fetch(here.reader.ends(output))
    begun = time.monotonic()
    here.send(links)
    while time.monotonic() < begun + 60:
        for batch in consumer.poll(1000, 0.005):
            for value in batch.values:
                if value is not None and json.loads(value)["subjects_total"] == subjects:
                    consumer.close()
                    return time.monotonic() - begun
    raise RuntimeError(f"no profile has {subjects} subjects")


# -------------------------------------------------------------------------------------------------------------- main
def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.merges", description=__doc__.split("\n")[0])
    parser.add_argument("--only", default="facts,merges,chain,star", help="default: %(default)s")
    parser.add_argument("--facts", type=int, default=40_000, help="novel ones, of a backlog (default: %(default)s)")
    parser.add_argument("--people", type=int, default=10_000, help="who are known (default: %(default)s)")
    parser.add_argument("--events", type=int, default=150_000, help="of the backlog (default: %(default)s)")
    parser.add_argument("--load", type=float, default=0.5, help="part of the most it takes (default: %(default)s)")
    parser.add_argument("--novel", type=int, default=20, help="one visit in so many is new (default: %(default)s)")
    parser.add_argument("--logins", type=float, default=20.0, help="a second (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=30.0, help="of logins (default: %(default)s)")
    parser.add_argument("--warm", type=float, default=5.0, help="before them (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print all figures as JSON")
    options = parser.parse_args(arguments)
    gc.set_threshold(50_000, 50, 100)
    parts: dict[str, Callable[[str], dict[str, Any]]] = {
        "facts": lambda broker: facts(broker, options.facts),
        "merges": lambda broker: merges(broker, options),
        "chain": lambda broker: component(broker, "chain"),
        "star": lambda broker: component(broker, "star"),
    }
    result: dict[str, Any] = {"machine": machine(), "settings": vars(options)}
    with dev_kafka.start(say=say) as broker:
        for name in options.only.split(","):
            result[name] = parts[name](broker.bootstrap) | {"load": round(os.getloadavg()[0], 1)}
            if not options.json:
                print(name, json.dumps(result[name]), flush=True)
    if options.json:
        print(json.dumps(result, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
