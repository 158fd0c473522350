"""Records with their classified fields sealed: how govern writes them, and how the types that read them say it.

What is sealed is what the declarations classify (`c360.classes`), and every identifier of a personal namespace, as if it
were `Personal[…]`. Keys are one per subject and task, kept in the task's own state and said in `{app}.keys`.
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from copy import copy
from typing import Any, cast

import msgspec
from msgspec.structs import force_setattr

from c360.agents.wire import plain_text
from c360.classes import Classified, FieldClass, classified, classified_in
from c360.clock import DAY_MS
from c360.codecs.record import Record, fields_of, is_record, is_union, unmarked
from c360.declare import Enrichment, Source
from c360.engine.agent import Outbox
from c360.engine.global_table import GlobalTable
from c360.engine.partition import partition_of
from c360.engine.transport import TP
from c360.errors import Misfit
from c360.governance.keys import KeyRecord, Sealer, generation_of, record_key, rewrapped_value, unwrap_keys
from c360.governance.names import Vault
from c360.governance.sealing import DataKey, check_place, is_sealed, read_sealed
from c360.plan import Plan
from c360.tables.table import Table

KEYS = b"k"
LETTER = "dead letter"  # in place of a field
Tree = Mapping[str, Any]
"""Where classified values are: names, `[]` and `{}` to the tree below; at its end the field as it is said, a text."""


class SealedValue(msgspec.Struct, frozen=True, rename={"sealed": "~sealed"}):
    """A sealed value as it stands in a record (docs/formats/keys.md)."""

    sealed: str
    subject: str

    @property
    def field(self) -> str:
        """Which field it is, as in Customer.name."""
        return self.sealed.partition(":")[2].partition(":")[0]

    def __repr__(self) -> str:
        """Nothing of whose it is, nor what: agents of users print and log what they are given."""
        return f"<sealed {self.field}>"

    __str__ = __repr__


canonical = msgspec.json.Encoder(enc_hook=plain_text, order="deterministic").encode  # equal values are equal bytes
_json = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


# ------------------------------------------------------------------------------------------------------ what is sealed
def tree_of(found: Iterable[Classified], said: Callable[[Classified], str]) -> Tree:
    """Classified fields by their paths."""
    tree: dict[str, Any] = {}
    for one in found:
        node = tree
        for part in one.path[:-1]:
            node = node.setdefault(part, {})
        node[one.path[-1]] = said(one)
    return tree


def _enriched_tree(enrichment: Enrichment, kinds: Collection[type]) -> Any:
    """Of what an enrichment gives; a text where all of it is classified, None where nothing is."""
    name = f"{enrichment.record.__name__}.{enrichment.name}"
    found = classified_in(enrichment.returns, name, kinds)
    if any(not one.path for one in found):
        return name
    return tree_of(found, lambda one: name + "".join(p if p in ("[]", "{}") else f".{p}" for p in one.path)) or None


def sealed_tree(plan: Plan, record: type[Record]) -> Tree:
    """Where classified values are in a record of a type; {} of one without."""
    return tree_of(classified(record, plan.personal_kinds), lambda one: one.said(record))


# ------------------------------------------------------------------------------------------------------------- sealing
Walk = Callable[[Any, DataKey], Any]


def _walk(tree: Any) -> Walk:
    """From a value and a key to the same value, classified parts sealed; what is not on the way is shared with it."""
    if isinstance(tree, str):
        return lambda value, key: SealedValue(key.seal(tree, canonical(value)), key.subject)
    if "[]" in tree:
        item = _none_or(_walk(tree["[]"]))
        return lambda value, key: [item(each, key) for each in value]
    if "{}" in tree:
        part = _none_or(_walk(tree["{}"]))
        return lambda value, key: {name: part(each, key) for name, each in value.items()}
    parts = [(name, _walk(below)) for name, below in tree.items()]

    def walk(value: Any, key: DataKey) -> Any:
        made = copy(value)
        for name, inner in parts:
            part = getattr(value, name)
            if part is not None:
                force_setattr(made, name, inner(part, key))
        return made

    return walk


def _none_or(walk: Walk) -> Walk:
    return lambda value, key: None if value is None else walk(value, key)


class RecordSeal:
    """Compiled for one record type: its records and what enrichments made of them, sealed."""

    def __init__(self, plan: Plan, record: type[Record], enrichments: Sequence[Enrichment]) -> None:
        kinds = plan.personal_kinds
        self.tree = sealed_tree(plan, record)
        self.names = tuple(self.tree)
        self.record: Walk = _walk(self.tree) if self.tree else lambda value, _: value
        trees = {e.name: _enriched_tree(e, kinds) for e in enrichments if e.record is record}
        self.enriched = {name: _walk(tree) for name, tree in trees.items() if tree is not None}

    def __bool__(self) -> bool:
        """Whether there is anything to seal."""
        return bool(self.tree or self.enriched)

    def wanted(self, record: Record) -> bool:
        """Whether a record has something to be sealed; of enrichments it is not known before."""
        return bool(self.enriched) or any(getattr(record, name) is not None for name in self.names)

    def seal(self, record: Record, enriched: Mapping[str, Any], key: DataKey) -> tuple[Any, Mapping[str, Any]]:
        """Copies, or the same where nothing in them is classified."""
        if self.enriched and enriched:
            enriched = {n: self.enriched[n](v, key) if n in self.enriched else v for n, v in enriched.items()}
        return self.record(record, key), enriched


# ------------------------------------------------------------------------------------------------------------- opening
def opened(value: Any, tree: Any, open_value: Callable[[Any, str], bytes]) -> Any:
    """A JSON value with its classified parts opened. `open_value`: from a sealed one and its field to its bytes."""
    if value is None:
        return None
    if isinstance(tree, str):  # in clear, if it was written before it was declared to be sealed
        return _json(open_value(value, tree)) if is_sealed(value) else value
    if "[]" in tree:
        return [opened(each, tree["[]"], open_value) for each in value]
    if "{}" in tree:
        return {name: opened(each, tree["{}"], open_value) for name, each in value.items()}
    return {name: opened(each, tree[name], open_value) if name in tree else each for name, each in value.items()}


# --------------------------------------------------------------------------------------------------------------- types
def sealed_type(record: type[Record], kinds: Collection[type] = ()) -> type[Record]:
    """The record type as it is in governed topics: a subclass with `SealedValue` where a field is classified.

    So whoever reads governed records as objects has instances of the user's class, and sees what is sealed. `kinds`:
    `plan.personal_kinds`. The type itself where nothing is classified.
    """
    return cast(type[Record], _sealed(record, frozenset(kinds)))


def _sealed(annotation: Any, kinds: frozenset[type]) -> Any:
    """An annotation with what is classified in it replaced; the same object where nothing is."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated and any(isinstance(mark, FieldClass) for mark in annotation.__metadata__):
        bare = unmarked(annotation)
        return SealedValue | None if is_union(bare) and type(None) in typing.get_args(bare) else SealedValue
    if isinstance(annotation, type) and annotation in kinds:
        return SealedValue
    if is_union(annotation):
        new = [_sealed(a, kinds) for a in args]
        return annotation if new == list(args) else typing.Union[tuple(new)]  # noqa: UP007  # made of a list
    if origin in (list, dict):
        new = [_sealed(a, kinds) for a in args]
        return annotation if new == list(args) else origin[tuple(new)]
    if is_record(annotation):
        changed = {f.name: n for f in fields_of(annotation) if (n := _sealed(f.annotation, kinds)) is not f.annotation}
        return (
            type(annotation)(annotation.__name__, (annotation,), {"__annotations__": changed})
            if changed
            else annotation
        )
    if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
        hints = typing.get_type_hints(annotation, include_extras=True)
        new_fields = [(name, n) for name, hint in hints.items() if (n := _sealed(hint, kinds)) is not hint]
        return (
            msgspec.defstruct(annotation.__name__, new_fields, bases=(annotation,), kw_only=True)
            if new_fields
            else annotation
        )
    return annotation


