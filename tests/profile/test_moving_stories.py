"""Named stories of PROJECTION.md §7 that are about moving: what once went wrong, or would."""

from __future__ import annotations

from typing import Any

import pytest

from c360.errors import NeedsOperator
from c360.profile.attribute import Attribute
from c360.profile.fold import RECORDS
from c360.profile.parts import Assigned, Erased
from tests.profile.moving import BOTH, TEXTS
from tests.profile.moving_task import Day, Unassigned
from tests.profile.oracle import DAY, Rule
from tests.profile.stage import Stage

SUM = Rule(Attribute("sum", "total", "int", scale=0), BOTH)
BEST = Rule(Attribute("best", "maximum", "int"), BOTH)
LAST = Rule(Attribute("last", "newest", "text"), TEXTS)
SOME = Rule(Attribute("some", "collect", "text", limit=4), TEXTS)
RECENT = Rule(Attribute("recent", "total", "int", scale=0, within_days=2), BOTH)


def test_a_subject_that_was_never_merged_is_one_row_and_no_message() -> None:
    stage = Stage([SUM, RECENT])
    ann = stage.at(0)
    for n in (1, 2):
        assert stage.fold(ann, n=n).parts == []
    rows = [(table.prefix, key) for table in stage.home(ann).processor.tables for key, _ in table.scan()]
    assert [prefix for prefix, _ in rows] == [b"p", b"d"]
    assert stage.home(ann).home(ann) is None
    assert stage.shows(ann, "sum") == "3"


def test_an_assignment_to_oneself_costs_no_message_and_no_copy() -> None:
    stage = Stage([SUM])
    ann = stage.at(0)
    stage.tell(ann, Assigned(1, ann, ("mail:ann",)))
    stage.fold(ann, n=1)
    assert stage.record(ann)["identifiers"] == [ann, "mail:ann"]
    stage.rest()
    assert not stage.world.parts_sent
    assert not list(stage.home(ann).processor.moves.slots.scan())
    assert not stage.home(ann).state(ann).told


def test_a_move_makes_before_it_breaks() -> None:
    stage = Stage([SUM])
    ann, bob = stage.at(0), stage.at(1)
    stage.fold(ann, n=1)
    stage.fold(bob, n=10)
    stage.tell(ann, Assigned(1, bob))
    assert (stage.members(ann), stage.members(bob)) == ([ann], [bob])
    stage.deliver(ann, bob)  # Put
    assert (stage.members(ann), stage.members(bob)) == ([ann], sorted([ann, bob]))
    assert stage.shows(bob, "sum") == "11"
    stage.deliver(bob, ann)  # Held
    assert (stage.members(ann), stage.members(bob)) == ([], sorted([ann, bob]))
    stage.rest()


def test_there_and_back() -> None:
    """A → B → A → B: `Held` of the first stay in B must not end A."""
    stage = Stage([SUM])
    ann, a, b = stage.at(0), stage.at(1), stage.at(2)
    stage.fold(ann, n=1)
    stage.tell(ann, Assigned(1, a))
    stage.deliver(ann, a)
    stage.deliver(a, ann)
    stage.tell(ann, Assigned(2, b))  # Put to b
    stage.deliver(ann, b)  # its Held is on its way
    stage.tell(ann, Assigned(3, a))  # a is still held: Drop to b
    stage.tell(ann, Assigned(4, b))  # a second Put to b
    stage.deliver(b, ann)  # Held of the first
    stage.deliver(ann, b)  # Drop
    assert (stage.members(a), stage.members(b)) == ([ann], [])
    assert stage.on_the_way(ann, a) == 0
    stage.deliver(ann, b)  # the second Put
    stage.deliver(b, ann)
    assert stage.on_the_way(ann, a) == 1  # Drop
    stage.rest()


