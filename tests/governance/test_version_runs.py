"""Sinks through versions under faults; and the guards of it taken away one by one, of which a story or a run must tell."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from c360.agents import door, readings
from tests.governance import test_door_versions as stories
from tests.governance.version_runs import run
from tests.mutant import Mutant

Agent, Task, Readings = door.DoorAgent, door.DoorTask, readings.Readings
whole = stories.test_a_sweep_is_ended_by_who_comes_next_or_begun_anew_by_the_next_decision
MUTANTS: list[tuple[Mutant, Callable[..., object]]] = [
]  # fmt: skip


@pytest.mark.parametrize("seed", range(20))
def test_far_sides_hold_what_the_live_version_says_in_any_schedule(seed: int) -> None:
    run(seed)
