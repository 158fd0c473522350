"""`c360 verify` of an app that seals: with the keys it looks into all, without them it says what it cannot tell."""

from __future__ import annotations

import json
from typing import Any

import pytest

from c360.engine.partition import partition_of
from c360.governance.keys import read_record_key, tombstone
from c360.ops.verify import Report, verify
from c360.testing import TestDriver
from tests.governance.forget_shop import NOW, shop
from tests.governance.sealed_shop import app, click, customer, row, said
from tests.testing.world import At, Edit, Edited, World

PEOPLE, CLICKS = "sealed.governed.people.v1", "sealed.governed.clicks.v1"


@pytest.fixture
def world() -> World:
    world = World(app)
    said(world)
    world.settle()
    return world


def report(world: World, *agents: str, edit: Edit | None = None, keys: bool = True) -> Report:
    cluster: Any = world.cluster if edit is None else Edited(world.cluster, edit)
    return verify(world.plan, cluster, agents, vault=world.vault if keys else None)


def kinds(world: World, edit: Edit) -> list[str]:
    return [example["kind"] for example in report(world, "govern", edit=edit).examples]


def sealed_name(world: World) -> str:
    (record,) = world.values(PEOPLE)
    return str(record["record"]["name"]["~sealed"])


def destroy(world: World, subject: str) -> None:
    """What an erasure does to the keys of a subject."""
    keys = [k.decode() for k, v in world.read(world.plan.keys) if k is not None and v is not None]
    for key in keys:
        if key.startswith(f"{subject}\0"):
            record = tombstone(*read_record_key(key.encode()))
            partition = partition_of(subject.encode(), world.plan.partitions)
            world.producer.produce(world.plan.keys, record.key, None, partition)
    world.producer.flush()


def test_with_the_keys_all_is_compared(world: World) -> None:
    found = report(world)
    assert (found.differences, found.complete, found.whole.notes) == (0, True, [])


def test_without_the_keys_nothing_is_said_of_govern_and_all_of_the_others(world: World) -> None:
    found = report(world, keys=False)
    assert not found.complete
    assert found.whole.notes == ["nobody can tell without the master key what govern must write: set C360_KEYS"]
    assert (found.agents["customer@1"].complete, found.agents["identity@1"].complete) == (True, True)
    assert found.differences == 0


def test_an_altered_or_an_exchanged_sealed_value_is_found(world: World) -> None:
    name = sealed_name(world)
    assert "altered" in kinds(world, At(world.cluster, PEOPLE, 0).altered(name[-8:-4].encode(), b"AAAA"))
    world.send("people", '{"id": "7"}', row("u", 20, **customer(name="Ann Muller")))
    world.settle()
    other = world.values(PEOPLE)[-1]["record"]["name"]["~sealed"]
    edit = At(world.cluster, PEOPLE, 0).altered(name.encode(), other.encode())
    assert kinds(world, edit) == ["altered"]


def test_a_value_in_clear_where_a_sealed_one_belongs_is_found(world: World) -> None:
    (record,) = world.values(PEOPLE)
    value = json.dumps(record["record"]["name"], separators=(",", ":"))
    edit = At(world.cluster, PEOPLE, 0).altered(value.encode(), b'"Ann Miller"')
    assert "altered" in kinds(world, edit)


def test_of_a_subject_whose_keys_are_gone_the_rest_is_compared(world: World) -> None:
    destroy(world, "crm:7")
    found = report(world)
    assert (found.differences, found.complete) == (0, True)
    assert found.whole.notes == ["sealed values of 1 subjects were erased, and are not compared"]
    assert kinds(world, At(world.cluster, PEOPLE, 0).altered(b'},"city":"Oslo"}', b'},"city":"Rome"}')) == ["altered"]
    assert kinds(world, At(world.cluster, PEOPLE, 0).lost) == ["lost"]


def test_what_is_erased_of_one_subject_hides_nothing_of_another(world: World) -> None:
    world.send("clicks", "k", click(9, customer="8"))
    destroy(world, "crm:7")
    world.settle()
    at = next(n for n, r in enumerate(world.values(CLICKS)) if r["record"]["customer"] == "8")
    login = world.values(CLICKS)[at]["record"]["login"]["~sealed"]
    edit = At(world.cluster, CLICKS, at).altered(login[-8:-4].encode(), b"AAAA")
    assert "altered" in kinds(world, edit)


def test_profiles_of_erased_customers_are_those_of_their_new_lives() -> None:
    with TestDriver(shop(joined=False), now=NOW) as driver:
        for number, customer in enumerate(["7", "8", "7"]):
            driver.send("orders", customer, {"id": f"o{number}", "customer": customer, "note": f"note {number}"})
        driver.settle()
        assert driver.erase("crm:7") is not None
        assert driver.record("crm:7") is None
        driver.verify("customer@1")
        found = verify(driver.plan, driver.cluster, ["customer@1"])
        assert found.whole.notes == [
            "customer@1: who was erased cannot be told without the master key: set C360_KEYS"
        ]  # who it was is not written anywhere
        assert not found.complete
