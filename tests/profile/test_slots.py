"""The owner's side: what must not come in, pieces, what is stored apart, and listings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from c360.errors import NeedsOperator
from c360.profile.attribute import Attribute
from c360.profile.fold import Folding, Fragment, Reader
from c360.profile.home import CELL_BYTES, PUT_BYTES, Home, News, Stay, home_of, place
from c360.profile.listing import NOBODY, Listings, Member
from c360.profile.parts import Add, Drop, Put
from c360.profile.rows import Rows, key_of, prefix_of
from c360.profile.slots import Owner, Profile, Slot

FOLDING = Folding([Attribute("pages", "top", "text", n=2, limit=3), Attribute("clicks", "count", "text")])
OWNER = Owner(FOLDING, (0, 1))
TEXT = FOLDING.folder([Reader(0, 0, lambda text: text), Reader(1, 0, lambda text: text)], rows=False)


def fragment_of(*texts: str, mask: int = 0) -> Fragment:
    fragment = FOLDING.empty()
    for text in texts:
        TEXT(fragment, text, 0, 1, mask)
    return fragment


def put_of(*texts: str, revision: int = 0, more: bool = False) -> Put:
    return Put("ann", 1, revision, (), FOLDING.encode(fragment_of(*texts)), more)


def add_of(text: str, revision: int) -> Add:
    return Add("ann", revision, (), FOLDING.encode(fragment_of(text)))


def held(*texts: str) -> tuple[Profile, Slot]:
    profile = OWNER.new()
    return profile, OWNER.put(profile, None, put_of(*texts))


OUT_OF_STEP: dict[str, Callable[[Profile, Slot], Any]] = {
    "taken": lambda profile, slot: OWNER.put(profile, slot, put_of("b")),
    "empty": lambda profile, slot: OWNER.add(profile, None, add_of("b", 1)),
    "twice": lambda profile, slot: OWNER.add(profile, slot, add_of("b", 0)),
    "lost": lambda profile, slot: OWNER.add(profile, slot, add_of("b", 2)),
    "gone": lambda profile, slot: OWNER.drop(profile, "ann", None),
}


@pytest.mark.parametrize("receive", OUT_OF_STEP.values(), ids=OUT_OF_STEP)
def test_what_cannot_follow_asks_for_a_reset_and_changes_nothing(receive: Callable[[Profile, Slot], Any]) -> None:
    profile, slot = held("a")
    with pytest.raises(NeedsOperator, match="`c360 reset`"):
        receive(profile, slot)
    assert FOLDING.values(profile.merged, 0) == [["a"], 1]
    assert profile.slots == 1


def test_a_slot_that_is_not_whole_takes_only_its_further_pieces() -> None:
    profile = OWNER.new()
    slot = OWNER.put(profile, None, put_of("a", more=True))
    for receive in (
        lambda: OWNER.add(profile, slot, add_of("b", 1)),
        lambda: OWNER.drop(profile, "ann", slot),
        lambda: OWNER.put(profile, slot, put_of("b", revision=1)),
    ):
        with pytest.raises(NeedsOperator):
            receive()
    assert profile.merged == {}
    assert profile.listings[0].total == 0
    slot = OWNER.put(profile, slot, put_of("b"))
    assert FOLDING.values(profile.merged, 0) == [["a", "b"], 2]
    assert profile.listings[0].subjects == ["ann"]


def test_pieces_count_from_the_last_on_also_where_cells_are_made_anew() -> None:
    profile, slot = held(*"abcdefgh")
    part = OWNER.put(profile, None, Put("bob", 1, 0, (), FOLDING.encode(fragment_of("x")), True))
    OWNER.drop(profile, "ann", slot)
    assert profile.stale
    OWNER.settle(profile, "p", slots=lambda: [("bob", part)], fragment={}, today=0)
    assert FOLDING.values(profile.merged, 0) == [[], 0]
    OWNER.put(profile, part, Put("bob", 1, 0, (), FOLDING.encode(fragment_of("x", "y"))))
    assert FOLDING.values(profile.merged, 0) == [["x", "y"], 3]


def test_members_are_walked_over_only_when_need_be() -> None:
    profile, slot = held("a")
    bob = OWNER.put(profile, None, Put("bob", 1, 0, (), FOLDING.encode(fragment_of("b"))))

    def walk() -> Any:
        raise AssertionError("members were walked over")

    OWNER.add(profile, slot, add_of("c", 1))
    assert OWNER.settle(profile, "p", slots=walk, fragment={}, today=0) is None
    OWNER.drop(profile, "ann", slot)
    with pytest.raises(AssertionError, match="walked over"):
        OWNER.settle(profile, "p", slots=walk, fragment={}, today=0)
    OWNER.settle(profile, "p", slots=lambda: [("bob", bob)], fragment={}, today=0)
    assert FOLDING.values(profile.merged, 0) == [["b"], 1]
    assert [listing.subjects for listing in profile.listings] == [["bob"], []]


# --------------------------------------------------------------------------------------------------------- too large
BIG = Folding([Attribute("pages", "collect", "text", limit=100_000), Attribute("all", "collect", "text")])


def big_fragment(n: int) -> Fragment:
    fragment = BIG.empty()
    both = BIG.folder([Reader(0, 0, lambda text: text), Reader(1, 0, lambda text: text)], rows=False)
    for i in range(n):
        both(fragment, f"/a/page/of/the/shop/with/a/long/name/{i:0180}", i, 1, i % 2)
    return fragment


def test_a_fragment_beyond_half_a_megabyte_is_put_in_pieces_that_merge_to_it() -> None:
    owner, fragment = Owner(BIG, (0,)), big_fragment(4_000)
    assert len(BIG.encode(fragment)) > PUT_BYTES
    home = home_of("ann")
    home.profile, home.identifiers = "bob", ("mail:ann",)
    sent = place("ann", home, fragment, News(), folding=BIG, local=lambda _: False)
    puts = [put for profile, put in sent if isinstance(put, Put) and profile == "bob"]
    assert len(puts) == len(sent) == 5
    assert [put.more for put in puts] == [True, True, True, True, False]
    assert {(put.subject, put.move, put.revision, put.identifiers) for put in puts} == {("ann", 1, 0, ("mail:ann",))}
    profile, slot = owner.new(), None
    for put in puts:
        slot = owner.put(profile, slot, put)
    assert slot is not None
    assert slot.fragment == profile.merged == fragment
    assert BIG.encode(slot.fragment) == BIG.encode(fragment)


def test_a_large_profile_is_stored_in_rows_of_which_only_those_that_changed_are_written() -> None:
    owner, rows = Owner(BIG, (0,)), Rows(BIG)
    profile = owner.new()
    slots = {f"s:{i}": Slot(0, NOBODY, {}) for i in range(200)}
    for i, subject in enumerate(slots):
        ids = (f"mail:of-somebody-with-a-long-name-{i:04}",)
        slots[subject] = owner.put(profile, None, Put(subject, 1, 0, ids, BIG.encode(big_fragment(60))))
    row, changed = rows.encode_profile(profile)
    assert changed.keys() == {"0/2", "0/3", "1/2", "1/3", "listings"}
    assert len(row) < CELL_BYTES
    assert rows.encode_profile(profile)[1] == {}
    stored = {name: data for name, data in changed.items() if data is not None}
    read = rows.decode_profile(row)
    assert set(read.missing) == stored.keys()
    rows.fill(read, stored)
    assert read.missing == ()
    assert (read.merged, read.listings, read.slots) == (profile.merged, profile.listings, 200)
    assert rows.encode_profile(read) == (row, {})
    new = BIG.empty()
    BIG.folder([Reader(1, 0, lambda text: text)], rows=False)(new, "new", 1, 1, 0)
    owner.add(profile, slots["s:0"], Add("s:0", 1, ("mail:of-somebody-with-a-long-name-0000",), BIG.encode(new)))
    assert rows.encode_profile(profile)[1].keys() == {"0/3"}
    for subject, slot in slots.items():
        owner.drop(profile, subject, slot)
    owner.settle(profile, "p", slots=lambda: (), fragment={}, today=0)
    assert rows.encode_profile(profile)[1] == dict.fromkeys(stored)
    assert profile.merged == {}


def test_a_profile_whose_rows_are_not_all_there_is_not_used() -> None:
    owner, rows = Owner(BIG, (0,)), Rows(BIG)
    profile = owner.new()
    owner.put(profile, None, Put("ann", 1, 0, (), BIG.encode(big_fragment(60))))
    row, changed = rows.encode_profile(profile)
    stored = {name: data for name, data in changed.items() if data is not None}
    stored.popitem()
    with pytest.raises(AssertionError, match="parts of a profile are missing"):
        rows.fill(rows.decode_profile(row), stored)


def test_keys_of_one_profile_are_a_range_of_their_own() -> None:
    names = [b"a", b"a\0", b"a\0b", b"ab", b"b", b"\xff"]
    keys = sorted((key_of(profile, name), profile) for profile in names for name in names)
    assert len({key for key, _ in keys}) == len(names) ** 2
    for profile in names:
        prefix = prefix_of(profile)
        assert {of for key, of in keys if key.startswith(prefix)} == {profile}


# ---------------------------------------------------------------------------------------------------------- listings
MEMBERS = st.builds(Member, st.integers(0, 3), st.lists(st.sampled_from("abcdef"), max_size=3).map(tuple))


@given(st.lists(st.tuples(st.sampled_from(["s:1", "s:2", "s:3", "s:4", "b"]), MEMBERS), max_size=12), st.integers(1, 4))
def test_listings_that_are_told_what_changes_are_those_made_anew(changes: list[tuple[str, Member]], most: int) -> None:
    listings = Listings(2, most)
    members: dict[str, Member] = {}
    kept = listings.anew(())
    for subject, member in changes:
        told = listings.change(kept, subject, members.get(subject, NOBODY), member)
        members[subject] = member
        anew = listings.anew(members.items())
        kept = kept if told else anew
        assert kept == anew


def test_presence_is_per_view_and_of_live_records() -> None:
    assert OWNER.member(fragment_of("a"), ()).seen == 0b01
    assert OWNER.member(fragment_of("a", mask=3), ["x"]) == Member(0b11, ("x",))
    assert OWNER.member({}, ()) == NOBODY
    assert OWNER.masks({0: [], 1: [], 2: [], 3: []}, 1) == {1, 3}


# ------------------------------------------------------------------------------------------------------------- homes
def test_a_home_says_nothing_where_there_is_nobody_to_tell() -> None:
    home, news = home_of("ann"), News()
    news.delta = fragment_of("a")
    assert place("ann", home, fragment_of("a"), news, folding=FOLDING, local=lambda _: True) == []
    assert home == home_of("ann")


def test_a_home_tells_all_places_until_the_assigned_one_is_held() -> None:
    news = News()
    news.delta = fragment_of("b")
    home = Home(profile="new", moves=2, places={"old": Stay(1, True), "ann": Stay(0, True), "new": Stay(2, False)})
    sent = place("ann", home, fragment_of("a", "b"), news, folding=FOLDING, local=lambda _: False)
    assert [profile for profile, _ in sent] == ["old", "new"]
    assert all(isinstance(message, Add) for _, message in sent)
    home.places["new"].held = True
    sent = place("ann", home, fragment_of("a", "b"), News(), folding=FOLDING, local=lambda _: False)
    assert sent == [("old", Drop("ann"))]
    assert home.places == {"new": Stay(2, True)}
