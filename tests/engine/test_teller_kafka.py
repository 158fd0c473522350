"""The gate and the teller on a real broker: what memory cannot prove, such as whose clock it is and what a probe costs."""

from __future__ import annotations

import statistics
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import msgspec
import pytest

from c360.clock import system
from c360.engine.kafka import KafkaCluster
from c360.engine.loop import Loop
from c360.engine.teller import EVERY_S, Teller
from c360.engine.transport import TP, Producer, TopicSpec
from c360.tables.store import MemoryStores
from c360.testing.faults import At, Crash, FaultyCluster
from tests.engine.test_teller import APPENDED, Echo, check, records, statements
from tests.engine.toy import OFTEN, World

DEADLINE_S = 30.0


@dataclass
class Ground:
    """The echo, with its loop and its teller on threads."""

    world: World
    echo: Echo
    loop: Loop
    teller: Teller
    fed: int = 0

    def say(self, producer: Producer, tp: TP) -> None:
        """A record that will be read."""
        self.fed += 1
        key = f"k{self.fed % 5}-{tp.partition}".encode()
        self.world.written[key] += 1
        producer.produce(tp.topic, key, f"v{self.fed}".encode(), tp.partition)

    def feed(self) -> None:
        for tp in self.world.tps:
            self.say(self.world.producer, tp)
        self.world.producer.flush()

    def told_since(self, ms: int) -> set[TP]:
        return {said.input for said in statements(self.world.cluster, self.echo) if said.at_ms > ms}

    def until_told(self, tps: set[TP]) -> int:
        """Wait until all that is there now is told; since when that was waited for."""
        since = system()
        until(lambda: self.told_since(since) >= tps)
        return since


def until(done: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not done():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


@pytest.fixture
def ground(kafka: str) -> Iterator[Ground]:
    cluster = KafkaCluster(kafka, {"heartbeat.interval.ms": "50"})
    echo = Echo(f"t{uuid.uuid4().hex[:10]}", inputs=("in", "other"))
    admin = cluster.admin()
    admin.create([TopicSpec(echo.topic(name), 3, APPENDED) for name in echo.inputs])
    admin.create([TopicSpec(echo.topic("echo"), 3), TopicSpec(echo.topic("fence"), 1, APPENDED)])
    admin.close()
    world = World(cluster, echo)
    loop = world.loop(MemoryStores(), settings=OFTEN, executor=ThreadPoolExecutor(1))
    teller = Teller(echo.telling(), echo.group, "0", cluster, loop.standing)
    stopped = threading.Event()
    threads = [
        threading.Thread(target=loop.run, args=(stopped.is_set,)),
        threading.Thread(target=teller.run, args=(stopped,)),
    ]
    for thread in threads:
        thread.start()
    yield Ground(world, echo, loop, teller)
    stopped.set()
    for thread in threads:
        thread.join()
    world.close()


def test_of_an_agent_at_work_it_is_told_how_far_it_is_and_behind_a_shut_gate_no_further(ground: Ground) -> None:
    world, tps = ground.world, set(ground.world.tps)
    ground.until_told(tps)  # with nothing in it yet
    for _ in range(5):
        ground.feed()
    ground.until_told(tps)
    # 1 transactions on an input: marks at its end, an aborted record
    raw, tp = world.cluster.producer(ground.echo.topic("raw")), world.tps[0]
    for commit in (True, False):
        raw.begin()
        if commit:
            ground.say(raw, tp)
            raw.commit()
        else:
            raw.produce(tp.topic, b"k", b"never", tp.partition)
            raw.abort()
    ground.until_told(tps)
    # 2 one that is open
    end = world.ends([tp])[tp]
    raw.begin()
    ground.say(raw, tp)
    until(lambda: world.ends([tp])[tp] > end)
    since = ground.until_told(tps - {tp})
    assert tp not in ground.told_since(since)
    raw.commit()
    ground.until_told(tps)
    raw.close()
    # 3 a gate that is shut
    shut = True
    ground.echo.shut = lambda: shut
    said = world.said()
    ground.feed()
    since = system()
    until(lambda: ground.loop.shut_s > 1.0)  # long enough for some tries
    assert ground.told_since(since) == set()
    assert (world.said(), world.admin.group_members(ground.echo.group)) == (said, 1)
    shut = False
    ground.until_told(tps)
    world.check()
    check(world.cluster, ground.echo, world.tps)
    assert ground.loop.metrics.recoveries.keys() == {"Shut"}


def test_what_it_costs_while_nothing_happens(ground: Ground) -> None:
    ground.until_told(set(ground.world.tps))
    fence = TP(ground.echo.topic("fence"), 0)
    before, begun = ground.world.ends([fence])[fence], time.monotonic()
    time.sleep(3.0)  # a measurement
    took_s = time.monotonic() - begun
    rows = [row for row in records(ground.world.cluster, [fence]) if row.offset >= before]
    probes = sum(row.value is None for row in rows)
    assert 1 <= probes <= took_s / EVERY_S + 1
    assert len(rows) <= 7 * (probes + 1)
    late = [row.time_ms - msgspec.json.decode(row.value)[1] for row in rows if row.value is not None]
    print(
        f"{probes} probes in {took_s:.1f} s; statements are written {statistics.median(late)} ms after, at most {max(late)}"
    )


def test_a_rebalance_while_the_gate_is_shut_moves_tasks_and_a_kill_leaves_nothing_behind(ground: Ground) -> None:
    """What is paused then must not be fetched by the one that gets it, nor be lost for the one that keeps it."""
    world, shut = ground.world, True
    ground.until_told(set(world.tps))
    ground.echo.shut = lambda: shut
    for _ in range(3):
        ground.feed()
    until(lambda: ground.loop.shut)
    second = world.loop(MemoryStores(), slot="1", settings=OFTEN, executor=ThreadPoolExecutor(1))
    world.until(lambda: len(second.tasks) == 1 and second.shut, second, wait_s=0.02)
    assert len(ground.loop.tasks) == 2
    assert second.gate is not None
    plan = At(0, Crash, frozenset({"before abort"}))  # in its transaction, behind the gate
    second.producer, second.cluster, second.shut = None, FaultyCluster(world.cluster, plan), None
    for task in second.tasks.values():
        second.consumer.fetch(task.base)
    with pytest.raises(Crash):
        world.until(lambda: False, second, wait_s=0.02)
    ground.feed()
    world.loops.remove(second)
    second.consumer.close()  # or its session would have to run out
    shut = False
    world.until(world.idle, wait_s=0.02)
    world.check()
    check(world.cluster, ground.echo, world.tps)
