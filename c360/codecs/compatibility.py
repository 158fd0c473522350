"""Whether what was written by one Avro schema means the same when it is read by a later one.

The official checker (Apache's `avro`) tells whether it can be read at all. What it passes although a reader would be misled
is told by rules of our own: each compares a node of the reader's schema with the one of the writer's that it is read from.
Knows no files, no history and no registry. Sources: Avro 1.12, "Schema Resolution", "Logical Types", "Aliases";
Debezium, "Data types".
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import avro.compatibility
import avro.errors
import avro.schema
import fastavro

Severity = Literal["error", "warning"]
OFFICIAL = "compatibility"
RULES: Mapping[str, Severity] = {
    OFFICIAL: "error",
    "decimal-scale": "error",
    "decimal-precision": "error",
    "unit": "error",
    "logical-type": "error",
    "default": "error",
    "aliases": "error",
    "class": "error",
    "name": "error",
    "key": "error",
    "enum": "warning",
    "promotion": "warning",
    "nullable": "warning",
    "order": "warning",
}
"""What two versions can differ in, and how much it matters; docs/schemas.md explains each."""
CLASS = "c360.class"  # property of a field or a type: whom its values are about
CLASSES = {"personal": 1, "sensitive": 2}
PRIMITIVE = {"null", "boolean", "int", "long", "float", "double", "bytes", "string"}
NAMED = {"record", "error", "enum", "fixed"}
WIDER = {
    "int": ("long", "float", "double"), "long": ("float", "double"), "float": ("double",),
    "bytes": ("string",), "string": ("bytes",),
}  # fmt: skip
LOSSY = {("int", "float"), ("long", "float"), ("long", "double"), ("bytes", "string"), ("string", "bytes")}
DEEPEST = 200  # types within types, more than anybody wrote by hand
TEXT_ONLY = {None, "uuid"}  # a UUID is text to us, with the mark or without


class NotASchema(Exception):
    """The text is none; the message says why."""


@dataclass(frozen=True)
class Difference:
    """What is other in a reader's schema, where (names of fields, `[]` items, `{}` values), and what to do."""

    rule: str
    place: str
    message: str
    warned: bool = False  # less than the rule's severity

    @property
    def severity(self) -> Severity:
        return "warning" if self.warned else RULES[self.rule]


# ------------------------------------------------------------------------------------------------------------- texts
def parsed(text: str | bytes) -> Any:
    """The JSON of a schema, not yet looked into. Raises NotASchema."""
    try:
        return json.loads(text)
    except RecursionError:
        raise NotASchema("it is nested too deeply") from None
    except ValueError as error:
        raise NotASchema("the file is empty" if not text.strip() else f"it is not JSON: {error}") from None


def defined(schema: Any) -> dict[str, Any]:
    """The named types that a schema defines, by full name. Raises NotASchema."""
    found: dict[str, Any] = {}
    _walk_names(schema, "", lambda name, said: found.setdefault(name, said), lambda name: None)
    return found


def wanted(schema: Any) -> set[str]:
    """Full names that a schema uses and does not define. Raises NotASchema."""
    own, used = set[str](), set[str]()
    _walk_names(schema, "", lambda name, said: own.add(name), used.add)
    return used - own


def inlined(schema: Any, known: Mapping[str, Any]) -> Any:
    """The schema with the first use of each of the `known` types (by full name) replaced by its definition."""
    here = set(defined(schema))

    def within(part: Any, space: str, depth: int) -> Any:
        if depth > DEEPEST:
            raise NotASchema("it is nested too deeply")
        if isinstance(part, list):
            return [within(branch, space, depth + 1) for branch in part]
        if isinstance(part, str):
            name = part if part in known else _full(part, space)
            if part in PRIMITIVE or name in here or name not in known:
                return part if part in PRIMITIVE or name not in here else name
            here.add(name)
            definition = {**known[name], "name": name}  # a dot in the name, or the namespace, keeps it where it was
            if "." not in name:
                definition["namespace"] = ""
            else:
                definition.pop("namespace", None)
            return within(definition, "", depth + 1)
        if not isinstance(part, dict):
            return part
        kind = _kind(part)
        if kind in NAMED:
            space = _space(part, space)
        changed = {key: within(part[key], space, depth + 1) for key in ("items", "values") if key in part}
        if kind not in NAMED | {"array", "map"}:
            changed["type"] = within(part.get("type"), space, depth + 1)
        if isinstance(part.get("fields"), list):
            changed["fields"] = [within(one, space, depth + 1) for one in part["fields"]]
        return {**part, **changed}

    return within(schema, "", 0)


