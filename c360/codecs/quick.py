"""Records with paths, units and scales in one pass of the decoder, for payloads that are as declared.

`Layout` takes such a record from its payload place by place and knows what to say of every odd one. Nearly none are odd,
so the places are also a tree of structs, decoded at once, and straight-line code that makes the record of it: for
`id = field("data.id")`, `at = field("data.at", unit="ms")` and `note = field("note", default="-")`

    def read(data):
        tree = decode(data)
        value2 = tree.at1
        return check(record(id=tree.at0.at0, at=convert1(tree.at0.at1), note=default2 if value2 is UNSET else value2))

What does not fit raises, and `Layout` looks again. Nothing a user wrote becomes code but the names of fields.
Measured on an order of `examples/shop` (4 fields, one a time in µs), loaded machine: 1.9 µs instead of 4.9.
"""

from __future__ import annotations

import keyword
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from msgspec import NODEFAULT, UNSET

from c360.codecs.record import FieldInfo, Record

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_from_s = datetime.fromtimestamp
# Of whole numbers; what else a number may be is left to the layout.
TIMES: dict[str, Callable[[int], datetime]] = {
    "s": lambda n: EPOCH + timedelta(0, n),
    # Until 2096 a float of seconds has its milliseconds right when rounded to microseconds; half the time of a timedelta.
    "ms": lambda n: _from_s(n / 1000, UTC) if 0 <= n < 4_000_000_000_000 else EPOCH + timedelta(0, 0, n * 1000),
    "us": lambda n: EPOCH + timedelta(0, 0, n),
    "ns": lambda n: EPOCH + timedelta(0, 0, n // 1000),
}


@dataclass(frozen=True)
class Leaf:
    """A field, the type its value is decoded as, and what makes the value of that; `convert` is not asked about None."""

    info: FieldInfo
    kind: Any
    convert: Callable[[Any], Any] | None


def compile_quick(
    record: type[Record],
    leaves: Sequence[Leaf],
    check: Callable[[Any], Any] | None,
    decoder: Callable[[Any], Callable[[Any], Any]] = lambda tree: msgspec.json.Decoder(tree).decode,
    apart: Callable[[Leaf], Callable[[Any], Any]] | None = None,
) -> Callable[[Any], Any] | None:
    """From a payload to the record, or any exception. None where the places are no tree of names.

    `decoder`: from a type to what makes such values of payloads: of their bytes. `apart`: what reads one field of a payload by
    itself, UNSET where it is not there; with it, fields whose places are in no tree with the others are read so.
    """
    inside = [leaf for leaf in leaves if apart is None or _tree([leaf]) is not None]
    outside = [leaf for leaf in leaves if leaf not in inside]
    while apart is not None and _tree(inside) is None:  # a value is wanted whole, and a part of it too
        outside.append(max(inside, key=lambda leaf: leaf.info.path.count(".")))
        inside.remove(outside[-1])
    tree = _tree(inside)
    if tree is None or not all(_sayable(leaf.info.name) for leaf in leaves):
        return None
    names: dict[str, Any] = {"record": record, "UNSET": UNSET, "check": check}
    defaults = {f.name: f for f in msgspec.structs.fields(record)}
    lines, given = [], []
    at = dict(_places(tree, "tree"))
    for i, leaf in enumerate(leaves):
        info = leaf.info
        convert = TIMES.get(info.unit or "", leaf.convert)
        if apart is not None and leaf in outside:
            names[f"apart{i}"], convert, value = apart(leaf), None, f"apart{i}(data)"
        else:
            value = at[id(leaf)]
        if convert is not None or not _required(leaf):
            lines.append(f"value{i} = {value}")
            value = f"value{i}"
        made = value
        if convert is not None:
            names[f"convert{i}"] = convert
            made = f"convert{i}({value})"
            if info.optional:
                made = f"None if {value} is None else {made}"
        if not _required(leaf):
            default = defaults[info.name]
            constant = default.default is not NODEFAULT
            names[f"default{i}"] = default.default if constant else default.default_factory
            made = f"default{i}{'' if constant else '()'} if {value} is UNSET else {made}"
        given.append(f"{info.name}={made}")
    made = f"record({', '.join(given)})"
    lines += [f"return {made}" if check is None else f"return check({made})"]
    text = "\n    ".join(["def read(data):", "tree = decode(data)", *lines])
    names["decode"] = decoder(_struct(tree))
    exec(compile(text, "<quick>", "exec"), names)
    read: Callable[[Any], Any] = names["read"]
    return read


_Tree = dict[str, Any]  # name -> Leaf or tree


def _required(leaf: Leaf) -> bool:
    return leaf.info.required and not leaf.info.optional


def _tree(leaves: Sequence[Leaf]) -> _Tree | None:
    tree: _Tree = {}
    for leaf in leaves:
        *above, last = leaf.info.path.split(".")
        node = tree
        for name in above:
            node = node.setdefault(name, {})
            if isinstance(node, Leaf):
                return None  # a value is wanted whole, and a part of it too
        if last in node or any(part.isdecimal() for part in (*above, last)[1:]) or not _sayable(leaf.info.name):
            return None
        node[last] = leaf
    return tree


def _sayable(name: str) -> bool:
    return name.isidentifier() and not keyword.iskeyword(name)


def _places(tree: _Tree, said: str) -> list[tuple[int, str]]:
    """Where in the decoded structs each leaf is."""
    found = []
    for i, part in enumerate(tree.values()):
        place = f"{said}.at{i}"
        found += [(id(part), place)] if isinstance(part, Leaf) else _places(part, place)
    return found


def _struct(tree: _Tree) -> Any:
    fields: list[Any] = []
    for i, (name, part) in enumerate(tree.items()):
        if not isinstance(part, Leaf):
            inner = _struct(part)
            need = any(f.required for f in msgspec.structs.fields(inner))
            options: dict[str, Any] = {} if need else {"default_factory": inner}
            kind = inner
        else:
            options = {} if _required(part) else {"default": UNSET}
            kind = int if part.info.unit in TIMES else part.kind
            if part.info.optional and kind is not Any:
                kind = kind | None
        fields.append((f"at{i}", kind, msgspec.field(name=name, **options)))
    return msgspec.defstruct("Tree", fields, kw_only=True)
