"""`c360 reset`: asked for by a command, begun by the next worker; killed at every step, undone, to a point in time."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from itertools import count

import pytest

from c360.agents.control import Live, ResetJournal, VersionState, live_key, reset_key, version_key
from c360.assembly import Worker
from c360.engine.loop import LoopSettings
from c360.engine.memory import MemoryCluster
from c360.engine.state import POSITIONS, RESET, decode_positions
from c360.engine.transport import TP, Admin, Cluster, TopicSpec
from c360.errors import C360Error, Evicted, NeedsOperator, NotYet, UsageError
from c360.ops import beginning, control, targets, topics, versions
from c360.ops.beginning import begin_life, begin_lives
from c360.ops.reset import ResetPlan, order_reset, plan_reset, plan_undo, undo
from c360.ops.targets import EARLIEST, Target
from c360.ops.verify import verify
from c360.plan import Plan
from c360.tables.store import MemoryStores
from c360.testing import TestDriver
from c360.testing.faults import At, Crash, FaultyCluster
from examples.shop.app import app as example
from tests.agents.test_control import shop, wait_until
from tests.engine.cut import CutCluster
from tests.engine.test_crash import every_step
from tests.ops.test_audit import made as audited
from tests.testing.moves import ASSIGNMENTS, OUTPUT, PARTS, PLAN, app, assign, on, profiles, visit
from tests.testing.shop import change
from tests.testing.world import NOW, NOW_MS

AGENT = "customer@1"
GROUP = PLAN.agent(AGENT).group
LOG = f"{OUTPUT}.changelog"
VISITS, ORDERS = "moves.governed.visits.v1", "moves.governed.orders.v1"
ANN, BOB, CID = on(0), on(1), on(2)
HOUR = timedelta(hours=1)


def say(t: TestDriver, since: int, n: int = 12) -> None:
    """Visits of three customers, and orders, of which some are changed."""
    for k in range(since, since + n):
        name = (ANN, BOB, CID)[k % 3].removeprefix("crm:")
        t.send("visits", name, visit(k, name, f"/{k % 5}"))
        row = {"id": k % 4 + 1, "customer": name, "amount": f"{k}.50", "placed": "2026-11-01T12:00:00Z"}
        t.send("orders", f'{{"id": {k % 4 + 1}}}', change("u", k + 1, row, table="orders"))


@pytest.fixture
def t() -> Iterator[TestDriver]:
    """A shop with two hours of history, ANN and BOB one customer, and its worker stopped."""
    with made() as driver:
        yield driver


def made() -> TestDriver:
    t = TestDriver(app, now=NOW)
    say(t, 0)
    for subject in (ANN, BOB):
        assign(t.producer, subject, 1, ANN)
    t.settle()
    t.advance(HOUR)
    say(t, 100)
    t.settle()
    t.advance(HOUR)
    t.stop()
    return t


def plan_to(t: TestDriver, target: Target = EARLIEST, agent: str = AGENT, cluster: Cluster | None = None) -> ResetPlan:
    return plan_reset(t.plan, cluster or t.cluster, agent, target, now_ms=t.now_ms)


def order(t: TestDriver, target: Target = EARLIEST, agent: str = AGENT, cluster: Cluster | None = None) -> None:
    order_reset(t.plan, cluster or t.cluster, plan_to(t, target, agent, cluster))


def journal(t: TestDriver, agent: str = AGENT) -> ResetJournal | None:
    return control.read(t.plan, t.cluster).reset(agent)


def raw(t: TestDriver, topic: str) -> list[list[tuple[int, bytes | None, bytes | None]]]:
    """All that lies in a topic, partition by partition, also what is not committed."""
    logs = t.cluster.topics[topic].partitions
    return [list(zip(log.offsets, log.keys, log.values, strict=True)) for log in logs]


def time_out(t: TestDriver) -> None:
    """What a broker does with the transaction of who was killed, 15 s later."""
    t.cluster.producer(f"{GROUP}.reset")


def state(t: TestDriver, agent: str = AGENT) -> tuple[object, ...]:
    """What a reset may touch, to be the same again."""
    planned = t.plan.agent(agent)
    return (t.cluster.admin().group_offsets(planned.group), *(raw(t, topic) for topic in planned.changelogs))


def vanished(t: TestDriver) -> set[str]:
    """Who is in a profile now, and was taken away on the way."""
    return {key.decode() for key, value in t.read(OUTPUT) if key and value is None} & profiles(t.cluster).keys()


def work(t: TestDriver, *, check: bool = True) -> dict[str, bytes]:
    """A worker until nothing moves; its profiles."""
    t.start()
    t.settle()
    if check:
        t.verify("govern", AGENT)
    t.stop()
    return profiles(t.cluster)


# ============================================================================================ asked for, and then begun
def test_nothing_is_destroyed_before_a_worker_begins_and_readers_see_nobody_vanish(t: TestDriver) -> None:
    before, log = profiles(t.cluster), raw(t, LOG)
    order(t)
    assert raw(t, LOG) == log
    report = verify(t.plan, t.cluster, [AGENT])
    assert (report.complete, report.differences) == (False, 0), "who waits for it must wait"
    said = journal(t)
    assert said is not None
    assert (said.step, said.target, said.clears) == ("reset", "--to-earliest", [LOG])
    offsets = t.cluster.admin().group_offsets(GROUP)
    assert {offset for tp, offset in offsets.items() if tp.topic in (VISITS, ORDERS, ASSIGNMENTS)} == {0}
    assert {tp: n for tp, n in offsets.items() if tp.topic == PARTS} != {}, "what was not read of it must stay"
    assert work(t) == before
    assert journal(t) is None
    assert vanished(t) == set()
    assert all(entries[0][1] == RESET for entries in raw(t, LOG)), "the old life is gone"


def test_it_is_journalled_before_anything_is_done() -> None:
    """At each step at which the group's offsets are others, or a changelog, the journal says so."""
    t = made()
    before, seen = state(t), set()

    def look(step: str) -> None:
        told = {key: value for _, key, value in raw(t, t.plan.control)[0]}  # also what is not committed yet
        said = json.loads(told.get(reset_key(AGENT)) or b"null")
        seen.add(said["step"] if said else None)
        if state(t) != before and said is None:
            assert t.cluster.topics[LOG].partitions[0].keys[-1] == POSITIONS, "all is done"

    cluster = FaultyCluster(t.cluster, look)
    order(t, cluster=cluster)
    begin_life(t.plan, cluster, AGENT)
    assert seen == {None, "resetting", "reset", "beginning"}


