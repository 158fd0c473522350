"""Sinks through versions under faults: versions are promoted and rolled back while records, decisions and erasures come.

`python -m tests.governance.version_runs [--runs N] [--from SEED]`

As `door_runs`, of which the checkers are: at the start of each commit, whether what leaves might, and is another than what is
there. Besides: what leaves is of a version that has been live. Some workers are of an app that does not declare the third
version. In the end far sides hold what the live version says, and after another was promoted, what that says.
"""

from __future__ import annotations

import json
import random
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from c360 import App, Projection, Record, newest
from c360.agents.control import Live, live_key
from c360.agents.door import DoorTask, place
from c360.assembly import agents_of
from c360.engine.loop import Loop, LoopSettings
from c360.engine.transport import Cluster
from c360.errors import C360Error
from c360.governance.messages import Erase, encode_erase
from c360.governance.suppressed import Suppressed
from c360.ops import control
from c360.tables.store import Stores
from c360.testing.faults import Later
from c360.testing.simulation import Simulation
from tests.governance.door_runs import COOKIES, PROFILES, STEPS, DoorStage
from tests.seeds import run_seeds

VERSIONS = (1, 2, 3)


def app_of(declared: Sequence[int] = VERSIONS) -> App:
    """Two sinks, of one purpose that asks and of one that does not."""
    app = App("versions", partitions=2)

    @app.identifier("crm", priority=1)
    class CrmId(str): ...

    service, marketing = app.purpose("service", basis="contract"), app.purpose("marketing")

    @app.source("clicks", event_id="id", key=CrmId, purposes=[service, marketing])
    class Click(Record):
        id: str
        about: str

    @app.erasure("requests")
    class Forget(Record):
        id: CrmId

    profile: Any = None
    for version in declared:

        class Profile(Projection):
            about: str | None = newest(Click.about)

        app.projection("customer", version=version, purposes=[service, marketing])(Profile)
        profile = Profile

    def leaves(profile: Any) -> dict[str, Any]:
        return {"about": profile.about}

    app.sink("ads", projection=profile, purpose=marketing)(leaves)
    app.sink("bills", projection=profile, purpose=service)(leaves)
    return app


