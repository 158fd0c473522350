"""Consent in an app that has keys: tokens, sealed dead letters, and identifiers that are forgotten."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from c360 import AnyIdentifier, App, Record, normalize
from c360.engine.partition import partition_of
from c360.engine.transport import TP
from c360.governance.consent import decode_state
from c360.governance.messages import Erase, Receipt, decode_receipt, encode_erase
from c360.governance.suppressed import Hold, Suppressed, encode_suppressed
from c360.testing import TestDriver
from tests.governance.decided import NOW, compacted
from tests.governance.sealed_shop import forms_of

app = App("shop", partitions=3)


@app.identifier("crm", priority=1, unique=True)
class CrmId(str): ...


@app.identifier("email", normalize=normalize.email, personal=True)
class Email(str): ...


app.purpose("marketing")


@app.source("orders", subject="crm")
class Order(Record):
    crm: CrmId
    email: Email | None


@app.consent("choices")
class Choice(Record):
    who: AnyIdentifier
    purpose: str
    status: str
    at: datetime


@app.consent("numbers")
class Number(Record):
    crm: CrmId
    purpose: str
    granted: bool
    at: datetime


MAIL = "ann@mail.org"


def driver() -> TestDriver:
    return TestDriver(app, partitions=2, now=NOW)


def choice(who: str, status: str = "granted", hour: int = 8) -> dict[str, Any]:
    return {"who": who, "purpose": "marketing", "status": status, "at": f"2026-11-02T{hour:02}:00:00Z"}


def label(t: TestDriver, who: str) -> str:
    """As it is written."""
    assert t.vault is not None
    return t.vault.names.token(who) if who.startswith("email:") else who


def decided(t: TestDriver) -> dict[str, str]:
    t.settle()
    return {k.decode(): decode_state(v)["marketing"].holds.status for k, v in compacted(t, "shop.consent").items()}


def write(t: TestDriver, topic: str, key: bytes, value: bytes | None, partitions: int) -> None:
    t.producer.produce(topic, key, value, partition_of(key, partitions))
    t.producer.flush()


def suppress(t: TestDriver, who: str, life: int = 1, *, lifted: bool = False) -> None:
    assert t.vault is not None
    said = Suppressed(life, {"r": Hold(1, 2 if lifted else 0)})
    write(t, "shop.suppressed", t.vault.names.veil(label(t, who)).encode(), encode_suppressed(said), 3)


def erase(t: TestDriver, who: str, life: int = 1) -> None:
    write(t, "shop.erase", *encode_erase(Erase("r", label(t, who), life)), 3)


def receipts(t: TestDriver) -> list[Receipt]:
    t.settle()
    found = [decode_receipt(k, v) for k, v in t.read("shop.receipts") if k is not None and v is not None]
    return [receipt for receipt in found if receipt.agent == "consent"]


@pytest.mark.parametrize("who", [f"email:{MAIL}", "crm:7"])
def test_an_identifier_is_forgotten_and_later_decisions_on_it_do_not_count_until_it_is_lifted(who: str) -> None:
    with driver() as t:
        t.send("choices", None, choice(who, "denied"))
        t.send("choices", None, choice("crm:8"))
        assert decided(t) == {label(t, who): "denied", "crm:8": "granted"}
        suppress(t, who)
        erase(t, who)
        assert decided(t) == {"crm:8": "granted"}
        read = {f"shop.erase/{partition_of(label(t, who).encode(), 3)}": 1}
        assert receipts(t) == [Receipt("r", label(t, who), 1, "consent", {"shop.consent": 1}, read)]
        t.send("choices", None, choice(who, hour=9))
        assert decided(t) == {"crm:8": "granted"}
        t.lose_disk()
        t.send("choices", None, choice(who, hour=9))
        assert decided(t) == {"crm:8": "granted"}
        t.verify("consent")
        suppress(t, who, lifted=True)
        t.settle()
        t.send("choices", None, choice(who, hour=7))  # older than what was forgotten: nobody knows that any more
        assert decided(t) == {label(t, who): "granted", "crm:8": "granted"}


def test_an_erasure_that_is_asked_again_is_answered_again_and_takes_nothing_of_a_later_life() -> None:
    with driver() as t:
        t.send("choices", None, choice("crm:7"))
        t.settle()
        suppress(t, "crm:7")
        erase(t, "crm:7")
        assert decided(t) == {}
        suppress(t, "crm:7", lifted=True)
        t.settle()
        t.send("choices", None, choice("crm:7", "denied"))
        assert decided(t) == {"crm:7": "denied"}
        erase(t, "crm:7")
        assert decided(t) == {"crm:7": "denied"}
        assert [r.tombstones for r in receipts(t)] == [{"shop.consent": 1}, {}]
        suppress(t, "crm:7", life=2)
        erase(t, "crm:7", life=2)
        assert decided(t) == {}


def test_what_was_decided_before_an_erasure_is_void_after_a_lift_also_when_the_erasure_comes_last() -> None:
    with driver() as t:
        t.send("choices", None, choice("crm:7", "denied", hour=8))
        assert decided(t) == {"crm:7": "denied"}
        suppress(t, "crm:7", lifted=True)
        t.settle()
        t.send("choices", None, choice("crm:7", "granted", hour=7))
        assert decided(t) == {"crm:7": "granted"}
        erase(t, "crm:7")
        assert decided(t) == {"crm:7": "granted"}


def test_an_erasure_waits_until_the_worker_knows_who_is_suppressed() -> None:
    with driver() as t:
        t.send("choices", None, choice("crm:7"))
        t.settle()
        erase(t, "crm:7")
        for _ in range(20):
            t.processes[0].turn()
        assert list(compacted(t, "shop.consent")) == [b"crm:7"]
        assert not list(t.read("shop.receipts"))
        suppress(t, "crm:7")
        assert decided(t) == {}
        assert len(receipts(t)) == 1


def everything(t: TestDriver) -> bytes:
    """All that was ever written beside the raw topics."""
    t.settle()
    found = []
    for name, topic in t.cluster.topics.items():
        if name not in ("choices", "numbers", "orders"):
            for log in topic.partitions:
                found += [part for pair in zip(log.keys, log.values, strict=True) for part in pair if part]
    for store in t.stores.stores.values():
        found += [part for pair in store.data.items() for part in pair]
    return b"\n".join(found)


def test_addresses_are_written_as_tokens_and_dead_letters_that_may_have_one_are_sealed() -> None:
    with driver() as t:
        t.send("choices", None, choice(f"email:{MAIL}"))
        t.send("choices", MAIL, {**choice(f"email:{MAIL}"), "purpose": "parties"})
        t.send("choices", None, f'{{"who": "email:{MAIL}'.encode())
        t.send("numbers", MAIL, b"{" + MAIL.encode())
        t.send("numbers", None, {"crm": "7", "purpose": "parties", "granted": True, "at": "2026-11-02T08:00:00Z"})
        letters = t.topic("shop.dlq")
        assert [key for key, _ in t.read("shop.dlq")] == [None] * 4
        sealed = {(letter["topic"], letter["reason"]): letter.get("sealed") is not None for letter in letters}
        assert sealed == {
            ("choices", "unknown-purpose"): True, ("choices", "not-json"): True, ("numbers", "not-json"): True,
            ("numbers", "unknown-purpose"): False,
        }  # fmt: skip
        written = everything(t)
        assert not [form for form in forms_of(MAIL) if form in written]
        assert decided(t) == {label(t, f"email:{MAIL}"): "granted"}
        t.verify("consent")


def test_an_erasure_from_its_request_to_its_certificate_takes_the_decisions_with_it() -> None:
    with driver() as t:
        t.send("choices", None, choice(f"email:{MAIL}", "denied"))
        t.send("choices", None, choice("crm:8"))
        t.send("orders", None, {"crm": "7", "email": MAIL})
        t.settle()
        certificate = t.erase(f"email:{MAIL}")
        assert certificate is not None
        assert [(r.agent, r.tombstones) for r in certificate.agents if r.agent == "consent"] == [
            ("consent", {"shop.consent": 1})
        ]
        assert decided(t) == {"crm:8": "granted"}
        t.send("choices", None, choice(f"email:{MAIL}", hour=9))
        assert decided(t) == {"crm:8": "granted"}
        t.lift(certificate)
        t.send("choices", None, choice(f"email:{MAIL}", hour=9))
        assert decided(t) == {label(t, f"email:{MAIL}"): "granted", "crm:8": "granted"}
        t.verify("consent")


def test_a_reset_neither_brings_back_what_was_forgotten_nor_loses_what_was_decided_since() -> None:
    with driver() as t:
        t.send("choices", None, choice("crm:7", "granted", hour=8))
        t.send("choices", None, choice("crm:8", "granted", hour=8))
        t.settle()
        for who in ("crm:7", "crm:8"):
            certificate = t.erase(who)
            assert certificate is not None
            t.advance(timedelta(minutes=1))
            t.lift(certificate)
        t.advance(timedelta(minutes=1))
        t.send("choices", None, choice("crm:8", "denied", hour=9))
        assert decided(t) == {"crm:8": "denied"}
        t.reset("consent")
        assert decided(t) == {"crm:8": "denied"}, "what crm:7 had said before is forgotten"
        t.stop()
        ends = t.cluster.reader().ends([TP("choices", p) for p in range(2)])
        t.cluster.admin().delete_records(ends)  # by retention
        t.start()
        t.reset("consent")
        t.send("choices", None, choice("crm:8", "granted", hour=8))  # late: older than the refusal
        assert decided(t) == {"crm:8": "denied"}
