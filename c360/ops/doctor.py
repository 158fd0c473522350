"""Is this installation fit to run? Facts about broker, topics, groups, clocks and disk, each with what to do.

Each check is a function of the `Ground`; another one is another line in CHECKS.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from c360.agents.control import Controls
from c360.agents.readings import delivered
from c360.clock import Clock, system
from c360.engine.lag import records_left
from c360.engine.restore import last_positions
from c360.engine.transport import TP, Cluster
from c360.errors import BrokerAway, C360Error
from c360.governance.keys import MasterKeys, open_secret
from c360.ops import contracts, control, topics
from c360.ops.contracts import Subjects
from c360.ops.keys import secret_of, was_made
from c360.plan import Plan

LOW_DISK_BYTES = 1 << 30
APART_MS = 250  # a clock that differs by more makes doors wait, or trust what is too old (docs/consent.md)
PROBE = b"c360-doctor/0"  # key of the deletion by which the broker's clock is read


@dataclass(frozen=True)
class Check:
    """One thing looked at. `do`: what to do about it, "" when it is fine."""

    name: str
    ok: bool
    message: str
    do: str = ""


@dataclass(frozen=True)
class Ground:
    """What checks look at. existing: topics of the broker and their partition counts. clock: this machine's.

    master: opens the master keys of the settings; None: they are not looked at. controls: what was decided of versions.
    subjects: the schema registry, where doors write Avro.
    """

    plan: Plan
    cluster: Cluster
    existing: dict[str, int]
    clock: Clock = system
    master: Callable[[], MasterKeys] | None = None
    controls: Controls = field(default_factory=Controls)
    subjects: Subjects | None = None


def examine(
    plan: Plan,
    cluster: Cluster,
    state_dir: Path,
    *,
    clock: Clock = system,
    master: Callable[[], MasterKeys] | None = None,
    subjects: Subjects | None = None,
) -> list[Check]:
    """All checks, in the order in which to read them."""
    checks = [_state_dir(state_dir)]
    try:
        existing = cluster.admin().topics()
    except C360Error as error:
        return [*checks, Check("broker", False, str(error), "check C360_BROKER, the network and the broker's log")]
    checks.append(Check("broker", True, f"{cluster.name} answers, {len(existing)} topics"))
    ground = Ground(plan, cluster, existing, clock, master, control.read(plan, cluster), subjects)
    return [*checks, *(found for check in CHECKS for found in check(ground))]


def _state_dir(path: Path) -> Check:
    at = path
    while not at.exists():
        at = at.parent if at != at.parent else Path("/")
    if not os.access(at, os.W_OK):
        return Check(
            "state directory", False, f"{path} cannot be written", "set C360_STATE_DIR to a directory of this user"
        )
    free = shutil.disk_usage(at).free
    if free < LOW_DISK_BYTES:
        return Check("state directory", False, f"{path}: {free >> 20} MB free", "make room, or move C360_STATE_DIR")
    return Check("state directory", True, f"{path}: {free >> 30} GB free")


def _topics(ground: Ground) -> list[Check]:
    findings = topics.check(ground.plan, ground.cluster.admin(), gone=ground.controls.gone(ground.plan))
    if not findings:
        return [Check("topics", True, f"all {len(ground.plan.topics)} as planned")]
    remedies = {
        "missing": "c360 topics apply; raw topics are made by their producers or by c360 load",
        "partitions": "keyed state would be looked for in the wrong place: restore the old count under a new topic name",
        "config": "kafka-configs --alter, or accept it",
        "retention": "kafka-configs --alter to what `c360 plan` says, before more is cut; or another replay= on the projection",
        "undeclared": "kafka-topics --delete and kafka-consumer-groups --delete, or declare it again",
    }
    return [Check("topics", False, f.message, remedies[f.problem]) for f in findings]


def _schemas(ground: Ground) -> list[Check]:
    """Whether the registry has what doors write by, as each worker asks at its start."""
    if ground.subjects is None:
        return []
    try:
        findings = contracts.check(ground.plan, ground.subjects)
    except C360Error as error:
        return [Check("schemas", False, str(error), "check C360_REGISTRY and the registry's log")]
    if not findings:
        return [Check("schemas", True, "the registry has those of all doors that write Avro")]
    return [Check("schemas", False, f.message.partition(": run ")[0], contracts.APPLY) for f in findings]


def _clock(ground: Ground) -> list[Check]:
    """This machine's clock against the broker's: doors compare the two. Only where the app has a fence."""
    fence = ground.plan.fence
    if fence not in ground.existing or not ground.plan.governance:
        return []
    try:
        apart = _apart_ms(ground.cluster, TP(fence, 0), ground.clock)
    except C360Error as error:
        return [Check("clock", False, f"the broker's time could not be read: {error}", "c360 topics check")]
    if abs(apart) <= APART_MS:
        return [Check("clock", True, f"this machine and the broker differ by less than {abs(apart) + 1} ms")]
    where = "ahead of" if apart > 0 else "behind"
    return [
        Check(
            "clock",
            False,
            f"this machine is {abs(apart)} ms {where} the broker",
            "set the clocks right, by NTP on machines of workers and of brokers: doors compare the two",
        )
    ]


def _apart_ms(cluster: Cluster, tp: TP, clock: Clock) -> int:
    """How far this clock is ahead of the broker's, at least; 0: it may be right. By the append time of a deletion of nothing.

    The broker took the record between two looks at this clock, so however long that lasts it is no difference.
    """
    times: list[int | None] = []
    producer = cluster.producer()
    try:
        before = clock()
        producer.produce(
            tp.topic, PROBE, None, tp.partition, delivered=lambda _, appended_ms: times.append(appended_ms)
        )
        producer.flush()
        after = clock()
    finally:
        producer.close()
    at = times[0] if times else None
    if at is None:
        raise BrokerAway(f"{tp.topic} does not say when it was appended")
    return before - min(before, at) - (at - min(at, after))


def _keys(ground: Ground) -> list[Check]:
    """Whether these are the app's master keys: they open its secret, as each worker asks at its start."""
    plan = ground.plan
    if not plan.needs_keys or ground.master is None:
        return []
    try:
        master = ground.master()
        if (value := secret_of(plan, ground.cluster)) is None:
            if was_made(plan, ground.cluster):
                lost = f"{plan.keys} has lost the secret of {plan.app}: what is sealed cannot be opened any more"
                return [
                    Check(
                        "keys",
                        False,
                        lost,
                        "bring the topic back from a copy of it; docs/sealing.md, when keys are lost",
                    )
                ]
            return [
                Check("keys", False, f"{plan.app} has no secret yet; generation {master.current}", "c360 keys init")
            ]
        open_secret(plan.app, value, master)
    except C360Error as error:
        return [Check("keys", False, str(error), "give this process the master keys of the app (C360_KEYS)")]
    return [Check("keys", True, f"generation {master.current} wraps, and the app's secret opens")]


