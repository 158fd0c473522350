"""Who is in a profile, as its record lists them: how many subjects, the first of them, the first of their identifiers.

Joining is told from the list alone. Leaving is not: who comes next is not kept, so lists are then made anew from all
members, as stale cells are. Knows nothing of fragments.
"""

from __future__ import annotations

from collections.abc import Iterable
from heapq import merge
from itertools import islice

import msgspec

from c360.profile.parts import Identifiers


class Member(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """How a subject counts in a profile: for views whose bits are in `seen`, with these identifiers."""

    seen: int
    identifiers: Identifiers = ()


NOBODY = Member(0)


class Listing(msgspec.Struct, array_like=True):
    """The members that one view sees. Lists rise, in the order of Unicode code points."""

    total: int = 0
    subjects: list[str] = []
    identifiers: list[str] = []


class Listings:
    """Keeps one listing per view, `most` entries long."""

    def __init__(self, views: int, most: int) -> None:
        self.views, self.most = range(views), most

    def alone(self, subject: str, member: Member) -> list[Listing]:
        """Of one subject; of nobody where it is not seen."""
        labels = sorted({subject, *member.identifiers})[: self.most]
        return [Listing(1, [subject], labels) if member.seen >> view & 1 else Listing() for view in self.views]

    def anew(self, members: Iterable[tuple[str, Member]]) -> list[Listing]:
        found = list(members)
        return [self._of([(s, m.identifiers) for s, m in found if m.seen >> view & 1]) for view in self.views]

    def _of(self, members: list[tuple[str, Identifiers]]) -> Listing:
        labels = {label for subject, identifiers in members for label in (subject, *identifiers)}
        subjects = sorted(subject for subject, _ in members)
        return Listing(len(members), subjects[: self.most], sorted(labels)[: self.most])

    def change(self, listings: list[Listing], subject: str, was: Member, now: Member) -> bool:
        """List the subject as `now`; False where only the other members can tell, and all is to be made anew."""
        for view in self.views:
            before, after = was.seen >> view & 1, now.seen >> view & 1
            if before and not (after and set(was.identifiers) <= set(now.identifiers)):
                return False
            if after and (not before or was.identifiers != now.identifiers):
                listing = listings[view]
                listing.total += not before
                listing.subjects = self._with(listing.subjects, (subject,))
                listing.identifiers = self._with(listing.identifiers, (subject, *now.identifiers))
        return True

    def _with(self, listed: list[str], more: Identifiers) -> list[str]:
        new = sorted(set(more) - set(listed))
        return list(islice(merge(listed, new), self.most))
