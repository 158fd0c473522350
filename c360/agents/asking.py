"""outside: who is to be asked about what. Governed records in, questions out. One task per partition of subjects.

A question is due for a subject and an identifier when a record has them and nothing was asked since, or not for `refresh`: by
the append times of raw records, never by a clock. So what is read again, for whatever reason, asks nobody: it is as old as it
was. Whether people let it be asked is decided when it is asked (`agents.calling`), as late as can be.

What was asked is kept by the subject and a hash of the identifier, a keyed one where there are keys: the row of somebody who
has an e-mail address in common with somebody who is forgotten does not name it.

Of an enrichment whose purpose rests on consent, what was not asked for that reason comes back, and is asked when somebody
agrees (`agents.withheld`): the one thing here that hangs on more than records.

Erased: `Erase` comes to the task of a subject's partition, which forgets what was asked about it, and says so in a receipt.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import Any, NamedTuple

import msgspec

from c360.agents.opening import Opening
from c360.agents.suppression import Suppression, Watch
from c360.agents.wire import Question, decode_json, encode, governed_decoder, governed_type, misfit_in, read_of
from c360.agents.withheld import ASKED, AskedAt, Decided, Hearing, Withheld, WithheldCounters
from c360.codecs.record import Record
from c360.engine.agent import AnyTable, Copartitioned, Outbox, Processor, Task
from c360.engine.global_table import GlobalTable
from c360.engine.transport import TP, Batch
from c360.errors import Misfit
from c360.governance.messages import Erase, Receipt, decode_erase, encode_receipt
from c360.governance.names import Names, Vault
from c360.governance.sealing import Destroyed, is_sealed, read_sealed
from c360.identity.namespace import Namespace
from c360.outside import Carrier, Outside
from c360.plan import Plan
from c360.tables.table import Table

ASKED_OF = "~outside:"  # in place of a namespace: of the hash of an identifier
MOST = 100  # identifiers of a record: each question names all of them, so that a list of thousands would be millions
LABELS_KEPT = 1 << 14  # opening a sealed identifier and making its token takes 20 µs
MS = 1000


@dataclass
class AskingCounters:
    """For metrics; work that was aborted counts again."""

    looked: int = 0  # identifiers of records
    asked: int = 0
    fresh: int = 0  # asked before, and not long ago
    left_out: int = 0  # of the forgotten, of records with too many, and identifiers that say nothing
    receipts: int = 0


class _Reading(NamedTuple):
    """An identifier field of a record type."""

    name: str
    namespace: Namespace
    many: bool
    asked: bool
    field: str  # as it is sealed


class Reader:
    """Compiled for the types of one governed topic: bytes to (sign, cause, life, values of identifier fields)."""

    def __init__(self, carriers: Sequence[Carrier]) -> None:
        self.fields: dict[type, tuple[_Reading, ...]] = {}
        self.tenant: dict[type, str | None] = {}
        source, types = carriers[0].source, []
        of = {carrier.declared.record: carrier for carrier in carriers}
        for declared in source.types:
            carrier = of.get(declared.record)
            readings = () if carrier is None else tuple(_readings(carrier))
            names = dict.fromkeys([r.name for r in readings] + ([source.tenant] if source.tenant else []))
            looked = msgspec.defstruct("Looked", [(name, Any, None) for name in names])
            made = governed_type(declared.record, looked)
            types.append(made)
            self.fields[made], self.tenant[made] = readings, source.tenant
        self.decode = governed_decoder(types)


def _readings(carrier: Carrier) -> Iterator[_Reading]:
    record = carrier.declared.record.__name__
    for asked, fields in ((True, carrier.fields), (False, carrier.others)):
        for name, namespace, many in fields:
            yield _Reading(name, namespace, many, asked, f"{record}.{name}{'[]' if many else ''}")


class Identified(NamedTuple):
    """An identifier of a record: its label as it may be written, its value as the record has it, in clear or sealed."""

    label: str
    value: Any
    asked: bool


class AskingTask:
    """One partition of subjects."""

    def __init__(self, agent: AskingAgent, task: Task) -> None:
        self.agent, self.counters = agent, agent.counters
        self.partition = task.lead.partition
        pack, unpack = msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder(AskedAt).decode
        self.asked: Table[AskedAt] = Table(ASKED, pack, unpack)
        self.withheld = agent.withheld_of(self.asked)
        self.tables: tuple[AnyTable, ...] = (self.asked, *(() if self.withheld is None else self.withheld.tables))
        self.watch = None if agent.suppression is None else Watch(agent.suppression)
        self.erasing: list[tuple[Erase, int]] = []  # and how many rows were forgotten
        self.refresh_ms = (agent.refresh_ms, agent.refresh_ms)  # the shortest and the longest that it has ever been

    # --------------------------------------------------------------------------------------------------- processor
    def resume(self, notes: Mapping[str, Any]) -> None:
        self.erasing = []
        now = self.agent.refresh_ms
        least, most = notes.get("refresh", (now, now))
        self.refresh_ms = min(least, now), max(most, now)
        if self.watch is not None:
            self.watch.again()
        if self.withheld is not None:
            self.withheld.resume(notes)

    def notes(self) -> dict[str, Any]:
        refresh = {"refresh": list(self.refresh_ms)}  # for who compares
        return refresh if self.withheld is None else refresh | self.withheld.notes()

    def wants(self, now_ms: int) -> bool:
        return self.withheld is not None and self.withheld.wants(now_ms)

    def settle(self, out: Outbox) -> None:
        """Its tasks have nothing to tell each other."""

    def process(self, batch: Batch, out: Outbox) -> None:
        if self.watch is not None:
            self.watch.begin()
        if batch.tp.topic == self.agent.erase:
            self._erase(batch)
        elif self.withheld is not None and batch.tp.topic == self.agent.refused:
            self.withheld.take(batch)
        else:
            self._look(self.agent.readers[batch.tp.topic], batch, out)

    def divert(self, batch: Batch, error: BaseException, out: Outbox) -> None:
        out.send(self.agent.dlq, batch.keys[0], misfit_in(self.agent.name, batch, 0, error))

    def finish(self, positions: Mapping[TP, int], now_ms: int, out: Outbox) -> None:
        read = read_of(positions, self.agent.erase)
        for erase, rows in self.erasing:
            tombstones = {self.agent.log: rows} if rows else {}
            receipt = Receipt(erase.request, erase.identifier, erase.life, self.agent.name, tombstones, read)
            out.send(self.agent.receipts, *encode_receipt(receipt), 0)
            self.counters.receipts += 1
        self.erasing = []
        if self.withheld is not None:
            self.withheld.finish(now_ms, out)

    # -------------------------------------------------------------------------------------------------- questions
    def _look(self, reader: Reader, batch: Batch, out: Outbox) -> None:
        """Each record in its turn; what their identifiers are is found out for all of them at once."""
        records = [reader.decode(value or b"") for value in batch.values]
        added = [i for i, said in enumerate(records) if said.sign > 0 and reader.fields[type(said)]]
        self.agent.have_keys([records[i] for i in added], reader)
        found: list[tuple[int, str, list[Identified], str, bytes]] = []
        for i in added:
            said, subject = records[i], (batch.keys[i] or b"").decode()
            identified = self._identified(said, subject, reader)
            for one in identified:
                if one.asked:
                    self.counters.looked += 1
                    found.append((i, subject, identified, one.label, self.agent.row(subject, one.label)))
        rows = self.asked.load({row for *_, row in found})
        for i, subject, identified, label, row in found:
            said = records[i]
            at = max(said.cause, 0)
            if not is_due(rows[row], at, self.agent.refresh_ms):
                self.counters.fresh += 1
                continue
            self.asked.put(row, AskedAt(at))
            if self.withheld is not None:
                self.withheld.forget(row)
            self._ask(subject, label, identified, at, said.life, out)

    def _identified(self, said: Any, subject: str, reader: Reader) -> list[Identified]:
        """The identifiers of a record; none where it is about, or names, somebody who is forgotten."""
        suppression = self.agent.suppression
        found = list(self.agent.identified(said, subject, reader))
        if len(found) > MOST:
            self.counters.left_out += len(found)
            return []
        if suppression is not None and suppression:
            known = suppression.look(subject)
            if known is not None and (known.stands or said.life < known.life):
                self.counters.left_out += 1
                return []
            kept = [one for one in found if (known := suppression.look(one.label)) is None or not known.stands]
            self.counters.left_out += len(found) - len(kept)
            return kept
        return found

    def _ask(self, subject: str, label: str, identified: Sequence[Identified], at: int, life: int, out: Outbox) -> None:
        value = next(one.value for one in identified if one.label == label)
        others = [one.label for one in identified]
        question = Question(
            id=question_id(self.agent.outside.name, subject, label, at, life),
            subject=subject,
            labels=list(dict.fromkeys([label, subject, *others])),
            value=value,
            at=at,
            life=life,
        )
        out.send(self.agent.questions, label.encode(), encode(question))
        self.counters.asked += 1

    # ---------------------------------------------------------------------------------------------------- erasure
    def _erase(self, batch: Batch) -> None:
        assert self.watch is not None
        for key, value in zip(batch.keys, batch.values, strict=True):
            if key is None or value is None:
                continue
            erase = decode_erase(key, value)
            if not self.watch.suppression.due(erase):
                continue
            rows = [row for row, _ in self.asked.scan(key + b"\0", key + b"\1")]
            noted = 0
            for row in rows:
                self.asked.delete(row)
                noted += self.withheld is not None and self.withheld.forget(row)
            if self.withheld is not None:
                noted += self.withheld.forget_label(erase.identifier)
            self.erasing.append((erase, len(rows) + noted))


def is_due(before: AskedAt | None, at: int, refresh_ms: int) -> bool:
    """Whether a record of that time asks."""
    return before is None or at - before.at >= refresh_ms


def question_id(name: str, subject: str, label: str, at: int, life: int) -> str:
    """The same whoever asks it, however often: 32 hex digits over labels as they are written."""
    said = "\0".join((name, subject, label, str(at), str(life)))
    return blake2b(said.encode(), digest_size=16).hexdigest()


class AskingAgent(Copartitioned):
    """Of one outside enrichment."""

    loops: Sequence[str] = ()

    def __init__(
        self,
        plan: Plan,
        outside: Outside,
        suppression: Suppression | None = None,
        vault: Vault | None = None,
        governance: GlobalTable | None = None,
    ) -> None:
        """`suppression`: of an app that erases; `vault` and `governance`: of one that needs keys."""
        self.plan, self.outside, self.suppression = plan, outside, suppression
        planned = plan.agent(outside.agent)
        self.name, self.group, self.fingerprint = planned.name, planned.group, planned.fingerprint
        (self.lead,), self.reads, (self.log,) = planned.lead, planned.reads, planned.changelogs
        self.questions, self.refused, self.dlq, self.erase, self.receipts = (
            plan.questions(outside),
            plan.withheld(outside),
            plan.dlq,
            plan.erase,
            plan.receipts,
        )
        self.refresh_ms = int(outside.refresh.total_seconds() * MS)
        self.counters, self.withheld = AskingCounters(), WithheldCounters()
        self.decided: Decided | None = None  # of one that waits for people to agree
        self.hearing: Hearing | None = None
        if governance is not None and (purpose := outside.purpose) is not None and purpose.asks:
            self.decided = Decided(plan, purpose, governance, vault)
            self.hearing = Hearing(plan, governance, self.decided.veil)
        self.opening = Opening(plan, governance, vault)
        names = self.names = Names() if vault is None else vault.names
        first = plan.at(plan.governs[0])
        carriers: dict[str, list[Carrier]] = {}
        for carrier in plan.carriers(outside):
            carriers.setdefault(first.governed(carrier.source), []).append(carrier)
        self.readers = {topic: Reader(some) for topic, some in carriers.items()}
        self.hashed = _plain_hash if vault is None else lambda label: names.token(f"{ASKED_OF}{label}")

        @lru_cache(LABELS_KEPT)
        def label(namespace: Namespace, clear: str, tenant: Any) -> str | None:
            try:
                return names.written(namespace, namespace.label(clear), tenant)
            except Misfit:
                return None  # it identifies nobody

        @lru_cache(LABELS_KEPT)
        def opened(sealed: str, subject: str, field: str) -> str | None:
            value = {"~sealed": sealed, "subject": subject}
            try:
                return str(decode_json(self.opening.open(value, (subject,), (field,))))
            except Destroyed:
                return None

        self._label, self._opened = label, opened

    # ------------------------------------------------------------------------------------------------------- agent
    def processor(self, task: Task) -> Processor:
        return AskingTask(self, task)

    def withheld_of(self, asked: Table[AskedAt]) -> Withheld | None:
        """What a task keeps of questions that were withheld; None where nobody is asked whether they agree."""
        if self.decided is None or self.hearing is None:
            return None
        return Withheld(
            self.decided,
            self.hearing,
            asked,
            questions=self.questions,
            row_of=self.row,
            keep_ms=self.refresh_ms,
            counters=self.withheld,
        )

    # --------------------------------------------------------------------------------------- identifiers of a record
    def row(self, subject: str, label: str) -> bytes:
        return f"{subject}\0{self.hashed(label)}".encode()

    def have_keys(self, records: Sequence[Any], reader: Reader) -> None:
        """Of what is sealed in them. Raises Shut while a key is not known that may still come."""
        wanted: dict[tuple[str, str], None] = {}
        for said in records:
            for reading in reader.fields[type(said)]:
                for value in _values(said.record, reading):
                    if is_sealed(value):
                        sealed = read_sealed(value)
                        wanted[sealed.subject, sealed.key_id] = None
        self.opening.have(wanted)

    def identified(self, said: Any, subject: str, reader: Reader) -> Iterator[Identified]:
        """Each once, those that are asked about first. Identifiers whose key was destroyed are nobody's any more."""
        kind = type(said)
        name = reader.tenant[kind]
        tenant = None if name is None else getattr(said.record, name) or ""
        known = set[str]()
        for reading in reader.fields[kind]:
            for value in _values(said.record, reading):
                clear = self._opened(value["~sealed"], subject, reading.field) if is_sealed(value) else str(value)
                label = None if clear is None else self._label(reading.namespace, clear, tenant)
                if label is None:
                    self.counters.left_out += reading.asked
                elif label not in known:
                    known.add(label)
                    yield Identified(label, value, reading.asked)


def _values(record: Record, reading: _Reading) -> list[Any]:
    value = getattr(record, reading.name)
    return [] if value is None else [one for one in value if one is not None] if reading.many else [value]


def _plain_hash(label: str) -> str:
    return blake2b(label.encode(), digest_size=16).hexdigest()
