"""Doors under faults; and their guards taken away one by one, of which a story or a run must tell."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from c360.agents import door, fencing, judging
from tests.governance import test_door_versions as versions
from tests.governance import test_doors as stories
from tests.governance import test_doors_attacked as attacks
from tests.governance.door_runs import run
from tests.mutant import Mutant

Agent, Task, Judge, Fence = door.DoorAgent, door.DoorTask, judging.Judge, fencing.Fence
MUTANTS: list[tuple[Mutant, Callable[..., object]]] = [
    (Mutant("the gate does not ask the fence", Agent, "gate", "answer = self.ask(now)", "answer = OPEN"),
     stories.test_a_fence_that_falls_between_the_decision_and_the_commit_stops_the_delivery),
    (Mutant("the fence is always held", Agent, "ask", "self.fence.held(now)", "OPEN"), partial(run, 3)),
    (Mutant("nothing is asked again at the gate", Agent, "gate", "if answer.deliver and made.delivered:", "if False:"),
     stories.test_news_between_the_decision_and_the_commit_stops_the_delivery),
    (Mutant("ends are not asked again at the gate", Agent, "takes", "if changes_at is not None:", "if False:"),
     stories.test_a_decision_that_ends_between_the_decision_and_the_commit_stops_the_delivery),
    (Mutant("news since the decision are not looked at", Agent, "_since", "news.update(", "set().update("),
     stories.test_news_between_the_decision_and_the_commit_stops_the_delivery),
    (Mutant("the copy need not have come as far", Fence, "held",
            "ask(inputs, said, copied", "ask(inputs, said, dict.fromkeys(copied, 9**9)"),
     stories.test_a_door_that_has_not_read_as_far_as_the_agent_has_written_waits),
    (Mutant("only what somebody spoke of is an input", Fence, "held",
            "ask(inputs, said", "ask([p for p in inputs if said.get(p)], said"),
     stories.test_a_partition_that_was_added_to_an_input_shuts_the_door_until_somebody_speaks_for_it),
    (Mutant("what a suppression says is not looked at", Judge, "_suppressed", "return {\n", "return set() and {\n"),
     stories.test_a_suppressed_identifier_takes_its_profile_out_of_every_door_and_a_lift_brings_it_back),
    (Mutant("not all labels are asked", Judge, "rule", "label in some if", "label in sorted(some)[:1] if"), partial(run, 0)),
    (Mutant("news are passed over", Task, "_due_by_name", "due.setdefault(member, None)", "pass"),
     stories.test_a_withdrawal_by_any_identifier_empties_view_and_sink),
    (Mutant("seen moves on though nothing was done", Task, "_take_back",
            "keys, back.seen, anew =", "keys, self.seen, anew ="),
     stories.test_what_else_was_decided_while_shut_is_still_to_be_done),
    (Mutant("what was seen is not kept", Task, "resume",
            'notes.get("seen")', "self.door._noted(self.door._where()) if 'seen' in notes else None"),
     stories.test_a_withdrawal_learnt_of_right_before_a_crash_is_acted_on),
    (Mutant("nothing is planned for when a decision ends", Task, "_schedule", "if at is not None:", "if False:"),
     stories.test_the_truth_table_of_identifiers_decisions_merges_purposes_and_expiry),
    (Mutant("who is new in a profile is not found", Task, "_index", "if label not in before:", "if False:"),
     stories.test_a_withdrawal_by_any_identifier_empties_view_and_sink),
    (Mutant("who left a profile is still found there", Task, "_index", "if label not in after", "if False"),
     versions.test_whose_identifiers_the_records_of_all_versions_list_is_known_exactly),
    (Mutant("nothing is taken back while it is shut", Task, "_take_back", "if not ruling.allowed:", "if False:"),
     stories.test_a_stopped_agent_stops_delivery_and_what_ends_is_taken_back_all_the_same),
    (Mutant("of who shares an identifier the first are enough", Task, "_due_by_name",
            "if len(members) == room:", "if False:"),
     stories.test_those_who_share_an_identifier_are_taken_back_a_portion_at_a_time),
    (Mutant("while it is shut, the first of the news are enough", Task, "wants",
            "or self.door.has_news(back.seen)", ""),
     attacks.test_everybody_who_withdraws_while_a_door_is_shut_is_taken_back_in_portions),
    (Mutant("while it is shut, the first of an identifier are enough", Task, "wants", "or bool(back.rest)", ""),
     attacks.test_of_those_who_share_an_identifier_all_are_taken_back_in_portions_while_shut),
    (Mutant("while it is shut, nobody can tell and nobody looks", Task, "_take_back", '"" if anew else None', "None"),
     attacks.test_where_nobody_can_tell_who_was_decided_on_all_are_looked_at_also_while_shut),
    (Mutant("a receipt does not wait for the suppression", Agent, "knows", "if not self._has(erase):", "if False:"),
     stories.test_a_receipt_waits_until_the_copy_has_the_suppression),
]  # fmt: skip


@pytest.mark.parametrize("seed", range(20))
def test_nobody_is_delivered_who_said_no_in_any_schedule(seed: int) -> None:
    run(seed)


@pytest.mark.parametrize(("mutant", "told"), MUTANTS, ids=[mutant.what for mutant, _ in MUTANTS])
def test_a_guard_that_is_taken_away_is_missed(
    mutant: Mutant, told: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = {"monkeypatch": monkeypatch} if "portion" in getattr(told, "__name__", "") else {}
    with mutant.at_work(), pytest.raises(AssertionError):
        told(**arguments)
