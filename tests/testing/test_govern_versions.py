"""A second version of govern beside the first: other enrichments and links, over the same raw topics from their beginning."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from c360 import App, Personal, Projection, Record, count, newest, top, total
from c360.agents.control import Controls, Live, VersionState, encode, live_key, version_key
from c360.errors import DeclarationError, NeedsOperator, NotYet
from c360.identity.facts import OPERATORS, Claim, Fact
from c360.ops import dlq, sources
from c360.ops.identity.say import write
from c360.ops.reset import plan_reset
from c360.ops.versions import Waiting, check, plan_promote
from c360.testing import TestDriver
from tests.testing.shop import change
from tests.testing.world import NOW

MARCH = datetime(2026, 3, 1, tzinfo=UTC)


class CrmId(str): ...


class Cookie(str): ...


class Click(Record):
    id: str
    cookie: Cookie
    customer: CrmId | None
    path: str
    ts: datetime


class Order(Record):
    id: int
    customer: CrmId
    amount: Decimal
    note: Personal[str] | None = None


class PlainOrder(Record):
    id: int
    customer: CrmId
    amount: Decimal


def shop(*governs: int, sealed: bool = False, own: bool = True, name: str = "shop", raw: str = "") -> App:
    """Version 2 of govern takes the last part of a path for its section, and links a cookie to the customer in the path.

    `own`: it has rules of identity of its own; otherwise its projections follow those over the links of version 1.
    """
    app = App(name, partitions=2, govern=governs)
    app.identifier("crm", priority=1, unique=True)(CrmId)
    app.identifier("cookie", priority=20)(Cookie)
    app.source(f"{raw}web.clicks", event_id="id", at="ts", subject="cookie", name="clicks")(Click)
    app.cdc(f"{raw}crm.orders", key="id", subject="customer", name="orders")(Order if sealed else PlainOrder)
    Bought: Any = Order if sealed else PlainOrder
    if 1 in governs:

        @app.enrich(Click, govern=1 if len(governs) > 1 else None)
        def section(click: Click) -> str:
            return click.path.split("/")[0]

        class First(Projection):
            clicks: int = count(Click)
            spend: Decimal = total(Bought.amount)
            sections: list[str] = top(section)

        app.projection("customer", version=1, identity=app.identity())(First)
    if 2 in governs:

        def last(click: Click) -> str:
            return click.path.split("/")[-1]

        last.__name__ = "section"
        again = app.enrich(Click, govern=2)(last)

        @app.enrich(Click, govern=2)
        def invited_by(click: Click) -> CrmId | None:
            return CrmId(click.path.split("=")[1]) if "=" in click.path else None

        class Second(Projection):
            clicks: int = count(Click)
            spend: Decimal = total(Bought.amount)
            sections: list[str] = top(again)

        if sealed:

            @app.enrich(Order, govern=2)
            def loud(order: Order) -> Personal[str] | None:
                return order.note.upper() if order.note else None

            class Heard(Projection):
                note: str | None = newest(loud)

            app.projection("heard", govern=2)(Heard)

        two = app.identity(version=2, govern=2) if own else app._said.identities[0]
        app.projection("customer", version=2, identity=two, govern=2)(Second)
        if 1 in governs:

            class Third(Projection):
                sections: list[str] = top(again)
                last: str | None = newest(Click.path)

            app.projection("customer", version=3, identity=app._said.identities[0], govern=2)(Third)
    return app


def click(id: str, cookie: str, path: str, customer: str | None = None) -> dict[str, Any]:
    return {"id": id, "cookie": cookie, "customer": customer, "path": path, "ts": "2026-11-01T10:00:00Z"}


def row(lsn: int, id: int, customer: str, amount: str, **more: Any) -> tuple[str, str, Any]:
    value = {"id": id, "customer": customer, "amount": amount, **more}
    return "crm.orders", json.dumps({"id": id}), change("u", lsn, value)


SENT: list[tuple[str, str | None, Any]] = [
    *[("web.clicks", f"k{n}", click(f"c{n}", f"c-{n % 3}", f"shoes/red{n % 2}")) for n in range(9)],
    ("web.clicks", "k1", click("c1", "c-1", "shoes/red1")),  # a repeat
    ("web.clicks", "k2", click("d1", "c-0", "a/b", customer="7")),
    ("web.clicks", "k2", click("d2", "c-1", "ref=7")),
    ("web.clicks", "k3", {"id": "bad"}),
    row(1, 1, "7", "10"),
    row(2, 2, "7", "5"),
    row(3, 1, "7", "12"),
    ("crm.orders", None, change("t", 4, None)),
    row(5, 3, "7", "100"),
]


def send(t: TestDriver, sent: list[tuple[str, str | None, Any]] = SENT) -> None:
    for topic, key, value in sent:
        t.send(topic, key, value)
    t.settle()


def latest(t: TestDriver, topic: str) -> dict[bytes, bytes]:
    t.settle()
    return {key or b"": value for key, value in dict(t.read(topic)).items() if value is not None}


def disturb(t: TestDriver, n: int) -> None:
    (TestDriver.settle, TestDriver.crash, TestDriver.lose_disk, TestDriver.rebalance)[n % 4](t)


def test_each_version_governs_links_and_folds_by_itself() -> None:
    with TestDriver(shop(1, 2), now=NOW) as t:
        for n, one in enumerate(SENT):
            send(t, [one])
            disturb(t, n)
        t.verify()
        first, second = t.profile("crm:7", "customer@1"), t.profile("crm:7", "customer@2")
        assert (first.sections, first.clicks) == (["shoes", "a"], 4)
        assert (second.clicks, second.sections) == (8, ["red0", "red1", "b"]), "one more cookie, by the path"
        assert first.spend == second.spend == Decimal(100)
        third = t.profile("crm:7", "customer@3")
        assert third.sections == ["red0", "b", "red1"], "new enrichments, who is who as before"
        for version in (1, 2):
            with TestDriver(shop(version), now=NOW) as alone:
                send(alone)
                alone.verify()
                assert latest(alone, f"shop.customer.v{version}") == latest(t, f"shop.customer.v{version}")


def test_the_second_is_built_beside_from_the_raw_topics_and_the_first_does_not_notice() -> None:
    with TestDriver(shop(1), now=NOW) as t, TestDriver(shop(1, 2), now=NOW) as whole:
        send(t)
        send(whole)
        topics = ("shop.governed.clicks.v1", "shop.links", "shop.assignments.v1", "shop.customer.v1")
        before = {topic: len(list(t.read(topic))) for topic in topics}
        t.stop()
        t.plan = shop(1, 2).plan()
        t.start()
        t.settle()
        assert {topic: len(list(t.read(topic))) for topic in topics} == before
        for version in (1, 2, 3):
            assert latest(t, f"shop.customer.v{version}") == latest(whole, f"shop.customer.v{version}")
        t.verify()


def test_what_operators_have_said_is_known_to_the_second_as_well() -> None:
    apart = Fact("cookie:c-0", "cannot", "crm:7", OPERATORS, Claim(1))
    with TestDriver(shop(1), now=NOW) as t:
        write(t.plan, t.cluster, [apart], reason="wrong", actor="ann")
        send(t)
        assert t.profile("crm:7", "customer@1").clicks == 0
        t.stop()
        t.plan = shop(1, 2).plan()
        t.start()
        t.settle()
        assert t.profile("crm:7", "customer@2").clicks == 4, "c-1 by what version 2 makes of paths; not c-0"
        t.verify()


def test_a_misfit_is_put_aside_by_each_and_brought_back_to_each_once() -> None:
    with TestDriver(shop(1, 2), now=NOW) as t:
        send(t)
        letters = list(dlq.read(t.plan, t.cluster))
        assert sorted(letter.misfit.stage for letter in letters) == ["govern", "govern@2"]
        assert dlq.replay(t.plan, t.cluster, topic=None, reason=None)["replayed"] == 2
        t.settle()
        t.verify()


def test_names_stay_as_they_were_for_the_first() -> None:
    one, both = shop(1).plan(), shop(1, 2).plan()
    assert {t.name for t in one.topics} <= {t.name for t in both.topics}
    more = {t.name for t in both.topics} - {t.name for t in one.topics}
    assert {
        "shop.governed.clicks.v2",
        "shop.links.v2",
        "shop.truncates.orders.v2",
        "shop.govern.v2.clicks.changelog",
    } <= more
    assert both.agent("govern").group == "shop.govern.v1"
    assert both.agent("govern@2").group == "shop.govern.v2"
    alone = shop(2).plan()
    assert alone.agent("govern").name == alone.agent("govern@2").name == "govern@2"


@pytest.mark.parametrize("own", [True, False])
def test_a_forgotten_customer_is_forgotten_by_both(own: bool) -> None:
    with TestDriver(shop(1, 2, sealed=True, own=own), now=NOW) as t:
        send(t, [*SENT[:12], row(1, 1, "7", "10", note="secret"), row(2, 2, "8", "5", note="mine")])
        assert t.profile("crm:7", "customer@2") is not None
        assert t.profile("crm:7", "heard").note == "SECRET", "only version 2 has it, and seals it"
        certificate = t.erase("crm:7")
        assert certificate is not None
        assert {task.partition("@")[2] for task in certificate.govern} == {"", "2"}
        for version in (1, 2):
            assert t.profile("crm:7", f"customer@{version}") is None
            assert t.profile("crm:8", f"customer@{version}").spend == Decimal(5)
        send(t, [("web.clicks", "k", click("e1", "c-9", "a/b", customer="7"))])
        for version in (1, 2):
            assert t.profile("cookie:c-9", f"customer@{version}") is None, "it names who was forgotten"
        assert (t.profile("crm:7", "heard"), t.profile("crm:8", "heard").note) == (None, "MINE")
        t.verify()


def test_projections_may_follow_the_old_rules_over_new_records() -> None:
    with TestDriver(shop(1, 2, own=False), now=NOW) as t:
        send(t)
        assert t.profile("crm:7", "customer@2").sections == ["red0", "b", "red1"]
        assert t.plan.upstream("customer@2") == ("govern", "govern@2", "identity@1")
        t.verify()


# ----------------------------------------------------------------------------------------------------------- refusals
def declare(app: App, name: str, **options: Any) -> None:
    app.projection("other", **options)(
        type("Other", (Projection,), {name: count(Click), "__annotations__": {name: int}})
    )


WRONG: dict[str, tuple[Callable[[], Any], str]] = {
    "number": (lambda: App("a", govern=0), "versions are numbers from 1 on"),
    "twice": (lambda: App("a", govern=(2, 2)), "versions are numbers from 1 on"),
    "projection": (lambda: declare(shop(1), "n", govern=2), r"no version of govern; say App\('shop', govern=\(1, 2\)\)"),
    "identity": (lambda: shop(1).identity("risk", govern=3), "govern=3 is no version"),
    "enrichment": (lambda: shop(1).enrich(Click, govern=3)(lambda c: 1), "govern=3 is no version"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_mistake_is_refused(name: str) -> None:
    make, said = WRONG[name]
    with pytest.raises(DeclarationError, match=said):
        make()


def test_an_enrichment_of_another_version_is_refused_where_it_is_used() -> None:
    app = App("a", govern=(1, 2))
    app.identifier("cookie")(Cookie)
    app.identifier("crm")(CrmId)
    app.source("web.clicks", subject="cookie")(Click)

    @app.enrich(Click, govern=2)
    def section(click: Click) -> str:
        return click.path

    class Of(Projection):
        sections: list[str] = top(section)

    with pytest.raises(DeclarationError, match=r"Of\.sections: Click\.section is of another version of govern"):
        app.projection("customer")(Of)
    app.projection("customer", govern=2)(Of)


def test_a_version_that_stands_beside_another_is_not_reset() -> None:
    with TestDriver(shop(1, 2), now=NOW) as t:
        t.stop()
        with pytest.raises(NeedsOperator, match=r"Declare one more beside, govern=\(1, 2, 3\)"):
            plan_reset(t.plan, t.cluster, "govern@2")


def test_a_new_version_is_not_begun_where_raw_records_are_of_a_life_that_is_over() -> None:
    with TestDriver(shop(1, sealed=True), now=NOW) as t:
        send(t, [row(1, 1, "7", "10", note="secret")])
        t.advance(timedelta(seconds=1))
        certificate = t.erase("crm:7")
        assert certificate is not None
        t.lift(certificate)
        t.settle()
        t.stop()
        t.plan = shop(1, 2, sealed=True).plan()
        with pytest.raises(
            NeedsOperator, match=r"crm.orders still have records from before: govern would take them in"
        ):
            t.start()
        t.plan = shop(1, sealed=True).plan()
        t.start()


def test_a_version_is_not_promoted_while_its_version_of_govern_still_reads_raw_topics() -> None:
    with TestDriver(shop(1, 2), now=NOW) as t:
        send(t)
        decided = {live_key("customer"): encode(Live(1)), version_key("customer@2"): encode(VersionState("ready"))}
        switch = plan_promote(t.plan, Controls(decided), "customer@2")
        check(t.plan, t.cluster, switch, Waiting(0), erasing=False)
        t.stop()
        t.send("web.clicks", "k", click("f1", "c-1", "a/b"))
        with pytest.raises(NotYet, match="govern@2"):
            check(t.plan, t.cluster, switch, Waiting(0), erasing=False)


def test_of_a_source_that_is_paused_no_version_of_govern_reads_anything_and_a_promotion_says_so() -> None:
    with TestDriver(shop(1, 2), now=NOW) as t:
        send(t)
        before = [t.record("crm:7", f"customer@{version}") for version in (1, 2)]
        t.pause("web.clicks")
        t.send("web.clicks", "k", click("f1", "c-1", "a/b"))
        assert [t.record("crm:7", f"customer@{version}") for version in (1, 2)] == before
        (status,) = [s for s in sources.statuses(t.plan, t.cluster) if s.paused]
        assert (status.source, status.lag) == ("clicks", {"govern": 1, "govern@2": 1})
        decided = {live_key("customer"): encode(Live(1)), version_key("customer@2"): encode(VersionState("ready"))}
        switch = plan_promote(t.plan, Controls(decided), "customer@2")
        with pytest.raises(NotYet, match=r"c360 source resume clicks --execute"):
            check(t.plan, t.cluster, switch, Waiting(0), erasing=False)
        t.resume("web.clicks")
        t.settle()
        check(t.plan, t.cluster, switch, Waiting(0), erasing=False)
        t.verify()
