"""The control topic: read whole, written record by record, followed by a worker."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import msgspec

from c360.agents.control import Controls, Live, Logic, drift, encode, live_key, logic_key
from c360.engine.transport import TP, Admin, Cluster, Reader
from c360.errors import NeedsOperator
from c360.ops.records import follow
from c360.plan import Plan, PlannedAgent


def read(plan: Plan, cluster: Cluster) -> Controls:
    """What is decided now; nothing where the topic is not there."""
    watch = Watch(plan, cluster)
    try:
        watch.turn()
    finally:
        watch.close()
    return watch.controls


def live_in(plan: Plan, cluster: Cluster) -> Callable[[str], int]:
    """Asked for a projection by name: the version that doors deliver now."""
    return lambda projection: read(plan, cluster).live(plan, projection)


def write(plan: Plan, cluster: Cluster, records: Iterable[tuple[bytes, msgspec.Struct | None]]) -> None:
    """Decide: by key, None for what is decided no more. In the log, in this order, when it returns."""
    _say(plan, cluster, [(key, None if record is None else encode(record)) for key, record in records])


def _say(plan: Plan, cluster: Cluster, records: Iterable[tuple[bytes, bytes | None]]) -> None:
    producer = cluster.producer()
    try:
        for key, value in records:
            producer.produce(plan.control, key, value, 0)
        producer.flush()
    finally:
        producer.close()


class Watch:
    """Follows the topic: `controls` is what was decided up to the last turn. Used by one thread.

    While the topic is away, what was decided last holds; where it was deleted and made again, that is said again.
    """

    def __init__(self, plan: Plan, cluster: Cluster) -> None:
        self.plan, self.cluster = plan, cluster
        self.controls = Controls()
        self._admin: Admin | None = None
        self._reader: Reader | None = None
        self._id: str | None = None
        self._at: dict[TP, int] = {}
        self._table: dict[bytes, bytes] = {}

    def turn(self) -> bool:
        """Read what came. Whether anything was decided."""
        if self._admin is None or self._reader is None:
            self._admin, self._reader = self.cluster.admin(), self.cluster.reader()
        topic = self.plan.control
        found = self._admin.topic_ids([topic]).get(topic)
        if found is None:
            return False
        if found != self._id:
            kept, at, table = self._table, self._reader.starts([TP(topic, 0)]), dict[bytes, bytes]()
            follow(self._reader, at, table)
            if again := {key: value for key, value in kept.items() if key not in table}:
                _say(self.plan, self.cluster, again.items())
            self._id, self._at, self._table = found, at, table  # only now: one that met an error begins again
        before = dict(self._at) if self.controls.values == self._table else None
        follow(self._reader, self._at, self._table)
        if self._at == before:
            return False
        self.controls = Controls(dict(self._table))
        return True

    def close(self) -> None:
        for client in (self._admin, self._reader):
            if client is not None:
                client.close()
        self._admin = self._reader = None


def is_retired(plan: Plan, watch: Watch, agent: str) -> bool:
    """Whether a projection's version is, as far as it is followed."""
    projection = next(p for p in plan.projections if p.agent == agent)
    return watch.controls.stage(plan, projection.name, projection.version) == "retired"


def is_idle(plan: Plan, watch: Watch, agent: str) -> bool:
    """Whether it belongs to a version that nobody runs by itself as it was never built, or is retired."""
    return watch.controls.stage_of(plan, agent) in ("new", "retired")


def is_reset(watch: Watch, agent: str) -> bool:
    """Whether an agent is being reset, as far as it is followed: what was before stands, and it has not begun anew."""
    return watch.controls.reset(agent) is not None


def is_paused(watch: Watch, source: str) -> bool:
    """Whether a source is, as far as it is followed."""
    return watch.controls.is_paused(source)


def begin(
    plan: Plan, cluster: Cluster, controls: Controls, agents: Sequence[PlannedAgent], *, accept_drift: bool = False
) -> list[str]:
    """At the start of a worker: what these agents are is compared with what they were, and written where nobody has.

    Returns what has drifted and was accepted, for the log. Raises NeedsOperator where something has and was not, or where
    doors deliver a version that the app does not declare.
    """
    accepted, said = [], list[tuple[bytes, msgspec.Struct | None]]()
    for name in dict.fromkeys(p.name for p in plan.projections):
        live = controls.said_live(name)
        versions = [p.version for p in plan.versions_of(name)]
        if live is None:
            said.append((live_key(name), Live(_first_live(plan, cluster, name, versions))))
        elif live.version not in versions:
            raise NeedsOperator(
                f"{name}@{live.version} is live, and {plan.app!r} declares {_versions(name, versions)} only. Leave"
                f" version={live.version} declared beside, build the new one (c360 rebuild {name}@{max(versions)}), and take"
                " the old one out when it is promoted and retired"
            )
    for agent in (agent for agent in agents if agent.logic):
        before = controls.logic(agent.name)
        if before is not None and before.lines == list(agent.logic):
            continue
        changed = [] if before is None else drift(before, agent.logic, may_grow=agent.name.startswith("govern"))
        if changed and not accept_drift:
            raise NeedsOperator(_drifted(plan, agent, changed))
        accepted += [f"{agent.name} {line}" for line in changed]
        said.append((logic_key(agent.name), Logic(list(agent.logic))))
    if said:
        write(plan, cluster, said)
    return accepted


def _first_live(plan: Plan, cluster: Cluster, name: str, versions: Sequence[int]) -> int:
    """Where nobody has decided: the one that has run before, else the highest."""
    if len(versions) == 1:
        return versions[0]
    admin = cluster.admin()
    try:
        ran = [v for v in versions if admin.group_offsets(plan.agent(f"{name}@{v}").group)]
    finally:
        admin.close()
    if len(ran) > 1:
        raise NeedsOperator(
            f"{_versions(name, ran)} have run, and {plan.control} does not say which one is live. Say it: c360 promote"
            f" {name}@{ran[0]} --execute"
        )
    return ran[0] if ran else max(versions)


def _versions(name: str, versions: Sequence[int]) -> str:
    return ", ".join(f"{name}@{version}" for version in versions)


def _drifted(plan: Plan, agent: PlannedAgent, changed: Sequence[str]) -> str:
    what = "\n  ".join(changed)
    name, _, version = agent.name.partition("@")
    if any(p.agent == agent.name for p in plan.projections):
        instead = (
            f"Declare it beside, as version={int(version) + 1} of {name!r}, and build that: c360 rebuild"
            f" {name}@{int(version) + 1}; or fold again from the start, in place: c360 reset {agent.name} --to-earliest"
            " --execute"
        )
    elif version:
        instead = f"Give it a new version, version={int(version) + 1}"
    else:
        instead = "Records that were governed before keep what they have. To go on so: c360 worker --accept-drift"
    return f"{agent.name} is not what it was when it first ran:\n  {what}\n{instead}"
