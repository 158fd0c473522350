"""One profile out of a projection's topic, by any of its identifiers."""

from __future__ import annotations

from typing import Any

import orjson

from c360.declare import ProjectionDeclaration
from c360.engine.transport import TP, Cluster
from c360.errors import UsageError
from c360.ops.records import records
from c360.plan import Plan


def chosen_projection(plan: Plan, name: str | None) -> ProjectionDeclaration:
    """The projection "customer" or "customer@1"; without a name, the only one. Raises UsageError."""
    found = [p for p in plan.projections if name is None or name in (p.name, p.agent)]
    if len(found) == 1:
        return found[0]
    known = ", ".join(p.agent for p in plan.projections) or "none"
    raise UsageError(f"which projection? {plan.app!r} has {known}; say --projection NAME")


def normalized(plan: Plan, identifier: str) -> str:
    """The label of an identifier as typed ("crm:7"). Raises UsageError for an unknown namespace or no value."""
    name, colon, value = identifier.partition(":")
    namespaces = {n.name: n for n in plan.identifiers.values()}
    if not colon or name not in namespaces:
        raise UsageError(
            f"{identifier!r} is not namespace:value; namespaces of {plan.app!r} are {', '.join(namespaces)}"
        )
    return namespaces[name].label(value)


def find_profile(
    plan: Plan, cluster: Cluster, projection: ProjectionDeclaration, identifier: str
) -> dict[str, Any] | None:
    """The latest record that lists the identifier, None when there is none. Reads the topic once, whole."""
    wanted = normalized(plan, identifier)
    topic = plan.projected(projection)
    count = cluster.admin().topics().get(topic)
    if count is None:
        return None
    reader = cluster.reader()
    partitions = [TP(topic, p) for p in range(count)]
    needle = wanted.encode()
    latest: dict[bytes, bytes | None] = {}
    try:
        for _, _, key, value in records(reader, reader.starts(partitions)):
            assert key is not None
            if key == needle or key in latest or (value is not None and needle in value):
                latest[key] = value
    finally:
        reader.close()
    for value in latest.values():
        if value is not None:
            record: dict[str, Any] = orjson.loads(value)
            if wanted in record["identifiers"]:
                return record
    return None
