"""`c360 consent`: what an operator says is a decision like any other, told in the audit log, and acted on by doors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from click.testing import CliRunner, Result

from c360.cli import audit
from c360.cli import consent as consents
from c360.engine.transport import Cluster
from c360.governance.names import Vault, is_veiled
from c360.ops import audit as auditing
from c360.ops.audit import verify
from c360.testing import TestDriver
from tests.cli.test_audit import Here
from tests.cli.test_json import hold
from tests.governance.door_shop import shop
from tests.governance.test_rights import clinic
from tests.testing.people import app as people
from tests.testing.world import World


class Keyed(Here):
    """An invocation that has the driver's keys."""

    def __init__(self, driver: TestDriver) -> None:
        super().__init__(clinic(), driver.cluster)
        self.driver = driver

    def vault(self, cluster: Cluster) -> Vault | None:
        return self.driver.vault


@pytest.fixture
def driver() -> Iterator[TestDriver]:
    with TestDriver(clinic()) as driver:
        driver.send("letters", value={"patient": "7", "email": "ann@mail.org", "name": "Ann Lee"})
        driver.settle()
        yield driver


def call(driver: TestDriver, *words: str) -> Result:
    return CliRunner().invoke(consents.consent, list(words), obj=Keyed(driver))


def shown(driver: TestDriver, who: str, code: int = 0) -> dict[str, Any]:
    driver.settle()
    ran = call(driver, "show", who, "--json")
    assert ran.exit_code == code, ran.output
    found = json.loads(ran.stdout)
    hold("c360 consent show", found)
    (marketing,) = found["purposes"]
    assert marketing["purpose"] == "marketing", "care rests on a contract"
    return {"identifier": found["identifier"], **marketing}


def said(driver: TestDriver, *words: str) -> dict[str, Any]:
    ran = call(driver, "set", *words, "--reason", "ticket 8", "--as", "kim", "--json")
    assert ran.exit_code == 0, ran.output
    found: dict[str, Any] = json.loads(ran.stdout)
    hold("c360 consent set", found)
    return found


def entries(driver: TestDriver) -> list[dict[str, Any]]:
    ran = CliRunner().invoke(audit.audit, ["tail", "--json", "-n", "99"], obj=Keyed(driver))
    found = [line["record"]["entry"] for line in json.loads(ran.stdout)["records"]]
    return [entry for entry in found if entry["who"] == "kim"]


def test_what_is_said_is_known_and_told(driver: TestDriver) -> None:
    assert shown(driver, "patient:7", code=1)["reason"] == "unknown"
    said(driver, "patient:7", "marketing", "granted")
    found = shown(driver, "patient:7")
    assert (found["allowed"], found["status"], found["sources"]) == (True, "granted", ["operator"])
    said(driver, "patient:7", "marketing", "withdrawn")
    found = shown(driver, "patient:7")
    assert (found["allowed"], found["reason"]) == (False, "withdrawn")
    one, two = entries(driver)
    assert (one["what"], one["reason"]) == ("consent set", "ticket 8")
    assert [is_veiled(label) for label in one["about"]] == [True], (
        "customers can be forgotten here, and the log is kept"
    )
    assert (one["before"]["status"], one["after"]["status"]) == ("unknown", "granted")
    assert (two["before"]["status"], two["after"]["status"]) == ("granted", "withdrawn")
    assert verify(driver.plan, driver.cluster).findings == []
    assert not any(b"patient:7" in (value or b"") for _, value in driver.read(driver.plan.audit))


def test_what_is_told_of_somebody_is_found_by_their_identifier(driver: TestDriver) -> None:
    said(driver, "patient:7", "marketing", "granted")
    said(driver, "email:ann@mail.org", "marketing", "granted")
    said(driver, "patient:8", "marketing", "granted")
    for who in ("patient:7", "email:ann@mail.org"):
        ran = CliRunner().invoke(audit.audit, ["tail", "--about", who, "--json"], obj=Keyed(driver))
        assert ran.exit_code == 0, ran.output
        (line,) = json.loads(ran.stdout)["records"]
        assert line["record"]["entry"]["what"] == "consent set"
    nobody = CliRunner().invoke(audit.audit, ["tail", "--about", "patient:9", "--json"], obj=Keyed(driver))
    assert json.loads(nobody.stdout)["records"] == []


