"""What operators have said of who is who comes of no raw record: a new version of govern does not read it anywhere.

So before identity first reads the links of a version, what stands in those of the version before is written there, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from c360.engine.transport import TP, Batch, Cluster, Reader
from c360.identity.facts import OPERATORS, decode_fact
from c360.plan import Plan


def carry(plan: Plan, cluster: Cluster) -> int:
    """Bring it from each version of govern to the next that has none of it. How many facts; may be repeated."""
    views = [view for view in plan.views if view.deciding]
    if len(views) < 2:
        return 0
    admin, reader = cluster.admin(), cluster.reader()
    carried = 0
    try:
        for before, after in pairwise(views):
            if any(admin.group_offsets(plan.loop(identity)) for identity in after.deciding):
                continue  # it has begun to read, and has had all since
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