def _walk_names(
    schema: Any, space: str, define: Callable[[str, Any], Any], use: Callable[[str], Any], depth: int = 0
) -> None:
    if depth > DEEPEST:
        raise NotASchema("it is nested too deeply")
    if isinstance(schema, list):
        for branch in schema:
            _walk_names(branch, space, define, use, depth + 1)
    elif isinstance(schema, str):
        if schema not in PRIMITIVE:
            use(_full(schema, space))
    elif isinstance(schema, dict):
        kind = _kind(schema)
        if kind in NAMED and isinstance(schema.get("name"), str):
            space = _space(schema, space)
            define(_full(schema["name"], space), schema)
        elif kind not in NAMED | {"array", "map"}:
            _walk_names(schema.get("type"), space, define, use, depth + 1)
        for key in ("items", "values"):
            if key in schema:
                _walk_names(schema[key], space, define, use, depth + 1)
        for one in schema["fields"] if isinstance(schema.get("fields"), list) else ():
            if isinstance(one, dict):
                _walk_names(one.get("type"), space, define, use, depth + 1)


def _kind(said: Mapping[str, Any]) -> str | None:
    """Of a type as an object; None: what it says is a type by itself."""
    kind = said.get("type")
    return kind if isinstance(kind, str) else None


def _full(name: str, space: str) -> str:
    return name if "." in name or not space else f"{space}.{name}"


def _space(said: Mapping[str, Any], space: str) -> str:
    """The namespace that names within a named type are in."""
    name = said.get("name")
    if isinstance(name, str) and "." in name:
        return name.rpartition(".")[0]
    given = said.get("namespace", space)
    return given if isinstance(given, str) else space


def _with_full_aliases(said: Any, space: str) -> Any:
    """The same schema; its types' aliases are full names, as the official checker looks for no other."""
    if isinstance(said, list):
        return [_with_full_aliases(branch, space) for branch in said]
    if not isinstance(said, dict):
        return said
    made = dict(said)
    if _kind(said) in NAMED:
        space = _space(said, space)
        if "aliases" in said:
            made["aliases"] = [_full(alias, space) for alias in _texts(said["aliases"])]
    for inner in ("type", "items", "values"):
        if inner in said:
            made[inner] = _with_full_aliases(said[inner], space)
    if isinstance(said.get("fields"), list):
        made["fields"] = [{**one, "type": _with_full_aliases(one["type"], space)} for one in said["fields"]]
    return made


# ------------------------------------------------------------------------------------------------------------- nodes
@dataclass(eq=False)
class Node:
    """A type, its names resolved: a type that contains itself is a circle of nodes."""

    kind: str
    said: Mapping[str, Any]
    name: str = ""  # full name, of named types
    inside: list[Node] = field(default_factory=list)  # branches of a union; the item or value
    fields: dict[str, FieldNode] = field(default_factory=dict)

    @property
    def aliases(self) -> set[str]:
        space = self.name.rpartition(".")[0]
        return {_full(one, space) for one in _texts(self.said.get("aliases"))}

    @property
    def short(self) -> str:
        return self.name.rpartition(".")[2]

    @property
    def meaning(self) -> str | None:
        """What its values stand for, beside their type."""
        said = self.said.get("logicalType")
        if not isinstance(said, str) and self.kind in PRIMITIVE:
            said = self.said.get("connect.name")  # Debezium's own: io.debezium.time.MicroTimestamp
        return said if isinstance(said, str) else None

    def branches(self) -> list[Node]:
        return self.inside if self.kind == "union" else [self]

    def nullable(self) -> bool:
        return any(branch.kind == "null" for branch in self.branches())


