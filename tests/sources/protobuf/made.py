"""Messages for tests of Protobuf."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any, Literal

from google.protobuf.message import Message

from c360 import Record
from tests.sources.protobuf import shop_pb2

NINE = datetime(2026, 11, 2, 9, tzinfo=UTC)


def order(number: int = 1, **said: Any) -> shop_pb2.Order:
    made = shop_pb2.Order(id=str(uuid.UUID(int=number)), customer=7, state=shop_pb2.PAID)
    made.amount.value = "12.50"
    made.placed.FromDatetime(NINE)
    made.day.year, made.day.month, made.day.day = 2026, 11, 2
    made.where.city = "Lund"
    made.lines.add(sku="a", cents=1250)
    for name, value in said.items():
        setattr(made, name, value)
    return made


def framed(message: Message, number: int = 1, indexes: bytes = b"\0") -> bytes:
    return b"\0" + number.to_bytes(4, "big") + indexes + message.SerializeToString()


def everything() -> shop_pb2.Everything:
    """Each kind of field, set."""
    made = shop_pb2.Everything(
        counted={"b": 2, "a": 1}, customer=7, rate=1.5, part=0.5, ok=True, blob=b"\0\xff", large=2**64 - 1, signed=-1,
        fixed=3, maybe=0, states=[shop_pb2.NEW, shop_pb2.PAID], named={2: "two"}, answers={True: "yes"}, placed_ms=1,
    )  # fmt: skip
    made.lines["k"].sku = "s"
    made.cash.value = "12.5"
    made.took.FromTimedelta(timedelta(seconds=-1.5))
    made.note.value = ""
    made.count.value = 0
    made.agreed.value = False
    made.ratio.value = 0.5
    made.raw.value = b"x"
    made.extra.update({"a": 1, "b": [True, None, "x", 1.5], "c": {"d": {}}})
    made.any.number_value = 3
    made.list.extend([1, "a"])
    made.exact.value, made.exact.scale = (-1250).to_bytes(2, "big", signed=True), 2
    made.tree.children.add(name="leaf").children.add(name="twig")
    setattr(made, "from", "here")
    made.times.add().FromDatetime(NINE)
    return made


class State(Enum):
    NEW = "NEW"
    PAID = "PAID"


KINDS: dict[str, tuple[Any, Any]] = {  # of fields of Everything: a type, and what `everything` is then
    "counted": (dict[str, int], {"a": 1, "b": 2}),
    "customer": (int, 7),
    "rate": (float, 1.5),
    "part": (Decimal, Decimal("0.5")),
    "ok": (bool, True),
    "blob": (bytes, b"\0\xff"),
    "large": (int, 2**64 - 1),
    "signed": (int, -1),
    "fixed": (int, 3),
    "maybe": (int | None, 0),
    "states": (list[State], [State.NEW, State.PAID]),
    "named": (dict[int, str], {2: "two"}),
    "lines": (dict[str, dict[str, Any]], {"k": {"sku": "s", "cents": 0}}),
    "answers": (dict[str, str], {"true": "yes"}),
    "cash": (Decimal, Decimal("12.5")),
    "payment": (Literal["card", "cash"], "cash"),
    "took": (Decimal, Decimal("-1.5")),
    "note": (str | None, ""),
    "count": (int | None, 0),
    "agreed": (bool | None, False),
    "extra": (dict[str, Any], {"a": 1, "b": [True, None, "x", 1.5], "c": {"d": {}}}),
    "any": (Any, 3),
    "list": (list[Any], [1, "a"]),
    "exact": (Decimal, Decimal("-12.50")),
    "tree": (Any, {"name": "", "children": [{"name": "leaf", "children": [{"name": "twig", "children": []}]}]}),
    "ratio": (float, 0.5),
    "raw": (bytes, b"x"),
    "placed_ms": (int, 1),
    "times": (list[datetime], [NINE]),
}


def whole_record(customer: type[str]) -> Any:
    """A record type with all of them."""
    fields = {name: kind if kind is Any else kind | None for name, (kind, _) in KINDS.items()}
    return type("All", (Record,), {"__annotations__": fields | {"customer": customer}, "__module__": __name__})
