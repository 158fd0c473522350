"""What `c360 profile` and `c360 why` show of values that are sealed: that they are, and of which field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from c360 import App, Personal, Projection, Record, collect, count, newest, normalize
from c360.cli.identity import why_profile
from c360.cli.state import profile
from c360.ops.profiles import shut
from c360.testing import TestDriver
from tests.cli.test_erase import Here
from tests.cli.test_json import hold

ANN, MAIL, STREET = "Ann Example", "ann@mail.org", "Long Street 1"


def shop() -> App:
    app = App("shown", partitions=2)

    @app.identifier("crm", priority=1, unique=True)
    class CrmId(str): ...

    @app.identifier("email", normalize=normalize.email, personal=True)
    class Email(str): ...

    class Address(Record):
        street: Personal[str]
        country: str

    @app.source("orders", event_id="id", subject="crm")
    class Order(Record):
        id: str
        crm: CrmId
        email: Email | None
        name: Personal[str]
        address: Address | None = None
        page: str = "/"

    @app.projection("customer")
    class Customer(Projection):
        name: str | None = newest(Order.name)
        names: list[str] = collect(Order.name, limit=5)
        address: Address | None = newest(Order.address)
        page: str | None = newest(Order.page)
        orders: int = count(Order)

    return app


class Shop:
    def __init__(self, tmp_path: Path) -> None:
        app = shop()
        self.driver = TestDriver(app)
        self.here = Here(self.driver, app, tmp_path)
        address = {"street": STREET, "country": "AT"}
        self.driver.send("orders", None, {"id": "1", "crm": "7", "email": MAIL, "name": ANN, "address": address})
        self.driver.settle()

    def __call__(self, command: click.Command, *words: str) -> str:
        ran = CliRunner().invoke(command, words, obj=self.here)
        assert ran.exception is None or isinstance(ran.exception, SystemExit), ran.exception
        assert ran.exit_code == 0
        self.clean(ran.output)
        return ran.stdout

    def clean(self, text: str) -> None:
        record = self.driver.record("crm:7")
        assert record is not None
        said = json.dumps(record)
        assert "~sealed" in said, "there is nothing to hide"
        values = record["attributes"]["name"], record["attributes"]["address"]["street"]
        ciphertexts = [value["~sealed"].split(":")[2] for value in values]
        for secret in (ANN, MAIL, STREET, "~sealed", *ciphertexts):
            assert secret not in text


@pytest.fixture
def here(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


SEALED: dict[str, Any] = {
    "name": {"sealed": "Order.name"},
    "names": [{"sealed": "Order.name"}],
    "address": {"street": {"sealed": "Order.address.street"}, "country": "AT"},
    "page": "/",
    "orders": 1,
}


def test_a_profile_says_what_is_sealed_in_it_and_of_which_field(here: Shop) -> None:
    said = json.loads(here(profile, "crm:7", "--json"))
    hold("c360 profile", said)
    assert said["attributes"] == SEALED
    assert said["identifiers"] == ["crm:7", next(i for i in said["identifiers"] if i.startswith("email:~"))]
    assert json.loads(here(profile, "crm:7"))["attributes"] == SEALED
    assert said == json.loads(here(profile, f"email:{MAIL}", "--json")), "asked by what is personal it is the same"


def test_why_says_it_too(here: Shop) -> None:
    said = json.loads(here(why_profile, "crm:7", "--json"))
    hold("c360 why", said)
    assert {one["attribute"]: one["value"] for one in said["explained"]} == SEALED
    assert all(one["records"] for one in said["explained"])
    text = here(why_profile, "crm:7", "name")
    assert "name = sealed: newest of Order.name" in text


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, None),
        ("~sealed", "~sealed"),
        ({"~sealed": "k1:Order.name:AAAA", "subject": "crm:7"}, {"sealed": "Order.name"}),
        ({"a": [{"~sealed": "k1:Order.name:AAAA", "subject": "crm:7"}, 1]}, {"a": [{"sealed": "Order.name"}, 1]}),
        ({"~sealed": "a name in clear", "subject": "crm:7"}, {"sealed": ""}),
        ({"~sealed": {"name": "in clear"}}, {"sealed": ""}),
    ],
)
def test_what_looks_sealed_is_not_shown_whatever_it_is(value: Any, shown: Any) -> None:
    assert shut(value) == shown