@dataclass(eq=False)
class FieldNode:
    """A field of a record."""

    name: str
    said: Mapping[str, Any]
    node: Node

    @property
    def aliases(self) -> list[str]:
        return _texts(self.said.get("aliases"))


def _texts(said: Any) -> list[str]:
    return [one for one in said if isinstance(one, str)] if isinstance(said, list) else []


class Schema:
    """A schema, checked as both libraries read it, for comparison with others."""

    def __init__(self, said: Any) -> None:
        """`said`: its JSON, what it refers to inlined. Raises NotASchema."""
        self.said = said
        missing = wanted(said)
        if missing:
            raise NotASchema(f"it uses {', '.join(sorted(missing))}, which nothing defines")
        try:
            fastavro.parse_schema(said)
            with warnings.catch_warnings():  # of logical types that it does not know
                warnings.simplefilter("ignore")
                self.official = avro.schema.parse(json.dumps(_with_full_aliases(said, "")))
        except RecursionError:
            raise NotASchema("it is nested too deeply") from None
        except (fastavro.schema.SchemaParseException, avro.errors.AvroException) as error:
            raise NotASchema(f"it is no Avro schema: {error}") from None
        except Exception as error:  # whatever JSON does to them
            raise NotASchema(f"it is no Avro schema: {type(error).__name__}: {error}") from None
        self._named: dict[str, Node] = {}
        self.root = self._node(said, "")

    @cached_property
    def text(self) -> str:
        """Equal for equal schemas."""
        return json.dumps(self.said, sort_keys=True)

    def _node(self, said: Any, space: str) -> Node:
        if isinstance(said, list):
            return Node("union", {}, inside=[self._node(branch, space) for branch in said])
        if isinstance(said, str):
            return Node(said, {}) if said in PRIMITIVE else self._named[_full(said, space)]
        kind = _kind(said)
        if kind is None:
            return self._node(said["type"], space)  # {"type": {…}}
        if kind in NAMED:
            return self._named_node(said, kind, _space(said, space))
        if kind in ("array", "map"):
            return Node(kind, said, inside=[self._node(said["items" if kind == "array" else "values"], space)])
        return Node(kind, said) if kind in PRIMITIVE else self._node(kind, space)

    def _named_node(self, said: Any, kind: str, space: str) -> Node:
        node = Node("record" if kind == "error" else kind, said, _full(said["name"], space))
        self._named[node.name] = node
        if kind in ("record", "error"):
            for one in said["fields"]:
                node.fields[one["name"]] = FieldNode(one["name"], one, self._node(one["type"], space))
        return node


# --------------------------------------------------------------------------------------------------------- compare
def compare(reader: Schema, writer: Schema, *, key: bool = False) -> list[Difference]:
    """What is wrong with reading by `reader` what was written by `writer`. `key`: they are of a topic's keys."""
    if key:
        return list(_of_key(reader, writer))
    try:
        return [*_officially(reader, writer), *_Walk().differences(reader.root, writer.root)]
    except RecursionError:
        raise NotASchema("it is nested too deeply") from None


def unknown_classes(schema: Schema) -> Iterator[Difference]:
    """Classes that are none: nothing would be sealed by them."""
    for place, said in classes_said(schema):
        if said not in CLASSES:
            yield Difference("class", place, f"{CLASS} is {said!r}; it may be {' or '.join(CLASSES)}")


def classes_said(schema: Schema) -> Iterator[tuple[str, Any]]:
    """Where a schema says a class, and which."""
    seen: set[int] = set()

    def within(node: Node, place: str) -> Iterator[tuple[str, Any]]:
        if CLASS in node.said:
            yield place, node.said[CLASS]
        if id(node) in seen:
            return
        seen.add(id(node))
        for inner in node.inside:
            yield from within(inner, _inside(node, place))
        for one in node.fields.values():
            at = _at(place, one.name)
            if CLASS in one.said:
                yield at, one.said[CLASS]
            yield from within(one.node, at)

    return within(schema.root, "")