class VersionStage(DoorStage):
    """All versions are written all the time, each of its own profiles, as its rules may be others."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed, app_of())
        self.older = app_of((1, 2)).plan()
        self.of: dict[int, dict[str, dict[str, Any]]] = {version: {} for version in VERSIONS}
        self.topics = {p.version: self.plan.projected(p) for p in self.plan.projections}
        self.watches: list[control.Watch] = []
        self.lived: set[int] = set()
        self.live = 0
        self.may_live: Sequence[int] = self.dice.choice(((1, 2), VERSIONS))
        self.forgotten: set[str] = set()  # whoever is suppressed of these is erased as well
        self.made: list[Loop] = []
        self.go_live(1)

    # -------------------------------------------------------------------------------------------------------- a worker
    def loops(self, cluster: Cluster, stores: Stores, slot: str, settings: LoopSettings) -> Sequence[Loop]:
        watch = control.Watch(self.plan, self.cluster)
        watch.turn()
        self.watches.append(watch)
        plan = self.plan if self.last_app or self.dice.random() < 0.7 else self.older
        self.happened["older app"] += plan is self.older
        shared = replace(self.shared(), live=lambda name: watch.controls.live(plan, name))
        agents = agents_of(plan, cluster.admin(), [door.agent for door in self.doors], shared=shared)
        loops = [
            Loop(agent, cluster, stores, slot=slot, clock=self._clock, settings=settings, executor=Later())
            for agent in agents
        ]
        self.made += loops
        return loops

    last_app = False

    # ---------------------------------------------------------------------------------------------------- what happens
    def _one(self, dice: random.Random) -> None:
        match dice.randrange(14):
            case 0:
                self.go_live(dice.choice(self.may_live))
            case 1 | 2:
                for _ in range(3):
                    self._project(dice)
            case _:
                super()._one(dice)

    def go_live(self, version: int) -> None:
        if version == self.live:
            return
        self.happened["versions that went live"] += 1
        self.live = version
        self.lived.add(version)
        control.write(self.plan, self.cluster, [(live_key("customer"), Live(version))])

    def meanwhile(self) -> None:
        if not self.busy and self.dice.random() < 0.05:
            self.go_live(self.dice.choice(self.may_live))
            for watch in self.watches:
                watch.turn()
        super().meanwhile()

    def _follow(self, dice: random.Random) -> None:
        super()._follow(dice)
        for watch in self.watches:
            if dice.random() < 0.7:
                watch.turn()

    def _project(self, dice: random.Random) -> None:
        version, who = dice.choice(VERSIONS), f"crm:{dice.randrange(PROFILES)}"
        labels = sorted({who, *(f"cookie:{dice.randrange(COOKIES)}" for _ in range(dice.randrange(3)))})
        if dice.random() < 0.15 or any(self._is_forgotten(label) for label in labels):
            self._end(version, who)
            return
        # often the same as in another version
        number = dice.randrange(3)
        about = f"{' '.join(labels)} {number if dice.random() < 0.5 else f'{version}.{number}'}"
        record: dict[str, Any] = {
            "profile_id": who,
            "projection": "customer",
            "version": version,
            "purpose": None,
            "subjects": labels,
            "subjects_total": len(labels),
            "identifiers": labels,
            "attributes": {"about": about},
            "as_of": None,
        }
        if dice.random() < 0.1:
            record["views"] = {"marketing": None}
        self.of[version][who] = record
        self._write(self.topics[version], who, json.dumps(record).encode())

    def _end(self, version: int, who: str) -> None:
        if self.of[version].pop(who, None) is not None:
            self._write(self.topics[version], who, None)

    def _is_forgotten(self, label: str) -> bool:
        said = self.suppressed.get(label)
        return label in self.forgotten and said is not None and said.stands

    def has_suppressed(self, label: str, said: Suppressed) -> None:
        """Who is erased is taken out of all versions, and doors are told to forget; all of it in any order."""
        if label not in self.forgotten and (said.life != 1 or self.dice.random() < 0.4):
            return
        self.forgotten.add(label)
        if not said.stands:
            return
        self.happened["erasures"] += 1
        key, value = encode_erase(Erase("request", label, said.life))
        steps: list[Any] = [lambda: self._write(self.plan.erase, key.decode(), value)]
        for version, records in self.of.items():
            for who in [who for who, record in records.items() if label in record["identifiers"]]:
                steps.append(lambda version=version, who=who: self._end(version, who))
        self.dice.shuffle(steps)
        for step in steps:
            step()

    # ---------------------------------------------------------------------------------------------------- the checkers
    def delivered(self, said: Sequence[tuple[str, bytes | None, bytes | None]]) -> None:
        super().delivered(said)
        for topic, _, value in said:
            if topic in self.held and value is not None:
                version, _, number = json.loads(value)["about"].split()[-1].partition(".")
                assert not number or int(version) in self.lived, f"version {version} left, and was never live"

    def of_live(self) -> dict[str, dict[str, Any]]:
        return self.of[self.live]

    def idle(self) -> bool:
        for watch in self.watches:
            watch.turn()
        return super().idle()

    def _outputs(self) -> object:
        """Also what was read and not committed: with so many inputs, one record at a time takes long."""
        return super()._outputs(), sum(loop.metrics.records for loop in self.made)

    def clean(self, loops: Sequence[Loop]) -> None:
        """At rest: rows are of one reading, with no record of it beside, and nothing is kept of what is read no more."""
        for loop in loops:
            for task in loop.tasks.values():
                door = task.processor
                assert isinstance(door, DoorTask)
                rows, beside = dict(door.held.scan()), [key for key, _ in door.beside.scan()]
                assert door.sweep is None
                assert {row.reading for row in rows.values()} <= {door.readings.rows}
                assert {int.from_bytes(key[:4], "big") for key in beside} <= {*door.readings.of.values()}
                assert not [key for key in beside if key.startswith(place(door.readings.rows or 0))]


class Runs(Simulation):
    """A version that some workers do not know is read again from its start by those that do."""

    def _look(self, loop: Loop) -> None:
        reached = self.reached.get(loop.agent.group, {})
        self.reached[loop.agent.group] = {tp: n for tp, n in reached.items() if not tp.topic.endswith(".v3")}
        super()._look(loop)

    def end(self) -> None:
        """In the end all workers are of the newer app."""
        assert isinstance(self.stage, VersionStage)
        self.stage.last_app = self.calm = True
        for process in list(self.processes.values()):
            self._stop(process)
        super().end()


def run(seed: int, steps: int = STEPS) -> Counter[str]:
    """Raises AssertionError where something leaves that may not, or what is held in the end is wrong."""
    stage = VersionStage(seed)
    simulation = Runs(stage, seed)
    simulation.run(steps)
    for version in (stage.live % 3 + 1, stage.live):
        stage.may_live = (version,)
        stage.go_live(version)
        stage.rest = 0
        simulation.end()
        stage.check()
        stage.clean([loop for process in simulation.processes.values() for loop in process.loops])
    return stage.happened + simulation.happened


if __name__ == "__main__":
    sys.exit(
        run_seeds(
            run,
            None,
            program="tests.governance.version_runs",
            about=__doc__,
            runs=200,
            failures=(AssertionError, C360Error),  # type: ignore[arg-type]
        )
    )
