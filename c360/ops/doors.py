"""A door's decision on one profile, once, from outside of the workers: what the purpose may have of it, or why nothing."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import orjson

from c360.agents.fencing import Fence, shut_by, staters_of
from c360.agents.judging import NOT_LEAVING, Judge
from c360.clock import Clock
from c360.declare import ProjectionDeclaration
from c360.engine.global_table import GlobalTable
from c360.engine.transport import Cluster
from c360.errors import Shut, Stale, UsageError
from c360.governance.names import Names, Vault
from c360.ops.profiles import find_profile
from c360.plan import Plan
from c360.rights import Door
from c360.tables.store import MemoryStores

WAIT_S = 10.0  # for a young statement of each input


class Answer(NamedTuple):
    """The record of the view; or None, with a stable word for the reason and a sentence."""

    profile: dict[str, Any] | None
    reason: str
    why: str


def view_door(plan: Plan, projection: ProjectionDeclaration, purpose: str) -> Door:
    """The view of a projection for a purpose. Raises UsageError, naming those there are."""
    for door in plan.doors:
        if door.projection is projection and door.purpose.name == purpose and door.sink is None:
            return door
    known = ", ".join(projection.purposes) or "none; say purposes= on its @app.projection"
    raise UsageError(f"{projection.agent} has no view for {purpose!r}; it has {known}")


def ask_door(
    plan: Plan,
    cluster: Cluster,
    door: Door,
    identifier: str,
    *,
    names: Names,
    vault: Vault | None,
    clock: Clock,
    fence_max_age_ms: int,
    wait_s: float = WAIT_S,
    pause: Callable[[float], None] = time.sleep,
) -> Answer:
    """What the door would let out of the profile that has this identifier, now. It reads the topics once.

    Fails closed: without a young statement of each input within `wait_s` nothing is shown. Raises UsageError, NeedsOperator.
    """
    # 1 the profile; what is decided on is read after it
    found = find_profile(plan, cluster, door.projection, identifier, names)
    if found is None:
        return Answer(None, "no-profile", f"no profile has {identifier}")
    record, key = orjson.dumps(found), found["profile_id"].encode()
    topics = plan.governance
    governance = None
    if topics:
        governance = GlobalTable("governance", topics, cluster, MemoryStores(), clock)
    judge = Judge(plan, door, governance, vault)
    fence = None
    if governance is not None and staters_of(plan, door.purpose):
        fence = Fence(plan, door.purpose, governance, cluster.admin().topics, max_age_ms=fence_max_age_ms)
    # 2 the same as a door, until it may be said or time is up
    deadline = time.monotonic() + wait_s
    try:
        while True:
            try:
                moved = governance is not None and _turned(governance)
                answer = None if fence is None else fence.held(clock())
                if answer is None or answer.deliver:
                    judged = judge.judge({key: record}, door.projection.version, clock())[key]
                    answer = None if fence is None else fence.held(clock())
                    if answer is None or answer.deliver:
                        if judged.value is None:
                            return Answer(None, judged.reason, NOT_LEAVING[judged.reason])
                        return Answer(orjson.loads(judged.value), judged.reason, "")
                assert answer is not None
                raise shut_by(answer)
            except (Shut, Stale) as waiting:
                if time.monotonic() >= deadline and not moved:
                    return Answer(None, getattr(waiting, "reason", "copy"), str(waiting))
                pause(0.05)
    finally:
        if governance is not None:
            governance.close()


def _turned(table: GlobalTable) -> bool:
    """One round; whether it has read anything."""
    before = table.version
    table.turn()
    return table.version != before
