"""One Kafka Connect, one PostgreSQL, one MariaDB and one `c360 worker` for all: Java is slow to begin.

Not run by `make test`: `make test-cdc`, or pytest -m cdc tests/cdc.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cdc.crm import app
from tests.cdc.machines import Connect, MariaDb, Missing, Postgres
from tests.cdc.world import World


def pytest_ignore_collect(config: pytest.Config) -> bool | None:
    """Only who asks for these gets them."""
    asked = "cdc" in config.option.markexpr or any("cdc" in Path(argument).parts for argument in config.args)
    return None if asked else True


@pytest.fixture(scope="session")
def connect(kafka: str, pytestconfig: pytest.Config) -> Iterator[Connect]:
    terminal = pytestconfig.pluginmanager.get_plugin("terminalreporter")
    say = terminal.write_line if terminal else print
    try:
        machine = Connect(kafka, say)
    except Missing as missing:
        pytest.skip(str(missing))
    with machine:
        yield machine


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    try:
        machine = Postgres()
    except Missing as missing:
        pytest.skip(str(missing))
    with machine:
        yield machine


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariaDb]:
    try:
        machine = MariaDb()
    except Missing as missing:
        pytest.skip(str(missing))
    with machine:
        yield machine


@pytest.fixture(scope="session")
def world(
    kafka: str, connect: Connect, postgres: Postgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    """Tables in PostgreSQL, their snapshot taken, a worker that folds them."""
    home = tmp_path_factory.mktemp("cdc")
    world = World(kafka, connect, postgres.database("crm"), home, app, "tests.cdc.crm:app", "pg")
    try:
        world.begin()
        yield world
    finally:
        world.end()
