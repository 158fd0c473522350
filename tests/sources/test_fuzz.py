"""Mutated records of all formats; what the fuzzer has found so far; and that it would notice a process that fails."""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from collections.abc import Callable
from decimal import Decimal
from multiprocessing.connection import Connection
from typing import Any

import pytest

from c360.codecs.avro import AvroDecoder, WriterSchema
from c360.codecs.debezium import DebeziumDecoder
from c360.codecs.json import Choice
from c360.codecs.record import Record
from c360.errors import Misfit
from tests.fuzz import __main__ as fuzzer
from tests.fuzz.corpus import FORMATS
from tests.fuzz.target import BATCH, Target, Told
from tests.sources.registry import FakeRegistry


class Row(Record):
    id: int
    amount: Decimal


def test_a_short_run_finds_nothing() -> None:
    """In this process, as it is short; `make fuzz RUNS=1000000` is the long one."""
    total = Told()
    for topic in FORMATS:
        total.add(Target(topic, 1).run(0, 0, 250))
    assert total.runs == 250 * len(FORMATS)
    assert total.values > 200
    assert total.misfits.total() > 800
    assert len(total.misfits) > 15
    assert total.misfits.keys() <= fuzzer.KNOWN


# ------------------------------------------------------------------------------------------------- what it has found
@pytest.mark.parametrize(
    ("value", "reason"),
    [(b'{"id": 1, "amount": "\xff"}', "not-utf8"), (b'{"x": ' + b"[" * 1000 + b"]" * 1000 + b"}", "too-deep")],
)
def test_a_value_of_a_json_schema_that_is_no_json_is_put_aside_like_any_other(value: bytes, reason: str) -> None:
    registry = FakeRegistry()
    number = registry.register({"type": "object"}, "JSON")
    decoder = AvroDecoder([Choice(Row, None)], "dlq", registry)
    (found,) = decoder.decode([b"\0" + number.to_bytes(4, "big") + value])
    assert isinstance(found, Misfit)
    assert found.reason == reason


@pytest.mark.parametrize("kind", ["bytes", "fixed"])
def test_a_decimal_of_a_megabyte_takes_no_minutes(kind: str) -> None:
    size = 1_000_000
    shape: dict[str, Any] = {"type": "bytes"} if kind == "bytes" else {"type": "fixed", "name": "F", "size": size}
    amount = shape | {"logicalType": "decimal", "precision": 2_000_000, "scale": 2}
    fields = [{"name": "id", "type": "int"}, {"name": "amount", "type": amount}]
    registry = FakeRegistry()
    registry.schemas[1] = WriterSchema("AVRO", json.dumps({"type": "record", "name": "Row", "fields": fields}))
    length = bytes([0x80, 0x89, 0x7A]) if kind == "bytes" else b""
    begun = time.process_time()
    (found,) = AvroDecoder([Choice(Row, None)], "dlq", registry).decode([b"\0\0\0\0\1\2" + length + b"\x7f" * size])
    assert isinstance(found, Misfit)
    assert found.reason == "out-of-range"
    assert time.process_time() - begun < 2


def change(**schema: Any) -> bytes:
    """A change whose schema says something of `amount`."""
    column = {"type": "bytes", "field": "amount", "name": "org.apache.kafka.connect.data.Decimal"} | schema
    source = {"connector": "postgresql", "ts_ms": 1, "lsn": 5}
    payload = {"op": "c", "after": {"id": 1, "amount": "BNI="}, "source": source}
    fields = [{"type": "struct", "field": "after", "fields": [column]}]
    return json.dumps({"schema": {"type": "struct", "fields": fields}, "payload": payload}).encode()


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (change(parameters={"scale": "1000000000"}), "out-of-range"),
        (change(parameters={"scale": "x"}), "out-of-range"),
        (change(parameters=[]), "wrong-type"),
        (change(field=7), "wrong-type"),
        (change(name=False), "wrong-type"),
        (change().replace(b'"fields": [{"type": "struct"', b'"fields": [true, {"type": "struct"'), "wrong-type"),
        (change(parameters={"scale": "2"}).replace(b"BNI=", b"f3d3" * 300), "out-of-range"),
    ],
)  # fmt: skip
def test_a_schema_of_connect_that_is_none_is_a_misfit(value: bytes, reason: str) -> None:
    (found,) = DebeziumDecoder(Row, ["id"]).decode([value], [b'{"id": 1}'])
    assert isinstance(found, Misfit)
    assert found.reason == reason


def test_and_one_that_is_right_is_read() -> None:
    (found,) = DebeziumDecoder(Row, ["id"]).decode([change(parameters={"scale": "2"})], [b'{"id": 1}'])
    assert getattr(found, "record", None) == Row(id=1, amount=Decimal("12.34"))


# ------------------------------------------------------------------------------------------------- would it be noticed
CULPRIT = 137


def dies(pipe: Connection, topic: str, seed: int, memory: int) -> None:
    _answer(pipe, lambda: os._exit(7))


def raises(pipe: Connection, topic: str, seed: int, memory: int) -> None:
    _answer(pipe, lambda: pipe.send(Told(error="TypeError: no")))


def is_slow(pipe: Connection, topic: str, seed: int, memory: int) -> None:
    _answer(pipe, lambda: pipe.send(Told(1, cpu_s=100.0)))


def hangs(pipe: Connection, topic: str, seed: int, memory: int) -> None:
    _answer(pipe, lambda: time.sleep(60))


def _answer(pipe: Connection, fail: Callable[[], object]) -> None:
    pipe.send("ready")
    while (asked := pipe.recv()) is not None:
        batch, start, stop = asked
        if batch == 0 and start <= CULPRIT < stop:
            fail()
        else:
            pipe.send(Told(stop - start, stop - start))


@pytest.mark.parametrize(("target", "kind"), [(dies, "crash"), (raises, "crash"), (is_slow, "hang"), (hangs, "hang")])
def test_the_record_that_is_at_fault_is_found_and_the_others_are_run(
    target: Callable[..., None], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fuzzer, "HANG_S", 0.3)
    monkeypatch.setattr(fuzzer, "_spawn", multiprocessing.get_context("fork"))
    report = fuzzer.fuzz(["json"], 2 * BATCH, 1, target=target)
    assert [(f.kind, f.batch, f.start, f.stop) for f in report.faults] == [(kind, 0, CULPRIT, CULPRIT + 1)]
    assert report.total.runs == 2 * BATCH
    assert report.total.values == 2 * BATCH - 1
