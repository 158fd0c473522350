"""The files around the code keep their promises: the lock, the compose file, the package's own data."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import yaml

import c360
from c360.config import read_settings
from c360.ops.kafka.provide import IMAGE, POM, VERSION
from examples.cdc.app import app as crm
from examples.shop.app import app as shop

ROOT = Path(__file__).parents[1]
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))


def name_of(requirement: str) -> str:
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert found
    return found[0].lower().replace("_", "-")


def test_the_lock_pins_every_dependency_exactly_and_names_no_host() -> None:
    lines = LOCK.splitlines()
    assert [line for line in lines if not re.match(r"[a-z0-9._-]+==[^ ]+( ; .+)?$", line)] == []
    project = PROJECT["project"]
    asked = {name_of(line) for line in [*project["dependencies"], *project["optional-dependencies"]["dev"]]}
    assert asked <= {name_of(line) for line in lines}


def test_the_version_is_said_once_and_the_same_everywhere() -> None:
    assert PROJECT["project"]["version"] == c360.__version__
    assert "## [Unreleased]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_kafka_of_development_tests_and_compose_is_one_version() -> None:
    assert f"<version>{VERSION}</version>" in POM.read_text(encoding="utf-8")
    assert COMPOSE["services"]["kafka"]["image"] == IMAGE


def test_compose_starts_services_that_exist_when_what_they_need_is_healthy() -> None:
    services = COMPOSE["services"]
    for name, service in services.items():
        assert "image" in service or service["build"] == ".", name
        for needed, how in service.get("depends_on", {}).items():
            assert how["condition"] in {"service_healthy", "service_completed_successfully"}, name
            assert how["condition"] != "service_healthy" or "healthcheck" in services[needed], needed
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), f"{name}: without a password, open on this machine only"
        volumes = [volume.partition(":")[0] for volume in service.get("volumes", [])]
        assert set(volumes) <= set(COMPOSE["volumes"]), name


def test_compose_s_worker_has_settings_that_c360_knows_and_a_broker_that_listens() -> None:
    kafka = COMPOSE["services"]["kafka"]["environment"]
    for name in ("keys", "worker"):
        settings = read_settings(COMPOSE["services"][name]["environment"], ROOT)
        (volume,) = COMPOSE["services"][name]["volumes"]
        assert str(settings.keys).startswith(volume.partition(":")[2]), "both read the file where it is kept"
        assert settings.app == "examples.shop.app:app"
        assert f"INSIDE://{settings.broker}" in kafka["KAFKA_ADVERTISED_LISTENERS"].split(",")


def test_compose_s_plain_services_are_those_of_the_quickstart() -> None:
    plain = [name for name, service in COMPOSE["services"].items() if "profiles" not in service]
    assert plain == ["kafka", "registry", "keys", "worker"]
    for name, service in COMPOSE["services"].items():
        if "profiles" not in service:
            assert set(service.get("depends_on", {})) <= set(plain), name
        for config in service.get("configs", []):
            assert (ROOT / COMPOSE["configs"][config["source"]]["file"]).is_file(), name


def test_compose_s_connectors_write_what_both_apps_read() -> None:
    services = COMPOSE["services"]
    database = services["postgres"]["environment"]
    assert "wal_level=logical" in services["postgres"]["command"]
    written = set()
    for name in ("crm", "shop"):
        said = json.loads((ROOT / "examples" / "cdc" / f"{name}.json").read_text(encoding="utf-8"))
        assert (said["database.dbname"], said["database.password"]) == (
            database["POSTGRES_DB"],
            database["POSTGRES_PASSWORD"],
        )
        assert said["topic.prefix"] == name
        assert said["decimal.handling.mode"] == "string"
        assert "transforms" not in said
        written |= {f"{name}.{table}" for table in said["table.include.list"].split(",")}
    for app in (shop, crm):
        plan = app.plan()
        read = {s.topic for s in plan.sources if s.kind == "rows"}
        assert read
        assert read <= written
    settings = read_settings(services["crm-worker"]["environment"], ROOT)
    assert settings.app == "examples.cdc.app:app"


def test_a_typed_package_says_so() -> None:
    assert (ROOT / "c360" / "py.typed").is_file()
