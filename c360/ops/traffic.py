"""A shop's made-up traffic for `c360 demo` and `c360 bench`: clicks, orders, rows, consent, with what real topics have.

About one delivery in fifty is a repeat of an earlier one, one in two hundred is no good. The same seed gives the same
records. Topics and shapes are those of `examples/shop/app.py`.
"""

from __future__ import annotations

import random
import sys
from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice

import orjson

from c360.ops.load import RawRecord

REPEATED, MISFIT = 0.02, 0.005
CHOICES = 0.03
STEP_MS = 40  # between two events, on average
SECTIONS = ("shoes", "bags", "coats", "toys", "books", "garden", "music", "tea")
CITIES = ("Madrid", "London", "Berlin", "Lyon", "Porto", "Gdańsk")
NO_GOOD = (b"not json", b'{"id": 7}', b'{"id": "x", "cookie": "c", "category": "a/b", "ts": "yesterday"}', b"\xff\xfe")


def traffic(events: int, *, seed: int, end_ms: int) -> Iterator[RawRecord]:
    """Exactly `events` records, their timestamps rising to about `end_ms`: a broker refuses what is far ahead of it."""
    return _traffic(events, _Shop(seed, max(10, events // 20), end_ms - events * STEP_MS, STEP_MS))


def endless(rate: float, *, seed: int, start_ms: int) -> Iterator[RawRecord]:
    """Records without end, `rate` of them per second of their timestamps, from `start_ms`."""
    return _traffic(sys.maxsize, _Shop(seed, 1000, start_ms, max(1, int(1000 / rate))))


def _traffic(events: int, shop: _Shop) -> Iterator[RawRecord]:
    recent: deque[RawRecord] = deque(maxlen=500)
    for _ in range(events):
        at_ms = shop.pass_time()
        draw = shop.dice.random()
        if draw < MISFIT:
            yield RawRecord("web.clicks", b"?", shop.dice.choice(NO_GOOD), at_ms)
        elif draw < MISFIT + REPEATED and recent:
            again = shop.dice.choice(recent)
            yield RawRecord(again.topic, again.key, again.value, at_ms)
        else:
            record = shop.record(at_ms)
            recent.append(record)
            yield record


class _Shop:
    """Customers, their rows as they are in the shop's databases, and what they do next."""

    def __init__(self, seed: int, customers: int, start_ms: int, step_ms: int) -> None:
        self.dice = random.Random(seed)
        self.customers = customers
        self.now_ms, self.step_ms = start_ms, step_ms
        self.lsn = 1_000_000
        self.clicks = 0
        self.rows: dict[int, dict[str, object]] = {}  # CRM
        self.orders: dict[int, dict[str, object]] = {}
        self.order_ids = 0

    def pass_time(self) -> int:
        self.now_ms += self.dice.randrange(2 * self.step_ms)
        return self.now_ms

    def record(self, at_ms: int) -> RawRecord:
        customer = int(self.customers * self.dice.random() ** 2) + 1  # some come much more often than others
        draw = self.dice.random()
        if draw < CHOICES:
            return self._choice(customer, at_ms)
        if draw < 0.75:
            return self._click(customer, at_ms)
        return self._order(customer, at_ms) if draw < 0.92 else self._row(customer, at_ms)

    def _click(self, customer: int, at_ms: int) -> RawRecord:
        self.clicks += 1
        known = self.dice.random() < 0.7
        login = f"c{customer}@shop.example" if known and self.dice.random() < 0.2 else None
        if self.clicks % 500 == 0:
            login = "unknown"  # some front end always does that
        value = {
            "id": f"k{self.clicks}",
            "cookie": f"b{customer}-{self.dice.randrange(2)}",
            "customer": str(customer) if known else None,
            "login": login,
            "category": f"{self.dice.choice(SECTIONS)}/{self.dice.randrange(20)}",
            "ts": datetime.fromtimestamp((at_ms - self.dice.randrange(3000)) / 1000, UTC).isoformat(),
        }
        key = value["customer"] or value["cookie"]
        return RawRecord("web.clicks", str(key).encode(), orjson.dumps(value), at_ms)

    def _choice(self, customer: int, at_ms: int) -> RawRecord:
        value = {
            "customer": str(customer), "purpose": "marketing", "granted": self.dice.random() < 0.8,
            "at": datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(),
        }  # fmt: skip
        return RawRecord("web.consent", str(customer).encode(), orjson.dumps(value), at_ms)

    def _order(self, customer: int, at_ms: int) -> RawRecord:
        if self.orders and self.dice.random() < 0.1:
            order_id = self.dice.choice([*islice(reversed(self.orders), 50)][::-1])  # of the last
            old = self.orders[order_id]
            if self.dice.random() < 0.3:
                del self.orders[order_id]
                return self._change("shop", "orders", old["id"], at_ms, old, None)
            new = {**old, "amount": self._amount()}
        else:
            self.order_ids += 1
            old = None
            placed = (at_ms - self.dice.randrange(60_000)) * 1000
            new = {"id": self.order_ids, "customer_id": customer, "amount": self._amount(), "placed_at": placed}
        self.orders[int(str(new["id"]))] = new
        return self._change("shop", "orders", new["id"], at_ms, old, new)

    def _amount(self) -> str:
        return f"{self.dice.randrange(500, 30_000) / 100:.2f}"

    def _row(self, customer: int, at_ms: int) -> RawRecord:
        old = self.rows.get(customer)
        new: dict[str, object] = {
            "id": customer,
            "name": f"Customer {customer}",
            "email": f"customer{customer}@mail.example",
            "city": self.dice.choice(CITIES),
        }
        self.rows[customer] = new
        return self._change("crm", "customers", customer, at_ms, old, new)

    def _change(
        self,
        db: str,
        table: str,
        key: object,
        at_ms: int,
        before: dict[str, object] | None,
        after: dict[str, object] | None,
    ) -> RawRecord:
        self.lsn += self.dice.randrange(1, 400)
        value = {
            "before": before,
            "after": after,
            "op": "d" if after is None else "c" if before is None else "u",
            "ts_ms": at_ms,
            "source": {
                "connector": "postgresql", "name": db, "db": db, "schema": "public", "table": table,
                "ts_ms": at_ms, "snapshot": "false", "lsn": self.lsn, "txId": self.lsn,
            },
        }  # fmt: skip
        return RawRecord(f"{db}.public.{table}", orjson.dumps({"id": key}), orjson.dumps(value), at_ms)
