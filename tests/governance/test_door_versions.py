"""Sinks through versions: what leaves when another version is live, and what does not."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from random import Random

import pytest

from c360.agents import door as doors
from c360.agents.control import ResetJournal, reset_key
from c360.agents.judging import labels_of
from c360.assembly import Stepping
from c360.engine.partition import partition_of
from c360.engine.state import POSITIONS, encode_positions
from c360.engine.transport import TP
from c360.errors import NeedsOperator, UsageError
from c360.ops import control, reset
from c360.ops.doctor import Check, examine
from c360.ops.doors import Preview
from c360.tables.shelf import owner_of
from c360.tables.store import MemoryStores
from tests.governance.door_shop import HOUR, NOW, SECOND
from tests.governance.version_shop import Versions, versions


def four_and_four(*, asks: bool = True) -> Versions:
    """0, 1, 2, 3 of the first version; 2, 3, 4, 5 of the second, of which 2 is the same."""
    t = Versions(versions(asks=asks))
    for n in range(4):
        t.put(1, f"crm:{n}", f"one {n}")
    for n in range(2, 6):
        t.put(2, f"crm:{n}", f"one {n}" if n == 2 else f"two {n}")
    return t


ONE = {f"crm:{n}": f"one {n}" for n in range(4)}
TWO = {"crm:2": "one 2", "crm:3": "two 3", "crm:4": "two 4", "crm:5": "two 5"}


def test_another_version_that_is_live_delivers_net_changes_and_going_back_too() -> None:
    with four_and_four() as t:
        assert t.bills() == ONE
        before = t.written()
        t.go_live(2, 1)
        assert t.bills() == TWO
        changes = {("crm:0", None), ("crm:1", None), ("crm:3", "two 3"), ("crm:4", "two 4"), ("crm:5", "two 5")}
        assert set(t.written()) - set(before) == changes
        assert len(t.written()) == 4 + 5
        t.go_live(1, 2)
        assert t.bills() == ONE
        assert len(t.written()) == 4 + 5 + 5
        assert sum(agent.counters.swapped for agent in [t.door()]) == 6 + 6


def test_a_version_that_is_being_built_delivers_nothing_also_when_it_is_built_again() -> None:
    with four_and_four() as t:
        before = t.written()
        for n in range(6):
            t.put(2, f"crm:{n}", f"anew {n}")
            t.put(3, f"crm:{n}", None if n == 3 else f"three {n}")
        t.put(2, "crm:4", None)
        assert t.written() == before
        assert t.door().counters.beside == 4 + 6 + 6
        t.go_live(2, 1)
        assert t.bills() == {f"crm:{n}": f"anew {n}" for n in (0, 1, 2, 3, 5)}
        t.go_live(3, 2)
        assert t.bills() == {f"crm:{n}": f"three {n}" for n in (0, 1, 2, 4, 5)}


def test_each_version_goes_on_whichever_is_live() -> None:
    with four_and_four() as t:
        t.go_live(2, 1)
        assert t.bills() == TWO
        t.put(1, "crm:0", "newer 0")
        t.put(1, "crm:1", None)
        t.put(2, "crm:4", "newer 4")
        assert t.bills() == TWO | {"crm:4": "newer 4"}
        t.go_live(1, 2)
        assert t.bills() == {"crm:0": "newer 0", "crm:2": "one 2", "crm:3": "one 3"}


# --------------------------------------------------------------------------------------------------- sweeps in portions
@pytest.fixture
def portions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two profiles a commit."""
    monkeypatch.setattr(doors, "PROFILES_PER_COMMIT", 2)


def many() -> Versions:
    t = Versions()
    for n in range(20):
        t.put(1, f"crm:{n}", f"one {n}")
        if n % 4:
            t.put(2, f"crm:{n}", f"two {n}")
        t.put(3, f"crm:{n + 5}", f"three {n + 5}")
    return t


def begin_to_sweep(t: Versions, version: int) -> None:
    """Some of the profiles have gone over, and not all."""
    assert t.bills()
    t.go_live(version)
    for process in t.processes:
        process.turn()
    sweeps = [task.sweep for task in t.tasks()]
    assert all(sweeps), "under way in each task"


