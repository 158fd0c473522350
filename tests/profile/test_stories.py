"""Named stories of PROJECTION.md §7 that are algebra: what once went wrong, or would."""

from __future__ import annotations

from copy import deepcopy
from datetime import UTC, datetime
from decimal import Decimal
from functools import reduce
from itertools import permutations
from operator import add
from typing import Any

import pytest

from c360.profile.attribute import Attribute
from c360.profile.fold import AS_OF, FIRST, Fold, Folding, Fragment, Reader
from tests.profile.folds import as_of, present

DAY = 86_400_000


def read(value: Any) -> Any:
    """The record is the value."""
    return value


def one_attribute(attribute: Attribute) -> tuple[Folding, Fold, Fold]:
    """Its folding, its fold of events, its fold of rows."""
    folding = Folding([attribute])
    readers = [Reader(0, 0, read)]
    return folding, folding.folder(readers, rows=False), folding.folder(readers, rows=True)


def fragment_of(folding: Folding, fold: Fold, *values: Any, at: int = 0, sign: int = 1, mask: int = 0) -> Fragment:
    fragment = folding.empty()
    for value in values:
        fold(fragment, value, at, sign, mask)
    return fragment


def test_the_winner_leaves() -> None:
    folding, event, _ = one_attribute(Attribute("best", "maximum", "int"))
    low, high = fragment_of(folding, event, 3, at=1), fragment_of(folding, event, 7, 5, at=2)
    rest, stale = folding.subtract(folding.merge(low, high), high)
    assert stale == {(0, FIRST), (0, AS_OF)}
    assert folding.values(rest, 0) == [None]
    folding.remake(rest, stale, [low])
    assert folding.values(rest, 0) == [3]
    assert rest == low
    rest, stale = folding.subtract(folding.merge(low, high), low)
    assert (rest, stale) == (high, set())


def test_the_winner_among_rows_leaves_and_nobody_is_asked() -> None:
    folding, _, row = one_attribute(Attribute("best", "maximum", "int"))
    low, high = fragment_of(folding, row, 3, at=2), fragment_of(folding, row, 7, 5, at=1)
    rest, stale = folding.subtract(folding.merge(low, high), high)
    assert (rest, stale) == (low, set())


def test_back_from_the_sample() -> None:
    folding, event, _ = one_attribute(Attribute("seen", "collect", "text", limit=4))
    here = fragment_of(folding, event, *"abcd", at=1)
    crowd = fragment_of(folding, event, *(f"page {i}" for i in range(100)), at=2)
    whole = folding.merge(here, crowd)
    assert folding.values(whole, 0) != [list("abcd")]
    rest, stale = folding.subtract(whole, crowd)
    assert (0, FIRST) in stale
    folding.remake(rest, stale, [here])
    assert folding.values(rest, 0) == [list("abcd")]
    assert rest == here


@pytest.mark.parametrize(
    ("attribute", "value", "nothing", "something"),
    [
        (Attribute("a", "count", "int"), 5, 0, 1),
        (Attribute("a", "flag", "int"), 5, False, True),
        (Attribute("a", "average", "int"), 5, None, "5.00"),
        (Attribute("a", "minimum", "int"), 5, None, 5),
        (Attribute("a", "maximum", "int"), 5, None, 5),
        (Attribute("a", "first", "int"), 5, None, 5),
        (Attribute("a", "newest", "int"), 5, None, 5),
        (Attribute("a", "prefer", "int"), 5, None, 5),
        (Attribute("a", "top", "int"), 5, [], [5]),
        (Attribute("a", "distinct", "int"), 5, 0, 1),
        (Attribute("a", "collect", "int"), 5, [], [5]),
        (Attribute("a", "count", "int", within_days=7), 5, 0, 1),
        (Attribute("a", "top", "int", within_days=7), 5, [], [5]),
    ],
    ids=lambda x: f"{x.kind}{x.within_days or ''}" if isinstance(x, Attribute) else "",
)
def test_retract_first(attribute: Attribute, value: int, nothing: Any, something: Any) -> None:
    folding, _, row = one_attribute(attribute)
    fragment = fragment_of(folding, row, value, sign=-1)
    assert folding.values(fragment, 0) == [nothing]
    assert not present(folding, fragment)
    row(fragment, value, 0, 1, 0)
    assert folding.values(fragment, 0) == [nothing]
    assert not present(folding, fragment)
    row(fragment, value, 0, 1, 0)
    assert folding.values(fragment, 0) == [something]
    assert fragment == fragment_of(folding, row, value)