@pytest.mark.parametrize("again", [0, 5])
def test_a_command_that_is_killed_at_any_step_is_finished_by_the_same_command(again: int) -> None:
    """`again`: minutes later, so that so long ago is another time by then."""
    t = made()
    right = None
    for plan in every_step(Crash):
        t = made()
        target = targets.by_duration("90m", t.now_ms)
        planned = plan_to(t, target)
        with suppress(Crash):
            order(t, target, cluster=FaultyCluster(t.cluster, plan))
        begun = journal(t)
        t.now_ms += again * 60_000
        order(t, targets.by_duration("90m", t.now_ms) if begun else target)
        ended = journal(t)
        assert ended is not None
        assert ended.step == "reset"
        assert ended.to == {f"{tp.topic}/{tp.partition}": to for tp, (_, to) in planned.moves.items()}
        assert begun is None or begun.incarnation == ended.incarnation
        found = work(t, check=right is None)
        right = right or found
        assert found == right


def test_a_worker_that_is_killed_at_any_step_of_the_beginning_is_followed_by_the_next() -> None:
    right = profiles(made().cluster)
    steps = set[str | None]()
    for plan in every_step(Crash):
        t = made()
        order(t)
        asked = journal(t)
        assert asked is not None
        try:
            begin_life(t.plan, FaultyCluster(t.cluster, plan), AGENT)
        except Crash:
            time_out(t)
            left = journal(t)
            steps.add(left.step if left else None)
            assert left is None or left.incarnation == asked.incarnation
            if left is not None and left.step == "beginning":
                with pytest.raises(NeedsOperator, match="what was before is gone"):
                    plan_undo(t.plan, t.cluster, AGENT)
        assert work(t, check=False) == right
        assert journal(t) is None
        assert vanished(t) == set()
        assert all([key for _, key, _ in entries].count(RESET) == 1 for entries in raw(t, LOG))
    assert steps == {"reset", "beginning", None}


def test_a_new_life_of_many_rows_is_written_in_pieces(monkeypatch: pytest.MonkeyPatch, t: TestDriver) -> None:
    monkeypatch.setattr(beginning, "CHUNK", 2)
    before = profiles(t.cluster)
    order(t)
    assert work(t) == before