def _of_key(reader: Schema, writer: Schema) -> Iterator[Difference]:
    if reader.text != writer.text:
        yield Difference(
            "key", "", "the schema of a key was changed: a key of now has other bytes than the same one of before, so"
            " partitions and compaction no longer bring them together; write to a new topic, or take the change back",
        )  # fmt: skip


REMEDY = {
    "reader_field_missing_default_value": "give the new field a default",
    "name_mismatch": "take the name back, or give the full old name as an alias",
    "fixed_size_mismatch": "take the size back",
    "missing_enum_symbols": "keep the symbols, or give the enum a default",
    "type_mismatch": "take the type back, or add a field with the new type and a default",
    "missing_union_branch": "keep the branch of the union",
}


class _IndexedRecord(avro.schema.RecordSchema):
    """The library makes this dictionary anew for each field: of 10,000 fields that is ten seconds."""

    @cached_property
    def fields_dict(self) -> dict[str, Any]:
        return {one.name: one for one in self.fields}


def _index(schema: Any, seen: set[int]) -> None:
    if id(schema) in seen:
        return
    seen.add(id(schema))
    if isinstance(schema, avro.schema.RecordSchema):
        schema.__class__ = _IndexedRecord
        for one in schema.fields:
            _index(one.type, seen)
    elif isinstance(schema, avro.schema.UnionSchema):
        for branch in schema.schemas:
            _index(branch, seen)
    elif isinstance(schema, avro.schema.ArraySchema):
        _index(schema.items, seen)
    elif isinstance(schema, avro.schema.MapSchema):
        _index(schema.values, seen)


def _officially(reader: Schema, writer: Schema) -> Iterator[Difference]:
    _index(writer.official, set())
    result = _checker().get_compatibility(reader.official, writer.official)
    if result.compatibility is avro.compatibility.SchemaCompatibilityType.incompatible:
        kinds = sorted({kind.value for kind in result.incompatibilities})
        what = ", ".join(kind.replace("_", " ") for kind in kinds)
        where = ", ".join(sorted(set(result.locations) - {"/"})) or "/"
        said = "; ".join(sorted(result.messages))
        todo = "; ".join(REMEDY[kind] for kind in kinds)
        yield Difference(OFFICIAL, "", f"older records cannot be read: {what} ({said}; at {where}): {todo}")


def _checker() -> Any:
    return avro.compatibility.ReaderWriterCompatibilityChecker()  # type: ignore[no-untyped-call]


Rule = Callable[[Node, Node], Iterator[tuple[str, str]]]
"""Of a reader's and a writer's node: rules that are broken, each with a message."""


