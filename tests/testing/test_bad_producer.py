"""One value for everybody, from a producer that means nobody by it: it joins nobody, says so once, and costs little."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

import pytest

from c360.agents.identity import IdentityAgent
from c360.serving.metrics import page_of
from c360.testing import TestDriver
from tests.testing.people import app
from tests.testing.shop import change
from tests.testing.world import NOW

PEOPLE, FEW = 10_000, 400  # of these it comes in small batches, as it would
EVERYBODYS = "info@shop.example"
LIMIT = 50  # cookies in a profile


def customer(t: TestDriver, n: int) -> None:

    row = {"id": n, "crm": str(n + 1), "email": EVERYBODYS, "born": None, "name": None}
    t.send("accounts", json.dumps({"id": n}), change("c", n + 1, row))


def cookie(t: TestDriver, n: int) -> None:
    visit(t, f"e{n}", n, [EVERYBODYS])


def visit(t: TestDriver, id: str, n: int, emails: list[str]) -> None:
    said = {
        "id": id,
        "cookie": f"c-{n}",
        "customer": None,
        "emails": emails,
        "page": "a",
        "ts": "2026-11-02T08:00:00Z",
    }
    t.send("visits", "k", said)


def metric(t: TestDriver, name: str, **labels: str) -> float:
    said = ",".join(f'{key}="{value}"' for key, value in labels.items())
    (found,) = re.findall(rf"^{name}{{{said}}} (\S+)$", page_of(t.loops, {}, t.now_ms), re.MULTILINE)
    return float(found)


def changes(t: TestDriver) -> list[dict[str, Any]]:
    return [said for said in t.topic("people.identity-changes.v1") if said["change"] == "status"]


def profiles(t: TestDriver) -> dict[str, Any]:
    t.settle()
    found = dict(t.read("people.customer.v1"))
    return {(key or b"").decode(): json.loads(value) for key, value in found.items() if value is not None}


@pytest.mark.parametrize("whose", [customer, cookie])
def test_one_email_for_ten_thousand_joins_nobody_and_costs_about_a_message_each(whose: Any) -> None:
    with TestDriver(app, now=NOW) as t:
        for n in range(20):  # those who are joined by something else stay so
            visit(t, f"own{n}", n, [f"{n % 10}@mail.org"])
        most = 1
        for n in range(PEOPLE):
            whose(t, n)
            if n < FEW and n % 20 == 0:
                most = max(most, *(record["subjects_total"] for record in profiles(t).values()))
        found = profiles(t)
        assert most == (LIMIT if whose is cookie else 2), "before it was known that everybody has it"
        assert Counter(record["subjects_total"] for record in found.values()) == {2: 10, 1: len(found) - 10}
        assert not any(f"email:{EVERYBODYS}" in record["identifiers"] for record in found.values())
        statuses = [(said["subject"], said["status"]) for said in changes(t)]
        assert statuses[-1] == (f"email:{EVERYBODYS}", "hub")
        assert {subject for subject, _ in statuses} == {f"email:{EVERYBODYS}"}
        assert len(statuses) <= 2, "shared, and then a hub"
        for agent in (loop.agent for loop in t.loops):
            if isinstance(agent, IdentityAgent):
                counters = agent.counters
                assert counters.local + counters.remote < 1.3 * counters.novel
                assert metric(t, "c360_identity_inactive_nodes", agent=agent.name, status="hub") == 1
                refused = metric(t, "c360_identity_refused_links", agent=agent.name, reason="identifier_inactive")
                assert refused == PEOPLE
                assert metric(t, "c360_identity_refused_links", agent=agent.name, reason="quarantine") == 0
