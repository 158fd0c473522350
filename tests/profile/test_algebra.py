"""fold(A + B) = merge(fold(A), fold(B)): order, division and retraction leave no trace, values mean what they say."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from c360.profile.fold import AS_OF, FIRST, RECORDS, Folding, Fragment
from tests.profile.folds import Folder, Signed, as_of, present
from tests.profile.oracle import Item, Rule, items, rules, value_of

TODAY = st.integers(-8, 24)


def sets_without_time(folding: Folding, fragment: Fragment) -> dict[int, Any]:
    """What is left when the newest time ever seen, which is not taken back, is overlooked."""
    blank = [0, *folding._blank[FIRST:]]
    sets = {mask: [cells[RECORDS], *cells[FIRST:]] for mask, cells in fragment.items()}
    return {mask: cells for mask, cells in sets.items() if cells != blank}


def divided(draw: st.DrawFn, signed: list[Signed]) -> list[list[Signed]]:
    parts: list[list[Signed]] = [[] for _ in range(draw(st.integers(1, 4)))]
    for one in signed:
        draw(st.sampled_from(parts)).append(one)
    return parts


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[Rule], list[Item], list[Signed]]:
    """Rules, the records that are live in the end, and a way to get there: rows come and go, retracts may be first."""
    drawn = draw(rules())
    live = draw(items(drawn))
    gone = draw(items(drawn, sources=("rows",), most=6))
    signed = [*map(Signed, live), *map(Signed, gone), *(Signed(item, -1) for item in gone)]
    return drawn, live, draw(st.permutations(signed))


@given(histories(), st.data(), TODAY)
def test_any_order_division_and_retraction_gives_the_same_bytes_and_values(
    history: tuple[list[Rule], list[Item], list[Signed]], data: st.DataObject, today: int
) -> None:
    drawn, live, signed = history
    folder = Folder(drawn)
    folding = folder.folding
    in_one_go: list[Signed] = sorted(signed, key=lambda s: (-s.sign, repr(s)))
    once = folder.of(in_one_go)
    parts = [folder.of(part) for part in data.draw(st.composite(divided)(signed))]
    whole = folder.merged(data.draw(st.permutations(parts)))
    assert whole == once
    assert folding.encode(whole) == folding.encode(once)
    assert folding.values(whole, today) == folding.values(once, today)
    assert sets_without_time(folding, once) == sets_without_time(folding, folder.of(live))


@given(histories(), TODAY, st.sampled_from([None, {0}, {1, 3}, {0, 1, 3}, {2}]))
def test_values_are_what_the_naive_oracle_says_of_the_live_records(
    history: tuple[list[Rule], list[Item], list[Signed]], today: int, masks: set[int] | None
) -> None:
    drawn, live, signed = history
    folder = Folder(drawn)
    folding, fragment = folder.folding, folder.of(signed)
    seen = [item for item in live if masks is None or item.mask in masks]
    assert folding.values(fragment, today, masks) == [value_of(rule, seen, today) for rule in drawn]
    assert present(folding, fragment, masks) == bool(seen)
    times = [item.at for item, _ in signed if masks is None or item.mask in masks]
    assert as_of(folding, fragment, masks) == max(times, default=None)


@given(st.data(), TODAY)
def test_crowds_of_values_are_counted_sorted_and_sampled_as_the_oracle_says(data: st.DataObject, today: int) -> None:
    drawn = data.draw(rules(kinds=("top", "distinct", "collect")))
    live = data.draw(items(drawn, most=30))
    folder = Folder(drawn)
    whole = folder.merged(folder.of(live[i::3]) for i in range(3))
    assert folder.folding.values(whole, today) == [value_of(rule, live, today) for rule in drawn]


@given(histories())
def test_folding_in_place_is_merging_with_the_fragment_of_one_record(
    history: tuple[list[Rule], list[Item], list[Signed]],
) -> None:
    drawn, _, signed = history
    folder = Folder(drawn)
    fragment = folder.folding.empty()
    for one in signed:
        lifted = folder.of([one])
        before = deepcopy((fragment, lifted))
        merged = folder.folding.merge(fragment, lifted)
        assert (fragment, lifted) == before
        folder.fold(fragment, *one)
        assert fragment == merged
        assert folder.folding.encode(fragment) == folder.folding.encode(merged)


@given(histories(), st.data())
def test_merge_is_commutative_and_associative_and_empty_is_neutral(
    history: tuple[list[Rule], list[Item], list[Signed]], data: st.DataObject
) -> None:
    drawn, _, signed = history
    folder = Folder(drawn)
    merge, empty = folder.folding.merge, folder.folding.empty()
    a, b, c = (folder.of(part) for part in (*data.draw(st.composite(divided)(signed)), [], [], [])[:3])
    before = deepcopy((a, b, c))
    assert merge(a, b) == merge(b, a)
    assert merge(merge(a, b), c) == merge(a, merge(b, c))
    assert merge(a, empty) == a == merge(empty, a)
    assert (a, b, c) == before


@given(histories(), st.data())
def test_a_merge_shares_nothing_with_its_parts(
    history: tuple[list[Rule], list[Item], list[Signed]], data: st.DataObject
) -> None:
    drawn, live, signed = history
    folder = Folder(drawn)
    a, b = folder.of(signed[::2]), folder.of(signed[1::2])
    before = deepcopy((a, b))
    whole = folder.folding.merge(a, b)
    for item in live:
        folder.fold(whole, item)
    assert (a, b) == before


@given(histories(), st.data())
def test_taking_a_member_out_leaves_the_merge_of_the_others(
    history: tuple[list[Rule], list[Item], list[Signed]], data: st.DataObject
) -> None:
    drawn, _, signed = history
    folder = Folder(drawn)
    folding = folder.folding
    leaving, *others = (folder.of(part) for part in data.draw(st.composite(divided)(signed)))
    whole = folder.merged([leaving, *others])
    before = deepcopy((whole, leaving, others))
    rest, stale = folding.subtract(whole, leaving)
    assert (whole, leaving, others) == before
    expected = folder.merged(others)
    for mask in expected.keys() | rest.keys():
        for i in range(len(folding._blank)):
            if (mask, i) not in stale:
                assert rest.get(mask, folding._blank)[i] == expected.get(mask, folding._blank)[i]
    folding.remake(rest, stale, others)
    assert rest == expected
    assert (whole, leaving, others) == before


@given(histories(), st.data())
def test_members_leave_one_after_the_other_and_stale_cells_are_made_anew_once(
    history: tuple[list[Rule], list[Item], list[Signed]], data: st.DataObject
) -> None:
    """As in one commit: what is stale stays so until the end, also when more is added or taken out meanwhile."""
    drawn, live, signed = history
    folder = Folder(drawn)
    folding = folder.folding
    members = [folder.of(part) for part in data.draw(st.composite(divided)(signed))]
    whole, stale = folder.merged(members), set()
    for _ in range(data.draw(st.integers(1, len(members)))):
        whole, unknown = folding.subtract(whole, members.pop())
        stale |= unknown
        for item in live[:1]:
            members.append(folder.of([item]))
            folding.absorb(whole, members[-1])
            members.insert(0, members.pop())
    folding.remake(whole, stale, members)
    assert whole == folder.merged(members)


@given(histories())
def test_only_winners_of_events_samples_and_the_newest_time_are_asked_for(
    history: tuple[list[Rule], list[Item], list[Signed]],
) -> None:
    drawn, _, signed = history
    folder = Folder(drawn)
    _, stale = folder.folding.subtract(folder.of(signed), folder.of(signed[:1]))
    sums = {"count", "flag", "total", "average"}
    for _, i in stale:
        assert i == AS_OF or drawn[i - FIRST].attribute.kind not in sums
    if all(item.source == "rows" for item, _ in signed[:1]):
        assert {i for _, i in stale} <= {AS_OF}


@given(histories())
def test_bytes_are_read_back_as_the_same_fragment_that_folds_on(
    history: tuple[list[Rule], list[Item], list[Signed]],
) -> None:
    drawn, live, signed = history
    folder = Folder(drawn)
    folding, fragment = folder.folding, folder.of(signed)
    again = folding.decode(folding.encode(fragment))
    assert again == fragment
    for item in live:
        folder.fold(fragment, item)
        folder.fold(again, item)
    assert folding.encode(again) == folding.encode(fragment)


@given(histories(), TODAY)
def test_expired_days_are_dropped_unseen_and_due_names_the_next(
    history: tuple[list[Rule], list[Item], list[Signed]], today: int
) -> None:
    drawn, _, signed = history
    folder = Folder(drawn)
    folding, fragment = folder.folding, folder.of(signed)
    kept = deepcopy(fragment)
    due = folding.expire(kept, today)
    assert due == folding.expire(kept, today)
    for day in (today, today + 1, today + 4, 40):
        assert folding.values(kept, day) == folding.values(fragment, day)
    last = 40 if due is None else due - 1
    assert last >= today
    for day in range(today, last + 1):
        assert folding.values(kept, day) == folding.values(kept, today)
    if due is not None:
        after = deepcopy(kept)
        folding.expire(after, due)
        assert after != kept
    late = folder.merged([kept, folder.of(signed)])  # from one who has not dropped them yet
    folding.expire(late, today)
    both = folder.merged([fragment, fragment])
    folding.expire(both, today)
    assert folding.encode(late) == folding.encode(both)


@given(histories(), st.integers(1, 40))
def test_a_fragment_taken_apart_merges_to_the_same_bytes(
    history: tuple[list[Rule], list[Item], list[Signed]], size: int
) -> None:
    drawn, _, signed = history
    folder = Folder(drawn)
    folding, fragment = folder.folding, folder.of(signed)
    before = folding.encode(fragment)
    rest, large = folding.apart(fragment, size)
    for (mask, i), piece in large.items():
        assert piece[mask][i] == fragment[mask][i]
        assert [j for j, cell in enumerate(piece[mask]) if cell != folding._blank[j]] == [i]
        assert len(folding.encode({mask: [piece[mask][i]]})) > size
    assert folding.encode(folder.merged([*large.values(), rest])) == before == folding.encode(fragment)
    assert folding.apart(rest, size) == (rest, {})