def test_midnight() -> None:
    folding, event, _ = one_attribute(Attribute("spend_30d", "total", "decimal", within_days=30))
    live = fragment_of(folding, event, Decimal("10.00"), at=100 * DAY)
    event(live, Decimal("5.00"), 101 * DAY - 1, 1, 0)
    event(live, Decimal("1.00"), 101 * DAY, 1, 0)
    assert folding.values(live, 101) == ["16.00"]
    assert folding.expire(deepcopy(live), 101) == 130
    assert folding.values(live, 129) == ["16.00"]
    assert folding.values(live, 130) == ["1.00"]
    assert folding.expire(deepcopy(live), 130) == 131
    assert folding.values(live, 131) == ["0.00"]
    assert folding.expire(deepcopy(live), 131) is None
    folding.expire(live, 130)
    assert folding.values(live, 130) == ["1.00"]
    rebuilt = fragment_of(folding, event, Decimal("1.00"), at=101 * DAY)
    for amount in ("5.00", "10.00"):
        event(rebuilt, Decimal(amount), 100 * DAY, 1, 0)
    assert folding.values(rebuilt, 130) == folding.values(live, 130)
    folding.expire(rebuilt, 130)
    assert folding.encode(rebuilt) == folding.encode(live)


def test_a_record_ahead_of_today_counts_at_once_and_one_from_before_1970_has_its_day() -> None:
    folding, event, _ = one_attribute(Attribute("orders", "count", "int", within_days=2))
    ahead = fragment_of(folding, event, 1, at=900 * DAY)
    assert folding.values(ahead, 100) == [1]
    assert folding.expire(ahead, 100) == 902
    old = fragment_of(folding, event, 1, at=-1)
    assert folding.values(old, 0) == [1]
    assert folding.expire(old, -1) == 1
    assert folding.values(old, 1) == [0]


def test_seven_seconds_of_a_tenth() -> None:
    folding, event, _ = one_attribute(Attribute("watched", "total", "float"))
    seconds = [0.1] * 7
    together = fragment_of(folding, event, *seconds)
    assert folding.values(together, 0) == ["0.70"]
    for cut in range(8):
        parts = [fragment_of(folding, event, *seconds[:cut]), fragment_of(folding, event, *seconds[cut:])]
        assert folding.merge(*parts) == together
    mixed = [1e16, 0.1, -1e16, 0.3, 2.675]
    assert len({reduce(add, p) for p in permutations(mixed)}) > 1  # what floats would make of it
    assert {folding.values(fragment_of(folding, event, *p), 0)[0] for p in permutations(mixed)} == {"3.08"}


def test_the_order_changes_hands() -> None:
    folding = Folding([Attribute("orders", "count", "decimal"), Attribute("spend", "total", "decimal")])
    row = folding.folder([Reader(0, 0, read), Reader(1, 0, read)], rows=True)
    amount = Decimal("19.99")
    anna, ben = folding.empty(), folding.empty()
    row(anna, Decimal("1.00"), 5, 1, 0)
    row(anna, amount, 5, 1, 0)
    both = folding.merge(anna, ben)
    row(ben, amount, 6, 1, 0)  # the add may well come before the retract, they are other partitions
    row(anna, amount, 5, -1, 0)
    assert folding.values(anna, 0) == [1, "1.00"]
    assert folding.values(ben, 0) == [1, "19.99"]
    assert folding.values(folding.merge(anna, ben), 0) == folding.values(both, 0) == [2, "20.99"]
    row(anna, Decimal("1.00"), 5, -1, 0)
    assert not present(folding, anna)
    assert as_of(folding, anna) == 5


def test_consent_changed_row_updated() -> None:
    folding, _, row = one_attribute(Attribute("spend", "total", "int"))
    service, both = 1, 3
    fragment = fragment_of(folding, row, 5, at=7, mask=both)
    row(fragment, 5, 7, -1, both)  # the old record has its old mask
    row(fragment, 8, 9, 1, service)
    marketing = {mask for mask in fragment if mask & 2}
    assert folding.values(fragment, 0, marketing) == ["0.00"]
    assert not present(folding, fragment, marketing)
    everywhere = {mask for mask in fragment if mask & 1}
    assert folding.values(fragment, 0, everywhere) == ["8.00"]
    assert present(folding, fragment, everywhere)