def test_coming_home_to_old_news() -> None:
    """A place not yet left gets all news; else the return finds a stale copy."""
    stage = Stage([SUM])
    ann, a, b = stage.at(0), stage.at(1), stage.at(2)
    stage.fold(ann, n=1)
    stage.tell(ann, Assigned(1, a))
    stage.deliver(ann, a)
    stage.deliver(a, ann)
    stage.tell(ann, Assigned(2, b))
    stage.fold(ann, n=10)  # a is to be left, and is told
    stage.tell(ann, Assigned(3, a))
    stage.deliver(ann, a)
    assert stage.shows(a, "sum") == "11"
    assert stage.on_the_way(ann, a) == 0  # no Put: it was there all the time
    stage.rest()


def test_the_id_walks_out() -> None:
    """The subject that names the profile moves away, others stay, later it is created again."""
    stage = Stage([SUM, BEST])
    ann, bob, cid = stage.at(0), stage.at(1), stage.at(2)
    for subject, n in ((ann, 100), (bob, 10), (cid, 1)):
        stage.fold(subject, n=n)
    stage.tell(bob, Assigned(1, ann))
    stage.rest()
    assert stage.members(ann) == sorted([ann, bob])
    stage.tell(ann, Assigned(1, cid))
    stage.rest()
    assert stage.members(ann) == [bob]
    assert (stage.shows(ann, "sum"), stage.shows(ann, "best")) == ("10", 10)
    stage.fold(ann, n=1000)
    stage.rest()
    assert stage.shows(ann, "sum") == "10"
    stage.tell(bob, Assigned(2, bob))
    stage.rest()
    assert stage.record(ann) is None
    stage.tell(ann, Unassigned())
    stage.rest()
    assert (stage.members(ann), stage.shows(ann, "sum")) == ([ann], "1100")


def test_the_profile_of_a_subject_without_records_is_of_others() -> None:
    stage = Stage([SUM])
    ann, bob = stage.at(0), stage.at(1)
    stage.fold(bob, n=10)
    stage.tell(bob, Assigned(1, ann))
    stage.rest()
    assert stage.members(ann) == [bob]
    stage.fold(ann, n=1)
    stage.rest()
    assert stage.shows(ann, "sum") == "11"


def test_assigned_before_its_first_record_it_is_never_seen_in_its_own_profile() -> None:
    stage = Stage([SUM])
    ann, bob = stage.at(0), stage.at(1)
    stage.tell(ann, Assigned(1, bob))
    assert stage.fold(ann, n=1).records == []
    stage.rest()
    assert stage.members(bob) == [ann]
    assert stage.world.written == 1


def test_the_winner_leaves() -> None:
    stage = Stage([BEST, LAST])
    ann, bob, cid = stage.at(0), stage.at(1), stage.at(2)
    stage.fold(ann, n=3, t="ann", at=1)
    stage.fold(bob, n=9, t="bob", at=3)
    stage.fold(cid, n=5, t="cid", at=2)
    for subject in (bob, cid):
        stage.tell(subject, Assigned(1, ann))
    stage.rest()
    assert (stage.shows(ann, "best"), stage.shows(ann, "last")) == (9, "bob")
    stage.tell(bob, Unassigned())
    stage.rest()
    assert (stage.shows(ann, "best"), stage.shows(ann, "last")) == (5, "cid")
    stage.tell(ann, Assigned(1, bob))
    stage.tell(cid, Unassigned())
    stage.rest()
    assert (stage.shows(bob, "best"), stage.shows(bob, "last")) == (9, "bob")


def test_back_from_the_sample() -> None:
    stage = Stage([SOME])
    ann, bob = stage.at(0), stage.at(1)
    for text in "abc":
        stage.fold(ann, t=text)
    for i in range(20):
        stage.fold(bob, t=f"page {i}")
    stage.tell(bob, Assigned(1, ann))
    stage.rest()
    assert stage.shows(ann, "some") != ["a", "b", "c"]
    stage.tell(bob, Unassigned())
    stage.rest()
    assert stage.shows(ann, "some") == ["a", "b", "c"]


