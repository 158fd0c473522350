"""Before a version of govern runs beside another for the first time: what it could not know from raw topics."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import pairwise

from c360.engine.transport import TP, Batch, Cluster, Reader
from c360.identity.facts import OPERATORS, decode_fact
from c360.ops.reset import refuse_after_lift
from c360.plan import Plan


def begin(plan: Plan, cluster: Cluster, names: Collection[str]) -> None:
    """Before agents of these names are started. Raises NeedsOperator where a new version of govern must not begin."""
    if len(plan.governs) < 2:
        return
    admin = cluster.admin()
    try:
        groups = {view.govern_agent: admin.group_offsets(plan.agent(view.govern_agent).group) for view in plan.views}
    finally:
        admin.close()
    if any(groups.values()) and any(name in names and not offsets for name, offsets in groups.items()):
        refuse_after_lift(plan, cluster)
    carry(plan, cluster)


def carry(plan: Plan, cluster: Cluster) -> int:
    """What operators have said of who is who comes of no raw record: before identity first reads the links of a version of
    govern, it is written there from those of the version before. How many facts; may be repeated.
    """
    views = [view for view in plan.views if view.deciding]
    if len(views) < 2:
        return 0
    admin, reader = cluster.admin(), cluster.reader()
    carried = 0
    try:
        for before, after in pairwise(views):
            own = [identity for identity in plan.identities if identity.govern == after.govern]
            if not own or any(admin.group_offsets(plan.loop(identity)) for identity in own):
                continue  # nobody reads it; or somebody has begun to, and it has had all since
            counts = admin.topics()
            producer = cluster.producer()
            for batch, i in _said(reader, before.links, counts.get(before.links, 0)):
                producer.produce(after.links, batch.keys[i], batch.values[i], batch.tp.partition, batch.headers(i))
                carried += 1
            producer.flush()
            producer.close()
    finally:
        reader.close()
        admin.close()
    return carried


def _said(reader: Reader, topic: str, partitions: int) -> Iterator[tuple[Batch, int]]:
    """Where operators have said something."""
    for batches in reader.read(reader.starts([TP(topic, p) for p in range(partitions)])):
        for batch in batches:
            for i, (key, value) in enumerate(zip(batch.keys, batch.values, strict=True)):
                if key is not None and value is not None and _is_of_operators(key, value):
                    yield batch, i


def _is_of_operators(key: bytes, value: bytes) -> bool:
    try:
        return decode_fact(key, value).source == OPERATORS
    except ValueError:  # no fact: the agent puts it aside
        return False
