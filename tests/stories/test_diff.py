"""Versions compared on a real Kafka, while a worker folds and a producer sends."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from c360.engine.kafka import KafkaCluster
from c360.engine.transport import TP, TopicSpec
from tests.cli.tools import C360
from tests.ops.differing import Traffic, app
from tests.stories.tools import wait_for_rest, working

NAME = "tests.ops.differing:app"
AGENTS = "govern,identity@1,customer@1,customer@2,customer@3"
RATE = 150.0


@contextmanager
def sending(cluster: KafkaCluster, people: int) -> Iterator[None]:
    """Records at a rate for as long as the block takes."""
    stop = threading.Event()

    def send() -> None:
        traffic, producer = Traffic(random.Random(1), people), cluster.producer()
        while not stop.wait(10 / RATE):
            for _ in range(10):
                for topic, key, value in traffic.some(int(time.time() * 1000)):
                    producer.produce(topic, key.encode(), json.dumps(value).encode())
            producer.flush()
        producer.close()

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@pytest.mark.timeout(300)
def test_equal_versions_are_equal_and_others_are_not_while_a_producer_sends(broker: str, tmp_path: Path) -> None:
    cluster = KafkaCluster(broker)
    cluster.admin().create([TopicSpec(name, 2) for name in ("visits", "accounts", "orders")])
    c360 = C360({"C360_APP": NAME, "C360_BROKER": broker})
    log = tmp_path / "worker.log"
    with working(broker, tmp_path / "state", log, NAME, "--only", AGENTS) as worker:
        with sending(cluster, 1_000):
            deadline = time.monotonic() + 60
            while cluster.admin().topics().get("diffs.customer.v3") is None or len(_profiles(cluster)) < 500:
                assert worker.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.5)
            for _ in range(4):
                same = c360("diff", "customer@1", "customer@2", "--json", "--max-changed", "0")
                assert same.code == 0, same.out + same.err + log.read_text()
                assert same.json["equal"] > 400
                assert same.json["moving"] < same.json["equal"] / 10
            page = tmp_path / "diff.html"
            other = c360("diff", "customer@1", "customer@3", "--json", "--max-changed", "1%", "--html", str(page))
            assert other.code == 1, other.err
            changed = {name for name, said in other.json["attributes"].items() if said["changed"]}
            assert changed == {"spend", "twice"}
            assert other.json["attributes"]["spend"]["difference"]["sum"].startswith("-")
            assert "spend" in page.read_text()
        wait_for_rest(app.plan(), cluster, worker, log)
        rest = c360("diff", "customer@2", "customer@3", "--json")
        assert (rest.code, rest.json["moving"], rest.json["cut"]["rounds"]) == (0, 0, 1), rest.err


def _profiles(cluster: KafkaCluster) -> set[bytes | None]:
    reader = cluster.reader()
    try:
        starts = reader.starts([TP("diffs.customer.v3", p) for p in range(app.plan().partitions)])
        return {key for batches in reader.read(starts) for batch in batches for key in batch.keys}
    finally:
        reader.close()
