"""What a user can say of purposes, consent, erasure, doors and classes, and what the plan refuses."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from c360 import AnyIdentifier, App, Personal, Projection, Record, Sensitive, count, newest
from c360.classes import FieldClass
from c360.errors import DeclarationError
from c360.plan import classes_of, sealed_of, sets_of


def clinic() -> App:
    """Two purposes, a source for each and one for both; a name, a diagnosis, a mail address."""
    app = App("clinic", partitions=2)

    @app.identifier("patient", priority=1, unique=True)
    class Patient(str): ...

    @app.identifier("email", personal=True)
    class Email(str): ...

    care = app.purpose("care", basis="contract")
    marketing = app.purpose("marketing")

    @app.source("visits", subject="patient", at="at", purposes=[care])
    class Visit(Record):
        patient: Patient
        diagnosis: Sensitive[str]
        at: datetime

    @app.source("letters", subject="patient", purposes=[care, marketing])
    class Letter(Record):
        patient: Patient
        email: Email | None
        name: Personal[str] | None

    @app.projection("file", purposes=[care, marketing])
    class File(Projection):
        visits: int = count(Visit)
        letters: int = count(Letter)
        diagnosis: str | None = newest(Visit.diagnosis)
        name: str | None = newest(Letter.name)
        email: str | None = newest(Letter.email)

    @app.consent("choices")
    class Choice(Record):
        email: Email
        purpose: str
        granted: bool
        at: datetime

    @app.erasure("requests")
    class Forget(Record):
        who: AnyIdentifier

    app.parts = (care, marketing, File, Email)  # type: ignore[attr-defined]  # for the tests below
    return app


def test_an_app_with_purposes_has_its_topics_agents_and_doors() -> None:
    plan = clinic().plan()
    names = {t.name: (t.role, t.partitions) for t in plan.topics}
    assert names["clinic.consent"] == ("consent", 2)
    assert names["clinic.file.v1.marketing"] == ("view", 2)
    assert names["clinic.fence"] == ("fence", 1)
    assert names["choices"] == names["requests"] == ("raw", None)
    assert [d.agent for d in plan.doors] == ["file@1:care", "file@1:marketing"]
    assert {"consent", "erasure", "file@1:care", "file@1:marketing"} <= {a.name for a in plan.agents}
    assert plan.governance == ("clinic.suppressed", "clinic.keys", "clinic.consent", "clinic.fence")


def test_an_app_that_says_nothing_of_rights_has_none_of_it() -> None:
    app = App("plain")

    @app.identifier("crm")
    class CrmId(str): ...

    @app.source("orders", subject="customer")
    class Order(Record):
        customer: CrmId

    @app.projection("customer")
    class Profile(Projection):
        orders: int = count(Order)

    plan = app.plan()
    assert (plan.asks, plan.needs_keys, plan.governance, plan.doors) == (False, False, (), ())
    assert {t.role for t in plan.topics} == {
        "raw", "replay", "changelog", "governed", "dlq", "audit", "projection", "tasks", "control",
    }  # fmt: skip


def test_classes_are_those_of_fields_and_of_the_namespaces_of_identifiers() -> None:
    plan = clinic().plan()
    (projection,) = plan.projections
    assert classes_of(plan, projection) == {
        "diagnosis": FieldClass.SENSITIVE, "name": FieldClass.PERSONAL, "email": FieldClass.PERSONAL,
    }  # fmt: skip
    assert [sealed_of(plan, s) for s in plan.sources] == [["Visit.diagnosis"], ["Letter.email", "Letter.name"]]


def test_an_attribute_has_the_purpose_sets_of_its_sources() -> None:
    plan = clinic().plan()
    sets = sets_of(plan, plan.projections[0])
    assert sets["visits"] == (frozenset({"care"}),)
    assert sets["name"] == (frozenset({"care", "marketing"}),)


def test_purposes_are_part_of_what_a_projection_is() -> None:
    def fingerprint(*, both: bool) -> str:
        app = App("shop")

        @app.identifier("crm")
        class CrmId(str): ...

        service, marketing = app.purpose("service", basis="contract"), app.purpose("marketing")

        @app.source("orders", subject="customer", purposes=[service, marketing] if both else [service])
        class Order(Record):
            customer: CrmId

        @app.projection("customer", purposes=[service])
        class Profile(Projection):
            orders: int = count(Order)

        return app.plan().agent("customer@1").fingerprint

    assert fingerprint(both=True) != fingerprint(both=False)


def sink_of(**said: Any) -> Callable[[App], object]:
    def declare(app: App) -> object:
        care, marketing, file, _ = app.parts  # type: ignore[attr-defined]
        of = {"care": care, "marketing": marketing}
        app.sink("crm-sync", projection=file, **{**said, "purpose": of[said["purpose"]]})(lambda profile: {})
        return app.plan()

    return declare


def test_a_sink_is_a_door_of_its_own() -> None:
    app = clinic()
    sink_of(purpose="marketing")(app)
    assert app.plan().doors[-1].agent == "sink:crm-sync"
    assert "clinic.activation.crm-sync" in [t.name for t in app.plan().topics]
    taking = clinic()
    sink_of(purpose="care", sensitive=["diagnosis"])(taking)
    assert taking.plan().doors[-1].sink is not None


def unnamed_purpose(app: App) -> object:
    _, _, file, _ = app.parts  # type: ignore[attr-defined]
    return app.projection("other", purposes=["care"])(file)  # type: ignore[list-item]


def twice(app: App) -> object:
    return app.purpose("care")


def view_of_nothing(app: App) -> object:
    idle = app.purpose("idle")
    _, _, file, _ = app.parts  # type: ignore[attr-defined]
    app.projection("other", purposes=[idle])(file)
    return app.plan()


def consent_of_nobody(app: App) -> object:
    class Choice(Record):
        purpose: str
        granted: bool
        at: datetime

    return app.consent("more")(Choice)


def consent_without_word(app: App) -> object:
    *_, email = app.parts  # type: ignore[attr-defined]

    class Choice(Record):
        __annotations__ = {"email": email, "purpose": str, "at": datetime}

    return app.consent("more")(Choice)


def segment_without_preferences(app: App) -> object:
    *_, email = app.parts  # type: ignore[attr-defined]

    class Call(Record):
        __annotations__ = {"email": email}

    return app.consent("more", categories={"ads": "marketing"})(Call)


def another_purpose_in_the_mapping(app: App) -> object:
    *_, email = app.parts  # type: ignore[attr-defined]

    class Call(Record):
        __annotations__ = {"email": email, "preferences": dict[str, Any]}

    return app.consent("more", categories={"ads": "advertising"})(Call)


def region_left(app: App) -> object:
    care, _, _, email = app.parts  # type: ignore[attr-defined]

    class Kept(Record):
        __annotations__ = {"email": email}

    app.source("kept", subject="email", purposes=[care], region="eu")(Kept)

    class Away(Projection):
        n: int = count(Kept)

    app.projection("away", purposes=[care], region="us")(Away)
    return app.plan()


@pytest.mark.parametrize(
    ("declare", "says"),
    [
        (unnamed_purpose, "takes what app.purpose(…) gave; declared are: care, marketing"),
        (twice, "'care' is declared twice"),
        (view_of_nothing, "may be used for 'idle', so the view would be empty for ever"),
        (consent_of_nobody, "who says so?"),
        (consent_without_word, "does not say what was decided"),
        (segment_without_preferences, "needs a field named preferences"),
        (another_purpose_in_the_mapping, "'advertising', which no app.purpose declares"),
        (region_left, "must stay in region 'eu', to region 'us'"),
        (sink_of(purpose="care"), "would be given diagnosis, which is Sensitive"),
        (sink_of(purpose="care", sensitive=["weight"]), "sensitive= names weight"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_by_name(declare: Callable[[App], object], says: str) -> None:
    with pytest.raises(DeclarationError, match=re.escape(says)):
        declare(clinic())


def test_regions_that_agree_are_no_path_elsewhere() -> None:
    app = App("eu")

    @app.identifier("crm")
    class CrmId(str): ...

    service = app.purpose("service", basis="contract")

    @app.source("orders", subject="customer", purposes=[service], region="eu")
    class Order(Record):
        customer: CrmId

    @app.projection("customer", purposes=[service], region="eu")
    class Profile(Projection):
        orders: int = count(Order)

    app.sink("here", projection=Profile, purpose=service, region="eu")(lambda profile: {})
    assert app.plan().doors
    app.sink("there", projection=Profile, purpose=service)(lambda profile: {})
    with pytest.raises(DeclarationError, match="to a place that says no region"):
        app.plan()
