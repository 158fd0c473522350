"""What identity costs in memory, without Kafka and disk: `python -m benchmarks.identity [--json]`.

| row | is |
|---|---|
| steady | novel facts on top of a population that is known already: the last third of its facts, in commits of `--commit` |
| steady, as bytes | as well, every message encoded and decoded, and every changed node encoded once per commit |
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
from collections.abc import Iterable, Sequence
from dataclasses import replace
from time import process_time
from typing import Any

from benchmarks.run import machine
from c360.identity.facts import Claim, Fact, link
from c360.identity.messages import Gather, Message, decode_message, encode_message
from c360.identity.node import Node, encode_node, step
from c360.identity.resolve import decide
from c360.identity.rules import DEFAULTS, Rules

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
        leads = [node.lead for node in self.nodes.values() if node.lead]
        sizes = [len(group) for lead in leads for group in decide(lead.block, lead.block.members).groups]
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
    parser.add_argument("--json", action="store_true", help="print all figures as JSON")
    options = parser.parse_args(arguments)
    gc.set_threshold(50_000, 50, 100)  # as a worker does
    rows = {
        "steady": steady(options.people, options.commit, as_bytes=False),
        "steady, as bytes": steady(options.people, options.commit, as_bytes=True),
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
