"""Bytes of state and messages: the same for equal nodes whatever their history, and these very bytes."""

from __future__ import annotations

import random
from itertools import permutations
from pathlib import Path
from typing import get_args

import pytest

from c360.errors import NeedsOperator
from c360.identity.facts import Claim, Fact, encode_fact, link
from c360.identity.messages import (
    Assign,
    Assigned,
    Event,
    Gather,
    Holders,
    Mark,
    Meet,
    Members,
    Message,
    StatusChanged,
    Told,
    Touch,
    decode_event,
    decode_message,
    encode_event,
    encode_message,
)
from c360.identity.node import Node, decode_node, encode_node, step
from c360.identity.resolve import Evidence, Link, Standing
from c360.identity.rules import DEFAULTS, HUB, Rules

PAGE = Path(__file__).parents[2] / "docs" / "formats" / "identity.md"
FACT = link("cookie:c", "email:a", "web", Claim(1_793_610_000_000, True, 5, 1))
RULES = Rules("default", DEFAULTS)
STANDING = Standing("customer:1", ("email:a",), (("phone:1", "limit:phone"),))
EVIDENCE = Evidence("cookie:c", 3, HUB, (Link("email:a", 5, 1),), ("cookie:d",), ("born:1950",), ("r1",))
MESSAGES: list[tuple[Message, str]] = [
    (link("cookie:c", "email:a", "web", Claim(7)), "9600a8636f6f6b69653a63a46c696e6ba7656d61696c3a61a37765629407c20000"),
    (Touch("cookie:c", True, False, ("customer:1",), "cookie:d", "f"),
     "9701a8636f6f6b69653a63c3c291aa637573746f6d65723a31a8636f6f6b69653a64a166"),
    (Meet("cookie:c", "f"), "9302a8636f6f6b69653a63a166"),
    (Assign("cookie:c", Standing("cookie:c", ()), "split", "f"),
     "9504a8636f6f6b69653a6393a8636f6f6b69653a639090a573706c6974a166"),
    (Mark("r1"), "9305a27231c3"),
]  # fmt: skip


@pytest.mark.parametrize(("message", "data"), MESSAGES, ids=lambda v: type(v).__name__)
def test_a_message_has_these_bytes(message: Message, data: str) -> None:
    assert encode_message(message).hex() == data
    assert decode_message(bytes.fromhex(data)) == message


def test_a_block_comes_back_from_a_message() -> None:
    gather = Gather((EVIDENCE,), "f", (("cookie:c", Told("cookie:d", STANDING)),), (("r1", ("cookie:c",)),))
    assert decode_message(encode_message(gather)) == gather


@pytest.mark.parametrize(
    "event",
    [
        Assigned("cookie:c", 4, STANDING, "cookie:c", "merged", "f"),
        StatusChanged("email:a", HUB),
        Members("r1", "email:a", ("cookie:c",)),
        Holders("r1", "email:a", ("cookie:c",)),
    ],
    ids=lambda event: type(event).__name__,
)
def test_what_is_published_comes_back(event: Event) -> None:
    assert decode_event(encode_event(event)) == event


def test_equal_nodes_have_equal_bytes_whatever_order_made_them() -> None:
    facts: list[Fact] = [
        link("cookie:aaaaa1", other, source, Claim(1)) for other in ("email:a", "phone:1") for source in ("crm", "web")
    ]
    found = set()
    for order in permutations(facts):
        node = Node("cookie:aaaaa1")
        step(node, order, RULES)
        found.add(encode_node(node))
    assert len(found) == 1
    touches = [Touch(f"cookie:aaaaa{i}", True, False, ("crm_id:7",), f"cookie:aaaaa{i}", "f") for i in range(8)]
    met = set()
    for seed in range(5):
        email = Node("email:a")
        random.Random(seed).shuffle(touches)
        step(email, touches, RULES)
        met.add(encode_node(email))
    assert len(met) == 1


def test_a_new_node_has_these_bytes() -> None:
    data = "9f01a8636f6f6b69653a63a8636f6f6b69653a63c09090c0c00080808080c0c0"
    assert encode_node(Node("cookie:c")).hex() == data
    assert encode_node(decode_node(bytes.fromhex(data), RULES)).hex() == data


def test_a_node_of_another_format_needs_an_operator() -> None:
    data = encode_node(Node("cookie:c"))
    with pytest.raises(NeedsOperator, match="format 2"):
        decode_node(data.replace(b"\x9f\x01", b"\x9f\x02"), RULES)


def test_the_page_has_the_golden_bytes() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for data in (encode_fact(FACT)[1], encode_message(Meet("cookie:c", "f")), encode_node(Node("cookie:c"))):
        assert f"| `{data.hex()}` |" in page
    for kind in (*get_args(Message), *get_args(Event)):
        [line] = [line for line in page.splitlines() if line.endswith(f"| {kind.__name__} |")]
        assert line.startswith(f"| `[{kind.__struct_config__.tag}, ")
