"""Whom a record is about in which somebody says something of themselves: consent, and requests to be forgotten."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from operator import attrgetter
from typing import Any, NamedTuple

from c360.classes import classified
from c360.codecs.record import Record
from c360.errors import Misfit
from c360.governance.names import Names
from c360.identity.namespace import Namespace
from c360.plan import Plan
from c360.rights import Asked


class About(NamedTuple):
    """The labels of those identifiers that can be read, each once; and what is wrong with the first that cannot."""

    labels: tuple[str, ...]
    misfit: Misfit | None = None


class AskedReader:
    """Compiled for one record type. The raw key counts only where no field says who it is."""

    def __init__(self, plan: Plan, asked: Asked, names: Names) -> None:
        self.name = asked.record.__name__
        self.fields = [
            (attrgetter(link.name), link.many, _labels(names, link.namespace, asked)) for link in asked.identifiers
        ]
        self.namespaces = {n.name: _labels(names, n, asked) for n in plan.identifiers.values()}
        self.any = None if asked.any_identifier is None else attrgetter(asked.any_identifier)
        self.key = None if asked.key is None else _labels(names, asked.key, asked)
        self.tenant = None if asked.tenant is None else attrgetter(asked.tenant)

    def about(self, record: Record, raw_key: bytes | None) -> About:
        """Whom it is about; of nobody, the misfit says why."""
        tenant = None if self.tenant is None else self.tenant(record) or ""
        labels: dict[str, None] = {}
        wrong: Misfit | None = None
        for make in self._sayings(record, raw_key):
            try:
                labels[make(tenant)] = None
            except Misfit as misfit:
                wrong = wrong or misfit
        if not labels and wrong is None:
            wrong = Misfit("no-subject", f"{self.name}: it has no identifier, so it is about nobody")
        return About(tuple(labels), wrong)

    def _sayings(self, record: Record, raw_key: bytes | None) -> Iterator[Callable[[Any], str]]:
        """What makes a label of each identifier that is there, of the tenant. What they raise is for that one only."""
        found = False
        for read, many, label in self.fields:
            value = read(record)
            for one in (value or ()) if many else (value,):
                if one is not None:
                    found = True
                    yield _bound(label, one)
        if self.any is not None and (said := self.any(record)) is not None:
            found = True
            yield lambda tenant: self._any_label(said, tenant)
        if not found and self.key is not None:
            yield lambda tenant: self._key_label(raw_key, tenant)

    def _any_label(self, said: str, tenant: Any) -> str:
        namespace, colon, value = said.partition(":")
        if not colon:
            raise Misfit("unknown-namespace", f"{self.name}: an identifier does not say its namespace, as in crm:7")
        label = self.namespaces.get(namespace)
        if label is None:
            raise Misfit(
                "unknown-namespace",
                f"{self.name}: an identifier is of a namespace that no @app.identifier declares; declared are:"
                f" {', '.join(sorted(self.namespaces)) or 'none'}",
            )
        return label(value, tenant)

    def _key_label(self, raw_key: bytes | None, tenant: Any) -> str:
        assert self.key is not None
        if raw_key is None:
            raise Misfit("no-subject", f"the record has no key, and {self.name} takes its identifier from the key")
        try:
            return self.key(raw_key.decode(), tenant)
        except UnicodeDecodeError:
            raise Misfit("no-subject", f"the key is not UTF-8, and {self.name} takes its identifier from it") from None


Label = Callable[[str, Any], str]
"""From a value and its tenant (None: there are none) to the label."""


def _labels(names: Names, namespace: Namespace, asked: Asked) -> Label:
    if asked.tenant is not None:
        return lambda value, tenant: names.label(namespace, value, tenant)
    of_many = names.labels(namespace)
    return lambda value, _: of_many(value)


def _bound(label: Label, value: str) -> Callable[[Any], str]:
    return lambda tenant: label(value, tenant)


def is_personal(plan: Plan, asked: Asked) -> bool:
    """Whether the bytes of a record may say who somebody is."""
    by_key = asked.key is not None and asked.key.personal
    return by_key or any(classified(asked.record, plan.personal_kinds))
