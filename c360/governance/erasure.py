"""Forgetting a customer: what has been asked, what was answered, and what is due next.

    SUPPRESS ──► SHRED ──► RESOLVE ──► REMOVE ──► PROVEN ──Lift──► LIFTED
        ▲          │          │          │
        └──────────┴──────────┴──────────┘  somebody has joined the profile

What is due is a function of the state (`_due`); a step takes in events, goes on (`_advance`), and says what is due now and was
not before. So repeats say nothing, and a crash changes nothing: what was not committed is read again, and what was
committed and is not answered can be asked again at any time (`Tick`), because who is asked may answer twice.

| guard | why |
|---|---|
| a subject is shredded only once its own suppression is out | else govern makes new keys for it, for ever |
| and again after each govern task has passed that, the last time after all | until then a task that lags makes new ones |
| identity is asked whether it rests only after all tasks have passed all of the suppression | they still bring links |
| it must rest twice, with nobody found in between | its facts and its loop are not seen at one moment |
| nothing is removed before that | an agent that deletes links would hide who is still to be found |
| the mark is taken off after the receipts, and identity must rest once more | what it still says was on its way |
| a lift waits for the proof | else the keys of a new life are destroyed with those of the old |

After the proof nobody can join any more: govern drops every record that names one of the identifiers. What stays of a request
has them veiled, as the suppressed table has: enough to lift it, and to know it again.

Lives make the rest order-free: keys and records are void below a life, so a command that comes late, or twice, never
touches what was made after a lift.

One task holds all requests: they meet in the identifiers that they suppress, and each of those has one writer. Changes the
states that it is given, in place. Knows no topics and no partitions but those of the suppressed table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, MutableMapping
from enum import Enum
from typing import NamedTuple

import msgspec

from c360.errors import NeedsOperator
from c360.governance.certificate import SWEEP_MS, Certificate, ErasedSubject, GoneBy, Promise, Receipts
from c360.governance.messages import (
    Beside,
    Certify,
    Command,
    Deployed,
    Erase,
    Event,
    Found,
    Lift,
    Mark,
    Out,
    Passed,
    Receipt,
    Requested,
    Settle,
    Settled,
    Shred,
    Shredded,
    Suppress,
    Tick,
)
from c360.governance.suppressed import Hold, Suppressed, join

FORMAT = 1
GOVERN = "govern:"  # before the name of a task; these answer to the suppression, once, and need not be asked
RESTS = 2  # times in a row that identity must be seen at rest


class Stage(Enum):
    """What a request waits for first."""

    SUPPRESS = "suppress"  # that its identifiers are out
    SHRED = "shred"  # that every govern task has passed them, and keys are destroyed after that
    RESOLVE = "resolve"  # that identity rests
    REMOVE = "remove"  # for receipts
    PROVEN = "proven"  # for nothing: the suppression stands
    LIFTED = "lifted"


# --------------------------------------------------------------------------------------------------------------- state
class Done(msgspec.Struct, array_like=True):
    """Of a receipt, what goes into the certificate."""

    tombstones: dict[str, int]
    reached: dict[str, int]


class Node(msgspec.Struct, array_like=True, kw_only=True):
    """A subject or identifier of the profile."""

    subject: bool
    life: int
    veiled: str  # as it stands in the suppressed table
    out: tuple[int, int] | None = None  # partition and offset of the first record that suppresses it for this request
    freed: bool = False  # the record that lifts it is out
    passed: set[str] = msgspec.field(default_factory=set)  # govern tasks that had passed it at the last shredding
    round: int = 0  # shreddings asked for
    shredded: int = 0  # the last one that was done
    keys: set[str] = msgspec.field(default_factory=set)  # destroyed
    told: bool = False  # agents were told to erase it
    answered: set[str] = msgspec.field(default_factory=set)  # agents that have done so since
    receipts: dict[str, Done] = msgspec.field(default_factory=dict)  # by agent; also of the times before


class Erasure(msgspec.Struct, array_like=True, kw_only=True):
    """State of one request."""

    request: str
    identifier: str
    asked_at: int
    nodes: dict[str, Node] = msgspec.field(default_factory=dict)
    beside: set[str] = msgspec.field(default_factory=set)
    probe: int = 0  # the last one asked
    probing: bool = False  # it is not answered by all views
    settled: set[str] = msgspec.field(default_factory=set)  # views that have answered it
    rests: int = 0
    unmarked: bool = False  # all have given their receipts, the mark is taken off
    closed: bool = False  # and identity has rested since
    proven: bool = False  # from now on identifiers are veiled
    lifting: bool = False
    lifted: int = 0  # epoch ms

    @property
    def open(self) -> bool:
        """Whether anything is to be waited for."""
        return not all(node.freed for node in self.nodes.values()) if self.lifted else not self.proven


class Known(msgspec.Struct, array_like=True, kw_only=True):
    """What all requests share."""

    govern: tuple[str, ...] = ()
    views: tuple[str, ...] = ()
    agents: tuple[str, ...] = ()
    topics: dict[str, Promise] = msgspec.field(default_factory=dict)
    passed: dict[str, dict[str, int]] = msgspec.field(default_factory=dict)  # by govern task, also one not known yet
    open: set[str] = msgspec.field(default_factory=set)  # requests


class Books(NamedTuple):
    """All there is: rows of one task. What a step has changed, it sets again, so that a table may lie behind."""

    known: Known
    erasures: MutableMapping[str, Erasure]  # by request; they stay, what is left of them
    suppressed: MutableMapping[str, Suppressed]  # by veiled identifier, as the topic has it
    veil: Callable[[str], str]  # veils an identifier; one that is veiled stays as it is


_encode = msgspec.msgpack.Encoder(order="deterministic").encode


def encode_erasure(erasure: Erasure) -> bytes:
    """The same for equal states."""
    return _encode((FORMAT, erasure))


def encode_known(known: Known) -> bytes:
    """The same for equal states."""
    return _encode((FORMAT, known))


def _format(data: bytes) -> None:
    (found, _) = msgspec.msgpack.decode(data, type=tuple[int, msgspec.Raw])
    if found != FORMAT:
        raise NeedsOperator(
            f"the state of erasures has format {found}, which this version of c360 did not write; run the one that did, or"
            " a newer one"
        )


def decode_erasure(data: bytes) -> Erasure:
    """Raises NeedsOperator if another format wrote it."""
    _format(data)
    return msgspec.msgpack.decode(data, type=tuple[int, Erasure])[1]


def decode_known(data: bytes) -> Known:
    """Raises NeedsOperator if another format wrote it."""
    _format(data)
    return msgspec.msgpack.decode(data, type=tuple[int, Known])[1]


# ---------------------------------------------------------------------------------------------------------------- step
def step(books: Books, events: Iterable[Event], now: int) -> list[Command]:
    """Take in a batch, change the books, and say what is to be done. now: epoch ms.

    Commands, the changed books and the positions of the events commit together, or none of them does.
    """
    turn = _Turn(books, now)
    for event in events:
        turn.take(event)
    return turn.end()


class _Turn:
    """One step on its way: which requests it has touched, and what was due for each before."""

    __slots__ = ("before", "books", "now", "written")

    def __init__(self, books: Books, now: int) -> None:
        self.books, self.now = books, now
        self.before: dict[str, set[Command | _Write]] = {}
        self.written: set[str] = set()  # of the suppressed table, veiled

    def touch(self, request: str) -> Erasure | None:
        erasure = self.books.erasures.get(request)
        if erasure is not None and request not in self.before:
            self.before[request] = set(_due(erasure, self.books.known))
            self.books.erasures[request] = erasure
        return erasure

    def take(self, event: Event) -> None:
        match event:
            case Requested(request, identifier, subject):
                self.on_request(request, identifier, subject)
            case Out():
                self.on_out(event)
            case Passed(task, partition, offset):
                positions = self.books.known.passed.setdefault(task, {})
                positions[str(partition)] = max(offset, positions.get(str(partition), 0))
                self.touch_open()
            case Deployed():
                self.on_deployed(event)
            case Tick():
                self.touch_open()
                self.before.update((request, set()) for request in self.books.known.open)
            case _:
                erasure = self.touch(event.request)
                if erasure is not None and (not erasure.proven or isinstance(event, Lift)):
                    self.on_answer(erasure, event)

    def touch_open(self) -> None:
        for request in sorted(self.books.known.open):
            self.touch(request)

    # ---------------------------------------------------------------------------------------------------------- events
    def on_request(self, request: str, identifier: str, subject: bool) -> None:
        known = self.touch(request)
        if known is None:
            erasure = Erasure(request=request, identifier=identifier, asked_at=self.now)
            self.books.erasures[request] = erasure
            self.before[request] = set()
            self.find(erasure, identifier, subject)
        else:
            assert known.identifier in (identifier, self.books.veil(identifier)), "one name for two requests"

    def find(self, erasure: Erasure, identifier: str, subject: bool) -> None:
        """It is of the profile. If that is news, whatever was settled is not."""
        node = erasure.nodes.get(identifier)
        if node is None:
            veiled = self.books.veil(identifier)
            said = self.books.suppressed.get(veiled)
            node = Node(subject=subject, life=1 + (said.life if said else 0), veiled=veiled)
            erasure.nodes[identifier] = node
            self.write(node, erasure.request, Hold(erasure.asked_at))
        elif subject and not node.subject:
            node.subject = True
        else:
            return
        self.unsettle(erasure)

    def unsettle(self, erasure: Erasure) -> None:
        """Whatever was settled is not. Who was asked to erase is asked again, also where that is due in this very step."""
        _unsettle(erasure)
        before = self.before[erasure.request]
        self.before[erasure.request] = {command for command in before if not isinstance(command, Erase)}

    def write(self, node: Node, request: str, hold: Hold) -> None:
        table = self.books.suppressed
        table[node.veiled] = join(table.get(node.veiled), Suppressed(node.life, {request: hold}))

    def on_out(self, out: Out) -> None:
        for request, hold in out.said.holds.items():
            erasure = self.touch(request)
            node = _veiled(erasure, out.identifier) if erasure else None
            if erasure is None or node is None:
                continue
            if hold.lifted:
                node.freed = True
            elif erasure.proven:
                continue
            elif node.out is None or out.offset < node.out[1]:
                node.out = (out.partition, out.offset)

    def on_deployed(self, said: Deployed) -> None:
        known = self.books.known
        for request in sorted(known.open):
            erasure = self.touch(request)
            assert erasure is not None
            if not erasure.proven and (set(said.govern) - set(known.govern) or set(said.views) - set(known.views)):
                self.unsettle(erasure)
        known.govern, known.views, known.agents, known.topics = said.govern, said.views, said.agents, said.topics

    def on_answer(self, erasure: Erasure, event: Lift | Found | Beside | Shredded | Settled | Receipt) -> None:
        match event:
            case Lift():
                erasure.lifting = True
            case Found(_, subjects, others):
                for identifier in subjects:
                    self.find(erasure, identifier, True)
                for identifier in others:
                    self.find(erasure, identifier, False)
            case Beside(_, subjects):
                erasure.beside.update(subjects)
            case Shredded(_, subject, round, keys):
                node = erasure.nodes[subject]
                node.keys.update(keys)
                node.shredded = max(node.shredded, round)
            case Settled(_, view, probe):
                if erasure.probing and probe == erasure.probe:
                    erasure.settled.add(view)
            case Receipt(_, identifier, life, agent):
                found = erasure.nodes.get(identifier) or _veiled(erasure, identifier)
                if found is None or life < found.life:
                    return  # for what was not asked, or of a life before
                found.answered.add(agent)
                known = found.receipts.setdefault(agent, Done({}, {}))
                _raise(known.tombstones, event.tombstones)  # of an answer that is given again, the greater
                _raise(known.reached, event.reached)

    # ------------------------------------------------------------------------------------------------------------- end
    def end(self) -> list[Command]:
        """Go on with each request that was touched; what is due now and was not before, is to be done."""
        commands: list[Command] = []
        known, suppressed, written = self.books.known, self.books.suppressed, self.written
        for request, before in self.before.items():
            erasure = self.books.erasures[request]
            certificate = self.advance(erasure)
            for command in _due(erasure, known):
                if command in before:
                    continue
                if isinstance(command, _Write):
                    written.add(command.veiled)
                else:
                    commands.append(command)
            if certificate is not None:
                commands.append(Certify(certificate))
            (known.open.add if erasure.open else known.open.discard)(request)
        return [*(Suppress(veiled, suppressed[veiled]) for veiled in sorted(written)), *commands]

    def advance(self, erasure: Erasure) -> Certificate | None:
        """As far as the answers allow. The certificate, if this is the moment of its proof."""
        known, nodes = self.books.known, erasure.nodes
        if erasure.lifted or not known.govern:
            return None  # until it is said who there is, nobody would be waited for
        # 1 shred what is out, and again after further govern tasks have passed it
        for node in nodes.values():
            passed = _passed(node, known)
            if node.subject and node.out is not None and (node.round == 0 or passed - node.passed):
                node.round += 1
                node.passed |= passed
        # 2 when all have passed all, see whether identity rests
        if erasure.probing and erasure.settled >= set(known.views):
            erasure.probing = False
            erasure.closed = erasure.unmarked
            erasure.rests += 1
        if not erasure.probing and erasure.rests < RESTS and all(_is_passed(node, known) for node in nodes.values()):
            if known.views:
                _probe(erasure)
            else:
                erasure.rests = RESTS  # without identity nobody joins
        # 3 remove, once nobody is to be found any more and no key is left
        if _is_settled(erasure, known):
            for node in nodes.values():
                node.told = True
        # 4 take the mark off, and see what was still on its way
        if not erasure.proven and not erasure.unmarked and _is_removed(erasure, known):
            erasure.unmarked, erasure.closed = True, not known.views
            if known.views:
                _probe(erasure)
        # 5 prove; what is kept says nothing any more
        certificate = None
        if not erasure.proven and erasure.closed and _is_removed(erasure, known):
            certificate = certify(erasure, known, self.now, self.books.veil)
            _reduce(erasure, self.books.veil)
            for node in erasure.nodes.values():
                self.write(node, erasure.request, Hold(erasure.asked_at, 0, self.now))
                self.written.add(node.veiled)
        # 6 lift, if that was asked for
        if erasure.proven and erasure.lifting:
            erasure.lifted = self.now
            for node in erasure.nodes.values():
                self.write(node, erasure.request, Hold(erasure.asked_at, self.now))
        return certificate


def _raise(known: dict[str, int], said: dict[str, int]) -> None:
    for name, number in said.items():
        known[name] = max(number, known.get(name, 0))


def _unsettle(erasure: Erasure) -> None:
    erasure.rests = 0
    erasure.probing = erasure.unmarked = erasure.closed = False
    for (
        node
    ) in erasure.nodes.values():  # who was asked is asked again: a mark that is set again makes anew what it is set on
        node.told, node.answered = False, {agent for agent in node.answered if agent.startswith(GOVERN)}


def _probe(erasure: Erasure) -> None:
    """Ask all views once more whether they rest."""
    erasure.probe, erasure.probing, erasure.settled = erasure.probe + 1, True, set()


def _veiled(erasure: Erasure, veiled: str) -> Node | None:
    return next((node for node in erasure.nodes.values() if node.veiled == veiled), None)


def _reduce(erasure: Erasure, veil: Callable[[str], str]) -> None:
    """To what a proven request needs: who is suppressed for it, veiled."""
    erasure.proven = True
    erasure.identifier = veil(erasure.identifier)
    kept = sorted(erasure.nodes.values(), key=lambda node: node.veiled)
    erasure.nodes = {n.veiled: Node(subject=n.subject, life=n.life, veiled=n.veiled) for n in kept}
    erasure.beside, erasure.settled = set(), set()


# ------------------------------------------------------------------------------------------------------------- is it so
def _passed(node: Node, known: Known) -> set[str]:
    """Govern tasks that make nothing of this node any more."""
    if node.out is None:
        return set()
    partition, offset = node.out
    return {task for task in known.govern if offset < known.passed.get(task, {}).get(str(partition), 0)}


def _is_passed(node: Node, known: Known) -> bool:
    return node.out is not None and _passed(node, known).issuperset(known.govern)


def _is_shredded(node: Node, known: Known) -> bool:
    """After all have passed; an identifier that is no subject has no keys."""
    return not node.subject or (node.passed.issuperset(known.govern) and 0 < node.shredded == node.round)


def _is_settled(erasure: Erasure, known: Known) -> bool:
    nodes = erasure.nodes.values()
    return erasure.rests >= RESTS and all(_is_passed(node, known) and _is_shredded(node, known) for node in nodes)


def _is_removed(erasure: Erasure, known: Known) -> bool:
    nodes, agents = erasure.nodes.values(), set(known.agents)
    return _is_settled(erasure, known) and all(node.told and agents <= node.answered for node in nodes)


def stage_of(erasure: Erasure, known: Known) -> Stage:
    """Where a request is, for people."""
    nodes = erasure.nodes.values()
    if erasure.lifted:
        return Stage.LIFTED
    if erasure.proven:
        return Stage.PROVEN
    if any(node.out is None for node in nodes):
        return Stage.SUPPRESS
    if not all(_is_passed(node, known) and _is_shredded(node, known) for node in nodes):
        return Stage.SHRED
    return Stage.REMOVE if erasure.rests >= RESTS else Stage.RESOLVE


def waits_for(erasure: Erasure, known: Known) -> tuple[str, ...]:
    """Who keeps a request where it is: govern tasks, views of identity, or agents, by name; sorted."""
    nodes = erasure.nodes.values()
    match stage_of(erasure, known):
        case Stage.SHRED:
            return tuple(sorted({task for node in nodes for task in set(known.govern) - _passed(node, known)}))
        case Stage.RESOLVE:
            return tuple(sorted(set(known.views) - erasure.settled))
        case Stage.REMOVE if erasure.unmarked:
            return tuple(sorted(set(known.views) - erasure.settled))
        case Stage.REMOVE:
            return tuple(sorted({agent for node in nodes for agent in set(known.agents) - node.answered}))
        case _:
            return ()


# ------------------------------------------------------------------------------------------------------------ what is due
class _Write(msgspec.Struct, frozen=True, gc=False):
    """Of the suppressed table; what the record says is known when all requests of the step have said theirs."""

    veiled: str
    on: bool


def _due(erasure: Erasure, known: Known) -> Iterator[Command | _Write]:
    """All that is asked and not answered, in the order of the protocol."""
    request, identifier, nodes = erasure.request, erasure.identifier, sorted(erasure.nodes.items())
    if erasure.lifted:
        if erasure.open:
            yield from (_Write(node.veiled, False) for _, node in nodes if not node.freed)
        return
    if erasure.proven:
        return
    yield from (_Write(node.veiled, True) for _, node in nodes if node.out is None)
    if erasure.unmarked:
        yield from (Mark(view, identifier, request, False) for view in known.views)
    elif not all(node.told for _, node in nodes):  # later what it was on is erased, and it with it
        yield from (Mark(view, identifier, request) for view in known.views)
    yield from (
        Shred(request, name, node.life, node.round)
        for name, node in nodes
        if node.subject and node.shredded < node.round
    )
    if erasure.probing:
        yield from (Settle(request, view, erasure.probe) for view in known.views if view not in erasure.settled)
    agents = set(known.agents)
    yield from (Erase(request, name, node.life) for name, node in nodes if node.told and not agents <= node.answered)


# ------------------------------------------------------------------------------------------------------------ certificate
def certify(erasure: Erasure, known: Known, now: int, veil: Callable[[str], str]) -> Certificate:
    """What was done, and only that: keys that were destroyed, tombstones that agents have counted. Identifiers are veiled."""
    nodes = sorted((node.veiled, node) for node in erasure.nodes.values())
    tombstones: dict[str, dict[str, int]] = {}
    reached: dict[str, dict[str, int]] = {}
    for _, node in nodes:
        for agent, done in node.receipts.items():
            counts = tombstones.setdefault(agent, {})
            for topic, count in done.tombstones.items():
                counts[topic] = counts.get(topic, 0) + count
            _raise(reached.setdefault(agent, {}), done.reached)
    return Certificate(
        request=erasure.request,
        identifier=veil(erasure.identifier),
        asked_at=erasure.asked_at,
        proven_at=now,
        subjects=tuple(
            ErasedSubject(name, node.life, tuple(sorted(node.keys))) for name, node in nodes if node.subject
        ),
        identifiers=tuple(name for name, node in nodes if not node.subject),
        beside=tuple(sorted(map(veil, erasure.beside - erasure.nodes.keys()))),
        govern=tuple(sorted(known.govern)),
        agents=tuple(Receipts(agent, tombstones[agent], reached[agent]) for agent in sorted(tombstones)),
        topics=tuple(
            GoneBy(topic, promise.policy, None if promise.ms < 0 else now + promise.ms)
            for topic, promise in sorted(known.topics.items())
        ),
        state_gone_by=now + SWEEP_MS,
    )