def test_late_for_the_funeral() -> None:
    """Records of an erased life arrive after `Erased`, from another topic."""
    stage = Stage([SUM])
    ann, bob = stage.at(0), stage.at(1)
    stage.fold(ann, n=1)
    stage.tell(ann, Assigned(1, bob))
    stage.rest()
    stage.tell(ann, Erased(1))
    stage.deliver(ann, bob)  # one hop
    assert stage.record(bob) is None
    stage.fold(ann, n=10, life=0)
    stage.rest()
    assert stage.world.records == {}


def test_early_for_the_birth() -> None:
    """Records of the next life arrive before `Erased` of the last."""
    stage = Stage([SUM])
    ann, bob = stage.at(0), stage.at(1)
    stage.fold(ann, n=1)
    stage.tell(ann, Assigned(1, bob))
    stage.rest()
    stage.fold(ann, n=10, life=1)
    stage.tell(ann, Erased(1))
    stage.rest()
    assert (stage.shows(bob, "sum"), stage.members(bob)) == ("10", [ann])


def test_who_names_a_profile_of_several_is_erased_and_the_others_stay() -> None:
    stage = Stage([SUM, BEST])
    ann, bob = stage.at(0), stage.at(1)
    stage.fold(ann, n=100)
    stage.fold(bob, n=1)
    stage.tell(bob, Assigned(1, ann))
    stage.rest()
    stage.tell(ann, Erased(1))
    assert (stage.shows(ann, "sum"), stage.shows(ann, "best"), stage.members(ann)) == ("1", 1, [bob])
    stage.rest()


def test_a_split_leaves_the_old_place_within_one_hop() -> None:
    stage = Stage([SUM])
    ann, bob = stage.at(0), stage.at(1)
    stage.fold(ann, n=1)
    stage.fold(bob, n=10)
    stage.tell(ann, Assigned(1, bob))
    stage.rest()
    stage.tell(ann, Assigned(2, ann))
    assert stage.members(ann) == [ann]
    stage.deliver(ann, bob)
    assert stage.members(bob) == [bob]
    stage.rest()


def test_consent_changed_row_updated() -> None:
    """Retract with the old mask, add with the new."""
    stage = Stage([SUM])
    ann, bob = stage.at(0), stage.at(1)

    def seen_by_purposes() -> list[bool]:
        """Whether the profile has live records for the first and for the second purpose."""
        shared = stage.home(bob).processor.moves.shared.get(bob.encode())
        assert shared is not None
        sets = shared.profile.merged.items()
        return [sum(cells[RECORDS] for mask, cells in sets if mask & bit) > 0 for bit in (1, 2)]

    stage.fold(ann, "rows", n=1, mask=3)
    stage.tell(ann, Assigned(1, bob))
    stage.rest()
    assert seen_by_purposes() == [True, True]
    stage.fold(ann, "rows", n=1, mask=3, sign=-1)
    stage.fold(ann, "rows", n=5, mask=1)
    stage.rest()
    assert seen_by_purposes() == [True, False]
    assert stage.shows(bob, "sum") == "5"


def test_the_order_changes_hands() -> None:
    """A row moves from one customer to another, both members of profiles elsewhere: retract there, add here."""
    stage = Stage([SUM])
    ann, bob, cid = stage.at(0), stage.at(1), stage.at(2)
    stage.tell(ann, Assigned(1, cid))
    stage.fold(ann, "rows", n=7)
    stage.rest()
    stage.fold(bob, "rows", n=7)
    stage.fold(ann, "rows", n=7, sign=-1)
    stage.rest()
    assert stage.record(cid) is None
    assert stage.shows(bob, "sum") == "7"


def test_yesterdays_future() -> None:
    """State is built anew without what once made a profile: its record in the output gets its tombstone."""
    stage = Stage([SUM])
    ann, bob, cid = stage.at(0), stage.at(1), stage.at(2)
    stage.fold(ann, n=1)
    stage.fold(bob, n=10)
    stage.tell(ann, Assigned(1, cid))
    stage.rest()
    assert stage.members(cid) == [ann]
    topics = stage.world.history.topics
    topics["assignments"].clear()
    topics["events"] = [said for said in topics["events"] if said[0] != bob]
    stage.world.reset(())
    stage.rest()
    assert (stage.record(cid), stage.record(bob), stage.members(ann)) == (None, None, [ann])


