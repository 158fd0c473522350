"""Where something personal could stand in clear beside what is sealed: what an opponent of the claim has tried."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import make_dataclass
from datetime import datetime
from typing import Annotated, Any, Generic, NamedTuple, NewType, TypedDict, TypeVar

import msgspec
import pytest

from c360 import AnyIdentifier, App, Personal, Projection, Record, count, newest, normalize
from c360.classes import FieldClass
from c360.codecs.record import RecordMeta
from c360.errors import DeclarationError
from c360.testing import TestDriver
from tests.governance.forget_shop import left
from tests.governance.sealed_shop import forms_of, row, written

ANN = "ann@mail.org"
T = TypeVar("T")


class Kinds(NamedTuple):
    crm: Any
    email: Any


def shop() -> tuple[App, Kinds]:
    app = App("clear", partitions=1)
    crm = app.identifier("crm", priority=1, unique=True)(type("CrmId", (str,), {}))
    email = app.identifier("email", normalize=normalize.email, personal=True)(type("Email", (str,), {}))
    return app, Kinds(crm, email)


def record(name: str, /, **fields: Any) -> Any:
    return RecordMeta(name, (Record,), {"__annotations__": fields})


def closed(kind: Any) -> Any:
    return Annotated[kind, FieldClass.PERSONAL]


def where(t: TestDriver, *secrets: str) -> set[tuple[str, str]]:
    """Topics of ours and stores that have a secret in clear."""
    t.settle()
    return {(at, one) for at, data in written(t) for one in secrets for form in forms_of(one) if form in data}


# ------------------------------------------------------------------------------------------------ what the plan refuses
class Boxed(msgspec.Struct, Generic[T]):
    value: T


def of(box: Any, *kinds: Any) -> Any:
    return box[kinds]


alias: Any = NewType
named: Any = NamedTuple  # called, not read by a type checker
typed: Any = TypedDict
OPAQUE: list[Callable[[Any], Any]] = [
    lambda kind: make_dataclass("Pair", [("mail", kind)]),
    lambda kind: of(list, make_dataclass("Pair", [("mails", of(list, kind))])),
    lambda kind: named("Pair", [("mail", kind)]),
    lambda kind: typed("Pair", {"mail": kind}),
    lambda kind: of(Boxed, kind),
    lambda kind: of(Sequence, kind),
    lambda kind: of(Mapping, str, kind),
    lambda kind: of(set, kind),
    lambda kind: of(tuple, kind, str),
]


@pytest.mark.parametrize("opaque", OPAQUE)
def test_a_type_in_which_nothing_can_be_sealed_may_hold_nothing_personal(opaque: Callable[[Any], Any]) -> None:
    for kind in ("email", Personal[str]):
        app, kinds = shop()
        visit = app.source("visits", event_id="id", subject="customer")(record("Visit", id=str, customer=kinds.crm))

        def shown(_: Any) -> Any:
            return None

        shown.__annotations__["return"] = opaque(kinds.email if kind == "email" else kind)
        app.enrich(visit)(shown)
        with pytest.raises(DeclarationError, match=r"Visit\.shown.*(nothing can be sealed|cannot be sealed)"):
            app.plan()


def test_a_type_of_which_it_cannot_be_told_is_refused() -> None:
    app, kinds = shop()
    visit = app.source("visits", event_id="id", subject="customer")(record("Visit", id=str, customer=kinds.crm))

    def shown(_: Any) -> Any:
        return None

    shown.__annotations__["return"] = make_dataclass("Pair", [("mail", "NotHere")])
    app.enrich(visit)(shown)
    with pytest.raises(DeclarationError, match="cannot be told"):
        app.plan()


def test_public_values_may_be_of_any_type() -> None:
    app, kinds = shop()
    visit = app.source("visits", event_id="id", subject="customer")(record("Visit", id=str, customer=kinds.crm))
    pair = make_dataclass("Pair", [("n", int), ("when", datetime)])

    def shown(_: Any) -> Any:
        return pair(1, datetime(2026, 1, 1))

    shown.__annotations__["return"] = of(dict, str, pair) | set[int]
    app.enrich(visit)(shown)
    app.plan()


def test_an_alias_of_an_identifier_is_the_identifier() -> None:
    app, kinds = shop()
    fields = {"id": str, "customer": kinds.crm, "mail": kinds.email}
    visit = app.source("visits", event_id="id", subject="customer")(record("Visit", **fields))

    def shown(said: Any) -> Any:
        return said.mail

    shown.__annotations__["return"] = alias("Alias", kinds.email)
    app.enrich(visit)(shown)
    with TestDriver(app) as t:
        t.send("visits", "k", {"id": "1", "customer": "7", "mail": ANN})
        assert len(t.topic("clear.governed.visits.v1")) == 1
        assert where(t, ANN) == set()


def test_a_time_that_is_personal_cannot_be_when_it_happened() -> None:
    app, kinds = shop()
    born = record("Birth", id=str, customer=kinds.crm, born=Personal[datetime])
    app.source("births", event_id="id", subject="customer", at="born")(born)
    with pytest.raises(DeclarationError, match=r"Birth\.born is personal and at of 'births'"):
        app.plan()


@pytest.mark.parametrize("place", ["subject", "link", "list", "enrichment", "consent", "erasure"])
def test_an_identifier_that_is_sealed_in_its_record_must_not_link_in_clear(place: str) -> None:
    app, kinds = shop()
    card: Any = app.identifier("card")(type("Card", (str,), {}))
    said: dict[str, Any] = {"subject": {"customer": closed(kinds.crm)}, "link": {"card": closed(card | None)},
            "list": {"cards": of(list, closed(card))}}.get(place, {})  # fmt: skip
    fields = {"id": str, "customer": kinds.crm} | said
    visit = app.source("visits", event_id="id", subject="customer")(record("Visit", **fields))
    if place == "enrichment":

        def seen(_: Any) -> Any:
            return "1"

        seen.__annotations__["return"] = closed(card)
        app.enrich(visit)(seen)
    asked = record("Asked", card=closed(card), purpose=str, granted=bool, at=datetime)
    if place == "consent":
        app.purpose("marketing")
        app.consent("choices")(asked)
    if place == "erasure":
        app.erasure("forget")(asked)
    with pytest.raises(DeclarationError, match=r"is Personal and an identifier.*say\s+personal=True on '(crm|card)'"):
        app.plan()


# -------------------------------------------------------------------------------------------------------- where it stood
def test_an_identifier_whose_namespace_only_the_data_says_is_sealed() -> None:
    app, kinds = shop()
    fields = {"id": str, "customer": kinds.crm, "alias": AnyIdentifier | None, "others": list[AnyIdentifier]}
    app.source("visits", event_id="id", subject="customer")(record("Visit", **fields))
    with TestDriver(app) as t:
        others = [{"ns": "email", "value": "bob@mail.org"}, "email:eve@mail.org"]
        t.send("visits", "k", {"id": "1", "customer": "7", "alias": f"email:{ANN}", "others": others})
        assert len(t.topic("clear.governed.visits.v1")) == 1
        assert where(t, ANN, "bob@mail.org", "eve@mail.org") == set()
        t.verify()


def test_a_request_that_names_nobody_is_not_quoted() -> None:
    """An address without its namespace was taken for a namespace, and said in the dead letter."""
    app, kinds = shop()
    app.source("visits", event_id="id", subject="customer")(record("Visit", id=str, customer=kinds.crm))
    app.erasure("forget")(record("Please", who=AnyIdentifier))
    with TestDriver(app) as t:
        t.send("forget", ANN, {"who": ANN})
        t.send("forget", ANN, {"who": {"ns": ANN, "value": "x"}})
        assert [letter["reason"] for letter in t.topic("clear.dlq")] == ["unknown-namespace"] * 2
        assert where(t, ANN) - {("forget/0", ANN), ("forget/1", ANN)} == set()


def test_who_can_be_read_in_a_request_is_forgotten_whatever_else_is_in_it() -> None:
    app, kinds = shop()
    visit = record("Visit", id=str, customer=kinds.crm, mail=kinds.email)
    app.source("visits", event_id="id", subject="customer")(visit)
    app.erasure("forget")(record("Please", mail=kinds.email, customer=kinds.crm))
    with TestDriver(app) as t:
        t.send("visits", "k", {"id": "1", "customer": "7", "mail": ANN})
        t.send("forget", "k", {"mail": "no address", "customer": "7"})
        assert [letter["reason"] for letter in t.topic("clear.dlq")] == ["no-subject"]
        (proven,) = t.topic("clear.erasures")
        assert len(proven["subjects"]) == 1


# ----------------------------------------------------------------------------------------------- rows of the forgotten
def customers() -> App:
    app, kinds = shop()
    person = record("Person", id=kinds.crm, name=Personal[str], friend=kinds.email | None)
    app.cdc("people", key="id")(person)
    fields = {"__annotations__": {"n": int, "name": str | None}, "n": count(person), "name": newest(person.name)}
    made: Any = type(Projection)
    app.projection("customer")(made("Customer", (Projection,), fields))
    return app


def told(t: TestDriver, op: str, at: int, **more: Any) -> None:
    after = {} if op == "d" else {"id": "7777007", "name": "Ann Miller", "friend": None, **more}
    t.send("people", '{"id": "7777007"}', row(op, at, **after))
    t.settle()


GONE_LATER = {
    f"clear.{name}"
    for name in (
        "governed.people.v1",
        "identity-changes.v1",
        "identity.v1",
        "erasure-commands",
        "erase",
        "found",
        "receipts",
    )
}


@pytest.mark.parametrize("before", [True, False])
def test_a_row_deleted_at_its_source_leaves_no_number_of_a_forgotten_customer(before: bool) -> None:
    """A row's primary key is the customer's number; that a row is deleted was kept under it, whoever it was about."""
    with TestDriver(customers()) as t:
        told(t, "c", 10)
        if before:
            told(t, "d", 20)
        assert t.erase("crm:7777007") is not None
        if not before:
            told(t, "d", 20)
        assert left(t, ["7777007"]).keys() <= GONE_LATER
        t.lose_disk()
        told(t, "c", 15)
        assert left(t, ["7777007"]).keys() <= GONE_LATER


def test_a_deleted_row_still_does_not_come_back_by_an_older_state() -> None:
    with TestDriver(customers()) as t:
        told(t, "c", 10)
        told(t, "d", 20)
        told(t, "u", 15, name="Ann of before")
        assert t.profile("crm:7777007") is None
        t.lose_disk()
        told(t, "u", 16, name="Ann of before")
        assert t.profile("crm:7777007") is None
        told(t, "c", 30, name="Ann again")
        told(t, "u", 31, name="Ann Anew")
        assert t.profile("crm:7777007").name == "Ann Anew"
        assert t.profile("crm:7777007").n == 1
        t.verify()


def test_deleted_rows_of_a_version_before_are_hidden_when_somebody_is_forgotten() -> None:
    from c360.agents.govern import GovernTask, RowState

    with TestDriver(customers()) as t:
        told(t, "c", 10)
        tasks = [task.processor for loop in t.loops for task in loop.tasks.values()]
        for task in tasks:
            if isinstance(task, GovernTask) and task.rows.get(b"7777007") is not None:
                task.rows.put(b"7777008", RowState(task.rows.get(b"7777007").position, "", None, 2))  # type: ignore[union-attr]
        told(t, "u", 11)
        assert any("7777008" in words for words in left(t, ["7777008"]).values())
        assert t.erase("crm:7777007") is not None
        assert left(t, ["7777007", "7777008"]).keys() <= GONE_LATER
