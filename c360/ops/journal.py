"""The journal of a reset: the agent's record in `{app}.control`, which says how far one is (`c360.ops.reset`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from c360.agents.control import ResetJournal, encode, reset_key
from c360.engine.transport import Admin, Cluster, Producer
from c360.errors import NeedsOperator
from c360.ops import control
from c360.ops.records import Message
from c360.plan import Plan, PlannedAgent


def command(agent: str, target: str) -> str:
    """What to type."""
    return f"c360 reset {agent} {target} --execute"


def loops_of(plan: Plan, agent: PlannedAgent) -> set[str]:
    """Inputs in which its own tasks tell each other what they know."""
    return {topic for topic in agent.reads if topic in agent.writes} - {view.links for view in plan.views}


def read_journal(plan: Plan, cluster: Cluster, existing: Mapping[str, int], agent: str) -> ResetJournal | None:
    """None of an agent that is not being reset. Raises NeedsOperator where it could not be written."""
    if plan.control not in existing:
        raise NeedsOperator(
            f"there is no {plan.control}, in which is written how far a reset is: nothing was changed. `c360 topics apply`"
            " makes it, and so does a worker; which versions are live it does not know then (c360 promote)"
        )
    return control.read(plan, cluster).reset(agent)


def refuse_active(admin: Admin, agent: PlannedAgent) -> None:
    """Raises NeedsOperator while somebody runs it."""
    if members := admin.group_members(agent.group):
        raise NeedsOperator(
            f"{agent.name} is running: its group {agent.group} has {members} members. Stop its workers first"
        )


def at(journal: ResetJournal, step: Literal["reset", "beginning", "undoing"]) -> ResetJournal:
    """The same, at another step."""
    return msgspec.structs.replace(journal, step=step)


def write(plan: Plan, cluster: Cluster, agent: PlannedAgent, journal: ResetJournal | None) -> None:
    """None: it is over."""
    control.write(plan, cluster, [(reset_key(agent.name), journal)])


def message(plan: Plan, agent: PlannedAgent, journal: ResetJournal | None) -> Message:
    """The same as a part of a transaction."""
    return Message(plan.control, reset_key(agent.name), None if journal is None else encode(journal), 0)


def fence(agent: PlannedAgent) -> str:
    """The transactional id of whoever begins a new life, or undoes it: one at a time."""
    return f"{agent.group}.reset"


def commit(producer: Producer, messages: Sequence[Message]) -> None:
    """All of them or none."""
    producer.begin()
    for said in messages:
        producer.produce(*said)
    producer.commit()
