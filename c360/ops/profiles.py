"""One profile out of a projection's topic, by any of its identifiers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import orjson

from c360.agents.wire import decode_assignment
from c360.declare import ProjectionDeclaration
from c360.engine.transport import TP, Cluster
from c360.errors import Misfit, UsageError
from c360.governance.names import Names
from c360.governance.sealing import is_sealed, read_sealed
from c360.ops.records import records
from c360.plan import Plan


def chosen_projection(plan: Plan, name: str | None, live: Callable[[str], int]) -> ProjectionDeclaration:
    """The projection "customer", which is its live version, or "customer@1"; without a name, the only one.

    `live`: which version that is, asked only where there are several. Raises UsageError.
    """
    found = [p for p in plan.projections if name is None or name in (p.name, p.agent)]
    names = {p.name for p in found}
    if len(found) > 1 and len(names) == 1:
        version = live(names.pop())
        found = [p for p in found if p.version == version]
    if len(found) == 1:
        return found[0]
    known = ", ".join(p.agent for p in plan.projections) or "none"
    raise UsageError(f"which projection? {plan.app!r} has {known}; say --projection NAME")


NO_NAMES = Names()  # of whoever has no keys: enough where nothing that is asked for is personal


def normalized(plan: Plan, identifier: str, names: Names = NO_NAMES) -> str:
    """The label of an identifier as typed ("crm:7", "email:~k3v…"). Raises UsageError for an unknown namespace or no value,
    and for a personal one where `names` cannot make its token."""
    name, colon, value = identifier.partition(":")
    namespaces = {n.name: n for n in plan.identifiers.values()}
    if not colon or name not in namespaces:
        raise UsageError(
            f"{identifier!r} is not namespace:value; namespaces of {plan.app!r} are {', '.join(namespaces)}"
        )
    return names.asked(namespaces[name], value, tenants=any(source.tenant for source in plan.sources))


SEALED = "sealed"


def shut(value: Any) -> Any:
    """A JSON value as people are shown it who may not open it: in place of what is sealed, which field that is.

    Ciphertext tells nobody anything, and would be in a terminal's log. `{"sealed": "Customer.name"}`; "" where it is altered.
    """
    if isinstance(value, dict):
        if not is_sealed(value):
            return {name: shut(each) for name, each in value.items()}
        try:
            return {SEALED: read_sealed(value).field}
        except Misfit:
            return {SEALED: ""}
    return [shut(each) for each in value] if isinstance(value, list) else value


def find_profile(
    plan: Plan, cluster: Cluster, projection: ProjectionDeclaration, identifier: str, names: Names = NO_NAMES
) -> dict[str, Any] | None:
    """The latest record of the profile that has the identifier, None when there is none. Reads topics once, whole.

    Records list their first hundred identifiers; assignments know the others, and what an old profile id is called now.
    """
    wanted = normalized(plan, identifier, names)
    identity = plan.identity_of(projection)
    assigned = None if identity is None else _assigned(plan.assignments(identity), cluster, wanted)
    needle, home = wanted.encode(), None if assigned is None else assigned.encode()
    latest: dict[bytes, bytes | None] = {}
    for key, value in _records(cluster, plan.projected(projection)):
        if key in (needle, home) or key in latest or (value is not None and needle in value):
            latest[key] = value
    if home is not None and (value := latest.get(home)) is not None:
        at_home: dict[str, Any] = orjson.loads(value)
        return at_home
    for value in latest.values():
        if value is not None:
            record: dict[str, Any] = orjson.loads(value)
            if wanted in record["identifiers"]:
                return record
    return None


def _assigned(topic: str, cluster: Cluster, wanted: str) -> str | None:
    """The profile that a subject, an identifier or an old profile id belongs to, by the assignments there are now."""
    needle = wanted.encode()
    latest: dict[bytes, bytes | None] = {}
    for key, value in _records(cluster, topic):
        if key == needle or key in latest or (value is not None and needle in value):
            latest[key] = value
    said = {key: decode_assignment(value) for key, value in latest.items() if value is not None}
    if needle in said:
        return said[needle].profile
    holding = [a.profile for a in said.values() if wanted in a.identifiers]
    renamed = [a.profile for a in said.values() if a.was == wanted]
    return min(holding or renamed, default=None)


def _records(cluster: Cluster, topic: str) -> Iterator[tuple[bytes, bytes | None]]:
    """Keys and values of a compacted topic; nothing where there is no such topic yet."""
    count = cluster.admin().topics().get(topic)
    if count is None:
        return
    reader = cluster.reader()
    try:
        for _, _, key, value in records(reader, reader.starts([TP(topic, p) for p in range(count)])):
            assert key is not None
            yield key, value
    finally:
        reader.close()