def rows_are_clean(t: Versions) -> None:
    """All rows are of the live version, none of its records is beside, whose identifiers these are is known exactly; and what
    the far side holds is what it should."""
    for task in t.tasks():
        rows = dict(task.held.scan())
        beside = [key for key, _ in task.beside.scan()]
        assert {row.reading for row in rows.values()} <= {task.readings.rows}
        assert not [key for key in beside if key.startswith(doors.place(task.readings.rows or 0))]
    known_exactly(t)
    t.verify("sink:bills", "sink:mail")


def known_exactly(t: Versions) -> None:
    """Of each identifier, the profiles of which a record lists it."""
    for task in t.tasks():
        records = [(key, row.record) for key, row in task.held.scan()]
        records += [(row[len(doors.place(0)) :], record) for row, record in task.beside.scan()]
        named = {(task.judge.named(label).encode(), key) for key, record in records for label in labels_of(record)}
        assert {row for row, _ in task.holders.scan()} == {owner_of(name) + key for name, key in named}


@pytest.mark.parametrize("accident", ["none", "crash", "lose_disk", "rebalance"])
@pytest.mark.usefixtures("portions")
@pytest.mark.parametrize(("then", "expected"), [(1, "one"), (2, "two"), (3, "three")])
def test_a_sweep_is_ended_by_who_comes_next_or_begun_anew_by_the_next_decision(
    accident: str, then: int, expected: str
) -> None:
    with many() as t:
        begin_to_sweep(t, 2)
        if then != 2:
            t.go_live(then, 2)
        if accident != "none":
            getattr(t, accident)()
        found = t.bills()
        assert {said.split()[0] for said in found.values()} == {expected}
        assert len(found) == {1: 20, 2: 15, 3: 20}[then]
        rows_are_clean(t)
        net_only(t.written())


def net_only(written: list[tuple[str, str | None]]) -> None:
    held: dict[str, str | None] = {}
    for who, said in written:
        assert held.get(who) != said, f"{who} was told what is there already"
        held[who] = said


@pytest.mark.usefixtures("portions")
@pytest.mark.parametrize("version", [1, 2])
def test_a_record_for_a_profile_that_has_not_gone_over_takes_it_over(version: int) -> None:
    with many() as t:
        begin_to_sweep(t, 2)
        for n in range(20):
            t.put(version, f"crm:{n}", f"last {n}")
        assert t.bills() == {
            f"crm:{n}": f"last {n}" if version == 2 else f"two {n}" for n in range(20) if version == 2 or n % 4
        }
        rows_are_clean(t)
        t.go_live(1)
        other = {f"crm:{n}": f"one {n}" for n in range(20)}
        assert t.bills() == (other if version == 2 else {who: f"last {who[4:]}" for who in other})
        net_only(t.written())


@pytest.mark.usefixtures("portions")
def test_who_is_removed_of_a_version_in_the_middle_is_removed() -> None:
    with many() as t:
        begin_to_sweep(t, 2)
        for n in range(20):
            t.put(1, f"crm:{n}", None)
            if n != 7:
                t.put(2, f"crm:{n}", None)
        assert t.bills() == {"crm:7": "two 7"}
        t.go_live(1)
        assert t.bills() == {}
        rows_are_clean(t)


def test_a_task_goes_over_when_it_has_read_the_version_as_far_as_it_went() -> None:
    with Versions() as t:
        for n in range(8):
            t.put(1, f"crm:{n}", f"same {n}")
        assert len(t.bills()) == 8
        agent = t.door()
        for loop in t.loops:
            if loop.agent is agent:
                loop.settings = loop.given = agent.settings(loop.given)
        agent.most = 1  # a record a commit
        for loop in t.loops:
            loop._set_pace()
        for n in range(8):
            t.put(2, f"crm:{n}", f"same {n}")
        t.go_live(2, 1)
        assert len(t.bills()) == 8
        assert len(t.written()) == 8, "nobody vanishes and comes again"