def test_doors_act_on_what_was_said() -> None:
    app = shop("doors", personal=False)
    with TestDriver(app) as driver:
        driver.send("clicks", value={"id": "1", "cookie": "a", "page": "/"})
        sink = "doors.activation.crm-sync"

        def there() -> set[bytes | None]:
            driver.settle()
            return {key for key, value in dict(driver.read(sink)).items() if value is not None}

        assert there() == set()
        for status, wanted in (("granted", {b"cookie:a"}), ("withdrawn", set())):
            words = ["set", "cookie:a", "marketing", status, "--reason", "ticket 8"]
            ran = CliRunner().invoke(consents.consent, words, obj=Here(app, driver.cluster))
            assert ran.exit_code == 0, ran.output
            assert there() == wanted
        driver.advance(timedelta(minutes=1))
        driver.settle()
        reasons = {r for line in auditing.tail(driver.plan, driver.cluster, 99)[0] if line.record
                   for r in line.record.entry.after if line.record.entry.who == "sink:crm-sync"}  # fmt: skip
        assert reasons == {"unknown", "withdrawn"}


def test_a_personal_identifier_is_said_and_told_as_its_token(driver: TestDriver) -> None:
    token = said(driver, "email:ann@mail.org", "marketing", "granted")["identifier"]
    assert token.startswith("email:~")
    assert shown(driver, "email: ann@mail.org ")["identifier"] == token
    assert shown(driver, token)["status"] == "granted"
    for topic in (driver.plan.audit, driver.plan.consent_commands, driver.plan.consent):
        assert not any(b"nn@" in (key or b"") + (value or b"") for key, value in driver.read(topic)), topic


def test_a_decision_ends_when_it_was_said_to(driver: TestDriver) -> None:
    ends = datetime.now(UTC) + timedelta(days=400)
    said(driver, "patient:7", "marketing", "granted", "--expires", ends.isoformat())
    assert shown(driver, "patient:7")["expires_at"] == int(ends.timestamp() * 1000)
    for wrong, why in (
        ("2027-01-31T00:00:00", "has no zone"),
        ("soon", "is no time"),
        ("2020-01-01T00:00:00Z", "ended already"),
    ):
        ran = call(driver, "set", "patient:7", "marketing", "granted", "--reason", "x", "--expires", wrong)
        assert ran.exit_code == 2
        assert why in ran.stderr


def test_a_decision_that_is_newer_stands_and_that_is_said(driver: TestDriver) -> None:
    later = datetime.now(UTC) + timedelta(minutes=2)
    driver.send(
        "choices", value={"email": "ann@mail.org", "purpose": "marketing", "granted": False, "at": later.isoformat()}
    )
    driver.settle()
    (note,) = said(driver, "email:ann@mail.org", "marketing", "granted")["notes"]
    assert "later than this machine's clock" in note
    assert shown(driver, "email:ann@mail.org")["reason"] == "denied"


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("patient:7", "care", "granted", "--reason", "x"), "is no purpose of 'clinic' that rests on consent"),
        (("patient:7", "marketing", "granted"), "say why, for those who will ask"),
        (("patient:7", "marketing", "granted", "--reason", "ann@mail.org rang"), "mail address"),
        (("patient:7", "marketing", "allowed", "--reason", "x"), "'allowed' is not one of"),
        (("7", "marketing", "granted", "--reason", "x"), "is not namespace:value"),
    ],
)  # fmt: skip
def test_what_cannot_be_said_is_wrong_use_and_nothing_is_written(
    driver: TestDriver, words: tuple[str, ...], why: str
) -> None:
    ran = call(driver, "set", *words)
    assert (ran.exit_code, ran.stdout) == (2, "")
    assert why in ran.stderr
    assert list(driver.read(driver.plan.consent_commands)) == []
    assert entries(driver) == []


def test_without_the_audit_log_nothing_is_said(driver: TestDriver) -> None:
    driver.stop()
    driver.cluster.admin().delete([driver.plan.audit])
    ran = call(driver, "set", "patient:7", "marketing", "granted", "--reason", "x")
    assert ran.exit_code == 4
    assert list(driver.read(driver.plan.consent_commands)) == []


def test_an_app_whose_purposes_ask_nobody_says_so() -> None:
    world = World(people)
    ran = CliRunner().invoke(consents.consent, ["show", "crm:1"], obj=Here(people, world.cluster))
    assert ran.exit_code == 2
    assert "no purpose of 'people' rests on consent" in ran.stderr
