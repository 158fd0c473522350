"""What a contestant wrote, beside what is right. Pure: records in, differences out."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import islice
from typing import Any

import orjson

from benchmarks.oracle import Outcome, Profile

Written = tuple[
    bytes | None, bytes | None
]  # key and value of a record; those of one key in the order they were written

EXAMPLES = 3  # differences of one kind that are told in full
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Dialect:
    """How a contestant says it: the profile in a profile record, and the raw value in a dead letter."""

    profile: Callable[[dict[str, Any]], Profile]
    dead: Callable[[bytes], bytes]
    prefix: str = ""  # of keys, before the customer's name


def _plain_profile(record: dict[str, Any]) -> Profile:
    return Profile(**{name: record[name] for name in Profile._fields})


def _c360_profile(record: dict[str, Any]) -> Profile:
    values = record["attributes"]
    return Profile(
        events=values["events"],
        opted_out=values["profiling"] is False,
        orders=values["orders"],
        revenue_cents=int(Decimal(values["revenue"]) * 100),
        first_seen=_ms(values["first_seen"]),
        last_seen=_ms(values["last_seen"]),
        distinct_skus=values["distinct_skus"],
        top_sku=next(iter(values["top_sku"]), None),
        email=values["email"],
    )


def _ms(text: str) -> int:
    return (datetime.fromisoformat(text) - _EPOCH) // timedelta(milliseconds=1)


def _c360_dead(value: bytes) -> bytes:
    return base64.b64decode(orjson.loads(value)["value"])


PLAIN = Dialect(_plain_profile, lambda value: value)
C360 = Dialect(_c360_profile, _c360_dead, "customer:")


def found_in(profiles: Iterable[Written], dead: Iterable[Written], dialect: Dialect) -> Outcome:
    """What these two topics hold: the last profile of each customer, and all dead letters."""
    last = {key: value for key, value in profiles if key is not None}
    return Outcome(
        {
            key.decode().removeprefix(dialect.prefix): dialect.profile(orjson.loads(value))
            for key, value in last.items()
            if value is not None
        },
        Counter(dialect.dead(value) for _, value in dead if value is not None),
    )


def differences(right: Outcome, found: Outcome) -> list[str]:
    """In words, a few examples of each kind; nothing when all is as it should be."""
    told: list[str] = []
    for said, kind in (
        ("lost", sorted(right.profiles.keys() - found.profiles.keys())),
        ("invented", sorted(found.profiles.keys() - right.profiles.keys())),
        ("wrong", list(_wrong(right.profiles, found.profiles))),
        ("dead letters lost", list((right.dead - found.dead).elements())),
        ("dead letters too many", list((found.dead - right.dead).elements())),
    ):
        if kind:
            examples = ", ".join(map(str, islice(kind, EXAMPLES)))
            told.append(f"{len(kind)} {said}: {examples}{', …' if len(kind) > EXAMPLES else ''}")
    return told


def _wrong(right: Mapping[str, Profile], found: Mapping[str, Profile]) -> Iterator[str]:
    for name in right.keys() & found.keys():
        for field, wanted, got in zip(Profile._fields, right[name], found[name], strict=True):
            if wanted != got:
                yield f"{name}.{field} is {got!r}, not {wanted!r}"
