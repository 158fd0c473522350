"""Forgetting under accidents, and its guards taken away one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import pytest

from c360.agents import govern, identity, projection, suppression
from c360.identity import node
from tests.governance import overlap_runs
from tests.governance import test_forget as stories
from tests.governance.forget_runs import run
from tests.mutant import Mutant

MUTANTS = [
    Mutant("an old copy is as good", suppression.Watch, "begin", "self.suppression.ready(self.until)", "pass"),
    Mutant("govern keeps keys of who is suppressed", govern.GovernTask, "_lives", "del subjects[subject]", "pass"),
    Mutant("govern keeps rows", govern.GovernTask, "_remove_rows", "self.rows.delete(row_id)", "pass"),
    Mutant("what was heard of a life before is no news", govern.GovernTask, "_find_doomed", "if said:", "if False:"),
    Mutant("a row that is dropped is unlinked", govern.GovernTask, "_drop", "held.governed is None or held.subject == subject",
           "held.governed is None"),
    Mutant("links of a new life are no news", govern.GovernTask, "_life", "0 if said is None else said.life", "0"),
    Mutant("a projection folds what is void", projection.ProjectionTask, "_lives", "return {subject.encode(): life for",
           "return {} and {subject.encode(): life for"),
    Mutant("a row says that somebody was erased", projection.ProjectionTask, "_outlived",
           "said is not None and said.life >= home.life", "False"),
    Mutant("what a row left out makes a dead letter of it", govern.GovernTask, "_row",
           "self._drop_misfit(sent, arrivals.batch.keys[i], self.judge)", "pass"),
    Mutant("what an enrichment refuses is a dead letter", govern.RecordReader, "govern",
           "judge(subject, record, NOTHING)", "pass"),
    Mutant("a key is made for what is dropped", govern.GovernTask, "_keys_for", "self.judge(subject, record, NOTHING)", "pass"),
    Mutant("an erasure of before is done again", suppression.Suppression, "due", "not (hold.lifted or hold.proven)", "True"),
    Mutant("facts about the forgotten count in a rebuild", identity.IdentityTask, "_is_void", "said.over for", "False for"),
    Mutant("nobody vanishes", node._Turn, "settle", "if self.vanish(lead):", "if False:"),
    Mutant("assignments stay", identity.IdentityTask, "_take_back", "if before.standing is not None:", "if False:"),
]  # fmt: skip


@pytest.mark.parametrize("seed", range(40))
def test_exactly_those_are_forgotten_who_had_to_be(seed: int) -> None:
    run(seed)


@pytest.mark.parametrize("seed", range(15))
def test_requests_that_overlap_forget_those_they_ask_for_and_nobody_of_the_household(seed: int) -> None:
    overlap_runs.run(seed)


def checks() -> Iterator[Callable[[], None]]:
    """Stories first, as they are sure to be about it."""
    yield stories.test_a_profile_of_three_subjects_and_nobody_else
    yield stories.test_after_a_lift_a_new_life_begins
    yield stories.test_an_old_state_directory_brings_nothing_back
    yield stories.test_a_row_that_names_the_erased_does_not_hide_whose_it_is
    yield stories.test_a_shared_mailbox_is_named_and_not_touched
    yield stories.test_a_row_of_the_forgotten_of_which_a_column_was_not_sent_is_no_dead_letter
    yield stories.test_what_an_enrichment_refuses_of_the_forgotten_is_no_dead_letter
    yield stories.test_a_device_that_nobody_knew_is_not_remembered_for_naming_the_forgotten
    yield stories.test_twice_and_for_nobody
    for agent in ("identity@1", "customer@1"):
        yield partial(stories.test_a_rebuild_brings_nothing_back, agent)
    for seed in range(60):
        yield partial(run, seed)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.what)
def test_a_guard_that_is_taken_away_is_missed(mutant: Mutant) -> None:
    with mutant.at_work():
        for check in checks():
            try:
                check()
            except Exception:
                return
    pytest.fail("nothing notices")
