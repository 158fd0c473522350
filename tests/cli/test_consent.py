"""`c360 consent`, on the in-memory log: what is decided, what it means for the profile, and deciding by hand."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from c360 import App, Projection, Record, count, normalize
from c360.cli.consent import consent
from c360.config import Settings
from c360.ops.audit import tail
from c360.testing import TestDriver
from tests.cli.test_erase import Here
from tests.cli.test_json import hold

AT = "2026-11-02T08:00:00Z"
FIRST, LAST = "2020-01-01T00:00:00Z", "2020-02-01T00:00:00Z"


def shop(*, personal: bool) -> App:
    app = App("shop", partitions=2)

    @app.identifier("crm", priority=1, unique=True)
    class CrmId(str): ...

    @app.identifier("email", normalize=normalize.email, personal=personal)
    class Email(str): ...

    marketing, service = app.purpose("marketing"), app.purpose("service", basis="contract")

    @app.source("orders", subject="crm", purposes=[marketing, service])
    class Order(Record):
        crm: CrmId
        email: Email | None

    @app.consent("choices")
    class Choice(Record):
        crm: CrmId | None
        email: Email | None
        purpose: str
        status: str
        at: datetime

    @app.projection("customer", purposes=[marketing, service])
    class Customer(Projection):
        orders: int = count(Order)

    return app


class Shop:
    def __init__(self, tmp_path: Path, *, personal: bool = False) -> None:
        app = shop(personal=personal)
        self.driver = TestDriver(app)
        self.here = Here(self.driver, app, tmp_path)
        self.here.__dict__["settings"] = Settings(state_dir=tmp_path)
        self.driver.send("orders", None, {"crm": "7", "email": "a@b.org"})
        self.driver.settle()

    def __call__(self, *words: str) -> tuple[int, dict[str, Any]]:
        ran = CliRunner().invoke(consent, [*words, "--json"], obj=self.here)
        assert ran.exception is None or isinstance(ran.exception, SystemExit), ran.exception
        if not ran.stdout:
            return ran.exit_code, {}
        said = json.loads(ran.stdout)
        hold(f"c360 consent {words[0]}", said)
        self.driver.settle()
        return ran.exit_code, said

    def text(self, *words: str) -> str:
        ran = CliRunner().invoke(consent, words, obj=self.here)
        assert ran.exception is None or isinstance(ran.exception, SystemExit), ran.exception
        return ran.output

    def choose(self, status: str, at: str, **who: str) -> None:
        self.driver.send("choices", None, {**who, "purpose": "marketing", "status": status, "at": at})
        self.driver.settle()


@pytest.fixture
def here(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


def test_it_shows_what_is_decided_and_what_that_means_for_the_profile(here: Shop) -> None:
    here.choose("granted", FIRST, crm="7")
    here.choose("withdrawn", FIRST, email="a@b.org")
    code, said = here("show", "crm:7")
    assert code == 0
    assert [(d["purpose"], d["status"], d["source"], d["conflict"]) for d in said["decided"]] == [
        ("marketing", "granted", "choices", False)
    ]
    profile = said["profile"]
    assert (profile["profile_id"], profile["identifiers"], profile["whole"]) == (
        "crm:7",
        ["crm:7", "email:a@b.org"],
        True,
    )
    assert [(v["purpose"], v["allowed"], v["reason"], v["by"]) for v in profile["verdicts"]] == [
        ("marketing", False, "withdrawn", ["email:a@b.org"]), ("service", True, "basis", []),
    ]  # fmt: skip
    here.choose("granted", LAST, email="a@b.org")
    assert here("show", "email:A@B.org")[1]["profile"]["verdicts"][0]["allowed"] is True


def test_a_contradiction_is_shown_with_both_sources(here: Shop) -> None:
    here.choose("granted", FIRST, crm="7")
    here.choose("denied", FIRST, crm="7")
    _, said = here("show", "crm:7")
    assert [w["status"] for w in said["decided"][0]["said"]] == ["granted", "denied"]
    text = here.text("show", "crm:7")
    assert "CONFLICT: granted by choices and denied by choices" in text
    assert "marketing: NO" in text


def test_of_whom_nothing_is_known_it_says_so(here: Shop) -> None:
    code, said = here("show", "crm:8")
    assert (code, said) == (1, {"identifier": "crm:8", "decided": [], "profile": None})
    assert here("show", "phone:8")[0] == 2


def test_a_decision_is_shown_then_written_and_told_in_the_audit_log(here: Shop) -> None:
    here.choose("denied", FIRST, crm="7")
    words = ["set", "crm:7", "marketing", "granted", "--expires-at", "2099-01-01T00:00:00Z"]
    code, said = here(*words)
    assert (code, said["executed"], said["before"]) == (0, False, "denied")
    assert here("show", "crm:7")[1]["decided"][0]["status"] == "denied"
    assert here(*words, "--execute")[0] == 2, "it must say why"
    code, said = here(*words, "--execute", "--reason", "by letter", "--as", "ann")
    assert (code, said["executed"]) == (0, True)
    (decided,) = here("show", "crm:7")[1]["decided"]
    assert (decided["status"], decided["source"], decided["expires_at"]) == ("granted", "operator", 4_070_908_800_000)
    (line,), _ = tail(here.driver.plan, here.driver.cluster, 1)
    assert line.record is not None
    entry = line.record.entry
    assert (entry.who, entry.what, entry.reason, entry.about) == ("ann", "consent set", "by letter", ("crm:7",))
    assert (entry.before["status"], entry.after["status"], entry.after["stage"]) == ("denied", "granted", "done")
    assert here.driver.profile("crm:7", purpose="marketing").orders == 1
    here.driver.verify("consent")


def test_it_counts_right_after_what_came_by_a_clock_that_is_ahead(here: Shop) -> None:
    here.choose("granted", "2099-01-01T00:00:00Z", crm="7")
    here("set", "crm:7", "marketing", "withdrawn", "--execute", "--reason", "by phone")
    assert here("show", "crm:7")[1]["decided"][0]["status"] == "withdrawn"


@pytest.mark.parametrize(
    "words",
    [
        ["crm:7", "parties", "granted"],
        ["crm:7", "service", "denied"],
        ["phone:7", "marketing", "denied"],
        ["crm:", "marketing", "denied"],
        ["crm:7", "marketing", "perhaps"],
        ["crm:7", "marketing", "granted", "--expires-at", "2020-01-01T00:00:00Z"],
        ["crm:7", "marketing", "granted", "--expires-at", "2099-01-01"],
        ["crm:7", "marketing", "granted", "--expires-at", "soon"],
    ],
)
def test_what_cannot_be_meant_is_refused(here: Shop, words: list[str]) -> None:
    assert here("set", *words, "--execute", "--reason", "x")[0] in (1, 2)
    assert list(here.driver.read("shop.consent-commands")) == []


def test_addresses_are_written_as_tokens(tmp_path: Path) -> None:
    here = Shop(tmp_path, personal=True)
    assert here("set", "email:a@b.org", "marketing", "denied", "--execute", "--reason", "by mail")[0] == 0
    _, said = here("show", "email:a@b.org")
    assert said["identifier"].startswith("email:~")
    assert said["profile"]["verdicts"][0]["by"] == [said["identifier"]]
    assert b"a@b.org" not in b"".join(v or b"" for _, v in here.driver.read("shop.consent-commands"))
