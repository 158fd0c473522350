"""identity: link facts in, one assignment per subject out. One task per partition of nodes.

What a node does with its messages is `c360.identity.node.step`; this module brings messages to nodes and what they say to
where it belongs. In numbered steps:

1. read      facts of the task's subjects, and messages of other tasks' nodes
2. round     each node that has messages takes all of them in one step. What it says to nodes of the same partition is kept
             for the next round (or for a node's turn in this one), the rest goes to the loop topic, keyed by the node
3. settle    before a commit: rounds until nothing is left, so that no message is ever in memory only
4. publish   what is another for a subject or a node than at the last commit, once

One round per batch, and not as many as it takes: what comes with the next batches is then taken in the same steps.
First in, first out between any two nodes: both are on one partition, and all that the one says to the other goes through
memory in the order of its steps; or they are not, and all of it goes through one partition of the loop topic, written by
one task, or by hand where the engine keeps that order (`engine.post`).

After a reset nothing is published before all tasks have read the facts up to where they ended then, and what follows from
them has come to rest (`Settling`); afterwards every subject is, some per commit, under greater numbers than before.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

import msgspec

from c360.agents.shelves import Shelf, TaskShelves
from c360.agents.suppression import Suppression, Watch
from c360.agents.wire import Assignment, IdentityChange, encode, misfit_in, read_of
from c360.engine.agent import Copartitioned, Outbox, Processor, Task
from c360.engine.partition import partition_of
from c360.engine.transport import TP, Batch
from c360.errors import Misfit
from c360.governance.messages import Beside, Erase, Found, Receipt, Settled, decode_erase, encode_found, encode_receipt
from c360.identity.facts import Fact, decode_fact, decode_slot, slot_key
from c360.identity.messages import (
    PROBE,
    Assigned,
    Event,
    Forget,
    Gather,
    Gone,
    Holders,
    Members,
    Message,
    Probe,
    Rest,
    Round,
    StatusChanged,
    Touch,
    Unsaid,
    Unsay,
    decode_message,
    decode_probe,
    encode_probe,
    encoded,
)
from c360.identity.namespace import TWIN, shown, shown_reason
from c360.identity.node import (
    ERASED,
    Node,
    decode_node,
    encode_node,
    forget_released,
    is_blank,
    is_leaving,
    let_go,
    let_go_of,
    shelve,
    step,
)
from c360.identity.resolve import Standing
from c360.identity.rules import OK, Rules
from c360.plan import Identity, Plan
from c360.tables.table import Table, after

log = logging.getLogger("c360.identity")

NODES, SENT, WAS, LEFT = b"n", b"s", b"a", b"o"
APART = 64  # neighbours of an identifier, or members of a block; more lie in rows of their own
PIECE_BYTES = 256 << 10  # of a message; a larger hand-over is cut
WIDE = 200  # nodes of a component that somebody should look at; more than the rules' cap (1,000) is quarantined
SWEPT_PER_COMMIT = 2_000
MOST_ROUNDS = 64  # after a reset: with facts that keep coming it never comes to rest
LIFE = 32  # bits of a subject's own number below those of identity's life (docs/decisions/0013)


# ------------------------------------------------------------------------------------------------------------- state
class Sent(msgspec.Struct, frozen=True, array_like=True):
    """What the assignments topic holds of a subject when identity is reset: its profile, and the one before."""

    profile: str
    was: str | None


encode_sent = msgspec.msgpack.Encoder().encode
_decode_sent = msgspec.msgpack.Decoder(Sent).decode


class Settling(msgspec.Struct, omit_defaults=True):
    """Whether the messages of all tasks have come to rest, found out in rounds.

    A task that has read its facts tells all tasks so, over the loop topic: that is round 1. Having heard a round of all, it
    tells them in the next one whether it has sent messages since the last. All messages sent before a round were read
    before it was heard, as they are in front of it; so a round in which nobody had sent any is the end, for all tasks alike.
    """

    round: int = 0  # the last one told
    sent: bool = False  # messages since then
    heard: dict[str, int] = {}  # round → of how many tasks
    busy: list[str] = []  # rounds in which some task had sent messages

    def hear(self, said: Rest) -> None:
        name = str(said.round)
        self.heard[name] = self.heard.get(name, 0) + 1
        if said.busy and name not in self.busy:
            self.busy.append(name)

    def next(self, tasks: int) -> Rest | None:
        """What is to be told now, if a round is over, or none began yet."""
        if self.round and self.heard.get(str(self.round), 0) < tasks:
            return None
        self.round += 1
        said = Rest(self.round, self.sent or self.round == 1)
        self.sent = False
        return said

    def is_heard(self, tasks: int, number: int) -> bool:
        """Whether it is at this round, and has heard it of all."""
        return self.round == number and self.heard.get(str(number), 0) == tasks

    def over(self, tasks: int) -> bool:
        return self.is_heard(tasks, self.round) and (str(self.round) not in self.busy or self.round >= MOST_ROUNDS)


class Probing(msgspec.Struct):
    """A question of the erasure agent on its way through the tasks. `asked` None: it is not here yet, others were faster.

    It is over when all has come to rest twice: after the first blocks forget who is released, and hand over no more of it.
    """

    asked: Probe | None = None
    marked: bool = False  # its mark among the facts was read
    settling: Settling = msgspec.field(default_factory=Settling)
    rested: bool = False  # once
    leaving: list[str] = []  # who was released, or led such, then


def notes_of_reset(life: int, ends: Mapping[str, int]) -> dict[str, Any]:
    """Of a task that begins anew. `ends`: "topic/partition" → offset before which nothing is published."""
    notes: dict[str, Any] = {"life": life, "settling": {}}
    return notes | {"catch_up": dict(ends)} if ends else notes


def sent_before(subject: bytes, said: Assignment) -> tuple[bytes, bytes]:
    """What a task that begins anew has in its tables of a subject's last assignment."""
    return SENT + subject, encode_sent(Sent(said.profile, said.was))