def test_a_sample_is_one_for_all_orders_and_its_counts_are_exact() -> None:
    values = [f"page {i % 50}" for i in range(250)]
    results = []
    for order in (values, values[::-1], sorted(values)):
        folding, event, _ = one_attribute(Attribute("seen", "top", "text", n=3, limit=9))
        fragment = fragment_of(folding, event, *order)
        parts = [fragment_of(folding, event, *order[i::3]) for i in range(3)]
        assert folding.merge(folding.merge(parts[2], parts[0]), parts[1]) == fragment
        results.append(folding.encode(fragment))
        kept, rows, edge = fragment[0][FIRST]
        assert set(kept.values()) == {5}
        assert (len(kept), rows) == (10, None)
        assert edge in kept
    assert len(set(results)) == 1


def test_a_sample_of_events_is_one_with_the_values_of_rows() -> None:
    """What is shown is told about one sample of all values, or a row's value would always be in it."""
    folding, event, row = one_attribute(Attribute("seen", "distinct", "int", limit=2))
    fragment = fragment_of(folding, event, *range(10))
    before = folding.values(fragment, 0)
    for value in range(10):
        row(fragment, value, 0, 1, 0)
    assert folding.values(fragment, 0) == before
    for value in range(10, 1000):
        row(fragment, value, 0, 1, 0)
    kept = fragment[0][FIRST][0]
    assert len(kept) == 3
    assert folding.values(fragment, 0)[0] > 100
    listing, event, row = one_attribute(Attribute("seen", "collect", "int", limit=2))
    fragment = fragment_of(listing, event, *range(10))
    for value in range(10, 1000):
        row(fragment, value, 0, 1, 0)
    everything = fragment_of(listing, event, *range(1000))
    assert listing.values(fragment, 0) == listing.values(everything, 0)


def test_lists_are_in_the_order_of_encodings() -> None:
    values = ["a", "a b", "b", "a!", 'a"']
    in_order = ["a b", "a!", "a", 'a"', "b"]
    folding, event, _ = one_attribute(Attribute("seen", "collect", "text"))
    assert folding.values(fragment_of(folding, event, *values), 0) == [in_order]
    folding, event, _ = one_attribute(Attribute("seen", "top", "text", n=5))
    assert folding.values(fragment_of(folding, event, *values, "b"), 0) == [["b", *in_order[:4]]]
    folding, event, _ = one_attribute(Attribute("seen", "top", "text", n=1))
    crowd = [f"{letter}{end}" for letter in "hgfedc" for end in (" b", "", "!")]
    assert folding.values(fragment_of(folding, event, *crowd, *crowd), 0) == [["c b"]]
    folding, event, _ = one_attribute(Attribute("seen", "collect", "int"))
    assert folding.values(fragment_of(folding, event, 9, 10, -1), 0) == [[-1, 10, 9]]


def test_distinct_is_exact_up_to_its_limit_and_near_beyond() -> None:
    folding, event, _ = one_attribute(Attribute("seen", "distinct", "int", limit=400))
    fragment = fragment_of(folding, event, *range(400), *range(400))
    assert folding.values(fragment, 0) == [400]
    for i in range(20_000):
        event(fragment, i, 0, 1, 0)
    [estimate] = folding.values(fragment, 0)
    assert abs(estimate - 20_000) < 20_000 * 3 / 400**0.5


def test_numbers_are_compared_as_numbers_and_shown_as_written() -> None:
    folding, event, _ = one_attribute(Attribute("price", "maximum", "decimal"))
    assert folding.values(fragment_of(folding, event, Decimal("9.5"), Decimal(10), Decimal("1E+1")), 0) == ["10"]
    assert folding.values(fragment_of(folding, event, Decimal("9.5"), Decimal("9.50")), 0) == ["9.50"]
    folding, event, _ = one_attribute(Attribute("price", "minimum", "decimal"))
    assert folding.values(fragment_of(folding, event, Decimal("9.50"), Decimal("9.5"), Decimal(10)), 0) == ["9.5"]
    assert folding.values(fragment_of(folding, event, Decimal("1E-7")), 0) == ["0.0000001"]
    folding, event, _ = one_attribute(Attribute("prices", "collect", "decimal"))
    same = [Decimal(text) for text in ("10", "1E+1", "10.00", "-0", "0.00", "0E+3")]
    assert folding.values(fragment_of(folding, event, *same), 0) == [["0", "10"]]


