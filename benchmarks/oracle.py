"""The rules of the benchmark (spec.md, section 2) in plain Python; decides in doubt.

Written for clearness and on its own: it shares nothing with c360 or a peer.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from benchmarks.workload import Raw


class Profile(NamedTuple):
    """What is to be known of a customer in the end, whatever a contestant's own record looks like."""

    events: int
    opted_out: bool
    orders: int
    revenue_cents: int
    first_seen: int  # epoch ms
    last_seen: int
    distinct_skus: int
    top_sku: str | None
    email: str | None


@dataclass
class Outcome:
    """What a contestant has to have written: a profile per customer, and the dead letters' values, as often as they came."""

    profiles: dict[str, Profile] = field(default_factory=dict)
    dead: Counter[bytes] = field(default_factory=Counter)
    duplicates: int = 0

    @property
    def accepted(self) -> int:
        """Records that are folded."""
        return sum(p.events for p in self.profiles.values())


class _Customer:
    """Everything that was ever said of a customer."""

    def __init__(self) -> None:
        self.times: list[int] = []
        self.choices: list[tuple[int, bool]] = []
        self.emails: list[tuple[int, str]] = []
        self.skus: Counter[str] = Counter()
        self.cents: list[int] = []

    def add(self, event: dict[str, Any]) -> None:
        at, props = event["ts"], event.get("props", {})
        self.times.append(at)
        if "consent" in event:
            self.choices.append((at, event["consent"]["profiling"]))
        if "email" in event:
            self.emails.append((at, event["email"]))
        if "sku" in props:
            self.skus[props["sku"]] += 1
        if event["type"] == "order":
            self.cents.append(round(props["amount"] * 100))

    def profile(self) -> Profile:
        return Profile(
            events=len(self.times),
            opted_out=not max(self.choices)[1] if self.choices else False,
            orders=len(self.cents),
            revenue_cents=sum(self.cents),
            first_seen=min(self.times),
            last_seen=max(self.times),
            distinct_skus=len(self.skus),
            top_sku=min(self.skus, key=lambda sku: (-self.skus[sku], sku), default=None),
            email=max(self.emails)[1] if self.emails else None,
        )


def is_poison(value: bytes) -> bool:
    """Whether these bytes are no event."""
    try:
        event = json.loads(value)
    except ValueError:
        return True
    texts = ("event_id", "customer_id", "type")
    return (
        not isinstance(event, dict)
        or any(not isinstance(event.get(name), str) for name in texts)
        or not isinstance(event.get("ts"), int)
    )


def outcome(records: Iterable[Raw]) -> Outcome:
    """What is right for this input."""
    found = Outcome()
    seen: set[str] = set()
    customers: dict[str, _Customer] = {}
    for _, value in records:
        if is_poison(value):
            found.dead[value] += 1
            continue
        event = json.loads(value)
        if event["event_id"] in seen:
            found.duplicates += 1
            continue
        seen.add(event["event_id"])
        customers.setdefault(event["customer_id"], _Customer()).add(event)
    found.profiles = {name: customer.profile() for name, customer in customers.items()}
    return found
