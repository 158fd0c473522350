"""Whole apps under seeds: crashes, zombies, lost disks, failing calls; and in the end what the oracle says."""

from __future__ import annotations

import os
from collections import Counter
from functools import partial

import pytest

from c360 import App
from c360.agents.identity import IdentityTask
from c360.agents.links import LinkWriter
from c360.cli.common import load_app
from c360.engine.agent import Outbox
from c360.engine.state import TaskState
from c360.errors import C360Error
from c360.ops.simulate import run_seeds
from c360.profile import home as homes
from c360.tables.ids import IdTable
from c360.tables.table import Table
from c360.testing.simulate import simulate
from examples.shop.app import app as shop
from tests.clear_shop import app as clear_shop
from tests.testing.people import app as people

SEEDS = int(os.environ.get("C360_TEST_SEEDS", "1000"))  # 2,000 with those of test_moves, in parts by what they cost


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("app", "share"),
    [
        ("tests.testing.shop:app", 1),
        ("tests.testing.people:app", 2),
        ("examples.shop.app:app", 4),
        ("tests.sources.outside_shop:app", 10),
    ],
)
def test_no_seed_loses_or_doubles_anything(app: str, share: int) -> None:
    """`share`: one seed in so many."""
    result = run_seeds(partial(load_app, app), 0, SEEDS // share)
    assert result.failed == 0, result.first_failure
    assert result.seeds == SEEDS // share


def test_a_seed_is_one_run_and_many_seeds_meet_every_fault() -> None:
    runs = {seed: simulate(clear_shop, seed) for seed in (*range(120, 160), 348)}  # the last: the one in 200 with Fenced
    assert simulate(clear_shop, 130) == runs[130]
    assert simulate(shop, 700) == simulate(shop, 700)
    happened = Counter[str]()
    for run in runs.values():
        happened.update(run.happened)
        assert run.records > 20
    assert {"killed", "hung", "zombie", "disk lost", "Crash", "Fenced", "BrokerAway", "TransactionAborted",
            "TaskCorrupted", "OutcomeUnknown", "TaskMigrated"} <= happened.keys()  # fmt: skip


def fails(seeds: int = 40, app: App = shop) -> bool:
    for seed in range(seeds):
        try:
            simulate(app, seed)
        except (AssertionError, C360Error):
            return True
    return False


# Each of these is one line that somebody could forget.
def test_a_table_that_keeps_what_was_aborted_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Table, "rolled_back", lambda table: table.dirty.clear())
    assert fails()


def test_ids_that_are_remembered_after_an_abort_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(IdTable, "rolled_back", lambda table: None)
    assert fails()


def test_a_store_that_is_written_without_its_position_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    written = TaskState.written
    monkeypatch.setattr(
        TaskState, "written", lambda state, changes, positions, upto: written(state, changes[1:], positions, upto)
    )
    assert fails()


def test_links_that_are_taken_for_said_after_an_abort_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LinkWriter, "forget", lambda writer: None)
    assert fails()


def test_links_of_a_row_that_are_not_taken_back_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    row = LinkWriter.row
    monkeypatch.setattr(
        LinkWriter, "row", lambda writer, id, revision, was, *now: row(writer, id, revision, was[1:], *now)
    )
    assert fails(app=people)


def test_messages_of_nodes_that_a_commit_leaves_in_memory_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    settle = IdentityTask.settle

    def forgets(task: IdentityTask, out: Outbox) -> None:
        task.inbox.clear()
        settle(task, out)

    monkeypatch.setattr(IdentityTask, "settle", forgets)
    assert fails(app=people)


def test_a_place_that_is_not_left_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(homes, "hold", lambda home, held: None)
    assert fails(app=people)
