"""How good rules are: records of which the truth is known, through the code that govern and identity run, in memory.

Records are rows of a file with the columns that the source declares; truth says which entity each is of. Counted are
pairs of records: those found to be one against those that are.
"""

from __future__ import annotations

import csv
import gc
import gzip
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from io import TextIOWrapper
from itertools import chain
from pathlib import Path
from typing import IO, Any, TextIO, cast, get_args

import orjson

from c360.agents.govern import RecordReader, Said, SourceParts, compile_source
from c360.agents.links import facts_of
from c360.codecs.debezium import Change, DebeziumDecoder
from c360.codecs.record import FieldInfo, Record, fields_of
from c360.declare import Source
from c360.errors import Misfit, UsageError
from c360.governance.names import Names
from c360.identity.facts import Claim, Fact
from c360.ops.identity.graph import Facts, Graph
from c360.plan import Identity, Plan

BATCH = 5_000  # rows decoded at once
UNCLAMPED = -1  # append time of what never lay in a topic: no clock is wrong by it


@dataclass
class Evaluation:
    """Pairs by what they are (`true`), are found to be (`found`), and both; and what became of the rows."""

    true: int
    found: int
    both: int
    largest: int  # records of the largest profile
    records: int
    entities: int
    profiles: int
    missing: int  # records of the truth that no file has, or that could not be read
    unjudged: int  # records that the truth does not name
    duplicates: int
    misfits: Mapping[str, int]  # rows that could not be read, by reason
    blocked: Mapping[str, int]  # values that identify nobody, by namespace

    @property
    def precision(self) -> float:
        return self.both / self.found if self.found else 1.0

    @property
    def recall(self) -> float:
        return self.both / self.true if self.true else 1.0

    @property
    def f1(self) -> float:
        """Harmonic mean of the two."""
        return 2 * self.both / (self.found + self.true) if self.found + self.true else 1.0

    def to_json(self) -> dict[str, Any]:
        return {
            "precision": round(self.precision, 6),
            "recall": round(self.recall, 6),
            "f1": round(self.f1, 6),
            "largest_cluster": self.largest,
            "pairs": {"true": self.true, "found": self.found, "both": self.both},
            "records": self.records,
            "entities": self.entities,
            "profiles": self.profiles,
            "missing": self.missing,
            "unjudged": self.unjudged,
            "duplicates": self.duplicates,
            "misfits": dict(sorted(self.misfits.items())),
            "blocked": dict(sorted(self.blocked.items())),
        }


def evaluate(plan: Plan, identity: Identity, files: Sequence[tuple[Source, Path]], truth: Path) -> Evaluation:
    """Raises UsageError for a file that cannot be read, or a truth without its two columns."""
    entity_of = read_truth(truth)
    reading = Reading(plan)
    with _no_collector():
        for source, path in files:
            reading.read(source, path)
        graph = Graph(reading.facts(), identity.rules)

    def profile(subject: str) -> str:
        standing = graph.standings.get(subject)
        return subject if standing is None else standing.profile

    profile_of = {record: profile(subject) for record, subject in reading.subject_of.items()}
    judged = {record: entity for record, entity in entity_of.items() if record in profile_of}
    return Evaluation(
        true=_pairs(Counter(entity_of.values())),
        found=_pairs(Counter(profile_of[record] for record in judged)),
        both=_pairs(Counter((profile_of[record], entity) for record, entity in judged.items())),
        largest=max(Counter(profile_of.values()).values(), default=0),
        records=len(profile_of),
        entities=len(set(entity_of.values())),
        profiles=len(set(profile_of.values())),
        missing=len(entity_of) - len(judged),
        unjudged=len(profile_of) - len(judged),
        duplicates=reading.duplicates,
        misfits=reading.misfits,
        blocked=reading.blocked,
    )


