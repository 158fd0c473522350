"""Build a version of a projection beside the live one, from the first record that is retained.

In numbered steps; whoever is killed at any of them says the same again, and it goes on:

1. refuse    what is not declared, not new, or being built by somebody else
2. decide    control: `building`, and where the inputs ended when it was begun (`upto`)
3. begin     its topics; the first records of its life, as a reset writes them; last the offsets of its group. So it writes
             nothing until it has caught up with `upto`, and then each profile once: fewer writes, and readers of its topic
             see no profile that is half folded
4. work      processes of its own, with client ids, broker quotas and state directories of their own, at the pace that was
             asked for (`c360.ops.pace`)
5. end       each task has caught up and compared all profiles, and the views have read them: control: `ready`; the processes
             stop, and ordinary workers go on with it

Doors and sinks learn nothing of it before it is promoted (`c360.ops.versions`).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

from c360.agents.control import Controls, VersionState, version_key
from c360.agents.profiles import notes_of_reset
from c360.declare import ProjectionDeclaration
from c360.engine.lag import ends_of_records
from c360.engine.restore import last_positions
from c360.engine.state import encode_positions, encode_reset, named, partitions_of
from c360.engine.transport import TP, Admin, Cluster, Reader
from c360.errors import BrokerAway, NeedsOperator, NotYet
from c360.ops import control, topics
from c360.ops.audit import Run, Told
from c360.ops.beginning import first_records, written_by
from c360.ops.journal import refuse_active
from c360.ops.pace import Governor, Rate
from c360.ops.supervisor import Supervisor
from c360.ops.versions import Waiting, inputs_of, next_number, version_of
from c360.plan import Plan, PlannedAgent

LOOK_S = 0.5
HELD_S = 12.0  # a builder that was killed is out of its group by then: twice the session
RATE_S = 10.0  # over which the rate is told
QUOTA_ROOM = 1.5  # of the pace: brokers measure in windows of a second, and count what is around records
QUOTA_EACH = 50e6  # bytes a second of a process that has no bound; more than any folds
LOG_LINES = 15  # of a process that could not go on

log = logging.getLogger("c360.rebuild")

Phase = Literal["folding", "writing", "views", "ready"]


# ------------------------------------------------------------------------------------------------------------- one at a time
class Hold:
    """That one process at a time builds a version: it is the member of a group that has its one partition.

    Who is killed loses it with the session, whatever was left behind; nothing has to be cleaned up.
    """

    def __init__(self, cluster: Cluster, group: str, topic: str) -> None:
        self.held = False
        self.consumer = cluster.consumer(group)
        self.consumer.subscribe([topic], self)

    def assigned(self, partitions: Sequence[TP]) -> None:
        self.held = self.held or bool(partitions)

    def revoked(self, partitions: Sequence[TP]) -> None:
        self.held = self.held and not partitions

    lost = revoked

    def keep(self) -> bool:
        """Whether this process has it; to be asked every few seconds, or it is lost."""
        self.consumer.poll(1, 0.05)
        return self.held

    def close(self) -> None:
        self.consumer.close()


def hold(plan: Plan, cluster: Cluster, agent: PlannedAgent, waiting: Waiting) -> Hold:
    """Raises NotYet while somebody else has it."""
    held = Hold(cluster, f"{agent.group}.rebuild", plan.control)
    if not waiting(held.keep):
        held.close()
        raise NotYet(
            f"{agent.name} is being built by another c360 rebuild; one is enough (c360 versions says how far it is)"
        )
    return held


# ----------------------------------------------------------------------------------------------------------------- beginning
@dataclass(frozen=True)
class Course:
    """What is to be built. `starts`, `upto`: of its inputs, where they began and what has to be read. `resumed`: it was begun
    before."""

    plan: Plan
    projection: ProjectionDeclaration
    starts: Mapping[TP, int]
    upto: Mapping[TP, int]
    resumed: bool

    @property
    def agent(self) -> PlannedAgent:
        return self.plan.agent(self.projection.agent)

    @property
    def views(self) -> list[PlannedAgent]:
        return [agent for agent in self.plan.agents_of(self.projection) if agent != self.agent]

    @property
    def total(self) -> int:
        """Records, as far as offsets tell."""
        return sum(max(0, end - self.starts[tp]) for tp, end in self.upto.items())


def refuse(plan: Plan, controls: Controls, projection: ProjectionDeclaration) -> None:
    """Raises NotYet where a version is not to be built, or is built already."""
    agent, name = projection.agent, projection.name
    stage, live = controls.stage(plan, name, projection.version), controls.live(plan, name)
    another = f"declare the class as version={next_number(plan, controls, name)} of {name!r}, and rebuild that"
    if stage == "retired":
        raise NotYet(f"{agent} was built and retired, and a number is used once: {another}")
    if stage == "live":
        raise NotYet(
            f"{agent} is live: doors deliver it. To fold it again in place: c360 reset {agent}; else {another}"
        )
    if stage == "previous":
        raise NotYet(f"{agent} is the version that c360 rollback {name} goes back to. For other logic {another}")
    if stage == "ready":
        raise NotYet(f"{agent} is built: c360 diff {name}@{live} {agent}, then c360 promote {agent}")
    if projection.version < live:
        raise NotYet(f"{agent} is lower than {name}@{live}, which is live, and versions go up: {another}")


def settle_live(plan: Plan, cluster: Cluster) -> Controls:
    """What was decided; where nobody has said yet which version is live, that is said first, as a worker would."""
    controls = control.read(plan, cluster)
    if all(controls.said_live(p.name) for p in plan.projections):
        return controls
    admin = cluster.admin()
    admin.create([spec for spec in topics.missing(plan, admin) if spec.name == plan.control])
    admin.close()
    control.begin(plan, cluster, controls, [])
    return control.read(plan, cluster)


def begin(plan: Plan, cluster: Cluster, agent: str) -> Course:
    """Steps 1 to 3, as far as they are not done. Raises UsageError, NotYet; NeedsOperator where its group has members."""
    projection = version_of(plan, agent)
    # 1 refuse
    controls = settle_live(plan, cluster)
    refuse(plan, controls, projection)
    admin, reader = cluster.admin(), cluster.reader()
    try:
        topics.apply(plan, admin, gone=controls.gone(plan))
        planned = plan.agent(agent)
        inputs = inputs_of(planned, admin.topics())
        begins = reader.starts(inputs)
        said = [tp for tp in inputs if tp.topic in planned.writes]  # by its tasks to each other
        starts = begins | reader.ends(said)
        offsets = admin.group_offsets(planned.group)
        # Also where it was stopped for so long that its offsets have expired, or that what it had to read next was cut
        anew = any(offsets.get(tp, -1) < begins[tp] for tp in inputs)
        if anew:
            refuse_active(admin, planned)  # who runs it by hand would go on in its changelog
        # 2 decide
        known = controls.version(agent)
        if known is None:
            ends = ends_of_records(reader, starts)
            known = VersionState("building", named({tp: end for tp, end in ends.items() if end > starts[tp]}))
            control.write(plan, cluster, [(version_key(agent), known)])
            resumed = False
        else:
            resumed = True
        # 3 begin
        if anew:
            before = written_by(plan, projection, admin, reader)
            _first_life(plan, cluster, projection, starts, partitions_of(known.upto), before)
            admin.set_group_offsets(planned.group, starts)
        return Course(plan, projection, starts, partitions_of(known.upto), resumed)
    finally:
        reader.close()
        admin.close()


def _first_life(
    plan: Plan,
    cluster: Cluster,
    projection: ProjectionDeclaration,
    starts: Mapping[TP, int],
    upto: Mapping[TP, int],
    before: Mapping[int, Mapping[bytes, bytes]],
) -> None:
    """In each partition of its changelog: what was written before, where it begins, and up to where it writes nothing."""
    agent = plan.agent(projection.agent)
    (log,) = agent.changelogs
    incarnation = encode_reset(time.time_ns() // 1000)
    producer = cluster.producer()
    try:
        for partition in range(plan.partitions):
            own = {tp: at for tp, at in starts.items() if tp.partition == partition}
            ends = {tp: upto[tp] for tp, at in own.items() if upto.get(tp, 0) > at}
            positions = encode_positions(own, agent.fingerprint, notes_of_reset(named(ends)))
            first_records(producer, TP(log, partition), incarnation, before.get(partition, {}), positions)
        producer.flush()
    finally:
        producer.close()


# ------------------------------------------------------------------------------------------------------------------- looking
class Standing(NamedTuple):
    """How far a version is. `done` of `total` records; the same by partition."""

    phase: Phase
    done: int
    total: int
    partitions: Mapping[int, tuple[int, int]]


class Look:
    """Sees from outside how far a version is: by the offsets of its group, and what its tasks said last in the changelog."""

    def __init__(self, course: Course, admin: Admin, reader: Reader) -> None:
        self.course, self.admin, self.reader = course, admin, reader
        self.swept: set[int] = set()  # partitions that have compared all their profiles
        self.ends: dict[TP, int] | None = None  # of what it wrote, for its views

    def __call__(self) -> Standing:
        course = self.course
        offsets = self.admin.group_offsets(course.agent.group)
        at = {tp: max(course.starts[tp], offsets.get(tp, 0)) for tp in course.upto}
        parts: dict[int, tuple[int, int]] = dict.fromkeys(range(course.plan.partitions), (0, 0))
        for tp, end in course.upto.items():
            done, total = parts[tp.partition]
            whole = max(0, end - course.starts[tp])
            parts[tp.partition] = done + min(whole, at[tp] - course.starts[tp]), total + whole
        done, total = (sum(column) for column in zip(*parts.values(), strict=True))
        caught = {p for p in parts if all(at[tp] >= end for tp, end in course.upto.items() if tp.partition == p)}
        self.swept |= {p for p in caught - self.swept if self._has_swept(p)}
        return Standing(self._phase(caught, parts.keys()), done, total, parts)

    def _phase(self, caught: set[int], all_of_them: Collection[int]) -> Phase:
        if not caught.issuperset(all_of_them):
            return "folding"
        if not self.swept.issuperset(all_of_them):
            return "writing"
        return "ready" if self._views_have_read() else "views"

    def _has_swept(self, partition: int) -> bool:
        (log,) = self.course.agent.changelogs
        said = last_positions(self.reader, TP(log, partition))
        return said is not None and not {"catch_up", "sweep"} & said.notes.keys()

    def _views_have_read(self) -> bool:
        views = self.course.views
        if self.ends is None:
            topic = self.course.plan.projected(self.course.projection)
            own = [TP(topic, p) for p in range(self.course.plan.partitions)]
            self.ends = ends_of_records(self.reader, self.reader.starts(own)) if views else {}
        for view in views:
            offsets = self.admin.group_offsets(view.group)
            if any(offsets.get(tp, 0) < end for tp, end in self.ends.items()):
                return False
        return True


class Report(NamedTuple):
    """What is told while it goes on. `eta_s`: None while it cannot be told."""

    standing: Standing
    rate: float
    eta_s: float | None


@dataclass
class Meter:
    """Records a second, over the last while: commits come in lumps."""

    seen: list[tuple[float, int]] = field(default_factory=list)

    def report(self, standing: Standing, now: float) -> Report:
        self.seen = [(at, done) for at, done in self.seen if now - at <= RATE_S] + [(now, standing.done)]
        (first, before), left = self.seen[0], standing.total - standing.done
        rate = (standing.done - before) / (now - first) if now > first else 0.0
        return Report(standing, rate, left / rate if rate > 0 else None)


# ------------------------------------------------------------------------------------------------------------------- working
class Crew(Protocol):
    """Those who build it."""

    def start(self) -> None: ...
    def failed(self) -> str | None:
        """Why it cannot go on."""
        ...

    def stop(self) -> None: ...


class Processes:
    """Worker processes under a supervisor on a thread of its own."""

    def __init__(self, supervisor: Supervisor, logs: Sequence[Path]) -> None:
        self.supervisor, self.logs = supervisor, logs
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self._run, name="rebuild")
        self.code: int | None = None

    def _run(self) -> None:
        self.code = self.supervisor.run(self.stopping.is_set)

    def start(self) -> None:
        self.thread.start()

    def failed(self) -> str | None:
        if self.thread.is_alive() or self.stopping.is_set():
            return None
        said = [line for log in self.logs if log.exists() for line in log.read_text(errors="replace").splitlines()]
        return f"a process that builds it ended with {self.code}:\n" + "\n".join(said[-LOG_LINES:])

    def stop(self) -> None:
        self.stopping.set()
        if self.thread.ident is not None:
            self.thread.join()


@dataclass(frozen=True)
class Built:
    """What a rebuild has done. `records` of its inputs, read in `seconds` by this run."""

    agent: str
    state: Literal["ready", "building"]
    records: int
    seconds: float
    resumed: bool


def build(
    plan: Plan,
    cluster: Cluster,
    agent: str,
    crew_of: Callable[[Course], Crew],
    say: Callable[[Report], None],
    stopped: Callable[[], bool],
    *,
    governor: Governor | None = None,
    quota: Mapping[str, float] | None = None,
    waiting: Waiting | None = None,
    monotonic: Callable[[], float] = time.monotonic,
    pause: Callable[[float], object] = time.sleep,
) -> Built:
    """All steps. Stopped by `stopped`, it leaves the version as it is: `building`.

    `governor`: sets the pace of the crew. `quota`: that brokers are to give to its client id while it builds.
    Raises UsageError, NotYet; NeedsOperator where a process cannot go on, or somebody has retired it meanwhile.
    """
    projection = version_of(plan, agent)
    refuse(plan, settle_live(plan, cluster), projection)
    held = hold(plan, cluster, plan.agent(agent), waiting or Waiting(HELD_S))
    admin, reader, watch = cluster.admin(), cluster.reader(), control.Watch(plan, cluster)
    try:
        course = begin(plan, cluster, agent)
        _tidy_quotas(plan, admin, course.projection, control.read(plan, cluster))
        crew = crew_of(course)
        look, meter, begun, away = Look(course, admin, reader), Meter(), monotonic(), ""
        standing = look()
        before = standing.done
        try:
            # 4 work
            _set_quota(admin, course.agent.group, quota or {})
            if governor is not None:
                governor.begin()
            crew.start()
            while standing.phase != "ready":
                if stopped():
                    return Built(agent, "building", standing.done - before, monotonic() - begun, course.resumed)
                if (why := crew.failed()) is not None:
                    raise NeedsOperator(
                        f"{agent} is not built. {why}\nWhen that is mended, say the same again: it goes on"
                    )
                try:
                    if not held.keep():
                        raise NotYet(
                            f"another c360 rebuild has taken over {agent}, as this one was not heard of for long"
                        )
                    _check_wanted(watch, agent)
                    if governor is not None:
                        governor.step()
                    standing = look()
                except BrokerAway as error:  # who builds it waits for it, too
                    if away != (away := str(error)):
                        log.warning("%s; waiting for it", error)
                say(meter.report(standing, monotonic()))
                if standing.phase != "ready":
                    pause(LOOK_S)
            # 5 end
            _check_wanted(watch, agent)
            control.write(plan, cluster, [(version_key(agent), VersionState("ready", named(course.upto)))])
            seconds = monotonic() - begun
        finally:
            crew.stop()
            _set_quota(admin, course.agent.group, {})
        return Built(agent, "ready", standing.done - before, seconds, course.resumed)
    finally:
        watch.close()
        reader.close()
        admin.close()
        held.close()


def build_told(
    plan: Plan,
    cluster: Cluster,
    agent: str,
    crew_of: Callable[[Course], Crew],
    say: Callable[[Report], None],
    stopped: Callable[[], bool],
    *,
    run: Run,
    governor: Governor | None = None,
    quota: Mapping[str, float] | None = None,
) -> Built:
    """As `build`, by a person: told in the audit log, also when it is refused."""
    told = Told("rebuild", after={"agent": agent})
    with run.refusing(told):
        refuse(plan, settle_live(plan, cluster), version_of(plan, agent))
    with run.acting(told) as more:
        built = build(plan, cluster, agent, crew_of, say, stopped, governor=governor, quota=quota)
        more["state"] = built.state
    return built


# ---------------------------------------------------------------------------------------------------------------- apart
def client_id(group: str) -> str:
    """By which brokers know those who build a version, for quotas."""
    return f"{group}.rebuild"


def quota_of(rate: Rate, processes: int) -> dict[str, float]:
    """Bytes a second and broker, whatever becomes of the pace that the processes keep: a fence, not the throttle.

    What they write to the changelog is about as much as they read, and is not to be held back so long that its transactions
    run out.
    """
    most = rate * QUOTA_ROOM if isinstance(rate, float) else QUOTA_EACH * processes
    return {"consumer_byte_rate": most, "producer_byte_rate": 2 * most}


def _set_quota(admin: Admin, group: str, quota: Mapping[str, float]) -> None:
    """Brokers may refuse, or not know quotas; then there is the pace alone."""
    try:
        admin.set_quota(client_id(group), quota)
    except BrokerAway as error:
        log.warning("no quota: %s", error)


def _tidy_quotas(plan: Plan, admin: Admin, mine: ProjectionDeclaration, controls: Controls) -> None:
    """Of versions that nobody builds any more: who was killed could not take its own away."""
    for other in plan.projections:
        built = controls.version(other.agent) is not None
        if built and other != mine and controls.stage(plan, other.name, other.version) != "building":
            _set_quota(admin, plan.agent(other.agent).group, {})


def _check_wanted(watch: control.Watch, agent: str) -> None:
    watch.turn()
    said = watch.controls.version(agent)
    if said is None or said.state != "building":
        raise NotYet(f"somebody else has decided meanwhile that {agent} is {said.state if said else 'not to be built'}")
