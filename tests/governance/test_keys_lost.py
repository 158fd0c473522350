"""The keys topic deleted: while workers run, while none runs, and what `c360 keys init` says then."""

from __future__ import annotations

import os
import secrets
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from c360.assembly import Worker
from c360.engine.global_table import GlobalTable
from c360.engine.loop import Loop
from c360.engine.memory import MemoryCluster, MemoryProducer
from c360.engine.partition import partition_of
from c360.engine.transport import Cluster, TopicSpec
from c360.errors import EngineFatal, NeedsOperator, Stale
from c360.governance.keys import LocalMasterKeys, read_record_key
from c360.governance.sealing import KEY_BYTES
from c360.ops import audit, keys, topics
from c360.ops.doctor import examine
from c360.plan import Plan
from c360.tables.store import MemoryStores
from c360.testing import TestDriver
from tests.governance.door_shop import NOW, shop

KEYS, GOVERNED = "doors.keys", "doors.governed.customers.v1"


def customer(t: TestDriver, n: int, name: str) -> None:
    source = {"ts_ms": t.now_ms, "lsn": t.now_ms + n}
    row = {"id": str(n), "cookie": None, "name": name}
    t.send(
        "customers", key=str(n), value={"before": None, "after": row, "op": "u", "ts_ms": t.now_ms, "source": source}
    )


def govern_of(t: TestDriver) -> Loop:
    return next(loop for loop in t.loops if loop.agent.name == "govern")


def governed(t: TestDriver) -> int:
    return len(list(t.read(GOVERNED)))


def test_while_a_worker_runs_it_stops_and_seals_nothing_more() -> None:
    t = TestDriver(shop(), now=NOW)
    customer(t, 1, "Ann")
    t.advance(timedelta(seconds=1))
    before = left(t)
    t.cluster.admin().delete([KEYS])
    topics.apply(t.plan, t.cluster.admin())
    t.now_ms += 6_000
    table = t.processes[0].tables[0]
    with pytest.raises(NeedsOperator, match=r"doors.keys was deleted and created again: .* Bring the topic back"):
        turned(table)
    customer(t, 2, "Bob")
    for _ in range(50):
        for loop in t.loops:
            loop.turn(0.0)
    with pytest.raises(Stale):
        table.get(b"x", KEYS)
    assert governed(t) == 1
    assert "suppressed-unknown" in govern_of(t).shut_told
    assert keys.read_records(t.plan, t.cluster) == {}
    assert left(t) == before, "nothing is taken for erased"


def test_while_it_is_gone_no_key_is_made_and_nothing_sealed_and_doors_wait() -> None:
    t = TestDriver(shop(), now=NOW)
    customer(t, 1, "Ann")
    t.advance(timedelta(seconds=1))
    before = left(t)
    t.cluster.admin().delete([KEYS])
    t.now_ms += 6_000
    turned(t.processes[0].tables[0])
    assert "doors.keys does not exist" in t.processes[0].tables[0].trouble
    customer(t, 2, "Bob")
    with pytest.raises(EngineFatal, match=r"doors.keys: there is no such topic"):
        turned_often(govern_of(t))
    assert governed(t) == 1
    assert left(t) == before


def left(t: TestDriver) -> dict[str, list[Any]]:
    return {door.agent: list(t.read(t.plan.leaves(door))) for door in t.plan.doors}


def turned(table: GlobalTable) -> None:
    for _ in range(3):
        table.turn()


def turned_often(loop: Loop) -> None:
    for _ in range(50):
        loop.turn(0.0)


class App:
    """An app as an operator has it, on a log of its own."""

    def __init__(self) -> None:
        self.plan = shop().plan()
        self.cluster = MemoryCluster()
        self.cluster.admin().create([TopicSpec(t.name, 2) for t in self.plan.topics if not t.owned])
        topics.apply(self.plan, self.cluster.admin())
        self.master = LocalMasterKeys([os.urandom(KEY_BYTES)])

    def init(self) -> bool:
        """`c360 keys init`, as it is told."""
        made = keys.make_secret_once(self.plan, self.cluster, self.master, os.urandom)
        with audit.Run(self.plan, self.cluster, who="test", random=secrets.token_bytes) as run:
            run.say("done", audit.Told("keys init", after={"secret": "made" if made else "there"}))
        return made

    def worker(self) -> Worker:
        return Worker(self.plan, self.cluster, MemoryStores(), "one", master=self.master)


