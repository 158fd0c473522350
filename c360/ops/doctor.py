"""Is this installation fit to run? Facts about broker, topics, groups and disk, each with what to do."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from c360.engine.lag import records_left
from c360.engine.transport import TP, Admin, Cluster
from c360.errors import C360Error
from c360.ops import topics
from c360.plan import Plan

LOW_DISK_BYTES = 1 << 30


@dataclass(frozen=True)
class Check:
    """One thing looked at. `do`: what to do about it, "" when it is fine."""

    name: str
    ok: bool
    message: str
    do: str = ""


def examine(plan: Plan, cluster: Cluster, state_dir: Path) -> list[Check]:
    """All checks, in the order in which to read them."""
    checks = [_state_dir(state_dir)]
    admin = cluster.admin()
    try:
        existing = admin.topics()
    except C360Error as error:
        return [*checks, Check("broker", False, str(error), "check C360_BROKER, the network and the broker's log")]
    checks.append(Check("broker", True, f"{cluster.name} answers, {len(existing)} topics"))
    checks += _topics(plan, admin)
    checks += _groups(plan, cluster, admin, existing)
    return checks


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


def _topics(plan: Plan, admin: Admin) -> list[Check]:
    findings = topics.check(plan, admin)
    if not findings:
        return [Check("topics", True, f"all {len(plan.topics)} as planned")]
    remedies = {
        "missing": "c360 topics apply; raw topics are made by their producers or by c360 load",
        "partitions": "keyed state would be looked for in the wrong place: restore the old count under a new topic name",
        "config": "kafka-configs --alter, or accept it",
    }
    return [Check("topics", False, f.message, remedies[f.problem]) for f in findings]


def _groups(plan: Plan, cluster: Cluster, admin: Admin, existing: dict[str, int]) -> list[Check]:
    checks = []
    reader = cluster.reader()
    try:
        for agent in plan.agents:
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
