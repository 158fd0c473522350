"""The broker is away: before the worker starts, for a while, through a restart, and when the worker is told to stop."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from c360.engine.kafka import KafkaCluster
from c360.ops import dev_kafka
from tests.stories.sent import Sent
from tests.stories.tools import assert_verified, attributes, free_port, get, stop, wait_for_rest, wait_until, working

APP, AGENTS = "tests.stories.notes:app", "tests.stories.notes:heard"


class Broker:
    """One that comes and goes at one address, with its data."""

    def __init__(self, data: Path) -> None:
        self.port, self.data = free_port(), data
        self.address = f"127.0.0.1:{self.port}"
        self.running: dev_kafka.Running | None = None

    def start(self) -> None:
        self.running = dev_kafka.start(port=self.port, data_dir=self.data)

    def freeze(self) -> None:
        """It holds its connections and answers nobody."""
        assert self.running is not None
        os.kill(self.running.pids[0], signal.SIGSTOP)

    def thaw(self) -> None:
        assert self.running is not None
        os.kill(self.running.pids[0], signal.SIGCONT)

    def stop(self) -> None:
        if self.running is not None:
            self.thaw()
            self.running.stop()
            self.running = None


@pytest.fixture
def comes_and_goes(kafka: str, tmp_path: Path) -> Iterator[Broker]:
    """(`kafka`: where one can run at all.)"""
    broker = Broker(tmp_path / "kafka")
    yield broker
    broker.stop()


def good(sent: Sent, count: int) -> None:
    for n in range(count):
        sent.good(to=f"crm:{n % 50}")
    sent.producer.flush()


def assert_all_known(sent: Sent) -> None:
    assert {s: a["notes"] for s, a in attributes(sent.plan, sent.cluster).items()} == sent.notes
    assert_verified(sent.plan, sent.cluster)


@pytest.mark.timeout(240)
def test_a_worker_waits_for_its_broker_and_outlives_its_restart(comes_and_goes: Broker, tmp_path: Path) -> None:
    log, heard, web = tmp_path / "log", tmp_path / "heard", free_port()
    broker, arguments = comes_and_goes, ("--web-port", str(web))
    settings = {"STORY": "story", "SIGNALS": str(heard)}

    def hears_all(sent: Sent) -> Callable[[], bool]:
        """At least once, whatever became of the broker."""
        texts = {f"note good {n}" for n in range(sent.count)}
        return lambda: heard.exists() and texts <= set(heard.read_text().splitlines())

    with working(broker.address, tmp_path / "state", log, AGENTS, *arguments, **settings) as process:
        wait_until(lambda: get(web, "/health")[0] == 200, process, log)
        assert get(web, "/ready") == (503, '{"ready": false, "waiting": {}}')
        wait_until(lambda: "waiting for it" in log.read_text(), process, log)
        broker.start()
        sent = Sent("story", KafkaCluster(broker.address))
        good(sent, 200)
        wait_for_rest(sent.plan, sent.cluster, process, log)
        assert get(web, "/ready")[0] == 200
        assert_all_known(sent)
        wait_until(hears_all(sent), process, log)

        good(sent, 2000)
        broker.stop()
        time.sleep(3)  # the fault, not a wait: long enough to be noticed
        broker.start()
        good(sent, 100)
        wait_for_rest(sent.plan, sent.cluster, process, log)
        assert_all_known(sent)
        wait_until(lambda: get(web, "/ready")[0] == 200, process, log)
        wait_until(hears_all(sent), process, log)
        assert stop(process) == 0, log.read_text()
        assert "Traceback" not in log.read_text()


@pytest.mark.timeout(240)
def test_a_broker_that_freezes_costs_time_only_and_keeps_no_worker_from_stopping(
    comes_and_goes: Broker, tmp_path: Path
) -> None:
    log, state, broker = tmp_path / "log", tmp_path / "state", comes_and_goes
    broker.start()
    sent = Sent("story", KafkaCluster(broker.address))
    with working(broker.address, state, log, APP, STORY="story") as process:
        good(sent, 100)
        wait_for_rest(sent.plan, sent.cluster, process, log)
        good(sent, 3000)
        broker.freeze()
        time.sleep(8)  # longer than the members' sessions
        broker.thaw()
        good(sent, 100)
        wait_for_rest(sent.plan, sent.cluster, process, log)
        assert_all_known(sent)

        good(sent, 3000)
        broker.freeze()
        try:
            begun = time.monotonic()
            assert stop(process) == 0, log.read_text()
            assert time.monotonic() - begun < 30
        finally:
            broker.thaw()
    with working(broker.address, state, log, APP, STORY="story") as process:
        wait_for_rest(sent.plan, sent.cluster, process, log)
        assert_all_known(sent)
        assert stop(process) == 0, log.read_text()
