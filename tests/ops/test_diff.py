"""`c360 diff`: two versions at one cut. Equal logic never differs, whatever moves meanwhile; other logic is found."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from c360 import App, Personal, Projection, Record, first, newest
from c360.agents import projection
from c360.agents.control import Live, VersionState, live_key, version_key
from c360.errors import NeedsOperator, UsageError
from c360.ops import control
from c360.ops.diff import ROUNDS, Report, cut, diff, terms_of, types_of
from c360.ops.diff.compare import NOBODY, Tally, Terms, Touched, judge, merged, same
from c360.ops.diff.page import page, percent, text
from c360.ops.diff.tables import Sample, hash_of
from c360.tables.store import MemoryStores
from c360.testing import TestDriver
from tests.mutant import Mutant
from tests.ops.differing import Moving, Other, Restless, Same, versions
from tests.testing.people import Cookie, Email, people
from tests.testing.world import NOW


def compared(world: Moving, **how: Any) -> Report:
    names = ("customer@1", "customer@2")
    return diff(world.plan, world.cluster, *names, MemoryStores(), pause=world.pause, **how)


def warmed(app: Any, seed: int) -> Moving:
    world = Moving(app, seed)
    world.sending = 0.9
    for _ in range(400):
        world.step()
    world.sending = 0.15
    return world


def rested(app: Any, seed: int) -> Moving:
    world = warmed(app, seed)
    world.on = False
    world.driver.settle()
    return world


# --------------------------------------------------------------------------------------------------------- under traffic
def differing(report: Report) -> tuple[int, int, int]:
    return report.tally.changed, report.tally.only_in_first, report.tally.only_in_second


@pytest.mark.parametrize("seed", range(8))
def test_equal_logic_never_differs_while_records_come_and_both_lag(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projection, "SWEPT_PER_COMMIT", 2)
    report = compared(warmed(versions(Same), seed))
    assert differing(report) == (0, 0, 0), report.to_json()
    assert report.tally.equal > 20
    assert report.tally.equal > report.tally.moving


@pytest.mark.parametrize("seed", range(3))
def test_nor_does_it_where_each_has_its_own_identities_of_the_same_rules(seed: int) -> None:
    report = compared(warmed(versions(Same, rules={}), seed))
    assert differing(report) == (0, 0, 0), report.to_json()
    assert report.tally.equal > 20


@pytest.mark.parametrize(
    "mutant",
    [
        Mutant("inputs between two cuts touch nobody", cut.Cuts, "touched", "if not open_:", "if True:"),
        Mutant("messages between tasks are not waited for", cut.Cuts, "drain", "range(hops)", "range(0)", seed=1),
        Mutant("the greater position is the first agent's", cut.Cuts, "high", "max(offset, found.get(tp, offset))",
               "found.get(tp, offset)"),
        Mutant("the lesser position is the first agent's", cut.Cuts, "low", "min(offset, found.get(tp, offset))",
               "found.get(tp, offset)", seed=10),
    ],
    ids=lambda mutant: mutant.what,
)  # fmt: skip
def test_without_one_of_the_steps_lag_would_be_told_as_a_difference(mutant: Mutant) -> None:
    with mutant.at_work():
        assert any(differing(compared(warmed(versions(Same), mutant.seed))))


@pytest.mark.parametrize("seed", range(3))
def test_other_logic_is_found_while_records_come(seed: int) -> None:
    world = warmed(versions(Other), seed)
    world.sending = 0.03  # so that not everybody who differs has a record whenever somebody looks
    report = compared(world)
    counts = report.tally.attributes
    assert report.tally.changed > 0
    assert counts["spend"].changed > 0
    assert counts["spend"].changed == counts["twice"].changed
    assert counts["twice"].total == 2 * counts["spend"].total < 0  # small orders do not count any more
    assert {name for name, c in counts.items() if c.changed} == {"spend", "twice"}
    both = report.tally.equal + report.tally.changed
    assert (counts["usual"].only_in_first, counts["accounts"].only_in_second) == (both, both)


@pytest.mark.parametrize("waits", [True, False])
def test_windows_that_ended_with_a_day_are_waited_for_though_no_input_is_left(
    waits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second has heard of the day as well as the first, and has still to write what it means, one profile a commit."""
    monkeypatch.setattr(projection, "SWEPT_PER_COMMIT", 1)
    world = rested(versions(Same), 3)
    world.driver.now_ms += 30 * 86_400_000
    loops = {loop.agent.name: loop for loop in world.driver.loops}
    for _ in range(3):
        loops["customer@2"].turn(0.0)
    for _ in range(100):
        loops["customer@1"].turn(0.0)
    if not waits:
        monkeypatch.setattr(cut, "BUSY", ())

    def pause(seconds: float) -> None:
        for loop in loops.values():
            loop.turn(0.0)

    names = ("customer@1", "customer@2")
    report = diff(world.plan, world.driver.cluster, *names, MemoryStores(), pause=pause)
    assert any(differing(report)) is not waits


