"""Tenants never meet: cross-tenant fuzz. More of it: `python -m tests.governance.tenant_runs --runs 40`."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from c360 import AnyIdentifier, App, Record
from c360.codecs.record import RecordMeta
from c360.errors import DeclarationError
from tests.governance.tenant_town import differences, foreign, records, run, town


@pytest.mark.parametrize("seed", range(6))
def test_each_tenant_has_what_it_would_have_alone(seed: int) -> None:
    assert differences(seed, 120, accidents=seed % 2 == 1) == []


def test_who_vanishes_and_hears_of_others_in_one_moment_keeps_no_assignment() -> None:
    """An erased cookie led nobody any more, was told of a living customer in the same round, and its assignment stayed."""
    assert differences(1009, 250) == []


def test_who_vanished_and_only_points_is_not_made_a_profile_when_the_mark_is_taken_off() -> None:
    """A late word tied the leader of a block that had vanished to another one; unmarked, it was assigned, by its clear id."""
    assert differences(3003, 250, accidents=True) == []


def test_there_is_something_to_compare() -> None:
    found = run(town(0), records(0, 250))
    assert all(len(found[what]) > 5 for what in ("service", "marketing", "mailer", "assignments", "links", "consent"))
    assert found["suppressed"]
    assert list(foreign(found)) == []
    assert list(foreign({**found, "service": {"x": {"page": "<a> 1", "notes": ["<b> 2"]}}}))


# ------------------------------------------------------------------------------------------------- what the plan refuses
def shop(other: str) -> App:
    """A source with tenants, and something beside it without."""
    app = App("tenants", partitions=1)
    crm: Any = app.identifier("crm")(type("CrmId", (str,), {}))
    fields = {"id": str, "org": str, "customer": crm}
    visit = RecordMeta("Visit", (Record,), {"__annotations__": fields})
    app.source("visits", event_id="id", subject="customer", tenant="org")(visit)
    asked = {"customer": crm, "purpose": str, "granted": bool, "at": datetime}
    if other == "source":
        app.source("mixed", event_id="id", subject="customer")(
            RecordMeta("Mixed", (Record,), {"__annotations__": {"id": str, "customer": crm}})
        )
    if other == "key":
        app.source("mixed", event_id="id", key=crm)(RecordMeta("Mixed", (Record,), {"__annotations__": {"id": str}}))
    if other == "consent":
        app.purpose("marketing")
        app.consent("mixed")(RecordMeta("Mixed", (Record,), {"__annotations__": asked}))
    if other == "erasure":
        app.erasure("mixed")(RecordMeta("Mixed", (Record,), {"__annotations__": {"who": AnyIdentifier}}))
    if other == "another":
        own: Any = app.identifier("staff")(type("StaffId", (str,), {}))
        app.source("mixed", event_id="id", subject="who")(
            RecordMeta("Mixed", (Record,), {"__annotations__": {"id": str, "who": own}})
        )
    return app


@pytest.mark.parametrize("other", ["source", "key", "consent", "erasure"])
def test_without_a_tenant_nobody_s_customers_can_be_named(other: str) -> None:
    """`a/7` without a tenant would be customer 7 of tenant a."""
    with pytest.raises(DeclarationError, match=r"Mixed has crm identifiers and no tenant="):
        shop(other).plan()


def test_identifiers_of_its_own_need_no_tenant() -> None:
    shop("another").plan()