# ------------------------------------------------------------------------------------------------ consent and erasure
def test_identifiers_of_the_live_version_are_asked() -> None:
    with Versions() as t:
        t.rights.decide("crm:1", "marketing", "granted")
        t.put(1, "crm:1", "one")
        t.put(2, "crm:1", "two", "crm:2")
        assert t.mails() == {"crm:1": "one"}
        t.rights.decide("crm:2", "marketing", "denied")
        assert t.mails() == {"crm:1": "one"}
        t.go_live(2, 1)
        assert t.mails() == {}
        t.rights.decide("crm:2", "marketing", "granted", at=t.now_ms + 1)
        assert t.mails() == {"crm:1": "two"}
        t.rights.decide("crm:2", "marketing", "withdrawn", at=t.now_ms + 2)
        assert t.mails() == {}
        t.go_live(1, 2)
        assert t.mails() == {"crm:1": "one"}


def test_a_grant_that_ends_while_another_version_is_live_has_ended_when_it_comes_back() -> None:
    with Versions() as t:
        t.rights.decide("crm:1", "marketing", "granted", expires=NOW + HOUR)
        t.put(1, "crm:1", "one")
        assert t.mails() == {"crm:1": "one"}
        t.go_live(2, 1)
        assert t.mails() == {}
        t.later(2 * HOUR)
        t.go_live(1, 2)
        assert t.mails() == {}


@pytest.mark.usefixtures("portions")
def test_who_withdraws_in_the_middle_is_taken_back_also_while_it_is_shut() -> None:
    with many() as t:
        for n in range(20):
            t.rights.append(f"crm:{n}", "marketing", "granted")
        t.rights.state()
        assert len(t.mails()) == 20
        t.go_live(2, 1)
        for process in t.processes:
            process.turn()
        t.rights.stopped = True
        t.settle()
        t.advance(2 * SECOND)
        for n in range(20):
            t.rights.append(f"crm:{n}", "marketing", "withdrawn", at=t.now_ms)
        assert t.mails() == {}
        t.rights.stopped = False
        t.rights.append("crm:3", "marketing", "granted", at=t.now_ms + 1)
        t.rights.state()
        assert t.mails() == {"crm:3": "two 3"}


def test_a_shut_door_goes_over_when_it_opens() -> None:
    with four_and_four() as t:
        assert t.bills() == ONE
        t.rights.stopped = True
        t.advance(2 * SECOND)
        t.go_live(2, 1)
        assert t.bills() == ONE
        t.rights.stopped = False
        t.rights.state()
        assert t.bills() == TWO


@pytest.mark.parametrize("live", [1, 2])
def test_an_erasure_removes_what_lists_somebody_of_any_version_and_nothing_else(live: int) -> None:
    here = partition_of(b"crm:9", 2)
    a, b, c = [who for n in range(10, 40) if partition_of((who := f"crm:{n}").encode(), 2) == here][:3]
    with Versions() as t:
        t.put(1, a, "one", "crm:9")
        t.put(2, a, "two")
        t.put(1, b, "one")
        t.put(2, b, "two", "crm:9")
        t.put(1, c, "one")
        t.put(3, "crm:9", "three")
        t.go_live(live)
        assert t.bills() == ({a: "one", b: "one", c: "one"} if live == 1 else {a: "two", b: "two"})
        t.rights.erase("crm:9", t.rights.suppress("crm:9"))
        assert t.bills() == ({b: "one", c: "one"} if live == 1 else {a: "two"})
        assert t.door().counters.receipts == 1
        (task,) = [task for task in t.tasks() if task.partition == here]
        left = [record for _, record in task.beside.scan()] + [row.record for _, row in task.held.scan()]
        assert len(left) == 3
        assert not [record for record in left if b"crm:9" in record]
        t.go_live(3 - live)
        assert t.bills() == ({b: "one", c: "one"} if live == 2 else {a: "two"})
        t.go_live(3)
        assert t.bills() == {}


def test_whose_identifiers_the_records_of_all_versions_list_is_known_exactly() -> None:
    with Versions() as t:
        said = [
            (1, "a", ("crm:2", "crm:3")), (2, "a", ("crm:3", "crm:4")), (1, "b", ("crm:4",)), (2, "b", ()),
            (2, None, ()), (1, "c", ()), (2, "d", ("crm:2",)), (1, None, ()), (2, None, ()),
        ]  # fmt: skip
        for version, about, labels in said:
            t.put(version, "crm:1", about, *labels)
            t.settle()
            known_exactly(t)
            t.go_live(2 if t.door().live() == 1 else 1)
            t.settle()
            known_exactly(t)


