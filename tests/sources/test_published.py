"""`c360 schemas check --registry` and `--replay` with a real registry: what it has of a subject, and what it says when away."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from c360.engine.registry import SchemaRegistry
from c360.ops.schemas import check
from tests.cli.tools import C360
from tests.ops.test_schemas import LONG, MICROS, MILLIS, TEXT, of, record
from tests.registry import Apicurio

OLD, NOW = record(of(MILLIS)), record(of(MICROS))


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "schemas").mkdir()
    return tmp_path / "schemas"


@pytest.fixture
def registry(real_registry: Apicurio) -> Iterator[SchemaRegistry]:
    found = SchemaRegistry(real_registry.url)
    yield found
    found.close()


def delete(real: Apicurio, path: str) -> None:
    urllib.request.urlopen(urllib.request.Request(real.url + path, method="DELETE"), timeout=10).close()


def test_all_versions_are_compared_with_and_the_level_is_looked_at(
    real_registry: Apicurio, registry: SchemaRegistry, directory: Path
) -> None:
    (directory / "check.orders.avsc").write_text(json.dumps(NOW))
    real_registry.publish("check.orders-value", OLD)
    real_registry.publish("check.orders-value", NOW)
    found = check(directory, None, registry=registry).findings
    assert [(f.rule, f.subject, f.against) for f in found] == [
        ("unit", "check.orders-value", ("version 1 of check.orders-value",)), ("level", "check.orders-value", ()),
    ]  # fmt: skip
    assert registry.default_level() == "NONE"
    real_registry.compatibility("check.orders-value", "BACKWARD_TRANSITIVE")
    assert [f.rule for f in check(directory, None, registry=registry).findings] == ["unit"]


def test_what_a_version_refers_to_is_looked_at_with_it(
    real_registry: Apicurio, registry: SchemaRegistry, directory: Path
) -> None:
    real_registry.publish("check.money", record(of(MILLIS), name="Money"))
    real_registry.publish(
        "check.paid-value", record(of("shop.Money", "paid")), references=[("shop.Money", "check.money", 1)]
    )
    real_registry.compatibility("check.paid-value", "FULL_TRANSITIVE")
    (directory / "check.paid.avsc").write_text(json.dumps(record(of(record(of(MICROS), name="Money"), "paid"))))
    found = check(directory, None, registry=registry).findings
    assert [(f.rule, f.place) for f in found] == [("unit", "paid.it")]


def test_a_version_that_was_deleted_wrote_what_is_retained(
    real_registry: Apicurio, registry: SchemaRegistry, directory: Path
) -> None:
    (directory / "check.gone.avsc").write_text(json.dumps(NOW))
    real_registry.publish("check.gone-value", OLD)
    real_registry.publish("check.gone-value", NOW)
    real_registry.compatibility("check.gone-value", "BACKWARD_TRANSITIVE")
    delete(real_registry, "/subjects/check.gone-value/versions/1")
    assert registry.client.get_versions("check.gone-value") == [2]
    assert [number for number, _ in registry.versions("check.gone-value")] == [1, 2]
    assert [f.rule for f in check(directory, None, registry=registry).findings] == ["unit"]


def test_a_registry_that_is_away_is_exit_1_and_one_that_is_not_named_exit_2(directory: Path) -> None:
    (directory / "a.avsc").write_text(json.dumps(record(of(LONG), of(TEXT, "b"))))
    c360 = C360(directory=directory.parent)
    for words in (["--registry"], ["--replay"]):
        ran = c360("schemas", "check", *words)
        assert (ran.code, ran.out) == (2, "")
        assert "which registry? Set C360_REGISTRY" in ran.err
    away = c360.having(C360_REGISTRY="http://127.0.0.1:9")
    ran = away("schemas", "check", "--registry")
    assert (ran.code, ran.out) == (1, "")
    assert "the schema registry (C360_REGISTRY) does not answer" in ran.err
    ran = away("schemas", "check", "--replay")
    assert (ran.code, ran.out) == (2, "")
    assert "which app?" in ran.err
