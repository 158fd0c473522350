"""Logs, metrics and what is said of errors in user code: no value of a customer, whatever fails."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from c360 import App, Personal, Projection, Record, count, derived, newest, normalize
from c360.agents.govern import GovernTask
from c360.serving.metrics import page_of
from c360.testing import TestDriver
from tests.governance.sealed_shop import SECRETS, app, forms_of, said, written
from tests.governance.test_sealed_stream import broken

NAME, MAIL = "Ann Miller", "ann@mail.org"


def clumsy() -> App:
    """User code that says what it was given when it falls over: an enrichment, a derived value, a sink."""
    made = App("clumsy", partitions=1)
    crm: Any = made.identifier("crm")(type("CrmId", (str,), {}))
    email: Any = made.identifier("email", normalize=normalize.email)(type("Email", (str,), {}))
    service = made.purpose("service", basis="contract")

    class Visit(Record):
        id: str
        customer: crm
        mail: email
        name: Personal[str]

    made.source("visits", event_id="id", subject="customer", purposes=[service])(Visit)

    @made.enrich(Visit)
    def first(visit: Any) -> Personal[str]:
        if visit.id == "1":
            raise ValueError(f"{visit.name} of {visit.mail}")
        return str(visit.name)

    @made.projection("customer", purposes=[service])
    class Customer(Projection):
        visits: int = count(Visit)
        name: str | None = newest(Visit.name)

        @derived
        def loud(self) -> str:
            raise KeyError(self.name)

    @made.sink("far", projection=Customer, purpose=service)
    def far(profile: Any) -> dict[str, Any]:
        raise RuntimeError(f"cannot send {profile.name}")

    return made


def visit(number: int) -> dict[str, Any]:
    return {"id": str(number), "customer": "7", "mail": MAIL, "name": NAME}


def test_user_code_that_says_values_is_not_quoted(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with TestDriver(clumsy()) as t:
        t.send("visits", MAIL, visit(1))
        t.send("visits", MAIL, visit(2))
        reasons = {letter["reason"] for letter in t.topic("clumsy.dlq")}
        assert reasons == {"enrichment-failed", "derived-failed", "sink-failed"}
        allowed = {t.plan.leaves(door) for door in t.plan.doors}  # where it leaves
        everywhere = [(at, data) for at, data in written(t) if at.rpartition("/")[0] not in allowed]
        everywhere += [("log", record.getMessage().encode()) for record in caplog.records]
        everywhere += [("log", str(record.exc_info).encode()) for record in caplog.records]
        everywhere += [("metrics", page_of(t.loops, {}, 0).encode())]
        secrets = [form for secret in (NAME, MAIL) for form in forms_of(secret)]
        assert [at for at, data in everywhere if any(form in data for form in secrets)] == []


def test_logs_and_metrics_of_what_does_not_fit_have_no_values(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with TestDriver(app) as t:
        said(t)
        broken(t)
        t.crash()
        t.settle()
        text = caplog.text + page_of(t.loops, {}, 0)
    assert "c360_misfits_total{" in text
    assert [secret for secret in SECRETS if secret in text] == []


def test_what_holds_keys_does_not_print_them() -> None:
    """A traceback with locals prints objects by their `repr`."""
    with TestDriver(app) as t:
        said(t)
        t.settle()
        assert t.vault is not None
        held = [repr(t.vault), repr(t.vault.names), repr(t.vault.master)]
        tasks = [task.processor for loop in t.loops for task in loop.tasks.values()]
        keys = [task.keys for task in tasks if isinstance(task, GovernTask)]
        data = [key for own in keys if own is not None for key in own.sealer._ready._kept.values()]
        assert data
        held += [repr(key) for key in data]
        secrets = [key._secret for key in data]
        assert not [one for one in secrets if any(repr(one)[2:20] in text or one.hex()[:16] in text for text in held)]
        assert not [text for text in held if MAIL in text or "crm:7" in text]
