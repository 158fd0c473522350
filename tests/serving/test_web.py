"""What a worker's web says of its agents."""

from __future__ import annotations

import re

from c360.serving.web import why_not_ready
from tests.testing.shop import app, click
from tests.testing.world import World


def test_an_agent_is_ready_when_its_tasks_are_restored() -> None:
    world = World(app)
    world.send("web.clicks", "k", click("e", "0"))
    govern = world.loops[0]
    assert {why_not_ready(loop) for loop in world.loops} == {"starting"}
    govern.turn(0.0)
    assert re.fullmatch(r"restoring [1-9] tasks", why_not_ready(govern))
    world.settle()
    assert {why_not_ready(loop) for loop in world.loops} == {""}