# -------------------------------------------------------------------------------------------- versions that come and go
def test_of_a_version_that_is_retired_nothing_is_kept() -> None:
    with four_and_four() as t:
        t.go_live(2, 1)
        assert t.bills() == TWO
        t.retire(1)
        for loop in t.loops:
            loop._look_again = 0.0
        t.settle()
        t.cluster.admin().delete(["versions.customer.v1"])
        t.put(2, "crm:0", "two 0")
        assert t.bills() == TWO | {"crm:0": "two 0"}
        assert not [row for task in t.tasks() for row in task.beside.scan()]
        t.another(versions(declared=(2, 3)))
        t.put(2, "crm:0", None)
        assert t.bills() == TWO
        t.lose_disk()
        assert t.bills() == TWO


def test_sinks_go_on_and_start_again_when_all_topics_of_a_retired_version_are_gone() -> None:
    with four_and_four() as t:
        t.go_live(2, 1)
        assert t.bills() == TWO
        t.retire(1)
        of_it = t.plan.topics_of(t.plan.versions_of("customer")[0])
        t.cluster.admin().delete(of_it)  # before any task has noticed that it is retired
        t.put(2, "crm:0", "two 0")
        for loop in t.loops:
            loop._look_again = 0.0
        assert t.bills() == TWO | {"crm:0": "two 0"}
        t.stop()
        t.start()
        t.cluster.admin().delete(of_it)  # the driver makes all that are declared
        t.put(2, "crm:0", None)
        assert t.bills() == TWO


def test_a_sink_that_was_being_restored_while_a_version_was_retired_comes_up() -> None:
    with four_and_four() as t:
        t.go_live(2, 1)
        assert t.bills() == TWO
        t.stop()
        t.start()
        t.cluster.admin().delete(t.plan.topics_of(t.plan.versions_of("customer")[0]))
        for _ in range(3):  # they have begun with what they knew, and find the topics gone
            for process in t.processes:
                process.turn()
        t.retire(1)
        for loop in t.loops:
            loop._look_again = 0.0
        t.put(2, "crm:0", "two 0")
        assert t.bills() == TWO | {"crm:0": "two 0"}


@pytest.mark.usefixtures("portions")
def test_a_version_that_is_retired_before_all_have_gone_over() -> None:
    with Versions() as t:
        for n in range(10, 60):
            if not 20 <= n < 40:  # those are looked at in the middle, when there is nothing else to be dropped
                t.put(1, f"crm:{n}", f"one {n}")
            t.put(2, f"crm:{n}", f"two {n}")
        begin_to_sweep(t, 2)
        t.retire(1)
        for loop in t.loops:
            loop._look_again = 0.0
        assert t.bills() == {f"crm:{n}": f"two {n}" for n in range(10, 60)}
        assert not [row for task in t.tasks() for row in task.beside.scan()]
        assert not [gone for task in t.tasks() for gone in task.readings.gone]
        known_exactly(t)


def test_a_version_that_was_taken_out_and_is_declared_again_is_read_from_its_start() -> None:
    with four_and_four() as t:
        assert t.bills() == ONE
        t.another(versions(declared=(1, 3)))
        t.put(1, "crm:0", "one 0 later")
        t.put(2, "crm:4", None)  # and its tombstone is compacted away before anybody reads it
        assert t.bills() == ONE | {"crm:0": "one 0 later"}
        assert not [row for task in t.tasks() for row in task.beside.scan()]
        t.cluster.compact("versions.customer.v2")
        t.another(versions())
        t.go_live(2, 1)
        assert t.bills() == {who: said for who, said in TWO.items() if who != "crm:4"}


def test_a_worker_that_does_not_know_the_live_version_delivers_nothing_and_takes_back() -> None:
    with four_and_four() as t:
        t.rights.decide("crm:1", "marketing", "granted")
        assert (t.bills(), t.mails()) == (ONE, {"crm:1": "one 1"})
        t.go_live(4, 1)
        t.put(1, "crm:1", "changed")
        assert t.bills() == ONE
        assert t.door().counters.shut["version"] > 0
        t.rights.decide("crm:1", "marketing", "withdrawn", at=t.now_ms + 1)
        assert t.mails() == {}
        t.go_live(1, 4)
        assert t.bills() == ONE | {"crm:1": "changed"}


