"""examples/cdc as its README tells it: the same tables, connectors and app, on databases of these tests."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from c360.engine.kafka import KafkaCluster
from examples.cdc.app import app
from tests.cdc.machines import Connect, Postgres
from tests.stories.tools import ROOT, assert_verified, attributes, stop, wait_for_rest, wait_until, working

pytestmark = [pytest.mark.cdc, pytest.mark.timeout(300)]
EXAMPLE = ROOT / "examples" / "cdc"
APP = "examples.cdc.app:app"


def sql_of_the_readme() -> list[str]:
    """What it has psql do."""
    lines = (EXAMPLE / "README.md").read_text(encoding="utf-8").splitlines()
    said = [line.partition(' -c "')[2].removesuffix('"').replace('\\"', '"') for line in lines if ' -c "' in line]
    assert len(said) == 3
    return said


def test_its_profiles_follow_the_database(kafka: str, connect: Connect, postgres: Postgres, tmp_path: Path) -> None:
    sql = postgres.database("example").sql
    sql((EXAMPLE / "crm.sql").read_text(encoding="utf-8"))
    connect.ready()
    for name in ("crm", "shop"):
        said: dict[str, str] = json.loads((EXAMPLE / f"{name}.json").read_text(encoding="utf-8"))
        here = {"database.hostname": "127.0.0.1", "database.port": str(postgres.port), "database.dbname": "example"}
        connect.put(name, {**said, **here})
    plan, cluster, log = app.plan(), KafkaCluster(kafka), tmp_path / "worker.log"

    def until(is_so: Callable[[dict[str, Any]], bool]) -> None:
        wait_until(lambda: is_so({k: dict(v) for k, v in attributes(plan, cluster).items()}), process, log)

    with working(kafka, tmp_path / "state", log, APP) as process:
        until(lambda found: len(found) == 3 and found["crm:1"]["orders"] == 2)
        ana = attributes(plan, cluster)["crm:1"]
        assert (ana["name"], ana["spend"], ana["may"]) == ("Ana López", "139.90", ["marketing"])
        cancel, withdraw, again = sql_of_the_readme()
        sql(cancel)
        sql(withdraw)
        until(lambda found: found["crm:1"]["orders"] == 1 and not found["crm:1"]["may"])
        assert attributes(plan, cluster)["crm:1"]["spend"] == "120.00"
        sql("UPDATE customers SET city = 'Sevilla' WHERE id = 1")
        sql(again)
        until(lambda found: found["crm:1"]["city"] == "Sevilla")
        wait_for_rest(plan, cluster, process, log)
        assert_verified(plan, cluster)
        assert stop(process) == 0, log.read_text()
    for name in ("crm", "shop"):
        connect.delete(name)
