"""What goes to other agents and into topics has these bytes, comes back, and holds to its schema."""

from __future__ import annotations

import json
from collections.abc import Callable

import msgspec
import pytest

from c360.agents.wire import ConsentCommand
from c360.errors import NeedsOperator
from c360.governance.audit import Entry, Head, chained, encode_record
from c360.governance.certificate import (
    Certificate,
    ErasedSubject,
    GoneBy,
    Receipts,
    decode_certificate,
    encode_certificate,
)
from c360.governance.messages import (
    Erase,
    Passed,
    Receipt,
    decode_erase,
    decode_passed,
    decode_receipt,
    encode_erase,
    encode_passed,
    encode_receipt,
)
from c360.governance.suppressed import Hold, Suppressed, encode_suppressed
from tests.governance.erasure_runs import world_of
from tests.test_schemas import holds, schema

CERTIFICATE = Certificate(
    request="r", identifier="email:0a", asked_at=1, proven_at=2,
    subjects=(ErasedSubject("crm:7", 1, ("k1",)),), identifiers=("email:0a",), beside=(), govern=("orders-0",),
    agents=(Receipts("customer@1", {"b": 1, "a": 2}, {"a/0": 9}),),
    topics=(GoneBy("raw", "user", None), GoneBy("a", "compact", 3)),
)  # fmt: skip
RECEIPT = Receipt("r", "crm:7", 1, "customer@1", {"b": 1, "a": 2}, {"a/0": 9})
ENTRY = Entry(who="ann", what="erase", at=5, reason="ticket 7", about=("crm:7",), after={"stage": "suppress"})

WRITTEN: dict[str, list[bytes]] = {
    "audit": [encode_record(chained("shop", ENTRY, "cli", Head(0, "x"), {"erasure": Head(3, "y")}))],
    "consent_command": [
        msgspec.json.encode(
            ConsentCommand(identifier="crm:7", purpose="marketing", status="denied", at=1, expires_at=end)
        )
        for end in (None, 2)
    ],
    "certificate": [encode_certificate(CERTIFICATE)],
    "erasure_command": [encode_erase(Erase("r", "crm:7", 1))[1]],
    "erasure_receipt": [encode_receipt(RECEIPT)[1], encode_receipt(Receipt("r", "crm:7", 1, "customer@1"))[1]],
    "suppressed": [encode_suppressed(Suppressed(2, {"r": Hold(1), "q": Hold(1, 3)}))],
    "suppression_passed": [encode_passed(Passed("orders-0", 0, 7))[1]],
}


@pytest.mark.parametrize("name", WRITTEN)
def test_what_is_written_holds_to_its_schema(name: str) -> None:
    assert WRITTEN[name]
    for data in WRITTEN[name]:
        value = json.loads(data)
        assert holds(name, value)
        assert not holds(name, {**value, "something": "else"})
        for field in schema(name)["fields"]:
            assert not holds(name, {**value, field["name"]: [None]}), field["name"]


def test_certificates_of_runs_hold_to_their_schema_and_come_back() -> None:
    made = [c for seed in range(40) for some in world_of(seed).certificates.values() for c in some]
    assert len(made) >= 20
    for certificate in made:
        data = encode_certificate(certificate)
        assert decode_certificate(data) == certificate
        assert holds("certificate", json.loads(data))


def test_a_certificate_has_one_form() -> None:
    assert encode_certificate(CERTIFICATE) == (
        b'{"request":"r","identifier":"email:0a","asked_at":1,"proven_at":2,'
        b'"subjects":[{"subject":"crm:7","life":1,"keys":["k1"]}],"identifiers":["email:0a"],"beside":[],'
        b'"govern":["orders-0"],"agents":[{"agent":"customer@1","tombstones":{"a":2,"b":1},"reached":{"a/0":9}}],'
        b'"topics":[{"topic":"raw","policy":"user","gone_by":null},{"topic":"a","policy":"compact","gone_by":3}],"state_gone_by":0}'
    )


def test_records_come_back_and_have_these_bytes() -> None:
    assert encode_erase(Erase("r", "crm:7", 1)) == (b"crm:7", b'{"request":"r","life":1}')
    assert encode_passed(Passed("orders-0", 1, 7)) == (b"orders-0/1", b'{"partition":1,"offset":7}')
    assert encode_receipt(RECEIPT) == (
        b"r",
        b'{"identifier":"crm:7","life":1,"agent":"customer@1","tombstones":{"a":2,"b":1},"reached":{"a/0":9}}',
    )
    assert decode_erase(*encode_erase(Erase("r", "crm:7", 1))) == Erase("r", "crm:7", 1)
    assert decode_passed(*encode_passed(Passed("a/b-0", 1, 7))) == Passed("a/b-0", 1, 7)
    assert decode_receipt(*encode_receipt(RECEIPT)) == RECEIPT


@pytest.mark.parametrize("decode", [decode_erase, decode_passed, decode_receipt])
def test_what_is_no_record_stops_and_is_not_shown(decode: Callable[[bytes, bytes], object]) -> None:
    with pytest.raises(NeedsOperator, match="erasure protocol") as caught:
        decode(b"k/0", b'{"life": "ann@mail.org"}')
    assert "ann" not in str(caught.value)