def sealed_types(plan: Plan, source: Source) -> list[type[Record]]:
    """The record types of a source, as they are in its governed topic."""
    return [sealed_type(declared.record, plan.personal_kinds) for declared in source.types]


# ---------------------------------------------------------------------------------------------------------------- keys
class _Held(msgspec.Struct, array_like=True):
    """The newest key of a subject that this task made: its id, and the value of its record."""

    name: str
    value: bytes


class TaskKeys:
    """Data keys of one task that seals: one per subject, in its own state; new ones are said in the same transaction."""

    def __init__(self, plan: Plan, vault: Vault, task: TP, published: GlobalTable | None = None) -> None:
        """`published`: the process's copy of the keys topic, asked for what was wrapped anew; without one it is done here."""
        self.topic, self.partitions, self.vault, self.published = plan.keys, plan.partitions, vault, published
        self.table: Table[_Held] = Table(KEYS, msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder(_Held).decode)
        self.sealer = Sealer(plan.app, plan.govern_task(*task), vault.master, self._records, vault.random)

    def keys(
        self, subjects: Collection[str], out: Outbox, lives: Mapping[str, int] | None = None
    ) -> dict[str, DataKey]:
        """The key of each subject, of its life (0 where none is said); those made just now go out."""
        found, new = self.sealer.keys(subjects, lives)
        for record in new:
            self._say(record, out)
        return found

    def has(self, subject: str) -> bool:
        """Whether there is a key of a subject, of whatever life."""
        return self.table.get(subject.encode()) is not None

    def _say(self, record: KeyRecord, out: Outbox) -> None:
        assert record.value is not None
        subject, name = record.partition_by, record.key.decode().partition("\0")[2]
        self.table.put(subject.encode(), _Held(name, record.value))
        out.send(self.topic, record.key, record.value, partition_of(subject.encode(), self.partitions))

    def _records(self, subjects: Collection[str]) -> Mapping[str, Mapping[str, bytes]]:
        found = {s: self._held(s) for s in subjects}
        return {s: {row.name: row.value} for s, row in found.items() if row is not None}

    def _held(self, subject: str) -> _Held | None:
        """What the task has of a subject, wrapped as it is now, so that old master keys can go. Raises Stale."""
        row = self.table.get(subject.encode())
        if row is None or generation_of(row.value) == self.vault.master.current:
            return row
        key = record_key(subject, row.name)
        if self.published is not None:
            value = self.published.get(key, self.topic)
        else:
            value = rewrapped_value(key, row.value, self.vault.master)
        if value is None:  # destroyed; or nobody has what wrapped it any more
            self.table.delete(subject.encode())
            return None
        if value != row.value:
            row = _Held(row.name, value)
            self.table.put(subject.encode(), row)
        return row

    def open(self, value: Any, subject: str, field: str) -> bytes:
        """What this task sealed. Raises Misfit for anything else, also where the key was destroyed."""
        sealed = read_sealed(value)
        held = self._held(subject)
        if held is None or held.name != sealed.key_id:
            raise Misfit("unknown-row", "what was sealed cannot be opened any more: its key was destroyed, or replaced")
        (key,) = unwrap_keys(self.vault.app, [(subject, held.name, held.value)], self.vault.master)
        found = key.open(sealed)
        check_place(sealed, (subject,), (field,))
        return found

    def destroy(self, subject: str) -> None:
        """Forget the key of a subject that is erased. Its record in the keys topic is destroyed by who erases."""
        self.table.delete(subject.encode())
        self.sealer.forget(subject)

    def forget(self) -> None:
        """After an abort: what was made just now may never have been written."""
        self.sealer.forget()

    # ------------------------------------------------------------------------------------------------- dead letters
    def seal_letter(self, time_ms: int, content: bytes, out: Outbox) -> SealedValue:
        """Bytes of which nobody knows whose they are, sealed with the key of the day of their append time."""
        subject = letters_of(time_ms)
        key = self.keys((subject,), out)[subject]
        return SealedValue(key.seal(LETTER, content), subject)

    def open_letter(self, value: Any) -> bytes:
        """Raises Misfit for what this task did not seal as a letter."""
        sealed = read_sealed(value)
        if not sealed.subject.startswith(LETTERS):
            raise Misfit("sealed-elsewhere", "a sealed value stands where a dead letter was expected")
        return self.open(value, sealed.subject, LETTER)


LETTERS = "~dlq/"  # in place of a subject, whose namespace begins with a letter


def letters_of(time_ms: int) -> str:
    """Whom the dead letters of a day are sealed for: nobody but the day, since 1970."""
    return f"{LETTERS}{max(time_ms, 0) // DAY_MS}"
