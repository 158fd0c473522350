"""Doors under faults, and their guards taken away one by one."""

from __future__ import annotations

import pytest

from c360.agents import door, judging
from tests.governance.door_runs import run
from tests.mutant import Mutant

MUTANTS = [
    Mutant("the gate does not ask the fence", door.DoorAgent, "gate", "answer = self.ask(now)", "answer = OPEN"),
    Mutant("a decision does not ask the fence", door.DoorAgent, "ask", "self.fence.held(now)", "OPEN"),
    Mutant(
        "nothing is asked again at the gate", door.DoorAgent, "gate", "if answer.deliver and made.delivered:", "if False:"
    ),
    Mutant("news since the decision are not looked at", door.DoorAgent, "_since", "news.update(", "set().update("),
    Mutant("what a suppression says is not looked at", judging.Judge, "_suppressed", "return {\n", "return set() and {\n"),
    Mutant("news are passed over", door.DoorTask, "_due_by_news", "due.setdefault(member, None)", "pass"),
    Mutant("what was seen is not kept", door.DoorTask, "resume", 'self.seen: dict[str, Any] | None = notes.get("seen")',
           "self.seen = self.door._noted(self.door._at[1]) if self.door._at and notes else None"),
    Mutant("nothing is planned for when a decision ends", door.DoorTask, "_schedule", "if at is not None:", "if False:"),
    Mutant("who is new in a profile is not found", door.DoorTask, "_index", "if label not in before:", "if False:"),
    Mutant("nothing is taken back while it is shut", door.DoorTask, "_take_back", "if not ruling.allowed:", "if False:"),
    Mutant("a copy that knows not what changed is trusted", door.DoorTask, "_learn", 'self.sweep = ""', "pass"),
    Mutant("not all labels are asked", judging.Judge, "rule", "label in some if", "label in sorted(some)[:1] if"),
]  # fmt: skip


@pytest.mark.parametrize("seed", range(40))
def test_nobody_is_delivered_who_said_no_in_any_schedule(seed: int) -> None:
    run(seed)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.what)
def test_a_guard_that_is_taken_away_is_missed(mutant: Mutant) -> None:
    with mutant.at_work(), pytest.raises(AssertionError):
        run(mutant.seed)
