"""A broker of our own with the shop on it: traffic loaded, folded by a worker that has stopped again. All by commands."""

from __future__ import annotations

import base64
import json
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from c360.engine.kafka import KafkaCluster
from c360.engine.transport import TopicSpec
from c360.ops import dev_kafka
from c360.ops.load import RawRecord
from c360.ops.traffic import traffic
from examples.shop.app import app
from tests.cli.tools import C360, Ran
from tests.stories.tools import wait_for_rest

EVENTS = 600


@dataclass(frozen=True)
class Shop:
    """The commands with the shop's settings, and what the first of them said."""

    c360: C360
    loaded: Ran
    applied: Ran
    made: Ran


def line(record: RawRecord) -> str:
    """A raw record as `c360 load` reads it."""
    said = {"topic": record.topic, "timestamp": record.timestamp}
    for name, data in (("key_base64", record.key), ("value_base64", record.value)):
        if data is not None:
            said[name] = base64.b64encode(data).decode()
    return json.dumps(said) + "\n"


@pytest.fixture(scope="session")
def shop(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """Read only: tests share it. (`kafka`: where one can run at all.)"""
    directory = tmp_path_factory.mktemp("shop")
    file, log = directory / "raw.jsonl", directory / "worker.log"
    file.write_text("".join(map(line, traffic(EVENTS, seed=7, end_ms=int(time.time() * 1000)))))
    with dev_kafka.start() as running:
        c360 = C360(
            {
                "C360_APP": "examples.shop.app:app",
                "C360_BROKER": running.bootstrap,
                "C360_STATE_DIR": str(directory / "state"),
                "C360_KEYS": str(directory / "keys" / "shop.keys"),
            }
        )
        KafkaCluster(running.bootstrap).admin().create([TopicSpec("privacy.requests", 1)])  # nobody has asked yet
        loaded, applied = c360("load", str(file), "--json"), c360("topics", "apply", "--json")
        made = c360("keys", "init", "--json")
        assert (loaded.code, applied.code, made.code) == (0, 0, 0), loaded.err + applied.err + made.err
        with c360.started(log, "worker") as worker:
            wait_for_rest(app.plan(), KafkaCluster(running.bootstrap), worker, log)
            worker.send_signal(signal.SIGTERM)
            assert worker.wait(40) == 0, log.read_text()
        yield Shop(c360, loaded, applied, made)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"
