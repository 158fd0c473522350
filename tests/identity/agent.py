"""The identity agent in its engine: random facts and orders, crashes at any point, lost disks; then what the oracle says.

`python -m tests.identity.agent --runs 100000 --from 0` ends with `divergences 0`, or names the seeds that diverge.
"""

from __future__ import annotations

import logging
import random
import sys
from collections.abc import Mapping, Sequence

from c360.engine.loop import Loop, LoopSettings
from c360.errors import BrokerAway, OutcomeUnknown, TaskCorrupted, TransactionAborted
from c360.tables.store import MemoryStores
from c360.testing.faults import Crash, FaultyCluster, FaultyStores
from c360.testing.simulation import Simulation
from tests.identity.permutations import random_facts, random_rules
from tests.identity.stage import IdentityStage
from tests.seeds import run_seeds

FAULTS: Mapping[str, tuple[type[BaseException], ...]] = {
    "before begin": (BrokerAway,),
    "before produce": (TransactionAborted, BrokerAway),
    "after offsets": (TransactionAborted,),
    "before commit": (TransactionAborted, OutcomeUnknown),
    "after commit": (OutcomeUnknown,),
    "before get": (TaskCorrupted,),
    "before write": (TaskCorrupted,),
}
SIMULATED = 10  # every so manieth seed is one of many workers


def stage_of(dice: random.Random) -> IdentityStage:
    rules, facts = random_rules(dice), random_facts(dice)
    stage = IdentityStage(
        rules,
        partitions=dice.choice((1, 3, 12)),
        apart=dice.choice((0, 1, 3, 64)),
        piece_bytes=dice.choice((1, 120, 256 << 10)),
    )
    stage.coming = facts + [f for f in facts if dice.random() < 0.2]
    dice.shuffle(stage.coming)
    return stage


def run(seed: int) -> None:
    """One history. Raises AssertionError where it ends, or is on its way, other than it should."""
    dice = random.Random(seed)
    stage = stage_of(dice)
    if seed % SIMULATED == 0:
        simulation = Simulation(stage, seed)
        for _ in range(120):
            simulation.step()
        while stage.coming:
            stage.feed(dice)
        simulation.end()
    else:
        _alone(stage, dice)
    stage.check()
    stage.close()
    last = stage.loop(MemoryStores())  # all of it from the changelog, and what is known already is told again
    facts, before = stage.facts, list(stage.assignments())
    stage.say(dice.choices(facts, k=5))
    _settle(stage, last)
    assert list(stage.assignments()) == before
    stage.check_state([last])


def _alone(stage: IdentityStage, dice: random.Random) -> None:
    """One worker after the other: some meet errors, and end at any step."""
    stores = MemoryStores()
    settings = LoopSettings(
        batch_records=dice.choice((1, 5, 50)),
        commit_s=dice.choice((0.0, 3600.0)),
        commit_share=0.0,
        behind_s=0.0,
        commit_records=dice.choice((5, 100)),
        mail_records=dice.choice((0, 3, 1000, 1000)),
        away_s=0.0,
        abandoned_s=0.0,
        store_tries=1000,
    )
    haste = dice.choice((0.0, 0.3, 0.8))
    workers = dice.choice((0, 1, 1, 3))  # that end before their time
    while True:
        faults = Faults(dice, calm=not workers)
        workers -= 1
        try:
            loop = stage.loop(FaultyStores(stores, faults), cluster=FaultyCluster(stage.log, faults), settings=settings)
            while stage.coming:
                stage.feed(dice)
                while dice.random() > haste and loop.turn(0.0):
                    pass
            _settle(stage, loop)
        except Crash:
            for gone in stage.made:
                stage.cluster.expire(gone.consumer)
            stage.made.clear()
            stage.cluster.producer(f"{stage.plan.agents[0].group}.0")  # what it left open ends
            if dice.random() < 0.5:
                stores = MemoryStores()
            if dice.random() < 0.2:
                stage.cluster.compact(stage.changelogs()[0])
            continue
        faults.calm = True
        return


class Faults:
    """An error now and then, and in the end a crash; until it is calm."""

    def __init__(self, dice: random.Random, *, calm: bool) -> None:
        self.dice, self.calm = dice, calm
        self.left, self.rate = dice.choice((20, 200)), dice.choice((0.0, 0.02, 0.1))

    def __call__(self, step: str) -> BaseException | None:
        if self.calm:
            return None
        self.left -= 1
        if self.left < 0:
            return Crash()
        if step in FAULTS and self.dice.random() < self.rate:
            return self.dice.choice(FAULTS[step])("injected")
        return None


def _settle(stage: IdentityStage, loop: Loop) -> None:
    stage.settle(loop)
    loop.commit_or_abort()


def main(arguments: Sequence[str] | None = None) -> int:
    return run_seeds(run, arguments, program="tests.identity.agent", about=__doc__, runs=1_000, failures=Exception)


if __name__ == "__main__":
    logging.disable(logging.ERROR)  # faults are injected, and logged
    sys.exit(main())
