"""`c360 erase`, on the in-memory log: what it would take, what it asks for, what is left."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from c360.cli.common import Context
from c360.cli.erase import erase
from c360.config import Settings
from c360.engine.transport import Cluster
from c360.governance.names import Vault
from c360.testing import TestDriver
from tests.cli.test_json import hold
from tests.governance.forget_shop import NOW, shop
from tests.governance.test_forget import ADA, merged


class Here(Context):
    """The invocation on the cluster of a driver, with its keys."""

    def __init__(self, driver: TestDriver, app: Any, state_dir: Path) -> None:
        super().__init__("forget:app")
        self.__dict__["app"], self.driver = app, driver
        self.__dict__["settings"] = Settings(state_dir=state_dir)

    def cluster(self, broker: str | None = None) -> Cluster:
        return self.driver.cluster

    def vault(self, cluster: Cluster) -> Vault | None:
        return self.driver.vault


class Shop:
    def __init__(self, tmp_path: Path) -> None:
        app = shop()
        self.driver = TestDriver(app, now=NOW)
        self.here = Here(self.driver, app, tmp_path / "state")
        merged(self.driver)
        self.driver.settle()

    def __call__(self, *words: str) -> tuple[int, dict[str, Any]]:
        ran = CliRunner().invoke(erase, [*words, "--json"], obj=self.here)
        assert ran.exception is None or isinstance(ran.exception, SystemExit), ran.exception
        if ran.exit_code == 2:
            return 2, {}
        said = json.loads(ran.stdout)
        hold("c360 erase", said)
        self.driver.settle()
        return ran.exit_code, said


@pytest.fixture
def here(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


def test_without_execute_it_says_whose_profile_would_go(here: Shop) -> None:
    code, said = here("email:ada@mail.se")
    assert (code, said["request"], said["stage"]) == (0, None, None)
    assert said["subjects"] == ["cookie:c-ada-0", "cookie:c-ada-1", "crm:7"]
    assert said["identifiers"] == [said["identifier"]]
    assert here("email:ada@mail.se", "--execute", "--dry-run", "--reason", "x")[1]["request"] is None
    assert here.driver.profile("crm:7").clicks == 6


def test_it_asks_waits_and_looks_for_what_is_left(here: Shop, tmp_path: Path) -> None:
    values = tmp_path / "values"
    values.write_text("Ada Byron\nsecret 1\nada@mail.se\n")
    assert here("crm:7", "--check", "--values", str(values))[0] == 1, "nothing was erased yet"
    code, said = here("crm:7", "--execute", "--reason", "ticket 7")
    assert (code, said["stage"]) == (0, None), "no worker has read it yet"
    code, said = here("crm:7", "--wait", "--check", "--values", str(values))
    assert (code, said["stage"], said["readable_bytes"]) == (0, "proven", 0)
    assert [len(said[what]) for what in ("subjects", "identifiers", "beside")] == [3, 1, 0]
    assert not any(word in json.dumps(said["certificate"]) for word in ADA)
    assert {t["topic"] for t in said["topics"] if t["tombstones"]} >= {"forget.links", "forget.customer.v1"}
    said_so = [json.loads(v) for _, v in here.driver.read("forget.audit") if v]
    (told,) = [record["entry"] for record in said_so if record["writer"].startswith("cli/")]
    assert (told["what"], told["reason"], told["about"]) == ("erase", "ticket 7", [said["identifier"]])
    raw = {place["place"]: place for place in said["check"]}["people"]
    assert (raw["policy"], raw["holds"]) == ("user", True)
    assert raw["values"] > 0, "the topic is the user's"


def test_it_looks_at_headers_too(here: Shop, tmp_path: Path) -> None:
    (values := tmp_path / "values").write_text("Ada Byron\n")
    here("crm:7", "--execute", "--reason", "ticket 7")
    assert here("crm:7", "--wait", "--check", "--values", str(values))[0] == 0
    producer = here.driver.cluster.producer()
    producer.produce("forget.replay.people", None, b"{}", 0, [("said", b"by Ada Byron"), ("nothing", b"")])
    producer.flush()
    code, said = here("crm:7", "--check", "--values", str(values))
    (found,) = [place for place in said["check"] if not place["holds"]]
    assert (code, found["place"], found["values"]) == (1, "forget.replay.people", len("Ada Byron"))


def test_it_lifts_what_stands(here: Shop) -> None:
    assert here("crm:7", "--execute", "--lift", "--reason", "x")[0] == 2, "nothing to lift"
    here("crm:7", "--execute", "--reason", "ticket 7")
    here("crm:7", "--execute", "--lift", "--reason", "asked to come back")
    erasure = [json.loads(v) for _, v in here.driver.read("forget.suppressed") if v]
    assert any(hold.get("lifted") for said in erasure for hold in said["holds"].values())


def test_a_reason_must_be_said(here: Shop) -> None:
    assert here("crm:7", "--execute")[0] == 2
