"""erasure: forgets customers. One task, led by the one partition of the fence, as all requests meet in what they suppress.

What has to happen in what order is decided in `c360.governance.erasure`. Here records become its events, and its commands
records, all in one transaction; books are rows of tables. In `finish`, in numbered steps:

1. once after a start, and when what there is has changed: say who there is, and ask again for all that is not answered
2. the events of this transaction, in one step
3. keys that are to be destroyed, once the process's copy of them holds all that was there when it was asked for: what govern
   has written before it passed the suppression. What comes of it is the next step's

Whether identity rests is found by a probe that goes through the loop of each of its tasks (`agents.identity`): it begins when
a task has read its facts up to a mark that is written with the question, behind all that govern had said when it passed.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import msgspec

from c360.agents.anew import OUTPUT, Anew
from c360.agents.asked import About, AskedReader
from c360.agents.audit import Chain
from c360.agents.fencing import statement
from c360.agents.suppression import Suppression
from c360.agents.wire import misfit_in
from c360.codecs.json import Choice, JsonDecoder
from c360.engine.agent import Outbox, Processor, Task
from c360.engine.partition import partition_of
from c360.engine.teller import Telling
from c360.engine.transport import TP, Admin, Batch
from c360.errors import Misfit, Stale, TaskMigrated
from c360.governance.audit import Entry
from c360.governance.certificate import Promise, encode_certificate
from c360.governance.erasure import (
    Books,
    Erasure,
    Known,
    decode_erasure,
    decode_known,
    encode_erasure,
    encode_known,
    step,
)
from c360.governance.keys import life_of, read_record_key, tombstone
from c360.governance.messages import (
    Certify,
    Command,
    Deployed,
    Erase,
    Event,
    Lift,
    Mark,
    Out,
    Requested,
    Settle,
    Shred,
    Shredded,
    Suppress,
    Tick,
    decode_found,
    decode_passed,
    decode_receipt,
    encode_erase,
)
from c360.governance.names import Names
from c360.governance.suppressed import Suppressed, decode_suppressed, encode_suppressed
from c360.identity.messages import Mark as Marking
from c360.identity.messages import Probe, encode_message, encode_probe, probe_mark
from c360.plan import DAY, Identity, Plan, PlannedTopic
from c360.rights import Asked
from c360.tables.table import Table

KNOWN, ERASURES, SUPPRESSED = b"k", b"e", b"s"
TICK_MS = 60_000  # what is not answered for so long is asked for again
LOOK_MS = 5_000  # between two looks at which topics there are
UNSEEN = 1_000  # offsets by which a govern task may have come further than is known here
PADDING = b"-"  # key of deletions of nothing
NO_BOUND = 1 << 62  # and above: settings that mean never
V = TypeVar("V")


class Ordered(msgspec.Struct, frozen=True, omit_defaults=True):
    """What `c360 erase` asks for: to forget an identifier, or to lift the suppression of a request."""

    identifier: str = ""
    lift: str | None = None
    reason: str = ""
    who: str = ""
    ticket: str = ""  # of the run of a command that says so: by it the command finds what the log made of it


encode_command = msgspec.json.Encoder().encode
decode_command = msgspec.json.Decoder(Ordered).decode


class _Rows(MutableMapping[str, V], Generic[V]):
    """A table as a mapping. What is changed in place is set again before."""

    def __init__(self, table: Table[V]) -> None:
        self.table = table

    def get(self, key: str, default: Any = None) -> Any:
        found = self.table.get(key.encode())
        return default if found is None else found

    def __getitem__(self, key: str) -> V:
        found = self.table.get(key.encode())
        if found is None:
            raise KeyError(key)
        return found

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self.table.get(key.encode()) is not None

    def __setitem__(self, key: str, value: V) -> None:
        self.table.put(key.encode(), value)

    def __delitem__(self, key: str) -> None:
        self.table.delete(key.encode())

    def __iter__(self) -> Iterator[str]:
        return iter([key.decode() for key, _ in self.table.scan()])

    def __len__(self) -> int:
        return sum(1 for _ in self.table.scan())


# ------------------------------------------------------------------------------------------------------------- asked
class RequestReader:
    """Compiled for one raw topic of requests: its records, and whom each is about."""

    def __init__(self, plan: Plan, asked: Asked, names: Names) -> None:
        self.decoder = JsonDecoder([Choice(asked.record, asked.when)], asked.unmatched)
        self.about = AskedReader(plan, asked, names).about


# -------------------------------------------------------------------------------------------------------------- task
@dataclass
class ErasureCounters:
    """In this process, for metrics; work that was aborted counts again."""

    requested: int = 0
    proven: int = 0
    lifted: int = 0
    keys: int = 0  # destroyed
    misfits: int = 0
    open: int = 0  # requests that wait for something, now


class ErasureTask:
    """The one task."""

    def __init__(self, agent: ErasureAgent, task: Task) -> None:
        self.agent, self.plan, self.inputs = agent, agent.plan, task.inputs
        self.suppression, self.counters = agent.suppression, agent.counters
        self.readers = agent.readers
        personal = {namespace.name for namespace in self.plan.identifiers.values() if namespace.personal}
        self.chain = Chain(self.plan.app, self.plan.audit, "erasure/0", personal=personal, random=agent.random)
        self.known: Table[Known] = Table(KNOWN, encode_known, decode_known)
        self.erasures: Table[Erasure] = Table(ERASURES, encode_erasure, decode_erasure)
        self.suppressed: Table[Suppressed] = Table(SUPPRESSED, encode_suppressed, decode_suppressed)
        self.tables = (self.known, self.erasures, self.suppressed)
        self.events: list[Event] = []
        self.shreds: deque[tuple[Shred, Mapping[TP, int]]] = deque()  # with where the keys ended when it was asked
        self.anew = Anew(lambda: agent.output)
        self.greeted = self.begun = False
        self.looked = self.ticked = 0

    # --------------------------------------------------------------------------------------------------- processor
    def resume(self, notes: Mapping[str, Any]) -> None:
        self.events.clear()
        self.shreds.clear()  # asked for again, as all that is open
        self.greeted = False
        self.chain.resume(notes)
        self.anew.resume(notes)
        self.agent.whole = self.anew.whole
        if not self.begun:
            self.begun = True
            if self.inputs != self.agent.inputs():
                raise TaskMigrated(
                    f"{self.plan.suppressed} was made anew: its task is made anew, without it or with it"
                )

    def notes(self) -> dict[str, Any]:
        return self.chain.notes() | self.anew.notes()

    def wants(self, now_ms: int) -> bool:
        self.agent.whole = self.anew.whole  # nothing is begun and not committed when this is asked
        return not self.greeted or self.anew.due or bool(self.shreds) or now_ms - self.looked >= LOOK_MS

    def settle(self, out: Outbox) -> None:
        """There is one task."""

    def process(self, batch: Batch, out: Outbox) -> None:
        plan, topic = self.plan, batch.tp.topic
        if (reader := self.readers.get(topic)) is not None:
            self._asked(reader, batch, out)
            return
        read = {
            plan.erasure_commands: self._command, plan.suppressed: _out, plan.found: _found, plan.receipts: _receipt,
            plan.passed: _passed,
        }[topic]  # fmt: skip
        for i, (key, value) in enumerate(zip(batch.keys, batch.values, strict=True)):
            if value is None or (key is None and topic != plan.erasure_commands):
                continue
            try:
                self.events.append(read(batch, i, key or b"", value))
            except Misfit as misfit:
                self._put_aside(batch, i, misfit, out)

    def _asked(self, reader: RequestReader, batch: Batch, out: Outbox) -> None:
        for i, record in enumerate(reader.decoder.decode(batch.values)):
            if record is None:
                continue
            labels, misfit = About((), record) if isinstance(record, Misfit) else reader.about(record, batch.keys[i])
            if misfit is not None:  # who else is named, is forgotten
                self._put_aside(batch, i, misfit, out)
            for number, label in enumerate(labels):
                self._request(_name(batch, i, number), label)

    def _request(self, request: str, label: str) -> None:
        self.events.append(self._requested(request, label))

    def _requested(self, request: str, label: str) -> Requested:
        self.counters.requested += 1
        return Requested(request, label, label.partition(":")[0] in self.plan.subject_kinds)

    def _command(self, batch: Batch, i: int, key: bytes, value: bytes) -> Event:
        try:
            said = decode_command(value)
        except msgspec.DecodeError as error:
            raise Misfit("no-command", "this is no command of erasure: `c360 erase` writes what is") from error
        if said.lift is not None:
            self.counters.lifted += 1
            return Lift(said.lift)
        if not said.identifier.partition(":")[2]:
            raise Misfit("no-command", "a command of erasure names no identifier namespace:value")
        return self._requested(_name(batch, i), said.identifier)

    def divert(self, batch: Batch, error: BaseException, out: Outbox) -> None:
        self._put_aside(batch, 0, error, out)

    def _put_aside(self, batch: Batch, i: int, error: BaseException, out: Outbox) -> None:
        """Without what it says of people: where it lies is enough to look at it."""
        bare = Batch(batch.tp, [batch.offsets[i]], [None], [None], [batch.times[i]], lambda _: [])
        out.send(self.plan.dlq, None, misfit_in("erasure", bare, 0, error))
        self.counters.misfits += 1

    # ------------------------------------------------------------------------------------------------------ finish
    def finish(self, positions: Mapping[TP, int], now_ms: int, out: Outbox) -> None:
        events, self.events = self.events, []
        for event in events:
            self._tell_asked(event, now_ms, out)
        if not self.greeted or now_ms - self.looked >= LOOK_MS:
            events += self._look(now_ms)
        self._step(events, now_ms, out)
        while (shredded := self._shred(out)) is not None:
            self._step([shredded], now_ms, out)
        if self.anew.due:
            self._write_again(out)

    def _write_again(self, out: Outbox) -> None:
        """Who is suppressed, to a topic that was made anew.

        Behind where the old one ended, by deletions of nothing: what govern tasks have said of how far they had passed that one
        must not count for what comes into this one.
        """
        topic, partitions = self.plan.suppressed, self.plan.partitions
        if self.anew.whole and not self.anew.begun:
            before = self._ended()
            for (_, partition), end in self.agent.ends([TP(topic, p) for p in range(partitions)]).items():
                for _ in range(before[partition] - end):
                    out.send(topic, PADDING, None, partition)
        for key, said in self.anew.portion(self.suppressed):
            out.send(topic, key, encode_suppressed(said), partition_of(key, partitions))

    def _ended(self) -> list[int]:
        """Where the partitions of the old topic ended at the latest."""
        found = [0] * self.plan.partitions
        for passed in self._known().passed.values():
            for partition, offset in passed.items():
                found[int(partition)] = max(found[int(partition)], offset)
        for _, erasure in self.erasures.scan():
            for node in erasure.nodes.values():
                if node.out is not None:
                    found[node.out[0]] = max(found[node.out[0]], node.out[1])
        return [end + UNSEEN if end else 0 for end in found]

    def _tell_asked(self, event: Event, now_ms: int, out: Outbox) -> None:
        """Who asked by a topic is told here; by a command, that has told it."""
        if isinstance(event, Requested) and not event.request.startswith(f"{self.plan.erasure_commands}/"):
            self._tell(event.request, event.identifier, now_ms, out, {"stage": "intended"})

    def _tell(self, request: str, label: str, now_ms: int, out: Outbox, said: dict[str, str]) -> None:
        """In the audit log, which is kept for ever: by its hash."""
        about = (self.suppression.veil(label),)
        entry = Entry(
            who=self.agent.name, what="erase", at=now_ms, reason="", about=about, after={**said, "request": request}
        )
        self.chain.add(entry, out)

    def _look(self, now_ms: int) -> list[Event]:
        """Who there is, if it is not as the books have it, or after a start; and the question again, when its time has come."""
        self.looked = now_ms
        found = self.agent.deployed()
        if self.agent.inputs() != self.inputs:
            raise TaskMigrated("topics of requests have appeared or grown: its task is made anew, with them")
        known = self._known()
        same = (found.govern, found.views, found.agents, found.topics) == (
            known.govern, known.views, known.agents, known.topics,
        )  # fmt: skip
        events: list[Event] = [] if same else [found]
        if not self.greeted or now_ms - self.ticked >= TICK_MS:
            self.ticked = now_ms
            events += [Tick()] if known.open else []
        self.greeted = True
        return events

    def _known(self) -> Known:
        found = self.known.get(b"")
        return Known() if found is None else found

    def _step(self, events: Sequence[Event], now_ms: int, out: Outbox) -> None:
        if not events:
            return
        known = self._known()
        self.known.put(b"", known)
        books = Books(known, _Rows(self.erasures), _Rows(self.suppressed), self.suppression.veil)
        for command in step(books, events, now_ms):
            self._obey(command, out)
            if isinstance(command, Certify):
                proven = command.certificate
                keys = sum(len(subject.keys) for subject in proven.subjects)
                said = {"stage": "done", "subjects": str(len(proven.subjects)), "keys": str(keys)}
                self._tell(proven.request, proven.identifier, now_ms, out, said)
        self.counters.open = len(known.open)

    def _obey(self, command: Command, out: Outbox) -> None:
        plan, n = self.plan, self.plan.partitions
        match command:
            case Suppress(veiled, said):
                key = veiled.encode()
                out.send(plan.suppressed, key, encode_suppressed(said), partition_of(key, n))
            case Mark(view, identifier, request, on):
                key = identifier.encode()
                loop = plan.loop(self.agent.views[view])
                out.send(loop, key, encode_message(Marking(request, on)), partition_of(key, n))
            case Settle(request, view, probe):
                erasure = self.erasures.get(request.encode())
                if erasure is not None and not erasure.unmarked:  # it may have been reset since it was marked
                    self._obey(Mark(view, erasure.identifier, request), out)
                name = (
                    f"{request}#{probe}.{self.agent.random(4).hex()}"  # asked again, it is another: answers do not mix
                )
                asked = Probe(name, request, view, probe)
                identity = self.agent.views[view]
                loop, links = plan.loop(identity), plan.at(identity.govern).links
                for partition in range(n):
                    out.send(links, probe_mark(asked), None, partition)
                    out.send(loop, b"", encode_probe(asked), partition)
            case Shred(_, subject, _, _):
                place = TP(plan.keys, partition_of(subject.encode(), n))
                self.shreds.append((command, self.agent.ends([place])))
            case Erase():
                key, value = encode_erase(command)
                out.send(plan.erase, key, value, partition_of(key, n))
            case Certify(certificate):
                out.send(plan.erasures, certificate.request.encode(), encode_certificate(certificate), 0)
                self.counters.proven += 1

    def _shred(self, out: Outbox) -> Shredded | None:
        """Destroy the keys of the next subject, if all are known that were there when it was asked for."""
        if not self.shreds:
            return None
        shred, ends = self.shreds[0]
        table, topic = self.suppression.table, self.plan.keys
        reached = table.reached()
        if not all(reached.get(tp, -1) >= end for tp, end in ends.items()):
            return None
        try:
            found = list(table.scan(f"{shred.subject}\0".encode(), topic))
        except Stale:
            return None
        self.shreds.popleft()
        destroyed = []
        for key, value in found:
            _, name = read_record_key(key)
            if life_of(value) < shred.life:
                gone = tombstone(shred.subject, name)
                out.send(topic, gone.key, None, partition_of(shred.subject.encode(), self.plan.partitions))
                destroyed.append(name)
        self.counters.keys += len(destroyed)
        return Shredded(shred.request, shred.subject, shred.round, tuple(destroyed))


def _name(batch: Batch, i: int, number: int = 0) -> str:
    """A request is named after the record that asks for it; of several in one, the others have a number."""
    name = f"{batch.tp.topic}/{batch.tp.partition}/{batch.offsets[i]}"
    return f"{name}/{number}" if number else name


def _out(batch: Batch, i: int, key: bytes, value: bytes) -> Event:
    return Out(key.decode(), batch.tp.partition, batch.offsets[i], decode_suppressed(value))


def _found(batch: Batch, i: int, key: bytes, value: bytes) -> Event:
    return decode_found(key, value)


def _receipt(batch: Batch, i: int, key: bytes, value: bytes) -> Event:
    return decode_receipt(key, value)


def _passed(batch: Batch, i: int, key: bytes, value: bytes) -> Event:
    return decode_passed(key, value)


# ------------------------------------------------------------------------------------------------------------- agent
def govern_tasks(plan: Plan, topics: Mapping[str, int]) -> list[str]:
    """Of all versions of govern that are declared."""
    return [
        view.govern_task(s.topic, p) for view in plan.views for s in plan.sources for p in range(topics.get(s.topic, 0))
    ]


def answering(plan: Plan, topics: Mapping[str, int]) -> list[str]:
    """All that hold customers, and give receipts."""
    found = [f"govern:{task}" for task in govern_tasks(plan, topics)]
    found += [identity.agent for identity in plan.identities]
    found += [projection.agent for projection in plan.projections]
    found += [door.agent for door in plan.doors]
    found += [outside.agent for outside in plan.outsides]
    return [*found, "consent"] if plan.asks else found


def promise(topic: PlannedTopic, config: Mapping[str, str]) -> Promise:
    """Of a topic's settings as the broker has them; of what it does not say, as we ask for them."""
    if not topic.owned:
        return Promise("user", _ms(config.get("retention.ms", "-1")))
    said = {**topic.config, **config}
    if said.get("cleanup.policy") == "compact":
        return Promise("compact", _ms(said.get("max.compaction.lag.ms", "-1")))
    kept = _ms(said.get("retention.ms", "-1"))
    # A segment goes whole, when its newest record is that old; its oldest is then older by what a segment may span.
    return Promise("delete", kept if kept < 0 else kept + _ms(said.get("segment.ms", str(7 * DAY))))


