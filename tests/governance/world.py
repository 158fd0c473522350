"""A small world around the erasure protocol: govern that lags, identity, agents that forget, and a process that crashes.

Everything that could be late is: each queue moves when the dice say so. Who answers keeps the contract that
`c360/governance/messages.py` states, and nothing more.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator
from itertools import count
from types import ModuleType
from typing import Any, NamedTuple

from c360.governance import erasure as protocol
from c360.governance.certificate import Certificate, Promise
from c360.governance.erasure import Books
from c360.governance.messages import (
    Certify,
    Deployed,
    Erase,
    Event,
    Found,
    Mark,
    Out,
    Passed,
    Receipt,
    Settle,
    Settled,
    Shred,
    Shredded,
    Suppress,
    Tick,
)
from c360.governance.suppressed import Suppressed, decode_suppressed, encode_suppressed, life_if_kept


class Fact(NamedTuple):
    """A link of two nodes, each in the life that it had. by: govern, or an operator."""

    one: str
    other: str
    lives: tuple[int, int]
    by: str


class Raw(NamedTuple):
    subject: str
    identifiers: tuple[str, ...]


class Governed(NamedTuple):
    number: int
    subject: str
    life: int


class Task:
    """Of govern: its copy of the suppressed table may be old, its raw records wait."""

    def __init__(self, world: World, name: str) -> None:
        self.world, self.name = world, name
        self.view = self.told = -1
        self.raw: deque[Raw] = deque()
        self.keys: set[tuple[str, int]] = set()
        self.look_up(len(world.log))

    def look_up(self, to: int) -> None:
        self.view = to
        self.table = dict(self.world.log[:to])

    def tell(self) -> None:
        self.told = self.view
        self.world.say("govern", Passed(self.name, 0, self.view))

    def look(self, identifier: str) -> Suppressed | None:
        return self.table.get(veil(identifier))

    def govern(self) -> None:
        raw, world = self.raw.popleft(), self.world
        life = life_if_kept(raw.subject, raw.identifiers, self.look)
        if life is None:
            world.dropped += 1
            return
        if (raw.subject, life) not in self.keys:
            self.keys.add((raw.subject, life))
            world.keys.setdefault(raw.subject, {})[f"k{next(world.numbers)}"] = life
        world.governed.append(Governed(next(world.numbers), raw.subject, life))
        for identifier in raw.identifiers:
            said = self.look(identifier)
            fact = Fact(raw.subject, identifier, (life, said.life if said else 0), "govern")
            for view in world.views.values():
                view.links.append(fact)


class View:
    """Of identity: facts go through two topics; who is joined is one profile."""

    def __init__(self, world: World, name: str) -> None:
        self.world, self.name = world, name
        self.links: deque[Fact] = deque()
        self.loop: deque[Fact | Mark | Erase] = deque()
        self.facts: list[Fact] = []
        self.marks: dict[str, str] = {}
        self.reported: dict[str, set[str]] = {}
        self.asked: deque[tuple[Settle, list[bool]]] = deque()  # with what was seen at rest so far
        self.history: list[Fact | Mark | Erase] = []
        self.stamps: list[int] = []  # of what was said to the process, how long history was

    def turn(self) -> None:
        message = self.loop.popleft()
        self.history.append(message)
        match message:
            case Fact():
                self.facts.append(message)
            case Erase(_, identifier, life):
                before = len(self.facts)
                self.facts = [fact for fact in self.facts if not outlived(fact, identifier, life)]
                self.world.receive("identity", message, before - len(self.facts))
            case Mark(_, identifier, request, on):
                if on:
                    self.marks[request] = identifier
                else:
                    self.marks.pop(request, None)
                    self.reported.pop(request, None)
        for request, node in self.marks.items():
            profile = together(node, self.facts)
            known = self.reported.setdefault(request, set())
            if new := profile - known:
                known |= new
                self.say(Found(request, tuple(sorted(n for n in new if is_subject(n))), others_of(new)))

    def look(self) -> None:
        """One of two looks, at different moments, as an observer of two topics has them."""
        settle, seen = self.asked[0]
        if not seen:
            if not self.loop:
                seen.append(True)
        elif not self.links:
            self.asked.popleft()
            self.say(Settled(settle.request, self.name, settle.probe))

    def say(self, event: Event) -> None:
        self.stamps.append(len(self.history))
        self.world.say(self.name, event)


class Agent:
    """A projection, or a door: reads governed records, and what to erase, each in its order, not among each other."""

    def __init__(self, world: World, name: str) -> None:
        self.world, self.name = world, name
        self.at = [0, 0]
        self.records: list[Governed] = []
        self.lives: dict[str, int] = {}

    def fold(self) -> None:
        record = self.world.governed[self.at[0]]
        self.at[0] += 1
        if record.life >= self.lives.get(record.subject, 0):
            self.records.append(record)

    def erase(self) -> None:
        erase = self.world.erases[self.at[1]]
        self.at[1] += 1
        self.lives[erase.identifier] = max(erase.life, self.lives.get(erase.identifier, 0))
        kept = [r for r in self.records if r.subject != erase.identifier or r.life >= erase.life]
        self.world.receive(self.name, erase, len(self.records) - len(kept))
        self.records = kept


def veil(node: str) -> str:
    return node if node.startswith("~") else f"~{node}"


def is_subject(node: str) -> bool:
    return node.removeprefix("~").startswith("s")


def others_of(nodes: set[str]) -> tuple[str, ...]:
    return tuple(sorted(n for n in nodes if not is_subject(n)))


def outlived(fact: Fact, node: str, life: int) -> bool:
    return any(end == node and born < life for end, born in zip(fact[:2], fact.lives, strict=True))


def together(node: str, facts: list[Fact]) -> set[str]:
    found, before = {node}, 0
    while len(found) > before:
        before = len(found)
        for fact in facts:
            if fact.one in found or fact.other in found:
                found |= {fact.one, fact.other}
    return found


class World:
    def __init__(
        self,
        dice: random.Random,
        *,
        tasks: int,
        views: int,
        agents: int,
        crashes: float = 0.0,
        repeats: float = 0.0,
        code: ModuleType = protocol,
    ) -> None:
        self.dice, self.crashes, self.repeats, self.code = dice, crashes, repeats, code
        self.numbers = count(1)
        self.now = 1_000
        self.log: list[tuple[str, Suppressed]] = []  # the suppressed topic
        self.keys: dict[str, dict[str, int]] = {}  # subject → id → life
        self.governed: list[Governed] = []
        self.erases: list[Erase] = []
        self.shreds: deque[Shred] = deque()
        self.destroyed: dict[tuple[str, str], set[str]] = {}  # request and subject → keys
        self.removed: dict[tuple[str, str, str], int] = {}  # request, identifier and agent → tombstones
        self.certificates: dict[str, list[Certificate]] = {}
        self.proven: dict[str, dict[str, int]] = {}  # request → view → how much of its history the process knew then
        self.nodes: dict[str, dict[str, Any]] = {}  # request → of its profile, as it was before the proof
        self.halves: dict[tuple[str, str, str], tuple[int, ...]] = {}  # of receipts of identity, by view
        self.dropped = self.lost = 0
        self.inbox: dict[str, list[Event]] = {}
        self.at: dict[str, int] = {}
        self.views = {f"view{n}": View(self, f"view{n}") for n in range(views)}
        self.tasks = {f"g-{n}": Task(self, f"g-{n}") for n in range(tasks)}
        self.agents = {f"agent{n}": Agent(self, f"agent{n}") for n in range(agents)}
        self.rows: tuple[bytes, dict[str, bytes], dict[str, bytes]] = (code.encode_known(code.Known()), {}, {})
        self.deploy()

    # ------------------------------------------------------------------------------------------------ what may happen
    def say(self, source: str, event: Event) -> None:
        self.inbox.setdefault(source, []).append(event)

    def deploy(self) -> None:
        agents = (*self.agents, "identity") if self.views else tuple(self.agents)
        topics = {"customer": Promise("compact", 10), "governed": Promise("delete", 100), "raw": Promise("user", -1)}
        self.say("deploy", Deployed(tuple(self.tasks), tuple(self.views), agents, topics))

    def receive(self, agent: str, erase: Erase, tombstones: int) -> None:
        """A receipt. Identity has one per view that there is: the last one is the one that is given."""
        slot = (erase.request, erase.identifier, agent)
        if agent == "identity" and len(self.views) > 1:
            self.halves[slot] = (*self.halves.get(slot, ()), tombstones)
            if len(self.halves[slot]) % len(self.views):
                return
            tombstones = sum(self.halves[slot][-len(self.views) :])
        self.removed[slot] = max(self.removed.get(slot, 0), tombstones)
        receipt = Receipt(erase.request, erase.identifier, erase.life, agent, {agent: tombstones}, {f"{agent}/0": 1})
        self.say(f"receipts of {agent}", receipt)

    def moves(self) -> Iterator[Any]:
        """All that could happen next."""
        if any(self.at.get(source, 0) < len(said) for source, said in self.inbox.items()):
            yield self.process
        if self.shreds:
            yield self.shred
        for task in self.tasks.values():
            if task.raw:
                yield task.govern
            if task.view < len(self.log):
                yield lambda task=task: task.look_up(self.dice.randint(task.view + 1, len(self.log)))
            if task.told < task.view:
                yield task.tell
        for view in self.views.values():
            if view.links:
                yield lambda view=view: view.loop.append(view.links.popleft())
            if view.loop:
                yield view.turn
            if view.asked and not (view.asked[0][1] and view.links) and not (not view.asked[0][1] and view.loop):
                yield view.look
        for agent in self.agents.values():
            if agent.at[0] < len(self.governed):
                yield agent.fold
            if agent.at[1] < len(self.erases):
                yield agent.erase

    def move(self) -> bool:
        moves = list(self.moves())
        if moves:
            self.dice.choice(moves)()
        return bool(moves)

    def shred(self) -> None:
        shred = self.shreds.popleft()
        assert any(n == veil(shred.subject) and shred.request in said.holds for n, said in self.log), (
            "shredded before it is out"
        )
        keys = self.keys.get(shred.subject, {})
        ids = {key for key, life in keys.items() if life < shred.life}
        for key in ids:
            del keys[key]
        self.destroyed.setdefault((shred.request, shred.subject), set()).update(ids)
        self.say("keys", Shredded(shred.request, shred.subject, shred.round, tuple(sorted(ids))))

    # -------------------------------------------------------------------------------------------- the erasure process
    def books(self) -> Books:
        known, erasures, suppressed = self.rows
        code = self.code
        made: Books = code.Books(
            code.decode_known(known),
            {name: code.decode_erasure(row) for name, row in erasures.items()},
            {name: decode_suppressed(row) for name, row in suppressed.items()},
            veil,
        )
        return made

    def process(self, *, tick: bool = False) -> None:
        """A batch of whatever sources: commits whole, or leaves nothing."""
        events: list[Event] = [Tick()] if tick else []
        at = dict(self.at)
        for _ in range(self.dice.randint(1, 5)):
            ready = [source for source, said in self.inbox.items() if at.get(source, 0) < len(said)]
            if ready:
                source = self.dice.choice(ready)
                events.append(self.inbox[source][at.get(source, 0)])
                at[source] = at.get(source, 0) + 1
            if self.dice.random() < self.repeats:
                read = [e for s, said in self.inbox.items() if s != "deploy" for e in said[: self.at.get(s, 0)]]
                if read:
                    events.append(self.dice.choice(read))
        self.now += 1
        books = self.books()
        before = {name: (e.identifier, dict(e.nodes)) for name, e in books.erasures.items() if not e.proven}
        commands = self.code.step(books, events, self.now)
        if self.dice.random() < self.crashes:
            self.lost += 1
            return
        code = self.code
        self.at = at
        self.rows = (
            code.encode_known(books.known),
            {name: code.encode_erasure(erasure) for name, erasure in books.erasures.items()},
            {name: encode_suppressed(said) for name, said in books.suppressed.items()},
        )
        for request, erasure in books.erasures.items():
            if erasure.proven and request not in self.proven:
                self.proven[request] = {
                    view.name: view.stamps[at[view.name] - 1] if at.get(view.name) else 0
                    for view in self.views.values()
                }
        self.nodes |= {name: e.nodes for name, e in books.erasures.items() if not e.proven}
        self.nodes |= {name: nodes for name, (_, nodes) in before.items() if books.erasures[name].proven}
        for command in commands:
            self.obey(command, books)

    def obey(self, command: Any, books: Books) -> None:
        match command:
            case Suppress(identifier, said):
                self.log.append((identifier, said))
                self.say("suppressed", Out(identifier, 0, len(self.log) - 1, said))
            case Mark():
                self.views[command.view].loop.append(command)
            case Shred():
                self.shreds.append(command)
            case Settle():
                self.views[command.view].asked.append((command, []))
            case Erase():
                if command not in self.erases:  # asked again, it was right the first time
                    self.check_rest(command, books)
                self.erases.append(command)
                for view in self.views.values():
                    view.loop.append(command)
            case Certify(certificate):
                self.check_proof(certificate, books)
                self.certificates.setdefault(certificate.request, []).append(certificate)

    # ---------------------------------------------------------------------------------------------- checked on the way
    def first(self, request: str, node: str) -> int:
        return next(i for i, (name, said) in enumerate(self.log) if name == veil(node) and request in said.holds)

    def check_rest(self, erase: Erase, books: Books) -> None:
        """Nothing is removed while govern may still bring something, or something is on its way to identity."""
        erasure = books.erasures[erase.request]
        for name, node in erasure.nodes.items():
            for task in books.known.govern:
                assert self.tasks[task].view > self.first(erase.request, name), "removed before govern has passed"
            assert not [k for k, life in self.keys.get(name, {}).items() if life < node.life], "removed with keys left"
            for view in self.views.values():
                coming = [f for f in (*view.links, *view.loop) if isinstance(f, Fact) and f.by == "govern"]
                assert not any(outlived(fact, name, node.life) for fact in coming), "removed before identity rests"

    def check_proof(self, certificate: Certificate, books: Books) -> None:
        """What the certificate says is so, and was done by those who say it."""
        nodes, kept = self.nodes[certificate.request], books.erasures[certificate.request]
        assert kept.nodes.keys() == {veil(name) for name in nodes}, (
            "what is kept says who it was, or not who is suppressed"
        )
        assert kept.identifier == certificate.identifier == veil(kept.identifier)
        assert [s.subject for s in certificate.subjects] == sorted(filter(is_subject, map(veil, nodes)))
        assert certificate.identifiers == others_of(set(map(veil, nodes)))
        done: dict[str, int] = {}
        for (request, name, agent), count_ in self.removed.items():
            if request == certificate.request and self.read_receipt(request, name, agent):
                done[agent] = done.get(agent, 0) + count_
        assert {r.agent: r.tombstones[r.agent] for r in certificate.agents} == done, "tombstones that were not written"
        assert {r.agent for r in certificate.agents} >= set(books.known.agents), "proven without a receipt"
        for subject in certificate.subjects:
            name = subject.subject.removeprefix("~")
            assert set(subject.keys) == self.destroyed[certificate.request, name], "keys that were not destroyed"
            assert not [k for k, life in self.keys.get(name, {}).items() if life < subject.life], (
                "proven with keys left"
            )
            for holder in (self.agents[a] for a in books.known.agents if a in self.agents):
                assert not [r for r in holder.records if r.subject == name and r.life < subject.life], (
                    "proven, not removed"
                )
        for view in self.views.values():
            for name, node in nodes.items():
                assert not [f for f in view.facts if f.by == "govern" and outlived(f, name, node.life)], (
                    "links are left"
                )

    def read_receipt(self, request: str, name: str, agent: str) -> bool:
        source = f"receipts of {agent}"
        read = self.inbox.get(source, [])[: self.at.get(source, 0)]
        return any(isinstance(r, Receipt) and (r.request, r.identifier) == (request, name) for r in read)