class _Walk:
    """One comparison: pairs of nodes, each once."""

    def __init__(self) -> None:
        self.seen: set[tuple[int, int, int, int]] = set()
        self.moved: set[tuple[str, str]] = set()  # namespaces, each told once

    def differences(
        self, reader: Node, writer: Node, place: str = "", above: tuple[int, int] = (0, 0)
    ) -> Iterator[Difference]:
        """`above`: the classes that both have from what they are in."""
        ranks = (max(above[0], _rank(reader.said)), max(above[1], _rank(writer.said)))
        pair = (id(reader), id(writer), *ranks)
        if pair in self.seen:
            return
        self.seen.add(pair)
        if ranks[1] > max(ranks[0], above[1]):
            yield _lost(place, ranks)
        if reader.kind == "union" or writer.kind == "union":
            if reader.nullable() and not writer.nullable():
                yield Difference(
                    "nullable", place, "null may be there now, and was not before: whoever reads it must take it"
                )
            for branch in writer.branches():
                fits = _branch_for(branch, reader.branches())
                if fits is not None:
                    yield from self.differences(fits, branch, place, ranks)
            return
        for rule in NODE_RULES:
            for name, message in rule(reader, writer):
                yield Difference(name, place, message, warned=_is_mere_text(name, reader, writer))
        if reader.name and writer.name:
            yield from self._names(reader, writer, place)
        if reader.kind == writer.kind:
            for mine, theirs in zip(reader.inside, writer.inside, strict=True):
                yield from self.differences(mine, theirs, _inside(reader, place), ranks)
            yield from self._fields(reader, writer, place, ranks)

    def _names(self, reader: Node, writer: Node, place: str) -> Iterator[Difference]:
        """A namespace; another name within it the official checker refuses."""
        move = (writer.name.rpartition(".")[0], reader.name.rpartition(".")[0])
        if reader.short != writer.short or move[0] == move[1] or writer.name in reader.aliases or move in self.moved:
            return
        self.moved.add(move)
        yield Difference(
            "name", place, f"{writer.name} is now {reader.name}: readers that compare full names refuse what was"
            f' written before; say "aliases": ["{writer.name}"], or take the name back',
        )  # fmt: skip

    def _fields(self, reader: Node, writer: Node, place: str, ranks: tuple[int, int]) -> Iterator[Difference]:
        for one in reader.fields.values():
            at = _at(place, one.name)
            yield from _taken(one, reader, writer, at)
            old = writer.fields.get(one.name) or next(
                (writer.fields[a] for a in one.aliases if a in writer.fields), None
            )
            if old is None:
                continue
            yield from _of_field(one, old, at)
            own = (max(ranks[0], _rank(one.said)), max(ranks[1], _rank(old.said)))
            if own[1] > max(own[0], ranks[1], _rank(one.node.said)):
                yield _lost(at, own)
            yield from self.differences(one.node, old.node, at, own)


def _inside(node: Node, place: str) -> str:
    return place + {"array": "[]", "map": "{}"}.get(node.kind, "")


def _at(place: str, name: str) -> str:
    return f"{place}.{name}" if place else name


def _rank(said: Mapping[str, Any]) -> int:
    said_class = said.get(CLASS)
    return CLASSES.get(said_class, 0) if isinstance(said_class, str) else 0


def _lost(place: str, ranks: tuple[int, int]) -> Difference:
    names = ["of no class", *CLASSES]
    return Difference(
        "class", place, f"it was {names[ranks[1]]} and is {names[ranks[0]]} now, and the records of before are still"
        f' about people: keep "{CLASS}": "{names[ranks[1]]}", and {names[ranks[1]].title()}[…] in the app',
    )  # fmt: skip


def _branch_for(writer: Node, branches: list[Node]) -> Node | None:
    """The branch of the reader that reads a branch of the writer; None: none does, or which cannot be told."""
    kind = [branch for branch in branches if branch.kind == writer.kind]
    if writer.name:
        for same in (
            lambda branch: branch.name == writer.name,
            lambda branch: writer.name in branch.aliases,
            lambda branch: branch.short == writer.short,
        ):
            for branch in kind:
                if same(branch):
                    return branch
    if len(kind) == 1:
        return kind[0]
    wide = [branch for branch in branches if branch.kind in WIDER.get(writer.kind, ())]
    return wide[0] if wide and not kind else None


# ------------------------------------------------------------------------------------------------------ rules: nodes
def _decimals(reader: Node, writer: Node) -> Iterator[tuple[str, str]]:
    if reader.meaning != "decimal" or writer.meaning != "decimal":
        return
    now, before = ((n.said.get("precision"), n.said.get("scale", 0)) for n in (reader, writer))
    if now[1] != before[1]:
        yield (
            "decimal-scale",
            f"scale {before[1]} became {now[1]}: what was written before is read as another number; add a field instead",
        )
    elif isinstance(now[0], int) and isinstance(before[0], int) and now[0] < before[0]:
        yield "decimal-precision", f"precision {before[0]} became {now[0]}: numbers of before may not fit; take it back"


