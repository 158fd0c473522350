"""consent: what people decide, in whatever form it comes, as the newest decisions of each identifier in `{app}.consent`.

One task reads every partition of every raw topic of decisions, since decisions on one identifier may lie in any of them and
compaction keeps the last record, not the join. Order and repeats carry no meaning (`c360.governance.consent`), so an
identifier is written only when something about it is news, once per commit.

How far it is, is told beside it by `engine.teller`: that is the fence that doors wait for.
"""

from __future__ import annotations

import logging
import struct
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from c360.agents.anew import OUTPUT, Anew
from c360.agents.asked import AskedReader, is_personal
from c360.agents.fencing import statement
from c360.agents.sealing import SealedValue, TaskKeys
from c360.agents.suppression import Suppression, Watch
from c360.agents.wire import (
    ORIGIN,
    RAW,
    SEALED,
    TIME,
    decode_consent_command,
    decode_enclosed,
    decode_json,
    is_unread,
    misfit_record,
    original_of,
)
from c360.codecs.json import Choice, JsonDecoder
from c360.codecs.record import Record, fields_of
from c360.engine.agent import AnyTable, Outbox, Processor, Task
from c360.engine.partition import partition_of
from c360.engine.teller import Telling
from c360.engine.transport import TP, Batch
from c360.errors import Misfit, NeedsOperator
from c360.governance import inputs
from c360.governance.consent import Decision, State, decode_state, encode_state, join
from c360.governance.messages import Receipt, decode_erase, encode_receipt
from c360.governance.names import Names, Vault
from c360.governance.suppressed import Suppressed
from c360.plan import Plan
from c360.rights import PREFERENCES, TC_STRING, ConsentSource
from c360.tables.table import Table

log = logging.getLogger("c360.agents")

CONSENTS = b"c"
OPERATOR = "operator"  # the source of decisions that `c360 consent set` says
PLAIN = ("purpose", "status", "granted", "at", "expires_at")
AGENT = "consent"
NOBODY: Mapping[str, Life | None] = {}  # was ever erased
NOW = 0xFFFFFFFF  # instead of a life: the one that it is in, whichever that is, as a reset does not know
TOPICS = "topics"  # among the notes: ids of the raw topics
_LIFE = struct.Struct(">I")


class Life(NamedTuple):
    """The life that an identifier is in, and when it began: epoch ms of the lift. What was said before is void."""

    number: int
    since: int


BORN = Life(0, 0)


def _life(said: Suppressed) -> Life | None:
    """None: it is suppressed."""
    return None if said.stands else Life(said.life, max((hold.lifted for hold in said.holds.values()), default=0))


class Held(msgspec.Struct, gc=False):
    """What is known of an identifier, in this life of it: how often it had been erased, or NOW."""

    life: int
    state: State


def encode_held(held: Held) -> bytes:
    return _LIFE.pack(held.life) + (encode_state(held.state) or b"")


def decode_held(data: bytes) -> Held:
    """Raises NeedsOperator where another version wrote it."""
    return Held(_LIFE.unpack_from(data)[0], decode_state(data[_LIFE.size :]))


@dataclass
class ConsentCounters:
    """What became of decisions in this process, for metrics; work that was aborted counts again."""

    decisions: Counter[tuple[str, str]] = field(default_factory=Counter)  # by purpose and status
    unchanged: int = 0  # decisions that told nothing new
    conflicts: Counter[str] = field(default_factory=Counter)  # by purpose: a grant met a refusal of the same instant
    dropped: int = 0  # decisions on identifiers that are suppressed
    written: int = 0
    erased: int = 0
    ignored: int = 0  # records that say nothing
    misfits: Counter[tuple[str, str]] = field(default_factory=Counter)  # by source and reason


# ------------------------------------------------------------------------------------------------------------- reading
class Read(NamedTuple):
    """What a record says: decisions that count, and what is wrong with the rest of it."""

    decisions: tuple[Decision, ...] = ()
    misfit: Misfit | None = None


NOTHING = Read()


