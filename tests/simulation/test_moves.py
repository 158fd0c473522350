"""Assignments that come and go under seeds of crashes, zombies, lost disks and failing calls: profiles as undisturbed."""

from __future__ import annotations

import os
from collections import Counter
from random import Random

import pytest

from c360.agents.moves import Moves
from c360.errors import NeedsOperator
from c360.profile.parts import decode_part
from c360.testing.records import Maker
from c360.testing.simulate import STEPS, AppStage
from c360.testing.simulation import Simulation
from tests.testing.moves import PARTS, PLAN, assign, profiles, read, undisturbed

SUBJECTS = [f"crm:v{i}" for i in range(5)]  # whom made-up records are about
SEEDS = int(os.environ.get("C360_TEST_SEEDS", "1000")) // 4


class Moving(AppStage):
    """The app of `tests.testing.moves`; assignments are fed with the records."""

    def __init__(self, seed: int) -> None:
        dice = Random(f"records {seed}")
        super().__init__(PLAN, Maker(PLAN, dice).record, lambda: SUBJECTS[0])
        self.agents = [agent for agent in self.agents if not agent.name.startswith("identity")]
        self.seq = 0

    def feed(self, dice: Random) -> None:
        super().feed(dice)
        for _ in range(dice.randrange(3)):
            self.seq += 1
            subject, profile = dice.choice(SUBJECTS), dice.choice((*SUBJECTS[:2], "crm:nobody", None))
            ids = ("email:a@example.org", "email:b@example.org")[: dice.randrange(3)]
            assign(self.producer, subject, self.seq, profile, *ids)

    def check(self) -> None:
        assert profiles(self.cluster) == undisturbed(self.cluster, self.now_ms)


def simulate(seed: int) -> tuple[Counter[str], Counter[str]]:
    """Messages in `parts` by kind, and what happened. Raises AssertionError where profiles differ."""
    stage = Moving(seed)
    simulation = Simulation(stage, seed)
    simulation.run(STEPS)
    said = Counter(type(decode_part(value or b"")).__name__ for _, value in read(stage.cluster, PARTS))
    return said, simulation.happened


@pytest.mark.timeout(600)
def test_profiles_follow_assignments_whatever_happens() -> None:
    said, happened = Counter[str](), Counter[str]()
    for seed in range(SEEDS):
        try:
            one, other = simulate(seed)
        except Exception as error:
            raise AssertionError(f"seed {seed}") from error
        said += one
        happened += other
    assert min(said[kind] for kind in ("Put", "Add", "Drop", "Held")) > SEEDS / 10
    assert {"killed", "zombie", "disk lost", "TransactionAborted", "OutcomeUnknown", "TaskCorrupted"} <= happened.keys()


def test_messages_of_an_aborted_step_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def forgetful(self: Moves, held: int, today: int) -> None:
        self.held, self.today = held, today

    monkeypatch.setattr(Moves, "resume", forgetful)
    assert any(map(_fails, range(100)))


def _fails(seed: int) -> bool:
    try:
        simulate(seed)
    except (AssertionError, NeedsOperator):
        return True
    return False
