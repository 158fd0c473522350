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


@dataclass
class _Customer:
    """What was said of a customer, as far as it decides the profile."""

    times: tuple[int, int]  # least and greatest
    events: int = 0
    choice: tuple[int, bool] | None = None  # the greatest (ts, value)
    email: tuple[int, str] | None = None
    skus: Counter[str] = field(default_factory=Counter)
    orders: int = 0
    cents: int = 0

    def add(self, event: dict[str, Any]) -> None:
        at, props = event["ts"], event.get("props", {})
        self.events += 1
        self.times = min(self.times[0], at), max(self.times[1], at)
        if "consent" in event:
            said = at, event["consent"]["profiling"]
            self.choice = said if self.choice is None else max(self.choice, said)
        if "email" in event:
            used = at, event["email"]
            self.email = used if self.email is None else max(self.email, used)
        if "sku" in props:
            self.skus[props["sku"]] += 1
        if event["type"] == "order":
            self.orders += 1
            self.cents += round(props["amount"] * 100)

    def profile(self) -> Profile:
        return Profile(
            events=self.events,
            opted_out=self.choice is not None and not self.choice[1],
            orders=self.orders,
            revenue_cents=self.cents,
            first_seen=self.times[0],
            last_seen=self.times[1],
            distinct_skus=len(self.skus),
            top_sku=min(self.skus, key=lambda sku: (-self.skus[sku], sku), default=None),
            email=None if self.email is None else self.email[1],
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
        name, at = event["customer_id"], event["ts"]
        if name not in customers:
            customers[name] = _Customer((at, at))
        customers[name].add(event)
    found.profiles = {name: customer.profile() for name, customer in customers.items()}
    return found