def test_of_two_workers_that_begin_at_once_one_does() -> None:
    """The second fences the first at any of its steps; it is done by the time the first looks again."""
    right = profiles(made().cluster)
    for n in range(12):
        t = made()
        order(t)
        met: list[str] = []

        def other(step: str, t: TestDriver = t, met: list[str] = met, n: int = n) -> None:
            met.append(step)
            if len(met) == n + 1:
                begin_life(t.plan, t.cluster, AGENT)
                t.start()
                t.settle()

        begin_life(t.plan, FaultyCluster(t.cluster, other), AGENT)
        assert len(met) > n
        t.stop()
        assert work(t) == right
        assert journal(t) is None


def test_what_one_that_was_fenced_deletes_late_stops_nobody() -> None:
    """Deleting is not fenced: the records that a second worker was reading once went under its hands, and it stopped."""
    right = profiles(made().cluster)
    for n in range(4):
        t = made()
        order(t)
        cut = t.cluster.reader().ends([TP(LOG, p) for p in range(len(t.cluster.topics[LOG].partitions))])
        readings = count()

        def late(t: TestDriver = t, cut: dict[TP, int] = cut, n: int = n, readings: Iterator[int] = readings) -> None:
            if next(readings) == n:
                t.cluster.admin().delete_records(cut)

        begin_life(t.plan, CutCluster(t.cluster, lambda step: None, late), AGENT)
        assert next(readings) > n
        assert journal(t) is None
        assert work(t) == right
        assert vanished(t) == set()


def test_one_that_is_fenced_before_it_has_begun_lets_the_other_do_it() -> None:
    t = made()
    right = profiles(t.cluster)
    order(t)
    met: list[str] = []

    def other(step: str) -> BaseException | None:
        met.append(step)
        if met != ["before producer"]:
            return None
        begin_life(t.plan, t.cluster, AGENT)
        return Evicted("another")

    begin_life(t.plan, FaultyCluster(t.cluster, other), AGENT)
    assert journal(t) is None
    assert work(t) == right


def test_a_worker_that_starts_while_a_command_is_at_a_reset_waits_for_it(t: TestDriver) -> None:
    """It once ended with exit code 4, and with it all processes of its supervisor, as if the command had been killed."""
    right = profiles(t.cluster)
    with pytest.raises(Crash):
        order(t, cluster=FaultyCluster(t.cluster, At(0, Crash, frozenset({"before set_group_offsets"}))))
    said = journal(t)
    assert said is not None
    assert said.step == "resetting"
    with at_work(t) as (worker,):
        time.sleep(0.3)  # it may look; that it has, is no condition of the test
        assert not worker.loops
        order(t)
        wait_until(lambda: journal(t) is None and verify(t.plan, t.cluster, [AGENT]).complete)
    assert profiles(t.cluster) == right
    assert vanished(t) == set()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_worker_that_had_begun_when_the_reset_was_asked_for_begins_anew(t: TestDriver, workers: int) -> None:
    """It is in no group yet, so the command cannot see it. It found positions that others had moved, and ended with code 4."""
    right = profiles(t.cluster)
    with at_work(t, workers, before_start=lambda: order(t)) as begun:
        wait_until(lambda: journal(t) is None and verify(t.plan, t.cluster, [AGENT]).complete)
        wait_until(lambda: all(AGENT in {loop.agent.name for loop in w.loops} for w in begun))
    assert profiles(t.cluster) == right
    assert vanished(t) == set()


@contextmanager
def at_work(t: TestDriver, workers: int = 1, before_start: Callable[[], None] | None = None) -> Iterator[list[Worker]]:
    """Workers as they run in processes, until the end; `before_start`: once they have looked at what was decided."""
    settings = LoopSettings(commit_s=0.02)
    made = [Worker(t.plan, t.cluster, MemoryStores(), f"w{n}", lambda: t.now_ms, settings) for n in range(workers)]
    threads = []
    if before_start is None:
        threads = [threading.Thread(target=w.run) for w in made]
        for thread in threads:
            thread.start()
    else:
        for worker in made:
            worker.prepare()
        before_start()
        for worker in made:
            worker.start()
    try:
        yield made
    finally:
        for worker in made:
            worker.stop()
        for thread in threads:
            thread.join()
        for worker in made:
            worker.join()  # raises what has ended it