def test_sums_beyond_64_bits_survive_their_bytes() -> None:
    folding, event, row = one_attribute(Attribute("spend", "total", "int", scale=0))
    for value in (2**63, 2**64 - 1, 2**64, 2**100, -(2**63), -(2**63) - 1, -(2**127), 10**399):
        fragment = fragment_of(folding, event, value)
        again = folding.decode(folding.encode(fragment))
        assert again == fragment
        assert folding.values(again, 0) == [str(value)]
        row(again, value, 0, -1, 0)
        row(again, 1, 0, 1, 0)
        row(again, 1, 0, -1, 0)
        assert folding.values(again, 0) == ["0"]


def test_the_same_instant_in_two_zones_is_one_value() -> None:
    folding, event, _ = one_attribute(Attribute("seen", "collect", "datetime"))
    one = datetime.fromisoformat("2026-11-02T10:15:00.5+01:00")
    assert folding.values(fragment_of(folding, event, one, one.astimezone(UTC)), 0) == [["2026-11-02T09:15:00.500000Z"]]
    folding, event, _ = one_attribute(Attribute("seen", "maximum", "datetime"))
    whole, fraction = datetime(2026, 11, 2, 9, tzinfo=UTC), datetime(2026, 11, 2, 9, 0, 0, 1, tzinfo=UTC)
    for order in ((whole, fraction), (fraction, whole)):
        assert folding.values(fragment_of(folding, event, *order), 0) == ["2026-11-02T09:00:00.000001Z"]


def test_of_one_time_the_greater_encoding_is_newest_and_the_lesser_first() -> None:
    values = ["a", "a b", "a!", 'a"']
    encodings = ['"a b"', '"a!"', '"a"', '"a\\""']
    assert sorted(encodings) == encodings  # not the order of the texts: the quote is part of it
    for kind, best in (("newest", 'a"'), ("first", "a b"), ("prefer", 'a"')):
        for order in permutations(values):
            folding, event, _ = one_attribute(Attribute("a", kind, "text"))  # type: ignore[arg-type]
            assert folding.values(fragment_of(folding, event, *order), 0) == [best]
    folding, event, _ = one_attribute(Attribute("a", "newest", "int"))
    assert folding.values(fragment_of(folding, event, 9, 10), 0) == [9]


def test_the_most_trusted_source_is_preferred_whatever_the_time() -> None:
    folding = Folding([Attribute("email", "prefer", "text")])
    crm = folding.folder([Reader(0, 0, read)], rows=True)
    click = folding.folder([Reader(0, 1, read), Reader(0, 11, lambda value: "least")], rows=False)
    fragment = folding.empty()
    click(fragment, "new", 2000, 1, 0)
    click(fragment, "old", 1000, 1, 0)
    assert folding.values(fragment, 0) == ["new"]
    crm(fragment, "crm", -5, 1, 0)
    assert folding.values(fragment, 0) == ["crm"]
    crm(fragment, "crm", -5, -1, 0)
    assert folding.values(fragment, 0) == ["new"]


def test_a_stale_sample_bears_that_more_is_taken_out_and_put_in() -> None:
    """Until it is made anew it holds anything, also fewer than none of a value."""
    folding, event, _ = one_attribute(Attribute("tags", "top", "text", n=1, limit=1))
    twice = fragment_of(folding, event, "b")
    event(twice, "b", 0, 1, 0)
    once, other = fragment_of(folding, event, "b"), fragment_of(folding, event, "a")
    whole = folding.merge(twice, other)
    whole, stale = folding.subtract(whole, other)
    assert stale
    folding.absorb(whole, once)
    whole, more = folding.subtract(whole, twice)
    folding.absorb(whole, once)
    folding.remake(whole, stale | more, [once, once])
    assert whole == folding.merge(once, once)
