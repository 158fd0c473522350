"""Two versions with agents of their own, the second by other rules of who leads; promoted and rolled back under traffic.

Of a seed: records, decisions, merges, crashes, lost disks, rebalances, resets, versions that go live. Whenever all has come to
rest, the oracle of `c360 verify` says what the far sides hold, and no far side was told what it holds already.
"""

from __future__ import annotations

import json
import random
from datetime import datetime, timedelta
from typing import Any

import pytest
from click.testing import CliRunner

from c360 import App, Projection, Record, count, newest
from c360.agents.control import Live, VersionState, live_key, version_key
from c360.cli.versions import promote
from c360.ops import control
from c360.testing import TestDriver
from tests.cli.test_audit import Here
from tests.cli.test_json import hold
from tests.governance.door_shop import HOUR, NOW, SECOND

STEPS = 30
PEOPLE, COOKIES = 4, 3
SINKS = ("sink:mail", "sink:bills")


def shop() -> App:
    app = App("two", partitions=2)

    @app.identifier("crm", priority=1)
    class CrmId(str): ...

    @app.identifier("cookie", priority=5)
    class Cookie(str): ...

    service, marketing = app.purpose("service", basis="contract"), app.purpose("marketing")
    cookies = app.identity("cookies", changes={CrmId: {"priority": 9}})

    @app.cdc("customers", key="id", purposes=[service, marketing])
    class Customer(Record):
        id: CrmId
        cookie: Cookie | None
        name: str

    @app.source("clicks", event_id="id", subject="cookie", purposes=[service, marketing])
    class Click(Record):
        id: str
        cookie: Cookie
        page: str

    @app.projection("customer", version=1, purposes=[service, marketing])
    class First(Projection):
        name: str | None = newest(Customer.name)
        clicks: int = count(Click)

    @app.projection("customer", version=2, identity=cookies, purposes=[service, marketing])
    class Second(Projection):
        name: str | None = newest(Customer.name)
        page: str | None = newest(Click.page)
        clicks: int = count(Click, where=lambda click: click.page != "/0")

    @app.consent("choices")
    class Choice(Record):
        id: CrmId
        purpose: str
        granted: bool
        at: datetime

    def leaves(profile: Any) -> dict[str, Any] | None:
        return None if profile.clicks > 9 else {"name": profile.name, "clicks": profile.clicks}

    app.sink("mail", projection=First, purpose=marketing)(leaves)
    app.sink("bills", projection=Second, purpose=service)(leaves)
    return app


class Two(TestDriver):
    """The shop, and what its people do."""

    __test__ = False

    def __init__(self) -> None:
        self.said, self.version = 0, 1
        super().__init__(shop(), now=NOW)
        self.go_live(1)

    def go_live(self, version: int) -> None:
        control.write(self.plan, self.cluster, [(live_key("customer"), Live(version, self.version))])
        self.version = version

    def customer(self, n: int, cookie: str | None, name: str | None) -> None:
        self.said += 1
        source = {"ts_ms": self.now_ms, "lsn": self.said}
        row = None if name is None else {"id": str(n), "cookie": cookie, "name": name}
        before = {"id": str(n), "cookie": None, "name": ""} if row is None else None
        envelope = {"before": before, "after": row, "op": "u" if row else "d", "ts_ms": self.now_ms, "source": source}
        self.send("customers", key=str(n), value=envelope)

    def click(self, cookie: str) -> None:
        self.said += 1
        self.send("clicks", key=cookie, value={"id": str(self.said), "cookie": cookie, "page": f"/{self.said % 3}"})

    def choose(self, n: int, status: str, at: datetime) -> None:
        said = {"id": str(n), "purpose": "marketing", "granted": status == "granted", "at": at.isoformat()}
        self.send("choices", key=str(n), value=said)

    def checked(self) -> None:
        self.verify(*SINKS)
        for door in (door for door in self.plan.doors if door.sink is not None):
            held: dict[bytes | None, bytes | None] = {}
            for who, value in self.read(self.plan.leaves(door)):
                assert held.get(who) != value, "what is there already was said again"
                held[who] = value


def happens(t: Two, dice: random.Random) -> None:
    now = NOW + timedelta(milliseconds=t.now_ms - int(NOW.timestamp() * 1000))
    match dice.randrange(14):
        case 0 | 1 | 2:
            cookie = dice.choice([None, *(f"c{n}" for n in range(COOKIES))])
            t.customer(dice.randrange(PEOPLE), cookie, dice.choice([None, "Ann", "Bob", "Cid"]))
        case 3 | 4:
            t.click(f"c{dice.randrange(COOKIES)}")
        case 5 | 6:
            t.choose(
                dice.randrange(PEOPLE), dice.choice(("granted", "granted", "denied")), now - dice.randrange(3) * SECOND
            )
        case 7:
            t.advance(dice.choice((SECOND, HOUR)))
        case 8 | 9 | 10:
            t.go_live(3 - t.version)
        case 11:
            t.crash()
        case 12:
            dice.choice((t.lose_disk, t.rebalance))()
        case 13:
            t.reset(dice.choice(SINKS))


@pytest.mark.parametrize("seed", range(10))
def test_far_sides_hold_what_the_live_version_says_whatever_happens(seed: int) -> None:
    dice = random.Random(seed)
    with Two() as t:
        for _ in range(STEPS):
            happens(t, dice)
            if dice.random() < 0.3:
                t.checked()
        t.checked()
        t.go_live(3 - t.version)
        t.checked()


def test_the_second_version_has_other_customers_than_the_first() -> None:
    with Two() as t:
        t.customer(1, "a", "Ann")
        t.click("a")
        t.click("a")
        assert t.sink("bills") == {"crm:1": {"name": "Ann", "clicks": 2}}
        t.go_live(2)
        assert t.sink("bills") == {"cookie:a": {"name": "Ann", "clicks": 1}}
        t.go_live(1)
        assert t.sink("bills") == {"crm:1": {"name": "Ann", "clicks": 2}}


def test_promote_says_before_what_each_sink_would_send() -> None:
    with Two() as t:
        t.customer(1, "a", "Ann")
        t.click("a")
        t.customer(2, None, "Bob")
        t.choose(2, "granted", NOW - SECOND)
        t.settle()
        control.write(t.plan, t.cluster, [(version_key("customer@2"), VersionState("ready"))])
        here = Here(shop(), t.cluster)
        ran = CliRunner().invoke(promote, ["customer@2", "--preview", "--json"], obj=here)
        assert ran.exit_code == 0, ran.output
        hold("c360 promote", json.loads(ran.stdout))
        assert json.loads(ran.stdout)["preview"] == {
            "sink:mail": {"added": 0, "changed": 0, "removed": 0, "unchanged": 1, "held_back": {"unknown": 1}},
            "sink:bills": {"added": 1, "changed": 0, "removed": 1, "unchanged": 1, "held_back": {}},
        }
        ran = CliRunner().invoke(promote, ["customer@2", "--preview"], obj=here)
        assert "sink:mail: 0 new, 0 changed, 0 removed, 1 as they are; 1 unknown" in ran.stdout
        before = list(t.read("two.activation.bills"))
        t.go_live(2)
        t.settle()
        assert len(list(t.read("two.activation.bills"))) == len(before) + 2