# ================================================================================================================ undo
def test_undone_all_is_as_if_it_had_not_been() -> None:
    t, never = made(), made()
    before = state(t)
    order(t)
    assert state(t) != before
    undo(t.plan, t.cluster, plan_undo(t.plan, t.cluster, AGENT))
    assert state(t) == before
    assert journal(t) is None
    for driver in (t, never):
        driver.start()
        say(driver, 200)
        driver.settle()
    assert profiles(t.cluster) == profiles(never.cluster)
    assert [loop.metrics.records for loop in t.loops] == [loop.metrics.records for loop in never.loops]


def test_an_undo_that_is_killed_at_any_step_is_finished_by_the_same_command() -> None:
    seen = set[str | None]()
    for plan in every_step(Crash):
        t = made()
        before = state(t)
        order(t)
        faulty = FaultyCluster(t.cluster, plan)
        try:
            undo(t.plan, faulty, plan_undo(t.plan, faulty, AGENT))
        except Crash:
            time_out(t)
            left = journal(t)
            seen.add(left.step if left else None)
            if left is not None and left.step == "undoing":
                with pytest.raises(NeedsOperator, match=r"half reset \(undoing\).*--undo --execute"):
                    t.start()
                with pytest.raises(NeedsOperator, match="half undone"):
                    plan_to(t)
            if left is not None:
                undo(t.plan, t.cluster, plan_undo(t.plan, t.cluster, AGENT))
        assert state(t) == before
        assert journal(t) is None
    assert seen == {"reset", "undoing", None}


def test_an_offset_that_was_not_there_is_not_there_again(t: TestDriver) -> None:
    group = t.cluster.groups[GROUP]
    gone = TP(VISITS, 0)
    del group.offsets[gone]
    before = state(t)
    order(t)
    assert t.cluster.admin().group_offsets(GROUP)[gone] == 0
    undo(t.plan, t.cluster, plan_undo(t.plan, t.cluster, AGENT))
    assert state(t) == before


def test_a_command_killed_before_it_was_done_is_undone_too(t: TestDriver) -> None:
    before = state(t)
    with pytest.raises(Crash):
        order(t, cluster=FaultyCluster(t.cluster, lambda step: Crash() if step == "after set_group_offsets" else None))
    assert state(t) != before
    with pytest.raises(NeedsOperator, match=r"half reset \(resetting\).*--to-earliest --execute; or go back: .*--undo"):
        t.start()
    undo(t.plan, t.cluster, plan_undo(t.plan, t.cluster, AGENT))
    assert state(t) == before
    t.start()


def test_there_is_nothing_to_undo_once_it_has_run(t: TestDriver) -> None:
    with pytest.raises(NeedsOperator, match="was not reset, or has run since"):
        plan_undo(t.plan, t.cluster, AGENT)
    order(t)
    looked = plan_undo(t.plan, t.cluster, AGENT)
    work(t)
    with pytest.raises(NeedsOperator, match="was not reset, or has run since"):
        plan_undo(t.plan, t.cluster, AGENT)
    before = state(t)
    with pytest.raises(NeedsOperator, match="has begun to run"):
        undo(t.plan, t.cluster, looked)
    assert state(t) == before


# ================================================================================================ to a point in history
def test_only_events_after_the_point_are_folded_and_rows_are_whole(t: TestDriver) -> None:
    t.start()
    whole = t.profile(ANN)
    t.stop()
    planned = plan_to(t, targets.by_duration("90m", t.now_ms))
    assert {to for tp, (_, to) in planned.moves.items() if tp.topic in (ORDERS, ASSIGNMENTS)} == {0}
    assert all(to for tp, (_, to) in planned.moves.items() if tp.topic == VISITS)
    assert f"`visits` will count from 2026-11-02T09:30:00Z on ({VISITS})" in planned.meaning
    assert "`spend` will be of all that is retained" in planned.meaning
    assert "not their own" in planned.notes[0]
    order(t, targets.by_duration("90m", t.now_ms))
    t.start()
    part = t.profile(ANN)
    assert (whole.visits, part.visits) == (16, 8)
    assert (part.orders, part.spend) == (whole.orders, whole.spend)
    t.verify("govern", AGENT)  # it knows where this life begins
    say(t, 300)
    assert t.profile(ANN).visits == 16
    t.verify("govern", AGENT)
    t.stop()
    order(t)
    t.start()
    assert t.profile(ANN).visits == 24
    t.verify("govern", AGENT)


