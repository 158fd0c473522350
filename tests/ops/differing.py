"""Two versions of the people's profile beside each other, traffic that goes up and down, and a log on which everything moves
whenever somebody looks at it."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from c360 import App, Projection, average, collect, count, derived, distinct, maximum, newest, prefer, total
from c360.engine.memory import MemoryCluster
from c360.engine.transport import TP, Admin, Batch, Cluster, Consumer, Producer, Reader
from c360.plan import Plan
from c360.testing import TestDriver
from tests.testing.people import Account, Email, Order, Visit, who
from tests.testing.world import NOW


class First(Projection):
    visits: int = count(Visit)
    orders: int = count(Order)
    spend: Decimal = total(Order.amount)
    spend_7d: Decimal = total(Order.amount, within=timedelta(days=7))
    usual: Decimal | None = average(Order.amount)
    largest: Decimal | None = maximum(Order.amount)
    email: Email | None = prefer(Account.email)
    last_seen: datetime | None = newest(Visit.ts, Order.placed)
    pages: int = distinct(Visit.page)
    names: list[str] = collect(Account.name)

    @derived
    def twice(self) -> Decimal:
        return 2 * self.spend


def alike(record: type[Projection], name: str) -> type[Projection]:
    """A class of the same logic: another version of it."""
    body = dict(record.__dict__) | {"__annotations__": dict(record.__annotations__)}
    return type(name, (Projection,), body)


Same = alike(First, "Same")


class Other(Projection):
    """`spend` is of large orders only, so `twice` is, too; `usual` is gone; `least` is new."""

    visits: int = count(Visit)
    orders: int = count(Order)
    spend: Decimal = total(Order.amount, where=Order.amount >= 50)
    spend_7d: Decimal = total(Order.amount, within=timedelta(days=7))
    largest: Decimal | None = maximum(Order.amount)
    email: Email | None = prefer(Account.email)
    last_seen: datetime | None = newest(Visit.ts, Order.placed)
    pages: int = distinct(Visit.page)
    names: list[str] = collect(Account.name)
    accounts: int = count(Account)

    @derived
    def twice(self) -> Decimal:
        return 2 * self.spend


def three() -> App:
    """A story's app: customer@2 says what @1 says, and @3 does not."""
    app = who("diffs")
    records: tuple[type[Projection], ...] = (First, Same, Other)
    for version, declared in enumerate(records, 1):
        app.projection("customer", version=version)(declared)
    return app


def versions(second: type[Projection], *, rules: Mapping[Any, Any] | None = None) -> App:
    """The app with First as customer@1 and `second` as customer@2, with a rule set of its own if `rules` are given."""
    app = who("people")
    app.projection("customer", version=1)(First)
    if rules is None:
        app.projection("customer", version=2)(second)
    else:
        app.projection("customer", version=2, identity=app.identity("other", changes=rules))(second)
    return app


class Moving:
    """An app under traffic: each `step` sends a little or has one agent read a little."""

    def __init__(self, app: App, seed: int, *, people: int = 40) -> None:
        self.driver = TestDriver(app, partitions=2, now=NOW)
        self.dice = random.Random(seed)
        self.traffic = Traffic(self.dice, people)
        self.on = True
        self.sending = 0.15
        # Each agent at a pace of its own, so that the two are never at one place.
        self.pace = {loop.agent.name: self.dice.choice([1, 1, 2, 4]) for loop in self.driver.loops}

    @property
    def plan(self) -> Plan:
        return self.driver.plan

    @property
    def cluster(self) -> Cluster:
        return Restless(self.driver.cluster, self.step)

    def step(self) -> None:
        dice = self.dice
        if self.on and dice.random() < self.sending:
            self.send()
        for _ in range(dice.randrange(4)):
            names = list(self.pace)
            (name,) = dice.choices(names, [self.pace[name] for name in names])
            for loop in self.driver.loops:
                if loop.agent.name == name:
                    loop.settings = replace(
                        loop.settings,
                        mail_records=0,
                        batch_records=dice.choice([1, 2, 3, 5]),
                        commit_records=dice.choice([1, 2, 4, 9]),
                    )
                    loop.turn(0.0)

    def pause(self, seconds: float) -> None:
        for _ in range(10):
            self.step()

    def send(self) -> None:
        driver = self.driver
        if self.dice.randrange(10) == 0:
            driver.now_ms += self.dice.choice([1000, 60_000, 60_000, 600_000, 4 * 3_600_000])
            return
        for topic, key, value in self.traffic.some(driver.now_ms):
            driver.send(topic, key, value)


