"""What purposes see of profiles, on the production engine: the oracle's bytes, whatever happened on the way."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from operator import attrgetter
from random import Random
from typing import Any

import pytest

from c360 import App, Personal, Projection, Record, count
from c360.agents import folding, projection, render
from c360.agents.moves import Moves
from c360.agents.projection import ProjectionTask
from c360.agents.render import Renderer
from c360.agents.shape import Shape
from c360.testing import TestDriver
from tests.mutant import Mutant
from tests.testing.shop import change
from tests.testing.views import PEOPLE, Bench, bare, sealed, shop, some_records
from tests.testing.world import NOW

ANN, BOB, CID, DAN = PEOPLE
APP, BARE = shop(), bare()


@pytest.fixture
def t() -> Iterator[Bench]:
    with Bench(APP) as driver:
        yield driver


def name(subject: str, value: str) -> dict[str, str]:
    return sealed(subject, "Click.name", value)


def click(t: Bench, subject: str, page: str = "/", said: str | None = None, **more: Any) -> None:
    t.govern("Click", subject, page=page, email=None, name=said and name(subject, said), **more)


def test_where_a_purpose_sees_less_the_record_says_what_it_sees(t: Bench) -> None:
    click(t, ANN, "/a", "Ann")
    t.govern("Log", ANN, page="/secret", name=sealed(ANN, "Log.name", "Anna"), at=t.now_ms + 1000)
    record = t.shown(ANN)
    assert record["attributes"]["pages"] == ["/a", "/secret"]
    assert list(record["views"]) == ["ads", "care", "stats"]
    assert record["views"]["care"] is None  # no order: nothing of this profile may be used for it
    seen = record["views"]["ads"]
    assert (seen["subjects"], seen["subjects_total"], seen["identifiers"]) == ([ANN], 1, [ANN])
    assert (seen["as_of"], record["as_of"]) == ("2026-11-02T09:00:00Z", "2026-11-02T09:00:01Z")
    assert (seen["attributes"]["pages"], seen["attributes"]["name"]) == (["/a"], name(ANN, "Ann"))
    assert not seen["attributes"].keys() & {
        "logs",
        "logged",
        "greeting",
        "share",
    }  # what it may not see, what is derived
    t.verify("customer@1")


def test_where_all_see_the_whole_the_record_is_that_of_an_app_without_purposes(t: Bench) -> None:
    t.govern("Order", ANN, id=1, amount="9.50", note=None, home=None, day=None, born=None)
    record = t.shown(ANN)
    assert "views" not in record
    assert record["attributes"]["spend"] == "9.50"
    t.verify("customer@1")


def test_a_member_is_listed_for_those_who_may_know_of_it(t: Bench) -> None:
    click(t, ANN)
    t.govern("Log", BOB, page="/")
    t.assign(ANN, 1, ANN, "email:~a")
    t.assign(BOB, 1, ANN, "email:~b")
    record = t.shown(ANN)
    assert record["identifiers"] == sorted([ANN, BOB, "email:~a", "email:~b"])
    assert record["views"]["ads"]["identifiers"] == sorted([ANN, "email:~a"])
    assert record["views"]["ads"]["subjects"] == [ANN]
    t.assign(BOB, 2, BOB)
    assert "ads" not in t.shown(ANN)["views"]
    assert t.shown(BOB)["views"] == {"ads": None, "care": None, "stats": None}
    t.verify("customer@1")


def test_news_of_a_member_may_be_used_for_what_its_source_says(t: Bench) -> None:
    """It lies on another partition, to which they are sent."""
    click(t, ANN)
    t.assign(ANN, 1, BOB)
    assert "ads" not in t.shown(BOB)["views"]
    t.govern("Log", ANN, page="/secret", name=None)
    assert t.shown(BOB)["views"]["ads"]["attributes"]["pages"] == ["/"]
    click(t, ANN, "/a")
    assert t.shown(BOB)["views"]["ads"]["attributes"]["pages"] == ["/", "/a"]
    t.verify("customer@1")


def test_coming_back_it_may_be_used_as_before(t: Bench) -> None:
    click(t, ANN)
    t.assign(ANN, 1, BOB)
    t.settle()
    click(t, ANN, "/a")
    t.assign(ANN, 2, ANN)
    record = t.shown(ANN)
    assert (record["attributes"]["pages"], record["views"]) == (["/", "/a"], {"care": None})
    t.verify("customer@1")


def test_records_of_an_erased_life_may_be_used_for_nothing(t: Bench) -> None:
    click(t, ANN, "/a", "Ann")
    t.govern("Log", ANN, page="/b", name=None)
    click(t, ANN, "/", life=1)
    click(t, ANN, "/about", life=0)
    record = t.shown(ANN)
    assert (record["attributes"]["pages"], record["attributes"]["name"]) == (["/"], None)
    assert record["views"] == {"care": None}
    t.verify("customer@1")


def test_a_profile_without_anything_live_is_gone_for_all(t: Bench) -> None:
    row: dict[str, Any] = {"id": 1, "amount": "9.50", "note": None, "home": None, "day": None, "born": None}
    t.govern("Order", ANN, **row)
    assert ANN in t.profiles()
    t.govern("Order", ANN, sign=-1, **row)
    assert t.profiles() == {}
    t.verify("customer@1")


def test_windows_close_for_each_purpose(t: Bench) -> None:
    click(t, ANN, said="Ann")
    t.govern("Order", ANN, id=1, amount="9.50", note=None, home=None, day=None, born=None)
    assert t.shown(ANN)["views"]["care"]["attributes"]["spend_3d"] == "9.50"
    t.advance(timedelta(days=3))
    record = t.shown(ANN)
    assert (record["attributes"]["spend_3d"], record["attributes"]["often"]) == ("0.00", [])
    assert record["views"]["care"]["attributes"]["spend_3d"] == "0.00"
    t.verify("customer@1")


def test_a_sealed_value_is_kept_and_compared_as_it_is(t: Bench) -> None:
    click(t, ANN, "/a", "Ann")
    click(t, ANN, "/a", "Ann")
    click(t, ANN, "/", "Bob")
    home = {"city": "Ghent", "street": sealed(ANN, "Order.home.street", "Kouter 1")}
    born = sealed(ANN, "Order.born", '"1990-01-01"')
    t.govern("Order", ANN, id=1, amount="1.00", note=None, home=home, day="2026-01-02", born=born, at=t.now_ms + 1)
    attributes = t.shown(ANN)["attributes"]
    assert attributes["often"] == [name(ANN, "Ann"), name(ANN, "Bob")]
    assert attributes["kinds"] == 2
    assert attributes["home"] == home
    # Of one time the greatest text, sealed or not
    assert attributes["day"] == max(["2026-01-02", born], key=json.dumps)
    assert attributes["named"] == [name(ANN, "Ann")]
    assert attributes["deep"] == 0
    t.verify("customer@1")


def test_what_is_derived_from_a_sealed_value_is_left_to_the_doors(t: Bench) -> None:
    t.govern("Order", ANN, id=1, amount="9.50", note=None, home=None, day=None, born=None)
    click(t, ANN, said="Ann")
    attributes = t.shown(ANN)["attributes"]
    assert "greeting" not in attributes
    assert (attributes["share"], attributes["perhaps"]) == ("9.50", "few")
    click(t, ANN)
    click(t, ANN)
    assert "perhaps" not in t.shown(ANN)["attributes"]  # now it would look at the name
    assert t.topic("views.dlq") == []
    t.verify("customer@1")


def test_a_division_by_zero_is_still_told(t: Bench) -> None:
    t.govern("Order", ANN, id=1, amount="9.50", note=None, home=None, day=None, born=None)
    assert t.shown(ANN)["attributes"]["share"] is None
    assert [letter["reason"] for letter in t.topic("views.dlq")] == ["derived-failed"]


# ---------------------------------------------------------------------------------------- what differs in one thing only
@pytest.fixture
def b() -> Iterator[Bench]:
    with Bench(BARE) as driver:
        yield driver


def view(b: Bench) -> Any:
    """What a purpose sees, if it is other than all."""
    b.verify("customer@1")
    return b.shown(ANN).get("views", {}).get("ads", "the whole")


def test_what_is_the_same_is_not_repeated(b: Bench) -> None:
    b.govern("Seen", ANN, size=1)
    b.govern("Unseen", ANN, size=1)
    assert view(b) == "the whole"


def test_who_is_a_member_makes_a_difference(b: Bench) -> None:
    b.govern("Seen", ANN, size=1)
    b.govern("Unseen", BOB, size=1, at=b.now_ms - 1)
    b.assign(BOB, 1, ANN)
    assert view(b)["subjects"] == [ANN]


def test_the_newest_time_makes_a_difference(b: Bench) -> None:
    b.govern("Seen", ANN, size=1)
    b.govern("Unseen", ANN, size=1, at=b.now_ms + 1)
    assert view(b)["as_of"] == "2026-11-02T09:00:00Z"


def test_how_a_number_is_written_makes_a_difference(b: Bench) -> None:
    b.govern("Seen", ANN, size=1)
    b.govern("Unseen", ANN, size=1.0)
    assert repr(view(b)["attributes"]["size"]) == "1"
    assert repr(b.shown(ANN)["attributes"]["size"]) == "1.0"


LESS = test_where_a_purpose_sees_less_the_record_says_what_it_sees
MEMBERS = test_a_member_is_listed_for_those_who_may_know_of_it
NEWS, BACK = test_news_of_a_member_may_be_used_for_what_its_source_says, test_coming_back_it_may_be_used_as_before
DERIVED = test_what_is_derived_from_a_sealed_value_is_left_to_the_doors
SEALED = test_a_sealed_value_is_kept_and_compared_as_it_is
SAME, WHO = test_what_is_the_same_is_not_repeated, test_who_is_a_member_makes_a_difference
TIME, SPELT = test_the_newest_time_makes_a_difference, test_how_a_number_is_written_makes_a_difference
MUTANTS = [
    (Mutant("all records may be used for all", folding, "mask_of", "if purpose in source.purposes", ""), LESS),
    (Mutant("a bit is another purpose's", folding, "mask_of", "1 << i", "1 << (i + 1) % 3"), LESS),
    (
        Mutant(
            "news may be used for nothing",
            Moves,
            "fold",
            "fold(news.delta, record, record.at, record.sign, mask)",
            "fold(news.delta, record, record.at, record.sign, 0)",
        ),
        NEWS,
    ),
    (
        Mutant(
            "what is folded may not be used",
            Moves,
            "fold",
            "fold(state.fragment, record, record.at, record.sign, mask)",
            "fold(state.fragment, record, record.at, record.sign, 0)",
        ),
        BACK,
    ),
    (
        Mutant("what nobody else has may not be used", ProjectionTask, "_fold", "view.sign, mask)", "view.sign, 0)"),
        LESS,
    ),
    (Mutant("purposes see the whole", Renderer, "_views", "if len(masks) == len(fragment):", "if True:"), LESS),
    (Mutant("nothing is something", Renderer, "_views", "if not listing.total:", "if False:"), LESS),
    (Mutant("all members are listed for all", Renderer, "_views", "else listings[i]", "else listings[0]"), MEMBERS),
    (Mutant("members do not differ", Renderer, "_views", "(listings is None or listing == listings[0])", "True"), WHO),
    (Mutant("times do not differ", Renderer, "_views", "cells[AS_OF] == whole[AS_OF]", "True"), TIME),
    (Mutant("what is equal is the same", Renderer, "_views", " and same_values(seen, values)", ""), SPELT),
    (Mutant("what is the same is repeated", Renderer, "_views", "if not (alike and", "if True or (alike and"), SAME),
    (Mutant("all attributes are shown", render, "sights_of", "if a.name in seen", ""), LESS),
    (Mutant("who looks is not noticed", render, "derived_values", "if _TOUCHED in values:", "if False:"), DERIVED),
    (Mutant("who looked once has always", render, "derived_values", "del values[_TOUCHED]", "pass"), DERIVED),
    (Mutant("to look is to fail", render, "derived_values", "if _TOUCHED not in values:", "if True:"), DERIVED),
    (Mutant("sealed values are text", projection, "stored", 'type="json"', "type=attribute.type"), SEALED),
]


@pytest.mark.parametrize(("mutant", "story"), MUTANTS, ids=lambda x: x.what if isinstance(x, Mutant) else "")
def test_a_guard_taken_away_is_noticed(mutant: Mutant, story: Callable[[Bench], None]) -> None:
    app = BARE if story in (SAME, WHO, TIME, SPELT) else APP
    with Bench(app) as t:
        story(t)
    with mutant.at_work(), pytest.raises((AssertionError, TypeError, KeyError)):
        story(Bench(app))


# ------------------------------------------------------------------------------------------------------------- seeds
ACCIDENTS: dict[str, Callable[[Bench], None]] = {
    "crash": Bench.crash,
    "lose_disk": Bench.lose_disk,
    "rebalance": Bench.rebalance,
    "reset": lambda t: t.reset("customer@1"),
    "midnight": lambda t: t.advance(timedelta(days=1)),
    "settle": Bench.settle,
}


@pytest.mark.parametrize("seed", range(24))
def test_in_the_end_the_records_are_what_they_mean(seed: int) -> None:
    random = Random(seed)
    with Bench(APP) as t:
        for seq in range(1, random.choice((2, 4, 8))):
            some_records(t, random, random.choice((1, 5, 20)))
            for subject in random.sample(PEOPLE, random.randrange(3)):
                profile = random.choice((*PEOPLE, subject, None))
                t.assign(subject, seq, profile, *random.sample(("email:~a", "email:~b"), random.randrange(3)))
            for loop in t.loops[: random.randrange(2)]:
                loop.turn(0.0)
            ACCIDENTS[random.choice(list(ACCIDENTS))](t)
        live = t.profiles()
        t.verify("customer@1")
        t.reset("customer@1")
        assert t.profiles() == live
        assert t.topic("views.dlq") == [] or {m["reason"] for m in t.topic("views.dlq")} == {"derived-failed"}


def test_seeds_are_about_views() -> None:
    kinds: set[str] = set()
    for seed in range(6):
        with Bench(APP) as t:
            some_records(t, Random(seed), 20)
            for record in map(json.loads, t.profiles().values()):
                views = record.get("views", {})
                kinds |= {"null" if view is None else "part" for view in views.values()}
                kinds |= {"whole"} if len(views) < 3 else set()
    assert kinds == {"null", "part", "whole"}


@pytest.mark.parametrize(("asking", "listed"), [(True, 130), (False, 100)])
def test_where_people_are_asked_all_are_listed(asking: bool, listed: int) -> None:
    with Bench(shop(asking=asking)) as t:
        for n in range(130):
            click(t, f"crm:m{n:03}")
            t.assign(f"crm:m{n:03}", 1, "crm:m000")
        record = t.shown("crm:m000")
        assert (len(record["subjects"]), record["subjects_total"], len(record["identifiers"])) == (listed, 130, listed)
        t.verify("customer@1")


def test_a_function_that_looks_at_what_is_sealed_puts_its_record_aside() -> None:
    """As far as it can be seen, the plan refuses it; this one hides it."""
    app = App("views", partitions=3)

    @app.identifier("crm", priority=1)
    class CrmId(str): ...

    @app.identifier("other")
    class Other(str): ...

    @app.source("clicks", subject="customer")
    class Click(Record):
        customer: CrmId
        page: str
        name: Personal[str] | None = None
        other: Other | None = None

    def is_named(click: Any) -> bool:
        return click.page != "/" or bool(attrgetter("name")(click))

    @app.projection("customer")
    class Profile(Projection):
        clicks: int = count(Click)
        named: int = count(Click, where=is_named)

    with Bench(app) as t:
        t.govern("Click", ANN, page="/a", name=name(ANN, "Ann"))
        t.govern("Click", ANN, page="/", name=None)
        assert t.shown(ANN)["attributes"] == {"clicks": 1, "named": 1}
        (letter,) = t.topic("views.dlq")
        assert (letter["reason"], letter["error"]) == (
            "sealed-field", "a function of where= looked at Click.name, which is sealed in a projection",
        )  # fmt: skip
        t.verify("customer@1")


def test_the_fingerprint_is_the_same_in_every_process() -> None:
    program = "from tests.testing.views import shop; print(shop().plan().agent('customer@1').fingerprint)"
    done = [
        subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": seed}
        ).stdout.strip()
        for seed in "123"
    ]
    assert done == [APP.plan().agent("customer@1").fingerprint] * 3


# ------------------------------------------------------------------------------------------------------ with all agents
def test_from_raw_records_to_what_a_purpose_sees_in_clear() -> None:
    with TestDriver(APP, now=NOW) as t:
        t.send("clicks", "7", {"customer": "7", "email": "ann@mail.org", "page": "/about", "name": "Ann"})
        t.send("logs", "7", {"customer": "7", "page": "/secret", "name": "Annie"})
        row = {"id": 1, "customer": "7", "amount": "9.50", "note": "gift", "home": {"city": "Ghent", "street": "Kouter 1"},
               "day": "2026-01-02", "born": "1990-01-01"}  # fmt: skip
        t.send("orders", '{"id": 1}', change("c", 1, row, table="orders"))
        record = t.record("crm:7")
        assert record is not None
        said = json.dumps(record)
        assert not [secret for secret in ("Ann", "mail.org", "gift", "Kouter", "1990") if secret in said]
        profile = t.profile("crm:7")
        assert (profile.name, profile.email, profile.note) == ("Ann", "ann@mail.org", "gift")
        assert profile.home == {"city": "Ghent", "street": "Kouter 1"}
        assert profile.greeting == "Dear Ann"
        (customer,) = t.plan.projections
        shape = Shape(t.plan, customer, "ads")
        seen = shape.look(record)
        assert seen is not None
        found, _ = shape.record(seen, t._open)
        assert found["attributes"]["pages"] == ["/about"]
        assert found["attributes"]["names"] == ["Ann"]
        assert found["attributes"]["home"] == {"city": "Ghent", "street": "Kouter 1"}
        assert "note" not in found["attributes"]  # it is Sensitive
        t.verify()
