"""`schemas/*.avsc` are the contracts of the topics we own: whatever agents write holds to them, and nothing else would."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import orjson
import pytest
from fastavro import parse_schema
from fastavro.validation import validate

from c360.engine.memory import MemoryCluster
from c360.engine.transport import TP
from c360.ops.audit import Run, Told
from c360.ops.demo import Demo
from c360.ops.dlq import replay_told
from c360.ops.load import RawRecord
from c360.ops.records import records
from c360.ops.traffic import traffic
from c360.tables.store import MemoryStores
from c360.testing import TestDriver
from examples.shop.app import app
from tests.docs.pages import ROOT, rows
from tests.identity.agent import stage_of
from tests.sources import outside_shop

SCHEMAS = ROOT / "schemas"
PAGE = ROOT / "docs" / "formats" / "topics.md"
BY_ROLE = {
    "projection": "profile", "governed": "governed", "dlq": "dead_letter", "truncates": "truncate", "days": "day",
    "assignments": "assignment", "changes": "identity_change", "audit": "audit", "suppressed": "suppressed",
    "passed": "suppression_passed", "erasures": "certificate", "questions": "question", "answers": "answer",
}  # fmt: skip
BY_TOPIC = {"shop.erase": "erasure_command", "shop.receipts": "erasure_receipt"}  # of a role that others have, too
HOLDING = {**BY_ROLE, **BY_TOPIC}
BY_HAND = {"consent_command"}  # what a person says at the command line; tests/governance/test_wire.py holds it
NO_SCHEMA = {  # the user's, binary, or for one agent alone
    "raw", "changelog", "replay", "tasks", "links", "loop", "consent", "keys", "fence", "asked", "told", "view",
    "activation", "control",
}  # fmt: skip
END_MS = 1_767_225_600_000


def schema(name: str) -> Any:
    return json.loads((SCHEMAS / f"{name}.avsc").read_text(encoding="utf-8"))


def as_avro(contract: Any, wire: Any) -> Any:
    """A value of the wire as the page on topics says that it stands for Avro."""
    match contract:
        case list():
            return wire if wire is None else as_avro(contract[-1], wire)
        case {"type": "map", "values": inner} if isinstance(wire, dict):
            return {key: as_avro(inner, value) for key, value in wire.items()}
        case {"type": "record", "fields": fields} if isinstance(wire, dict):
            made = dict(wire)
            for field in fields:
                name = field["name"]
                if name not in made and "default" in field:
                    made[name] = field["default"]
                elif field.get("json") and isinstance(made.get(name), dict):
                    made[name] = {key: json.dumps(value) for key, value in made[name].items()}
                elif name in made:
                    made[name] = as_avro(field["type"], made[name])
            return made
    return wire


def holds(name: str, wire: Any) -> bool:
    """Whether a value of the wire has exactly the fields of its schema, each of its type."""
    contract = schema(name)
    value = as_avro(contract, wire)
    if contract["type"] == "record" and value.keys() != {field["name"] for field in contract["fields"]}:
        return False  # fastavro does not mind fields that it does not know
    return validate(value, parse_schema(without_logical_types(contract)), raise_errors=False)


def without_logical_types(contract: Any) -> Any:
    """The wire has numbers; of a logical type fastavro would take a text as well."""
    if isinstance(contract, dict):
        return {k: without_logical_types(v) for k, v in contract.items() if k != "logicalType"}
    return [without_logical_types(part) for part in contract] if isinstance(contract, list) else contract


@cache
def written() -> Mapping[str, list[Any]]:
    """What a demo writes, by role: traffic with misfits, repeats and deleted rows, a table that is emptied, and an erasure."""
    plan, cluster = app.plan(), MemoryCluster()
    truncate = {
        "op": "t", "before": None, "after": None, "ts_ms": END_MS,
        "source": {"connector": "postgresql", "schema": "public", "table": "customers", "ts_ms": END_MS, "lsn": 1 << 40},
    }  # fmt: skip
    raw = [
        *traffic(3_000, seed=7, end_ms=END_MS),
        RawRecord("crm.public.customers", None, orjson.dumps(truncate), END_MS, [("from", b"debezium")]),
        RawRecord("web.clicks", None, b"\xff", END_MS, [("name", b"value")]),
    ]
    demo = Demo(plan, cluster, MemoryStores(), slot="0")
    demo.fold(iter(raw), lambda glance: None, demo.act)
    with Run(plan, cluster, who="kim", reason="ticket 7", random=random.randbytes) as run:
        replay_told(plan, cluster, run, topic=None, reason=None)
    with Run(plan, cluster, who="kim", random=random.randbytes) as run:
        run.say("refused", Told("reset", about=("crm:7",), before={"positions": "web.clicks 7"}))
    reader, counts = cluster.reader(), cluster.admin().topics()
    found: dict[str, list[Any]] = {}
    for topic in plan.topics:
        partitions = [TP(topic.name, p) for p in range(counts[topic.name])]
        values = [r.value for r in records(reader, reader.starts(partitions)) if r.value is not None]
        if topic.name in BY_TOPIC:
            found[topic.name] = [*map(orjson.loads, values)]
        elif topic.role in BY_ROLE:
            found.setdefault(topic.role, []).extend(map(orjson.loads, values))
        else:
            assert topic.role in NO_SCHEMA, f"{topic.name}: its role has no schema"
            assert topic.role != "tasks" or not values
    found |= outside_wrote()
    for seed in range(40):
        stage = stage_of(random.Random(seed))
        stage.say(stage.coming)
        stage.settle(loop := stage.loop(MemoryStores()))
        loop.commit_or_abort()
        for role, topic_name in (
            ("assignments", stage.plan.assignments(stage.identity)),
            ("changes", stage.plan.identity_changes(stage.identity)),
        ):
            found.setdefault(role, []).extend(orjson.loads(value) for _, _, value in stage.read(topic_name) if value)
    return found


def outside_wrote() -> dict[str, list[Any]]:
    """By role, of an app that asks outside: in clear and sealed, and of a second life."""
    with TestDriver(outside_shop.app, now=outside_shop.NOW) as t:
        outside_shop.far.said["ann@mail.org"] = outside_shop.Firm(name="Mail Inc", size=1, owner=None)
        outside_shop.scores.said["c1"] = outside_shop.Score(points=3)
        outside_shop.choose(t, granted=True, cookie="c1")
        t.settle()
        outside_shop.click(t, 1)
        t.settle()
        certificate = t.erase("cookie:c1")
        assert certificate is not None
        t.lift(certificate)
        outside_shop.click(t, 2)
        t.settle()
        of_role = {
            role: [topic.name for topic in t.plan.topics if topic.role == role] for role in ("questions", "answers")
        }
        return {role: [value for name in names for value in t.topic(name)] for role, names in of_role.items()}


@pytest.mark.parametrize("path", sorted(SCHEMAS.glob("*.avsc")), ids=lambda path: path.stem)
def test_a_schema_is_avro_and_explains_itself(path: Path) -> None:
    contract = schema(path.stem)
    parse_schema(contract)
    assert contract["doc"]
    assert path.stem in {*HOLDING.values(), *BY_HAND}


def test_the_page_says_which_topic_has_which_schema() -> None:
    table = {row[0]: row[2] for row in rows(PAGE.read_text(encoding="utf-8"))[1:]}
    assert table.keys() == BY_ROLE.keys() | NO_SCHEMA - {"raw"}
    said = {role: re.findall(r"`schemas/(\w+)\.avsc`", text) for role, text in table.items()}
    assert {role: names for role, names in said.items() if names} == {
        **{role: [name] for role, name in BY_ROLE.items()},
        "asked": ["consent_command", "erasure_command"],
        "told": ["erasure_receipt"],
    }


@pytest.mark.parametrize(("role", "name"), HOLDING.items())
def test_every_record_of_a_demo_holds_to_its_schema(role: str, name: str) -> None:
    found = written()[role]
    assert found
    assert [value for value in found if not holds(name, value)] == []


def test_what_purposes_see_is_in_the_contract_of_a_profile() -> None:
    whole = written()["projection"][0]
    view = {key: whole[key] for key in ("subjects", "subjects_total", "identifiers", "attributes", "as_of")}
    assert holds("profile", {**whole, "views": {"marketing": view, "service": None}})
    assert not holds("profile", {**whole, "views": {"marketing": {**view, "as_of": 1}}})
    assert not holds("profile", {**whole, "views": {"marketing": "all"}})


def test_the_demo_wrote_what_makes_the_contracts_interesting() -> None:
    assert {g.get("sign", 1) for g in written()["governed"]} == {1, -1}
    assert any(g.get("enriched") for g in written()["governed"])
    assert {type(q["value"]) for q in written()["questions"]} == {str, dict}
    assert {q.get("life", 0) for q in written()["questions"]} == {0, 1}
    assert any("~sealed" in a["record"] for a in written()["answers"])
    assert {d["reason"] for d in written()["dlq"]} >= {"not-json", "out-of-range", "wrong-type"}
    assert any(d.get("sealed") for d in written()["dlq"])
    assert {a["writer"].partition("/")[0] for a in written()["audit"]} > {"cli", "erasure", "sink:newsletter"}
    assert any(a["seen"] for a in written()["audit"])
    (certificate,) = written()["erasures"]
    assert certificate["subjects"]
    assert certificate["agents"]
    assert {len(s["holds"]) for s in written()["suppressed"]} == {1}
    assert {a["change"] for a in written()["assignments"]} >= {"created", "merged", "detail"}
    assert {c["change"] for c in written()["changes"]} >= {"created", "merged", "detail", "conflict", "status"}


@pytest.mark.parametrize(("role", "name"), [item for item in HOLDING.items() if item[0] != "days"])
def test_a_record_with_a_field_more_less_or_of_another_type_does_not_hold(role: str, name: str) -> None:
    contract, value = schema(name), written()[role][0]
    assert not holds(name, {**value, "something": "else"})
    for field in contract["fields"]:
        key = field["name"]
        assert not holds(name, {**value, key: [None]}), key
        if "default" not in field:
            assert not holds(name, {k: v for k, v in value.items() if k != key}), key


def test_a_day_is_a_whole_number() -> None:
    assert holds("day", 20_418)
    assert not holds("day", "20418")
