"""An operator's afternoon with the smallest app, by commands alone: run, look, damage, find it, mend it."""

from __future__ import annotations

import json
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from c360.engine.kafka import KafkaCluster
from c360.engine.transport import TP
from c360.ops.records import records
from examples.hello import app
from tests.cli.conftest import Shop
from tests.cli.test_json import hold
from tests.cli.tools import C360, wait_for_line
from tests.docs.pages import REFERENCE, rows
from tests.stories.tools import wait_for_rest

PLAN = app.plan()
PROFILES = PLAN.projected(PLAN.projections[0])


@contextmanager
def at_work(c360: C360, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A worker that has read everything; stopped cleanly at the end."""
    log.write_bytes(b"")
    with c360.started(log, "worker", "--web-port", "0") as worker:
        wait_for_line("web on", log, worker)
        wait_for_rest(PLAN, KafkaCluster(c360.settings["C360_BROKER"]), worker, log)
        yield worker
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(40) == 0, log.read_text()


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=20) as answer:
        assert answer.status == 200
        return str(answer.read().decode())


def damage_a_profile(broker: str) -> None:
    """Write another value over one profile, as a broken producer with too many rights would."""
    cluster = KafkaCluster(broker)
    reader, producer = cluster.reader(), cluster.producer()
    starts = reader.starts([TP(PROFILES, p) for p in range(PLAN.partitions)])
    found = next(iter(records(reader, starts)))
    assert found.value is not None
    profile = json.loads(found.value)
    profile["attributes"]["views"] += 1
    producer.produce(PROFILES, found.key, json.dumps(profile).encode(), found.tp.partition)
    producer.flush()
    producer.close()
    reader.close()


@pytest.mark.timeout(200)
def test_an_altered_profile_is_found_and_a_reset_mends_it(shop: Shop, tmp_path: Path) -> None:
    c360 = shop.c360.having(C360_APP="examples.hello:app", C360_STATE_DIR=str(tmp_path / "state"))
    file, log = tmp_path / "views.jsonl", tmp_path / "worker.log"
    views = [
        {"id": str(n), "user": f"u{n % 5}", "page": f"/{n % 3}", "ts": f"2026-11-02T09:15:{n:02}Z"} for n in range(40)
    ]
    file.write_text("".join(json.dumps({"topic": "page.views", "key": v["user"], "value": v}) + "\n" for v in views))
    assert c360("load", str(file)).out == "page.views: 40 records\n"

    with at_work(c360, log) as worker:
        url = wait_for_line(r"web on (http://\S+)", log, worker)[1]
        assert json.loads(get(f"{url}/health")) == {"healthy": True}
        assert json.loads(get(f"{url}/ready")) == {"ready": True, "waiting": {}}
        lines = get(f"{url}/metrics").splitlines()
        documented = {row[0].strip("`") for row in rows((REFERENCE / "metrics.md").read_text())}
        assert {line.split()[2] for line in lines if line.startswith("# TYPE")} <= documented
        assert 'c360_lag_records{agent="person@1"} 0' in lines
        assert 'c360_freshness_seconds{agent="person@1"} 0.0' in lines
        assert 'c360_folded_total{agent="person@1"} 40' in lines

        second = c360("worker")
        assert second.code == 3
        assert "is in use by another worker" in second.err
        running = c360("reset", "person@1", "--to-earliest", "--reason", "a damaged profile", "--execute")
        assert (running.code, running.out) == (4, "")
        assert "person@1 is running" in running.err

    assert c360("verify").code == 0
    damage_a_profile(c360.settings["C360_BROKER"])
    damaged = c360("verify", "--json")
    assert damaged.code == 1
    hold("c360 verify", damaged.json)
    assert [e["kind"] for e in damaged.json["examples"]] == ["altered"]

    done = c360("reset", "person@1", "--to-earliest", "--reason", "a damaged profile", "--execute", "--json")
    assert done.code == 0, done.err
    hold("c360 reset", done.json)
    assert done.json["executed"]
    assert 40 <= done.json["records"] < 80  # marks between transactions are counted with the records
    with at_work(c360, log):
        pass
    mended = c360("verify", "--json").json
    assert (mended["complete"], mended["differences"]) == (True, 0)
    assert c360("profile", "user:u1", "--json").json["attributes"] == {"views": 8, "last_page": "/0"}