def test_a_day_that_began_between_two_cuts_touches_everybody() -> None:
    world = rested(versions(Same), 1)
    reader, plan = world.driver.cluster.reader(), world.plan
    stages = cut.stages_of(plan, plan.agent("customer@1"), plan.agent("customer@2"))
    cuts = cut.Cuts(plan, reader, world.driver.cluster.admin().topics(), stages, pause=print, waiting=print)
    low = cuts.low()
    assert cuts.touched(low, cuts.high()) == NOBODY
    world.driver.advance(timedelta(days=1))
    world.driver.settle()
    assert cuts.touched(low, cuts.high()).all_


def test_versions_on_rule_sets_of_their_own_have_the_identities_looked_at_first() -> None:
    plan = versions(Same, rules={}).plan()
    first, second = plan.agent("customer@1"), plan.agent("customer@2")
    assert [[a.name for a in stage] for stage in cut.stages_of(plan, first, second)] == [
        ["identity@1", "identity.other@1"],
        ["customer@1", "customer@2"],
    ]
    plan = versions(Same).plan()
    assert cut.stages_of(plan, plan.agent("customer@2"), plan.agent("customer@1")) == [
        [plan.agent("customer@2"), plan.agent("customer@1")]
    ]


def test_whom_one_identity_has_moved_is_touched() -> None:
    world = rested(versions(Same, rules={}), 1)
    plan, driver = world.plan, world.driver
    stages = cut.stages_of(plan, plan.agent("customer@1"), plan.agent("customer@2"))
    partitions = driver.cluster.admin().topics()
    cuts = cut.Cuts(plan, driver.cluster.reader(), partitions, stages, pause=print, waiting=print)
    low = cuts.low()
    driver.send("visits", "k", visit_of("cookie:new") | {"customer": "1"})
    for _ in range(9):
        for loop in driver.loops:
            if loop.agent.name in ("govern", "identity@1", "customer@1"):
                loop.turn(0.0)
    assert {"cookie:new", "crm:1"} <= cuts.touched(low, cuts.high()).labels


def test_a_profile_with_records_all_the_time_is_moving_and_not_changed() -> None:
    """Whoever differs is sent a record whenever somebody looks, and the second version never has them all."""
    world = rested(versions(Other), 2)
    before = compared(world)
    hot = next(e.profile_id for e in before.tally.chosen() if e.kind == "changed" and e.profile_id.startswith("cookie"))
    loops = {loop.agent.name: loop for loop in world.driver.loops}

    def step() -> None:
        for _ in range(2):
            world.driver.send("visits", "k", visit_of(hot))
            for name in ("govern", "identity@1", "customer@1"):
                loops[name].turn(0.0)

    def pause(seconds: float) -> None:
        loops["customer@2"].turn(0.0)

    cluster = Restless(world.driver.cluster, step)
    report = diff(world.plan, cluster, "customer@1", "customer@2", MemoryStores(), pause=pause)
    assert (report.tally.moving, report.rounds) == (1, ROUNDS)
    assert (report.tally.changed, report.tally.equal) == (before.tally.changed - 1, before.tally.equal)
    assert hot in {e.profile_id for e in report.tally.chosen() if e.kind == "moving"}