def test_parts_are_not_history() -> None:
    """After a reset homes put their fragments again; what was sent before must not be read, and would be noticed."""
    stage = Stage([SUM])
    ann, bob = stage.at(0), stage.at(1)
    stage.fold(ann, n=1)
    stage.tell(ann, Assigned(1, bob))
    stage.fold(ann, n=10)
    before = list(stage.world.pairs[stage.rules.partition(bob)][stage.rules.partition(ann)])
    assert len(before) == 2
    stage.world.reset(())
    stage.rest()
    assert stage.shows(bob, "sum") == "11"
    with pytest.raises(NeedsOperator, match="a Put for a place that is taken"):
        stage.home(bob).step(before)


def test_midnight() -> None:
    stage = Stage([RECENT])
    ann, bob = stage.at(0), stage.at(1)
    stage.fold(ann, n=1, at=DAY)
    stage.fold(bob, n=10, at=2 * DAY)
    stage.tell(ann, Assigned(1, bob))
    stage.rest()
    assert stage.shows(bob, "recent") == "11"
    stage.tell(bob, Day(3))
    assert stage.shows(bob, "recent") == "10"
    stage.tell(bob, Day(4))
    assert stage.shows(bob, "recent") == "0"
    for key in (ann, stage.at(2)):
        stage.tell(key, Day(4))
    stage.rest()


def test_a_member_leaves_after_its_days_are_gone() -> None:
    stage = Stage([RECENT])
    ann, bob = stage.at(0), stage.at(1)
    stage.fold(ann, n=1, at=DAY)
    stage.fold(bob, n=10, at=3 * DAY)
    stage.tell(ann, Assigned(1, bob))
    stage.rest()
    for key in (ann, bob, stage.at(2)):
        stage.tell(key, Day(4))
    stage.tell(ann, Unassigned())
    stage.rest()
    assert stage.shows(bob, "recent") == "10"


def test_days_that_are_gone_are_kept_nowhere_where_there_is_news() -> None:
    stage = Stage([RECENT])
    ann, bob = stage.at(0), stage.at(1)
    stage.tell(ann, Assigned(1, bob))
    for day in range(1, 6):
        stage.tell(ann, Day(day))
        stage.tell(bob, Day(day))
        stage.fold(ann, n=1, at=day * DAY)
        stage.rest()
    moves = stage.home(bob).processor.moves
    (slot,) = (slot for _, slot in moves.slots.scan())
    shared = moves.shared.get(bob.encode())
    assert shared is not None
    for fragment in (stage.home(ann).state(ann).fragment, slot.fragment, shared.profile.merged):
        assert [day for day, _ in fragment[0][-1]] == [4, 5]


def test_only_the_email_changed() -> None:
    """New identifiers with the same profile are news."""
    stage = Stage([SUM])
    ann, bob = stage.at(0), stage.at(1)
    stage.fold(ann, n=1)
    stage.tell(ann, Assigned(1, bob, ("mail:a",)))
    stage.rest()
    assert stage.record(bob)["identifiers"] == sorted([ann, "mail:a"])
    sent: Any = stage.world.parts_sent.copy()
    stage.tell(ann, Assigned(2, bob, ("mail:b",)))
    stage.rest()
    assert stage.record(bob)["identifiers"] == sorted([ann, "mail:b"])
    assert (stage.world.parts_sent - sent).total() == 1


def test_two_members_share_an_identifier_and_one_leaves() -> None:
    stage = Stage([SUM])
    ann, bob, cid = stage.at(0), stage.at(1), stage.at(2)
    stage.tell(cid, Assigned(1, cid, ("mail:both",)))
    stage.fold(cid, n=1)
    for subject, ids in ((ann, ("mail:ann", "mail:both")), (bob, ("mail:both",))):
        stage.fold(subject, n=1)
        stage.tell(subject, Assigned(1, cid, ids))
    stage.rest()
    stage.tell(ann, Unassigned())
    stage.rest()
    assert stage.record(cid)["identifiers"] == sorted([bob, cid, "mail:both"])
