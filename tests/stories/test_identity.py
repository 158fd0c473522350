"""Who is who on a real broker: two workers killed at any moment, a lost disk, and a beginning from nothing: the same."""

from __future__ import annotations

import json
import os
import random
import time
import uuid
from pathlib import Path

import pytest

from c360.engine.kafka import KafkaCluster
from tests.identity.crowd import crowd
from tests.identity.kafka import APP, assigned, crew, disturbed, prepared, projected, send
from tests.stories.tools import assert_verified, c360

HISTORIES, RECORDS = 15, 30
KILLS = int(os.environ.get("C360_TEST_KILLS", "6")) // 3


@pytest.mark.timeout(400)
def test_who_is_who_survives_kills_a_lost_disk_and_a_beginning_from_nothing(kafka: str, tmp_path: Path) -> None:
    name, cluster, dice = f"story-{uuid.uuid4().hex[:10]}", KafkaCluster(kafka), random.Random()
    plan, now_ms = prepared(name, cluster), time.time_ns() // 1_000_000
    said = list(crowd(plan, dice.randrange(1 << 32), HISTORIES, RECORDS, now_ms))
    with crew(kafka, name, tmp_path) as working:
        disturbed(said, plan, cluster, working, dice, KILLS)
        assert_verified(plan, cluster)

        send(list(crowd(plan, dice.randrange(1 << 32), HISTORIES, 10, now_ms)), plan, cluster)
        working.kill(0, lose_disk=True)
        working.rest(plan, cluster)
        working.stop()
        assert_verified(plan, cluster)
        ids, profiles = assigned(plan, cluster), projected(plan, cluster)
        assert sum(json.loads(record)["subjects_total"] > 1 for record in profiles.values()) > HISTORIES

        for agent in ("identity@1", "customer@1"):
            done = c360(kafka, APP, "reset", agent, "--to-earliest", "--reason", "a test", "--execute", STORY=name)
            assert done.returncode == 0, done.stderr
        working.start()
        working.caught_up(plan, cluster)
        working.stop()
        assert assigned(plan, cluster) == ids
        assert projected(plan, cluster) == profiles
        assert_verified(plan, cluster)
