"""Calls over HTTP, as a library of Segment would post them, into an in-memory log that can be away."""

from __future__ import annotations

import base64
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import count as counter
from pathlib import Path
from typing import Any

import pytest

from c360.engine.memory import MemoryCluster
from c360.engine.transport import TP, Producer, TopicSpec
from c360.errors import BrokerAway, UsageError
from c360.ops.records import records
from c360.serving.calls import BATCH_CALLS
from c360.serving.collect import Collector, WriteKeys, Writer, read_keys, serve
from c360.testing import TestDriver
from tests.docs.pages import REFERENCE, rows
from tests.sources.test_segment import call, shop

PLAN = shop().plan()
NINE = datetime(2026, 11, 2, 9, tzinfo=UTC)
KEY = "a-write-key"


class Away(MemoryCluster):
    """Its producers wait for a broker as long as `away` is set, and take nothing."""

    away = False

    def producer(self, transactional_id: str | None = None) -> Producer:
        made = super().producer(transactional_id)
        flush = made.flush

        def flushed(timeout_s: float | None = None) -> None:
            if self.away:
                raise BrokerAway("no broker answers")
            flush(timeout_s)

        made.flush = flushed  # type: ignore[method-assign]
        return made


class Site:
    """A collector that answers."""

    def __init__(self, cluster: MemoryCluster, port: int, collector: Collector) -> None:
        self.cluster, self.port, self.collector = cluster, port, collector

    def post(self, kind: str, said: Any, *, key: str | None = KEY) -> tuple[int, dict[str, Any]]:
        body = said if isinstance(said, bytes) else json.dumps(said).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/v1/{kind}", body, method="POST")
        if key is not None:
            request.add_header("Authorization", "Basic " + base64.b64encode(f"{key}:".encode()).decode())
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    def written(self) -> list[tuple[str, dict[str, Any]]]:
        reader = self.cluster.reader()
        found = records(reader, reader.starts([TP("raw.web", p) for p in range(2)]))
        return [((r.key or b"").decode(), json.loads(r.value or b"")) for r in found]


@contextmanager
def collecting(cluster: MemoryCluster | None = None, *, most_bytes: int = 1 << 20) -> Iterator[Site]:
    cluster = cluster or MemoryCluster()
    cluster.admin().create([TopicSpec("raw.web", 2)])
    numbers = counter(1)
    writer = Writer(cluster, most_bytes=most_bytes, flush_s=1.0)
    collector = Collector(PLAN, WriteKeys({KEY: "raw.web"}), writer, lambda: NINE, lambda: f"made-{next(numbers)}")
    stopping, ports = threading.Event(), list[int]()
    up = threading.Event()

    def ready(port: int) -> None:
        ports.append(port)
        up.set()

    thread = threading.Thread(target=serve, args=(collector, "127.0.0.1", 0, stopping, ready))
    thread.start()
    try:
        assert up.wait(30)
        yield Site(cluster, ports[0], collector)
    finally:
        stopping.set()
        thread.join()


def test_a_call_is_in_the_log_when_it_is_answered_and_keyed_by_whom_it_is_about() -> None:
    said = {k: v for k, v in call(1, userId=7).items() if k not in ("type", "messageId")}
    with collecting() as site:
        assert site.post("track", said) == (200, {"success": True, "accepted": 1})
        ((key, written),) = site.written()
        assert (key, written["type"], written["messageId"]) == ("7", "track", "made-1")
        assert written["timestamp"] == written["originalTimestamp"] == "2026-11-02T09:00:00Z"
        nobody = {"anonymousId": "c1", "writeKey": KEY, "traits": {}}  # who somebody is, of nobody known
        assert site.post("identify", nobody, key=None)[0] == 400
        assert site.post("identify", {"userId": "8", "writeKey": KEY, "traits": {"plan": "pro"}}, key=None)[0] == 200
        (known,) = (value for key, value in site.written() if key == "8")
        assert "writeKey" not in known


def test_a_device_whose_clock_is_wrong_is_put_right_when_its_call_comes_in() -> None:
    late = {"timestamp": "2030-01-01T00:00:00Z", "sentAt": "2030-01-01T00:10:00Z"}
    with collecting() as site:
        site.post("track", call(1, **late))
        ((_, written),) = site.written()
        assert (written["timestamp"], written["originalTimestamp"]) == ("2026-11-02T08:50:00Z", "2030-01-01T00:00:00Z")


def test_of_a_batch_what_can_be_used_is_written_and_the_rest_is_told() -> None:
    calls = [call(1), {**call(2), "anonymousId": " "}, call(3, properties={}), {**call(4), "type": "shout"}, call(5)]
    with collecting() as site:
        status, said = site.post("batch", {"batch": calls, "sentAt": "2026-11-02T09:00:00Z"})
        assert (status, said["accepted"]) == (200, 2)
        why = [(r["index"], r["reason"]) for r in said["rejected"]]
        assert why == [
            (1, "no-subject"),
            (2, "missing-field"),
            (3, "unmatched"),
        ]
        assert sorted(value["messageId"] for _, value in site.written()) == ["m1", "m5"]