# ------------------------------------------------------------------------------------- what may not go wrong unnoticed
def folded_by(t: Versions, version: int, fingerprint: str) -> None:
    for partition in range(2):
        t.producer.produce(
            f"versions.customer.v{version}.changelog",
            POSITIONS,
            encode_positions({TP("x", 0): 1}, fingerprint, {}),
            partition,
        )
    t.producer.flush()


def test_what_another_declaration_has_made_of_a_version_is_refused_when_it_is_to_leave() -> None:
    with four_and_four() as t:
        assert t.bills() == ONE
        folded_by(t, 2, "another")
        t.crash()
        assert t.bills() == ONE, "a version that is not live stops nobody"
        t.go_live(2, 1)
        with pytest.raises(NeedsOperator, match="c360 reset customer@2"):
            t.bills()
        t.processes = []


def test_what_another_declaration_has_made_is_waited_with_while_that_version_is_reset() -> None:
    """The sink's worker may be there before the one that begins the version anew; it ended, and asked for the reset again."""
    with four_and_four() as t:
        assert t.bills() == ONE
        folded_by(t, 2, "another")
        journal = ResetJournal("reset", "--to-earliest", 1, 1, {}, {}, {}, [])
        control.write(t.plan, t.cluster, [(reset_key("customer@2"), journal)])
        t.go_live(2, 1)
        assert t.bills() == ONE
        assert t.door().counters.shut["copy"] > 0
        folded_by(t, 2, t.plan.agent("customer@2").fingerprint)
        control.write(t.plan, t.cluster, [(reset_key("customer@2"), None)])
        assert t.bills() == TWO


def test_a_function_that_fails_on_a_version_takes_its_profiles_back_and_tells() -> None:
    with Versions(live=2) as t:
        t.put(2, "crm:1", "/more")
        t.put(1, "crm:1", "/more")
        assert t.bills() == {"crm:1": "more"}
        t.go_live(1, 2)
        assert t.bills() == {}
        assert t.door().counters.held_back["sink-failed"] == 1
        (letter,) = [said for said in t.topic("versions.dlq") if said["stage"] == "sink:bills"]
        assert (letter["reason"], letter["topic"]) == ("sink-failed", "versions.customer.v1")
        t.go_live(2, 1)
        assert t.bills() == {"crm:1": "more"}


@pytest.mark.parametrize("asks", [True, False])
@pytest.mark.parametrize("live", [1, 2])
def test_a_reset_of_a_sink_reads_all_versions_again(live: int, asks: bool) -> None:
    with four_and_four(asks=asks) as t:
        t.go_live(live)
        before = t.bills()
        count = len(t.written())
        t.put(live, "crm:2", None)
        t.reset("sink:bills")
        assert t.bills() == {who: said for who, said in before.items() if who != "crm:2"}
        assert len(t.written()) == count + 1
        rows_are_clean(t)
        t.go_live(3 - live)
        assert t.bills() == (TWO if live == 1 else ONE)
        net_only(t.written())


def test_a_live_version_that_changes_while_a_reset_catches_up() -> None:
    with four_and_four() as t:
        before = t.bills()
        assert before == ONE
        t.settle()
        t.stop()
        reset.execute_reset(t.plan, t.cluster, reset.plan_reset(t.plan, t.cluster, "sink:bills"))
        t.go_live(2, 1)
        t.start()
        assert t.bills() == TWO
        net_only(t.written())


# ----------------------------------------------------------------------------------------------------------- verification
def test_verification_goes_by_the_live_version() -> None:
    with four_and_four() as t:
        t.verify("sink:bills")
        t.go_live(2, 1)
        t.verify("sink:bills")
        t.producer.produce("versions.activation.bills", b"crm:0", b'{"about":"one 0"}', partition_of(b"crm:0", 2))
        t.producer.flush()
        with pytest.raises(AssertionError, match="unexpected"):
            t.verify("sink:bills")


