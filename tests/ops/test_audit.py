"""What commands write into the audit log: before they act, with what they write, and when they are refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest

from c360.engine.memory import MemoryCluster
from c360.engine.transport import TP, Batch, Cluster, TopicSpec
from c360.errors import (
    BrokerAway,
    C360Error,
    EngineFatal,
    NeedsOperator,
    OutcomeUnknown,
    TransactionAborted,
    UsageError,
)
from c360.governance.audit import Entry, Head, Record, decode_record
from c360.identity.facts import OPERATORS
from c360.ops import audit as auditing
from c360.ops import dlq, topics
from c360.ops.audit import Report, Run, Told, follow, read_heads, tail, verify, write_heads
from c360.ops.identity import say
from c360.ops.identity.graph import read_facts
from c360.ops.reset import reset_told
from c360.testing.faults import At, Crash, FaultyCluster
from examples.hello import app as hello
from tests.engine.test_crash import every_step
from tests.governance.test_rights import clinic
from tests.testing.people import app as people
from tests.testing.world import Edited, World

NAMES = count(1)


def made(app: object = hello) -> World:
    """A world at rest, with an audit log."""
    world = World(app)  # type: ignore[arg-type]
    if app is hello:
        for n in range(6):
            view = {"id": str(n), "user": f"u{n % 3}", "page": "/", "ts": f"2026-11-02T09:15:{n:02}Z"}
            world.send("page.views", view["user"], view)
    world.settle()
    return world


def run(world: World, cluster: Cluster | None = None, **more: str) -> Run:
    return Run(
        world.plan, cluster or world.cluster, who=more.get("who", "kim"), reason=more.get("reason", "ticket 7"),
        random=lambda size: next(NAMES).to_bytes(size, "big"), clock=lambda: world.now_ms,
    )  # fmt: skip


def time_out(world: World) -> None:
    """What a broker does with the transaction of a command that was killed, 15 s later."""
    name = (next(NAMES) - 1).to_bytes(8, "big").hex()
    world.cluster.producer(f"{world.plan.app}.audit.cli.{name}")


def log_of(world: World) -> list[Record]:
    return [decode_record(value or b"") for _, value in world.read(world.plan.audit)]


def entries(world: World) -> list[Entry]:
    return [record.entry for record in log_of(world)]


def stages(world: World) -> list[str]:
    return [entry.after["stage"] for entry in entries(world)]


def problems(report: Report) -> set[str]:
    return {finding.problem for finding, _ in report.findings}


# -------------------------------------------------------------------------------------------------------- before, after
def test_a_reset_is_told_before_and_after_in_one_chain() -> None:
    world = made()
    world.stop()
    with run(world) as running:
        planned = reset_told(world.plan, world.cluster, "person@1", running)
    intended, done = log_of(world)
    assert (intended.writer, intended.number, done.number, done.last) == (done.writer, 0, 1, intended.hash)
    entry = done.entry
    assert (entry.who, entry.what, entry.reason, entry.at) == ("kim", "reset", "ticket 7", world.now_ms)
    assert entry.after["agent"] == "person@1"
    assert entry.after["positions"].startswith("hello.governed.page.views.v1 0 0 0")
    assert any(said.isdecimal() and int(said) > 0 for said in entry.before["positions"].split())
    assert planned.clears[0] in entry.after["clears"]
    assert stages(world) == ["intended", "done"]
    world.start()
    world.settle()
    world.verify()
    assert verify(world.plan, world.cluster).findings == []


def test_a_refusal_is_told_with_why_and_nothing_is_done() -> None:
    world = made()
    before = world.cluster.admin().group_offsets(world.plan.agent("person@1").group)
    with run(world) as running, pytest.raises(NeedsOperator, match="is running"):
        reset_told(world.plan, world.cluster, "person@1", running)
    (entry,) = entries(world)
    assert (entry.after["stage"], entry.after["agent"]) == ("refused", "person@1")
    assert "person@1 is running" in entry.after["why"]
    assert world.cluster.admin().group_offsets(world.plan.agent("person@1").group) == before


def test_a_reset_that_is_killed_at_any_step_has_told_what_it_was_about_to_do_and_is_finished_by_the_next() -> None:
    seen = set()
    for plan in every_step(Crash):
        world = made()
        world.stop()
        profiles = world.latest("hello.person.v1")
        faulty = FaultyCluster(world.cluster, plan)
        try:
            with run(world, faulty) as running:
                reset_told(world.plan, faulty, "person@1", running)
        except Crash:
            time_out(world)
        killed = stages(world)
        seen.add(tuple(killed))
        if not killed:  # nothing was told, so nothing was done
            world.start()
            world.settle()
            world.stop()
        with run(world) as running:
            reset_told(world.plan, world.cluster, "person@1", running)
        world.start()
        world.settle()
        world.verify()
        assert world.latest("hello.person.v1") == profiles
        assert stages(world) == [*killed, "intended", "done"]
        assert verify(world.plan, world.cluster).findings == []
    assert seen >= {(), ("intended",), ("intended", "done")}


def test_a_failure_in_between_is_told_too() -> None:
    world = made()
    with run(world) as running, pytest.raises(RuntimeError), running.acting(Told("reset")):
        raise RuntimeError("ann@mail.org broke it")
    assert stages(world) == ["intended", "failed"]
    assert entries(world)[1].after["error"] == "RuntimeError"


def test_topics_are_told_when_some_were_made_and_their_log_is_made_first() -> None:
    world, cluster = made(), MemoryCluster()
    cluster.admin().create([TopicSpec("page.views", 2)])
    running: list[Run] = []

    def begin() -> Run:
        running.append(run(world, cluster))
        return running[0]

    created = topics.apply_told(world.plan, cluster.admin(), begin)
    assert {"hello.person.v1", "hello.audit"} <= {*created}
    lines, _ = tail(world.plan, cluster, 5)
    told = [line.record.entry for line in lines if line.record is not None]
    assert [entry.after["stage"] for entry in told] == ["intended", "done"]
    assert told[0].after["topics"].split(", ") == created
    assert topics.apply_told(world.plan, cluster.admin(), begin) == []
    assert len(running) == 1, "nothing was made, so nothing is told"


def test_a_replay_of_dead_letters_is_told_with_its_counts() -> None:
    world = made()
    world.send("page.views", "u1", b"not json")
    world.settle()
    with run(world, reason="") as running:
        result = dlq.replay_told(world.plan, world.cluster, running, topic=None, reason="not-json")
    assert result["replayed"] == 1
    done = entries(world)[-1]
    assert (done.after["replayed"], done.after["misfits"], done.after["topic"]) == ("1", "not-json", "all")


# --------------------------------------------------------------------------------------------------- one transaction
def separate(world: World, cluster: Cluster) -> None:
    with run(world, cluster) as running:
        facts = read_facts(world.plan, world.cluster)
        planned = say.plan_saying(
            world.plan, world.plan.identities[0], facts, "separate", ("crm:1", "crm:2"), undo=False, now_ms=world.now_ms
        )
        messages = say.messages(world.plan, planned.facts, reason="ticket 7", actor="kim")
        running.say("done", say.told(planned), messages)


def test_a_fact_and_its_entry_are_both_there_or_neither_whatever_step_kills_the_command() -> None:
    outcomes = set()
    for plan in every_step(Crash):
        world = made(people)
        try:
            separate(world, FaultyCluster(world.cluster, plan))
        except Crash:
            time_out(world)
        facts = read_facts(world.plan, world.cluster)
        told, written = len(log_of(world)), sum(fact.source == OPERATORS for fact in facts)
        assert (told, written) in {(0, 0), (1, 2)}  # a separation is said of both
        outcomes.add(told)
        if told:
            (entry,) = entries(world)
            assert (entry.what, entry.about, entry.after["stage"]) == ("separate", ("crm:1", "crm:2"), "done")
            assert entry.before == {"profiles": "crm:1, crm:2"}
    assert outcomes == {0, 1}


def test_what_is_not_written_is_tried_again_or_refused_and_no_transaction_stays_open() -> None:
    for error, attempts, raised in (
        (TransactionAborted, 1, None),
        (BrokerAway, 1, BrokerAway),
        (EngineFatal, 1, NeedsOperator),
        (OutcomeUnknown, 1, OutcomeUnknown),
        (KeyboardInterrupt, 1, KeyboardInterrupt),
    ):
        world = made(people)
        plan = At(0, error, frozenset({"before commit"}))
        if raised is None:
            separate(world, FaultyCluster(world.cluster, plan))
            assert len(entries(world)) == 1
            continue
        with pytest.raises(raised) as caught:
            separate(world, FaultyCluster(world.cluster, plan))
        if error is OutcomeUnknown:
            assert "c360 audit tail" in str(caught.value)
            continue  # it may have been committed: it is left to the broker
        assert entries(world) == [], error
        assert attempts
        if error is EngineFatal:
            assert "nothing was done: the audit log people.audit cannot be written" in str(caught.value)


# ------------------------------------------------------------------------------------------------------- fail closed
def test_without_its_log_nothing_is_done() -> None:
    world = made()
    world.cluster.admin().delete([world.plan.audit])
    with pytest.raises(NeedsOperator, match=r"there is no audit log hello\.audit: `c360 topics apply` makes it"):
        run(world)


def test_a_log_that_takes_nothing_stops_the_command_before_it_acts() -> None:
    world = made()
    world.stop()
    offsets = world.cluster.admin().group_offsets(world.plan.agent("person@1").group)
    plan = At(0, lambda: EngineFatal("topic authorization failed"), frozenset({"before produce"}))
    with (
        run(world, FaultyCluster(world.cluster, plan)) as running,
        pytest.raises(NeedsOperator, match="nothing was done"),
    ):
        reset_told(world.plan, world.cluster, "person@1", running)
    assert world.cluster.admin().group_offsets(world.plan.agent("person@1").group) == offsets
    assert entries(world) == []


def test_an_act_whose_end_cannot_be_told_says_so() -> None:
    world = made()
    plan = At(1, lambda: EngineFatal("no"), frozenset({"before produce"}))
    with (
        run(world, FaultyCluster(world.cluster, plan)) as running,
        pytest.raises(NeedsOperator, match="it was done, but that is not told"),
        running.acting(Told("reset")),
    ):
        pass
    assert stages(world) == ["intended"]


def test_a_reason_with_a_mail_address_is_refused_before_anything_is_read() -> None:
    world = made()
    world.cluster.admin().delete([world.plan.audit])
    with pytest.raises(UsageError, match="mail address"):
        run(world, reason="ann@mail.org asked for it")


def test_an_identifier_that_is_personal_is_told_as_its_token_or_not_at_all() -> None:
    plan, cluster = clinic().plan(), MemoryCluster()
    cluster.admin().create([TopicSpec(plan.audit, 1)])
    told = Told("separate", about=("patient:7", "email:ann@mail.org"))
    with Run(plan, cluster, who="kim", random=lambda size: bytes(size)) as running:
        with pytest.raises(UsageError, match="write its token"):
            running.say("done", told)
        running.say("done", replace(told, about=("patient:7", "email:~" + "a2" * 12)))
    lines, _ = tail(plan, cluster, 9)
    assert [line.record.entry.about for line in lines if line.record] == [("patient:7", "email:~" + "a2" * 12)]


def test_a_refusal_that_names_somebody_is_told_without_the_name() -> None:
    world = made()
    with run(world) as running, pytest.raises(NeedsOperator), running.refusing(Told("reset")):
        raise NeedsOperator("ann@mail.org has it open")
    assert entries(world)[0].after == {"stage": "refused", "why": "(left out: personal)"}


# -------------------------------------------------------------------------------------------------------- verifying
def test_two_commands_at_once_make_two_chains_and_the_next_names_both() -> None:
    world = made()
    with run(world) as one, run(world) as other:
        one.say("intended", Told("reset"))
        other.say("intended", Told("reset"))
        one.say("done", Told("reset"))
        other.say("done", Told("reset"))
    with run(world) as third:
        third.say("done", Told("reset"))
        assert log_of(world)[-1].seen.keys() == {one.writer, other.writer}
        third.say("done", Told("reset"))
    assert [len(record.seen) for record in log_of(world)] == [0, 0, 0, 0, 2, 0], "once is enough"

    report = verify(world.plan, world.cluster)
    assert (report.records, len(report.heads), report.findings, report.whole) == (6, 3, [], True)


def test_of_a_long_log_a_run_reads_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    world = made()
    with run(world) as one, run(world) as other:
        one.say("done", Told("reset"))
        other.say("done", Told("reset"))
    monkeypatch.setattr(auditing, "READ_BACK", 2)  # a record and the mark of its transaction
    with run(world) as third:
        third.say("done", Told("reset"))
    assert log_of(world)[-1].seen.keys() == {other.writer}


def three(world: World) -> None:
    for _ in range(3):
        with run(world) as running, running.acting(Told("reset")):
            pass


def altered(offset: int) -> Callable[[Batch], Batch]:
    """A letter of the reason of the record at an offset is another one."""

    def edit(batch: Batch) -> Batch:
        if batch.tp.topic == "hello.audit" and offset in batch.offsets:
            i = batch.offsets.index(offset)
            batch.values[i] = (batch.values[i] or b"").replace(b"ticket 7", b"ticket 8")
        return batch

    return edit


def test_a_letter_that_was_changed_is_found_with_its_offset() -> None:
    world = made()
    three(world)
    lines, _ = tail(world.plan, world.cluster, 99)
    for line in lines:
        report = verify(world.plan, Edited(world.cluster, altered(line.offset)))
        assert [(f.problem, offset) for f, offset in report.findings] == [("altered", line.offset)]


def test_a_log_that_was_made_anew_is_empty_and_whole_and_found_by_the_heads_that_were_kept(tmp_path: Path) -> None:
    world = made()
    three(world)
    kept = tmp_path / "heads.json"
    write_heads(kept, "hello", verify(world.plan, world.cluster).heads)
    heads = read_heads(kept, "hello")
    assert verify(world.plan, world.cluster, heads).findings == []
    admin = world.cluster.admin()
    admin.delete([world.plan.audit])
    admin.create([TopicSpec(world.plan.audit, 1)])
    empty = verify(world.plan, world.cluster)
    assert (empty.records, empty.whole, empty.findings) == (0, True, []), "by itself nothing shows it"
    three(world)
    for _ in range(2):
        again = verify(world.plan, world.cluster, heads)
        assert [f.problem for f, _ in again.findings] == ["cut"] * 3
        assert {f.writer for f, _ in again.findings} == heads.keys()


def test_the_log_of_another_app_is_found() -> None:
    world, other = made(), made(people)
    three(other)
    producer = world.cluster.producer()
    for _, value in other.read(other.plan.audit):
        producer.produce(world.plan.audit, b"cli", value, 0)
    producer.flush()
    assert problems(verify(world.plan, world.cluster)) == {"foreign"}
    with run(world) as running:  # and nobody goes on from there
        running.say("done", Told("reset"))
    assert log_of(world)[-1].seen == {}


def test_a_beginning_that_is_gone_is_noticed_and_by_heads_also_whose_chains_went() -> None:
    world = made()
    three(world)
    heads = verify(world.plan, world.cluster).heads
    lines, _ = tail(world.plan, world.cluster, 99)
    world.cluster.admin().delete_records({TP(world.plan.audit, 0): lines[2].offset})
    report = verify(world.plan, world.cluster)
    assert (report.whole, report.findings, report.records) == (False, [], 4)
    assert problems(verify(world.plan, world.cluster, heads)) == {"cut"}


def test_what_is_no_record_is_a_finding_and_does_not_stop_commands_or_readers() -> None:
    world = made()
    producer = world.cluster.producer()
    for value in (b"", None, b"[]", b"\xff", b'{"format":1}'):
        producer.produce(world.plan.audit, b"x", value, 0)
    producer.flush()
    three(world)
    report = verify(world.plan, world.cluster)
    assert [(f.problem, offset) for f, offset in report.findings] == [("unreadable", n) for n in range(5)]
    lines, _ = tail(world.plan, world.cluster, 99)
    assert [line.record is None for line in lines] == [True] * 5 + [False] * 6


# ---------------------------------------------------------------------------------------------------------- reading
def test_the_tail_is_the_last_records_whatever_lies_between_them() -> None:
    world = made()
    for _ in range(40):
        three(world)
    every, end = tail(world.plan, world.cluster, 1_000)
    assert len(every) == 240
    for n in (0, 1, 7, 239, 240):
        lines, again = tail(world.plan, world.cluster, n)
        assert (lines, again) == (every[240 - n :], end)


def test_the_tail_is_found_behind_many_transactions_that_were_aborted() -> None:
    world = made()
    three(world)
    producer = world.cluster.producer("clumsy")
    for _ in range(300):
        producer.begin()
        producer.produce(world.plan.audit, b"x", b"x", 0)
        producer.abort()
    assert len(tail(world.plan, world.cluster, 5)[0]) == 5


def test_what_comes_is_followed_without_a_gap() -> None:
    world = made()
    three(world)
    lines, end = tail(world.plan, world.cluster, 2)
    following = follow(world.plan, world.cluster, end)
    three(world)
    more = [next(following) for _ in range(6)]
    assert [line.record.number for line in [*lines, *more] if line.record] == [0, 1] * 4


# ------------------------------------------------------------------------------------------------------------ heads
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read"),
        (b"{}", "is no file of heads"),
        (b'{"format": "c360 audit heads 1", "app": "hello", "heads": {"a": [0]}}', "is no file of heads"),
        (b'{"format": "c360 audit heads 9", "app": "hello", "heads": {}}', "does not read"),
        (b'{"format": "c360 audit heads 1", "app": "bank", "heads": {}}', "has the heads of 'bank'; this is 'hello'"),
    ],
)
def test_a_file_that_is_not_ours_is_refused(content: bytes | None, said: str, tmp_path: Path) -> None:
    file = tmp_path / "heads.json"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UsageError, match=said):
        read_heads(file, "hello")


def test_the_file_of_heads_has_these_bytes_and_takes_the_place_of_the_one_before(tmp_path: Path) -> None:
    file = tmp_path / "heads.json"
    for number in (1, 2):
        write_heads(file, "hello", {"cli/b": Head(number, "ff"), "cli/a": Head(0, "ee")})
    assert json.loads(file.read_bytes()) == {
        "format": "c360 audit heads 1", "app": "hello", "heads": {"cli/a": [0, "ee"], "cli/b": [2, "ff"]},
    }  # fmt: skip
    assert list(tmp_path.iterdir()) == [file]
    with pytest.raises(UsageError, match="cannot be kept"):
        write_heads(tmp_path / "none" / "heads.json", "hello", {})


def test_errors_of_the_log_are_ours() -> None:
    world = made()
    world.cluster.admin().delete([world.plan.audit])
    for ask in (lambda: tail(world.plan, world.cluster, 1), lambda: verify(world.plan, world.cluster)):
        with pytest.raises(C360Error, match="there is no audit log"):
            ask()
