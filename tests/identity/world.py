"""Nodes on partitions, in memory: channels that lag, batches that crash, state that is bytes between batches.

Every channel is first in first out and nothing else: from one node (or, as with Kafka, from one partition) to another.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Iterable
from copy import deepcopy
from types import ModuleType
from zlib import crc32

from c360.identity import node as identity
from c360.identity.facts import Fact
from c360.identity.messages import (
    Event,
    Forget,
    Mark,
    Message,
    decode_event,
    decode_message,
    encode_event,
    encoded,
)
from c360.identity.node import LeadShelves, NeighbourShelves, Node, decode_node
from c360.identity.rules import Rules

MOST_MESSAGES = 200_000  # in one world; more is a circle


class Holders:
    """Pairs in memory."""

    def __init__(self) -> None:
        self.pairs: dict[str, set[str]] = {}

    def add(self, identifier: str, subject: str) -> None:
        self.pairs.setdefault(identifier, set()).add(subject)

    def discard(self, identifier: str, subject: str) -> None:
        self.pairs[identifier].remove(subject)

    def of(self, identifier: str) -> list[str]:
        return sorted(self.pairs.get(identifier, ()))

    def clear(self) -> None:
        self.pairs.clear()


class Shelves:
    """Shelves in memory, of each node its own."""

    def __init__(self) -> None:
        self.by_node: dict[str, tuple[NeighbourShelves, LeadShelves]] = {}

    def _of(self, node: str) -> tuple[NeighbourShelves, LeadShelves]:
        new = NeighbourShelves({}, {}, {}), LeadShelves({}, Holders(), {})
        return self.by_node.setdefault(node, new)

    def neighbours(self, node: str) -> NeighbourShelves:
        return self._of(node)[0]

    def lead(self, node: str) -> LeadShelves:
        return self._of(node)[1]


class World:
    """`code` is the module with `step`: the real one, or a mutant of it.

    `apart`: so many neighbours or members, and more of them lie on shelves. `piece_bytes`: larger hand-overs are cut.
    """

    def __init__(
        self,
        rules: Rules,
        *,
        partitions: int = 1,
        batch: int = 1,
        dice: random.Random | None = None,
        crashes: float = 0.0,
        lag: float = 0.0,
        by_task: bool = False,
        code: ModuleType = identity,
        apart: int | None = None,
        piece_bytes: int = 1 << 30,
    ) -> None:
        self.rules, self.partitions, self.batch, self.code = rules, partitions, batch, code
        self.dice, self.crashes, self.by_task = dice or random.Random(0), crashes, by_task
        self.slow, self.salt = int(lag * 1000), str(self.dice.random())  # so many of 1,000 channels wait for all others
        self.apart, self.piece_bytes, self.shelves = apart, piece_bytes, Shelves()
        self.states: dict[str, bytes] = {}
        self.channels: list[dict[str, deque[tuple[str, bytes]]]] = [{} for _ in range(partitions)]
        self.events: list[Event] = []
        self.messages = 0  # that nodes sent
        self.sent = Counter[str]()
        self.after_step: list[Node] = []  # of the last batch

    def put(self, key: str, message: Message) -> None:
        """From outside: facts come in any order, marks of one node in theirs. Of another node: one that was long on its way."""
        sender = f"mark {key}" if isinstance(message, Mark | Forget) else f"fact {self.dice.random()}"
        self._send(sender, key, message)

    def _send(self, sender: str, to: str, message: Message) -> None:
        if self.by_task:
            there, channel = crc32(to.encode()) % self.partitions, f"{crc32(sender.encode()) % self.partitions}"
            channel = sender if sender.startswith(("fact ", "mark ")) else channel
        else:
            there, channel = crc32(to.encode()) % self.partitions, f"{sender} {to}"
        records = [(to, data) for data in encoded(message, self.piece_bytes)]
        if records:  # of a hand-over of nothing, that is cut, there are none
            self.channels[there].setdefault(channel, deque()).extend(records)

    def turn(self) -> bool:
        """One batch of one partition. False when nothing is on its way."""
        busy = [p for p in range(self.partitions) if self.channels[p]]
        if not busy:
            return False
        quick = [p for p in busy if any(not self._lags(name) for name in self.channels[p])] if self.slow else busy
        hurry = bool(quick) and self.dice.random() < 0.98
        here = self.channels[self.dice.choice(quick if hurry else busy)]
        before = {name: list(queue) for name, queue in here.items()} if self.crashes else {}
        shares: dict[str, list[Message]] = {}
        for _ in range(self.dice.randint(1, self.batch)):
            names = [name for name in here if not hurry or not self._lags(name)]
            if not names:
                break
            name = self.dice.choice(names)
            to, data = here[name].popleft()
            if not here[name]:
                del here[name]
            shares.setdefault(to, []).append(decode_message(data))
        states: dict[str, bytes] = {}
        sends: list[tuple[str, str, Message]] = []
        events: list[Event] = []
        self.after_step, code, shelves = [], self.code, self.shelves
        untouched = deepcopy(shelves) if self.crashes and self.apart is not None else shelves
        for key, messages in shares.items():
            node = code.decode_node(self.states[key], self.rules, shelves) if key in self.states else code.Node(key)
            if code.is_blank(node) and all(map(code.let_go, messages)):
                continue  # as the agent: whoever is not there has nothing to let go of
            home = node.home
            done = code.step(node, messages, self.rules)
            if self.apart is not None:
                code.shelve(node, shelves, self.apart)
            states[key] = code.encode_node(node)
            again = code.encode_node(code.decode_node(states[key], self.rules, shelves))
            assert again == states[key], "bytes do not come back"
            assert self.rules.of(node.home).rank <= self.rules.of(home).rank, "a pointer rises"
            sends += [(key, to, message) for to, message in done.sends]
            events += [decode_event(encode_event(event)) for event in done.events]
            self.after_step.append(node)
        if self.dice.random() < self.crashes:
            here.clear()
            here.update({name: deque(queue) for name, queue in before.items()})
            self.after_step, self.shelves = [], untouched
            return True
        self.states.update(states)
        self.events += events
        for sender, to, message in sends:
            self.sent[type(message).__name__] += 1
            self._send(sender, to, message)
        self.messages += len(sends)
        assert self.messages < MOST_MESSAGES, "messages go round in circles"
        return True

    def _lags(self, channel: str) -> bool:
        return crc32((self.salt + channel).encode()) % 1000 < self.slow

    def drain(self) -> int:
        """Until nothing is on its way. How many messages nodes sent for it."""
        before = self.messages
        while self.turn():
            pass
        return self.messages - before

    def rest(self) -> None:
        """Nothing is on its way: who is to vanish does."""
        self.drain()
        for node in self.nodes():
            if self.code.let_go_of(node):
                del self.states[node.key]
            else:
                self.states[node.key] = self.code.encode_node(node)

    def tell(self, facts: Iterable[Fact]) -> int:
        """Facts, one after the other, each until it is settled. How many messages it took."""
        before = self.messages
        for fact in facts:
            self.put(fact.subject, fact)
            self.drain()
        return self.messages - before

    def node(self, key: str) -> Node:
        return decode_node(self.states[key], self.rules, self.shelves)

    def nodes(self) -> list[Node]:
        return [decode_node(data, self.rules, self.shelves) for data in self.states.values()]
