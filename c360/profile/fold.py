"""Fragments: what the records of a subject, or of a profile, add up to.

A fragment is {permitted mask: cell set}; a cell set is the list [live records, newest event time in ms, one cell per
attribute], where attributes that count the same values, such as `top` and `distinct` of one field, share a cell.
One law carries everything: folding records one after the other, in any order, and merging the fragments of any division
of them give the same fragment (PROJECTION.md, Attribute algebra).
Fragments are plain lists, dictionaries, numbers and texts, owned by whoever made them: `fold`, `absorb`, `remake` and
`expire` change them in place, all others return new ones. Knows nothing of subjects, slots and messages.
"""

from __future__ import annotations

from collections.abc import Container, Hashable, Iterable, Sequence
from typing import Any

from c360.profile.attribute import Attribute, check_attributes
from c360.profile.cells import Cell, Windowed, cell_of, kept_as
from c360.profile.compiled import AS_OF, FIRST, RECORDS, Fold, Reader, compile_fold, compile_show
from c360.profile.format import decode_fragment, encode_fragment

__all__ = ["AS_OF", "FIRST", "RECORDS", "Fold", "Folding", "Fragment", "Reader", "Stale"]

Fragment = dict[int, list[Any]]
Stale = tuple[int, int]  # a cell: its mask and its position in the cell set


