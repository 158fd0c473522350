"""`c360 keys`, and commands of an app that seals: with its keys, with others, with none."""

from __future__ import annotations

import base64
import json
import stat
from pathlib import Path

from c360.engine.kafka import KafkaCluster
from c360.engine.transport import TP
from c360.ops import keys
from examples.shop.app import app
from tests.cli.conftest import Shop
from tests.cli.tools import C360


def test_a_file_is_made_once_and_nobody_else_can_read_it(tmp_path: Path) -> None:
    path = tmp_path / "new" / "shop.keys"
    c360 = C360({"C360_APP": "examples.shop.app:app", "C360_KEYS": str(path)})
    made = c360("keys", "init", "--json").json
    assert (made["made"], made["secret"], made["keys"]) == (True, None, str(path))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    before = path.read_bytes()
    again = c360("keys", "init")
    assert (again.code, path.read_bytes()) == (2, before)
    assert "it may be the only key" in again.err
    added = c360("keys", "rotate", "--new-only", "--json").json
    assert (added["added"], added["wrapped"]) == (True, None)
    assert added["generation"] != made["generation"]
    assert len(json.loads(path.read_text())["keys"]) == 2


def test_the_secret_is_made_once(shop: Shop) -> None:
    assert (shop.made.json["made"], shop.made.json["secret"]) == (True, "made")
    again = shop.c360("keys", "init", "--json").json
    assert again == {**shop.made.json, "made": False, "secret": "there"} | {"generation": again["generation"]}


def test_the_keys_can_be_rotated_under_what_is_sealed(shop: Shop) -> None:
    before = shop.c360("keys", "status", "--json").json
    profile = shop.c360("profile", "crm:1", "--json").json
    rotated = shop.c360("keys", "rotate", "--as", "ann", "--json").json
    assert rotated["wrapped"] == sum(one["keys"] for one in before["generations"]) > 20
    after = shop.c360("keys", "status", "--json").json
    assert after == {
        "current": rotated["generation"],
        "generations": [{"generation": rotated["generation"], "keys": rotated["wrapped"], "current": True}],
    }
    assert shop.c360("keys", "rotate", "--wrap-only", "--json").json["wrapped"] == 0
    assert shop.c360("keys", "rotate", "--new-only").code == 0
    refused = shop.c360("keys", "retire")
    assert (refused.code, "still wraps keys" in refused.err) == (4, True)
    assert shop.c360("keys", "rotate", "--wrap-only").code == 0
    assert len(shop.c360("keys", "retire", "--json").json["retired"]) >= 2
    assert shop.c360("keys", "retire", "--json").json["retired"] == []
    assert shop.c360("profile", "crm:1", "--json").json == profile
    assert shop.c360("verify", "govern").code == 0
    lines = shop.c360("audit", "tail", "-n", "200", "--json").json["records"]
    told = [entry for line in lines if (entry := line["record"]["entry"])["what"] == "keys rotate"][:2]
    assert [(entry["after"]["stage"], entry["who"]) for entry in told] == [("intended", "ann"), ("done", "ann")]
    assert told[1]["after"]["wrapped"] == str(rotated["wrapped"])


def test_who_comes_with_other_keys_or_none_is_refused(shop: Shop, tmp_path: Path) -> None:
    other = shop.c360.having(C360_KEYS=str(tmp_path / "other.keys"), C360_STATE_DIR=str(tmp_path / "state"))
    assert other.having(C360_BROKER="")("keys", "init").code == 0
    for words in (
        ["worker"],
        ["keys", "status"],
        ["keys", "init"],
        ["keys", "rotate"],
        ["verify"],
        ["profile", "email:x@y.org"],
    ):
        ran = other(*words)
        assert ran.code == 4, (words, ran.err)
        assert "C360_KEYS is not the master key of shop" in ran.err
    none = shop.c360.having(C360_KEYS="", C360_STATE_DIR=str(tmp_path / "state"))
    for words in (["worker"], ["verify"], ["profile", "email:x@y.org"]):
        ran = none(*words)
        assert ran.code == 2, (words, ran.err)
        assert "c360 keys init" in ran.err
    assert none("profile", "crm:1").code == 0, "nothing of it has to become a token"
    assert none("verify", "customer@1").code == 0


def test_a_profile_is_found_by_an_address_and_does_not_show_it(shop: Shop) -> None:
    profile = shop.c360("profile", "crm:1", "--json").json
    found = shop.c360("profile", "email:CUSTOMER1@mail.example ", "--json").json
    assert found == profile
    assert "customer1@mail.example" not in json.dumps(profile)
    (token, *_) = [i for i in profile["identifiers"] if i.startswith("email:~")]
    assert shop.c360("identity", "show", token, "--json").json["profile"] == "crm:1"


def test_letters_are_opened_with_the_keys(shop: Shop) -> None:
    letters = shop.c360("dlq", "list", "--json").json["letters"]
    of_clicks = next(letter["id"] for letter in letters if letter["topic"] == "web.clicks")
    shown = shop.c360("dlq", "show", of_clicks, "--json").json
    assert shown["sealed"] is None
    assert base64.b64decode(shown["value"])
    assert shop.c360.having(C360_KEYS="")("dlq", "show", of_clicks, "--json").code == 2


def test_no_byte_of_our_topics_has_an_address_or_a_name(shop: Shop) -> None:
    """On a real broker, transactions that were aborted included, as a reader of uncommitted records would see them."""
    cluster = KafkaCluster(shop.c360.settings["C360_BROKER"])
    plan = app.plan()
    assert len(keys.read_records(plan, cluster)) > 20
    reader, counts = cluster.reader(), cluster.admin().topics()
    seen = 0
    ours = [TP(t.name, p) for t in plan.topics if t.owned for p in range(counts.get(t.name, 0))]
    for batches in reader.read(reader.starts(ours)):
        for batch in batches:
            for i, (key, value) in enumerate(zip(batch.keys, batch.values, strict=True)):
                data = b"\n".join([key or b"", value or b"", *(d or b"" for _, d in batch.headers(i))])
                seen += len(data)
                assert b"@mail.example" not in data, batch.tp
                assert b"@shop.example" not in data, batch.tp
                assert b"Customer 1" not in data, batch.tp
    reader.close()
    assert seen > 100_000
