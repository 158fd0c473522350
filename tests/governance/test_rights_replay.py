"""Dead letters of consent and erasure go back to work once the app can take them, each to who put it aside."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import pytest

from c360 import App, Record, normalize
from c360.engine.transport import TP
from c360.ops import audit, dlq
from c360.testing import TestDriver
from tests.governance.decided import NOW, NOW_MS, compacted, states

AT = "2026-11-02T08:00:00Z"


def shop(*purposes: str, personal: bool = False, strict: bool = False) -> App:
    app = App("shop", partitions=2)

    @app.identifier("crm", priority=1, unique=True)
    class CrmId(str): ...

    @app.identifier("email", normalize=normalize.email, personal=personal)
    class Email(str): ...

    for purpose in purposes:
        app.purpose(purpose)

    @app.source("orders", subject="crm")
    class Order(Record):
        crm: CrmId
        email: Email | None

    @app.consent("choices")
    class Choice(Record):
        crm: CrmId | None
        email: Email | None
        purpose: str
        granted: bool
        at: datetime

    if personal:
        kind: Any = int if strict else str

        @app.erasure("forget")
        class Forget(Record):
            crm: CrmId | None
            email: Email | None
            channel: kind

    return app


def told(t: TestDriver, **chosen: Any) -> dict[str, int]:
    """`c360 dlq replay`."""
    t.settle()
    names = None if t.vault is None else lambda: t.vault.names  # type: ignore[union-attr]  # asked above
    with audit.Run(t.plan, t.cluster, who="test", random=secrets.token_bytes) as run:
        found = dlq.replay_told(t.plan, t.cluster, run, topic=None, reason=None, names=names, **chosen)
    t.settle()
    return found


def corrected(t: TestDriver, app: App) -> None:
    t.settle()
    t.stop()
    t.plan = app.plan()
    t.start()


def decided(t: TestDriver) -> dict[str, Mapping[str, str]]:
    return {who: {purpose: said.holds.status for purpose, said in state.items()} for who, state in states(t).items()}


@pytest.mark.parametrize("personal", [False, True])
def test_a_decision_on_a_purpose_that_is_declared_later_counts_as_of_when_it_came(*, personal: bool) -> None:
    with TestDriver(shop("marketing", personal=personal), now=NOW) as t:
        t.send(
            "choices", None, {"email": "a@b.org", "purpose": "parties", "granted": True, "at": "2099-01-01T00:00:00Z"}
        )
        t.send("choices", None, {"crm": "7", "purpose": "marketing", "granted": True, "at": AT})
        (letter,) = t.topic("shop.dlq")
        assert (letter["stage"], letter["reason"], "sealed" in letter) == ("consent", "unknown-purpose", personal)
        corrected(t, shop("marketing", "parties", personal=personal))
        t.now_ms += 3_600_000
        assert told(t) == {"replayed": 1, "cut": 0, "other": 0}
        label = "email:a@b.org" if t.vault is None else t.vault.names.token("email:a@b.org")
        assert decided(t) == {"crm:7": {"marketing": "granted"}, label: {"parties": "granted"}}
        assert states(t)[label]["parties"].at == NOW_MS, (
            "a grant from the future counts as of when it came, not the replay"
        )
        assert states(t)[label]["parties"].holds.source == "choices"
        t.verify()
        before = list(t.read("shop.consent"))
        assert told(t)["replayed"] == 1
        assert list(t.read("shop.consent")) == before
        if personal:
            sent = [value for _, value in t.read("shop.consent-commands") if value is not None]
            assert sent
            assert not any(b"a@b.org" in value for value in sent)


def test_what_still_is_a_misfit_is_put_aside_again_where_it_lies() -> None:
    with TestDriver(shop("marketing"), now=NOW) as t:
        t.send("choices", None, {"crm": "7", "purpose": "parties", "granted": True, "at": AT}, partition=1)
        assert told(t)["replayed"] == 1
        letters = [(letter["topic"], letter["partition"], letter["offset"]) for letter in t.topic("shop.dlq")]
        assert letters == [("choices", 1, 0)] * 2
        assert decided(t) == {}
        t.verify()


def test_an_older_decision_that_comes_back_does_not_undo_a_newer_one_and_accidents_change_nothing() -> None:
    with TestDriver(shop("marketing"), now=NOW) as t:
        t.send("choices", None, {"crm": "7", "purpose": "parties", "granted": True, "at": AT})
        corrected(t, shop("marketing", "parties"))
        t.send("choices", None, {"crm": "7", "purpose": "parties", "granted": False, "at": "2026-11-02T08:30:00Z"})
        assert told(t)["replayed"] == 1
        assert decided(t) == {"crm:7": {"parties": "denied"}}
        before = compacted(t)
        t.crash()
        t.lose_disk()
        t.reset("consent")
        assert (compacted(t), decided(t)) == (before, {"crm:7": {"parties": "denied"}})
        t.verify()


def test_a_record_that_says_it_is_a_replay_and_is_none_changes_nothing() -> None:
    with TestDriver(shop("marketing"), now=NOW) as t:
        for headers in (
            [("c360-raw", b"choices/0")],
            [("c360-raw", b"nobody/0"), ("c360-origin", b"1"), ("c360-time", b"1")],
            [("c360-raw", b"choices/0"), ("c360-origin", b"1"), ("c360-time", b"1"), ("c360-sealed", b"1")],
        ):
            t.producer.produce("shop.consent-commands", None, b"{}", 0, headers)
            t.producer.flush()
        assert decided(t) == {}
        assert t.topic("shop.dlq") == []
        t.verify()


# ---------------------------------------------------------------------------------------------------------- requests
def test_a_request_to_be_forgotten_is_asked_again_by_whom_it_names_and_once() -> None:
    with TestDriver(shop("marketing", personal=True, strict=True), now=NOW) as t:
        t.send("orders", None, {"crm": "7", "email": "a@b.org"})
        t.send("orders", None, {"crm": "8"})
        t.send("forget", None, {"email": "a@b.org", "channel": "phone"})
        t.send("forget", None, {"crm": "8"})
        assert [(letter["stage"], letter.get("value")) for letter in t.topic("shop.dlq")] == [("erasure", None)] * 2
        corrected(t, shop("marketing", personal=True))
        assert told(t) == {"replayed": 1, "cut": 0, "other": 1}, "the other one still lacks a field"
        assert len(list(t.read("shop.erasures"))) == 1
        said = [value for _, value in t.read("shop.erasure-commands") if value is not None]
        assert len(said) == 1
        assert b"a@b.org" not in said[0]
        assert told(t) == {"replayed": 1, "cut": 0, "other": 1}
        assert len(list(t.read("shop.erasures"))) == 1
        log = [line.record.entry for line in audit.tail(t.plan, t.cluster, 100)[0] if line.record is not None]
        assert sum(entry.what == "erase" and entry.who == "test" for entry in log) == 1
        t.verify()


def test_a_request_that_retention_has_taken_is_left() -> None:
    with TestDriver(shop("marketing", personal=True, strict=True), now=NOW) as t:
        t.send("forget", None, {"crm": "8", "channel": "phone"}, partition=0)
        t.settle()
        corrected(t, shop("marketing", personal=True))
        t.cluster.admin().delete_records({TP("forget", 0): 1})
        assert told(t) == {"replayed": 0, "cut": 0, "other": 1}
