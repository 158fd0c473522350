"""An operator's day on a real broker: a reset, a separation, two commands at once; then somebody alters the log."""

from __future__ import annotations

import json
import subprocess
import time
import uuid
from pathlib import Path
from typing import Any

import pytest

from c360.engine.kafka import KafkaCluster
from c360.engine.transport import TP, Cluster, TopicSpec
from c360.ops.identity.graph import read_facts
from c360.ops.records import records
from c360.plan import Plan
from tests.identity.kafka import APP, prepared
from tests.stories.tools import begun, c360

RESET = ("reset", "customer@1", "--to-earliest", "--execute", "--reason", "ticket 7", "--as", "kim")
SEPARATE = ("identity", "separate", "crm:1", "crm:2", "--execute", "--reason", "two sisters", "--as", "kim")


def rewrite(plan: Plan, cluster: Cluster, values: list[bytes]) -> None:
    """Delete the log and write another one, as one with too many rights could."""
    admin = cluster.admin()
    admin.delete([plan.audit])
    deadline = time.monotonic() + 30
    while plan.audit in admin.topics():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    admin.create([TopicSpec(plan.audit, 1, {"retention.ms": "-1"})])
    producer = cluster.producer()
    for value in values:
        producer.produce(plan.audit, b"cli", value, 0)
    producer.flush()
    producer.close()


@pytest.mark.timeout(200)
def test_what_operators_do_is_told_and_a_log_that_was_altered_is_found(kafka: str, tmp_path: Path) -> None:
    name, cluster = f"story-{uuid.uuid4().hex[:10]}", KafkaCluster(kafka)
    plan, kept = prepared(name, cluster), tmp_path / "heads.json"

    def command(*words: str) -> subprocess.CompletedProcess[str]:
        return c360(kafka, APP, *words, STORY=name)

    def verified(*words: str) -> tuple[int, dict[str, Any]]:
        ran = command("audit", "verify", "--json", *words)
        return ran.returncode, json.loads(ran.stdout)

    for words in (RESET, SEPARATE):
        ran = command(*words)
        assert ran.returncode == 0, ran.stderr
    assert sorted(fact.subject for fact in read_facts(plan, cluster)) == ["crm:1", "crm:2"]  # said of both
    code, first = verified("--write-heads", str(kept))
    assert (code, first["records"], first["chains"], first["whole"]) == (0, 3, 2, True)
    tail = json.loads(command("audit", "tail", "--json").stdout)["records"]
    told = [(r["record"]["entry"]["what"], r["record"]["entry"]["after"]["stage"]) for r in tail]
    assert told == [("reset", "intended"), ("reset", "done"), ("separate", "done")]
    for line in tail:
        assert abs(line["at"] - line["record"]["entry"]["at"]) < 60_000

    both = [begun(kafka, APP, *RESET, STORY=name) for _ in range(2)]
    for process in both:
        _, err = process.communicate(timeout=100)
        assert process.returncode == 0, err
    code, then = verified("--heads", str(kept), "--write-heads", str(kept))
    assert (code, then["records"], then["chains"], then["findings"]) == (0, 7, 4, [])
    assert then["heads"].keys() > first["heads"].keys()

    reader = cluster.reader()
    tp = TP(plan.audit, 0)
    log = [found.value or b"" for found in records(reader, reader.starts([tp]))]
    reader.close()
    rewrite(plan, cluster, log)
    assert verified("--heads", str(kept))[0] == 0, "byte for byte it is the same"
    rewrite(plan, cluster, [*log[:2], log[2].replace(b"sisters", b"Sisters"), *log[3:]])
    code, found = verified("--heads", str(kept))
    assert (code, [(f["problem"], f["offset"]) for f in found["findings"]]) == (1, [("altered", 2)])
    rewrite(plan, cluster, log[:-1])
    assert verified("--heads", str(kept))[0] == 1
    cluster.admin().delete([plan.audit])
    gone = command(*SEPARATE)
    assert gone.returncode == 4
    assert "there is no audit log" in gone.stderr
