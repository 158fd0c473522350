"""The audit log of tasks: an entry is there exactly when its transaction is, once, in one chain, through every accident."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import count
from typing import Any

from c360.agents.audit import Chain, DoorLog
from c360.engine.agent import Outbox, Task
from c360.engine.memory import MemoryCluster
from c360.engine.transport import TP, Batch, TopicSpec
from c360.governance.audit import Entry, decode_record, verify
from c360.governance.denials import PAUSE_MS
from c360.ops.records import records
from c360.tables.store import MemoryStores
from c360.testing.faults import Crash, FaultyCluster
from tests.engine import toy
from tests.engine.test_crash import every_step

TOPIC = "shop.audit"
ENTRY = Entry(who="erasure", what="erase", at=5, reason="")


class Out:
    """An outbox that keeps what was sent."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, bytes, int]] = []

    def send(self, topic: str, key: Any, value: Any, partition: Any = None, headers: Any = None) -> None:
        self.sent.append((topic, value, partition))


def names() -> Any:
    numbers = count(1)
    return lambda size: next(numbers).to_bytes(size, "big")


def chain() -> Chain:
    return Chain("shop", TOPIC, "erasure/0", personal={"email"}, random=names())


def test_a_chain_goes_on_where_the_last_commit_left_it() -> None:
    one, out = chain(), Out()
    assert one.notes() == {}
    one.add(ENTRY, out)
    kept = json.loads(json.dumps(one.notes()))
    one.add(ENTRY, Out())  # in a transaction that is aborted
    one.resume(kept)
    assert one.notes() == kept
    one.add(ENTRY, out)
    again = chain()  # in another process
    again.resume(json.loads(json.dumps(one.notes())))
    again.add(ENTRY, out)
    assert [(topic, partition) for topic, _, partition in out.sent] == [(TOPIC, 0)] * 3
    log = [value for _, value, _ in out.sent]
    assert verify("shop", log) == []
    assert [decode_record(value).number for value in log] == [0, 1, 2]


def test_a_task_that_lost_its_notes_to_a_reset_begins_another_chain() -> None:
    one, out = chain(), Out()
    one.add(ENTRY, out)
    one.resume({})
    one.add(ENTRY, out)
    log = [value for _, value, _ in out.sent]
    assert verify("shop", log) == []
    assert [decode_record(value).number for value in log] == [0, 0]
    assert len({decode_record(value).writer for value in log}) == 2


def test_what_is_personal_is_left_out_and_the_task_goes_on() -> None:
    one, out = chain(), Out()
    one.add(Entry(who="erasure", what="erase", at=5, reason="ann@mail.org asked", about=("email:ann@mail.org",)), out)
    assert b"ann@" not in out.sent[0][1]
    assert b"left out" in out.sent[0][1]


class Refusing(toy.Counting):
    """A door as far as the audit log is concerned: it refuses whatever it reads."""

    def __init__(self, stage: toy.Toy, clock: toy.Clock, log: DoorLog) -> None:
        super().__init__(stage, clock)
        self.log = log

    def resume(self, notes: Mapping[str, Any]) -> None:
        super().resume(notes)
        self.log.resume(notes)

    def notes(self) -> dict[str, Any]:
        return super().notes() | self.log.notes()

    def process(self, batch: Batch, out: Outbox) -> None:
        super().process(batch, out)
        for _ in batch.offsets:
            self.log.deny("withdrawn", self.clock())

    def finish(self, positions: Mapping[TP, int], now_ms: int, out: Outbox) -> None:
        super().finish(positions, now_ms, out)
        self.log.finish(now_ms, out)

    def wants(self, now_ms: int) -> bool:
        return super().wants(now_ms) or self.log.wants(now_ms)


class Door(toy.Toy):
    """A toy whose tasks tell what they refuse."""

    def __init__(self) -> None:
        super().__init__()
        self.random = names()

    def processor(self, task: Task) -> toy.Counting:
        who = f"{self.name}/{task.lead.partition}"
        log = DoorLog(Chain("shop", TOPIC, who, personal=(), random=self.random), "door")
        return Refusing(self, self.clock, log)


def audited(world: toy.World) -> list[bytes]:
    tp = TP(TOPIC, 0)
    return [found.value or b"" for found in records(world.reader, world.reader.starts([tp]))]


def told(log: list[bytes]) -> int:
    return sum(int(decode_record(data).entry.after["withdrawn"]) for data in log)


def test_whatever_ends_a_door_at_whatever_step_its_refusals_are_told_once() -> None:
    """Every refusal is in the log exactly once, in chains without a gap, whichever worker went on."""
    told_in: list[int] = []
    for plan in every_step(Crash):
        world, stores = toy.World(MemoryCluster(), Door(), 2), MemoryStores()
        world.admin.create([TopicSpec(TOPIC, 1)])
        world.feed_all(3)
        loop = world.loop(stores, cluster=FaultyCluster(world.cluster, plan))
        try:
            world.until(world.idle, loop)
            world.feed_all()
            world.toy.clock.ms += PAUSE_MS
            world.until(world.idle, loop)
        except Crash:
            assert isinstance(world.cluster, MemoryCluster)
            world.loops.remove(loop)
            world.cluster.expire(loop.consumer)
        else:
            world.loops.remove(loop)
            loop.close()
        again = world.loop(MemoryStores())
        world.until(world.idle, again)
        world.toy.clock.ms += PAUSE_MS
        world.until(lambda w=world: told(audited(w)) == sum(w.written.values()), again)  # type: ignore[misc]
        log = audited(world)
        assert verify("shop", log) == []
        assert len({decode_record(data).writer for data in log}) == 2, "one chain per task, whoever ran it"
        told_in.append(len(log))
    assert max(told_in) < 10, f"of {sum(world.written.values())} refusals"
