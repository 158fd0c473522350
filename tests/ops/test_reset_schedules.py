"""Resets, undos, kills and traffic in any order: in the end all is as if nothing of it had been."""

from __future__ import annotations

import os
import random
from contextlib import suppress

import pytest

from c360.errors import NeedsOperator
from c360.ops import control
from c360.ops.beginning import begin_life
from c360.ops.reset import order_reset, plan_reset, plan_undo, undo
from c360.testing import TestDriver
from c360.testing.faults import At, Crash, FaultyCluster
from tests.ops.test_reset import AGENT, ANN, BOB, CID, say, state, time_out
from tests.testing.moves import PLAN, app, assign, profiles, undisturbed
from tests.testing.world import NOW

SEEDS = int(os.environ.get("C360_TEST_SCHEDULES", "15"))


class Schedule:
    """A driver, and what is known of it by who does all that."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.t = TestDriver(app, now=NOW)
        self.said = self.seq = 0
        self.before: tuple[object, ...] = ()  # the state when the reset that can be undone was asked for

    def faulty(self) -> FaultyCluster:
        return FaultyCluster(self.t.cluster, At(self.dice.randrange(60), Crash))

    def run(self) -> None:
        for _ in range(self.dice.randrange(4, 12)):
            self.dice.choice(
                [self.talk, self.talk, self.work, self.work, self.kill, self.reset, self.reset, self.back]
            )()
        self.settle()

    def talk(self) -> None:
        say(self.t, self.said, 6)
        self.said += 6
        self.seq += 1
        who = self.dice.choice((ANN, BOB, CID))
        assign(self.t.producer, who, self.seq, self.dice.choice((ANN, who)))

    def work(self) -> None:
        self.finish()
        if not self.t.processes:
            self.t.start()
        self.t.settle()

    def kill(self) -> None:
        """A worker, at any moment of its beginning, if there is one."""
        self.t.stop()
        journal = control.read(PLAN, self.t.cluster).reset(AGENT)
        if journal is not None and journal.step in ("reset", "beginning"):
            with suppress(Crash):
                begin_life(PLAN, self.faulty(), AGENT)
            time_out(self.t)

    def reset(self) -> None:
        self.t.stop()
        self.finish()
        if control.read(PLAN, self.t.cluster).reset(AGENT) is None:
            self.before = state(self.t)
        with suppress(Crash):
            faulty = self.faulty()
            order_reset(PLAN, faulty, plan_reset(PLAN, faulty, AGENT))
        time_out(self.t)

    def back(self) -> None:
        """Undo, killed at any moment."""
        self.t.stop()
        with suppress(Crash, NeedsOperator):
            faulty = self.faulty()
            undo(PLAN, faulty, plan_undo(PLAN, faulty, AGENT))
            assert state(self.t) == self.before
        time_out(self.t)

    def finish(self) -> None:
        """The same command again, if one was killed."""
        journal = control.read(PLAN, self.t.cluster).reset(AGENT)
        if journal is None or journal.step in ("reset", "beginning"):
            return
        if journal.step == "undoing":
            undo(PLAN, self.t.cluster, plan_undo(PLAN, self.t.cluster, AGENT))
            assert state(self.t) == self.before
        else:
            order_reset(PLAN, self.t.cluster, plan_reset(PLAN, self.t.cluster, AGENT))

    def settle(self) -> None:
        self.work()
        self.t.stop()
        self.t.start()
        self.t.settle()
        assert control.read(PLAN, self.t.cluster).resets == {}
        assert profiles(self.t.cluster) == undisturbed(self.t.cluster, self.t.now_ms)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_resets_and_undos_in_any_order_change_no_profile(seed: int) -> None:
    schedule = Schedule(seed)
    schedule.run()
    schedule.t.stop()