@contextmanager
def _no_collector() -> Iterator[None]:
    """What is made here stays until the end: the collector would walk all of it again and again, 40 % of the time."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def _pairs(sizes: Mapping[Any, int]) -> int:
    return sum(n * (n - 1) // 2 for n in sizes.values())


# ------------------------------------------------------------------------------------------------------------ reading
class _Clear:
    """In place of tokens: nothing is written, and who tries rules out knows the records."""

    def token(self, label: str) -> str:
        return label


IN_CLEAR = Names(_Clear())


@dataclass
class Reading:
    """What records say of their subjects. A record is known by its event id or primary key, else by its subject's value."""

    plan: Plan
    subject_of: dict[str, str] = field(default_factory=dict)  # by record id
    links: dict[tuple[str, str, str], Claim] = field(default_factory=dict)  # subject, label, source → claim
    # Source, row → subject, labels, at
    rows: dict[tuple[str, str], tuple[str, list[str], int]] = field(default_factory=dict)
    misfits: Counter[str] = field(default_factory=Counter)
    blocked: Counter[str] = field(default_factory=Counter)
    duplicates: int = 0
    parts: dict[str, SourceParts] = field(default_factory=dict)

    def read(self, source: Source, path: Path) -> None:
        parts = self.parts.setdefault(source.name, compile_source(self.plan, source, IN_CLEAR))
        rows: list[dict[str, Any]] = []
        shapes = _shapes(source)
        for row in read_rows(path, shapes):
            if row is None:
                self.misfits["not-json"] += 1
                continue
            rows.append(row)
            if len(rows) == BATCH:
                self._take(source, parts, rows)
                rows = []
        self._take(source, parts, rows)

    def _take(self, source: Source, parts: SourceParts, rows: Sequence[Mapping[str, Any]]) -> None:
        decoder = parts.decoder
        if isinstance(decoder, DebeziumDecoder):
            (reader,) = parts.readers.values()
            key = source.types[0].key
            columns = {f.name: f.path for f in fields_of(source.types[0].record)}
            values: list[bytes | None] = [orjson.dumps(_inserted(row)) for row in rows]
            keys: list[bytes | None] = [orjson.dumps({columns[k]: row.get(columns[k]) for k in key}) for row in rows]
            for change in decoder.decode(values, keys):
                if isinstance(change, Change) and change.record is not None:
                    self._row(source, reader, change.row_id, change.record)
                elif isinstance(change, Misfit):
                    self.misfits[change.reason] += 1
            return
        for record in decoder.decode([orjson.dumps(row) for row in rows]):
            if isinstance(record, Misfit):
                self.misfits[record.reason] += 1
            elif record is not None:
                self._event(source, parts.readers[type(record)], record)

    def _event(self, source: Source, reader: RecordReader, record: Record) -> None:
        named = None if reader.id is None else reader.id(record)
        found = self._governed(reader, record, None if named is None else str(named))
        if found is None:
            return
        (subject, _, at, _), labels = found
        if not self._known(_value(subject) if named is None else str(named), subject, repeats=named is not None):
            return
        claim = Claim(-at, first_seen=at)
        for label in labels:
            slot = (subject, label, source.name)
            self.links[slot] = max(claim, self.links.get(slot, claim))

    def _row(self, source: Source, reader: RecordReader, row_id: str, record: Record) -> None:
        found = self._governed(reader, record, row_id)
        if found is None:
            return
        (subject, _, at, _), labels = found
        if (source.name, row_id) in self.rows:  # an update: the later row holds
            self.duplicates += 1
        self.rows[source.name, row_id] = (subject, labels, at)
        self.subject_of[row_id] = subject

    def _governed(self, reader: RecordReader, record: Record, said_id: str | None) -> tuple[Said, list[str]] | None:
        """As govern reads it. None: a misfit, counted."""
        try:
            said = reader.govern(record, None, said_id, 0, UNCLAMPED, (0, 0))
        except Misfit as misfit:
            self.misfits[misfit.reason] += 1
            return None
        subject, _, _, enriched = said
        return said, reader.labels(subject, record, enriched, self.blocked)

    def _known(self, record_id: str, subject: str, *, repeats: bool) -> bool:
        """Whether to go on: an event whose id was there already is a repeat, which govern drops."""
        if record_id in self.subject_of:
            self.duplicates += 1
            return not repeats
        self.subject_of[record_id] = subject
        return True

    def facts(self) -> Facts:
        facts: list[Fact] = []
        for (subject, label, source), claim in self.links.items():
            facts += facts_of(subject, label, source, claim)
        for (source, row_id), (subject, labels, at) in self.rows.items():
            for label in labels:
                facts += facts_of(subject, label, f"{source}#{row_id}", Claim(1, first_seen=at))
        return Facts().having(facts)