def visit_of(profile_id: str) -> dict[str, Any]:
    cookie = profile_id.partition(":")[2]
    ts = "2026-11-02T00:00:00Z"
    return {"id": None, "cookie": cookie, "customer": None, "emails": [], "page": "/", "ts": ts}


OTHER_RULES = {Email: {"limit": 1}, Cookie: {"hub_at": 3, "shared_at": None}}


# ------------------------------------------------------------------------------------------------------- a slow oracle
def table(world: Moving, topic: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in world.driver.read(topic):
        found[(key or b"").decode()] = None if value is None else json.loads(value)
    return {key: value for key, value in found.items() if value is not None}


def pairs(world: Moving) -> Iterator[tuple[bytes, bytes | None, bytes | None]]:
    sides = []
    for version in (1, 2):
        last = {key: value for key, value in world.driver.read(f"people.customer.v{version}") if key is not None}
        sides.append(sorted((key, value) for key, value in last.items() if value is not None))
    return merged(*sides)


def slowly(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
    """What a comparison must say, from the two tables as plain JSON."""
    names = {name for t in (a, b) for r in t.values() for name in r["attributes"]}
    shared = {n for n in names if all(any(n in r["attributes"] for r in t.values()) for t in (a, b))}
    both = a.keys() & b.keys()
    other = {
        n: {key for key in both if a[key]["attributes"][n] != b[key]["attributes"][n]}
        for n in shared
    } | {"#" + n: {key for key in both if a[key][n] != b[key][n]} for n in ("subjects", "identifiers", "as_of")}  # fmt: skip
    changed = set().union(*other.values())
    return {
        "equal": len(both) - len(changed),
        "changed": len(changed),
        "only_in_first": len(a.keys() - b.keys()),
        "only_in_second": len(b.keys() - a.keys()),
        "attributes": {n: len(keys) for n, keys in other.items() if keys},
    }


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("rules", [None, OTHER_RULES], ids=["same rules", "other rules"])
def test_at_rest_it_says_what_a_slow_comparison_says(seed: int, rules: Any) -> None:
    world = rested(versions(Other, rules=rules), seed)
    said = compared(world).to_json()
    expected = slowly(table(world, "people.customer.v1"), table(world, "people.customer.v2"))
    found = {name: c["changed"] for name, c in said["attributes"].items() if c["changed"]}
    assert {**{key: said[key] for key in expected}, "attributes": found} == expected
    assert (said["moving"], said["cut"]["rounds"]) == (0, 1)
    if rules:
        assert said["only_in_first"] + said["only_in_second"] > 0


VALUES = (
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.sampled_from(["", "a", "1.50", "<b>"])
    | st.lists(st.integers(0, 2))
)
RECORDS = st.fixed_dictionaries(
    {
        "subjects": st.lists(st.sampled_from("xyz"), min_size=1, unique=True),
        "identifiers": st.just(["i"]),
        "attributes": st.fixed_dictionaries({"a": VALUES, "b": VALUES}),
    }
)
TABLES = st.dictionaries(st.sampled_from([f"p{n}" for n in range(6)]), RECORDS)


def plain(value: Any) -> Any:
    """Python holds 1 and true to be one."""
    return json.dumps(value, sort_keys=True)


@given(TABLES, TABLES)
def test_random_tables_are_compared_as_a_slow_comparison_does(a: dict[str, Any], b: dict[str, Any]) -> None:
    def rows(records: dict[str, Any]) -> list[tuple[bytes, bytes]]:
        whole = {
            k: {**r, "profile_id": k, "subjects_total": len(r["subjects"]), "as_of": None} for k, r in records.items()
        }
        return [(k.encode(), json.dumps(r).encode()) for k, r in sorted(whole.items())]

    tally = Tally(Terms(("a", "b")))
    assert judge(merged(rows(a), rows(b)), NOBODY, tally) == []
    both = a.keys() & b.keys()
    by_name = {
        **{n: {k for k in both if plain(a[k]["attributes"][n]) != plain(b[k]["attributes"][n])} for n in "ab"},
        "#subjects": {k for k in both if a[k]["subjects"] != b[k]["subjects"]},
    }
    changed = set().union(*by_name.values())
    assert (tally.equal, tally.changed) == (len(both - changed), len(changed))
    assert (tally.only_in_first, tally.only_in_second) == (len(a.keys() - b.keys()), len(b.keys() - a.keys()))
    found = {n: c.changed for n, c in tally.attributes.items() if c.changed}
    assert found == {n: len(keys) for n, keys in by_name.items() if keys}
    numbers = [
        (b[k]["attributes"]["a"] - a[k]["attributes"]["a"])
        for k in by_name["a"]
        if all(type(t[k]["attributes"]["a"]) is int for t in (a, b))
    ]
    assert tally.attributes["a"].total == sum(numbers)
    assert abs(tally.attributes["a"].largest) == max(map(abs, numbers), default=0)


# ------------------------------------------------------------------------------------------------------ two records
def record(version: int, profile: str = "crm:1", **attributes: Any) -> bytes:
    said = {
        "profile_id": profile,
        "projection": "customer",
        "version": version,
        "purpose": None,
        "subjects": [profile],
        "subjects_total": 1,
        "identifiers": [profile],
        "attributes": attributes,
        "as_of": "2026-11-02T09:00:00Z",
    }
    return json.dumps(said, separators=(",", ":")).encode()


def head(version: int) -> bytes:
    return f'"projection":"customer","version":{version},'.encode()


def judged(a: bytes | None, b: bytes | None, **terms: Any) -> Tally:
    tally = Tally(Terms(heads=(head(1), head(2)), **{"shared": ("spend",), **terms}))
    judge([(b"crm:1", a, b)], NOBODY, tally)
    return tally


def test_the_version_is_not_compared() -> None:
    assert judged(record(1, spend=1), record(2, spend=1)).equal == 1
    assert judged(record(1, spend=1), record(2, spend=2)).changed == 1


def test_decimal_numbers_are_compared_as_numbers_and_other_texts_as_texts() -> None:
    a, b = record(1, spend="1.50"), record(2, spend="1.5000")
    assert judged(a, b, numbers=frozenset(["spend"])).equal == 1
    assert judged(a, b).changed == 1
    counts = judged(a, record(2, spend="1.7501"), numbers=frozenset(["spend"])).attributes["spend"]
    assert (counts.total, counts.largest) == (Decimal("0.2501"), Decimal("0.2501"))


@pytest.mark.parametrize(("a", "b"), [(1, 1.0), (1, True), (0, False), ("1", 1), (None, 0), ([1], [1.0])])
def test_what_is_written_otherwise_is_another_value(a: Any, b: Any) -> None:
    assert not same(a, b)
    assert same(a, a)


def test_classified_values_are_compared_and_never_shown() -> None:
    sealed = [{"~sealed": text, "subject": "crm:1"} for text in ("gt3k", "x9qq")]
    a, b = record(1, spend=sealed[0], name="Ann"), record(2, spend=sealed[1], name="Bo")
    tally = judged(a, b, shared=("spend", "name"), classified=frozenset(["name"]))
    (example,) = tally.chosen()
    assert example.attributes == {"spend": ("sealed", "sealed"), "name": ("sealed", "sealed")}
    assert judged(a, record(2, spend=sealed[0], name="Ann"), shared=("spend", "name")).equal == 1
    alone = judged(a, None, shared=("spend", "name"), classified=frozenset(["name"])).chosen()[0]
    assert alone.attributes == {"spend": ("sealed", None), "name": ("sealed", None)}


def test_an_attribute_of_one_version_alone_changes_no_profile() -> None:
    tally = judged(record(1, spend=1, old=1), record(2, spend=1, new=1))
    assert (tally.equal, tally.changed) == (1, 0)
    assert (tally.attributes["old"].only_in_first, tally.attributes["new"].only_in_second) == (1, 1)


def test_a_value_that_one_version_leaves_out_of_a_profile_changes_it() -> None:
    tally = judged(record(1, spend=1), record(2))
    assert (tally.changed, tally.attributes["spend"].only_in_first) == (1, 1)


def test_what_a_purpose_sees_is_compared_for_the_purposes_that_both_are_for() -> None:
    whole = json.loads(record(1, spend=5))
    hidden = {**whole, "version": 2, "views": {"marketing": None}}
    a, b = (json.dumps(r, separators=(",", ":")).encode() for r in (whole, hidden))
    assert judged(a, b, purposes=("marketing",)).attributes["#views"].changed == 1
    assert judged(a, b, purposes=("service",)).equal == 1


def test_a_purpose_that_sees_what_has_changed_is_not_told_again() -> None:
    def seen(spend: int, orders: int) -> dict[str, Any]:
        listed = {"subjects": ["crm:1"], "subjects_total": 1, "identifiers": ["crm:1"], "as_of": "2026-11-02T09:00:00Z"}
        return {**listed, "attributes": {"spend": spend, "orders": orders}}

    def with_view(version: int, spend: int, view: Any) -> bytes:
        whole = json.loads(record(version, spend=spend, orders=9))
        return json.dumps(whole if view is None else {**whole, "views": {"marketing": view}}).encode()

    def changed(*two: bytes) -> set[str]:
        tally = judged(*two, shared=("spend", "orders"), purposes=("marketing",))
        return {name for name, counts in tally.attributes.items() if counts.changed}

    assert changed(with_view(1, 5, None), with_view(2, 6, None)) == {"spend"}
    assert changed(with_view(1, 5, seen(3, 2)), with_view(2, 6, seen(4, 2))) == {"spend"}
    assert changed(with_view(1, 5, seen(3, 2)), with_view(2, 6, seen(3, 1))) == {"spend", "#views"}
    assert changed(with_view(1, 5, seen(3, 2)), with_view(2, 5, seen(4, 2))) == {"#views"}
    assert changed(with_view(1, 5, seen(5, 9)), with_view(2, 5, None)) == set()


def test_who_is_touched_stays_open_only_where_something_differs() -> None:
    a, b, c = record(1, spend=1), record(2, spend=2), record(2, spend=1)
    for touched in (Touched(frozenset(["crm:1"])), Touched(all_=True)):
        tally = Tally(Terms(("spend",)))
        assert judge([(b"crm:1", a, b), (b"crm:1", a, c), (b"crm:1", None, b)], touched, tally) == [b"crm:1", b"crm:1"]
        assert (tally.equal, tally.compared) == (1, 1)
    assert judge([(b"crm:1", a, b)], Touched(frozenset(["crm:2"])), Tally(Terms(("spend",)))) == []


def test_a_profile_that_does_not_list_all_of_its_subjects_is_touched_by_anybody() -> None:
    many = record(1, spend=1).replace(b'"subjects_total":1', b'"subjects_total":101')
    tally = Tally(Terms(("spend",)))
    assert judge([(b"crm:1", many, record(2, spend=2))], Touched(frozenset(["crm:77"])), tally) == [b"crm:1"]
    assert judge([(b"crm:1", many, record(2, spend=2))], NOBODY, tally) == []


def test_examples_are_of_each_thing_that_differs_in_turn() -> None:
    tally = Tally(Terms(("a", "b")), examples=3)
    rows = [(f"p{n}".encode(), record(1, f"p{n}", a=n, b=0), record(2, f"p{n}", a=-1, b=0)) for n in range(9)]
    rows.append((b"q", record(1, "q", a=0, b=0), record(2, "q", a=0, b=1)))
    rows.append((b"r", None, record(2, "r", a=0, b=0)))  # type: ignore[arg-type]
    judge(rows, NOBODY, tally)
    assert {e.profile_id for e in tally.chosen()} == {"p0", "q", "r"}


def test_the_terms_are_of_the_plan() -> None:
    plan = versions(Other).plan()
    first, second = plan.versions_of("customer")
    terms = terms_of(plan, first, second)
    assert terms.shared == (
        "visits",
        "orders",
        "spend",
        "spend_7d",
        "largest",
        "email",
        "last_seen",
        "pages",
        "names",
        "twice",
    )
    assert terms.numbers == {"spend", "spend_7d", "largest", "twice"}
    assert terms.as_of
    assert types_of(first)["usual"] == "decimal"


def sealed_app() -> App:
    app = App("sealed", partitions=2)
    app.identifier("crm", priority=1)(Crm)
    app.source("logins", event_id="id", at="ts", subject="customer")(Login)
    app.projection("customer", version=1)(Newest)
    app.projection("customer", version=2)(Earliest)
    return app


class Crm(str): ...


class Login(Record):
    id: int
    customer: Crm
    name: Personal[str]
    city: str
    ts: datetime


class Newest(Projection):
    name: str | None = newest(Login.name)
    city: str | None = newest(Login.city)


class Earliest(Projection):
    name: str | None = first(Login.name)
    city: str | None = first(Login.city)


def test_what_is_sealed_is_compared_by_what_it_hides_and_not_shown() -> None:
    """The same name in two records is sealed to the same bytes, so who has always had one is equal."""
    driver = TestDriver(sealed_app(), now=NOW)
    names = {"1": ("Ann Miller", "Ann Miller"), "2": ("Bo Stone", "Bo Miller")}
    for customer, said in names.items():
        for n, name in enumerate(said):
            login = {"id": n, "customer": customer, "name": name, "city": "Oslo", "ts": f"2026-11-0{n + 1}T00:00:00Z"}
            driver.send("logins", customer, login | {"id": int(customer) * 10 + n})
    driver.settle()
    report = diff(driver.plan, driver.cluster, "customer@1", "customer@2", MemoryStores(), pause=lambda _: None)
    assert (report.tally.equal, report.tally.changed) == (1, 1)
    (example,) = report.tally.chosen()
    assert (example.profile_id, dict(example.attributes)) == ("crm:2", {"name": ("sealed", "sealed")})
    told = json.dumps(report.to_json()) + page(report)
    assert not [name for said in names.values() for name in said if name in told]
    assert "~sealed" not in told


def test_any_two_projections_can_be_compared_in_what_they_have_in_common() -> None:
    world = rested(people(), 2)
    report = diff(world.plan, world.driver.cluster, "customer@1", "account@1", MemoryStores(), pause=lambda _: None)
    assert {name for name, c in report.tally.attributes.items() if not c.only_in_first + c.only_in_second} >= {
        "visits",
        "names",
    }
    expected = slowly(table(world, "people.customer.v1"), table(world, "people.account.v1"))
    assert (report.tally.only_in_first, report.tally.only_in_second) == (
        expected["only_in_first"],
        expected["only_in_second"],
    )


# --------------------------------------------------------------------------------------------------------------- sample
def test_a_sample_is_the_same_profiles_in_every_run_and_no_more() -> None:
    world = rested(versions(Same), 5)
    everybody = {key for key, *_ in pairs(world)}
    report = compared(world, sample=10)
    assert (report.tally.compared, report.sampled) == (10, 10)
    sample = Sample(10)
    assert all(map(sample.takes, everybody))
    limit = sample.limit(pairs(world))
    assert {k for k in everybody if hash_of(k) <= limit} == set(sorted(everybody, key=hash_of)[:10])
    assert compared(world, sample=10_000).tally.compared == len(everybody)


def test_a_sample_of_many_keeps_few_on_the_way() -> None:
    sample = Sample(100)
    keys = [b"crm:%d" % n for n in range(20_000)]
    taken = [key for key in keys if sample.takes(key)]
    assert len(taken) < 2_000
    assert len(sample.seen) <= 2 * sample.kept + 1
    limit = sample.limit((key, b"", None) for key in taken)
    assert sorted(k for k in keys if hash_of(k) <= limit) == sorted(sorted(keys, key=hash_of)[:100])


# --------------------------------------------------------------------------------------------------------------- errors
def fails(world: Moving, first: str, second: str) -> str:
    with pytest.raises((UsageError, NeedsOperator)) as refused:
        diff(world.plan, world.driver.cluster, first, second, MemoryStores(), pause=lambda _: None)
    return str(refused.value)


@pytest.fixture(scope="module")
def still() -> Moving:
    """Read only."""
    return rested(versions(Same), 1)


def test_what_is_no_projection_is_refused(still: Moving) -> None:
    assert "there is no 'customer@3'; 'people' has the projections customer@1, customer@2" in fails(
        still, "customer@1", "customer@3"
    )
    assert "govern is no projection" in fails(still, "govern", "customer@1")
    assert "compared with itself" in fails(still, "customer@1", "customer@1")


def test_a_version_that_is_not_there_to_be_compared_is_named_with_what_to_do() -> None:
    world = rested(versions(Same), 1)
    said = [(live_key("customer"), Live(1)), (version_key("customer@2"), VersionState("building"))]
    control.write(world.plan, world.driver.cluster, said)
    assert "c360 rebuild customer@2" in fails(world, "customer@1", "customer@2")
    control.write(world.plan, world.driver.cluster, [(version_key("customer@2"), VersionState("retired"))])
    assert "customer@2 is retired" in fails(world, "customer@2", "customer@1")


def test_a_version_that_was_never_built_is_named_with_how_to_build_it() -> None:
    driver = TestDriver(versions(Same))
    driver.stop()
    world = Moving.__new__(Moving)
    world.driver = driver
    assert "customer@1 has never read anything. Build it: c360 rebuild customer@1" in fails(
        world, "customer@1", "customer@2"
    )
    driver.cluster.admin().delete(["people.customer.v2"])
    assert "people.customer.v2 is not there. Start a worker" in fails(world, "customer@1", "customer@2")


def test_a_version_that_stands_still_behind_the_other_is_named() -> None:
    world = rested(versions(Same), 1)
    world.driver.send("visits", "k1", visit_of("cookie:k1"))
    for _ in range(9):
        for loop in world.driver.loops:
            if loop.agent.name in ("govern", "identity@1", "customer@1"):
                loop.turn(0.0)
    said = fails(world, "customer@1", "customer@2")
    assert re.search(r"customer@2 is \d records behind, and nothing moves: does a worker run it\?", said)


def test_two_empty_versions_are_equal() -> None:
    driver = TestDriver(versions(Same))
    driver.send("visits", "k1", b"{no json")
    driver.send(
        "visits",
        "k1",
        visit_of("cookie:") | {"cookie": None},
    )
    driver.settle()
    names = ("customer@1", "customer@2")
    report = diff(driver.plan, driver.cluster, *names, MemoryStores(), pause=lambda _: None)
    assert (report.tally.compared, report.share) == (0, 0.0)


# ----------------------------------------------------------------------------------------------------------------- page
class Reading(HTMLParser):
    """Tags that are open, so that one that is not closed is noticed; and what leads elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        assert not {"src", "href", "onclick"} & {name for name, _ in attrs}
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_the_page_is_whole_needs_nothing_else_and_escapes_what_customers_have_sent() -> None:
    tally = Tally(Terms(("spend", "note")))
    evil = "</td><script>alert(1)</script>"
    judge(
        [
            (b"crm:<i>", record(1, "crm:<i>", spend=1, note=evil), record(2, "crm:<i>", spend=5, note="x" * 999)),
            (b"crm:2", record(1, "crm:2", spend=1, note=None), None),
        ],
        NOBODY,
        tally,
    )
    tally.add_moving("crm:3")
    said = page(Report("customer@1", "customer@2", tally, {"shop.governed.orders.v1/0": 12}, 2, None))
    reading = Reading()
    reading.feed(said)
    assert reading.open == []
    assert "script" not in reading.tags
    shown = "".join(reading.text)
    assert evil in shown
    assert "crm:<i> — changed" in shown
    assert "crm:2 — only in the first" in shown
    assert "+4" in shown
    assert "x" * 999 not in shown
    assert "2 of 2 profiles differ (100.0 %)" in shown
    assert "prefers-color-scheme: dark" in said
    assert "http" not in said


def test_numbers_and_values_on_the_page_can_be_read() -> None:
    assert (percent(0.0), percent(0.001), percent(0.5)) == ("0.0 %", "0.10 %", "50.0 %")
    assert (text(None), text({"a": "<"}), len(text("x" * 500))) == ("–", "{&quot;a&quot;: &quot;&lt;&quot;}", 200)