def life_after(seq: int) -> int:
    """The least life whose numbers are greater than this one."""
    return (seq >> LIFE) + 1


class _Before(NamedTuple):
    """A node as it was at the last commit, as far as it is published or counted."""

    standing: Standing | None
    status: str
    members: int
    live: bool


def _look(node: Node) -> _Before:
    evidence, neighbours, lead = node.evidence, node.neighbours, node.lead
    live = bool(evidence and evidence.links) or (neighbours is not None and neighbours.degree > 0)
    return _Before(node.standing, evidence.status if evidence else OK, lead.block.size if lead else 0, live)


# --------------------------------------------------------------------------------------------------------- published
def _identifiers(standing: Standing) -> list[str]:
    return sorted({shown(key) for key in standing.identifiers})


def _deferred(standing: Standing | None) -> list[tuple[str, str]]:
    """Links that join nobody, with reasons, as the world knows them."""
    if standing is None or not standing.deferred:
        return []
    return sorted({(shown(key), shown_reason(reason)) for key, reason in standing.deferred})


def _refused(standing: Standing | None) -> list[tuple[str, str]]:
    """What is a conflict: not that a value joins nobody, which its own status says, or that nothing is known of it yet."""
    return [(key, reason) for key, reason in _deferred(standing) if reason != "identifier_inactive"]


# -------------------------------------------------------------------------------------------------------------- task
@dataclass
class IdentityCounters:
    """What identity did in this process, for metrics; work that was aborted counts again."""

    facts: int = 0
    novel: int = 0
    local: int = 0  # messages to nodes of the same partition
    remote: int = 0  # messages for other tasks
    assignments: int = 0
    conflicts: int = 0  # assignments whose refused links are others than before
    misfits: int = 0
    wide: int = 0  # decisions on components of at least WIDE nodes
    largest_component: int = 0
    largest_block: int = 0


