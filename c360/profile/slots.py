"""The owner of profiles: slots of their members, and what these add up to.

    Put ──► slot made, merge += fragment ──► Held       Add ──► slot and merge += delta       Drop ──► merge -= slot

What comes in is asserted against the slot: a message that cannot follow the last one means that one was lost or came
twice, and then nothing here is to be trusted; NeedsOperator says so. Slots can always be had again from the homes.

A profile that holds nobody but the subject of its own name has no `Profile` and no slot: its record is made of that
subject's fragment where it lies, at its home, which is in the same task. With others there is a `Profile`: the merge of
all, with what the own subject brings taken straight from its fragment. So there is a copy of what is merged, and none else.

A task keeps three tables more than one without merges; a profile of many members is never rewritten as a whole:

| key | value | rewritten |
|---|---|---|
| profile | `Profile` without what is large | when anything in it changes |
| profile, part | one cell of the merge, or the listings, beyond 4 KB | when this part changes |
| profile, subject | `Slot` | when there is news of this member |

`c360.profile.rows` has their bytes. Functions change the states they are given. Knows nothing of partitions and of what
a record looks like.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from c360.errors import NeedsOperator
from c360.profile.fold import RECORDS, Folding, Fragment, Stale
from c360.profile.listing import NOBODY, Listing, Listings, Member
from c360.profile.parts import Add, Put

LISTED = 100
LISTED_TO_ASK = 2_000  # where people are asked, so that one who denies is found; a larger profile does not leave


class Slot:
    """One member's fragment at the owner, as of `revision` of its home. `part`: pieces of it are still to come."""

    __slots__ = ("fragment", "member", "part", "revision")

    def __init__(self, revision: int, member: Member, fragment: Fragment, *, part: bool = False) -> None:
        self.revision, self.member, self.fragment, self.part = revision, member, fragment, part


class Profile:
    """A profile that has, or had in this step, slots of others than its own subject."""

    __slots__ = ("apart", "listings", "merged", "missing", "own", "slots", "stale", "unlisted")

    def __init__(self, listings: list[Listing]) -> None:
        self.merged: Fragment = {}
        self.slots = 0
        self.own: Member | None = None  # how its own subject counts; None: its fragment is not in the merge
        self.listings = listings
        self.apart: dict[str, bytes] = {}  # what is stored in rows of its own -> digest of what is there
        self.missing: tuple[str, ...] = ()  # those of them that are still to be read
        self.stale: set[Stale] = set()  # until the step is settled: cells to be made anew,
        self.unlisted = False  # and whether the listings are


