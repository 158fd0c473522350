"""What the far side of a door should hold: of each profile, by the words of the design, one after the other.

Of which version the records are is for who asks to say: of a sink, that of the version which is live.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from c360.classes import FieldClass
from c360.declare import ProjectionDeclaration
from c360.governance.consent import State
from c360.plan import Plan, class_of_attribute
from c360.profile.attribute import Attribute
from c360.rights import Door
from c360.testing.oracle.profiles import as_json, as_python, derived_values

LISTED = 2_000  # a record with more may not list all, and whom it does not list nobody can ask
NEVER = 1 << 62
Opened = Callable[
    [Any, str, str], bytes | None
]  # (sealed value, subject, field) → its JSON; None: its key was destroyed
NOTHING: Any = object()


def may_leave(
    door: Door, record: Mapping[str, Any], states: Mapping[str, State], gone: Collection[str], now: int
) -> bool:
    """By what is known of all identifiers. `gone`: those that are suppressed."""
    labels = {record["profile_id"], *record["subjects"], *record["identifiers"]}
    if labels & set(gone):
        return False
    if door.purpose.basis != "consent":
        return True
    if record["subjects_total"] > len(record["subjects"]) or len(record["identifiers"]) >= LISTED:
        return False
    said = []
    for label in labels:
        newest = states.get(label, {}).get(door.purpose.name)
        word = None if newest is None else newest.refusal or newest.grant
        if word is not None and now < (NEVER if word.expires_at is None else word.expires_at):
            said.append(word.status)
    return "granted" in said and all(status == "granted" for status in said)


class Leaving:
    """What leaves of the profiles that may."""

    def __init__(self, plan: Plan, door: Door, projection: ProjectionDeclaration, opened: Opened | None) -> None:
        """`projection`: the version whose records these are."""
        plan = plan.at(projection.govern)
        self.plan, self.door, self.projection, self.opened = plan, door, projection, opened
        self.shown: list[Attribute] = []
        for attribute, declaration in zip(projection.attributes, projection.declarations, strict=True):
            known = any(door.purpose.name in plan.source_of(item.record).purposes for item in declaration.inputs)
            sensitive = class_of_attribute(plan, declaration) is FieldClass.SENSITIVE
            taken = door.sink is not None and attribute.name in door.sink.sensitive
            if known and (taken or not sensitive):
                self.shown.append(attribute)
        names = {a.name for a in self.shown}
        self.hidden = [a.name for a in projection.attributes if a.name not in names]

    def of(self, record: Mapping[str, Any]) -> Any:
        """The JSON value; NOTHING where nothing leaves."""
        part = record.get("views", {}).get(self.door.purpose.name, record)
        if part is None:
            return NOTHING
        values = {a.name: self._clear(a, part["attributes"][a.name]) for a in self.shown}
        if self.door.sink is not None:
            return self._given(self.door.sink.function, values)
        projection = self.projection
        return {
            "profile_id": record["profile_id"],
            "projection": projection.name,
            "version": projection.version,
            "purpose": self.door.purpose.name,
            "subjects": part["subjects"],
            "subjects_total": part["subjects_total"],
            "identifiers": part["identifiers"],
            "attributes": values | derived_values(projection, values, self.hidden),
            "as_of": part["as_of"],
        }

    def _given(self, function: Callable[[Any], Any], values: Mapping[str, Any]) -> Any:
        def refuse(_: Any) -> Any:
            raise AttributeError

        made = type("Seen", (self.projection.record,), {name: property(refuse) for name in self.hidden})
        try:
            given = as_json(function(made(**{a.name: as_python(a, values[a.name]) for a in self.shown})))
        except Exception:  # the user's code: nothing leaves
            return NOTHING
        return NOTHING if given is None else given

    def _clear(self, attribute: Attribute, value: Any) -> Any:
        clear = self._open(value)
        if clear is NOTHING:
            return None
        if attribute.kind in ("top", "collect") and clear != value:
            first = {_text(one): one for one in reversed(clear)}
            order = sorted(first) if attribute.kind == "collect" else dict.fromkeys(map(_text, clear))
            return [first[text] for text in order]
        return clear

    def _open(self, value: Any) -> Any:
        if isinstance(value, dict) and "~sealed" in value:
            assert self.opened is not None, "a sealed value, and no key"
            text = self.opened(value, value["subject"], value["~sealed"].split(":")[1])
            return NOTHING if text is None else json.loads(text)
        if isinstance(value, list):
            return [one for one in map(self._open, value) if one is not NOTHING]
        if isinstance(value, dict):
            return {k: None if (one := self._open(v)) is NOTHING else one for k, v in value.items()}
        return value


def is_same(said: Any, found: Any) -> bool:
    """Whether what was read of Avro, as Python has it, is this JSON value."""
    match found:
        case dict():
            names = {_avro_name(name): name for name in said} if isinstance(said, dict) else None
            return (
                names is not None
                and names.keys() <= found.keys()
                and all(is_same(said.get(names.get(name, name)), one) for name, one in found.items())
            )
        case list():
            return isinstance(said, list) and len(said) == len(found) and all(map(is_same, said, found))
        case Decimal():
            return isinstance(said, str) and said == format(found, "f")
        case datetime():
            return isinstance(said, str) and datetime.fromisoformat(said) == found
        case date():
            return bool(said == found.isoformat())
        case str() if said != found:  # what has no type of its own is its JSON text
            return found[:1] in '[{"-0123456789tfn' and bool(json.loads(found) == said)
        case _:
            return bool(found == said) and (type(found) is bool) == (type(said) is bool)


def _avro_name(name: str) -> str:
    return "".join(c if c.isascii() and (c.isalnum() or c == "_") else f"_u{ord(c):04x}" for c in name)


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
