"""Records of payloads that are Python values already: dicts, with times, Decimals and bytes as they are.

The rules are those of `layout`: paths, scales, units, zones, and the same words for what does not fit.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import isfinite
from typing import Any

import msgspec

from c360.codecs.layout import (
    ODD,
    UNREADABLE,
    Check,
    Read,
    checker_of,
    conversion,
    is_plain,
    misfit_of,
    missing,
    nested_in,
    placed,
)
from c360.codecs.quick import Leaf, compile_quick
from c360.codecs.record import Record, fields_of
from c360.errors import Misfit

_ABSENT: Any = object()


def _converter(kind: Any) -> Read:
    return partial(msgspec.convert, type=kind)


def _nested(wire: Any) -> tuple[Any, Check | None]:
    return nested_in(wire, Any, lambda record: ObjectLayout(record).read, lambda v: v is None)


class ObjectLayout:
    """Reads records of one type from values."""

    def __init__(self, record: type[Record], root: str = "") -> None:
        """`root`: as of `Layout`."""
        self.record, self.name = record, record.__name__
        self.check = checker_of(record)
        fields = [placed(f, root) for f in fields_of(record)]
        leaves = [Leaf(f, *conversion(f"{self.name}.{f.name}", f, _nested)) for f in fields]
        self.places = [(leaf.info, finder(leaf.info.path), _reader(self.name, leaf)) for leaf in leaves]
        self.quick: Read | None
        if not root and is_plain(record):
            self.quick = _checked(_converter(record), self.check)
        else:
            self.quick = compile_quick(record, leaves, self.check, _converter, self._apart)

    def read(self, payload: Any) -> Any:
        """The record of a payload. Raises Misfit."""
        if not isinstance(payload, dict):
            raise Misfit("not-an-object", f"{self.name}: the payload is no record")
        if self.quick is not None:
            try:
                return self.quick(payload)
            except (*ODD, TypeError):
                pass  # in which way, the places say
        made = self.record(**self._values(payload))
        return made if self.check is None else self.check(made)

    def _apart(self, leaf: Leaf) -> Read:
        """What reads a field that lies in a list, or in what is wanted whole, too."""
        find, read = finder(leaf.info.path), _reader(self.name, leaf)
        needed = leaf.info.required and not leaf.info.optional

        text = leaf.convert is None and leaf.kind in (str, str | None)

        def value(payload: Any) -> Any:
            found = find(payload)
            if text and found.__class__ is str:
                return found
            if found is not _ABSENT:
                return read(found)
            if needed:
                raise missing(self.name, leaf.info)
            return msgspec.UNSET

        return value

    def _values(self, payload: dict[str, Any]) -> dict[str, Any]:
        values = {}
        for info, find, read in self.places:
            found = find(payload)
            if found is not _ABSENT:
                values[info.name] = read(found)
            elif info.required and not info.optional:
                raise missing(self.name, info)
        return values


def _checked(read: Read, check: Check | None) -> Read:
    return read if check is None else lambda payload: check(read(payload))


def finder(path: str) -> Read:
    """Finds what lies at a path of names and list indexes; a mark of its own where nothing does."""
    steps = [(part, int(part) if part.isdecimal() else None) for part in path.split(".")]

    def find(here: Any) -> Any:
        for name, index in steps:
            if isinstance(here, dict):
                here = here.get(name, _ABSENT)
            elif index is not None and isinstance(here, list) and index < len(here):
                here = here[index]
            else:
                return _ABSENT
        return here

    return find


def _reader(owner: str, leaf: Leaf) -> Read:
    said, convert = f"{owner}.{leaf.info.name}", leaf.convert
    kind = leaf.kind | None if leaf.info.optional and leaf.kind is not Any else leaf.kind

    def read(found: Any) -> Any:
        try:
            value = msgspec.convert(found, kind)
        except UNREADABLE as error:
            raise misfit_of(error, said) from None
        except TypeError:
            raise Misfit("wrong-type", f"{said}: a value of another type was expected") from None
        return value if convert is None or value is None else convert(value)

    return read


def finite(payload: Any) -> bool:
    """Whether no number in it is infinite or none at all: JSON has no word for these."""
    if isinstance(payload, float):
        return isfinite(payload)
    if isinstance(payload, dict):
        return all(map(finite, payload.values()))
    return all(map(finite, payload)) if isinstance(payload, list) else True


Look = Callable[[Any], bool]


def matches(when: dict[str, Any]) -> Look:
    """Whether a payload has these values at these paths."""
    tests = [(finder(path), wanted) for path, wanted in when.items()]
    return lambda payload: all(
        type(found := find(payload)) is type(wanted) and found == wanted for find, wanted in tests
    )