class IdentityTask:
    """One partition of nodes. `apart` and `piece_bytes`: as the constants above."""

    def __init__(
        self,
        plan: Plan,
        identity: Identity,
        task: Task,
        counters: IdentityCounters,
        *,
        apart: int = APART,
        piece_bytes: int = PIECE_BYTES,
        suppression: Suppression | None = None,
    ) -> None:
        self.agent, self.dlq = identity.agent, plan.dlq
        self.rules: Rules = identity.rules
        self.partition, self.partitions = task.lead.partition, plan.partitions
        self.links, self.loop = plan.links, plan.loop(identity)
        self.assignments, self.changes = plan.assignments(identity), plan.identity_changes(identity)
        self.counters, self.apart, self.piece_bytes = counters, apart, piece_bytes
        self.found, self.receipts, self.erase = plan.found, plan.receipts, plan.erase
        self.watch = None if suppression is None else Watch(suppression)
        self.probes: dict[str, Probing] = {}  # by name
        self.erased: list[tuple[Erase, bool]] = []  # since the last commit, and whether anything was known of them
        self.twins: list[tuple[str, Message]] = []  # what is for the other node of one name
        self.leaving: set[str] = set()  # nodes that are released, or lead such: let go of when identity has rested
        self.unsaid: Counter[str] = Counter()  # claims taken back since then, by who had them
        self.shelves = TaskShelves()
        self.nodes: Table[Node] = Table(NODES, encode_node, lambda data: decode_node(data, self.rules, self.shelves))
        self.sent: Table[Sent] = Table(SENT, encode_sent, _decode_sent)  # only from a reset to the end of its sweep
        text: tuple[Callable[[str], bytes], Callable[[bytes], str]] = str.encode, bytes.decode
        # Of subjects whose assignment names another profile, which they were of before: that
        self.was = Table(WAS, *text)
        self.left = Table(LEFT, *text)  # the same by that profile, so that it is found when it is erased
        self.tables = (self.nodes, *self.shelves.tables, self.sent, self.was, self.left)
        self.gone: set[str] = set()  # profiles that are erased, since the last commit
        self.inbox: dict[str, list[Message]] = {}  # what is to be taken in the next round
        self.before: dict[str, _Before] = {}  # nodes that had a turn since the last commit
        self.news: dict[str, tuple[str, str]] = {}  # of subjects: how they came to another profile, and the last cause
        self.totals: Counter[str] = Counter()  # nodes by status, members of blocks, …: of all nodes of the partition
        self.life = 0
        self.catch_up: dict[str, int] = {}  # after a reset: "topic/partition" → offset before which nothing is said
        self.settling: Settling | None = None  # then
        self.sweep: tuple[str, str] | None = None  # at last: table, and the subject from which on all is published

    # --------------------------------------------------------------------------------------------------- processor
    def resume(self, notes: Mapping[str, Any]) -> None:
        self.inbox.clear()
        self.before.clear()
        self.news.clear()
        self.totals = Counter(notes.get("totals", {}))
        self.life = notes.get("life", 0)
        self.catch_up = dict(notes.get("catch_up", {}))
        self.settling = msgspec.convert(notes["settling"], Settling) if "settling" in notes else None
        self.sweep = tuple(notes["sweep"]) if "sweep" in notes else None
        self.probes = msgspec.convert(notes.get("probes", {}), dict[str, Probing])
        self.leaving = set(notes.get("leaving", ()))
        self.erased.clear()
        self.twins.clear()
        self.unsaid.clear()
        self.gone.clear()
        if self.watch is not None:
            self.watch.again()

    def notes(self) -> dict[str, Any]:
        notes: dict[str, Any] = {"totals": dict(sorted(self.totals.items()))} if self.totals else {}
        if self.life:
            notes["life"] = self.life
        if self.catch_up:
            notes["catch_up"] = self.catch_up
        if self.settling is not None:
            notes["settling"] = msgspec.to_builtins(self.settling)
        if self.sweep is not None:
            notes["sweep"] = list(self.sweep)
        if self.probes:
            notes["probes"] = msgspec.to_builtins(self.probes)
        if self.leaving:
            notes["leaving"] = sorted(self.leaving)
        return notes

    def process(self, batch: Batch, out: Outbox) -> None:
        if self.watch is not None:
            self.watch.begin()
            if batch.tp.topic == self.erase:
                self._erase(batch, out)
                self._round(out)
                return
        of_facts = batch.tp.topic == self.links
        read = self._fact if of_facts else _message
        inbox = self.inbox
        for i, (key, value) in enumerate(zip(batch.keys, batch.values, strict=True)):
            if value is None:
                if of_facts and key is not None:
                    self._unsaid(key)
                continue
            if key == b"" and batch.tp.topic == self.loop:
                self._hear(value)
                continue
            try:
                to, message = read(key, value)
            except Misfit as misfit:
                self._put_aside(batch, i, misfit, out)
                continue
            if not (of_facts and self._is_void(message)):
                inbox.setdefault(to, []).append(message)
        self._round(out)

    def _hear(self, value: bytes) -> None:
        said = decode_probe(value)
        if isinstance(said, Rest):
            if self.settling is not None:
                self.settling.hear(said)
            return
        if isinstance(said, Gone):
            self.gone.add(said.profile)
            return
        probing = self.probes.setdefault(said.name, Probing())
        if isinstance(said, Probe):
            probing.asked = said
        else:
            probing.settling.hear(Rest(said.round, said.busy))

    # ----------------------------------------------------------------------------------------------------- erasure
    def _erase(self, batch: Batch, out: Outbox) -> None:
        """Whoever is erased is told so, as a subject and as an identifier of others; and all tasks, whose assignments may
        name it."""
        assert self.watch is not None
        for key, value in zip(batch.keys, batch.values, strict=True):
            if key is None or value is None:
                continue
            erase = decode_erase(key, value)
            if not self.watch.suppression.due(erase):
                continue  # that of a life that is over: what is said of it now is another's
            self.erased.append((erase, self.nodes.get(key) is not None))
            self.inbox.setdefault(erase.identifier, []).append(Forget(erase.request))
            self.twins.append((TWIN + erase.identifier, Forget(erase.request)))
            if self.rules.of(erase.identifier).subject:
                for partition in range(self.partitions):
                    out.send(self.loop, b"", encode_probe(Gone(erase.identifier)), partition)

    def _unsaid(self, key: bytes) -> None:
        """A record of a claim that is no more: of somebody who was erased, or a dead one that somebody tidied away."""
        try:
            subject, kind, other, source = decode_slot(key)
        except ValueError:
            return
        if subject.startswith(PROBE):
            if other == self.agent and not self.catch_up:  # before that, those of long ago
                self.probes.setdefault(subject.removeprefix(PROBE), Probing()).marked = True
            return
        self.inbox.setdefault(subject, []).append(Unsay(kind, other, source))

    def _is_void(self, message: Message) -> bool:
        """Whether a fact is about somebody who is suppressed and of whom all was removed: it comes from before."""
        if self.watch is None or not self.watch.suppression or not isinstance(message, Fact):
            return False
        look = self.watch.suppression.look
        return any((said := look(name)) is not None and said.over for name in (message.subject, message.other))

    def _say_erased(self, positions: Mapping[TP, int], out: Outbox) -> None:
        read = read_of(positions, self.erase)
        for erase, known in self.erased:
            tombstones = {self.links: n} if (n := self.unsaid[erase.identifier]) else {}
            if known:
                tombstones[self.assignments] = 1
            receipt = Receipt(erase.request, erase.identifier, erase.life, self.agent, tombstones, read)
            out.send(self.receipts, *encode_receipt(receipt), 0)
        self.erased.clear()
        self.unsaid.clear()

    def _tell(self, event: Event, out: Outbox) -> None:
        """What is said for the erasure agent, and link facts that are taken back."""
        match event:
            case Members(request, _, added):
                of = self.rules.of
                subjects = tuple(sorted({shown(n) for n in added if of(n).subject or n.startswith(TWIN)}))
                others = tuple(sorted({n for n in added if not (of(n).subject or n.startswith(TWIN))}))
                out.send(self.found, *encode_found(Found(request, subjects, others)), 0)
            case Holders(request, _, added):
                out.send(self.found, *encode_found(Beside(request, added)), 0)
            case Unsaid(subject, kind, other, source):
                out.send(self.links, slot_key(subject, kind, other, source), None, self.partition)
                self.unsaid[subject] += 1

    def _probe(self, out: Outbox) -> None:
        """Take part in the rounds of probes, and answer those that are over: one task for all."""
        if self.catch_up or self.settling is not None:
            return
        for name, probing in sorted(self.probes.items()):
            asked, settling = probing.asked, probing.settling
            if asked is None or not probing.marked:
                continue
            over = settling.over(self.partitions)
            if not probing.rested and (over or settling.is_heard(self.partitions, MOST_ROUNDS // 2)):
                probing.rested, probing.leaving = True, sorted(self.leaving)  # all tasks after the same round
                self._let_go_of(())
            elif over:
                del self.probes[name]
                self._let_go_of(probing.leaving)
                if self.partition == 0:
                    said = Settled(asked.request, asked.view, asked.probe)
                    out.send(self.found, *encode_found(said), 0)
                continue
            if (rest := settling.next(self.partitions)) is not None:
                for partition in range(self.partitions):
                    out.send(self.loop, b"", encode_probe(Round(name, rest.round, rest.busy)), partition)

    def _let_go_of(self, rows_too: Collection[str]) -> None:
        """All that was on its way to and of who is erased has come: what was sent before a round was read before the next.

        `rows_too`: of whom the row itself may go. Blocks forget twice in a probe: what was handed over at the first time
        has come at the second.
        """
        rows = {key: key.encode() for key in sorted(self.leaving)}
        nodes = self.nodes.load(rows.values())
        for key, row in rows.items():
            node = nodes[row]
            if node is not None and is_leaving(node):  # else another life has begun
                self.nodes.touch((row,))
                before = self.before.setdefault(key, _look(node))
                if key not in rows_too:
                    forget_released(node)
                elif let_go_of(node):
                    del self.before[key]
                    self._count(before, _look(Node(key)))
                    self.nodes.delete(row)
                    node = None
            if node is None or not is_leaving(node):
                self.leaving.discard(key)

    def _fact(self, key: bytes | None, value: bytes) -> tuple[str, Message]:
        try:
            fact: Fact = decode_fact(key or b"", value)
        except (ValueError, msgspec.MsgspecError) as error:
            raise Misfit("no-fact", "this is no link fact: c360 and `c360 identity` write what is") from error
        if partition_of(fact.subject.encode(), self.partitions) != self.partition:
            raise Misfit("wrong-partition", "a fact belongs to the partition of its subject, which this is not")
        self.counters.facts += 1
        return fact.subject, fact

    def divert(self, batch: Batch, error: BaseException, out: Outbox) -> None:
        self._put_aside(batch, 0, error, out)

    def _put_aside(self, batch: Batch, i: int, error: BaseException, out: Outbox) -> None:
        out.send(self.dlq, batch.keys[i], misfit_in(self.agent, batch, i, error))
        self.counters.misfits += 1

    def wants(self, now_ms: int) -> bool:
        return self.sweep is not None or (self.settling is not None and not self.settling.round and not self.catch_up)

    def settle(self, out: Outbox) -> None:
        while self.inbox:
            self._round(out)

    def finish(self, positions: Mapping[TP, int], now_ms: int, out: Outbox) -> None:
        if self.catch_up and all(
            positions[TP(name.rpartition("/")[0], self.partition)] >= end for name, end in self.catch_up.items()
        ):
            self.catch_up = {}
        if self.settling is not None and not self.catch_up:
            self._come_to_rest(self.settling, out)
        if self.probes:
            self._probe(out)
        if self.erased or self.unsaid:
            self._say_erased(positions, out)
        nodes, counters = self.nodes.live, self.counters
        for key, before in self.before.items():
            node = nodes[key.encode()]
            assert node is not None
            vanished = node.standing is None and before.standing is not None  # and may lead others since
            if is_leaving(node):
                self.leaving.add(key)
            if ERASED in node.marks or vanished or is_blank(node):
                self._take_back(node, before, out)
                continue
            now = _look(node)
            counters.largest_block = max(counters.largest_block, now.members)
            shelve(node, self.shelves, self.apart)
            if node.lead is not None:
                node.lead.block.forget()  # the tables keep what there is room for
            if now != before:
                self._count(before, now)
                if self.settling is None:
                    self._publish(node, before, now, out)
        self.before.clear()
        self.news.clear()
        if self.gone:
            self._say_no_more(out)
        if self.sweep is not None:
            self._sweep(out)

    # ------------------------------------------------------------------------------------------------------- rounds
    def _round(self, out: Outbox) -> None:
        """Each node that has messages takes its turn."""
        turn, self.inbox = self.inbox, {}
        for to, message in self.twins:
            self._send(to, message, turn, out)
        self.twins.clear()
        rows = {key: key.encode() for key in turn}
        nodes = self.nodes.load(rows.values())
        self._fetch(turn, [node for row in rows.values() if (node := nodes[row]) is not None])
        gone = [key for key, row in rows.items() if _is_gone(nodes[row]) and all(map(let_go, turn[key]))]
        for key in gone:  # whoever is not there has nothing to let go of
            del turn[key], rows[key]
        self.nodes.touch(rows.values())  # before the first of them changes: what is raised on the way undoes all
        inbox, before, counters, rules = self.inbox, self.before, self.counters, self.rules
        here, partitions, loop, send = self.partition, self.partitions, self.loop, out.send
        for key, row in rows.items():
            node = nodes[row]
            if node is None:
                node = nodes[row] = Node(key)
            if key not in before:
                before[key] = _look(node)
            sends, events, novel, largest = step(node, turn.pop(key), rules)
            counters.novel += novel
            if largest >= WIDE:
                self._warn(largest)
            if largest > counters.largest_component:
                counters.largest_component = largest
            for event in events:
                if type(event) is Assigned:
                    change = self.news[key][0] if event.change == "detail" and key in self.news else event.change
                    self.news[key] = change, event.cause
                elif type(event) is not StatusChanged:
                    self._tell(event, out)
            for to, message in sends:
                if to in turn:
                    turn[to].append(message)
                    counters.local += 1
                    continue
                partition = partition_of(to.encode(), partitions)
                if partition == here:
                    inbox.setdefault(to, []).append(message)
                    counters.local += 1
                    continue
                if self.settling is not None:
                    self.settling.sent = True
                for probing in self.probes.values():
                    probing.settling.sent = True
                for data in encoded(message, self.piece_bytes):
                    send(loop, to.encode(), data, partition)
                    counters.remote += 1

    def _send(self, to: str, message: Message, turn: dict[str, list[Message]], out: Outbox) -> None:
        partition = partition_of(to.encode(), self.partitions)
        if partition == self.partition:
            turn.setdefault(to, []).append(message)
            return
        for probing in self.probes.values():
            probing.settling.sent = True
        for data in encoded(message, self.piece_bytes):
            out.send(self.loop, to.encode(), data, partition)
            self.counters.remote += 1

    def _fetch(self, turn: Mapping[str, Sequence[Message]], nodes: Iterable[Node]) -> None:
        """Rows of large nodes that their messages are about: one multi-get for all of them."""
        neighbours: list[bytes] = []
        members: list[bytes] = []
        for node in nodes:
            if node.neighbours is not None and isinstance(of := node.neighbours.of, Shelf):
                neighbours += [of.row(m.subject) for m in turn[node.key] if type(m) is Touch]
            if node.lead is not None and isinstance(told := node.lead.told, Shelf):
                gathers = [m for m in turn[node.key] if type(m) is Gather]
                members += [told.row(evidence.node) for m in gathers for evidence in m.members]
        if neighbours:
            self.shelves.near.load(neighbours)
        if members:
            self.shelves.evidence.load(members)
            self.shelves.told.load(members)

    def _warn(self, nodes: int) -> None:
        self.counters.wide += 1
        if nodes >= 2 * self.counters.largest_component or self.counters.largest_component < WIDE:
            log.warning(
                "%s: %d nodes are connected, of which over %d would be quarantined: look for a value that many share"
                " (`c360 identity stats`)", self.agent, nodes, self.rules.cap,
            )  # fmt: skip

    # ---------------------------------------------------------------------------------------------------- publishing
    def _count(self, before: _Before, now: _Before) -> None:
        totals = self.totals
        for sign, state in ((-1, before), (1, now)):
            if state.status != OK:
                totals[state.status] += sign
            totals["members"] += sign * state.members
            totals["live"] += sign * state.live
            if state.standing is not None:
                for _, reason in state.standing.deferred:
                    totals[f"deferred {reason.partition(':')[0]}"] += sign
        if not all(totals.values()):
            self.totals = Counter({name: count for name, count in totals.items() if count})

    def _take_back(self, node: Node, before: _Before, out: Outbox) -> None:
        """Of a node that is erased, or is not there any more, nothing is published."""
        if before.standing is not None:
            out.send(self.assignments, node.key.encode(), None, self.partition)
        node.standing = node.assigned_by = None
        self._remember(node.key, None)
        blank = is_blank(node)
        if not blank:  # others of its block live: as long as they do, it leads them, or knows who does
            shelve(node, self.shelves, self.apart)
            if node.lead is not None:
                node.lead.block.forget()
        if (now := _look(node)) != before:
            self._count(before, now)
        if blank:
            self.nodes.delete(node.key.encode())

    def _publish(self, node: Node, before: _Before, now: _Before, out: Outbox) -> None:
        if now.status != before.status:
            said = IdentityChange(change="status", subject=shown(node.key), status=now.status)
            out.send(self.changes, shown(node.key).encode(), encode(said))
        if node.standing is None or node.standing == before.standing:
            return
        if self.sweep is not None and self.sweep[0] == "nodes" and node.key >= self.sweep[1]:
            return  # the sweep comes by
        was = before.standing
        change, cause = self.news[node.key]
        if was is None:
            change = "created"
        elif was.profile == node.standing.profile:
            change = "detail"
        self._assign(node, change, was.profile if was else None, cause, out)
        deferred = _refused(node.standing)
        if deferred and deferred != _refused(was):
            self.counters.conflicts += 1
            said = IdentityChange(change="conflict", subject=node.key, deferred=deferred, cause=self._hidden(cause))
            out.send(self.changes, node.standing.profile.encode(), encode(said))
        if self.sweep is not None:
            self.sent.delete(node.key.encode())

    def _hidden(self, cause: str) -> str:
        """Of an app that erases: a fact names whom it is about, and what it has brought about may outlive them."""
        return self.watch.suppression.hide(cause) if self.watch is not None and "|" in cause else cause

    def _assign(self, node: Node, change: str, was: str | None, cause: str, out: Outbox, *, told: bool = True) -> None:
        """`told`: whether the change is one for the world, too."""
        standing = node.standing
        assert standing is not None
        cause = self._hidden(cause)
        if self.watch is not None and change != "created":
            was = self._of_before(node.key, was, standing.profile)
        said = Assignment(
            seq=node.seq + (self.life << LIFE),
            profile=standing.profile,
            identifiers=_identifiers(standing),
            deferred=_deferred(standing),
            was=was,
            change=change,
            cause=cause,
        )
        out.send(self.assignments, node.key.encode(), encode(said), self.partition)
        self.counters.assignments += 1
        if told:
            event = IdentityChange(change=change, subject=node.key, was=was, cause=cause)
            out.send(self.changes, standing.profile.encode(), encode(event))

    def _of_before(self, subject: str, was: str | None, profile: str) -> str | None:
        """The profile that it was of before, as its assignment may say: none that is erased. That one is remembered."""
        assert self.watch is not None
        if was is None or was == profile:
            self._remember(subject, None)
            return was
        if self.watch.suppression and (said := self.watch.suppression.look(was)) is not None and said.stands:
            was = None
        self._remember(subject, was)
        return was

    def _remember(self, subject: str, was: str | None) -> None:
        """What the assignment of a subject names beside its profile."""
        if self.watch is None or (before := self.was.get(subject.encode())) == was:
            return
        if before is not None:
            self.was.delete(subject.encode())
            self.left.delete(_by_profile(before, subject))
        if was is not None:
            self.was.put(subject.encode(), was)
            self.left.put(_by_profile(was, subject), subject)

    def _say_no_more(self, out: Outbox) -> None:
        """That somebody was of a profile which is erased: their assignments come again, without it."""
        gone, self.gone = sorted(self.gone), set()
        for profile in gone:
            start = _by_profile(profile, "")
            subjects = [subject for _, subject in self.left.scan(start, after(start))]
            rows = {subject: subject.encode() for subject in subjects}
            nodes = self.nodes.load(rows.values())
            for subject, row in rows.items():
                node = nodes[row]
                self._remember(subject, None)
                if node is not None and node.standing is not None:
                    self.nodes.touch((row,))
                    node.seq += 1
                    self._assign(node, "detail", node.standing.profile, "erased", out, told=False)

    # ----------------------------------------------------------------------------------------------- after a reset
    def _come_to_rest(self, settling: Settling, out: Outbox) -> None:
        """Take part in the rounds, and begin to publish after the last."""
        if settling.over(self.partitions):
            self.settling, self.sweep = None, ("nodes", "")
        elif (said := settling.next(self.partitions)) is not None:
            for partition in range(self.partitions):
                out.send(self.loop, b"", encode_probe(said), partition)

    def _sweep(self, out: Outbox) -> None:
        """Caught up: publish every subject, and then take back those that are no more; some per commit."""
        assert self.sweep is not None
        table, start = self.sweep
        if table == "nodes":
            found = list(islice(self.nodes.scan(start.encode()), SWEPT_PER_COMMIT))
            self.sent.load([row for row, _ in found])
            for row, node in found:
                if node.standing is not None:
                    self._say_again(row, node, out)
            last = found[-1][0] if len(found) == SWEPT_PER_COMMIT else None
            self.sweep = ("nodes", last.decode() + "\x00") if last is not None else ("sent", "")
            return
        gone = [row for row, _ in islice(self.sent.scan(start.encode()), SWEPT_PER_COMMIT)]
        for row in gone:
            out.send(self.assignments, row, None, self.partition)
            self.sent.delete(row)
        self.sweep = ("sent", gone[-1].decode() + "\x00") if len(gone) == SWEPT_PER_COMMIT else None

    def _say_again(self, row: bytes, node: Node, out: Outbox) -> None:
        assert node.standing is not None
        sent = self.sent.live[row]
        if sent is None:
            self._assign(node, "created", None, "reset", out)
            return
        same = sent.profile == node.standing.profile
        change, was = ("detail", sent.was) if same else ("moved", sent.profile)
        self._assign(node, change, was, "reset", out, told=not same)
        self.sent.delete(row)


def _by_profile(profile: str, subject: str) -> bytes:
    return f"{profile}\0{subject}".encode()


def _is_gone(node: Node | None) -> bool:
    """Whether it is not there, or will not be after the commit."""
    return node is None or (node.home == node.key and is_blank(node))


def _message(key: bytes | None, value: bytes) -> tuple[str, Message]:
    try:
        if not key:
            raise ValueError("it is to no node")
        return key.decode(), decode_message(value)
    except (ValueError, msgspec.MsgspecError) as error:
        raise Misfit("no-message", "this is no message between nodes: only identity writes to its loop") from error


# ------------------------------------------------------------------------------------------------------------- agent
class IdentityAgent(Copartitioned):
    """The agent of one version of one rule set."""

    def __init__(
        self,
        plan: Plan,
        identity: Identity,
        suppression: Suppression | None = None,
        *,
        apart: int = APART,
        piece_bytes: int = PIECE_BYTES,
    ) -> None:
        """`suppression`: of an app that erases."""
        self.suppression = suppression
        self.plan, self.identity, self.apart, self.piece_bytes = plan, identity, apart, piece_bytes
        planned = plan.agent(identity.agent)
        self.name, self.group, self.fingerprint = planned.name, planned.group, planned.fingerprint
        (self.lead,), self.reads, (self.log,) = planned.lead, planned.reads, planned.changelogs
        self.loops: Sequence[str] = (plan.loop(identity),)
        self.counters = IdentityCounters()

    def processor(self, task: Task) -> Processor:
        return IdentityTask(
            self.plan,
            self.identity,
            task,
            self.counters,
            apart=self.apart,
            piece_bytes=self.piece_bytes,
            suppression=self.suppression,
        )
