"""The identity agent on real brokers: two workers, of which one is dropped in the middle; then what the oracle says."""

from __future__ import annotations

import random
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from c360.clock import system
from c360.engine.kafka import KafkaCluster
from c360.engine.loop import Loop, LoopSettings, Phase
from c360.identity.rules import Rules
from c360.ops.trim import trim
from c360.tables.rocks import RocksStores
from tests.identity.permutations import random_facts, random_rules
from tests.identity.stage import IdentityStage

DEADLINE_S = 60.0
OFTEN = LoopSettings(batch_records=50, commit_s=0.02, behind_s=0.0, away_s=0.1, abandoned_s=1.0, static=False)


def stage_on(bootstrap: str, seed: int) -> IdentityStage:
    dice = random.Random(seed)
    rules: Rules = random_rules(dice)
    waits = {"session.timeout.ms": "1500", "heartbeat.interval.ms": "50", "max.poll.interval.ms": "1500"}
    cluster, app = KafkaCluster(bootstrap, waits), f"t{uuid.uuid4().hex[:10]}"
    stage = IdentityStage(rules, partitions=3, apart=2, piece_bytes=200, cluster=cluster, app=app)
    stage.clock = system
    stage.coming = [fact for _ in range(4) for fact in random_facts(dice)]
    dice.shuffle(stage.coming)
    return stage


def running(loop: Loop) -> int:
    return sum(task.phase is Phase.RUNNING for task in loop.tasks.values())


def drive(stage: IdentityStage, *loops: Loop) -> None:
    """Turn loops, each in its thread as processes would, until everything is read and committed."""
    deadline = time.monotonic() + DEADLINE_S
    with ThreadPoolExecutor(len(loops) + 1) as threads:
        asked = threads.submit(stage.idle)  # it waits for transactions that are open, which the loops have to end
        while True:
            assert time.monotonic() < deadline, "it did not happen in time"
            list(threads.map(lambda loop: [loop.turn(0.01) for _ in range(20)], loops))
            if asked.done():
                if asked.result() and sum(map(running, loops)) == stage.partitions:
                    return
                asked = threads.submit(stage.idle)


def test_a_worker_is_dropped_in_the_middle_and_the_other_goes_on(kafka: str, tmp_path: Path) -> None:
    seed = 2
    stage = stage_on(kafka, seed)
    dice = random.Random(seed)
    with ThreadPoolExecutor(1) as restore_a, ThreadPoolExecutor(1) as restore_b:
        first = stage.loop(RocksStores(tmp_path / "a"), slot="a", settings=OFTEN, executor=restore_a)
        second = stage.loop(RocksStores(tmp_path / "b"), slot="b", settings=OFTEN, executor=restore_b)
        half = len(stage.coming) // 2
        while len(stage.coming) > half:
            stage.feed(dice)
        drive(stage, first, second)
        assert running(first) > 0
        assert running(second) > 0
        while stage.coming:
            stage.feed(dice)
        first.settings = replace(OFTEN, commit_s=3600.0, commit_share=0.0)  # leaves open what it begins
        deadline = time.monotonic() + DEADLINE_S
        while not first.in_transaction:
            assert time.monotonic() < deadline, "it did not begin anything"
            first.turn(0.01)
            second.turn(0.01)
        # Nobody turns it any more. Its transaction stays open; that it leaves its group spares the wait for its session's end.
        stage.made.remove(first)
        first.consumer.close()
        for task in first.tasks.values():
            task.close()
        drive(stage, second)
        second.commit_or_abort()
        stage.check()
        trim(stage.plan, stage.admin, {})
        third = stage.loop(RocksStores(tmp_path / "c"), slot="c", settings=OFTEN)
        second.close()
        drive(stage, third)
        stage.check_state([third])
        stage.close()
