"""What identity costs in memory, without Kafka and disk: `python -m benchmarks.identity [--json]`.

| figure | is |
|---|---|
| step_us | CPU µs of all steps of one novel fact, its messages included, on top of a population that is known already |
| bytes_us | as well, every message encoded and decoded, and every changed node encoded once per commit of `--commit` facts |
| messages | sent for one novel fact |
| moved | evidence records in those messages, per fact |
| chain | one component of 1,000 nodes from facts in random order: CPU seconds until it is settled, messages per fact |

The population: people of one customer number, a login, one or two e-mails, a phone, devices and cookies; some cookies and
devices are used by two. The last third of its facts is measured.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Iterable, Sequence
from time import process_time
from typing import Any

from c360.identity.facts import Claim, Fact, link
from c360.identity.messages import Gather, Message, decode_message, encode_message
from c360.identity.node import Node, encode_node, step
from c360.identity.resolve import Block, decide
from c360.identity.rules import DEFAULTS, Rules

RULES = Rules("default", DEFAULTS)


class Loop:
    """One task: rounds of all messages there are, grouped by node."""

    def __init__(self, *, as_bytes: bool) -> None:
        self.as_bytes = as_bytes
        self.nodes: dict[str, Node] = {}
        self.messages = self.moved = self.bytes = 0

    def settle(self, facts: Iterable[Fact]) -> None:
        inbox: dict[str, list[Message]] = {}
        for fact in facts:
            inbox.setdefault(fact.subject, []).append(fact)
        changed: dict[str, Node] = {}
        nodes, as_bytes = self.nodes, self.as_bytes
        while inbox:
            coming: dict[str, list[Message]] = {}
            for key, messages in inbox.items():
                node = nodes.get(key)
                if node is None:
                    node = nodes[key] = Node(key)
                changed[key] = node
                for to, message in step(node, messages, RULES).sends:
                    self.messages += 1
                    if type(message) is Gather:
                        self.moved += len(message.members)
                    if as_bytes:
                        data = encode_message(message)
                        self.bytes += len(data)
                        message = decode_message(data)
                    if to in coming:
                        coming[to].append(message)
                    else:
                        coming[to] = [message]
            inbox = coming
        if as_bytes:
            for node in changed.values():
                self.bytes += len(encode_node(node))


def population(people: int, dice: random.Random) -> list[Fact]:
    """All links of so many people, in random order, each once."""
    facts: list[Fact] = []
    lent_cookies: list[str] = []
    lent_devices: list[str] = []

    def say(subject: str, identifier: str, source: str) -> None:
        facts.append(link(subject, identifier, source, Claim(len(facts), first_seen=len(facts))))

    for person in range(people):
        customer = f"customer:{person:08d}"
        emails = [f"email:~{person:08x}{n:08x}" for n in range(dice.choice([1, 1, 2]))]
        say(customer, f"crm_id:{person:08d}", "crm")
        say(customer, f"phone:~{person:016x}", "crm")
        for email in emails:
            say(customer, email, "crm")
        cookies = [f"cookie:{person:08x}-{n}" for n in range(dice.choice([1, 2]))]
        devices = [f"device_id:{person:08x}-{n}" for n in range(dice.choice([0, 1]))]
        cookies += [lent_cookies.pop()] if lent_cookies and dice.random() < 0.05 else []
        devices += [lent_devices.pop()] if lent_devices and dice.random() < 0.05 else []
        for cookie in cookies:
            say(cookie, dice.choice(emails), "web")
            for device in devices:
                say(cookie, device, "web")
        lent_cookies += cookies[:1]
        lent_devices += devices[:1]
    dice.shuffle(facts)
    return facts


def steady(people: int, commit: int, *, as_bytes: bool) -> dict[str, Any]:
    facts = population(people, random.Random(1))
    known = len(facts) * 2 // 3
    loop = Loop(as_bytes=as_bytes)
    for i in range(0, known, commit):
        loop.settle(facts[i : min(i + commit, known)])
    loop.messages = loop.moved = loop.bytes = 0
    start = process_time()
    for i in range(known, len(facts), commit):
        loop.settle(facts[i : i + commit])
    spent = process_time() - start
    novel = len(facts) - known
    sizes = [size for node in loop.nodes.values() if node.lead for size in components(node.lead.block)]
    return {
        "facts": len(facts),
        "measured": novel,
        "us": round(spent * 1e6 / novel, 1),
        "messages": round(loop.messages / novel, 2),
        "moved": round(loop.moved / novel, 2),
        "bytes": round(loop.bytes / novel),
        "component_mean": round(sum(sizes) / len(sizes), 1),
        "component_max": max(sizes),
    }


def components(block: Block) -> list[int]:
    """How many nodes are in each profile."""
    return [len(group) for group in decide(block, block.members).groups]


def chain(subjects: int, commit: int, *, in_order: bool = False) -> dict[str, Any]:
    """cookie 0 — device 0 — cookie 1 — device 1 …: the hardest shape, as its ends are far from each other."""
    loose = {name: DEFAULTS[name] for name in ("cookie", "device_id")}
    facts = [
        link(f"cookie:c{i:06d}", f"device_id:d{j:06d}", "web", Claim(1))
        for i in range(subjects)
        for j in (i - 1, i)
        if j >= 0
    ]
    if not in_order:
        random.Random(2).shuffle(facts)
    global RULES
    before = RULES
    RULES = Rules("chain", {n: _unlimited(loose[n]) for n in loose}, cap=4 * subjects)
    try:
        loop = Loop(as_bytes=True)
        start = process_time()
        for i in range(0, len(facts), commit):
            loop.settle(facts[i : i + commit])
        spent = process_time() - start
    finally:
        RULES = before
    profiles = {node.standing.profile for node in loop.nodes.values() if node.standing}
    assert len(profiles) == 1, "the chain did not become one"
    return {"nodes": 2 * subjects, "seconds": round(spent, 2), "messages": round(loop.messages / len(facts), 2)}


def _unlimited(namespace: Any) -> Any:
    from dataclasses import replace

    return replace(namespace, limit=1 << 30, shared_at=None, hub_at=None)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.identity", description=__doc__.split("\n")[0])
    parser.add_argument("--people", type=int, default=10_000, help="default: %(default)s")
    parser.add_argument("--commit", type=int, default=200, help="facts in a commit (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print all figures as JSON")
    options = parser.parse_args(arguments)
    plain = steady(options.people, options.commit, as_bytes=False)
    print(plain)
    print(steady(options.people, options.commit, as_bytes=True))
    for commit in (1, 100):
        print(chain(500, commit))
    return 0


if __name__ == "__main__":
    sys.exit(main())
