"""What identity costs, without Kafka: `python -m benchmarks.identity [--json]`.

| row | is |
|---|---|
| steady | novel facts on top of a population that is known already: the last third of its facts, in commits of `--commit` |
| steady, as bytes | as well, every message encoded and decoded, and every changed node encoded once per commit |
| agent | the same facts through the agent's tasks: as records, in `--partitions`, state in RocksDB, outputs as JSON |
| chain | 1,000 nodes that become one component, facts in random order, each settled before the next: the hardest shape |
| star | 1,000 nodes around one identifier, in the same way |

CPU is user + system time of this process. The population: people of one customer number, a login, one or two e-mails, a
phone, cookies and devices; one in twenty has also used a cookie or device of another.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from time import process_time
from typing import Any

from benchmarks.run import machine
from c360.agents.identity import APART, PIECE_BYTES, IdentityAgent, IdentityTask
from c360.engine.agent import Outbox
from c360.engine.partition import partition_of
from c360.engine.transport import TP, Batch, Headers
from c360.identity.facts import Claim, Fact, encode_fact, link
from c360.identity.messages import Gather, Message, decode_message, encode_message
from c360.identity.node import Node, encode_node, step
from c360.identity.resolve import decide
from c360.identity.rules import DEFAULTS, Rules
from c360.plan import Identity, Plan, _agents, _topics
from c360.tables.rocks import RocksStores
from c360.tables.store import Store, Stores

COLUMNS = ("facts", "cpu_us_per_fact", "cpu_s", "messages", "worst", "moved", "bytes", "profile_mean", "profile_max")


class Loop:
    """One task in memory: rounds of all messages there are, grouped by node."""

    def __init__(self, rules: Rules, *, as_bytes: bool) -> None:
        self.rules, self.as_bytes = rules, as_bytes
        self.nodes: dict[str, Node] = {}
        self.messages = self.worst = self.moved = self.bytes = 0

    def commit(self, facts: Iterable[Fact]) -> None:
        """Facts, and all that follows from them."""
        inbox: dict[str, list[Message]] = {}
        for fact in facts:
            inbox.setdefault(fact.subject, []).append(fact)
        changed: dict[str, Node] = {}
        before = self.messages
        while inbox:
            coming: dict[str, list[Message]] = {}
            for key, messages in inbox.items():
                node = self.nodes.get(key)
                if node is None:
                    node = self.nodes[key] = Node(key)
                changed[key] = node
                for to, message in step(node, messages, self.rules).sends:
                    self.messages += 1
                    self.moved += len(message.members) if type(message) is Gather else 0
                    coming.setdefault(to, []).append(self._carried(message) if self.as_bytes else message)
            inbox = coming
        self.worst = max(self.worst, self.messages - before)
        if self.as_bytes:
            self.bytes += sum(len(encode_node(node)) for node in changed.values())

    def _carried(self, message: Message) -> Message:
        data = encode_message(message)
        self.bytes += len(data)
        carried: Message = decode_message(data)
        return carried

    def measure(self, facts: Sequence[Fact], commit: int) -> dict[str, Any]:
        """What these cost, in commits of so many."""
        self.messages = self.worst = self.moved = self.bytes = 0
        gc.collect()
        start = process_time()
        for i in range(0, len(facts), commit):
            self.commit(facts[i : i + commit])
        spent = process_time() - start
        sizes = profile_sizes(self.nodes.values())
        return {
            "facts": len(facts),
            "cpu_us_per_fact": round(spent * 1e6 / len(facts), 1),
            "cpu_s": round(spent, 2),
            "messages": round(self.messages / len(facts), 2),
            "worst": self.worst,  # messages of one commit
            "moved": round(self.moved / len(facts), 2),  # evidence records in messages, per fact
            "bytes": round(self.bytes / len(facts)),
            "profile_mean": round(sum(sizes) / len(sizes), 1),
            "profile_max": max(sizes),
        }


def profile_sizes(nodes: Iterable[Node]) -> list[int]:
    leads = [node.lead for node in nodes if node.lead]
    return [len(group) for lead in leads for group in decide(lead.block, lead.block.evidence()).groups]


Record = tuple[bytes | None, bytes | None]


class Tasks(Outbox):
    """All tasks of the agent in one process, each with its store. Records between them are bytes in memory.

    A round gives each task what has come for it, and commits it: dirty entries are encoded and written as one.
    """

    def __init__(
        self, rules: Rules, partitions: int, stores: Stores, *, apart: int = APART, piece_bytes: int = PIECE_BYTES
    ) -> None:
        bare = Plan("bench", partitions, {}, (), (), (), (), (), identities=(Identity("default", 1, rules),))
        self.plan = replace(bare, topics=_topics(bare), agents=_agents(bare))
        (identity,) = self.plan.identities
        self.agent = IdentityAgent(self.plan, identity, apart=apart, piece_bytes=piece_bytes)
        self.counters = self.agent.counters
        self.links, self.loop = self.plan.links, self.plan.loop(identity)
        self.tasks: list[IdentityTask] = []
        self.stores: list[Store] = []
        for p in range(partitions):
            task = self.agent.processor(self.agent.task(TP(self.plan.tasks, p)))
            assert isinstance(task, IdentityTask)
            store = stores.open(f"{p}")
            for table in task.tables:
                table.bind(store)
            task.resume({})
            self.tasks.append(task)
            self.stores.append(store)
        self.coming: dict[tuple[str, int], list[Record]] = {}
        self.rows = self.row_bytes = self.row_bytes_max = self.largest = 0  # written; the largest record of all
        self.said: list[tuple[str, bytes | None, bytes | None]] = []  # to the world, since it was last emptied

    def send(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        partition: int | None = None,
        headers: Headers | None = None,
    ) -> None:
        self.largest = max(self.largest, len(value or b""))
        if topic == self.loop:
            assert partition is not None
            self.coming.setdefault((topic, partition), []).append((key, value))
        else:
            self.said.append((topic, key, value))

    def tell(self, facts: Iterable[Fact]) -> int:
        """Facts, and all that follows from them. How many messages it took."""
        before = self.counters.local + self.counters.remote
        for fact in facts:
            partition = partition_of(fact.subject.encode(), len(self.tasks))
            self.coming.setdefault((self.links, partition), []).append(encode_fact(fact))
        while self.coming:
            self.round()
        return self.counters.local + self.counters.remote - before

    def round(self) -> None:
        now, self.coming = self.coming, {}
        for (topic, partition), records in now.items():
            keys, values = [key for key, _ in records], [value for _, value in records]
            none = [0] * len(records)
            self.tasks[partition].process(Batch(TP(topic, partition), none, keys, values, none, lambda _: []), self)
        for partition in {partition for _, partition in now}:
            self._commit(self.tasks[partition], self.stores[partition])

    def _commit(self, task: IdentityTask, store: Store) -> None:
        task.settle(self)
        task.finish({}, 0, self)
        entries = [entry for table in task.tables for entry in table.changes()]
        sizes = [len(value) for _, value in entries if value is not None]
        self.rows += len(entries)
        self.row_bytes += sum(sizes)
        self.row_bytes_max = max([self.row_bytes_max, *sizes])
        store.write(entries)
        for table in task.tables:
            table.committed()


def agent(people: int, commit: int, partitions: int) -> dict[str, Any]:
    """As `steady`, through the tasks."""
    facts = population(people, random.Random(1))
    known = len(facts) * 2 // 3
    with tempfile.TemporaryDirectory() as directory:
        stores = RocksStores(Path(directory))
        tasks = Tasks(Rules("default", DEFAULTS), partitions, stores)
        for i in range(0, known, commit):
            tasks.tell(facts[i : i + commit])
        tasks.said.clear()
        tasks.row_bytes = 0
        remote = tasks.counters.remote
        gc.collect()
        news = facts[known:]
        start = process_time()
        costs = [tasks.tell(news[i : i + commit]) for i in range(0, len(news), commit)]
        spent = process_time() - start
        sizes = profile_sizes(node for task in tasks.tasks for _, node in task.nodes.scan())
        result = {
            "facts": len(news),
            "cpu_us_per_fact": round(spent * 1e6 / len(news), 1),
            "cpu_s": round(spent, 2),
            "messages": round(sum(costs) / len(news), 2),
            "worst": max(costs),
            "moved": round((tasks.counters.remote - remote) / len(news), 2),  # records for the loop topic
            "bytes": round(tasks.row_bytes / len(news)),
            "profile_mean": round(sum(sizes) / len(sizes), 1),
            "profile_max": max(sizes),
        }
        for store in tasks.stores:
            store.close()
    return result


def population(people: int, dice: random.Random) -> list[Fact]:
    """All links of so many people, each once, in random order."""
    facts: list[Fact] = []
    cookies_to_lend: list[str] = []
    devices_to_lend: list[str] = []

    def say(subject: str, identifier: str, source: str) -> None:
        facts.append(link(subject, identifier, source, Claim(len(facts), first_seen=len(facts))))

    for person in range(people):
        customer = f"customer:{person:08d}"
        emails = [f"email:~{person:08x}{n:08x}" for n in range(dice.choice([1, 1, 2]))]
        for identifier in (f"crm_id:{person:08d}", f"phone:~{person:016x}", *emails):
            say(customer, identifier, "crm")
        cookies = [f"cookie:{person:08x}-{n}" for n in range(dice.choice([1, 2]))]
        devices = [f"device_id:{person:08x}-{n}" for n in range(dice.choice([0, 1]))]
        if dice.random() < 0.025 and cookies_to_lend:
            cookies.append(cookies_to_lend.pop())
        if dice.random() < 0.025 and devices_to_lend:
            devices.append(devices_to_lend.pop())
        for cookie in cookies:
            for identifier in (dice.choice(emails), *devices):
                say(cookie, identifier, "web")
        cookies_to_lend += cookies[:1]
        devices_to_lend += devices[:1]
    dice.shuffle(facts)
    return facts


def steady(people: int, commit: int, *, as_bytes: bool) -> dict[str, Any]:
    facts = population(people, random.Random(1))
    known = len(facts) * 2 // 3
    loop = Loop(Rules("default", DEFAULTS), as_bytes=as_bytes)
    loop.measure(facts[:known], commit)
    return loop.measure(facts[known:], commit)


def component(ends: Iterable[tuple[int, int]]) -> dict[str, Any]:
    """Cookies and devices that end as one component of 1,000 nodes, fact by fact in random order."""
    loose = {n: replace(DEFAULTS[n], limit=1 << 30, shared_at=None, hub_at=None) for n in ("cookie", "device_id")}
    loop = Loop(Rules("loose", loose), as_bytes=True)
    facts = [link(f"cookie:c{i:06d}", f"device_id:d{j:06d}", "web", Claim(1)) for i, j in ends]
    random.Random(2).shuffle(facts)
    result = loop.measure(facts, 1)
    assert result["profile_max"] == 1000, "it did not become one component"
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.identity", description=__doc__.split("\n")[0])
    parser.add_argument("--people", type=int, default=10_000, help="of the population (default: %(default)s)")
    parser.add_argument("--commit", type=int, default=200, help="facts in a commit (default: %(default)s)")
    parser.add_argument("--partitions", type=int, default=12, help="of the agent (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print all figures as JSON")
    options = parser.parse_args(arguments)
    gc.set_threshold(50_000, 50, 100)  # as a worker does
    rows = {
        "steady": steady(options.people, options.commit, as_bytes=False),
        "steady, as bytes": steady(options.people, options.commit, as_bytes=True),
        "agent": agent(options.people, options.commit, options.partitions),
        "chain": component((i, i + far) for i in range(500) for far in (0, 1) if i + far < 500),
        "star": component((i, 0) for i in range(999)),
    }
    if options.json:
        print(json.dumps({"machine": machine(), "settings": vars(options), "rows": rows}, indent=2))
    else:
        print("| | " + " | ".join(COLUMNS) + " |\n|---|" + "---:|" * len(COLUMNS))
        for name, row in rows.items():
            print(f"| {name} | " + " | ".join(f"{row[column]:,}" for column in COLUMNS) + " |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
