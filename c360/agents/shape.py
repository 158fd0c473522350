"""What a door makes of a profile: the internal record as one purpose may see it, opened, its derived values computed anew.

    look ──► Seen ──wanted──► keys, fetched in bulk by the door
                └──record, instance──► what leaves

Pure: what is sealed is opened by a function that the door gives. Knows nothing of consent, keys and topics.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import msgspec

from c360.agents.render import derived_values, lazily_typed
from c360.classes import FieldClass, classified, classified_in
from c360.declare import Input, Projection, ProjectionDeclaration
from c360.governance.purposes import view_of
from c360.governance.sealing import Destroyed, is_sealed, read_sealed
from c360.plan import Plan, classes_of, sets_of
from c360.profile.attribute import Attribute
from c360.profile.record import LEFT_OUT
from c360.profile.slots import LISTED_TO_ASK

Open = Callable[[Any, Container[str], Container[str]], bytes]
"""open(sealed value, subjects, fields): the JSON text that was sealed, for one of these subjects and fields.

Raises Destroyed where its key is; whatever else it raises goes through. `Opener.open` of `c360.governance.keys` is one.
"""

_GONE: Any = object()
_canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode


class _Anybody:
    """Stands for subjects of which not all are listed."""

    def __contains__(self, subject: object) -> bool:
        return True


class Seen(NamedTuple):
    """What a purpose sees of one profile; values are as they were stored, sealed or not."""

    profile_id: str
    subjects: list[str]
    subjects_total: int
    identifiers: list[str]
    attributes: dict[str, Any]  # those that it may see and takes, in the order of the projection
    as_of: str | None
    owners: Container[str]  # the subjects whose sealed values may stand here


class Shape:
    """What one purpose sees of the profiles of a projection, compiled once."""

    def __init__(
        self, plan: Plan, projection: ProjectionDeclaration, purpose: str | None, *, sensitive: Collection[str] = ()
    ) -> None:
        """`purpose` None: all. `sensitive`: the attributes of this class that are taken; the others are left out."""
        plan = plan.at(projection.govern)
        self.projection, self.purpose = projection, purpose
        classes = classes_of(plan, projection)
        visible = None if purpose is None else view_of(sets_of(plan, projection), purpose).states
        self.hidden: dict[str, str] = {}
        """By attribute that is left out, why."""
        for attribute in projection.attributes:
            if visible is not None and attribute.name not in visible:
                self.hidden[attribute.name] = (
                    f"may not be used for {purpose}: none of its sources may; add {purpose} to purposes= of one, or do without"
                )
            elif classes.get(attribute.name) is FieldClass.SENSITIVE and attribute.name not in sensitive:
                self.hidden[attribute.name] = (
                    f"is Sensitive, and left out where it is not taken by name: sensitive=[{attribute.name!r}] on a sink"
                )
        self.taken = tuple(a for a in projection.attributes if a.name not in self.hidden)
        self.sealed: dict[str, frozenset[str]] = {}
        """By attribute that may hold sealed values, the fields of which they may be."""
        for attribute, declaration in zip(projection.attributes, projection.declarations, strict=True):
            if attribute.name in classes and attribute.name not in self.hidden:
                fields = (sealed_as(plan, item) for item in declaration.inputs)
                self.sealed[attribute.name] = frozenset[str]().union(*fields)
        self._instance = lazily_typed(projection, self.hidden)

    def look(self, record: Mapping[str, Any]) -> Seen | None:
        """What is seen of a decoded record of the projection's own topic; None: nothing of it may be used."""
        part: Mapping[str, Any] | None = record
        if self.purpose is not None:
            part = record.get("views", {}).get(self.purpose, record)
        if part is None:
            return None
        attributes = {a.name: part["attributes"][a.name] for a in self.taken}
        owners: Container[str] = (
            _Anybody() if record["subjects_total"] > len(record["subjects"]) else record["subjects"]
        )
        return Seen(
            record["profile_id"],
            part["subjects"],
            part["subjects_total"],
            part["identifiers"],
            attributes,
            part["as_of"],
            owners,
        )

    def wanted(self, seen: Seen) -> set[tuple[str, str]]:
        """The keys, as (subject, key id), that opening it will ask for. Raises Misfit for a sealed value that is none."""
        found = (sealed for name in self.sealed for sealed in _sealed_in(seen.attributes[name]))
        return {(sealed.subject, sealed.key_id) for sealed in map(read_sealed, found)}

    def record(self, seen: Seen, open: Open) -> tuple[dict[str, Any], Exception | None]:
        """The record of the view as plain JSON, all opened; and what a derived value raised, if one did: it is null then.

        A value whose key was destroyed is null, and not in lists. A derived value that looks at what is left out is so, too.
        """
        values = self._opened(seen, open)
        derived, failed = derived_values(self._instance(**values), self.projection.derived)
        computed = zip(self.projection.derived, derived, strict=True)
        return {
            "profile_id": seen.profile_id,
            "projection": self.projection.name,
            "version": self.projection.version,
            "purpose": self.purpose,
            "subjects": seen.subjects,
            "subjects_total": seen.subjects_total,
            "identifiers": seen.identifiers,
            "attributes": values | {name: value for name, value in computed if value is not LEFT_OUT},
            "as_of": seen.as_of,
        }, failed

    def instance(self, seen: Seen, open: Open) -> Projection:
        """The same as an instance of the user's class, with Python types; asking for what is left out raises Unseen."""
        return self._instance(**self._opened(seen, open))

    def _opened(self, seen: Seen, open: Open) -> dict[str, Any]:
        values = dict(seen.attributes)
        for attribute in self.taken:
            if (fields := self.sealed.get(attribute.name)) is not None:
                values[attribute.name] = self._open(attribute, values[attribute.name], seen.owners, fields, open)
        return values

    def _open(
        self, attribute: Attribute, value: Any, owners: Container[str], fields: Container[str], open: Open
    ) -> Any:
        opened = _clear(value, lambda sealed: open(sealed, owners, fields))
        if opened is _GONE:
            return None
        if attribute.kind in ("top", "collect"):  # one value may have been sealed with several keys
            by_text = {_canonical(v): v for v in reversed(opened)}
            texts = sorted(by_text) if attribute.kind == "collect" else list(map(_canonical, opened))
            return [by_text[text] for text in dict.fromkeys(texts)]
        return opened


