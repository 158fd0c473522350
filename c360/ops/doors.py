"""A door's decisions from outside of the workers: on one profile, once; and on all of a version that is to be live."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson

from c360.agents.contracts import Contract, Wire, reading
from c360.agents.fencing import Fence, shut_by, staters_of
from c360.agents.judging import NOT_LEAVING, Judge, Judged
from c360.clock import Clock
from c360.declare import ProjectionDeclaration
from c360.engine.global_table import GlobalTable
from c360.engine.transport import TP, Cluster, Reader
from c360.errors import Shut, Stale, UsageError
from c360.governance.names import Names, Vault
from c360.ops.profiles import find_profile
from c360.ops.records import follow
from c360.plan import Plan
from c360.rights import Door
from c360.tables.store import MemoryStores

WAIT_S = 10.0  # for a young statement of each input


PORTION = 5_000  # profiles judged at a time


@dataclass
class Preview:
    """What a sink would send if a version were live now, in profiles; nothing is sent, and nobody is named.

    `added`: that the far side does not hold; `removed`: that it would hold no more; `held_back`: of which nothing would leave,
    by reason, whether the far side holds them or not. `sink-failed` among these: the sink's function fails on this version.
    """

    added: int = 0
    changed: int = 0
    removed: int = 0
    unchanged: int = 0
    held_back: Counter[str] = field(default_factory=Counter)


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
    contract: Contract | None = None,
    wait_s: float = WAIT_S,
    pause: Callable[[float], None] = time.sleep,
) -> Answer:
    """What the door would let out of the profile that has this identifier, now. It reads the topics once.

    `contract`: of a door that writes Avro; what comes is what is read of that.

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
    wire = None if contract is None else Wire(contract, 0)  # nobody sees the number
    read = orjson.loads if contract is None else reading(contract)
    judge = Judge(plan, door, governance, vault, wire)
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
                        return Answer(read(judged.value), judged.reason, "")
                assert answer is not None
                raise shut_by(answer)
            except (Shut, Stale) as waiting:
                if time.monotonic() >= deadline and not moved:
                    return Answer(None, getattr(waiting, "reason", "copy"), str(waiting))
                pause(0.05)
    finally:
        if governance is not None:
            governance.close()


def sink_door(plan: Plan, name: str) -> Door:
    """The sink of this name. Raises UsageError, naming those there are."""
    for door in plan.doors:
        if door.sink is not None and door.sink.name == name:
            return door
    known = ", ".join(door.sink.name for door in plan.doors if door.sink is not None) or "none"
    raise UsageError(f"{plan.app!r} has no sink {name!r}; it has {known}")


def preview(
    plan: Plan,
    cluster: Cluster,
    door: Door,
    version: int,
    *,
    vault: Vault | None,
    clock: Clock,
    wire: Wire | None = None,
    wait_s: float = WAIT_S,
    pause: Callable[[float], None] = time.sleep,
) -> Preview:
    """What a sink would send if this version were live: its topic judged as the door would, against what the far side holds.

    Partition by partition, each in memory as a whole. `wire`: how the sink writes; None: JSON. Raises UsageError for a version
    that is not declared, Shut or Stale where consent and keys cannot be read within `wait_s`.
    """
    projection = next((p for p in door.versions if p.version == version), None)
    if projection is None:
        raise UsageError(f"{door.projection.name}@{version} is not declared")
    governance = GlobalTable("governance", plan.governance, cluster, MemoryStores(), clock) if plan.governance else None
    judge, found, reader = Judge(plan, door, governance, vault, wire), Preview(), cluster.reader()

    def judged(records: dict[bytes, bytes]) -> dict[bytes, Judged]:
        deadline = time.monotonic() + wait_s
        while True:
            try:
                moved = governance is not None and _turned(governance)
                return judge.judge(records, version, clock())
            except (Shut, Stale):
                if time.monotonic() >= deadline and not moved:
                    raise
                pause(0.05)

    try:
        for partition in range(cluster.admin().topics().get(plan.leaves(door), 0)):
            held, records = (
                _table(reader, TP(topic, partition)) for topic in (plan.leaves(door), plan.projected(projection))
            )
            keys = list(records)
            for at in range(0, len(keys), PORTION):
                for key, said in judged({key: records[key] for key in keys[at : at + PORTION]}).items():
                    _count(found, said, held.pop(key, None))
            found.removed += len(held)
    finally:
        reader.close()
        if governance is not None:
            governance.close()
    return found


def _table(reader: Reader, tp: TP) -> dict[bytes, bytes]:
    table: dict[bytes, bytes] = {}
    follow(reader, reader.starts([tp]), table)
    return table


def _count(found: Preview, said: Judged, held: bytes | None) -> None:
    if said.value is None:
        found.held_back[said.reason] += 1
        found.removed += held is not None
    elif held is None:
        found.added += 1
    elif held == said.value:
        found.unchanged += 1
    else:
        found.changed += 1


def _turned(table: GlobalTable) -> bool:
    """One round; whether it has read anything."""
    before = table.version
    table.turn()
    return table.version != before
