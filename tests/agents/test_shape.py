"""What a door makes of a profile: what the purpose may see, opened, with derived values of that and nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import pytest

from c360 import App, Personal, Projection, Record, Sensitive, collect, count, derived, newest, top
from c360.agents.render import Unseen
from c360.agents.shape import Shape, is_listed
from c360.errors import Misfit
from c360.governance.keys import LocalMasterKeys, Opener, make_keys
from c360.governance.sealing import DataKey, read_sealed
from c360.plan import Plan

APP = "clinic"


def clinic() -> Plan:
    app = App(APP, partitions=2)

    @app.identifier("patient", priority=1, unique=True)
    class Patient(str): ...

    @app.identifier("email", personal=True)
    class Email(str): ...

    care = app.purpose("care", basis="contract")
    letters = app.purpose("letters")

    class Address(Record):
        city: str
        street: Personal[str]

    @app.source("visits", subject="patient", at="at", purposes=[care])
    class Visit(Record):
        patient: Patient
        diagnosis: Sensitive[str]
        at: datetime

    @app.source("forms", subject="patient", purposes=[care, letters])
    class Form(Record):
        patient: Patient
        email: Email | None
        name: Personal[str] | None
        born: Personal[date | None]
        home: Address | None
        phones: list[Personal[str]] | None

    @app.projection("file", purposes=[care, letters])
    class File(Projection):
        visits: int = count(Visit)
        diagnosis: str | None = newest(Visit.diagnosis)
        name: str | None = newest(Form.name)
        born: date | None = newest(Form.born)
        home: Any = newest(Form.home)
        phones: list[str] | None = newest(Form.phones)
        names: list[str] = collect(Form.name)
        often: list[str] = top(Form.name, n=2)
        email: str | None = newest(Form.email)
        forms: int = count(Form)

        @derived
        def greeting(self) -> str:
            return f"Dear {self.name}"

        @derived
        def age(self) -> int | None:
            return None if self.born is None else 2026 - self.born.year

        @derived
        def busy(self) -> bool:
            return self.visits > 3

        @derived
        def share(self) -> Decimal:
            return Decimal(self.forms) / self.visits

        @derived
        def known(self) -> bool:
            try:
                return bool(self.diagnosis)
            except Exception:
                return False

    return app.plan()


PLAN = clinic()
(FILE,) = PLAN.projections
MASTER = LocalMasterKeys([b"m" * 64])


class Keys:
    """Keys of two subjects, one of them made by two tasks; `destroy` takes one away."""

    def __init__(self) -> None:
        self.records: dict[tuple[str, str], bytes] = {}
        self.keys: dict[tuple[str, str], DataKey] = {}
        for task, subject in (("a", "patient:1"), ("b", "patient:1"), ("a", "patient:2")):
            secret = (task + subject).encode().ljust(64, b".")
            made, records = make_keys(APP, task, [subject], MASTER, lambda n, secret=secret: secret[:n])  # type: ignore[misc]
            self.keys[task, subject] = made[subject]
            assert records[0].value is not None
            self.records[subject, made[subject].id] = records[0].value
        self.asked: list[set[tuple[str, str]]] = []
        self.opener = Opener(APP, MASTER, self._read)

    def _read(self, wanted: Any) -> Mapping[tuple[str, str], bytes]:
        self.asked.append(set(wanted))
        return {pair: self.records[pair] for pair in wanted if pair in self.records}

    def seal(self, field: str, value: Any, subject: str = "patient:1", task: str = "a") -> dict[str, str]:
        text = self.keys[task, subject].seal(field, json.dumps(value).encode())
        return {"~sealed": text, "subject": subject}

    def destroy(self, subject: str, task: str = "a") -> None:
        del self.records[subject, self.keys[task, subject].id]

    def open(self, value: Any, subjects: Any, fields: Any) -> bytes:
        return self.opener.open(value, subjects=subjects, fields=fields, complete=True)


def record_of(keys: Keys, **more: Any) -> dict[str, Any]:
    """The internal record of a profile of two subjects."""
    attributes = {
        "visits": 2,
        "diagnosis": keys.seal("Visit.diagnosis", "flu"),
        "name": keys.seal("Form.name", "Ann", "patient:2"),
        "born": keys.seal("Form.born", "1990-04-01"),
        "home": {"city": "Ghent", "street": keys.seal("Form.home.street", "Kouter 1")},
        "phones": [keys.seal("Form.phones[]", "123"), keys.seal("Form.phones[]", "456")],
        "names": [keys.seal("Form.name", "Zoë"), keys.seal("Form.name", "Ann", "patient:2"),
                  keys.seal("Form.name", "Ann", task="b")],
        "often": [keys.seal("Form.name", "Zoë"), keys.seal("Form.name", "Ann", "patient:2")],
        "email": keys.seal("Form.email", "ann@example.org"),
        "forms": 3,
        "busy": False,
    }  # fmt: skip
    return {
        "profile_id": "patient:1",
        "projection": "file",
        "version": 1,
        "purpose": None,
        "subjects": ["patient:1", "patient:2"],
        "subjects_total": 2,
        "identifiers": ["email:~k3v", "patient:1", "patient:2"],
        "attributes": attributes,
        "as_of": "2026-11-02T09:15:00Z",
        **more,
    }


def shaped(purpose: str | None, keys: Keys, record: Mapping[str, Any], *sensitive: str) -> dict[str, Any]:
    shape = Shape(PLAN, FILE, purpose, sensitive=sensitive)
    seen = shape.look(record)
    assert seen is not None
    made, _ = shape.record(seen, keys.open)
    return made


def test_a_purpose_sees_what_its_sources_permit_in_clear_and_what_can_be_derived_of_that() -> None:
    keys = Keys()
    record = shaped("letters", keys, record_of(keys))
    assert record == {
        "profile_id": "patient:1",
        "projection": "file",
        "version": 1,
        "purpose": "letters",
        "subjects": ["patient:1", "patient:2"],
        "subjects_total": 2,
        "identifiers": ["email:~k3v", "patient:1", "patient:2"],
        "attributes": {
            "name": "Ann",
            "born": "1990-04-01",
            "home": {"city": "Ghent", "street": "Kouter 1"},
            "phones": ["123", "456"],
            "names": ["Ann", "Zoë"],
            "often": ["Zoë", "Ann"],
            "email": "ann@example.org",
            "forms": 3,
            "greeting": "Dear Ann",
            "age": 36,
        },
        "as_of": "2026-11-02T09:15:00Z",
    }
    assert "purpose" in record_of(keys)  # what came is as it was


def test_what_is_sensitive_is_left_out_where_it_is_not_taken() -> None:
    keys = Keys()
    attributes = shaped("care", keys, record_of(keys))["attributes"]
    assert "diagnosis" not in attributes
    assert "known" not in attributes  # also where a derived value would do without
    assert (attributes["busy"], attributes["share"]) == (False, "1.5")
    attributes = shaped("care", keys, record_of(keys), "diagnosis")["attributes"]
    assert (attributes["diagnosis"], attributes["known"]) == ("flu", True)


def test_where_a_purpose_sees_less_than_all_its_own_part_counts() -> None:
    keys = Keys()
    part = {
        "subjects": ["patient:1"],
        "subjects_total": 1,
        "identifiers": ["patient:1"],
        "attributes": {**dict.fromkeys(("name", "home", "phones", "email")), "born": keys.seal("Form.born", "1991-01-01"),
                       "names": [], "often": [], "forms": 1},
        "as_of": None,
    }  # fmt: skip
    record = record_of(keys, views={"letters": part})
    found = shaped("letters", keys, record)
    assert (found["subjects"], found["identifiers"], found["as_of"]) == (["patient:1"], ["patient:1"], None)
    assert (found["attributes"]["age"], found["attributes"]["greeting"]) == (35, "Dear None")
    assert shaped("care", keys, record)["subjects_total"] == 2


def test_where_nothing_may_be_used_there_is_nothing() -> None:
    keys = Keys()
    record = record_of(keys, views={"letters": None})
    assert Shape(PLAN, FILE, "letters").look(record) is None
    assert Shape(PLAN, FILE, "care").look(record) is not None
    assert Shape(PLAN, FILE, None).look(record) is not None


def test_a_value_whose_key_was_destroyed_is_left_out() -> None:
    keys = Keys()
    keys.destroy("patient:2")
    attributes = shaped("letters", keys, record_of(keys))["attributes"]
    assert attributes["name"] is None
    assert attributes["names"] == ["Ann", "Zoë"]  # sealed by another task, with a key that is there
    assert attributes["often"] == ["Zoë"]
    keys = Keys()
    keys.destroy("patient:1")
    attributes = shaped("letters", keys, record_of(keys))["attributes"]
    assert attributes["home"] == {"city": "Ghent", "street": None}
    assert attributes["phones"] == []
    assert attributes["age"] is None


def test_it_says_which_keys_it_needs_so_that_they_are_fetched_at_once() -> None:
    keys = Keys()
    shape = Shape(PLAN, FILE, "letters")
    seen = shape.look(record_of(keys))
    assert seen is not None
    keys.opener.prepare(shape.wanted(seen))
    assert [len(asked) for asked in keys.asked] == [3]
    shape.record(seen, keys.open)
    shape.instance(seen, keys.open)
    assert len(keys.asked) == 1


def test_an_instance_has_the_types_of_the_class_and_says_why_something_is_not_there() -> None:
    keys = Keys()
    shape = Shape(PLAN, FILE, "letters")
    seen = shape.look(record_of(keys))
    assert seen is not None
    profile: Any = shape.instance(seen, keys.open)
    assert (profile.born, profile.name, profile.age, profile.forms) == (date(1990, 4, 1), "Ann", 36, 3)
    with pytest.raises(
        Unseen, match=r"File\.visits may not be used for letters: none of its sources may; add letters to"
    ):
        profile.visits  # noqa: B018
    assert getattr(profile, "diagnosis", "nothing") == "nothing"
    with pytest.raises(Unseen, match=r"File\.diagnosis is Sensitive.*sensitive=\['diagnosis'\]"):
        Shape(PLAN, FILE, "care").instance(seen, keys.open).diagnosis  # type: ignore[attr-defined]  # noqa: B018


def test_a_value_of_somebody_else_or_of_another_field_is_not_opened() -> None:
    keys = Keys()
    record = record_of(keys, subjects=["patient:1"], subjects_total=1)
    with pytest.raises(Misfit, match="subject that is not the one"):
        shaped("letters", keys, record)
    shaped("letters", keys, {**record, "subjects_total": 2})  # not all are listed: it may well be one of them
    record = record_of(keys)
    record["attributes"]["name"] = keys.seal("Form.born", "Ann")
    with pytest.raises(Misfit, match="field that is not the one"):
        shaped("letters", keys, record)
    record["attributes"]["name"] = {"~sealed": "x"}
    seen = Shape(PLAN, FILE, "letters").look(record)
    assert seen is not None
    with pytest.raises(Misfit):
        Shape(PLAN, FILE, "letters").wanted(seen)


def test_what_a_derived_value_raises_is_told() -> None:
    keys = Keys()
    record = record_of(keys)
    record["attributes"]["visits"] = 0
    shape = Shape(PLAN, FILE, "care")
    seen = shape.look(record)
    assert seen is not None
    made, failed = shape.record(seen, keys.open)
    assert made["attributes"]["share"] is None
    assert isinstance(failed, ArithmeticError)


def test_a_profile_of_which_not_all_are_listed_is_known_by_that() -> None:
    record = record_of(Keys())
    assert is_listed(record)
    assert not is_listed({**record, "subjects_total": 3})
    assert not is_listed({**record, "identifiers": [f"email:~{n}" for n in range(2_000)]})


def test_the_fields_that_may_stand_in_an_attribute_are_those_of_its_inputs() -> None:
    sealed = Shape(PLAN, FILE, None, sensitive=["diagnosis"]).sealed
    assert "Form.home.street" in sealed["home"]
    assert "Form.phones[]" in sealed["phones"]
    assert "Form.email" in sealed["email"]
    assert not sealed.keys() & {"visits", "forms"}
    assert read_sealed(Keys().seal("Form.name", "Ann")).field in sealed["name"]
