"""Delete what a loop has read: messages between tasks are of no use once the task that reads them has committed."""

from __future__ import annotations

from c360.engine.transport import TP, Admin
from c360.plan import Plan


def trim(plan: Plan, admin: Admin, done: dict[TP, int]) -> None:
    """Delete the records of the plan's loop topics below what every group that reads them has committed; never above.

    `done`: up to where that was done before, changed in place. The committed offset and the state are of one
    transaction, so whoever restores the state goes on at or after it.
    """
    loops = {topic.name for topic in plan.topics if topic.role == "loop"}
    committed = {
        agent.name: admin.group_offsets(agent.group) for agent in plan.agents if loops.intersection(agent.reads)
    }
    before: dict[TP, int] = {}
    for topic in sorted(loops):
        readers = [committed[agent.name] for agent in plan.agents if topic in agent.reads]
        for tp in {tp for offsets in readers for tp in offsets if tp.topic == topic}:
            if all(tp in offsets for offsets in readers):
                before[tp] = min(offsets[tp] for offsets in readers)
    news = {tp: offset for tp, offset in before.items() if offset > done.get(tp, 0)}
    if news:
        admin.delete_records(news)
        done.update(news)