@pytest.mark.parametrize(
    "target",
    [
        lambda t: targets.to_datetime("2026-11-02T09:30:00Z"),
        lambda t: targets.to_datetime("2026-11-02T09:30"),
        lambda t: targets.by_duration("PT1H30M", t.now_ms),
        lambda t: targets.to_offsets("FILE", json.dumps(_half(t))),
        lambda t: targets.to_offsets(
            "FILE", "\n".join(f'"{n.rpartition("/")[0]}",{n.rpartition("/")[2]},{offset}' for n, offset in _half(t).items())
        ),
    ],
    ids=["datetime", "without a zone", "duration", "JSON", "CSV"],
)  # fmt: skip
def test_the_same_point_however_it_is_said(t: TestDriver, target: Callable[[TestDriver], Target]) -> None:
    planned = plan_to(t, target(t))
    found = {tp: to for tp, (_, to) in planned.moves.items() if tp.topic == VISITS}
    assert {f"{tp.topic}/{tp.partition}": to for tp, to in found.items()} == _half(t)
    assert any("`visits` will count from 2026-11-02T" in line for line in planned.meaning)


def _half(t: TestDriver) -> dict[str, int]:
    """Where the second hour begins."""
    places = [TP(VISITS, p) for p in range(3)]
    return {
        f"{tp.topic}/{tp.partition}": n
        for tp, n in t.cluster.admin().offsets_for_time(places, NOW_MS + 1_800_000).items()
    }


def test_from_where_the_group_stands(t: TestDriver) -> None:
    t.cluster.admin().set_group_offsets(GROUP, {TP(VISITS, p): 0 for p in range(3)})
    planned = plan_to(t, targets.to_offsets("current", None))
    assert {to for tp, (_, to) in planned.moves.items() if tp.topic == VISITS} == {0}
    assert planned.meaning == (), "that is all of it"
    assert {to for tp, (_, to) in planned.moves.items() if tp.topic == ORDERS} == {0}


def test_offsets_of_what_is_read_whole_are_not_taken_and_that_is_said(t: TestDriver) -> None:
    said = {**_half(t), f"{ASSIGNMENTS}/0": 1}
    planned = plan_to(t, targets.to_offsets("FILE", json.dumps(said)))
    assert planned.moves[TP(ASSIGNMENTS, 0)][1] == 0
    assert f"{ASSIGNMENTS} is read whole, whatever offsets are said: it says how things are" in planned.notes


REFUSED: list[tuple[Callable[[TestDriver], Target], str]] = [
    (lambda t: targets.to_datetime("2026-11-03"), "2026-11-03 is in the future"),
    (lambda t: targets.to_offsets("F", f'{{"{VISITS}/9": 1}}'), f"does not read {VISITS}/9"),
    (lambda t: targets.to_offsets("F", '{"nothing/0": 1}'), "does not read nothing/0"),
    (lambda t: targets.to_offsets("F", f'{{"{VISITS}/1": 1}}'), "partitions 0, 2 are missing"),
    (lambda t: targets.to_offsets("F", json.dumps(_half(t) | {f"{VISITS}/1": 999})), "offset 999 is after the end"),
    (
        lambda t: targets.to_offsets("F", json.dumps(_half(t) | {f"{VISITS}/1": 0})),
        f"{VISITS}/1 begins at offset 3 and has data from 2026-11-02T09:00:00Z on: retention has cut",
    ),
    (lambda t: targets.to_datetime("2026-11-01"), "retention has cut what was before. For all that is there: --to-ear"),
]


@pytest.mark.parametrize(("target", "said"), REFUSED, ids=[said for _, said in REFUSED])
def test_a_point_that_is_not_there_is_refused_and_nothing_changes(
    t: TestDriver, target: Callable[[TestDriver], Target], said: str
) -> None:
    t.cluster.admin().delete_records({TP(VISITS, 1): 3})
    before = state(t)
    with pytest.raises(C360Error, match=said.replace("(", r"\(")):
        order(t, target(t))
    assert (state(t), journal(t)) == (before, None)


def test_from_when_data_is_complete_is_told(t: TestDriver) -> None:
    t.cluster.admin().delete_records({TP(VISITS, 1): 3})
    planned = plan_to(t)
    assert (planned.starts[TP(VISITS, 1)], planned.begins[TP(VISITS, 1)]) == (3, NOW_MS)
    assert (planned.starts[TP(VISITS, 0)], planned.begins[TP(VISITS, 0)]) == (0, NOW_MS)
    assert planned.notes == (
        f"{VISITS}: retention has cut its beginning; data is complete only from there (2026-11-02T09:00:00Z)",
    )
    assert f"`visits` will count from 2026-11-02T09:00:00Z on ({VISITS})" in planned.meaning