def sealed_as(plan: Plan, item: Input) -> frozenset[str]:
    """The fields of which sealed values of this input may be, as they say it themselves: `Customer.address.street`."""
    if item.name is None:
        return frozenset()
    personal = [kind for kind, namespace in plan.identifiers.items() if namespace.personal]
    if not item.enriched:
        return frozenset(c.said(item.record) for c in classified(item.record, personal) if c.path[0] == item.name)
    (enrichment,) = (
        e for e in plan.source_of(item.record).enrichments if (e.record, e.name) == (item.record, item.name)
    )
    inside = classified_in(enrichment.returns, str(item), personal)
    return frozenset(str(item) + c.said(item.record).removeprefix(item.record.__name__) for c in inside)


def is_listed(record: Mapping[str, Any]) -> bool:
    """Whether a record lists all of its subjects and identifiers: only then all can be asked whether they agree."""
    return record["subjects_total"] == len(record["subjects"]) and len(record["identifiers"]) < LISTED_TO_ASK


def _sealed_in(value: Any) -> Iterator[Any]:
    if is_sealed(value):
        yield value
    elif isinstance(value, list | dict):
        inner: Iterable[Any] = value.values() if isinstance(value, dict) else value
        for one in inner:
            yield from _sealed_in(one)


def _clear(value: Any, open: Callable[[Any], bytes]) -> Any:
    """The value with everything opened; _GONE for one whose key was destroyed."""
    if is_sealed(value):
        try:
            return msgspec.json.decode(open(value))
        except Destroyed:
            return _GONE
    if isinstance(value, list):
        return [one for one in (_clear(v, open) for v in value) if one is not _GONE]
    if isinstance(value, dict):
        return {k: None if (one := _clear(v, open)) is _GONE else one for k, v in value.items()}
    return value
