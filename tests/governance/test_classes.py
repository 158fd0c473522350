"""`Personal[…]` and `Sensitive[…]` are found wherever a record has them, and are nothing but their type to everybody else."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from c360.classes import FieldClass, Personal, Sensitive, classified
from c360.codecs.layout import Layout
from c360.codecs.record import Record, field
from c360.errors import DeclarationError


class Place(msgspec.Struct):
    zip: str
    street: Personal[str]


class Address(Record):
    city: str
    street: Personal[str]
    where: Sensitive[str] | None = None


class Customer(Record):
    id: str
    name: Personal[str]
    born: Sensitive[str | None] = None
    nick: Personal[str] | None = None
    home: Address | None = None
    others: list[Address] = field(default=[])
    by_kind: dict[str, Address] = field(default={})
    phones: list[Personal[str]] = field(default=[])
    tags: Personal[list[str]] = field(default=[])
    all_of_it: Personal[Address] | None = None
    place: Place | None = None


class Plain(Record):
    id: str
    rest: dict[str, Any] = field(default={})
    both: int | str = 0


class Vip(Customer):
    level: int


FOUND = {
    "Customer.name": 1, "Customer.born": 2, "Customer.nick": 1, "Customer.home.street": 1, "Customer.home.where": 2,
    "Customer.others[].street": 1, "Customer.others[].where": 2, "Customer.by_kind{}.street": 1,
    "Customer.by_kind{}.where": 2, "Customer.phones[]": 1, "Customer.tags": 1,
    "Customer.all_of_it": 2,  # it holds something sensitive
    "Customer.place.street": 1,
}  # fmt: skip


def test_classified_fields_are_found_in_order_wherever_they_are() -> None:
    assert [(c.said(Customer), int(c.field_class)) for c in classified(Customer)] == list(FOUND.items())
    assert classified(Customer)[3].path == ("home", "street")


def test_a_record_inherits_them_and_one_without_has_none() -> None:
    assert classified(Vip) == classified(Customer)
    assert classified(Plain) == ()


def test_a_record_is_decoded_as_if_they_were_not_there() -> None:
    read = Layout(Customer).read(
        b'{"id": "7", "name": "Ann", "phones": ["1"], "all_of_it": {"city": "X", "street": "Y"}}'
    )
    name: str = read.name
    assert (name, read.phones, read.all_of_it.street) == ("Ann", ["1"], "Y")


def test_a_type_checker_sees_the_type() -> None:
    """mypy --strict reads this file: `name` would be an error were it not a str."""
    customer = Customer(id="7", name="Ann")
    assert customer.name.upper() == "ANN"
    assert max(FieldClass) is FieldClass.SENSITIVE


def test_what_cannot_be_sealed_is_refused_with_its_name() -> None:
    class Keyed(Record):
        by_mail: dict[Personal[str], int]

    class Choice(Record):
        either: int | Personal[str]

    class Pair(Record):
        pairs: list[tuple[int, Personal[str]]]

    for record, said in (
        (Keyed, r"Keyed\.by_mail: keys of a dict"),
        (Choice, r"Choice\.either: one of several types"),
        (Pair, r"Pair\.pairs\[\]: a part of a tuple"),
    ):
        with pytest.raises(DeclarationError, match=said):
            classified(record)