@pytest.mark.parametrize("text", ["", "7", "7y", "P", "PT", "-7d", "7.5d"])
def test_what_is_no_duration_is_said_so(text: str) -> None:
    with pytest.raises(UsageError, match="write it as 90m, 12h, 7d or P7DT12H"):
        targets.by_duration(text, 0)


@pytest.mark.parametrize("text", ['{"x": 1}', '{"x/0": "1"}', '{"x/y": 1}', "[]", "x,0", '{"x/0": 1', '{"x/0": true}'])
def test_what_is_no_list_of_offsets_is_said_so(text: str) -> None:
    with pytest.raises(UsageError, match="it is to hold"):
        targets.to_offsets("FILE", text)


@pytest.mark.parametrize("agent", ["govern", "identity@1"])
def test_who_cannot_begin_in_the_middle_says_why(t: TestDriver, agent: str) -> None:
    with pytest.raises(UsageError, match=r"cannot begin at a point.*Use --to-earliest"):
        plan_to(t, targets.to_datetime("2026-11-02"), agent)


# ======================================================================================================== who may, when
def test_another_target_is_refused_while_one_is_not_over(t: TestDriver) -> None:
    order(t)
    before = (state(t), journal(t))
    with pytest.raises(
        NeedsOperator, match=r"Finish that: c360 reset customer@1 --to-earliest --execute.*; or undo it"
    ):
        order(t, targets.by_duration("90m", t.now_ms))
    order(t)  # the same is fine
    assert (state(t), journal(t)) == before
    undo(t.plan, t.cluster, plan_undo(t.plan, t.cluster, AGENT))
    order(t, targets.to_offsets("FILE", json.dumps(_half(t))))
    order(t, targets.to_offsets("FILE", json.dumps(_half(t))))
    with pytest.raises(NeedsOperator, match="somewhere else"):
        order(t, targets.to_offsets("FILE", json.dumps(_half(t) | {f"{VISITS}/0": 0})))


def test_it_is_refused_while_its_workers_run_and_nothing_is_written(t: TestDriver) -> None:
    t.start()
    t.settle()
    before = raw(t, t.plan.control)
    with pytest.raises(NeedsOperator, match="customer@1 is running"):
        plan_to(t)
    t.stop()
    planned = plan_to(t)
    t.start()  # just then
    t.settle()
    with pytest.raises(NeedsOperator, match="stop its workers first"):
        order_reset(t.plan, t.cluster, planned)
    assert journal(t) is None
    assert len(raw(t, t.plan.control)[0]) == len(before[0]) + 2
    t.settle()
    t.verify("govern", AGENT)


def test_without_the_control_topic_it_says_so_and_changes_nothing(t: TestDriver) -> None:
    t.cluster.admin().delete([t.plan.control])
    before = state(t)
    for look in (plan_reset, plan_undo):
        with pytest.raises(NeedsOperator, match=r"there is no moves.control.*nothing was changed"):
            look(t.plan, t.cluster, AGENT)
    assert state(t) == before
    t.start()  # makes it
    t.settle()
    t.verify("govern", AGENT)


def test_when_the_journal_is_lost_a_worker_refuses_and_the_next_reset_is_whole(t: TestDriver) -> None:
    before = profiles(t.cluster)
    order(t)
    t.cluster.admin().delete([t.plan.control])
    t.start()
    with pytest.raises(
        NeedsOperator, match=r"The group stands at the start\. To fold again from the start: c360 reset"
    ):
        t.settle()
    t.stop()
    order(t)
    assert work(t) == before


def test_who_reads_what_govern_empties_waits_for_it(t: TestDriver) -> None:
    t.cluster.admin().delete_group(GROUP)
    for identity in t.plan.identities:
        t.cluster.admin().delete_group(t.plan.agent(identity.agent).group)
    faulty = FaultyCluster(t.cluster, lambda step: Crash() if step == "after delete_records" else None)
    assert "are emptied" in plan_to(t, agent="govern").lasting
    with pytest.raises(Crash):
        order(t, agent="govern", cluster=faulty)
    said = control.read(t.plan, t.cluster)
    with pytest.raises(NeedsOperator, match=r"govern is half reset \(resetting\), so customer@1 does not start"):
        begin_lives(t.plan, t.cluster, said, ["customer@1"])
    with pytest.raises(NeedsOperator, match="a reset of govern empties what it wrote, and cannot be undone"):
        plan_undo(t.plan, t.cluster, "govern")
    order(t, agent="govern")
    assert journal(t, "govern") is None
    order(t)  # of these nobody was left
    order(t, agent="identity@1")
    t.start()
    t.settle()
    t.verify("govern", AGENT)