def _ms(text: str) -> int:
    number = int(text)
    return -1 if number >= NO_BOUND else number


class ErasureAgent:
    """The agent. `admin`: to see which topics there are, and what they promise. `idle`: whether an agent is of a version that
    was never built, or is retired."""

    loops: Sequence[str] = ()

    def __init__(
        self,
        plan: Plan,
        admin: Admin,
        suppression: Suppression,
        names: Names,
        idle: Callable[[str], bool] | None = None,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self.plan, self.admin, self.suppression = plan, admin, suppression
        self.idle = idle or (lambda agent: False)
        self.ends, self.random = suppression.ends, random
        planned = plan.agent("erasure")
        self.name, self.group, self.fingerprint = planned.name, planned.group, planned.fingerprint
        (self.log,) = planned.changelogs
        self.reads = planned.reads
        self.readers = {s.asked.topic: RequestReader(plan, s.asked, names) for s in plan.erasures_said}
        self.views: Mapping[str, Identity] = {identity.agent: identity for identity in plan.identities}
        self.counters = ErasureCounters()
        self.output = ""  # id of the suppressed table's topic, as it was seen last
        self.whole = ""  # of the topic that holds all who are suppressed, as its task has it committed; "": not known

    def lead_topics(self) -> Sequence[str]:
        return (self.plan.fence,)

    def inputs(self) -> tuple[TP, ...]:
        """All partitions of all that there is to read.

        The suppressed table not while it has to be written again: then it is a topic of which nothing was read yet.
        """
        topics = self.admin.topics()
        read = [t for t in self.reads if t != self.plan.suppressed or self.is_whole()]
        return tuple(TP(t, p) for t in read for p in range(topics.get(t, 0)))

    def is_whole(self) -> bool:
        self.output = self.admin.topic_ids([self.plan.suppressed]).get(self.plan.suppressed, "")
        return self.whole in ("", self.output)

    def task(self, lead: TP) -> Task:
        return Task(lead, self.inputs())

    def deployed(self) -> Deployed:
        """Who there is, as it is now."""
        topics = self.admin.topics()
        planned = {topic.name: topic for topic in self.plan.topics if topic.name in topics}
        configs = self.admin.topic_configs(sorted(planned))
        return Deployed(
            tuple(govern_tasks(self.plan, topics)),
            tuple(self.views),
            tuple(agent for agent in answering(self.plan, topics) if not self._is_empty(agent)),
            {name: promise(topic, configs.get(name, {})) for name, topic in planned.items()},
        )

    def _is_empty(self, agent: str) -> bool:
        """Whether nobody runs it and it holds nobody: its version was never built, or is retired and gone.

        What a retirement has left that was killed, or somebody who ran a version by hand, holds customers.
        """
        if not self.idle(agent):
            return False
        topics = self.admin.topics()
        logs = [TP(log, p) for log in self.plan.agent(agent).changelogs for p in range(topics.get(log, 0))]
        return not any(self.ends(logs).values())

    def telling(self) -> Telling:
        """How far it has read what is asked, said on the fence: for doors, who must know who is suppressed."""
        topics = (*(s.asked.topic for s in self.plan.erasures_said), self.plan.erasure_commands)
        return Telling(
            topic=self.plan.fence,
            inputs=frozenset(topics),
            outputs=self.suppression.partitions,
            encode=statement,
            note=OUTPUT,
        )

    def changelog(self, lead: TP) -> TP:
        return TP(self.log, 0)

    def store_name(self, lead: TP) -> str:
        return f"{self.group}/0"

    def processor(self, task: Task) -> Processor:
        return ErasureTask(self, task)
