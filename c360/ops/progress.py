"""Whether an app's agents have read and committed everything there is."""

from __future__ import annotations

from c360.engine.transport import TP, Admin, Reader
from c360.plan import Plan


def at_rest(plan: Plan, admin: Admin, reader: Reader) -> bool:
    """After the groups' offsets there is no record in any input. Ends do not tell: transactions leave markers there."""
    existing = admin.topics()
    for agent in plan.agents:
        inputs = [TP(t, p) for t in agent.reads for p in range(existing.get(t, 0))]
        positions = {**reader.starts(inputs), **admin.group_offsets(agent.group)}
        if any(reader.read({tp: positions[tp] for tp in inputs})):
            return False
    return True