def _rights(ground: Ground) -> list[Check]:
    """The agents without which doors wait, where somebody waits for them."""
    plan, admin = ground.plan, ground.cluster.admin()
    asked = {"consent": plan.consents, "erasure": plan.erasures_said}
    checks = []
    for name, sources in asked.items():
        found = [agent for agent in plan.agents if agent.name == name]
        if not found or not (sources or plan.doors) or admin.group_members(found[0].group):
            continue
        waits = "doors deliver nothing until it runs" if plan.doors else "what comes in is not acted on"
        checks.append(
            Check(f"{name} runs", False, f"the group {found[0].group} has no members: {waits}", "c360 worker")
        )
    return checks


def _groups(ground: Ground) -> list[Check]:
    checks = []
    existing, admin, reader = ground.existing, ground.cluster.admin(), ground.cluster.reader()
    try:
        for agent in (a for a in ground.plan.agents if ground.controls.runs(ground.plan, a.name)):
            inputs = [TP(t, p) for t in agent.reads for p in range(existing.get(t, 0))]
            offsets = admin.group_offsets(agent.group)
            starts = reader.starts(inputs)
            lag = sum(records_left(reader, {tp: max(starts[tp], offsets.get(tp, 0)) for tp in inputs}).values())
            cut = sorted({tp.topic for tp in inputs if tp in offsets and offsets[tp] < starts[tp]})
            members = admin.group_members(agent.group)
            if cut:
                checks.append(
                    Check(
                        agent.name,
                        False,
                        f"retention has cut unread records of {', '.join(cut)}",
                        f"c360 reset {agent.name} --to-earliest, and give these topics a longer retention",
                    )
                )
            else:
                idle = "" if members or not lag else "c360 worker"
                checks.append(Check(agent.name, not idle, f"{members} members, {lag} records behind", idle))
    finally:
        reader.close()
    return checks


def _sinks(ground: Ground) -> list[Check]:
    """Whether sinks deliver the version that is live, where there are several."""
    plan, checks, reader = ground.plan, list[Check](), ground.cluster.reader()
    try:
        for door in (door for door in plan.doors if door.sink is not None and len(door.versions) > 1):
            name, topic = door.projection.name, f"{plan.leaves(door)}.changelog"
            live = ground.controls.live(plan, name)
            found = [last_positions(reader, TP(topic, p)) for p in range(ground.existing.get(topic, 0))]
            tasks = [delivered(said.notes) for said in found if said is not None]
            late = sum(version != live for version in tasks)
            if late:
                said = f"{late} of {len(tasks)} tasks do not deliver {name}@{live} yet, which is live"
                checks.append(
                    Check(f"{door.agent} version", False, said, "wait, if its workers run: they go over by themselves")
                )
            elif tasks:
                checks.append(Check(f"{door.agent} version", True, f"delivers {name}@{live}"))
    finally:
        reader.close()
    return checks


CHECKS: Sequence[Callable[[Ground], list[Check]]] = (_topics, _schemas, _keys, _clock, _rights, _sinks, _groups)