def _value(label: str) -> str:
    return label.partition(":")[2]


def _inserted(row: Mapping[str, Any]) -> dict[str, Any]:
    """The change that a database reports of a new row."""
    source = {"connector": "postgresql", "lsn": 1, "ts_ms": 0, "snapshot": "false"}
    return {"op": "c", "before": None, "after": row, "source": source, "ts_ms": 0}


# -------------------------------------------------------------------------------------------------------------- files
Shapes = Mapping[str, FieldInfo]
"""By path, the field that a column is for."""


def _shapes(source: Source) -> Shapes:
    return {info.path: info for declared in source.types for info in fields_of(declared.record)}


@contextmanager
def open_text(path: Path) -> Iterator[TextIO]:
    """A file as text, plain or gzip. Raises UsageError for what cannot be read, also on the way."""
    try:
        with path.open("rb") as raw, ExitStack() as opened:
            zipped = raw.peek(2)[:2] == b"\x1f\x8b"
            data = cast(IO[bytes], opened.enter_context(gzip.GzipFile(fileobj=raw)) if zipped else raw)
            yield opened.enter_context(TextIOWrapper(data, encoding="utf-8-sig", newline=""))
    except (OSError, EOFError, UnicodeDecodeError, zlib.error, csv.Error) as error:
        raise UsageError(f"{path} cannot be read: {error}") from error


def read_rows(path: Path, shapes: Shapes) -> Iterator[dict[str, Any] | None]:
    """Payloads of a file of JSON objects, one a line, or of CSV with a line of column names; None for a line that is none.

    Of CSV, blanks around a value are no part of it and an empty value is null; a column "data.id" lies inside of "data".
    """
    with open_text(path) as text:
        first = text.readline()
        if first.lstrip().startswith("{"):
            for line in chain([first], text):
                if line.strip():
                    yield _object(line)
            return
        columns = [c.strip() for c in next(csv.reader([first]), [])]
        if not any(columns):
            raise UsageError(f"{path} is neither JSON lines nor CSV: its first line has no names of columns")
        places = [(c.split("."), shapes.get(c)) for c in columns]
        for cells in csv.reader(text, skipinitialspace=True):
            if cells:
                yield _payload(places, cells) if len(cells) <= len(columns) else None


def _object(line: str) -> dict[str, Any] | None:
    try:
        found = orjson.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _payload(places: Sequence[tuple[list[str], FieldInfo | None]], cells: Sequence[str]) -> dict[str, Any]:
    payload: dict[str, Any] = {}
    for (path, info), cell in zip(places, cells, strict=False):
        text = cell.strip()
        at = payload
        for name in path[:-1]:
            at = at.setdefault(name, {})
        at[path[-1]] = None if text == "" else text if info is None else _typed(info, text)
    return payload


def _typed(info: FieldInfo, text: str) -> Any:
    """A cell as JSON would have it: numbers and lists where the field has them; else the text, of which decoders make
    times and decimals."""
    kinds = {info.wire, *get_args(info.wire)}
    try:
        if str in kinds:
            return text
        if bool in kinds and text.lower() in ("true", "false"):
            return text.lower() == "true"
        if int in kinds or info.unit == "days":
            return int(text)
        if float in kinds:
            return float(text)
        return orjson.loads(text) if text[0] in "[{" else text
    except ValueError:
        return text


def read_truth(path: Path) -> dict[str, str]:
    """Record id → entity. Raises UsageError where the columns record_id and entity are not there."""
    with open_text(path) as text:
        rows = csv.reader(text, skipinitialspace=True)
        columns = [c.strip() for c in next(rows, [])]
        if not {"record_id", "entity"} <= {*columns}:
            raise UsageError(f"{path}: truth is CSV with the columns record_id and entity")
        record, entity = columns.index("record_id"), columns.index("entity")
        return {cells[record].strip(): cells[entity].strip() for cells in rows if len(cells) > max(record, entity)}
