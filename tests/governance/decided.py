"""An app with every form of consent, and what its consent topic says."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal

from c360 import AnyIdentifier, App, FromTcf, Record, field, normalize
from c360.engine.memory import _Partition
from c360.engine.transport import TP
from c360.governance.consent import State, decode_state
from c360.testing import TestDriver

NOW = datetime(2026, 11, 2, 9, tzinfo=UTC)
NOW_MS = int(NOW.timestamp() * 1000)

app = App("shop", partitions=3)


@app.identifier("crm", priority=1, unique=True)
class CrmId(str): ...


@app.identifier("email", normalize=normalize.email, personal=False)
class Email(str): ...


@app.identifier("cookie")
class Cookie(str): ...


marketing = app.purpose("marketing")
analytics = app.purpose("analytics")
service = app.purpose("service", basis="contract")


@app.consent("choices")
class Choice(Record):
    identifier: AnyIdentifier | None = field("who")
    crm: CrmId | None
    emails: list[Email] = field(default=[])
    purpose: str | None
    status: str | None
    granted: bool | None
    at: datetime | None
    expires_at: datetime | None


@app.consent("forms", key=CrmId, when={"kind": "consent"}, unmatched="ignore")
class Form(Record):
    purpose: Literal["marketing", "analytics"]
    granted: bool
    at: datetime = field(unit="ms")


@app.consent(
    "web.calls",
    categories={"Advertising": "marketing", "Sharing": "marketing", "Analytics": "analytics", "Video": None},
)
class Call(Record):
    anonymous: Cookie | None = field("anonymousId")
    user: CrmId | None = field("userId")
    preferences: Any = field("context.consent.categoryPreferences")
    at: datetime | None = field("originalTimestamp")


@app.consent(
    "cmp", tcf={"marketing": FromTcf(consent=frozenset({3, 4}), vendor=5), "analytics": FromTcf(consent=frozenset({8}))}
)
class Platform(Record):
    cookie: Cookie
    tc_string: str | None


RAW = tuple(source.asked.topic for source in app.plan().consents)
CONSENT, FENCE, DLQ = "shop.consent", "shop.fence", "shop.dlq"


def driver(partitions: int = 2) -> TestDriver:
    return TestDriver(app, partitions=partitions, now=NOW)


def compacted(t: TestDriver, topic: str = CONSENT) -> dict[bytes, bytes]:
    """What compaction leaves of a topic, tombstones gone, too."""
    left: dict[bytes, bytes] = {}
    for key, value in t.read(topic):
        assert key is not None
        left.pop(key, None)
        if value is not None:
            left[key] = value
    return left


def states(t: TestDriver) -> dict[str, State]:
    """By identifier, after all has come to rest."""
    t.settle()
    return {key.decode(): decode_state(value) for key, value in compacted(t).items()}


def statuses(t: TestDriver) -> dict[str, dict[str, str]]:
    """By identifier and purpose what holds; `conflict` where a grant met a refusal."""
    return {
        identifier: {
            purpose: "conflict" if known.conflict else known.holds.status for purpose, known in sorted(state.items())
        }
        for identifier, state in sorted(states(t).items())
    }


def choice(who: Any, status: Any = "granted", **more: Any) -> dict[str, Any]:
    return {"who": who, "purpose": "marketing", "status": status, "at": "2026-11-02T08:00:00Z", **more}


def call(preferences: Mapping[str, Any] | None, **more: Any) -> dict[str, Any]:
    context = {} if preferences is None else {"consent": {"categoryPreferences": preferences}}
    return {"anonymousId": "c-1", "context": context, **more}


def grow(t: TestDriver, topic: str) -> TP:
    """Add a partition to a topic; the next turn of the agents looks at what there is."""
    partitions = t.cluster.topics[topic].partitions
    with t.cluster.lock:
        partitions.append(_Partition())
        t.cluster.topics_changed([topic])
    look(t)
    return TP(topic, len(partitions) - 1)


def look(t: TestDriver) -> None:
    for loop in t.loops:
        loop._look_again = 0.0