class SourceReader:
    """Compiled for one raw topic of decisions. What is wrong with one record is part of the answer."""

    def __init__(self, plan: Plan, source: ConsentSource, names: Names) -> None:
        asked = source.asked
        self.source, self.name, self.purposes = source, asked.name, plan.purposes
        self.decoder = JsonDecoder([Choice(asked.record, asked.when)], asked.unmatched)
        self.asked = AskedReader(plan, asked, names)
        self.personal = is_personal(plan, asked)
        fields = {info.name for info in fields_of(asked.record)}
        self.plain = [name for name in PLAIN if name in fields]
        self.timed = "at" in fields
        self._decide = {"plain": self._plain, "segment": self._segment, "tcf": self._tcf}[source.form]

    def read(self, batch: Batch) -> list[Read | None]:
        """By record; None: it is to be left out, by `unmatched="ignore"`."""
        return [
            None if record is None else self._read(record, key, time)
            for record, key, time in zip(self.decoder.decode(batch.values), batch.keys, batch.times, strict=True)
        ]

    def _read(self, record: Record | Misfit, key: bytes | None, time: int) -> Read:
        if isinstance(record, Misfit):
            return Read((), record)
        labels, wrong = self.asked.about(record, key)
        try:
            decisions, misfit = self._decide(record, labels, time, appended_of(time))
        except Misfit as error:
            # Whom it is about comes first: without, nothing else can be put right.
            return Read((), error if labels or wrong is None else wrong)
        if not decisions and misfit is None:
            return NOTHING  # whom it is about, does not matter then
        return Read(decisions, wrong or misfit)

    def _plain(self, record: Record, labels: Sequence[str], time: int, appended: int) -> inputs.Mapped:
        said = {name: getattr(record, name) for name in self.plain}
        found = inputs.plain(said, identifiers=labels, purposes=self.purposes, source=self.name, appended=appended)
        return inputs.Mapped(found)

    def _segment(self, record: Record, labels: Sequence[str], time: int, appended: int) -> inputs.Mapped:
        call = {"context": {"consent": {"categoryPreferences": getattr(record, PREFERENCES)}}}
        return inputs.segment(
            call,
            identifiers=labels,
            categories=self.source.categories,
            at=self._at(record, time),
            source=self.name,
            appended=appended,
        )

    def _tcf(self, record: Record, labels: Sequence[str], time: int, appended: int) -> inputs.Mapped:
        text = getattr(record, TC_STRING)
        if text is None:
            return inputs.Mapped()
        if not isinstance(text, str):
            raise Misfit("wrong-type", "the field tc_string of a consent record is no text; send the TC string")
        seen = self._at(record, time)
        found = inputs.tcf(
            text, identifiers=labels, purposes=self.source.tcf, seen=seen, source=self.name, appended=appended
        )
        return inputs.Mapped(found)

    def _at(self, record: Record, time: int) -> int:
        """When it was said: what the record says in a field `at`, else when it was sent."""
        said: datetime | int | None = getattr(record, "at", None) if self.timed else None
        return max(time, 0) if said is None else inputs.time_of(said, "at")


def appended_of(time: int) -> int:
    """When a record was appended, for what is in it; a topic of before Kafka 0.10 has no times."""
    return time if time >= 0 else inputs.MAX_TIME


def read_command(value: bytes | None, plan: Plan, time: int) -> Read:
    """What an operator said."""
    try:
        said = decode_consent_command(value or b"")
    except msgspec.DecodeError:
        return Read((), Misfit("not-consent", "this is no decision as `c360 consent set` writes it"))
    record = {"purpose": said.purpose, "status": said.status, "at": said.at, "expires_at": said.expires_at}
    try:
        return Read(
            inputs.plain(
                record,
                identifiers=(said.identifier,),
                purposes=plan.purposes,
                source=OPERATOR,
                appended=appended_of(time),
            )
        )
    except Misfit as misfit:
        return Read((), misfit)