def test_a_worker_begins_it_by_itself_and_runs() -> None:
    """The whole process, on threads, as it is in production."""
    t = made()
    before = profiles(t.cluster)
    order(t)
    worker = Worker(t.plan, t.cluster, MemoryStores(), "w", lambda: t.now_ms)
    assert run_until(worker, lambda: journal(t) is None and _caught_up(t)) is None
    assert profiles(t.cluster) == before


def run_until(worker: Worker, done: Callable[[], bool], timeout_s: float = 30.0) -> BaseException | None:
    failed: list[BaseException] = []

    def run() -> None:
        try:
            worker.run()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    waited = threading.Event()
    for _ in range(round(timeout_s / 0.05)):
        if failed or done():
            break
        waited.wait(0.05)
    worker.stop()
    thread.join()
    return failed[0] if failed else None


def _caught_up(t: TestDriver) -> bool:
    for entries in raw(t, LOG):
        last = [value for _, key, value in entries if key == POSITIONS]
        notes = decode_positions(last[-1] or b"").notes if last else {"catch_up": 1}
        if notes.keys() & {"catch_up", "sweep"}:
            return False
    return True


def test_with_new_logic_it_needs_no_word_more() -> None:
    """Logic that has changed under its version is refused; a reset folds all again by the new."""
    cluster, stores = MemoryCluster(), MemoryStores()
    cluster.admin().create([TopicSpec("orders", 2)])
    first, changed = shop(1), shop(1, cents=True)

    def worker(plan: Plan) -> Worker:
        return Worker(plan, cluster, stores, "w")

    producer = cluster.producer()
    producer.produce("orders", b"7", b'{"id": 1, "crm": "7", "amount": 5}')
    producer.flush()
    assert run_until(worker(first), lambda: bool(cluster.admin().group_offsets("shop.customer.v1"))) is None
    refused = run_until(worker(changed), lambda: False)
    assert isinstance(refused, NeedsOperator)
    assert "c360 reset customer@1 --to-earliest --execute" in str(refused)
    order_reset(changed, cluster, plan_reset(changed, cluster, AGENT))
    done = run_until(worker(changed), lambda: not control.read(changed, cluster).resets)
    assert done is None
    said = control.read(changed, cluster).logic(AGENT)
    assert said is not None
    assert tuple(said.lines) == changed.agent(AGENT).logic


def test_a_reset_of_govern_that_is_killed_at_any_step_is_finished_by_the_same_command() -> None:
    right: dict[str, object] = {}
    for plan in every_step(Crash):
        world = audited()
        right = right or world.latest("hello.person.v1")
        world.stop()
        world.cluster.admin().delete_group("hello.person.v1")
        with suppress(Crash):
            order(world, agent="govern", cluster=FaultyCluster(world.cluster, plan))
        world.cluster.producer("hello.govern.v1.reset")  # what its broker ends, 15 s later
        order(world, agent="govern")
        assert control.read(world.plan, world.cluster).resets == {}
        order(world, agent="person@1")
        world.start()
        world.verify()
        assert world.latest("hello.person.v1") == right


@pytest.mark.parametrize(
    ("act", "said"),
    [
        (lambda admin: admin.delete_group(GROUP), "have expired.*Nothing is lost.*c360 worker --adopt$"),
        (
            lambda admin: admin.set_group_offsets(GROUP, {TP(t, p): 0 for t in (VISITS, ORDERS) for p in range(3)}),
            "moved by another tool.*The group stands at the start.*--to-earliest --execute.*--adopt$",
        ),
        (
            lambda admin: admin.set_group_offsets(GROUP, {TP(VISITS, p): 1 for p in range(3)}),
            "moved by another tool.*c360 reset customer@1 --to-offsets current --execute.*--to-datetime.*--adopt$",
        ),
        (
            lambda admin: admin.delete([LOG]),
            "Its changelog does not say how far it was: it was deleted, or emptied. To fold again from the start",
        ),
    ],
    ids=["expired", "to the start", "into the middle", "changelog deleted"],
)
def test_what_happened_to_its_offsets_is_told_with_what_to_do(
    t: TestDriver, act: Callable[[Admin], None], said: str
) -> None:
    right = profiles(t.cluster)
    act(t.cluster.admin())
    t.start()
    with pytest.raises(NeedsOperator, match=said):
        t.settle()
    t.stop()
    order(t, targets.to_offsets("current", None) if "current" in said else EARLIEST)
    found = work(t)
    assert found == right or "current" in said


