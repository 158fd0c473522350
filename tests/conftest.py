"""What all tests share: one real Kafka broker, one real schema registry, the project's data, hypothesis profiles.

The broker starts when the first test asks for it and is stopped with the session. C360_TEST_BROKER=host:port uses a
running one instead; C360_NO_KAFKA=1 skips what needs one. Without either, a machine that cannot run Kafka fails those
tests and says what to install: a suite that goes green because it skipped its proof would be worse.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import settings

from c360.errors import C360Error, UsageError
from c360.ops import dev_kafka
from tests import registry

settings.register_profile("ci", derandomize=True, deadline=None, print_blob=True)
settings.register_profile("dev", deadline=None)  # new examples every time; a busy machine is not a bug
settings.load_profile("ci" if os.environ.get("CI") else "dev")

LOG_LINES = 40
NO_KAFKA = os.environ.get("C360_NO_KAFKA") == "1"
TEST_BROKER = os.environ.get("C360_TEST_BROKER")
running = pytest.StashKey[dev_kafka.Running]()


def without_kafka(error: C360Error) -> str:
    return f"{error}. Or set C360_TEST_BROKER=host:port to use a running broker; C360_NO_KAFKA=1 skips these tests."


@pytest.hookimpl(tryfirst=True)  # before `-m kafka` and `-m "not kafka"` choose
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "kafka" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.kafka)
        if NO_KAFKA and item.get_closest_marker("kafka"):
            item.add_marker(pytest.mark.skip(reason="C360_NO_KAFKA=1: needs a real Kafka broker"))


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> None:
    """Fetch what tests need before the first one, so that a download is seen and counts against no test's time."""
    if session.config.option.collectonly:
        return
    terminal = session.config.pluginmanager.get_plugin("terminalreporter")
    say = terminal.write_line if terminal else print
    if any("real_registry" in getattr(item, "fixturenames", ()) for item in session.items):
        with suppress(C360Error):
            registry.find_registry(say=say)
    if NO_KAFKA or TEST_BROKER or not any(item.get_closest_marker("kafka") for item in session.items):
        return
    try:
        dev_kafka.find_kafka(say=say)
    except C360Error as error:
        say(without_kafka(error))  # the tests that need it say so again, each


@pytest.fixture(scope="session")
def kafka(pytestconfig: pytest.Config) -> Iterator[str]:
    """Bootstrap servers of a real Kafka 4.1 broker. The session shares its topics and groups: use names of your own."""
    if TEST_BROKER:
        yield TEST_BROKER
        return
    why = None
    try:
        broker = dev_kafka.start()
    except C360Error as error:
        why = without_kafka(error)
    if why is not None:  # outside of the handler: pytest would print the message twice
        pytest.fail(why, pytrace=False)
    with broker:
        pytestconfig.stash[running] = broker
        yield broker.bootstrap
        del pytestconfig.stash[running]


@pytest.fixture(scope="session")
def real_registry() -> Iterator[registry.Apicurio]:
    """A schema registry that answers as Confluent's does. The session shares it: use subjects of your own, and who pauses it
    resumes it."""
    try:
        running = registry.start()
    except UsageError as error:
        pytest.skip(str(error))
    with running:
        yield running


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    broker = item.config.stash.get(running, None)
    if report.failed and broker is not None and item.get_closest_marker("kafka"):
        tail = broker.log_text().splitlines()[-LOG_LINES:]
        report.sections.append(("Kafka broker log", "\n".join(tail)))
    return report


@pytest.fixture(scope="session")
def shared() -> Path:
    """The project's shared data beside the repository."""
    path = Path(__file__).parents[2] / "shared"
    if not path.is_dir():
        pytest.skip("needs ../shared (not part of a user's clone)")
    return path
