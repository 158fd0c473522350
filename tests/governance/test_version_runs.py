"""Sinks through versions under faults; and the guards of it taken away one by one, of which a story or a run must tell."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from c360.agents import door, judging, readings
from c360.errors import NeedsOperator
from tests.governance import test_door_versions as stories
from tests.governance.version_runs import run
from tests.mutant import Mutant

Agent, Task, Readings, Judge = door.DoorAgent, door.DoorTask, readings.Readings, judging.Judge
swept = partial(stories.test_a_sweep_is_ended_by_who_comes_next_or_begun_anew_by_the_next_decision, "none")
record = stories.test_a_record_for_a_profile_that_has_not_gone_over_takes_it_over
MUTANTS: list[tuple[Mutant, Callable[..., object]]] = [
    (Mutant("a version is gone over to before it was read", Task, "_follow_live",
            "if any(positions[tp] < end for", "if any(False for"),
     stories.test_a_task_goes_over_when_it_has_read_the_version_as_far_as_it_went),
    (Mutant("nobody sweeps when another version is live", Task, "_follow_live", 'self.sweep = ""', "pass"),
     stories.test_another_version_that_is_live_delivers_net_changes_and_going_back_too),
    (Mutant("what others made of a version is not refused", Task, "_follow_live",
            "self.door.check(version, self.partition)", "pass"),
     stories.test_what_another_declaration_has_made_of_a_version_is_refused_when_it_is_to_leave),
    (Mutant("a version that is not live stops the door", Agent, "processor", "if version == live:", "if True:"),
     stories.test_what_another_declaration_has_made_of_a_version_is_refused_when_it_is_to_leave),
    (Mutant("profiles that only the other version has are not found", Task, "_finish", "beside=True", "beside=False"),
     stories.test_another_version_that_is_live_delivers_net_changes_and_going_back_too),
    (Mutant("what the version before says is not kept", Task, "_swap",
            "self.beside.put(place(row.reading, key), row.record)", "pass"),
     stories.test_another_version_that_is_live_delivers_net_changes_and_going_back_too),
    (Mutant("what was beside stays there", Task, "_swap", "self.beside.delete(place(reading, key))", "pass"),
     partial(swept, 2, "two")),
    (Mutant("a row is not said to be of its version", Task, "_swap", "record=record, reading=reading", "record=record"),
     partial(swept, 1, "one")),
    (Mutant("what is kept of a version that is gone comes back", Task, "_swap",
            "if row.record and row.reading in known:", "if row.record:"),
     stories.test_a_version_that_is_retired_before_all_have_gone_over),
    (Mutant("a record does not take its profile over", Task, "_take_in", "self._swap(noted, due)", "pass"),
     partial(record, 1)),
    (Mutant("who is due does not go over", Task, "_decide", "self._swap(list(due), due)", "pass"), partial(swept, 2, "two")),
    (Mutant("a version that is not live decides", Task, "_take_in", "if reading == self.readings.rows:", "if True:"),
     stories.test_a_version_that_is_being_built_delivers_nothing_also_when_it_is_built_again),
    (Mutant("in a catch-up rows are not of a version", Task, "mixed", "or bool(self.catch_up)", ""),
     partial(stories.test_a_reset_of_a_sink_reads_all_versions_again, 2, False)),
    (Mutant("what other versions list is not looked for any more", Task, "_index",
            "gone = [label for label in gone if label not in others]", "pass"),
     stories.test_whose_identifiers_the_records_of_all_versions_list_is_known_exactly),
    (Mutant("nobody looks at the row for it", Task, "_labels_but",
            "if row is not None and row.reading != reading:", "if False:"),
     stories.test_whose_identifiers_the_records_of_all_versions_list_is_known_exactly),
    (Mutant("who is listed by another version is not found", Task, "_take_beside",
            "self._index(key, before, after, reading)", "pass"),
     stories.test_whose_identifiers_the_records_of_all_versions_list_is_known_exactly),
    (Mutant("an erasure forgets the live version only", Task, "_forget_beside",
            "if record is not None and _is_of(record, key, label):", "if False:"),
     partial(stories.test_an_erasure_removes_what_lists_somebody_of_any_version_and_nothing_else, 1)),
    (Mutant("an erasure removes whom another version would not", Task, "_erase",
            "if row is not None and _is_of(row.record, key, erase.identifier):", "if row is not None:"),
     partial(stories.test_an_erasure_removes_what_lists_somebody_of_any_version_and_nothing_else, 1)),
    (Mutant("what is read no more is kept", Task, "_drop_gone", "self.beside.delete(row)", "pass"),
     stories.test_of_a_version_that_is_retired_nothing_is_kept),
    (Mutant("a version that is declared again goes on", Readings, "resume",
            "(reading for version, reading in before.items() if version not in versions)", "()"),
     stories.test_a_version_that_was_taken_out_and_is_declared_again_is_read_from_its_start),
    (Mutant("it is not read again", Agent, "rereads", "return tp.topic in self.topics.values()", "return False"),
     stories.test_a_version_that_was_taken_out_and_is_declared_again_is_read_from_its_start),
    (Mutant("topics of a version that was retired are read", Agent, "task", " if tp.topic not in retired", ""),
     stories.test_of_a_version_that_is_retired_nothing_is_kept),
    (Mutant("a worker that does not know the live version goes on", Agent, "ask",
            "if self.live() not in self.topics:", "if False:"),
     stories.test_a_worker_that_does_not_know_the_live_version_delivers_nothing_and_takes_back),
    (Mutant("one version's class is given the other's records", Judge, "judge", "self.shapes[version]", "self.shapes[1]"),
     stories.test_a_function_that_fails_on_a_version_takes_its_profiles_back_and_tells),
]  # fmt: skip


@pytest.mark.parametrize("seed", range(20))
def test_far_sides_hold_what_the_live_version_says_in_any_schedule(seed: int) -> None:
    run(seed)


@pytest.mark.parametrize(("mutant", "told"), MUTANTS, ids=[mutant.what for mutant, _ in MUTANTS])
def test_a_guard_of_versions_that_is_taken_away_is_missed(
    mutant: Mutant, told: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    of: Any = told.func if isinstance(told, partial) else told
    if any(mark.name == "usefixtures" for mark in getattr(of, "pytestmark", ())):
        monkeypatch.setattr(door, "PROFILES_PER_COMMIT", 2)
    with mutant.at_work(), pytest.raises((AssertionError, NeedsOperator, pytest.fail.Exception)):
        told()
