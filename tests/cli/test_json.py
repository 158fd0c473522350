"""What `--json` prints is what `docs/reference/cli.md` says: no key less, no key more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from tests.cli.conftest import EVENTS, Shop
from tests.cli.tools import C360
from tests.docs.pages import commands, options_of, schemas
from tests.test_schemas import holds

# Words after `c360`, and the exit code; LETTER is one of the dead letters there are.
ON_THE_SHOP = {
    "c360 plan": (["plan"], 0),
    "c360 topics check": (["topics", "check"], 0),
    "c360 topics apply": (["topics", "apply"], 0),
    "c360 doctor": (["doctor"], 1),  # no worker runs: doors would wait
    "c360 profile": (["profile", "crm:1"], 0),
    "c360 why": (["why", "crm:1"], 0),
    "c360 identity show": (["identity", "show", "crm:1"], 0),
    "c360 identity why": (["identity", "why", "crm:1", "crm:2"], 1),
    "c360 identity conflicts": (["identity", "conflicts"], 0),
    "c360 identity stats": (["identity", "stats", "--limit", "3"], 0),
    "c360 identity separate": (["identity", "separate", "crm:1", "crm:2"], 0),
    "c360 identity join": (["identity", "join", "crm:1", "crm:2"], 0),
    "c360 identity diff": (["identity", "diff", "--rules", "default@1"], 0),
    "c360 reset": (["reset", "customer@1", "--to-earliest"], 0),
    "c360 verify": (["verify"], 0),
    "c360 versions": (["versions"], 0),
    "c360 promote": (["promote", "customer@1"], 0),
    "c360 source list": (["source", "list"], 0),
    "c360 source pause": (["source", "pause", "web.clicks"], 0),
    "c360 source resume": (["source", "resume", "web.clicks"], 0),
    "c360 dlq list": (["dlq", "list"], 0),
    "c360 dlq show": (["dlq", "show", "LETTER"], 0),
    "c360 dlq replay": (["dlq", "replay", "--reason", "none of them"], 0),
    "c360 keys init": (["keys", "init"], 0),
    "c360 keys rotate": (["keys", "rotate", "--wrap-only"], 0),
    "c360 keys retire": (["keys", "retire"], 0),
    "c360 keys status": (["keys", "status"], 0),
    "c360 audit tail": (["audit", "tail"], 0),
    "c360 audit verify": (["audit", "verify"], 0),
}
ELSEWHERE = {
    "c360 load",
    "c360 demo",
    "c360 bench",
    "c360 simulate",
    "c360 identity evaluate",
    "c360 consent show",  # tests/cli/test_consent.py
    "c360 consent set",
    "c360 erase",
    "c360 schemas check",  # tests/cli/test_schemas.py
    "c360 diff",  # tests/cli/test_diff.py
    "c360 rebuild",  # tests/stories/test_change_a_profile.py
    "c360 rollback",
    "c360 retire",
}  # have tests of their own below


def hold(heading: str, document: Any) -> None:
    """The document is valid, and would not be with a key more or one of its keys less."""
    valid = Draft202012Validator(schemas()[heading])
    valid.validate(document)
    assert not valid.is_valid({**document, "something": "else"})
    for key in document:
        assert not valid.is_valid({k: v for k, v in document.items() if k != key}), key


def test_every_command_that_prints_json_is_held_to_its_schema() -> None:
    printing = {words for words, command in commands() if "--json" in options_of(command)}
    assert printing == ON_THE_SHOP.keys() | ELSEWHERE
    assert printing == schemas().keys()


@pytest.mark.parametrize("heading", ON_THE_SHOP)
def test_the_output_is_valid_by_its_schema(shop: Shop, heading: str) -> None:
    words, code = ON_THE_SHOP[heading]
    if "LETTER" in words:
        letter = shop.c360("dlq", "list", "--json").json["letters"][0]["id"]
        words = [letter if word == "LETTER" else word for word in words]
    ran = shop.c360(*words, "--json")
    assert ran.code == code, ran.err
    hold(heading, ran.json)


def test_what_is_loaded_and_created_is_told_by_topic(shop: Shop) -> None:
    hold("c360 load", shop.loaded.json)
    assert shop.loaded.json["records"] == sum(shop.loaded.json["topics"].values()) == EVENTS
    assert shop.loaded.json["topics"].keys() == {
        "web.clicks", "web.consent", "crm.public.customers", "shop.public.orders",
    }  # fmt: skip
    hold("c360 topics apply", shop.applied.json)
    assert shop.applied.json["created"]
    assert shop.c360("topics", "apply", "--json").json == {"created": [], "registered": []}


def test_the_reports_say_what_is_there(shop: Shop) -> None:
    assert shop.c360("topics", "check", "--json").json == {"ok": True, "findings": [], "notes": [], "schemas": []}
    misfits = shop.c360("dlq", "list", "--json").json
    assert misfits["misfits"] == len(misfits["letters"]) == sum(c["count"] for c in misfits["counts"]) > 0
    profile = shop.c360("profile", "crm:1", "--json").json
    assert "crm:1" in profile["identifiers"]


def test_a_stopped_worker_that_has_read_everything_leaves_nothing_to_do(shop: Shop) -> None:
    """Marks of transactions at the end of a log are no records."""
    said = shop.c360("doctor", "--json").json["checks"]
    checks = {c["name"]: c["message"] for c in said}
    assert {c["name"] for c in said if not c["ok"]} == {"consent runs", "erasure runs"}
    assert checks["govern"] == checks["customer@1"] == "0 members, 0 records behind"


def test_nothing_found_is_null_and_findings_are_valid_too(shop: Shop) -> None:
    nobody = shop.c360("profile", "crm:none", "--json")
    assert (nobody.code, nobody.json) == (1, None)
    Draft202012Validator(schemas()["c360 profile"]).validate(None)
    hello = shop.c360.having(C360_APP="examples.hello:app")
    missing = hello("topics", "check", "--json")
    assert missing.code == 1
    assert {f["problem"] for f in missing.json["findings"]} == {"missing"}
    hold("c360 topics check", missing.json)
    sick = hello("doctor", "--json")
    assert sick.code == 1
    hold("c360 doctor", sick.json)


def test_a_demo_is_summed_up() -> None:
    ran = C360()("demo", "--once", "--events", "3000", "--json")
    assert ran.code == 0, ran.err
    hold("c360 demo", ran.json)
    assert (ran.json["events"], ran.json["differences"], ran.json["broker"]) == (3000, 0, "embedded")
    withdrawal, forgotten = ran.json["rights"]["withdrawal"], ran.json["rights"]["forgotten"]
    assert withdrawal["customer"] != forgotten["customer"]
    assert withdrawal["held_after"] == withdrawal["held_before"] - 1
    assert forgotten["left"] == 0
    assert holds("certificate", forgotten["certificate"])


def test_a_demo_too_small_for_a_sink_that_holds_anybody_is_summed_up() -> None:
    ran = C360()("demo", "--once", "--events", "5", "--json")
    assert ran.code == 0, ran.err
    hold("c360 demo", ran.json)
    assert ran.json["rights"] is None


def test_an_evaluation_says_how_good_rules_are(tmp_path: Path) -> None:
    records, more, truth = tmp_path / "clicks.csv", tmp_path / "more.csv", tmp_path / "truth.csv"
    head = "id, cookie, customer, login, category, ts\n"
    records.write_text(
        head + "a, cookie-1, , ann@mail.org, x, 2026-11-02T08:00:00Z\nb, cookie-2, , bo@mail.org, x, never\n"
    )
    more.write_text(head + "c, cookie-3, , Ann@Mail.org, x, 2026-11-02T08:00:00Z\n")
    truth.write_text("record_id,entity\na,1\nb,1\nc,1\n")
    words = [
        "identity",
        "evaluate",
        "--source",
        "web.clicks",
        "--records",
        str(records),
        str(more),
        "--truth",
        str(truth),
    ]
    ran = C360({"C360_APP": "examples.shop.app:app"})(*words, "--json")
    assert ran.code == 0, ran.err
    hold("c360 identity evaluate", ran.json)
    assert ran.json["pairs"] == {"true": 3, "found": 1, "both": 1}
    assert (ran.json["misfits"], ran.json["missing"]) == ({"out-of-range": 1}, 1)


def test_what_operators_say_is_in_the_log_until_it_is_undone(shop: Shop) -> None:
    """By commands alone. No worker runs here: what they would make of it is computed by each command anew."""
    pair = ("crm:1", "crm:2")
    before = shop.c360("identity", "show", "crm:1", "--json").json
    said = shop.c360("identity", "separate", *pair, "--reason", "two sisters", "--actor", "kim", "--execute", "--json")
    assert said.code == 0, said.err
    hold("c360 identity separate", said.json)
    assert said.json["executed"]
    shown = shop.c360("identity", "show", "crm:1", "--json").json
    hold("c360 identity show", shown)
    assert [(s["other"], s["reason"], s["actor"]) for s in shown["separated"]] == [("crm:2", "two sisters", "kim")]
    assert shop.c360("identity", "separate", *pair, "--undo", "--execute").code == 0
    assert shop.c360("identity", "show", "crm:1", "--json").json == before
    again = shop.c360("identity", "separate", *pair, "--undo")
    assert (again.code, again.out) == (2, "")
    assert "there is nothing to undo" in again.err


def test_a_benchmark_is_measured_as_its_schema_says(kafka: str) -> None:
    ran = C360()("bench", "--events", "10000", "--json")
    assert ran.code == 0, ran.err
    hold("c360 bench", ran.json)
    assert ran.json["events"] == 10_000


def test_simulations_are_counted_and_the_first_failure_is_named() -> None:
    c360 = C360({"C360_APP": "examples.shop.app:app"})
    ran = c360("simulate", "--seeds", "4", "--from", "9", "--json")
    assert ran.json == {"seeds": 4, "failed": 0, "first_failure": None}
    assert ran.code == 0
    hold("c360 simulate", ran.json)
    random = c360.having(C360_APP="tests.cli.moody:app")("simulate", "--seeds", "3", "--json")
    assert random.code == 1
    hold("c360 simulate", random.json)
    assert random.json["failed"] == 3
    assert random.json["first_failure"]["seed"] == 0
    assert "customer@1" in random.json["first_failure"]["error"]
