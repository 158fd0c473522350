"""Who is forgotten while versions are declared that nobody runs: a driver whose agents run as was decided, as workers' do."""

from __future__ import annotations

from dataclasses import replace

import pytest

from c360.agents.control import Live, VersionState, live_key, version_key
from c360.assembly import Stepping
from c360.ops import control, topics
from c360.testing import TestDriver
from tests.governance.version_shop import versions


class Decided(TestDriver):
    """customer@1 is live, 2 and 3 are as they are said to be."""

    def start(self) -> None:
        if not hasattr(self, "processes"):
            topics.apply(self.plan, self.cluster.admin())
            control.write(self.plan, self.cluster, [(live_key("customer"), Live(1))])
        super().start()

    def _process(self) -> Stepping:
        made, said = super()._process(), control.read(self.plan, self.cluster)
        running = [loop for loop in made.loops if said.runs(self.plan, loop.agent.name)]
        for loop in made.loops:
            if loop not in running:
                loop.close()
        return replace(made, loops=running)

    def say(self, version: int, state: VersionState | None) -> None:
        control.write(self.plan, self.cluster, [(version_key(f"customer@{version}"), state)])
        self.stop()
        self.start()

    def retire(self, version: int) -> None:
        self.say(version, VersionState("retired"))
        (projection,) = (p for p in self.plan.projections if p.version == version)
        self.cluster.admin().delete(self.plan.topics_of(projection))


def click(driver: TestDriver, who: str) -> None:
    driver.send("clicks", who, {"id": f"click-{who}", "about": "shoes", "name": "Ada"})


def test_versions_that_were_never_built_or_are_retired_are_not_waited_for() -> None:
    with Decided(versions()) as driver:
        click(driver, "7")
        assert driver.erase("crm:7") is not None
        driver.say(2, VersionState("ready"))
        click(driver, "8")
        assert driver.erase("crm:8") is not None
        driver.retire(2)
        click(driver, "9")
        certificate = driver.erase("crm:9")
        assert certificate is not None
        assert {receipts.agent for receipts in certificate.agents if receipts.agent.startswith("customer")} == {
            "customer@1", "customer@1:marketing", "customer@1:service",
        }  # fmt: skip


@pytest.mark.parametrize("state", ["building", "retired"])
def test_a_version_that_holds_customers_is_waited_for_though_nobody_runs_it(state: str) -> None:
    """Stopped while it was built, or retired by a command that was killed before it had deleted anything."""
    with Decided(versions()) as driver:
        driver.say(2, VersionState("ready"))
        click(driver, "7")
        driver.settle()
        driver.say(2, VersionState(state))  # type: ignore[arg-type]
        assert driver.erase("crm:7") is None