def _meanings(reader: Node, writer: Node) -> Iterator[tuple[str, str]]:
    now, before = reader.meaning, writer.meaning
    readable = reader.kind == writer.kind or reader.kind in WIDER.get(writer.kind, ())
    if now == before or not readable or not {reader.kind, writer.kind} <= PRIMITIVE | {"fixed"}:
        return
    if now and before and now.rpartition("-")[0] == before.rpartition("-")[0] != "":
        yield "unit", f"{before} became {now}: times of before are read a thousandfold off; add a field instead"
    elif now is None:
        yield "logical-type", f"{before} was lost: values are plain {reader.kind} to readers now; take it back"
    elif before is None:
        yield "logical-type", f"plain {writer.kind} became {now}: values of before were not written as it; add a field"
    else:
        yield "logical-type", f"{before} became {now}: values of before mean something else; add a field instead"


def _is_mere_text(rule: str, reader: Node, writer: Node) -> bool:
    return rule == "logical-type" and {reader.meaning, writer.meaning} <= TEXT_ONLY


def _enums(reader: Node, writer: Node) -> Iterator[tuple[str, str]]:
    if reader.kind != "enum" or writer.kind != "enum":
        return
    now, before = reader.said.get("default"), writer.said.get("default")
    gone = [one for one in writer.said["symbols"] if one not in reader.said["symbols"]]
    if gone and now is not None:
        yield "enum", f"{', '.join(gone)} is gone: records that have it are read as {now}; keep the symbol"
    if now is not None and before is not None and now != before:
        yield "default", f"symbols that are not known were read as {before}, and are as {now} now; take it back"


def _promotions(reader: Node, writer: Node) -> Iterator[tuple[str, str]]:
    if (writer.kind, reader.kind) in LOSSY:
        what = "text that is none" if "bytes" in (reader.kind, writer.kind) else "large numbers lose digits"
        yield "promotion", f"{writer.kind} became {reader.kind}: {what}; see that no reader minds"


NODE_RULES: tuple[Rule, ...] = (_decimals, _meanings, _enums, _promotions)


# ----------------------------------------------------------------------------------------------------- rules: fields
def _of_field(now: FieldNode, before: FieldNode, at: str) -> Iterator[Difference]:
    if "default" in now.said and "default" in before.said and not _same(now.said["default"], before.said["default"]):
        yield Difference(
            "default", at, f"the default {_short(before)} became {_short(now)}: records without the field read otherwise"
            " than they did; take it back",
        )  # fmt: skip
    order = [one.said.get("order", "ascending") for one in (before, now)]
    if order[0] != order[1]:
        yield Difference("order", at, f'"order": {order[0]} became {order[1]}: who sorts by it sorts otherwise')
    lost = [alias for alias in before.aliases if alias not in (*now.aliases, now.name)]
    if lost:
        yield Difference(
            "aliases", at, f"the alias {', '.join(lost)} was lost: records that have the field under that name read as if"
            " it were not there; put it back",
        )  # fmt: skip


def _taken(one: FieldNode, reader: Node, writer: Node, at: str) -> Iterator[Difference]:
    """An alias that is the name of another field of the same record: by the specification either may be meant."""
    for alias in one.aliases:
        if alias == one.name or alias not in writer.fields or one.name not in writer.fields:
            continue
        other = reader.fields.get(alias)
        if other is not None and one.name in other.aliases:
            what = f"{one.name} and {alias} are aliases of each other"
        else:
            what = f"{alias} is an alias of {one.name}, and records of before have both"
        yield Difference(
            "aliases",
            at,
            f"{what}: some readers take the one for the other; give new fields names that were never used",
        )


def _same(one: Any, other: Any) -> bool:
    """Equal as a reader has them: 1 and 1.0 are, of a double; True and 1 are not."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(value, other[name]) for name, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def _short(one: FieldNode) -> str:
    text = json.dumps(one.said["default"])
    return text if len(text) <= 40 else f"{text[:37]}…"