@pytest.mark.parametrize(
    ("kind", "said", "key", "status"),
    [
        ("track", b"{", KEY, 400),
        ("track", b"[]", KEY, 400),
        ("track", b"\xff", KEY, 400),
        ("track", b"[" * 100_000, KEY, 413),
        ("batch", b"[" * 100_000, KEY, 400),
        ("batch", {"batch": 7}, KEY, 400),
        ("batch", {"batch": [7]}, KEY, 400),
        ("batch", {"batch": [{}] * (BATCH_CALLS + 1)}, KEY, 413),
        ("batch", b" " * 600_000, KEY, 413),
        ("track", call(1), "another", 401),
        ("track", call(1), None, 401),
        ("track", {**call(1), "properties": {"product_id": 7}}, KEY, 400),
        ("batch", {"batch": []}, KEY, 200),
    ],
)  # fmt: skip
def test_what_cannot_be_taken_is_refused_and_nothing_of_it_is_written(
    kind: str, said: Any, key: str | None, status: int
) -> None:
    with collecting() as site:
        found, answer = site.post(kind, said, key=key)
        assert (found, answer["success"]) == (status, status == 200)
        assert site.written() == []


def test_while_kafka_is_away_nobody_is_told_that_all_is_well() -> None:
    cluster = Away()
    with collecting(cluster) as site:
        cluster.away = True
        assert site.post("track", call(1))[0] == 503
        cluster.away = False
        assert site.post("track", call(1))[0] == 200
        assert "m1" in {value["messageId"] for _, value in site.written()}
        assert site.collector.counters.away == 1


def test_more_than_may_wait_is_sent_back() -> None:
    with collecting(most_bytes=400) as site:
        assert site.post("batch", {"batch": [call(1), call(2), call(3)]})[0] == 429
        assert site.post("track", call(1))[0] == 200
        assert site.collector.writer.pending == 0


def test_many_at_once_are_all_written() -> None:
    with collecting() as site:
        answers: list[int] = []

        def ten(n: int) -> None:
            answers.append(site.post("batch", {"batch": [call(n * 10 + i) for i in range(10)]})[0])

        threads = [threading.Thread(target=ten, args=(n,)) for n in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert answers == [200] * 20
        assert len({value["messageId"] for _, value in site.written()}) == 200


def test_what_became_of_calls_is_told_as_metrics() -> None:
    with collecting() as site:
        site.post("batch", {"batch": [call(1), {**call(2), "anonymousId": None}]})
        site.post("track", call(3), key="another")
        with urllib.request.urlopen(f"http://127.0.0.1:{site.port}/metrics", timeout=30) as answer:
            lines = answer.read().decode().splitlines()
        told = {
            "accepted_total 1",
            "refused_total 1",
            "throttled_total 0",
            "unauthorized_total 1",
            "away_total 0",
            "waiting_bytes 0",
        }
        assert {line.removeprefix("c360_collect_") for line in lines if not line.startswith("#")} == told
        listed = {
            f"# TYPE {row[0].strip('`')} {row[1]}"
            for row in rows((REFERENCE / "metrics.md").read_text(encoding="utf-8"))
            if row[0].startswith("`c360_collect_")
        }
        assert {line for line in lines if line.startswith("# TYPE")} == listed


def test_a_call_that_was_sent_twice_counts_once() -> None:
    with collecting() as site:
        site.post("track", call(1))
        site.post("track", call(1))
        with TestDriver(shop(), now=NINE) as t:
            for key, value in site.written():
                t.send("raw.web", key, value)
            assert t.profile("cookie:c1").views == 1


def test_write_keys_are_read_from_a_file_that_nobody_else_can_read(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        read_keys(path, PLAN)
    path.write_text("# ours\none\ntwo raw.web\n")
    path.chmod(0o644)
    with pytest.raises(UsageError, match="chmod 600"):
        read_keys(path, PLAN)
    path.chmod(0o600)
    found = read_keys(path, PLAN)
    assert [found.topic(key) for key in ("one", "two", "three", "")] == ["raw.web", "raw.web", None, None]
    path.write_text("one raw.other\n")
    with pytest.raises(UsageError, match=r"reads no calls from 'raw\.other'; it reads them from raw\.web"):
        Collector(PLAN, read_keys(path, PLAN), Writer(MemoryCluster()))
    path.write_text("\n")
    with pytest.raises(UsageError, match="has no key in it"):
        read_keys(path, PLAN)
