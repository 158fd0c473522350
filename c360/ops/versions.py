"""Versions of projections: where each stands, which one doors deliver, and how one of them comes to its end.

What is decided is one record of the control topic (`c360.agents.control`); doors and workers follow it. Everything here
looks first, refuses what may not be as things stand (NotYet: nothing was changed), and may be said again after a crash:

promote, rollback
    1 refuse        unless the version is built, and it, its views and the sinks' copies of it have read all there was
    2 write         one record: live, and the one before
    3 look again    whether somebody else has decided otherwise meanwhile
    4 wait          until sinks deliver it

retire
    1 refuse        the live version; the one to go back to, unless forced
    2 write         `retired`: workers stop its agents, and nobody makes its topics again
    3 look again    whether somebody has promoted it meanwhile: then it is not retired
    4 wait          until its groups are empty
    5 delete        topics, then groups
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from c360.agents.control import Controls, Live, Stage, VersionState, live_key, version_key
from c360.declare import ProjectionDeclaration
from c360.engine.lag import ends_of_records, records_left
from c360.engine.restore import last_positions
from c360.engine.state import partitions_of
from c360.engine.transport import TP, Admin, Cluster, Reader
from c360.errors import NotYet, UsageError
from c360.ops import control, erase
from c360.ops.audit import Run, Told
from c360.plan import Identity, Plan, PlannedAgent

LOOK_S = 0.2
WAIT_S = 30.0  # for what runs to have read what was there when the command began
EMPTY_S = 60.0  # for workers to have stopped a version: they commit first, which may take behind_s and a slow broker

Record = tuple[bytes, msgspec.Struct | None]


# ----------------------------------------------------------------------------------------------------------- who is meant
def version_of(plan: Plan, name: str) -> ProjectionDeclaration:
    """The version "customer@2". Raises UsageError where it is not declared, saying what to write."""
    for projection in plan.projections:
        if projection.agent == name:
            return projection
    of, at, number = name.partition("@")
    if any(identity.agent == name for identity in plan.identities):
        raise UsageError(
            f"{name} builds by itself, from the links, as soon as a worker has it declared (c360 versions says how far it"
            " is). What follows it is a version of a projection with identity=: rebuild and promote that"
        )
    versions = plan.versions_of(of)
    if not versions:
        known = ", ".join(dict.fromkeys(p.name for p in plan.projections)) or "none"
        raise UsageError(f"{plan.app!r} has no projection {of!r}; it has {known}")
    declared = ", ".join(p.agent for p in versions)
    if not at:
        raise UsageError(f"which version of {of}? {plan.app!r} declares {declared}: say {of}@N")
    number = number or "N"
    raise UsageError(
        f"{plan.app!r} declares {declared}, and no {name}: decorate the new class with @app.projection({of!r},"
        f" version={number}) and leave the others beside it"
    )


def next_number(plan: Plan, controls: Controls, projection: str) -> int:
    """A number that no version has, or ever had."""
    known = [p.version for p in plan.versions_of(projection)]
    start = version_key(f"{projection}@")
    known += [
        int(key[len(start) :]) for key in controls.values if key.startswith(start) and key[len(start) :].isdigit()
    ]
    return max(known, default=0) + 1


# --------------------------------------------------------------------------------------------------------- where they are
@dataclass(frozen=True)
class Version:
    """A version and where it stands. `lag`: records that it has still to read; `records`: those that it has read.

    `progress`: of what there was to read when it was begun, while it is being built; then of what there is.
    `bytes`: of its topics on brokers' disks; None where they do not say.
    """

    agent: str
    projection: str | None  # None: a rule set of identity
    version: int
    state: Stage
    fingerprint: str
    lag: int
    progress: float
    records: int
    topics: tuple[str, ...]
    bytes: int | None


def versions(plan: Plan, cluster: Cluster) -> list[Version]:
    """All declared versions of projections, and of identity."""
    controls = control.read(plan, cluster)
    admin, reader = cluster.admin(), cluster.reader()
    try:
        existing = admin.topics()
        found = [_version(plan, controls, p, existing, admin, reader) for p in plan.projections]
        found += [_of_identity(plan, controls, i, existing, admin, reader) for i in plan.identities]
        sizes = admin.topic_bytes([topic for version in found for topic in version.topics])
        if sizes is None:
            return found
        return [replace(version, bytes=sum(sizes[topic] for topic in version.topics)) for version in found]
    finally:
        reader.close()
        admin.close()


def _version(
    plan: Plan,
    controls: Controls,
    projection: ProjectionDeclaration,
    existing: Mapping[str, int],
    admin: Admin,
    reader: Reader,
) -> Version:
    agent, stage = plan.agent(projection.agent), controls.stage(plan, projection.name, projection.version)
    topics = tuple(topic for topic in plan.topics_of(projection) if topic in existing)
    said = controls.version(agent.name)
    upto = said.upto if said is not None and stage == "building" else {}
    read = Read() if stage == "retired" else how_far(agent, existing, admin, reader, upto)
    return Version(
        agent.name, projection.name, projection.version, stage, agent.fingerprint, read.left, read.share, read.done,
        topics, None,
    )  # fmt: skip


def _of_identity(
    plan: Plan, controls: Controls, identity: Identity, existing: Mapping[str, int], admin: Admin, reader: Reader
) -> Version:
    agent = plan.agent(identity.agent)
    followed = any(
        plan.identity_of(p) == identity and controls.stage(plan, p.name, p.version) == "live" for p in plan.projections
    )
    read = how_far(agent, existing, admin, reader, {})
    stage: Stage = "live" if followed else "ready" if not read.left else "building"
    topics = tuple(t for t in (*agent.writes, *agent.changelogs) if t in existing and t.startswith(f"{plan.app}."))
    own = tuple(t for t in topics if t.endswith((f".v{identity.version}", f".v{identity.version}.changelog")))
    return Version(
        agent.name, None, identity.version, stage, agent.fingerprint, read.left, read.share, read.done, own, None
    )


class Read(NamedTuple):
    """Of the inputs of an agent: records read, still to be read, and the share of what is to be read at all."""

    done: int = 0
    left: int = 0
    share: float = 0.0


def how_far(
    agent: PlannedAgent, existing: Mapping[str, int], admin: Admin, reader: Reader, upto: Mapping[str, int]
) -> Read:
    """By the offsets that its group has committed. `upto`: "topic/partition" → offset that it has to reach."""
    inputs = inputs_of(agent, existing)
    starts, offsets = reader.starts(inputs), admin.group_offsets(agent.group)
    at = {tp: max(starts[tp], offsets.get(tp, 0)) for tp in inputs}
    done = sum(at[tp] - starts[tp] for tp in inputs)
    left = sum(records_left(reader, at).values())
    if upto:
        ends = {tp: end for tp, end in partitions_of(upto).items() if tp in starts}
        whole = sum(max(0, end - starts[tp]) for tp, end in ends.items())
        reached = sum(min(at[tp], end) - starts[tp] for tp, end in ends.items() if end > starts[tp])
        return Read(done, left, round(reached / whole, 4) if whole else 1.0)
    return Read(done, left, round(done / (done + left), 4) if left else 1.0)


NONE_PAUSED: Mapping[str, str] = {}


def inputs_of(agent: PlannedAgent, existing: Mapping[str, int]) -> list[TP]:
    return [TP(topic, p) for topic in agent.reads for p in range(existing.get(topic, 0))]


# -------------------------------------------------------------------------------------------------------------- deciding
@dataclass(frozen=True)
class Switch:
    """One version in the place of another. `done`: it is so already."""

    plan: Plan
    projection: str
    to: int
    of: int
    before: Live | None  # what was decided
    done: bool = False

    @property
    def agent(self) -> str:
        return f"{self.projection}@{self.to}"

    @property
    def away(self) -> str:
        return f"{self.projection}@{self.of}"

    def records(self, controls: Controls) -> list[Record]:
        """What is to be decided. The version that goes keeps running, also when it was never built beside another."""
        said: list[Record] = []
        if self.of != self.to and controls.version(self.away) is None:
            said.append((version_key(self.away), VersionState("ready")))
        return [*said, (live_key(self.projection), Live(self.to, self.of if self.of != self.to else None))]

    def told(self, what: str) -> Told:
        return Told(what, before={"live": self.away}, after={"live": self.agent})


def plan_promote(plan: Plan, controls: Controls, agent: str) -> Switch:
    """Raises UsageError for what is not declared, NotYet where it is not built."""
    projection = version_of(plan, agent)
    name, version = projection.name, projection.version
    said, live = controls.said_live(name), controls.live(plan, name)
    stage = controls.stage(plan, name, version)
    known = controls.version(agent)
    if known is not None and known.state == "retired" and said is not None and stage == "live":
        raise NotYet(
            f"{agent} is live, and somebody has retired it at the same moment: its topics may be gone. Promote another version,"
            f" or go back: c360 rollback {name}"
        )
    if said is not None and stage == "live":
        return Switch(plan, name, version, live, said, done=True)
    if stage == "retired":
        raise NotYet(
            f"{agent} is retired: its topics are gone. Declare the class as version={next_number(plan, controls, name)} and"
            f" rebuild that"
        )
    if stage in ("new", "building") and said is not None:
        how = "is being built" if stage == "building" else "was never built"
        raise NotYet(f"{agent} {how}: c360 rebuild {agent}, then promote it")
    return Switch(plan, name, version, live, said)


def plan_rollback(plan: Plan, controls: Controls, name: str) -> Switch:
    """Raises UsageError for a projection that is not declared, NotYet where there is nothing to go back to."""
    if not plan.versions_of(name):
        version_of(plan, f"{name}@1" if "@" not in name else name)  # raises, unless it names a version
        raise UsageError(f"say which projection goes back, not which version: c360 rollback {name.partition('@')[0]}")
    said = controls.said_live(name)
    if said is None or said.previous is None:
        raise NotYet(f"{name} was never promoted, so there is nothing to go back to (c360 versions)")
    if all(p.version != said.previous for p in plan.versions_of(name)):
        raise NotYet(
            f"{name}@{said.previous}, the version before, is not declared any more: declare it again, as it was"
        )
    if controls.stage(plan, name, said.previous) == "retired":
        raise NotYet(f"{name}@{said.previous}, the version before, is retired: its topics are gone")
    return Switch(plan, name, said.previous, said.version, said)


# ------------------------------------------------------------------------------------------------------------- looking
class Waiting:
    """Until something is so, at most so long. Time is the caller's."""

    def __init__(
        self,
        wait_s: float,
        pause: Callable[[float], object] = time.sleep,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.pause, self.monotonic = pause, monotonic
        self.until = monotonic() + wait_s

    def __call__(self, done: Callable[[], bool]) -> bool:
        """Whether it has come to be so."""
        while not done():
            if self.monotonic() >= self.until:
                return False
            self.pause(LOOK_S)
        return True


def check(plan: Plan, cluster: Cluster, switch: Switch, waiting: Waiting, *, erasing: bool) -> None:
    """Whether doors may deliver this version instead. Raises NotYet with what is missing.

    What is written all the time is never read to its end; so each has to come to where the end was when this began.
    `erasing`: also refuse while somebody is being forgotten.
    """
    admin, reader = cluster.admin(), cluster.reader()
    try:
        existing = admin.topics()
        _check_space(plan, switch, existing)
        if erasing:
            _check_erasures(plan, cluster)
        agent, projection = plan.agent(switch.agent), version_of(plan, switch.agent)
        _check_reset(plan, cluster, reader, agent, existing)
        # A version of govern that was built for it may still read raw topics, which its own inputs do not show.
        controls = control.read(plan, cluster)
        paused = {s.topic: s.name for s in plan.sources if controls.is_paused(s.name)}
        above = set(plan.upstream(switch.agent)) - set(plan.upstream(switch.away))
        for behind in [*map(plan.agent, sorted(above)), agent]:  # govern comes before identity
            _check_reached(admin, reader, behind, inputs_of(behind, existing), waiting, paused)
        output = [TP(plan.projected(projection), p) for p in range(existing[plan.projected(projection)])]
        readers = [a for a in plan.agents_of(projection) if a != agent] + sinks_of(plan, projection)
        for door in readers:
            _check_reached(admin, reader, door, output, waiting)
    finally:
        reader.close()
        admin.close()


def sinks_of(plan: Plan, projection: ProjectionDeclaration) -> list[PlannedAgent]:
    return [plan.agent(d.agent) for d in plan.doors if d.sink is not None and projection in d.versions]


def _check_space(plan: Plan, switch: Switch, existing: Mapping[str, int]) -> None:
    """A profile id lies in the same partition in both, or doors would look for what they delivered in the wrong place."""
    counts = {}
    for version in (switch.to, switch.of):
        projection = version_of(plan, f"{switch.projection}@{version}")
        topic = plan.projected(projection)
        if topic not in existing:
            raise NotYet(
                f"{topic}, which {projection.agent} is written to, does not exist: c360 rebuild {projection.agent}"
            )
        counts[projection.agent] = existing[topic]
    if len(set(counts.values())) > 1:
        said = ", ".join(f"{agent} has {count}" for agent, count in counts.items())
        raise NotYet(
            f"their topics have not the same count of partitions ({said}), so doors would look for a profile in the wrong"
            " place. Another count is another app: a new App name over the same raw topics"
        )


def _check_erasures(plan: Plan, cluster: Cluster) -> None:
    if not plan.erases:
        return
    known, _ = erase.books(plan, cluster)
    if known.open:
        raise NotYet(
            f"{len(known.open)} erasures are under way: wait until they are proven (c360 erase … --wait; the request is"
            f" {', '.join(sorted(known.open)[:3])})"
        )


def _check_reset(
    plan: Plan, cluster: Cluster, reader: Reader, agent: PlannedAgent, existing: Mapping[str, int]
) -> None:
    """Its topic is of before until it has read all again and compared all profiles."""
    if control.read(plan, cluster).reset(agent.name) is not None:
        raise NotYet(
            f"{agent.name} is being reset: its topic is of before. Run its worker, and wait until it has caught up"
        )
    for log in (TP(topic, p) for topic in agent.changelogs for p in range(existing.get(topic, 0))):
        said = last_positions(reader, log)
        if said is not None and {"catch_up", "sweep"} & said.notes.keys():
            raise NotYet(
                f"{agent.name} has not compared all its profiles yet after it was reset or built: wait a moment"
            )


def _check_reached(
    admin: Admin,
    reader: Reader,
    agent: PlannedAgent,
    inputs: Sequence[TP],
    waiting: Waiting,
    paused: Mapping[str, str] = NONE_PAUSED,
) -> None:
    """Whether its group gets to where its inputs end now. `paused`: names of sources by topic, of which it reads nothing."""
    starts = reader.starts(inputs)
    at = admin.group_offsets(agent.group)
    ends = ends_of_records(reader, {tp: max(starts[tp], at.get(tp, 0)) for tp in inputs})

    def left() -> int:
        offsets = admin.group_offsets(agent.group)
        return sum(max(0, end - max(starts[tp], offsets.get(tp, 0))) for tp, end in ends.items())

    if not waiting(lambda: not left()):
        waits = sorted({paused[tp.topic] for tp in inputs if tp.topic in paused})
        if waits:
            raise NotYet(
                f"{agent.name} is {left()} records behind where its inputs ended when this command began, and of"
                f" {', '.join(waits)} nothing is read, as somebody has paused it: c360 source resume {waits[0]} --execute"
            )
        raise NotYet(
            f"{agent.name} is {left()} records behind where its inputs ended when this command began. Do its workers run?"
            " (c360 doctor) Wait for it, or give it longer with --wait SECONDS"
        )


# ------------------------------------------------------------------------------------------------------------- switching
def switch_over(plan: Plan, cluster: Cluster, switch: Switch) -> None:
    """Write what is live, and look whether it stays so. Raises NotYet where somebody else decides at the same time."""
    controls = control.read(plan, cluster)
    if controls.said_live(switch.projection) != switch.before:
        raise NotYet(_otherwise(plan, controls, switch))
    if controls.stage(plan, switch.projection, switch.to) == "retired":
        raise NotYet(f"{switch.agent} is being retired by somebody else; {switch.away} is live as before")
    control.write(plan, cluster, switch.records(controls))
    after = control.read(plan, cluster)
    if after.stage(plan, switch.projection, switch.to) != "live":
        raise NotYet(_otherwise(plan, after, switch))
    state = after.version(switch.agent)
    if state is not None and state.state == "retired":  # somebody did so after it was looked at: its topics go
        back = switch.before or Live(switch.of)
        control.write(plan, cluster, [(live_key(switch.projection), back)])
        raise NotYet(f"{switch.agent} is being retired by somebody else; {switch.away} is live as before")


def switched(plan: Plan, cluster: Cluster, switch: Switch) -> dict[str, bool]:
    """By sink of this version: whether all that it holds is of it, as its tasks have said last (`agents.readings`)."""
    reader = cluster.reader()
    try:
        found = {}
        for sink in sinks_of(plan, version_of(plan, switch.agent)):
            said = [last_positions(reader, TP(sink.changelogs[0], p)) for p in range(plan.partitions)]
            found[sink.name] = all(one is not None and _is_of(one.notes, switch.to) for one in said)
        return found
    finally:
        reader.close()


def _is_of(notes: Mapping[str, Any], version: int) -> bool:
    rows = notes.get("rows")
    return rows is not None and rows == notes.get("readings", {}).get(str(version)) and "sweep" not in notes


def wait_for_sinks(plan: Plan, cluster: Cluster, switch: Switch, waiting: Waiting) -> dict[str, bool]:
    """Until all have switched, or it has taken too long."""
    found: dict[str, bool] = {}

    def done() -> bool:
        nonlocal found
        found = switched(plan, cluster, switch)
        return all(found.values())

    waiting(done)
    return found


def _otherwise(plan: Plan, controls: Controls, switch: Switch) -> str:
    live = controls.live(plan, switch.projection)
    return (
        f"somebody else has decided meanwhile that {switch.projection}@{live} is live. Look at it (c360 versions), then say it"
        " again"
    )


def promote(plan: Plan, cluster: Cluster, agent: str, *, waiting: Waiting, run: Run | None) -> Switch:
    """Have doors deliver this version. `run`: do it, told in the audit log; None: only look."""
    return _switch(
        plan, cluster, "promote", lambda controls: plan_promote(plan, controls, agent), waiting, run,
        asked={"agent": agent}, erasing=True,
    )  # fmt: skip


def rollback(plan: Plan, cluster: Cluster, name: str, *, waiting: Waiting, run: Run | None) -> Switch:
    """Have doors deliver the version before again. Not refused while somebody is forgotten: that version knows it, too."""
    return _switch(
        plan, cluster, "rollback", lambda controls: plan_rollback(plan, controls, name), waiting, run,
        asked={"projection": name}, erasing=False,
    )  # fmt: skip


def _switch(
    plan: Plan,
    cluster: Cluster,
    what: str,
    decide: Callable[[Controls], Switch],
    waiting: Waiting,
    run: Run | None,
    *,
    asked: Mapping[str, str],
    erasing: bool,
) -> Switch:
    def look() -> Switch:
        switch = decide(control.read(plan, cluster))
        if not switch.done:
            check(plan, cluster, switch, waiting, erasing=erasing)
        return switch

    if run is None:
        return look()
    with run.refusing(Told(what, after=dict(asked))):
        switch = look()
    if not switch.done:
        with run.acting(switch.told(what)):
            switch_over(plan, cluster, switch)
    return switch


# -------------------------------------------------------------------------------------------------------------- retiring
@dataclass(frozen=True)
class Retirement:
    """What goes with a version. `state`: local directories of its tasks that are (still) on this machine."""

    agent: str
    topics: tuple[str, ...]
    groups: tuple[str, ...]
    state: tuple[str, ...]


def plan_retire(plan: Plan, cluster: Cluster, agent: str, *, force: bool, state_dir: Path | None) -> Retirement:
    """Look at what would go. Raises NotYet for the live version, and for the one before it without `force`."""
    projection = version_of(plan, agent)
    controls = control.read(plan, cluster)
    stage = controls.stage(plan, projection.name, projection.version)
    if controls.said_live(projection.name) is None:
        raise NotYet(
            f"{plan.control} does not say which version of {projection.name} is live, so nobody knows which may go. A worker"
            f" says it when it starts; or say it: c360 promote {projection.name}@N --execute"
        )
    if stage == "live":
        raise NotYet(f"{agent} is live: doors deliver it. Promote another version first")
    if stage == "previous" and not force:
        raise NotYet(
            f"{agent} is the version that c360 rollback {projection.name} goes back to. When nobody will: --force"
        )
    admin = cluster.admin()
    existing = admin.topics()
    admin.close()
    agents = plan.agents_of(projection)
    return Retirement(
        agent,
        tuple(topic for topic in plan.topics_of(projection) if topic in existing),
        tuple(a.group for a in agents),
        tuple(map(str, local_state(plan, agents, state_dir))),
    )


def local_state(plan: Plan, agents: Iterable[PlannedAgent], state_dir: Path | None) -> list[Path]:
    """Directories of tasks of these agents under a state directory, whichever process made them."""
    if state_dir is None or not state_dir.exists():
        return []
    found = {path for agent in agents for path in state_dir.rglob(f"{plan.app}/{agent.group}") if path.is_dir()}
    return sorted(path for path in found if any(path.iterdir()))


def retire(
    plan: Plan,
    cluster: Cluster,
    agent: str,
    *,
    force: bool,
    waiting: Waiting,
    run: Run | None,
    state_dir: Path | None = None,
) -> Retirement:
    """Have a version come to its end. `run`: do it, told in the audit log; None: only look."""

    def look() -> Retirement:
        return plan_retire(plan, cluster, agent, force=force, state_dir=state_dir)

    if run is None:
        return look()
    with run.refusing(Told("retire", after={"agent": agent})):
        planned = look()
    told = Told(
        "retire", after={"agent": agent, "topics": ", ".join(planned.topics), "groups": ", ".join(planned.groups)}
    )
    with run.acting(told):
        execute_retire(plan, cluster, planned, waiting)
        if state_dir is not None:  # of a rebuild that was never finished; nobody else would delete it
            shutil.rmtree(state_dir / "rebuild" / plan.agent(agent).group, ignore_errors=True)
    return Retirement(
        agent, planned.topics, planned.groups,
        tuple(map(str, local_state(plan, plan.agents_of(version_of(plan, agent)), state_dir))),
    )  # fmt: skip


def execute_retire(plan: Plan, cluster: Cluster, planned: Retirement, waiting: Waiting) -> None:
    """Steps 2 to 5. May be repeated after a crash at any point."""
    projection = version_of(plan, planned.agent)
    # 2 write
    controls = control.read(plan, cluster)
    said = controls.version(planned.agent)
    control.write(plan, cluster, [(version_key(planned.agent), VersionState("retired"))])
    # 3 look again
    if control.read(plan, cluster).stage(plan, projection.name, projection.version) == "live":
        control.write(plan, cluster, [(version_key(planned.agent), said or VersionState("ready"))])
        raise NotYet(f"{planned.agent} was promoted meanwhile by somebody else: it is live, and stays")
    admin = cluster.admin()
    try:
        # 4 wait
        for group in planned.groups:
            if not waiting(lambda group=group: not admin.group_members(group)):  # type: ignore[misc]
                raise NotYet(
                    f"{planned.agent} is retired, and {group} still has {admin.group_members(group)} members: a worker that"
                    " does not follow, or c360 worker --only. Stop it, and say the same again: it goes on from here"
                )
        # 5 delete
        said = control.read(plan, cluster).version(planned.agent)
        if said is None or said.state != "retired":
            raise NotYet(f"somebody else has decided meanwhile what becomes of {planned.agent} (c360 versions)")
        existing = admin.topics()
        admin.delete([topic for topic in plan.topics_of(projection) if topic in existing])
        for group in planned.groups:
            admin.delete_group(group)
    finally:
        admin.close()