class Traffic:
    """Raw records of few people: amounts go up and down again, orders change hands and vanish, cookies become known."""

    def __init__(self, dice: random.Random, people: int) -> None:
        self.dice, self.people = dice, people
        self.rows: dict[int, dict[str, Any]] = {}
        self.n = 0

    def some(self, now_ms: int) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """The next records (topic, key, value), one or none."""
        dice = self.dice
        self.n += 1
        who, cookie = f"{dice.randrange(self.people)}", f"k{dice.randrange(2 * self.people)}"
        match dice.randrange(9):
            case 0 | 1 | 2:
                yield "visits", cookie, self.visit(who, cookie, now_ms)
            case 3:
                email, name = f"{dice.randrange(self.people)}@mail.org", dice.choice(["Ann", "Bo"])
                row = {"id": int(who), "crm": who, "email": email, "born": None, "name": name}
                yield from self.change("accounts", int(who), row, now_ms)
            case _:
                id = dice.randrange(2 * self.people)
                order = {
                    "id": 1000 + id,
                    "buyer": cookie if dice.random() < 0.2 else f"k{id % self.people}",
                    "amount": dice.choice(["10.00", "60.00", "60.00"]),
                    "placed": text(now_ms - dice.randrange(9 * 86_400_000)),
                }
                yield from self.change("orders", 1000 + id, None if dice.random() < 0.15 else order, now_ms)

    def visit(self, who: str, cookie: str, now_ms: int) -> dict[str, Any]:
        return {
            "id": f"v{self.n}",
            "cookie": cookie,
            "customer": who if self.dice.random() < 0.4 else None,
            "emails": [f"{who}@mail.org"] if self.dice.random() < 0.2 else [],
            "page": f"/{self.dice.randrange(4)}",
            "ts": text(now_ms - self.dice.randrange(9 * 86_400_000)),
        }

    def change(
        self, topic: str, id: int, row: dict[str, Any] | None, now_ms: int
    ) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """A row that is written anew or, None, deleted: nothing where there is none."""
        before = self.rows.pop(id, None)
        if row is not None:
            self.rows[id] = row
        elif before is None:
            return
        yield (
            topic,
            json.dumps({"id": id}),
            {
                "op": "d" if row is None else "u" if before else "c",
                "before": before,
                "after": row,
                "source": {"connector": "postgresql", "lsn": 1000 + self.n, "ts_ms": now_ms},
                "ts_ms": now_ms,
            },
        )


def text(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat().replace("+00:00", "Z")


app = three()


# ------------------------------------------------------------------------------------------------------ a restless log
class Restless:
    """A cluster on which something happens before each answer, and while records are read."""

    def __init__(self, cluster: MemoryCluster, step: Callable[[], None]) -> None:
        self.cluster, self.step, self.name = cluster, step, cluster.name

    def consumer(self, group: str, *, instance: str | None = None) -> Consumer:
        return self.cluster.consumer(group, instance=instance)

    def producer(self, transactional_id: str | None = None) -> Producer:
        return self.cluster.producer(transactional_id)

    def reader(self) -> Reader:
        return RestlessReader(self.cluster.reader(), self.step)

    def admin(self) -> Admin:
        return self.cluster.admin()


class RestlessReader:
    def __init__(self, reader: Reader, step: Callable[[], None]) -> None:
        self.reader, self.step = reader, step

    def ends(self, partitions: Sequence[TP]) -> dict[TP, int]:
        self.step()
        return self.reader.ends(partitions)

    def starts(self, partitions: Sequence[TP]) -> dict[TP, int]:
        self.step()
        return self.reader.starts(partitions)

    def read(self, positions: Mapping[TP, int], ends: Mapping[TP, int] | None = None) -> Iterator[list[Batch]]:
        """Partition by partition, with time between them: no two are read at one moment."""
        ends = self.reader.ends(list(positions)) if ends is None else ends
        for tp, position in positions.items():
            self.step()
            for batches in self.reader.read({tp: position}, {tp: ends[tp]}):
                self.step()
                yield batches

    def follow(self, positions: Mapping[TP, int]) -> Iterator[tuple[list[Batch], dict[TP, int]]]:
        return self.reader.follow(positions)

    def close(self) -> None:
        self.reader.close()
