"""Producers that have gone wrong, on a real Kafka: the worker goes on, its memory is bounded, and a source is paused."""

from __future__ import annotations

import json
import random
import re
import time
from pathlib import Path

from c360.engine.kafka import KafkaCluster
from c360.engine.transport import TopicSpec
from c360.ops import control
from tests.fuzz.corpus import Raw
from tests.fuzz.mutate import mutated
from tests.stories.flooded import app
from tests.stories.tools import attributes, c360, free_port, get, wait_until, working

NAME = "tests.stories.flooded:app"
GARBAGE, GOOD, LIMITED, RATE = 60_000, 200, 4_000, 400
GROWTH_MB = 400  # of a worker that has 60,000 records in its hands, before the garbage and after it


def good(n: int) -> bytes:
    return json.dumps({"id": f"e{n}", "customer": f"c{n % 7}"}).encode()


def peak_mb(pid: int) -> int:
    (found,) = re.findall(r"^VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return int(found) // 1024


def test_a_flood_does_not_stop_the_worker_nor_fill_its_memory_nor_pass_a_rate(broker: str, tmp_path: Path) -> None:
    plan, cluster = app.plan(), KafkaCluster(broker)
    admin, producer = cluster.admin(), cluster.producer()
    admin.create([TopicSpec(t.name, 2) for t in plan.topics if not t.owned])
    log, port, dice = tmp_path / "worker.log", free_port(), random.Random(1)

    def counted(name: str) -> int:
        return sum(a[name] for a in attributes(plan, cluster).values())

    with working(broker, tmp_path / "state", log, NAME, "--web-port", str(port)) as worker:
        producer.produce("flood.mixed", None, good(0))
        producer.flush()
        wait_until(lambda: counted("mixed") == 1, worker, log)
        before = peak_mb(worker.pid)
        samples = [Raw(None, good(n)) for n in range(8)]
        for n in range(GARBAGE):
            raw = mutated(dice, samples, [1])
            if raw.value is not None and len(raw.value) < 100_000:
                producer.produce("flood.mixed", raw.key, raw.value.replace(b'"e', b'"x'))
            if n % (GARBAGE // GOOD) == 0:
                producer.produce("flood.mixed", None, good(1_000 + n))
        for n in range(LIMITED):
            producer.produce("flood.limited", None, good(n), n % 2)
        for _ in range(5_000):
            producer.produce("flood.judged", None, b'{"id": 7}')
        begun = time.monotonic()
        producer.flush()
        # 1 the one that is too fast: never more than its rate, and a second's worth at first; then all of it
        while (read := counted("limited")) < LIMITED:
            assert read <= RATE * (time.monotonic() - begun + 1.0) + RATE, "it is read faster than its rate"
            assert worker.poll() is None, log.read_text()
            assert time.monotonic() - begun < 90, f"{read} of {LIMITED}"
            time.sleep(0.2)
        assert time.monotonic() - begun > LIMITED / RATE - 3
        # 2 the one that does not fit pauses itself
        wait_until(lambda: control.read(plan, cluster).is_paused("flood.judged"), worker, log)
        told = json.loads(c360(broker, NAME, "source", "list", "--json").stdout)
        (paused,) = [s for s in told["sources"] if s["paused"]]
        assert paused["source"] == "flood.judged"
        assert paused["reason"].startswith("quarantine: 100% ")
        # 3 what fits is all there, and the worker is as well as before
        wait_until(lambda: counted("mixed") >= 1 + GOOD, worker, log)
        assert get(port, "/health")[0] == 200
        assert peak_mb(worker.pid) - before < GROWTH_MB
        page = get(port, "/metrics")[1]
        assert 'c360_misfits_total{source="flood.mixed",reason="not-json"}' in page
        assert not re.search(r"c360_recoveries_total\{[^}]*\} [1-9]\d{2}", page), (
            "nothing was bisected record by record"
        )
