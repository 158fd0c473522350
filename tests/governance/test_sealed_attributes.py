"""Attributes over sealed fields: those that need equality only are taken, the others are refused with what to do instead."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from typing import Any

import pytest

from c360 import (
    App,
    Personal,
    Projection,
    Record,
    Sensitive,
    average,
    collect,
    count,
    distinct,
    first,
    flag,
    maximum,
    minimum,
    newest,
    prefer,
    top,
    total,
)
from c360.agents.folding import stored
from c360.declare import identifier_in, value_type, without_none
from c360.errors import DeclarationError
from c360.plan import Plan, classes_of


class Bag:
    """What the declarations of a test are made of."""

    def __init__(self) -> None:
        self.app = app = App("clinic", partitions=2)

        @app.identifier("patient", priority=1, unique=True)
        class Patient(str): ...

        @app.identifier("email", personal=True)
        class Email(str): ...

        class Address(Record):
            city: str
            street: Personal[str]
            mail: Email | None = None

        @app.source("visits", subject="patient")
        class Visit(Record):
            patient: Patient
            paid: Personal[Decimal]
            born: Sensitive[date | None]
            vip: Personal[bool] | None
            name: Personal[str] | None
            email: Email | None
            home: Address | None
            kind: str
            amount: Decimal

        @app.enrich(Visit)
        def initial(visit: Any) -> Personal[str]:
            return "A"

        @app.enrich(Visit)
        def decade(visit: Any) -> int | None:
            return None if visit.born is None else visit.born.year // 10 * 10

        self.visit: Any = Visit
        self.initial, self.decade, self.email = initial, decade, Email

    def plan(self, attribute: Any, annotation: Any = Any) -> Plan:
        namespace = {"__annotations__": {"said": annotation}, "said": attribute}
        self.app.projection("file")(type("File", (Projection,), namespace))
        return self.app.plan()


REFUSED: dict[str, tuple[Callable[[Bag], Any], Any, str]] = {
    "total": (lambda b: total(b.visit.paid), Decimal, r"File\.said: total\(Visit\.paid\) needs values that it can read"),
    "average": (lambda b: average(b.visit.paid), Decimal, r"average\(Visit\.paid\).*@derived.*@app\.enrich\(Visit\)"),
    "minimum": (lambda b: minimum(b.visit.born), Any, r"minimum\(Visit\.born\) needs"),
    "maximum": (lambda b: maximum(b.visit.email), Any, r"maximum\(Visit\.email\) needs.*newest\(Visit\.email\)"),
    "an enrichment": (lambda b: minimum(b.initial), Any, r"minimum\(Visit\.initial\) needs"),
    "flag": (lambda b: flag(b.visit.vip), bool, r"flag\(Visit\.vip\) asks whether it is true"),
    "a condition": (lambda b: count(b.visit, where=b.visit.name == "Ann"), int, r"where= looks at Visit\.name, which"),
    "one of several": (
        lambda b: count(b.visit, where=(b.visit.kind == "a") & ~(b.visit.email == "x")), int, r"where= looks at Visit\.email",
    ),
    "a part of it": (lambda b: newest(b.visit.kind, where=b.visit.home != None), Any, r"looks at Visit\.home"),  # noqa: E711
    "a function": (lambda b: count(b.visit, where=lambda v: v.name == "Ann"), int, r"looks at Visit\.name.*with @app\.enrich"),
    "a function in it": (lambda b: count(b.visit, where=lambda v: any(v.born for _ in "x")), int, r"looks at Visit\.born"),
    "one that passes it on": (lambda b: count(b.visit, where=lambda v: isinstance(v.name, str)), int, r"at Visit\.name"),
}  # fmt: skip


@pytest.mark.parametrize(("attribute", "annotation", "why"), REFUSED.values(), ids=REFUSED)
def test_what_would_have_to_read_a_sealed_value_is_refused(
    attribute: Callable[[Bag], Any], annotation: Any, why: str
) -> None:
    bag = Bag()
    with pytest.raises(DeclarationError) as refused:
        bag.plan(attribute(bag), annotation)
    assert re.search(why, str(refused.value))


TAKEN: dict[str, tuple[Callable[[Bag], Any], Any, str, bool]] = {
    "newest": (lambda b: newest(b.visit.name), Any, "json", True),
    "first": (lambda b: first(b.visit.born), Any, "json", True),
    "prefer": (lambda b: prefer(b.visit.name, b.visit.kind), Any, "json", True),  # one is sealed, the other is not
    "collect": (lambda b: collect(b.visit.email), list, "json", True),
    "top": (lambda b: top(b.visit.paid), list, "json", True),
    "distinct": (lambda b: distinct(b.visit.name), int, "json", False),
    "count": (lambda b: count(b.visit.name), int, "json", False),
    "flag": (lambda b: flag(b.visit.name), bool, "json", False),
    "a part": (lambda b: newest(b.visit.home), Any, "json", True),
    "an enrichment": (lambda b: newest(b.initial), Any, "json", True),
    "in clear": (lambda b: total(b.visit.amount), Decimal, "decimal", False),
    "made in govern": (lambda b: minimum(b.decade), Any, "int", False),
    "a condition on what is clear": (lambda b: count(b.visit, where=lambda v: v.kind == "a"), int, "bool", False),
    "another argument": (lambda b: count(b.visit, where=lambda v, w=None: v.kind == "a" or w.name), int, "bool", False),
}


@pytest.mark.parametrize(("attribute", "annotation", "kind", "closed"), TAKEN.values(), ids=TAKEN)
def test_what_needs_equality_only_is_taken(
    attribute: Callable[[Bag], Any], annotation: Any, kind: str, closed: bool
) -> None:
    bag = Bag()
    plan = bag.plan(attribute(bag), annotation)
    (projection,) = plan.projections
    assert [a.type for a in stored(plan, projection)] == [kind]
    assert bool(classes_of(plan, projection)) is closed


def test_types_are_looked_at_through_their_class() -> None:
    bag = Bag()
    namespaces = bag.app.plan().identifiers
    personal: Any = Personal
    sensitive: Any = Sensitive
    for annotation in (personal[date], personal[date] | None, sensitive[date | None]):
        assert without_none(annotation) is date
        assert value_type(annotation) == "date"
    assert identifier_in(personal[bag.email], namespaces)[0] is namespaces[bag.email]
    assert identifier_in(list[personal[bag.email]] | None, namespaces) == (namespaces[bag.email], True)


def test_another_class_of_a_field_is_another_projection() -> None:
    """Its values are kept in another form."""

    def fingerprint(kind: Any) -> str:
        app = App("clinic")

        @app.identifier("patient")
        class Patient(str): ...

        namespace = {"__annotations__": {"patient": Patient, "name": kind}, "__module__": __name__}
        meta: Any = type(Record)
        Visit: Any = meta("Visit", (Record,), namespace)
        app.source("visits", subject="patient")(Visit)

        @app.projection("file")
        class File(Projection):
            name: str | None = newest(Visit.name)

        return app.plan().agent("file@1").fingerprint

    assert len({fingerprint(str), fingerprint(Personal[str])}) == 2
