"""The input of the benchmark (spec.md, section 1): raw records of a shop's customers, the same for the same seed.

Knows nothing of who reads them, and of Kafka only that a record has a key and a value.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from itertools import accumulate
from random import Random
from typing import Any

import orjson

Raw = tuple[bytes, bytes]  # key, value

SEED = 360
BEGIN_MS = 1_767_225_600_000  # 1 January 2026; events follow each other by 5 ms
RECENT = 2000  # a duplicate repeats one of so many records before it
SHELF, SHELVES = 50, 100  # a customer looks at 50 skus of 5,000
AGENTS = [f"Mozilla/5.0 (X11; Linux x86_64) Gecko/2026{i + 1:02} Firefox/14{i % 10}.0" for i in range(12)]


def records(events: int, customers: int, seed: int = SEED) -> Iterator[Raw]:
    """So many records, poison and duplicates included, in the order in which they are to be written."""
    random = Random(seed)
    names = list(range(customers))
    random.shuffle(names)
    weights = list(accumulate(1 / (rank + 20) for rank in range(customers)))  # few customers do much
    recent: list[Raw] = []
    for i in range(events):
        if i > RECENT and random.random() < 0.02:
            raw = recent[random.randrange(RECENT)]
        else:
            customer = random.choices(names, cum_weights=weights)[0]
            raw = record(random, i, customer)
        if i < RECENT:
            recent.append(raw)
        else:
            recent[i % RECENT] = raw
        yield raw


def record(random: Random, i: int, customer: int) -> Raw:
    """Event number i, of this customer; sometimes poison."""
    event = _event(random, i, customer)
    key = event["customer_id"].encode()
    return key, _poisoned(random, event) if random.random() < 0.001 else orjson.dumps(event)


def _event(random: Random, i: int, customer: int) -> dict[str, Any]:
    name, kind = f"c{customer:07}", _kind(random.random())
    late = random.randrange(60_000) if random.random() < 0.01 else 0
    event: dict[str, Any] = {
        "event_id": str(uuid.UUID(int=random.getrandbits(128))),
        "customer_id": name,
        "type": kind,
        "ts": BEGIN_MS + i * 5 - late,
    }
    address = random.random()
    if address < 0.2:
        event["email"] = f"{name}.{int(address * 20)}@mail.example"
    choice = random.random()
    if kind == "consent":
        event["consent"] = {"profiling": choice < 0.6}
    elif choice < 0.01:
        event["consent"] = {"profiling": choice < 0.008}
    if kind in ("page_view", "add_to_cart", "order"):
        sku = (customer * SHELF + _rank(random)) % (SHELF * SHELVES)
        props: dict[str, Any] = {"sku": f"sku-{sku:05}"}
        if kind != "page_view":
            props["amount"] = round(1 + sku * 0.37 + customer % 100 / 100, 2)
        props["currency"] = "EUR"
        props["url"] = f"https://shop.example/p/{sku}/spring-sale?ref={customer % 977}"
        event["props"] = props
    else:
        sku = 7
        event["props"] = {"subject": "where is my order", "url": "https://shop.example/help/contact"}
    event["ctx"] = {
        "ua": AGENTS[i % 12],
        "ip": f"10.{customer % 250}.{sku % 250}.{i % 250}",
        "session": f"s{customer * 31 % 99_999_999:08x}",
    }
    return event


def _kind(u: float) -> str:
    if u < 0.005:
        return "consent"
    if u < 0.105:
        return "order"
    if u < 0.305:
        return "add_to_cart"
    if u < 0.345:
        return "support_ticket"
    return "page_view"


def _rank(random: Random) -> int:
    """Zipf with exponent 1.3, folded onto the shelf (Devroye 1986, X.6.1: rejection from the inverse of a Pareto)."""
    while True:
        u, v = 1 - random.random(), random.random()
        x = float(int(u ** (-1 / 0.3)))
        t = (1 + 1 / x) ** 0.3
        if v * x * (t - 1) / (2**0.3 - 1) <= t / 2**0.3:
            return int(x) % SHELF


def _poisoned(random: Random, event: dict[str, Any]) -> bytes:
    """Bytes that are no event: cut, without an id, about nobody, or without a readable time. The key is intact."""
    match random.randrange(4):
        case 0:
            whole = orjson.dumps(event)
            return whole[: len(whole) // 2]
        case 1:
            del event["event_id"]
        case 2:
            del event["customer_id"]
        case 3:
            event["ts"] = "yesterday"
    return orjson.dumps(event)