def test_a_secret_that_is_made_while_a_worker_looks_for_it_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """It had looked for it before `keys init`, and for what the audit log says of it after."""
    app, told = App(), keys.was_made

    def was_made(plan: Plan, cluster: Cluster) -> bool:
        monkeypatch.setattr(keys, "was_made", told)
        assert app.init()
        return told(plan, cluster)

    monkeypatch.setattr(keys, "was_made", was_made)
    assert keys.open_vault(app.plan, app.cluster, app.master, os.urandom).master is app.master


@pytest.mark.parametrize("again", [False, True])
def test_a_worker_does_not_start_and_a_new_secret_is_not_made(tmp_path: Path, *, again: bool) -> None:
    app = App()
    assert app.init()
    app.worker().prepare()
    app.cluster.admin().delete([KEYS])
    if again:
        topics.apply(app.plan, app.cluster.admin())
    with pytest.raises(
        NeedsOperator, match=r"has lost the secret of doors, .* Bring the topic back from a copy"
    ) as refused:
        app.worker().prepare()
    assert "keys init`; the raw topics" in str(refused.value)
    with pytest.raises(NeedsOperator, match="has lost the secret of doors"):
        app.init()
    assert keys.read_records(app.plan, app.cluster) == {}
    (found,) = [c for c in examine(app.plan, app.cluster, tmp_path, master=lambda: app.master) if c.name == "keys"]
    assert (found.ok, "has lost the secret" in found.message, "keys init" in found.do) == (False, True, False)


def test_a_copy_of_the_topic_that_is_brought_back_is_enough() -> None:
    app = App()
    app.init()
    kept = keys.read_records(app.plan, app.cluster)
    app.cluster.admin().delete([KEYS])
    topics.apply(app.plan, app.cluster.admin())
    producer = app.cluster.producer()
    for key, value in kept.items():
        producer.produce(KEYS, key, value, partition_of(read_record_key(key)[0].encode(), app.plan.partitions))
    producer.flush()
    app.worker().prepare()
    assert not app.init()


def test_an_app_that_begins_anew_under_its_name_is_a_new_one() -> None:
    app = App()
    app.init()
    admin = app.cluster.admin()
    admin.delete([topic.name for topic in app.plan.topics if topic.owned])
    topics.apply(app.plan, admin)
    assert app.init()
    app.worker().prepare()


def test_an_app_without_a_secret_is_told_how_to_make_it() -> None:
    app = App()
    with pytest.raises(NeedsOperator, match="make it once, with `c360 keys init`"):
        app.worker().prepare()


# ---------------------------------------------------------------------------------------- between a key and its value
def sealed_and_keys(t: TestDriver) -> tuple[int, int]:
    """How many values there are, and how many keys of customers; each value must open."""
    names = [key for key in keys.read_records(t.plan, t.cluster) if key.startswith(b"crm:")]
    return governed(t), len(names)


def test_a_crash_between_the_key_and_the_value_leaves_neither_and_then_both(monkeypatch: pytest.MonkeyPatch) -> None:
    with TestDriver(shop(), now=NOW) as t:
        t.settle()
        customer(t, 1, "Ann")
        govern: Any = govern_of(t)
        sent: list[str] = []
        produce = MemoryProducer.produce

        def dies(self: MemoryProducer, topic: str, *rest: Any, **more: Any) -> None:
            if topic == GOVERNED:
                raise KeyboardInterrupt  # the process is gone
            sent.append(topic)
            produce(self, topic, *rest, **more)

        with monkeypatch.context() as patched:
            patched.setattr(MemoryProducer, "produce", dies)
            with pytest.raises(KeyboardInterrupt):
                turned_often(govern)
        assert KEYS in sent, "the key goes first"
        t.cluster.producer(govern.transactional_id).close()  # ends what was left open, as the broker would in time
        assert sealed_and_keys(t) == (0, 0)
        for loop in t.loops:
            t.cluster.expire(loop.consumer)
        t.start()
        t.settle()
        assert sealed_and_keys(t) == (1, 1)
        assert t.profile("crm:1").name == "Ann"
        t.verify()
