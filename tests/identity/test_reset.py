"""`c360 reset identity@1 --to-earliest`: the same answers under greater numbers; who is no more is taken back."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from c360.agents import identity as agent
from c360.agents.identity import LIFE
from c360.engine.loop import Loop, LoopSettings
from c360.engine.transport import TP
from c360.identity.facts import Claim, Fact, encode_fact, link
from c360.identity.rules import DEFAULTS, Rules
from c360.ops.reset import execute_reset, plan_reset
from c360.tables.store import MemoryStores
from c360.testing.oracle.identity import answer
from tests.identity.stage import LATE, IdentityStage

RULES = Rules("default", DEFAULTS)
LIFE_1 = 29_893_500  # minutes since 1970


def said(subject: str, identifier: str, version: int = 1, *, dead: bool = False) -> Fact:
    return link(subject, identifier, "web", Claim(version, dead, version))


FACTS = [
    fact
    for i in range(12)
    for fact in (said(f"cookie:aaaa{i:02d}", f"email:e{i // 3}"), said(f"customer:n{i // 3}", f"email:e{i // 3}"))
]


@pytest.fixture
def stage() -> IdentityStage:
    """Four people of four subjects each, settled."""
    stage = IdentityStage(RULES, partitions=3, apart=1)
    stage.say(FACTS)
    work(stage)
    stage.check()
    return stage


def work(stage: IdentityStage, *, watch: Callable[[Loop], None] = lambda loop: None, batch: int = 1000) -> None:
    """One worker without a disk, until everything has come to rest."""
    settings = LoopSettings(batch_records=batch, commit_s=0.0, commit_share=0.0, behind_s=0.0, away_s=0.0)
    loop = stage.loop(MemoryStores(), settings=settings if batch < 1000 else LATE)
    for _ in range(3):
        loop.turn(0.0)
        watch(loop)
    while loop.turn(0.0) or not stage.idle() or any(t.processor and t.processor.wants(0) for t in loop.tasks.values()):
        watch(loop)
    loop.commit_or_abort()
    loop.close()


def reset(stage: IdentityStage) -> None:
    name = stage.identity.agent
    execute_reset(stage.plan, stage.log, plan_reset(stage.plan, stage.log, name), life=LIFE_1)


def test_the_same_is_said_again_once_of_each_subject_with_greater_numbers(stage: IdentityStage) -> None:
    before, standings = list(stage.assignments()), stage.standings()
    changes = len(list(stage.changes()))
    reset(stage)
    work(stage)
    words = [word for word in stage.assignments() if word not in before]
    assert sorted(word.subject for word in words) == sorted(standings)
    assert all(word.assignment and word.assignment.seq >> LIFE == LIFE_1 for word in words)
    assert stage.standings() == standings
    last = {word.subject: word.assignment for word in before}
    for word in words:
        known = last[word.subject]
        assert known is not None
        assert word.assignment is not None
        assert (word.assignment.was, word.assignment.change) == (known.was, "detail"), "the alias is kept"
    assert len(list(stage.changes())) == changes, "nothing has become of anybody"


def test_nothing_is_said_before_a_task_has_caught_up(stage: IdentityStage) -> None:
    before = len(list(stage.assignments()))
    reset(stage)
    ends = stage.reader.ends([TP(stage.plan.links, p) for p in range(3)])
    seen: list[int] = []

    def watch(loop: Loop) -> None:
        behind = {
            tp.partition
            for task in loop.tasks.values()
            for tp, offset in task.next.items()
            if tp in ends and offset < ends[tp]
        }
        early = [word for word in list(stage.assignments()) if word.assignment and word.assignment.seq >> LIFE]
        assert not behind.intersection(word.partition for word in early)
        seen.append(len(behind))

    work(stage, watch=watch, batch=2)
    assert max(seen) == 3
    assert len(list(stage.assignments())) > before
    stage_subjects = {fact.subject for fact in stage.facts}
    assert stage.standings().keys() == stage_subjects


def test_who_has_no_facts_any_more_is_taken_back(stage: IdentityStage) -> None:
    gone = "cookie:aaaa00"
    key, _ = encode_fact(said(gone, "email:e0"))
    (partition,) = {word.partition for word in stage.assignments() if word.subject == gone}
    stage.producer.produce(stage.plan.links, key, None, partition)
    stage.producer.flush()
    stage.cluster.compact(stage.plan.links)
    assert gone in stage.standings()
    reset(stage)
    work(stage)
    assert gone not in stage.standings()
    assert stage.standings().keys() == {fact.subject for fact in stage.facts} - {gone}
    assert [word.assignment for word in stage.assignments() if word.subject == gone][-1] is None


def test_who_is_somebody_else_now_is_told_where_they_came_from(stage: IdentityStage) -> None:
    key, _ = encode_fact(said("cookie:aaaa00", "email:e0"))
    (partition,) = {word.partition for word in stage.assignments() if word.subject == "cookie:aaaa00"}
    other = encode_fact(said("cookie:aaaa00", "email:e1"))
    stage.producer.produce(stage.plan.links, key, None, partition)
    stage.producer.produce(stage.plan.links, *other, partition)
    stage.producer.flush()
    stage.cluster.compact(stage.plan.links)
    reset(stage)
    work(stage)
    [*_, last] = [word.assignment for word in stage.assignments() if word.subject == "cookie:aaaa00"]
    assert last is not None
    assert (last.profile, last.was, last.change) == ("customer:n1", "customer:n0", "moved")
    assert [(key, c.was) for key, c in stage.changes() if c.cause == "reset"] == [("customer:n1", "customer:n0")]


def test_what_nodes_said_before_is_never_read_again(stage: IdentityStage) -> None:
    planned = plan_reset(stage.plan, stage.log, stage.identity.agent)
    loops = [TP(stage.plan.loop(stage.identity), p) for p in range(3)]
    assert {tp: to for tp, (_, to) in planned.moves.items() if tp in loops} == stage.reader.ends(loops)
    links = [TP(stage.plan.links, p) for p in range(3)]
    assert {planned.moves[tp][1] for tp in links} == {0}
    assert planned.notes == ()


def test_life_rises_also_with_a_second_reset_in_the_same_minute(stage: IdentityStage) -> None:
    for expected in (LIFE_1, LIFE_1 + 1):
        reset(stage)
        work(stage)
        last = {word.subject: word.assignment for word in stage.assignments()}
        assert {said.seq >> LIFE for said in last.values() if said} == {expected}


def test_the_sweep_goes_in_slices_and_is_continued_by_the_next_worker(
    stage: IdentityStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent, "SWEPT_PER_COMMIT", 2)
    before = len(list(stage.assignments()))
    reset(stage)
    subjects = stage.standings().keys()
    for _ in range(200):  # each worker turns a few times and is gone
        loop = stage.loop(MemoryStores())
        for _ in range(5):
            loop.turn(0.0)
        loop.commit_or_abort()
        idle = stage.idle() and not any(t.processor and t.processor.wants(0) for t in loop.tasks.values())
        loop.close()
        if idle and len(list(stage.assignments())) == before + len(subjects):
            break
    words = [word.subject for word in stage.assignments() if word.assignment and word.assignment.seq >> LIFE]
    assert sorted(words) == sorted(subjects)


def test_a_subject_that_changes_during_the_sweep_is_said_as_it_is_now(
    stage: IdentityStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent, "SWEPT_PER_COMMIT", 1)
    reset(stage)
    told: list[Fact] = []

    def watch(loop: Loop) -> None:
        sweeping = any(getattr(t.processor, "sweep", None) for t in loop.tasks.values())
        if sweeping and len(told) < 6:
            told.append(said(f"cookie:aaaa{len(told):02d}", "email:e3", 2))
            stage.say(told[-1:])

    work(stage, watch=watch)
    assert len(told) == 6
    numbers: dict[str, int] = {}
    for word in stage.assignments():
        assert word.assignment is not None
        assert word.assignment.seq > numbers.get(word.subject, 0)
        numbers[word.subject] = word.assignment.seq
    right = answer(stage.facts, RULES).standings
    assert {s: (t.profile, t.identifiers, t.deferred) for s, t in stage.standings().items()} == right