def test_verification_cannot_tell_while_a_task_has_not_gone_over() -> None:
    with four_and_four() as t:
        assert t.bills() == ONE
        t.rights.stopped = True
        t.advance(2 * SECOND)
        t.go_live(2, 1)
        with pytest.raises(AssertionError, match="has not gone over to version 2 yet"):
            t.verify("sink:bills")
        t.go_live(9, 1)
        with pytest.raises(AssertionError, match="version 9 is live, which this app does not declare"):
            t.verify("sink:bills")


# --------------------------------------------------------------------------------------------------- before it is live
def test_what_would_be_sent_is_known_before_and_is_what_is_sent() -> None:
    with four_and_four() as t:
        t.put(2, "crm:6", "/more")
        t.rights.decide("crm:2", "marketing", "granted")
        before = len(t.written())
        expected = Preview(added=3, changed=1, removed=2, unchanged=1)
        assert t.preview("bills", 2) == expected
        assert t.preview("mail", 2).held_back == Counter(unknown=4)
        assert len(t.written()) == before
        t.go_live(2, 1)
        assert len(t.written()) == before + 3 + 1 + 2
        assert t.preview("bills", 2) == Preview(unchanged=5)
        assert t.preview("bills", 1).held_back == Counter()
        with pytest.raises(UsageError, match="customer@7 is not declared"):
            t.preview("bills", 7)
        with pytest.raises(UsageError, match="has no sink 'letters'; it has mail, bills"):
            t.preview("letters", 1)


def test_a_function_that_would_fail_on_a_version_is_known_before() -> None:
    with Versions(live=2) as t:
        t.put(2, "crm:1", "/more")
        t.put(1, "crm:1", "/more")
        t.put(1, "crm:2", "one")
        assert t.preview("bills", 1) == Preview(added=1, removed=1, held_back=Counter({"sink-failed": 1}))


def test_the_doctor_says_which_version_a_sink_delivers(tmp_path: Path) -> None:
    with four_and_four() as t:
        assert t.bills() == ONE

        def said() -> Check:
            return {check.name: check for check in examine(t.plan, t.cluster, tmp_path)}["sink:bills version"]

        assert (said().ok, said().message) == (True, "delivers customer@1")
        t.rights.stopped = True
        t.advance(2 * SECOND)
        t.go_live(2, 1)
        assert t.bills() == ONE
        assert not said().ok
        assert said().message == "2 of 2 tasks do not deliver customer@2 yet, which is live"
        t.rights.stopped = False
        t.rights.state()
        assert t.bills() == TWO
        assert said().message == "delivers customer@2"


@pytest.mark.parametrize("seed", range(6))
def test_workers_of_two_deployments_side_by_side_deliver_net_changes_only(seed: int) -> None:
    """One does not know the second version: while it is live, that one delivers nothing, and drops what it holds of it."""
    dice, truth, live = Random(seed), {1: dict[str, str](), 2: dict[str, str]()}, 1
    plans = {"before": versions(declared=(1,)).plan(), "after": versions(declared=(1, 2)).plan()}
    with Versions(versions(declared=(1, 2))) as t:

        def another(deployment: str) -> Stepping:
            t.plan, t.stores, t.slots = plans[deployment], MemoryStores(), t.slots + 1
            try:
                return t._process()
            finally:
                t.plan = plans["after"]

        for _ in range(40):
            what = dice.random()
            if what < 0.5:
                version, who = dice.choice((1, 2)), f"crm:{dice.randrange(8)}"
                about = None if dice.random() < 0.2 else f"of {dice.choice((version, 0))}, {dice.randrange(3)}"
                t.put(version, who, about)
                truth[version].pop(who, None)
                truth[version] |= {} if about is None else {who: about}
            elif what < 0.65:
                live = 3 - live
                t.go_live(live, 3 - live)
            elif what < 0.8 and len(t.processes) < 3:
                t.processes.append(another(dice.choice(("before", "after"))))
            elif what < 0.9 and len(t.processes) > 1:
                t.processes.pop(dice.randrange(len(t.processes))).leave()
            else:
                for process in t.processes * dice.randrange(4):
                    process.turn()
        t.processes.insert(0, another("after"))
        while len(t.processes) > 1:
            t.processes.pop().leave()
        assert t.bills() == truth[live]
        net_only(t.written())