# ---------------------------------------------------------------------------------------------------------------- task
class ConsentTask:
    """The only one: what is known of all identifiers."""

    def __init__(
        self,
        plan: Plan,
        readers: Mapping[str, SourceReader],
        ids: Mapping[str, str],
        counters: ConsentCounters,
        vault: Vault | None,
        suppression: Suppression | None,
        output: Callable[[], str],
    ) -> None:
        """`readers`, `ids`: by raw topic. `suppression`: of an app that erases. `output`: the id of the output topic, as it was
        seen last; "" while it is gone."""
        self.plan, self.readers, self.ids, self.counters = plan, readers, dict(ids), counters
        self.watch = None if suppression is None else Watch(suppression)
        self.held: Table[Held] = Table(CONSENTS, encode_held, decode_held)
        self.keys = None if vault is None else TaskKeys(plan, vault, TP(plan.consent, 0))
        self.tables: Sequence[AnyTable] = (self.held,) if self.keys is None else (self.held, self.keys.table)
        self.changed: dict[str, None] = {}  # identifiers
        self.anew = Anew(output)

    # --------------------------------------------------------------------------------------------------- processor
    def resume(self, notes: Mapping[str, Any]) -> None:
        self.changed.clear()
        if self.keys is not None:
            self.keys.forget()
        check_same(notes.get(TOPICS, {}), self.ids, self.readers)
        self.anew.resume(notes)

    def notes(self) -> dict[str, Any]:
        return {TOPICS: self.ids, **self.anew.notes()}

    def wants(self, now_ms: int) -> bool:
        return self.anew.due

    def settle(self, out: Outbox) -> None:
        """There is no other task."""

    def process(self, batch: Batch, out: Outbox) -> None:
        topic = batch.tp.topic
        if topic == self.plan.erase:
            self._erase(batch, out)
            return
        reader = self.readers.get(topic)
        if reader is None:
            self._commanded(batch, out)
        else:
            self._take(batch, reader.read(batch), out)

    def _commanded(self, batch: Batch, out: Outbox) -> None:
        """What operators say: decisions, and records that were put aside and are sent back."""
        for i in range(len(batch)):
            one = batch.slice(i, i + 1)
            headers = dict(one.headers(0))
            if RAW not in headers:
                self._take(one, [read_command(one.values[0], self.plan, one.times[0])], out)
                continue
            try:
                raw = self._sent_back(one, headers)
            except (KeyError, ValueError, Misfit):  # none of ours, or what it was sealed with is gone
                self.counters.ignored += 1
                continue
            self._take(raw, self.readers[raw.tp.topic].read(raw), out)

    def _sent_back(self, batch: Batch, headers: Mapping[str, bytes | None]) -> Batch:
        """The raw record of a replay, as it lay in its topic. Raises KeyError, ValueError, Misfit where there is none."""
        topic, _, partition = (headers[RAW] or b"").decode().rpartition("/")
        offset, time = int(headers[ORIGIN] or b""), int(headers[TIME] or b"")
        key, value, said = batch.keys[0], batch.values[0], batch.headers(0)
        if SEALED in headers:
            if self.keys is None:
                raise Misfit("not-sealed", "a replayed record says that it is sealed, in an app that seals nothing")
            key, value, said = original_of(decode_enclosed(self.keys.open_letter(decode_json(value or b""))))
        if topic not in self.readers:
            raise KeyError(topic)
        kept = [(name, data) for name, data in said if name not in (RAW, ORIGIN, TIME)]
        return Batch(TP(topic, int(partition)), [offset], [key], [value], [time], lambda _: kept)

    def _take(self, batch: Batch, found: Sequence[Read | None], out: Outbox) -> None:
        decisions: list[tuple[Decision, int]] = []
        for i, said in enumerate(found):
            if said is None or said == NOTHING:
                self.counters.ignored += 1
                continue
            decisions += [(decision, batch.times[i]) for decision in said.decisions]
            if said.misfit is not None:
                self._misfit(batch, i, said.misfit, out)
        if decisions:
            self._join(decisions)

    def divert(self, batch: Batch, error: BaseException, out: Outbox) -> None:
        self._misfit(batch, 0, error, out)

    def finish(self, positions: Mapping[TP, int], now_ms: int, out: Outbox) -> None:
        """One record for each identifier of which anything is news; a tombstone for one that is erased."""
        send, topic, partitions = out.send, self.plan.consent, self.plan.partitions
        held = self.held.load([identifier.encode() for identifier in self.changed])
        for identifier in self.changed:
            key = identifier.encode()
            known = held[key]
            send(topic, key, None if known is None else encode_state(known.state), partition_of(key, partitions))
        self.counters.written += len(self.changed)
        if self.anew.due:
            self._write_again(out)
        self.changed.clear()

    def _write_again(self, out: Outbox) -> None:
        topic, partitions = self.plan.consent, self.plan.partitions
        for key, known in self.anew.portion(self.held):
            if key.decode() not in self.changed:
                out.send(topic, key, encode_state(known.state), partition_of(key, partitions))

    # --------------------------------------------------------------------------------------------------- decisions
    def _join(self, decisions: Sequence[tuple[Decision, int]]) -> None:
        """With each, when it was appended."""
        identifiers = list({decision.identifier: None for decision, _ in decisions})
        lives = self._lives(identifiers)
        held = self.held.load([identifier.encode() for identifier in identifiers])
        counters = self.counters
        for decision, appended_ms in decisions:
            identifier = decision.identifier
            life = lives.get(identifier, BORN)
            if life is None or 0 <= appended_ms < life.since:  # of a life that is over: in a reset it is read again
                counters.dropped += 1
                continue
            key = identifier.encode()
            known = held[key]
            if known is None or known.life < life.number:  # what was decided in an earlier life is void
                known = Held(life.number, {})
                self.held.put(key, known)
            elif known.life == NOW:
                known.life = life.number
                self.held.touch((key,))
            before = known.state.get(decision.purpose)
            if join(known.state, decision):
                self.held.touch((key,))
                self.changed[identifier] = None
                if known.state[decision.purpose].conflict and not (before is not None and before.conflict):
                    counters.conflicts[decision.purpose] += 1
            else:
                counters.unchanged += 1
            counters.decisions[decision.purpose, decision.status] += 1

    def _misfit(self, batch: Batch, i: int, error: BaseException, out: Outbox) -> None:
        reader, keys = self.readers.get(batch.tp.topic), self.keys
        time, key = batch.times[i], batch.keys[i]
        seal: Callable[[bytes], SealedValue] | None = None
        if keys is not None and (reader is None or reader.personal or is_unread(error)):
            task_keys = keys

            def seal(content: bytes) -> SealedValue:
                return task_keys.seal_letter(time, content, out)

        value = misfit_record(
            AGENT, batch.tp, batch.offsets[i], time, key, batch.values[i], batch.headers(i), error, seal
        )
        out.send(self.plan.dlq, None, value)
        reason = error.reason if isinstance(error, Misfit) else "failed"
        self.counters.misfits[OPERATOR if reader is None else reader.name, reason] += 1

    # ------------------------------------------------------------------------------------------------------ erasure
    def _lives(self, identifiers: Iterable[str]) -> Mapping[str, Life | None]:
        """Of those that were erased; None for one that is suppressed. Raises Shut while that is not known."""
        if self.watch is None:
            return NOBODY
        self.watch.begin()
        suppression = self.watch.suppression
        if not suppression:
            return NOBODY
        known = {i: said for i in identifiers if (said := suppression.look(i)) is not None}
        return {identifier: _life(said) for identifier, said in known.items()}

    def _erase(self, batch: Batch, out: Outbox) -> None:
        """Forget identifiers, and say so. Lives decide, whatever has become of the request: what is void stays void."""
        assert self.watch is not None
        self.watch.begin()
        read = {f"{batch.tp.topic}/{batch.tp.partition}": batch.offsets[-1] + 1}
        for key, value in zip(batch.keys, batch.values, strict=True):
            if key is None or value is None:
                continue
            erase = decode_erase(key, value)
            self.watch.suppression.due(erase)  # raises Shut while a decision that comes next would count
            tombstones = {self.plan.consent: 1} if self._forget(erase.identifier, erase.life) else {}
            receipt = Receipt(erase.request, erase.identifier, erase.life, AGENT, tombstones, read)
            out.send(self.plan.receipts, *encode_receipt(receipt), 0)

    def _forget(self, identifier: str, life: int) -> bool:
        """Whether anything of a life below was known."""
        key = identifier.encode()
        known = self.held.get(key)
        if known is None or life <= known.life < NOW:
            return False
        self.held.delete(key)
        self.changed[identifier] = None
        self.counters.erased += 1
        return True