class Owner:
    """The slots and profiles of one projection.

    `views`: who looks at profiles, each as the purposes that must be permitted, a set of bits in the mask of a record; 0
    sees all. A subject is a member for a view while it has live records there.
    """

    def __init__(self, folding: Folding, views: Sequence[int], listed: int = LISTED) -> None:
        self.folding, self.views = folding, tuple(views)
        self.listings = Listings(len(self.views), listed)

    def masks(self, fragment: Fragment, view: int) -> set[int]:
        """The masks of a fragment that this view (a set of bits) may see."""
        return {mask for mask in fragment if mask & view == view}

    def member(self, fragment: Fragment, identifiers: Sequence[str]) -> Member:
        """How a subject with this fragment counts."""
        seen = 0
        for i, view in enumerate(self.views):
            live = 0
            for mask, cells in fragment.items():
                if mask & view == view:
                    live += cells[RECORDS]
            seen |= (live > 0) << i
        return Member(seen, tuple(identifiers))

    def new(self) -> Profile:
        return Profile(self.listings.anew(()))

    # ---------------------------------------------------------------------------------------------------- messages
    def put(self, profile: Profile, slot: Slot | None, put: Put) -> Slot:
        """The slot that a Put makes; its last piece is to be answered with Held."""
        piece = self.folding.decode(put.fragment)
        if slot is None:
            slot = Slot(put.revision, NOBODY, piece, part=True)
            profile.slots += 1
        elif slot.part and slot.revision == put.revision:
            self.folding.absorb(slot.fragment, piece)
        else:
            raise out_of_step("a Put for a place that is taken")
        slot.part = put.more
        if not slot.part:
            self.folding.absorb(profile.merged, slot.fragment)
            self._count(profile, put.subject, slot, put.identifiers)
        return slot

    def add(self, profile: Profile, slot: Slot | None, add: Add) -> Slot:
        if slot is None or slot.part or slot.revision + 1 != add.revision:
            raise out_of_step("an Add that does not follow what is held")
        delta = self.folding.decode(add.delta)
        self.folding.absorb(slot.fragment, delta)
        self.folding.absorb(profile.merged, delta)
        slot.revision = add.revision
        self._count(profile, add.subject, slot, add.identifiers)
        return slot

    def drop(self, profile: Profile, subject: str, slot: Slot | None) -> None:
        """Take the slot out of the merge; the caller deletes it."""
        if slot is None or slot.part:
            raise out_of_step("a Drop for a place that is empty")
        profile.slots -= 1
        self._subtract(profile, slot.fragment)
        self._list(profile, subject, slot.member, NOBODY)

    # ------------------------------------------------------------------------------------------------- own subject
    def own(
        self,
        profile: Profile,
        subject: str,
        fragment: Fragment,
        *,
        delta: Fragment,
        identifiers: Sequence[str],
        stays: bool,
    ) -> None:
        """Have the own subject in the merge, or take it out. `fragment` has `delta` in it, which is what this step folded.

        To be called whenever the subject was touched, or others came to its profile; and before its fragment is emptied.
        """
        was = profile.own
        if was is not None:
            self.folding.absorb(profile.merged, delta)
        elif stays:
            self.folding.absorb(profile.merged, fragment)
        if was is not None and not stays:
            self._subtract(profile, fragment)
        profile.own = self.member(fragment, identifiers) if stays else None
        self._list(profile, subject, was or NOBODY, profile.own or NOBODY)

    def alone(self, subject: str, fragment: Fragment, identifiers: Sequence[str]) -> list[Listing]:
        """The listings of a profile without a `Profile`, whose own subject has this fragment."""
        return self.listings.alone(subject, self.member(fragment, identifiers))

    # -------------------------------------------------------------------------------------------------------- step
    def settle(
        self,
        profile: Profile,
        subject: str,
        *,
        slots: Callable[[], Iterable[tuple[str, Slot]]],
        fragment: Fragment,
        today: int,
    ) -> int | None:
        """Make anew, at the end of a step, what those who left have taken along; `fragment` is the own subject's.

        `slots` walks over all slots and is called only if need be. Returns the day on which the profile is to be looked at
        again, as `Folding.expire` does.
        """
        if profile.stale or profile.unlisted:
            members: list[tuple[str, Member]] = []

            def fragments() -> Iterator[Fragment]:
                if profile.own is not None:
                    members.append((subject, profile.own))
                    yield fragment
                for name, slot in slots():
                    if not slot.part:
                        members.append((name, slot.member))
                        yield slot.fragment

            self.folding.remake(profile.merged, profile.stale, fragments())
            if profile.unlisted:
                profile.listings = self.listings.anew(members)
            profile.stale, profile.unlisted = set(), False
        return self.folding.expire(profile.merged, today)

    def _subtract(self, profile: Profile, part: Fragment) -> None:
        profile.merged, stale = self.folding.subtract(profile.merged, part)
        profile.stale |= stale

    def _list(self, profile: Profile, subject: str, was: Member, now: Member) -> None:
        if not profile.unlisted:
            profile.unlisted = not self.listings.change(profile.listings, subject, was, now)

    def _count(self, profile: Profile, subject: str, slot: Slot, identifiers: Sequence[str]) -> None:
        was, slot.member = slot.member, self.member(slot.fragment, identifiers)
        self._list(profile, subject, was, slot.member)


def out_of_step(what: str) -> NeedsOperator:
    return NeedsOperator(
        f"{what}: `parts` lost a message or brought one twice, and profiles cannot be trusted; stop this projection and run"
        " `c360 reset` for it: its homes then put all fragments again"
    )
