"""Moving between profiles: seeds agree with the oracle, every guard is needed, and it costs what PROJECTION.md says."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from functools import partial
from random import Random
from types import ModuleType
from typing import Any

import pytest

from c360.errors import NeedsOperator
from c360.profile import home
from c360.profile.parts import Assigned
from c360.profile.slots import Owner
from c360.profile.value import time_text
from tests.mutant import Mutant
from tests.profile import test_moving_stories, test_slots
from tests.profile.moving import PURPOSES, failure_of, history_of, oracle, simulate
from tests.profile.mutants import MUTANTS
from tests.profile.stage import Stage
from tests.profile.test_moving_stories import LAST, SUM
from tests.profile.test_reference import reference

__all__ = ["reference"]  # a fixture
SEEDS = 160
ENOUGH = 300  # seeds, to notice a mutant in


@pytest.mark.parametrize("first", range(0, SEEDS, 40))
def test_the_end_is_what_it_means(first: int) -> None:
    assert [f"seed {seed}\n{f}" for seed in range(first, first + 40) if (f := failure_of(seed))] == []


def test_seeds_are_about_moving() -> None:
    worlds = [simulate(seed) for seed in range(60)]
    sent = sum((world.parts_sent for world in worlds), Counter[str]())
    assert min(sent[message] for message in ("Put", "Add", "Drop", "Held")) >= 10
    assert sum(world.checks is not None for world in worlds) >= 5
    assert {len(world.tasks) for world in worlds} >= {1, 2, 6}


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.what)
def test_a_guard_taken_away_is_noticed(mutant: Mutant) -> None:
    with mutant.at_work():
        failure = next((f for seed in (mutant.seed, *range(ENOUGH)) if (f := failure_of(seed))), "")
    assert failure
    assert not re.search(r"^(Name|Type|Attribute|Syntax|Index)Error", failure, re.MULTILINE), "not the guard is missing"


def test_the_oracle_is_that_of_the_reference(reference: ModuleType) -> None:
    for seed in range(40):
        history = history_of(Random(seed))
        attributes = {
            rule.attribute.name: reference.Attribute(
                rule.attribute.kind,
                rule.inputs,
                rule.attribute.n,
                rule.attribute.limit,
                rule.attribute.within_days,
                rule.attribute.scale,
            )
            for rule in history.rules.rules
        }
        purposes = tuple(name for name in PURPOSES.values() if name is not None)
        plan = reference.Plan(attributes, frozenset({"rows"}), purposes, 1, history.rules.listed)
        records = [
            reference.Record(r.item.source, r.subject, r.sign, r.item.mask, r.item.at, r.item.fields, r.life)
            for r in history.records()
        ]
        assigned = [reference.Assigned(s, a.seq, a.profile, a.identifiers) for s, a in history.assigned().items()]
        erased = [reference.Erased(key, said.life) for key, said in history.topics["erased"]]
        theirs = reference.oracle(plan, records, assigned, erased, history.today()).values()
        ours = [record for (view, _), record in oracle(history).items() if view]
        assert sorted(map(normal, theirs)) == sorted(map(normal, ours))


def normal(record: bytes) -> str:
    """A record of ours or of the reference, as both can have it."""
    told: dict[str, Any] = json.loads(record)
    if isinstance(told["as_of"], int):
        told["as_of"] = time_text(told["as_of"])
    told.pop("projection", None)
    told.pop("version", None)
    return json.dumps(told, sort_keys=True)


TOLD = test_slots.test_what_cannot_follow_asks_for_a_reset_and_changes_nothing
PIECES = test_slots.test_a_slot_that_is_not_whole_takes_only_its_further_pieces
ANEW = test_slots.test_pieces_count_from_the_last_on_also_where_cells_are_made_anew
EARLY = test_moving_stories.test_assigned_before_its_first_record_it_is_never_seen_in_its_own_profile
TAKEN, TWICE = test_slots.OUT_OF_STEP["taken"], test_slots.OUT_OF_STEP["twice"]


@pytest.mark.parametrize(
    ("mutant", "story"),
    [
        (Mutant("a taken place", Owner, "put", 'raise out_of_step("a Put for', 'str("a Put for'), partial(TOLD, TAKEN)),
        (Mutant("any piece", Owner, "put", "and slot.revision == put.revision", ""), PIECES),
        (Mutant("a lost Add", Owner, "add", "or slot.revision + 1 != add.revision", ""), partial(TOLD, TWICE)),
        (Mutant("an Add between pieces", Owner, "add", "or slot.part", ""), PIECES),
        (Mutant("a Drop between pieces", Owner, "drop", "or slot.part", ""), PIECES),
        (Mutant("pieces count", Owner, "settle", "if not slot.part:", "if True:"), ANEW),
        (Mutant("seen where nothing lies", home, "place", "places.pop(subject, None)", "pass"), EARLY),
    ],
    ids=lambda x: x.what if isinstance(x, Mutant) else "",
)
def test_a_guard_that_seeds_do_not_need_has_its_story(mutant: Mutant, story: Callable[[], None]) -> None:
    story()
    with mutant.at_work(), pytest.raises((AssertionError, NeedsOperator, pytest.fail.Exception)):
        story()


# ------------------------------------------------------------------------------------------------------------- costs
def sent_by(stage: Stage) -> Counter[str]:
    """Messages in `parts` since the last time."""
    sent = stage.world.parts_sent.copy()
    stage.world.parts_sent.clear()
    return sent


@pytest.mark.parametrize("size", [10, 1000])
def test_messages_and_rows_do_not_grow_with_the_profile(size: int) -> None:
    stage = Stage([SUM, LAST], partitions=6)
    names = [f"crm:{i}" for i in range(1000, 1000 + size)]
    first = names[0]
    far = [name for name in names[1:] if stage.rules.partition(name) != stage.rules.partition(first)]
    assert 0.7 < len(far) / size < 0.95
    for name in names:
        stage.fold(name, n=1, t="x" * 50)
    assert sent_by(stage) == {}
    for name in names[1:]:
        stage.tell(name, Assigned(1, first))
    stage.rest()
    assert sent_by(stage) == {"Put": len(far), "Held": len(far)}  # joining: 2 per member on another partition
    assert stage.record(first)["subjects_total"] == size

    stage.fold(far[0], n=1)
    owner = stage.home(first)
    queue = stage.world.pairs[owner.partition][stage.rules.partition(far[0])]
    outcome = owner.step([queue.popleft()])
    written = owner.written()
    # the profile, the slot and, of a large one, the one cell that has changed: no list, no other member, no fragment of its own
    assert written == {b"o": 1, b"s": 1} | ({b"c": 1} if size > 100 else {})
    stage.world._commit(owner, outcome)
    assert sent_by(stage) == {"Add": 1}
    stage.fold(first, n=1)
    assert sent_by(stage) == {}  # the subject that names the profile is at home there

    stage.tell(far[0], Assigned(2, far[0]))
    stage.rest()
    assert sent_by(stage) == {"Drop": 1}
    assert stage.record(first)["subjects_total"] == size - 1


def test_moving_between_two_others_is_three_messages() -> None:
    stage = Stage([SUM])
    ann, a, b = stage.at(0), stage.at(1), stage.at(2)
    stage.fold(ann, n=1)
    stage.tell(ann, Assigned(1, a))
    stage.rest()
    assert sent_by(stage) == {"Put": 1, "Held": 1}
    stage.tell(ann, Assigned(2, b))
    stage.rest()
    assert sent_by(stage) == {"Put": 1, "Held": 1, "Drop": 1}


def test_on_one_partition_nothing_is_sent() -> None:
    stage = Stage([SUM], partitions=1)
    ann, bob = stage.at(0), stage.at(0, 1)
    stage.fold(ann, n=1)
    stage.fold(bob, n=10)
    stage.tell(ann, Assigned(1, bob))
    assert (stage.shows(bob, "sum"), stage.record(ann)) == ("11", None)
    stage.fold(ann, n=100)
    stage.tell(ann, Assigned(2, ann))
    stage.rest()
    assert (stage.shows(bob, "sum"), stage.shows(ann, "sum")) == ("10", "101")
    assert not stage.world.parts_sent
