"""A second version of govern, on a real broker: beside the first it reads the raw topics, and a projection is built on it."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

from c360.engine.kafka import KafkaCluster
from c360.engine.transport import TopicSpec
from c360.ops.verify import verify
from tests.stories.tools import c360, stop, wait_for_rest, working
from tests.stories.two_governs import app_of
from tests.testing.test_govern_versions import SENT

APP = "tests.stories.two_governs:app"
BESIDE = ("govern@2", "identity@2", "customer@2")


def test_a_second_version_is_built_beside_the_first(kafka: str, tmp_path: Path) -> None:
    story, cluster, log = f"story-{uuid.uuid4().hex[:10]}", KafkaCluster(kafka), tmp_path / "log"
    admin, producer = cluster.admin(), cluster.producer()
    admin.create([TopicSpec(f"{story}.{topic}", 2, {}) for topic in ("web.clicks", "crm.orders")])
    for topic, key, value in SENT:
        producer.produce(f"{story}.{topic}", None if key is None else key.encode(), json.dumps(value).encode())
    producer.flush()
    one, both = app_of(story, 1).plan(), app_of(story, 1, 2).plan()
    with working(kafka, tmp_path / "one", log, APP, STORY=story) as process:
        wait_for_rest(one, cluster, process, log)
        assert stop(process) == 0
    only = ",".join(BESIDE)
    with working(kafka, tmp_path / "two", log, APP, "--only", only, STORY=story, GOVERNS="1,2") as process:
        wait_for_rest(both, cluster, process, log, BESIDE)
        assert stop(process) == 0
    report = verify(both, cluster, ["govern", "identity@1", "customer@1", *BESIDE])
    assert (report.differences, report.complete) == (0, True), report.to_text()
    found = c360(kafka, APP, "profile", "crm:7", "--projection", "customer@2", "--json", STORY=story, GOVERNS="1,2")
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout)["attributes"]["sections"] == ["red0", "red1", "b"]
    producer.close()
    admin.close()