def check_same(known: Mapping[str, str], now: Mapping[str, str], read: Iterable[str]) -> None:
    """Raises NeedsOperator where a raw topic that was read is gone, or is another one of that name."""
    for topic in sorted(set(read) & known.keys()):
        if now.get(topic) != known[topic]:
            how = "has been deleted" if topic not in now else "has been deleted and created again"
            raise NeedsOperator(
                f"{topic} {how}: consent has read it up to some offset, and what was decided in it stands. If that is meant,"
                f" `c360 reset consent --to-earliest --execute` reads what there is now, and keeps what was decided; if the"
                " topic is not to come back, take its @app.consent out of the app"
            )


# --------------------------------------------------------------------------------------------------------------- agent
class ConsentAgent:
    """The agent: which topics, which task."""

    loops: Sequence[str] = ()

    def __init__(
        self,
        plan: Plan,
        topics: Callable[[], Mapping[str, int]],
        ids: Callable[[Sequence[str]], Mapping[str, str]],
        vault: Vault | None = None,
        suppression: Suppression | None = None,
    ) -> None:
        """`topics` gives the names and partition counts of what exists now, `ids` the ids of topics. `vault`: of an app that
        needs keys; `suppression`: of one that erases."""
        planned = plan.agent(AGENT)
        self.name, self.group, self.fingerprint = planned.name, planned.group, planned.fingerprint
        self.plan, self.topics, self.vault, self.suppression = plan, topics, vault, suppression
        names = Names() if vault is None else vault.names
        self.readers = {s.asked.topic: SourceReader(plan, s, names) for s in plan.consents}
        self.counters = ConsentCounters()
        self._ids_of = ids
        self.ids: dict[str, str] = {}  # of the raw topics, as they were when this process saw them first
        self.output = ""  # id of the output topic, as it was seen last

    def lead_topics(self) -> Sequence[str]:
        return (self.plan.fence,)

    def task(self, lead: TP) -> Task:
        """With all partitions of the inputs that exist now. Raises NeedsOperator where one that was read is gone."""
        now = dict(self._ids_of([*self.readers, self.plan.consent]))
        self._see(now.pop(self.plan.consent, ""))
        check_same(self.ids, now, self.readers)
        self.ids |= now
        found = self.topics()
        asked = (*self.readers, self.plan.consent_commands, *((self.plan.erase,) if self.plan.erases else ()))
        return Task(lead, tuple(TP(topic, p) for topic in asked for p in range(found.get(topic, 0))))

    def _see(self, output: str) -> None:
        if self.output and output and output != self.output:
            log.warning("%s was deleted and created again: all that was decided is written to it again; until then the fence is"
                        " shut, and nothing leaves that rests on consent", self.plan.consent)  # fmt: skip
        self.output = output or self.output

    def changelog(self, lead: TP) -> TP:
        return TP(f"{self.plan.consent}.changelog", 0)

    def store_name(self, lead: TP) -> str:
        return f"{self.group}/{lead.partition}"

    def processor(self, task: Task) -> Processor:
        assert self.suppression is not None or not self.plan.erases, "it would not know who is suppressed"
        ids = {topic: self.ids[topic] for topic in {tp.topic for tp in task.inputs} & self.ids.keys()}
        return ConsentTask(self.plan, self.readers, ids, self.counters, self.vault, self.suppression,
                           lambda: self.output)  # fmt: skip

    def telling(self) -> Telling:
        """What doors are told: everything appended before then to the raw topics is in `{app}.consent`."""
        outputs = [TP(self.plan.consent, p) for p in range(self.plan.partitions)]
        return Telling(self.plan.fence, (*self.readers, self.plan.consent_commands), outputs, statement, OUTPUT)