class Folding:
    """The algebra of one projection's attributes."""

    def __init__(self, attributes: Sequence[Attribute]) -> None:
        """Raises DeclarationError, naming the attribute, where a rule does not fit its type or numbers."""
        check_attributes(attributes)
        self.attributes = tuple(attributes)
        self._cells = tuple(map(cell_of, attributes))
        kept: list[Cell] = []  # those that cell sets hold
        places: list[int] = []  # of each attribute's cell in a cell set
        shared: dict[Hashable, int] = {}
        for attribute, cell in zip(attributes, self._cells, strict=True):
            place = FIRST + len(kept)
            if (alike := kept_as(attribute)) is not None:
                place = shared.setdefault(alike, place)
            if place == FIRST + len(kept):
                kept.append(cell)
            places.append(place)
        self._places = places
        self._at = tuple(enumerate(kept, FIRST))
        self.show = compile_show(attributes, self._cells, places)
        self._windows = tuple((i, cell) for i, cell in self._at if isinstance(cell, Windowed))
        self._blank: list[Any] = [0, None, *(cell.empty for cell in kept)]

    def empty(self) -> Fragment:
        """The fragment of no records; neutral in `merge`."""
        return {}

    def folder(self, readers: Sequence[Reader], *, rows: bool) -> Fold:
        """How records of one type are folded: fold(fragment, record, at_ms, sign, mask), in place.

        at_ms is event time in epoch milliseconds; sign is 1, or -1 to take the same record back (same time, values and
        mask), which only `rows` may. fold raises Misfit for a value or time that cannot be kept, and changes nothing.
        """
        first = {place: i for i, place in reversed(list(enumerate(self._places)))}  # the attribute that fills it
        filling = [r for r in readers if first[self._places[r.attribute]] == r.attribute]
        return compile_fold(self.attributes, self._cells, self._places, self._blank, filling, rows=rows)

    # ------------------------------------------------------------------------------------------------------ algebra
    def merge(self, a: Fragment, b: Fragment) -> Fragment:
        """The fragment of the records of both."""
        merged: Fragment = _copied(a)
        self.absorb(merged, b)
        return merged

    def absorb(self, whole: Fragment, part: Fragment) -> None:
        """Merge `part` into `whole`, in place; they share nothing afterwards."""
        for mask, theirs in part.items():
            ours = whole.get(mask)
            if ours is None:
                whole[mask] = _copied(theirs)
                continue
            self._absorb(ours, theirs)
            self._settle(whole, mask)

    def _absorb(self, ours: list[Any], theirs: list[Any]) -> None:
        ours[RECORDS] += theirs[RECORDS]
        ours[AS_OF] = _newest(ours[AS_OF], theirs[AS_OF])
        for i, cell in self._at:
            cell.absorb(ours, i, theirs[i])

    def _settle(self, fragment: Fragment, mask: int) -> None:
        """Take an empty cell set away."""
        if fragment[mask] == self._blank:
            del fragment[mask]

    def subtract(self, whole: Fragment, part: Fragment) -> tuple[Fragment, set[Stale]]:
        """`whole` without `part`, where whole is the merge of part and others.

        Cells that cannot be told from these two alone (the winner leaves, or a sample is opened) are empty in the
        result and named in the set: they are to be made anew from the others, with `remake`.
        """
        rest, stale = _copied(whole), set[Stale]()
        for mask, theirs in part.items():
            ours = rest.setdefault(mask, self._blank.copy())
            ours[RECORDS] -= theirs[RECORDS]
            if ours[AS_OF] == theirs[AS_OF] and theirs[AS_OF] is not None:
                ours[AS_OF] = None
                stale.add((mask, AS_OF))
            for i, cell in self._at:
                if not cell.subtract(ours, i, theirs[i]):
                    ours[i] = cell.empty
                    stale.add((mask, i))
            self._settle(rest, mask)
        return rest, stale

    def remake(self, whole: Fragment, stale: Iterable[Stale], members: Iterable[Fragment]) -> None:
        """Make stale cells of `whole` anew, in place, as the merge of those of the members that are left."""
        cells = dict(self._at)
        anew = sorted(stale)
        for mask, i in anew:
            whole.setdefault(mask, self._blank.copy())[i] = self._blank[i]
        for member in members:
            for mask, i in anew:
                if (theirs := member.get(mask)) is None:
                    continue
                ours = whole[mask]
                if i == AS_OF:
                    ours[AS_OF] = _newest(ours[AS_OF], theirs[AS_OF])
                else:
                    cells[i].absorb(ours, i, theirs[i])
        for mask in {mask for mask, _ in anew}:
            self._settle(whole, mask)

    # ------------------------------------------------------------------------------------------------------ reading
    def seen(self, fragment: Fragment, masks: Container[int] | None = None) -> list[Any]:
        """The cell set that a reader sees who may see these masks; None: all. Not to be changed.

        At RECORDS is the number of live records: without any there is no profile. At AS_OF is the newest event time
        ever folded in, epoch milliseconds or None; it is not taken back with its record. `show` gives the values.
        """
        sets = [cells for mask, cells in fragment.items() if masks is None or mask in masks]
        if len(sets) == 1:
            return sets[0]
        whole = self._blank.copy()
        for cells in sets:
            self._absorb(whole, cells)
        return whole

    def values(self, fragment: Fragment, today: int, masks: Container[int] | None = None) -> list[Any]:
        """Plain JSON values in the order of the attributes; `today` in days since 1970; None: all masks."""
        return self.show(self.seen(fragment, masks), today)

    # ------------------------------------------------------------------------------------------------------ windows
    def expire(self, fragment: Fragment, today: int) -> int | None:
        """Drop, in place, what no value can see from `today` on.

        Returns the first later day on which values may change without a record, as another day of events stops counting.
        """
        due = None
        for mask in tuple(fragment) if self._windows else ():
            cells = fragment[mask]
            for i, window in self._windows:
                day = window.expire(cells, i, today)
                if day is not None and (due is None or day < due):
                    due = day
            self._settle(fragment, mask)
        return due

    # -------------------------------------------------------------------------------------------------------- bytes
    def apart(self, fragment: Fragment, size: int) -> tuple[Fragment, dict[Stale, Fragment]]:
        """The fragment without cells of more than `size` bytes, and each of those alone; they merge to the whole.

        Made to be encoded: they share their cells with `fragment`.
        """
        rest, large = self.empty(), dict[Stale, Fragment]()
        for mask, cells in fragment.items():
            rest[mask] = cells.copy()
            for i, cell in self._at:
                if isinstance(cells[i], list | dict | str) and len(encode_fragment({mask: [cells[i]]})) > size:
                    large[mask, i] = {mask: self._blank.copy()}
                    large[mask, i][mask][i] = cells[i]
                    rest[mask][i] = cell.empty
            self._settle(rest, mask)
        return rest, large

    def encode(self, fragment: Fragment) -> bytes:
        """Bytes (docs/formats/fragment.md); the same for equal fragments, whatever their history."""
        return encode_fragment(fragment)

    def decode(self, data: bytes) -> Fragment:
        """The fragment of these bytes. Raises NeedsOperator if another format or set of attributes wrote them."""
        return decode_fragment(data, len(self._blank))


def _newest(a: int | None, b: int | None) -> int | None:
    return b if a is None else a if b is None else max(a, b)


def _copied(value: Any) -> Any:
    """A copy of plain lists and dictionaries, all the way down."""
    if value.__class__ is list:
        return [_copied(v) for v in value]
    if value.__class__ is dict:
        return {key: _copied(v) for key, v in value.items()}
    return value