def test_a_version_that_is_not_built_or_no_more_is_not_reset() -> None:
    cluster, plan = MemoryCluster(), shop(2)
    topics.apply(plan, cluster.admin())
    control.write(
        plan, cluster, [(live_key("customer"), Live(1)), (version_key("customer@2"), VersionState("building"))]
    )
    with pytest.raises(NeedsOperator, match=r"not built yet\. Build it: c360 rebuild customer@2"):
        plan_reset(plan, cluster, "customer@2")
    control.write(plan, cluster, [(version_key("customer@2"), VersionState("retired"))])
    with pytest.raises(NeedsOperator, match="retired: there is nothing to reset"):
        plan_reset(plan, cluster, "customer@2")


def shopping() -> TestDriver:
    """Consent, erasure, identity, views and a sink: all kinds of agents there are, at rest and stopped."""
    t = TestDriver(example, now=NOW)
    for n in range(8):
        customer = {"id": str(n % 4), "name": f"n{n}", "email": f"m{n % 3}@mail.de", "city": "Ulm"}
        t.send("crm.public.customers", f'{{"id": "{n % 4}"}}', change("u", n + 1, customer, table="customers"))
        click = {"id": f"c{n}", "cookie": f"co{n % 3}", "customer": str(n % 4), "login": None, "category": "a/b"}
        t.send("web.clicks", None, click | {"ts": f"2026-11-02T08:00:{n:02}Z"})
        choice = {
            "customer": str(n % 4),
            "purpose": "marketing",
            "granted": n % 2 == 0,
            "at": f"2026-11-02T08:0{n}:00Z",
        }
        t.send("web.consent", None, choice)
    t.settle()
    t.stop()
    return t


KINDS = ["identity@1", "customer@1", "consent", "customer@1:marketing", "sink:newsletter"]


@pytest.mark.parametrize("agent", KINDS)
def test_every_kind_of_agent_is_undone_to_the_byte_and_begun_after_any_kill(agent: str) -> None:
    t = shopping()
    compacted = [
        topic.name
        for topic in t.plan.topics
        if topic.role in ("assignments", "projection", "consent", "view", "activation")
    ]
    right = {topic: latest(t, topic) for topic in t.plan.agent(agent).writes if topic in compacted}
    assert all(right.values()), "it has made something"
    before = state(t, agent)
    order(t, agent=agent)
    undo(t.plan, t.cluster, plan_undo(t.plan, t.cluster, agent))
    assert state(t, agent) == before
    for n in range(0, 60, 6):
        t = shopping()
        order(t, agent=agent)
        with suppress(Crash):
            begin_life(t.plan, FaultyCluster(t.cluster, At(n, Crash)), agent)
        t.cluster.producer(f"{t.plan.agent(agent).group}.reset")  # what its broker ends, 15 s later
        t.start()
        t.settle()
        assert journal(t, agent) is None
        t.verify()
        assert {topic: latest(t, topic) for topic in right} == right
        t.stop()


def latest(t: TestDriver, topic: str) -> dict[bytes | None, object]:
    """What a compacted topic says, without the numbers of assignments, which go on."""
    found: dict[bytes | None, object] = {}
    for key, value in t.read(topic):
        found[key] = value
        if value is not None and "assignments" in topic:
            said = json.loads(value)
            found[key] = {name: said[name] for name in ("profile", "identifiers", "deferred", "was")}
    return {key: said for key, said in found.items() if said is not None}


def test_a_version_that_is_being_reset_or_still_compares_its_profiles_is_not_promoted() -> None:
    cluster, plan = MemoryCluster(), shop(2)
    topics.apply(plan, cluster.admin())
    control.write(plan, cluster, [(live_key("customer"), Live(1)), (version_key("customer@2"), VersionState("ready"))])

    def promote() -> None:
        switch = versions.plan_promote(plan, control.read(plan, cluster), "customer@2")
        versions.check(plan, cluster, switch, versions.Waiting(0.0), erasing=False)

    order_reset(plan, cluster, plan_reset(plan, cluster, "customer@2"))
    with pytest.raises(NotYet, match="is being reset: its topic is of before"):
        promote()
    begin_life(plan, cluster, "customer@2")
    with pytest.raises(NotYet, match="has not compared all its profiles yet"):
        promote()
