"""A copy of whole topics: everything up to when, in one piece after any crash, and shut when it cannot know."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from c360.engine.global_table import IDS_S, GlobalTable
from c360.engine.memory import MemoryCluster
from c360.engine.transport import TP, Batch, Cluster, Reader, TopicSpec
from c360.errors import BrokerAway, OutOfLog, Stale, TaskCorrupted
from c360.tables.rocks import RocksStores
from c360.tables.store import MemoryStores, Stores
from c360.testing.faults import At, Crash, FaultyCluster, FaultyReader, FaultyStores
from tests.engine.test_crash import every_step

HOUR_MS = 3_600_000
COMPACT = {"cleanup.policy": "compact"}


@dataclass
class Topics:
    """Two compacted topics, and a clock for the broker and all copies."""

    ms: int = 1_700_000_000_000
    cluster: MemoryCluster = field(init=False)

    def __post_init__(self) -> None:
        self.cluster = MemoryCluster(now_ms=lambda: self.ms, quiet_s=0.0)
        self.make("a", 3)
        self.make("b", 1)
        self.producer = self.cluster.producer()

    def make(self, name: str, partitions: int) -> None:
        self.cluster.admin().create([TopicSpec(name, partitions, COMPACT)])

    def again(self, name: str, partitions: int) -> None:
        self.cluster.admin().delete([name])
        self.make(name, partitions)

    def say(self, topic: str, key: str, value: str | None) -> None:
        self.producer.produce(topic, key.encode(), None if value is None else value.encode())
        self.producer.flush()

    def truth(self, topic: str) -> dict[bytes, bytes]:
        tps = [TP(topic, p) for p in range(self.cluster.admin().topics()[topic])]
        found: dict[bytes, bytes | None] = {}
        reader = self.cluster.reader()
        for batches in reader.read(reader.starts(tps)):
            for batch in batches:
                found |= {key or b"": value for key, value in zip(batch.keys, batch.values, strict=True)}
        return {key: value for key, value in found.items() if value is not None}

    def table(self, stores: Stores, cluster: Cluster | None = None, **how: Any) -> GlobalTable:
        return GlobalTable(
            "copy", ("a", "b"), cluster or self.cluster, stores, lambda: self.ms,
            lambda: self.ms / 1000, **{"look_s": 0.0} | how,
        )  # fmt: skip

    def caught_up(self, table: GlobalTable) -> None:
        """Turn until it says so, and see that it is so."""
        for _ in range(50):
            self.ms += 1
            asked = self.ms / 1000
            table.turn()
            if self.ms / 1000 - table.age() >= asked:
                break
        else:
            pytest.fail(f"it does not catch up: {table.trouble}")
        for topic in ("a", "b"):
            assert dict(table.scan(topic=topic)) == self.truth(topic)


@pytest.fixture
def topics() -> Topics:
    return Topics()


@pytest.fixture(params=["memory", "rocks"])
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> Stores:
    return MemoryStores() if request.param == "memory" else RocksStores(tmp_path)


@pytest.fixture
def table(topics: Topics, stores: Stores) -> Iterator[GlobalTable]:
    made = topics.table(stores)
    yield made
    made.close()


def told(table: GlobalTable, seen: Any, limit: int = 1000) -> tuple[list[str], Any]:
    """All changes since, in portions."""
    keys: list[str] = []
    while True:
        found = table.changes(seen, limit)
        assert not found.anew
        seen = found.seen
        keys += [f"{topic}:{key.decode()}" for topic, key in found.keys]
        if not found.keys:
            return keys, seen


# ============================================================================================================== reading
def test_it_holds_what_the_topics_hold(topics: Topics, table: GlobalTable) -> None:
    topics.say("a", "k1", "old")
    topics.say("a", "k1", "new")
    topics.say("a", "k2", "x")
    topics.say("a", "k2", None)
    topics.say("b", "k1", "other topic")
    topics.caught_up(table)
    assert table.get(b"k1") == b"new"
    assert table.get_many([b"k2", b"k1"]) == [None, b"new"]
    assert table.get(b"k1", "b") == b"other topic"


def test_a_scan_gives_a_prefix_in_order_and_in_portions(
    topics: Topics, table: GlobalTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("c360.engine.global_table.PORTION", 3)
    for n in range(20):
        topics.say("a", f"{n % 2}-{n:02}", "v")
    topics.caught_up(table)
    assert [key.decode() for key, _ in table.scan(b"1-")] == [f"1-{n:02}" for n in range(1, 20, 2)]


def test_records_that_were_aborted_are_never_seen(topics: Topics, table: GlobalTable) -> None:
    topics.caught_up(table)
    seen = table.mark()
    producer = topics.cluster.producer("t")
    producer.begin()
    producer.produce("a", b"k", b"never", 0)
    topics.say("b", "k", "yes")
    table.turn()
    producer.abort()
    topics.caught_up(table)
    assert table.get(b"k") is None
    assert told(table, seen)[0] == ["b:k"]


# ============================================================================================================ freshness
def test_before_it_is_whole_nobody_gets_an_answer(topics: Topics, table: GlobalTable) -> None:
    for ask in (lambda: table.get(b"k"), lambda: list(table.scan()), table.mark, lambda: table.changes(None)):
        with pytest.raises(Stale, match="a, b is not whole yet"):
            ask()
    assert table.age() == float("inf")
    topics.caught_up(table)
    table.fresh(0.1)


def test_an_open_transaction_makes_it_old_and_other_partitions_go_on(topics: Topics, table: GlobalTable) -> None:
    topics.caught_up(table)
    producer = topics.cluster.producer("t")
    producer.begin()
    producer.produce("a", b"held", b"1", 0)
    topics.say("b", "k", "1")
    for _ in range(3):
        topics.ms += 1000
        table.turn()
    assert table.get(b"k", "b") == b"1"
    assert table.reached()[TP("a", 0)] == 0
    assert table.age() >= 3
    with pytest.raises(Stale, match=r"0\.5 s is allowed"):
        table.fresh(0.5)
    producer.commit()
    topics.caught_up(table)
    table.fresh(0.5)
    assert table.get(b"held") == b"1"


def test_waiting_for_offsets_ends_when_they_are_held_marks_of_transactions_included(
    topics: Topics, table: GlobalTable
) -> None:
    topics.caught_up(table)
    producer = topics.cluster.producer("t")
    producer.begin()
    producer.produce("a", b"k", b"1", 0)
    producer.commit()
    end = topics.cluster.reader().ends([TP("a", 0)])
    with pytest.raises(Stale, match="in time"):
        table.wait_until(end, topics.ms / 1000)
    topics.caught_up(table)
    table.wait_until(end, topics.ms / 1000)


def test_a_thread_follows_while_others_read_and_wait(topics: Topics, stores: Stores) -> None:
    table = GlobalTable("copy", ("a", "b"), topics.cluster, stores, lambda: topics.ms, look_s=0.01)
    stopped = threading.Event()
    thread = threading.Thread(target=table.run, args=(stopped,))
    thread.start()
    try:
        for n in range(100):
            topics.say("a", "k", str(n))
            table.wait_until(topics.cluster.reader().ends([TP("a", p) for p in range(3)]), table.monotonic() + 20)
            assert table.get(b"k") == str(n).encode()
    finally:
        stopped.set()
        thread.join(20)
    with pytest.raises(Stale):
        table.get(b"k")


def test_a_follower_that_died_is_told_of(topics: Topics, stores: Stores) -> None:
    plan = At(0, lambda: RuntimeError("a bug"), frozenset({"before ends"}))
    table = topics.table(stores, FaultyCluster(topics.cluster, plan))
    with pytest.raises(RuntimeError):
        table.run(threading.Event())
    with pytest.raises(Stale, match="nobody follows any more: a bug"):
        table.fresh(1.0)


# ===================================================================================================== other lives of it
def test_after_a_restart_it_reads_what_is_new_only(topics: Topics, stores: Stores) -> None:
    first = topics.table(stores)
    for n in range(50):
        topics.say("a", f"k{n}", "1")
    topics.caught_up(first)
    first.close()
    topics.say("a", "k0", None)
    second = topics.table(stores)
    topics.caught_up(second)
    assert second.copied.records == 1
    second.close()


@pytest.mark.parametrize("running", [True, False], ids=["running", "stopped"])
@pytest.mark.parametrize("longer", [True, False], ids=["longer", "shorter"])
def test_a_topic_that_was_made_anew_is_copied_anew(topics: Topics, stores: Stores, running: bool, longer: bool) -> None:
    """Also when it is longer than it was: offsets alone would not tell."""
    table = topics.table(stores)
    for n in range(10):
        topics.say("a", f"k{n}", "1")
    topics.say("b", "stays", "1")
    topics.caught_up(table)
    if not running:
        table.close()
    topics.again("a", 3)
    for n in range(100 if longer else 1):
        topics.say("a", f"other{n}", "2")
    if running:
        topics.ms += int(IDS_S * 1000)
        for _ in range(4):
            table.turn()
    else:
        table = topics.table(stores)
    topics.caught_up(table)
    assert table.copied.rebuilds >= 1
    table.close()


def test_deletions_that_may_have_been_missed_are_made_up_for(topics: Topics, stores: Stores) -> None:
    table = topics.table(stores)
    topics.say("a", "gone", "1")
    topics.say("a", "stays", "1")
    topics.caught_up(table)
    table.close()
    topics.say("a", "gone", None)
    topics.ms += 25 * HOUR_MS
    topics.say("a", "stays", "2")
    topics.cluster.compact("a")
    table = topics.table(stores)
    topics.caught_up(table)
    assert table.get(b"gone") is None
    table.close()


def test_who_has_looked_all_the_time_need_not_begin_again(topics: Topics, stores: Stores) -> None:
    """Nothing new for days, and then a restart."""
    table = topics.table(stores)
    topics.say("a", "k", "1")
    for _ in range(5):
        topics.caught_up(table)
        topics.ms += 10 * HOUR_MS
    topics.caught_up(table)
    table.close()
    table = topics.table(stores)
    topics.caught_up(table)
    assert table.copied.rebuilds == 0
    assert table.copied.records == 0
    table.close()


def test_a_process_that_slept_for_a_day_begins_again_before_it_answers(topics: Topics, table: GlobalTable) -> None:
    topics.say("a", "gone", "1")
    topics.caught_up(table)
    topics.say("a", "gone", None)
    topics.ms += 25 * HOUR_MS
    topics.cluster.compact("a")
    table.turn()
    topics.caught_up(table)
    assert table.copied.rebuilds == 2, "both topics"


def test_a_log_that_was_cut_beyond_where_it_stood_is_copied_anew(topics: Topics, stores: Stores) -> None:
    table = topics.table(stores)
    topics.say("b", "gone", "1")
    topics.caught_up(table)
    table.close()
    for n in range(5):
        topics.say("b", f"k{n}", "1")
    topics.cluster.admin().delete_records({TP("b", 0): 3})
    table = topics.table(stores)
    topics.caught_up(table)
    assert table.get(b"gone", "b") is None
    table.close()


class Listener:
    """Keeps a copy of its own from nothing but what it is told."""

    def __init__(self) -> None:
        self.seen: Any = None
        self.mine: dict[tuple[str, bytes], bytes | None] = {}

    def listen(self, table: GlobalTable) -> None:
        while True:
            found = table.changes(self.seen, 2)
            if found.anew:
                whole = {(t, k): v for t in ("a", "b") for k, v in table.scan(topic=t)}
                self.mine.clear()
                self.mine.update(whole)
            self.mine |= {(t, k): table.get(k, t) for t, k in found.keys}
            self.seen = found.seen
            if not found.keys:
                return

    def check(self, topics: Topics) -> None:
        truth = {(t, k): v for t in ("a", "b") for k, v in topics.truth(t).items()}
        assert {k: v for k, v in self.mine.items() if v is not None} == truth


def busy(topics: Topics, table: GlobalTable, listener: Listener) -> None:
    """Changes, deletions, and in the end another topic of the same name."""
    for n in range(3):
        for topic in ("a", "b"):
            topics.say(topic, f"k{n}", "1")
            topics.say(topic, f"k{n - 1}", None)
        topics.caught_up(table)
        listener.listen(table)
    topics.again("a", 2)
    topics.ms += int(IDS_S * 1000)
    table.turn()
    topics.caught_up(table)


def test_a_process_may_end_at_any_step_and_the_next_goes_on() -> None:
    steps = ("before ends", "before starts", "before read", "before get", "before write", "after write")
    for plan in every_step(Crash, *steps):
        topics, stores, listener = Topics(), MemoryStores(), Listener()
        table = topics.table(FaultyStores(stores, plan), FaultyCluster(topics.cluster, plan))
        try:
            busy(topics, table, listener)
        except Crash:
            topics.say("a", "after", "1")
            again = topics.table(stores)
            topics.caught_up(again)
            listener.listen(again)
            listener.check(topics)


@pytest.mark.parametrize(("error", "step"), [(TaskCorrupted, "before write"), (TaskCorrupted, "after write"),
                         (TaskCorrupted, "before get"), (BrokerAway, "before ends"), (BrokerAway, "before read")])  # fmt: skip
def test_what_fails_is_done_again_and_told_meanwhile(topics: Topics, error: type[Exception], step: str) -> None:
    stores = MemoryStores()
    plan = At(0, lambda: error("injected"), frozenset({step}))
    table = topics.table(FaultyStores(stores, plan), FaultyCluster(topics.cluster, plan))
    topics.say("a", "k", "1")
    while not plan.fired:
        table.turn()
    with pytest.raises(Stale, match="injected"):
        table.fresh(60.0)
    topics.caught_up(table)
    table.fresh(0.1)
    table.close()


# ============================================================================================================ listeners
def test_a_listener_that_forgets_is_told_again(topics: Topics, table: GlobalTable) -> None:
    topics.caught_up(table)
    seen = table.mark()
    version = table.version
    for n in range(7):
        topics.say("a", f"k{n}", "1")
    topics.say("a", "k0", None)
    topics.caught_up(table)
    assert table.version != version
    keys, later = told(table, seen, limit=3)
    assert sorted(set(keys)) == [f"a:k{n}" for n in range(7)]
    assert told(table, seen, limit=3) == (keys, later)
    assert told(table, later)[0] == []


def test_who_cannot_be_told_looks_at_everything(topics: Topics, stores: Stores) -> None:
    table = topics.table(stores, kept=10)
    topics.caught_up(table)
    seen = table.mark()
    assert table.changes(None).anew
    for n in range(40):
        topics.say("b", f"k{n}", "1")
        topics.caught_up(table)
    assert table.changes(seen).anew, "it is too far behind"
    seen = table.mark()
    topics.ms += 25 * HOUR_MS
    table.turn()
    topics.caught_up(table)
    assert table.changes(seen).anew, "deletions may be unknown"
    seen = table.mark()
    topics.again("b", 1)
    topics.ms += int(IDS_S * 1000)
    table.turn()
    topics.caught_up(table)
    assert table.changes(seen).anew, "it is another topic"
    table.close()


class CutReader(FaultyReader):
    """Retention cuts a topic between two looks at where it begins, once."""

    cut = False

    def follow(self, positions: Mapping[TP, int]) -> Iterator[tuple[list[Batch], dict[TP, int]]]:
        if not CutReader.cut:
            CutReader.cut = True
            raise OutOfLog("a/0: offset 0 is not in the log any more, which begins at 1")
        return super().follow(positions)


class CutCluster(FaultyCluster):
    def reader(self) -> Reader:
        return CutReader(self.inner.reader(), self.step)


def test_a_topic_that_is_cut_as_a_copy_begins_to_read_it_is_looked_at_again(topics: Topics) -> None:
    topics.say("a", "k", "1")
    table = GlobalTable(
        "t", ["a", "b"], CutCluster(topics.cluster, lambda step: None), MemoryStores(), lambda: topics.ms
    )
    assert not table.turn()
    while table.age() == float("inf"):
        table.turn()
    assert table.get(b"k") == b"1"
    table.close()


def test_a_listener_may_be_ahead_of_a_copy_that_was_made_elsewhere(topics: Topics) -> None:
    ahead, behind = topics.table(MemoryStores()), topics.table(MemoryStores())
    topics.caught_up(behind)
    topics.say("a", "k", "1")
    topics.caught_up(ahead)
    seen = ahead.mark()
    assert behind.changes(seen) == ([], seen, False)
    topics.caught_up(behind)
    topics.say("a", "k", "2")
    topics.caught_up(behind)
    assert told(behind, seen)[0] == ["a:k"]


Step = tuple[Any, ...]
steps: st.SearchStrategy[list[Step]] = st.lists(
    st.one_of(
        st.tuples(st.just("say"), st.sampled_from("ab"), st.sampled_from("xyz"), st.sampled_from(["1", "2", None])),
        st.tuples(st.sampled_from(["abort", "turn", "restart", "listen", "compact", "sleep", "again"])),
    ),
    max_size=30,
)


@settings(max_examples=150)
@given(steps)
def test_it_and_its_listener_end_where_the_topics_are(said: Sequence[Step]) -> None:
    topics, stores = Topics(), MemoryStores()
    table = topics.table(stores, kept=3)
    listener = Listener()
    for verb, *rest in said:
        if verb == "say":
            topics.say(*rest)
        elif verb == "abort":
            producer = topics.cluster.producer("t")
            producer.begin()
            producer.produce("a", b"x", b"aborted", 0)
            producer.abort()
        elif verb == "turn":
            table.turn()
        elif verb == "restart":
            table = topics.table(stores, kept=3)
        elif verb == "listen":
            topics.caught_up(table)
            listener.listen(table)
        elif verb == "compact":
            topics.cluster.compact("a")
        elif verb == "sleep":
            topics.ms += 25 * HOUR_MS
        elif verb == "again":
            topics.again("a", 3)
            topics.ms += int(IDS_S * 1000)
            table.turn()
    topics.ms += int(IDS_S * 1000)
    table.turn()
    topics.caught_up(table)
    listener.listen(table)
    listener.check(topics)
