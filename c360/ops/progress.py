"""Whether an app's agents have read and committed everything there is."""

from __future__ import annotations

from collections.abc import Collection

from c360.engine.transport import TP, Admin, Reader
from c360.plan import Plan


def at_rest(plan: Plan, admin: Admin, reader: Reader, agents: Collection[str] = ()) -> bool:
    """Whether no record is left in any input, of all agents or those named.

    The ends of a log do not tell: transactions leave markers there, which are no records.
    """
    existing = admin.topics()
    for agent in (a for a in plan.agents if not agents or a.name in agents):
        inputs = [TP(t, p) for t in agent.reads for p in range(existing.get(t, 0))]
        positions = {**reader.starts(inputs), **admin.group_offsets(agent.group)}
        if any(reader.read({tp: positions[tp] for tp in inputs})):
            return False
    return True
