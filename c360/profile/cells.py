"""Cells: the state of one attribute, one class per way of keeping it.

| class | attributes | cell |
|---|---|---|
| Sum | count, flag, total | n or units; 0 is empty |
| Mean | average | [n, units] |
| Best | minimum, maximum, first, newest, prefer | best entry of events, or [that, {entry: n} of rows] |
| Counted | top, distinct, collect | {text: n} of events, or [that, {text: n} of rows, edge of the sample] |
| Windowed | any of these with `within` | [[day, cell], …], days rising |

Outside of Sum an empty cell is None, and so is each empty part of a cell. A list is there only where a part other than the
first is: most cells are of events, and a list for each would be half as much memory again. So equal states have one form.
A cell lives in a *box* (a list) at an index, and is changed there. Counts of rows may be negative on the way (a retract
that comes before its add); they are kept and never shown. Knows nothing of fragments, masks and bytes.
"""

from __future__ import annotations

import operator
from bisect import bisect_left
from collections.abc import Callable, Hashable, Iterable, Mapping
from functools import cache, lru_cache, partial
from hashlib import blake2b
from json.encoder import encode_basestring as quote  # text -> its encoding
from typing import Any, Protocol

from c360.profile.attribute import Attribute, Kind
from c360.profile.value import DAY_MS, SHAPES, Shape, divided, instant_order, units_of, units_text

Box = list[Any]
Change = Callable[[Box, int, Any, int, int], None]
"""change(box, index, value, at_ms, sign): fold one ready value into the cell at box[index]."""

RANKS = 10_000  # sources of one `prefer`
_TIME_BIAS = 500_000_000_000_000  # makes every time of years 1 to 9999, in ms, a number of exactly 15 digits
_TIME_DIGITS, _RANK_DIGITS = 15, 4


class Cell(Protocol):
    """How the cells of one attribute are kept."""

    @property
    def empty(self) -> Any: ...

    @property
    def ready(self) -> Callable[[Any], Any] | None:
        """From what a reader returns, not None, to what `change` takes; it raises Unfit. None: nothing to do."""

    def change(self, rank: int, *, rows: bool) -> Change: ...

    def absorb(self, box: Box, i: int, other: Any) -> None:
        """box[i] += other; `other` is not changed, and nothing in it is shared afterwards."""

    def subtract(self, box: Box, i: int, other: Any) -> bool:
        """box[i] -= other, where box[i] is the sum of other and others. False: only the others can tell."""

    def show(self, cell: Any, today: int) -> Any:
        """The attribute's value as plain JSON."""


# ------------------------------------------------------------------------------------------------------------- sums
_SHOWN: Mapping[Kind, Callable[[int], Any]] = {
    "count": lambda n: n if n > 0 else 0,
    "flag": lambda n: n > 0,
}


class Sum:
    """A whole number that records add to: each its 1 (count, flag) or its units (total)."""

    empty = 0

    def __init__(self, attribute: Attribute) -> None:
        self.ones = attribute.kind != "total"
        self.ready = None if self.ones else units_of(attribute.type, attribute.scale)
        self.shown = _SHOWN.get(attribute.kind) or partial(units_text, scale=attribute.scale)

    def change(self, rank: int, *, rows: bool) -> Change:
        def add_one(box: Box, i: int, value: Any, at_ms: int, sign: int) -> None:
            box[i] += sign

        def add_units(box: Box, i: int, value: Any, at_ms: int, sign: int) -> None:
            box[i] += value * sign

        return add_one if self.ones else add_units

    def absorb(self, box: Box, i: int, other: Any) -> None:
        box[i] += other

    def subtract(self, box: Box, i: int, other: Any) -> bool:
        box[i] -= other
        return True

    def show(self, cell: Any, today: int) -> Any:
        return self.shown(cell)


class Mean:
    """How many records, and their units; divided when shown."""

    empty = None

    def __init__(self, attribute: Attribute) -> None:
        self.scale = attribute.scale
        self.ready = units_of(attribute.type, attribute.scale)

    def change(self, rank: int, *, rows: bool) -> Change:
        add = self._add

        def add_units(box: Box, i: int, value: Any, at_ms: int, sign: int) -> None:
            add(box, i, sign, value * sign)

        return add_units

    def _add(self, box: Box, i: int, n: int, units: int) -> None:
        cell = box[i]
        if cell is None:
            cell = box[i] = [0, 0]
        cell[0] += n
        cell[1] += units
        if not (cell[0] or cell[1]):
            box[i] = None

    def absorb(self, box: Box, i: int, other: Any) -> None:
        if other is not None:
            self._add(box, i, other[0], other[1])

    def subtract(self, box: Box, i: int, other: Any) -> bool:
        if other is not None:
            self._add(box, i, -other[0], -other[1])
        return True

    def show(self, cell: Any, today: int) -> Any:
        if cell is None or cell[0] <= 0:
            return None
        return units_text(divided(cell[1], cell[0]), self.scale)


# --------------------------------------------------------------------------------------- events and rows side by side
EVENTS, ROWS, EDGE = 0, 1, 2


def _opened(cell: Any, parts: int) -> list[Any]:
    """The parts of a cell; those of one that has several are its own, and may be changed."""
    return cell if cell.__class__ is list else [cell] + [None] * (parts - 1)


def _closed(parts: list[Any]) -> Any:
    """The cell of these parts."""
    return parts[EVENTS] if parts[ROWS] is None and parts[-1] is None else parts


def _row_change(parts: int) -> Change:
    """Counts a live row under its key, in a cell of so many parts."""

    def count_row(box: Box, i: int, key: str, at_ms: int, sign: int) -> None:
        cell = box[i] = _opened(box[i], parts)
        rows = cell[ROWS]
        if rows is None:
            cell[ROWS] = {key: sign}
            return
        n = rows.get(key, 0) + sign
        if n:
            rows[key] = n
        else:
            del rows[key]
            if not rows:
                cell[ROWS] = None
                box[i] = _closed(cell)

    return count_row


def _sum(a: dict[str, int] | None, b: dict[str, int] | None, sign: int = 1) -> dict[str, int] | None:
    """a + sign * b of counts by key, without zeros, None for nothing; may be `a` itself, changed."""
    if not b:
        return a
    if a is None:
        a = {}
    for key, count in b.items():
        n = a.get(key, 0) + sign * count
        if n:
            a[key] = n
        else:
            del a[key]
    return a or None


def _live(rows: dict[str, int]) -> Iterable[str]:
    """Keys that are there more than nought times."""
    return rows if min(rows.values()) > 0 else [key for key, n in rows.items() if n > 0]


class Best:
    """The best entry of events, and all live ones of rows.

    An entry is a text that holds exactly what the order looks at. For minimum and maximum it is the value's text. For
    the others it is [rank] + time + the value's encoding, the first two in fixed width, so that texts compare as
    entries do: latest time first, then the greatest encoding.
    """

    empty = None

    def __init__(self, attribute: Attribute) -> None:
        self.kind = attribute.kind
        self.shape = shape = SHAPES[attribute.type]
        self.timed = attribute.kind in ("first", "newest", "prefer")
        self.prefix = 0 if not self.timed else _TIME_DIGITS + (_RANK_DIGITS if attribute.kind == "prefer" else 0)
        self.ready = _encoder(shape) if self.timed else shape.text
        order = None if self.timed else shape.order
        self.order = order
        self.least = attribute.kind in ("minimum", "first")
        self.beats: Callable[[Any, Any], bool] = operator.lt if self.least else operator.gt
        if order is not None:
            by, than = order, self.beats
            self.beats = lambda entry, best: than(by(entry), by(best))

    def change(self, rank: int, *, rows: bool) -> Change:
        assert 0 <= rank < RANKS, f"rank {rank} of a source: there are {RANKS}"
        change = _row_change(2) if rows else self._keeper()
        if not self.timed:
            return change
        trust = f"{RANKS - 1 - rank:0{_RANK_DIGITS}}" if self.kind == "prefer" else ""
        if not rows and self.kind == "newest":
            return _keep_newest

        def timed(box: Box, i: int, encoding: str, at_ms: int, sign: int) -> None:
            change(box, i, f"{trust}{at_ms + _TIME_BIAS}{encoding}", at_ms, sign)

        return timed

    def _keeper(self) -> Change:
        """`_keep_best`, with the order written out where it is that of the texts."""
        if self.order is not None and self.order is not instant_order:
            return self._keep_best
        end = -1 if self.order is instant_order else None

        def keep_least(box: Box, i: int, entry: str, at_ms: int, sign: int) -> None:
            best = box[i]
            if best.__class__ is list:
                box, i = best, EVENTS
                best = box[i]
            if best is None or entry[:end] < best[:end]:
                box[i] = entry

        def keep_greatest(box: Box, i: int, entry: str, at_ms: int, sign: int) -> None:
            best = box[i]
            if best.__class__ is list:
                box, i = best, EVENTS
                best = box[i]
            if best is None or entry[:end] > best[:end]:
                box[i] = entry

        return keep_least if self.least else keep_greatest

    def _keep_best(self, box: Box, i: int, entry: str, at_ms: int, sign: int) -> None:
        best = box[i]
        if best.__class__ is list:
            box, i = best, EVENTS
            best = box[i]
        if best is None or self.beats(entry, best):
            box[i] = entry

    def absorb(self, box: Box, i: int, other: Any) -> None:
        best, rows = _opened(other, 2)
        if best is not None:
            self._keep_best(box, i, best, 0, 1)
        if rows is not None:
            self._add_rows(box, i, rows, 1)

    def _add_rows(self, box: Box, i: int, rows: dict[str, int], sign: int) -> None:
        cell = _opened(box[i], 2)
        cell[ROWS] = _sum(cell[ROWS], rows, sign)
        box[i] = _closed(cell)

    def subtract(self, box: Box, i: int, other: Any) -> bool:
        best, rows = _opened(other, 2)
        if best is not None and best == _opened(box[i], 2)[EVENTS]:
            return False  # the winner leaves; who comes next is not kept
        if rows is not None:
            self._add_rows(box, i, rows, -1)
        return True

    def show(self, cell: Any, today: int) -> Any:
        best = self._best_of(*cell) if cell.__class__ is list else cell
        if best is None:
            return None
        return self.shape.decoded(best[self.prefix :]) if self.timed else self.shape.shown(best)

    def _best_of(self, best: str | None, rows: dict[str, int] | None) -> str | None:
        if rows is None:
            return best
        found = (min if self.least else max)(_live(rows), key=self.order, default=None)
        return found if best is None or (found is not None and self.beats(found, best)) else best


def _keep_newest(box: Box, i: int, encoding: str, at_ms: int, sign: int) -> None:
    """Best's change for newest over events, in one step: it is in nearly every projection."""
    best = box[i]
    if best.__class__ is list:
        box, i = best, EVENTS
        best = box[i]
    entry = f"{at_ms + _TIME_BIAS}{encoding}"
    if best is None or entry > best:
        box[i] = entry


@cache
def _encoder(shape: Shape) -> Callable[[Any], str]:
    """A function from a value to its encoding; it raises Unfit."""
    text = shape.text
    return (lambda value: quote(text(value))) if shape.quoted else text


@lru_cache(maxsize=1 << 14)
def _hash(encoding: str) -> int:
    return int.from_bytes(blake2b(encoding.encode(), digest_size=8).digest(), "big")


class Counted:
    """How often each value was there. Of events, beyond `limit` values, a sample: the `limit` + 1 of least hash.

    A sample by hash is a function of the set of values, so no order of arrival shows in it, and a value in it has been
    in it since it first came, so its count is exact. `edge` is the value of the sample with the greatest hash: most new
    values are beyond it and need one hash. It is None while all values are kept.
    """

    empty = None

    def __init__(self, attribute: Attribute) -> None:
        self.kind, self.n, self.limit = attribute.kind, attribute.n, attribute.limit
        self.shape = SHAPES[attribute.type]
        self.ready = self.shape.normal
        self.order = quote if self.shape.quoted else None  # what texts are sorted by: their encodings

    def _weight(self, text: str) -> tuple[int, str]:
        encoding = self.shape.encoding(text)
        return _hash(encoding), encoding

    def change(self, rank: int, *, rows: bool) -> Change:
        if rows:
            return _row_change(3)
        limit, crowd = self.limit, self._crowd

        def count_event(box: Box, i: int, key: str, at_ms: int, sign: int) -> None:
            kept = box[i]
            if kept.__class__ is list:
                kept = kept[EVENTS]
            if kept is None:
                self._first(box, i, key)
            elif key in kept:
                kept[key] += 1
            elif len(kept) < limit:
                kept[key] = 1
            else:
                crowd(box, i, key)

        return count_event

    def _first(self, box: Box, i: int, key: str) -> None:
        """A value where none of events is kept."""
        if box[i] is None:
            box[i] = {key: 1}
        else:
            box[i][EVENTS] = {key: 1}

    def _crowd(self, box: Box, i: int, key: str) -> None:
        """A new value where `limit` are kept already, or a sample."""
        kept, rows, edge = _opened(box[i], 3)
        if edge is not None:
            if self._weight(key) > self._weight(edge):
                return
            del kept[edge]
        kept[key] = 1
        box[i] = [kept, rows, max(kept, key=self._weight)]

    def _sample(self, values: Iterable[str]) -> list[str]:
        return sorted(values, key=self._weight)[: self.limit + 1]

    def absorb(self, box: Box, i: int, other: Any) -> None:
        events, rows, _ = _opened(other, 3)
        cell = _opened(box[i], 3)
        if events is not None:
            kept = _sum(cell[EVENTS], events)
            if kept is not None and len(kept) > self.limit:  # None: of a cell that is stale and may hold anything
                sample = self._sample(kept)
                kept = {key: kept[key] for key in sample}
                cell[EDGE] = sample[-1]
            cell[EVENTS] = kept
        cell[ROWS] = _sum(cell[ROWS], rows)
        box[i] = _closed(cell)

    def subtract(self, box: Box, i: int, other: Any) -> bool:
        events, rows, _ = _opened(other, 3)
        cell = _opened(box[i], 3)
        if events is not None:
            if cell[EDGE] is not None:
                return False  # values that the sample left out may come back
            cell[EVENTS] = _sum(cell[EVENTS], events, -1)
        cell[ROWS] = _sum(cell[ROWS], rows, -1)
        box[i] = _closed(cell)
        return True

    def show(self, cell: Any, today: int) -> Any:
        if cell is None:
            return 0 if self.kind == "distinct" else []
        kept, rows, edge = cell if cell.__class__ is list else (cell, None, None)
        present = _present(kept, rows)
        if edge is not None:
            present = {key: present[key] for key in self._sample(present)}
        if self.kind == "distinct":
            if edge is None:
                return len(present)
            # limit + 1 least hashes reach this far into 2^64; so densely all of it is filled (k-minimum-values)
            return round(self.limit * 2**64 / (max(self._weight(key)[0] for key in present) + 1))
        shown = self.shape.shown
        if self.kind == "collect":
            return [shown(key) for key in sorted(present, key=self.order)[: self.limit]]
        if len(present) > self.n:  # only those with a chance are put in order
            counts = present.values()
            if self.n == 1:
                most = max(counts)
                return [shown(min([key for key, n in present.items() if n == most], key=self.order))]
            least = sorted(counts, reverse=True)[self.n - 1]
            present = {key: n for key, n in present.items() if n >= least}
        ranked = sorted(present, key=self.order)
        ranked.sort(key=present.__getitem__, reverse=True)  # stable: of equal counts, the lesser encoding stays first
        return [shown(key) for key in ranked[: self.n]]


def _present(kept: dict[str, int] | None, rows: dict[str, int] | None) -> dict[str, int]:
    """What is there of both; not to be changed."""
    if rows is None:
        return kept or {}
    both = _sum(dict(kept or ()), rows) or {}
    return {key: n for key, n in both.items() if n > 0}


# ---------------------------------------------------------------------------------------------------------- windows
def _first(bucket: list[Any]) -> int:
    return bucket[0]  # type: ignore[no-any-return]


class Windowed:
    """A cell per UTC day of event time. A day counts while day > today - days; a day ahead of today counts at once."""

    empty = None

    def __init__(self, inner: Cell, days: int) -> None:
        self.inner, self.days = inner, days
        self.ready = inner.ready

    def change(self, rank: int, *, rows: bool) -> Change:
        change, find, settle, empty = self.inner.change(rank, rows=rows), self._find, self._settle, self.inner.empty

        def change_bucket(box: Box, i: int, value: Any, at_ms: int, sign: int) -> None:
            j = find(box, i, at_ms // DAY_MS)
            bucket = box[i][j]
            change(bucket, 1, value, at_ms, sign)
            if bucket[1] == empty:
                settle(box, i, j)

        return change_bucket

    def _find(self, box: Box, i: int, day: int) -> int:
        """The index of the day's bucket in box[i], made if there is none."""
        buckets = box[i]
        if buckets is None:
            box[i] = [[day, self.inner.empty]]
            return 0
        last = len(buckets) - 1
        if buckets[last][0] == day:  # most records are of today
            return last
        j = bisect_left(buckets, day, key=_first)
        if j > last or buckets[j][0] != day:
            buckets.insert(j, [day, self.inner.empty])
        return j

    def _settle(self, box: Box, i: int, j: int) -> None:
        """Take bucket j away if it is empty."""
        buckets = box[i]
        if buckets[j][1] == self.inner.empty:
            del buckets[j]
            if not buckets:
                box[i] = None

    def absorb(self, box: Box, i: int, other: Any) -> None:
        for day, cell in other or ():
            j = self._find(box, i, day)
            self.inner.absorb(box[i][j], 1, cell)
            self._settle(box, i, j)

    def subtract(self, box: Box, i: int, other: Any) -> bool:
        for day, cell in other or ():
            j = self._find(box, i, day)
            told = self.inner.subtract(box[i][j], 1, cell)
            self._settle(box, i, j)
            if not told:
                return False
        return True

    def show(self, cell: Any, today: int) -> Any:
        inner = self.inner
        live = [] if cell is None else cell[self._expired(cell, today) :]
        if len(live) == 1:
            return inner.show(live[0][1], today)
        whole: Box = [inner.empty]
        for bucket in live:
            inner.absorb(whole, 0, bucket[1])
        return inner.show(whole[0], today)

    def _expired(self, buckets: list[Any], today: int) -> int:
        """How many buckets, from the first, no longer count."""
        floor = today - self.days
        return 0 if buckets[0][0] > floor else bisect_left(buckets, floor + 1, key=_first)

    def expire(self, box: Box, i: int, today: int) -> int | None:
        """Drop buckets that no value can see, now or later; returns the day on which the next one stops counting."""
        buckets = box[i]
        if buckets is None:
            return None
        if gone := self._expired(buckets, today):
            del buckets[:gone]
            if not buckets:
                box[i] = None
                return None
        return buckets[0][0] + self.days  # type: ignore[no-any-return]


def kept_as(attribute: Attribute) -> Hashable:
    """Attributes of which this is the same have the same cell at any time; None: it has a cell of its own."""
    if attribute.of is None or attribute.kind not in ("top", "distinct", "collect"):
        return None
    return attribute.type, attribute.limit, attribute.within_days, attribute.of


def cell_of(attribute: Attribute) -> Cell:
    """How the attribute is kept."""
    inner: Cell
    match attribute.kind:
        case "count" | "flag" | "total":
            inner = Sum(attribute)
        case "average":
            inner = Mean(attribute)
        case "minimum" | "maximum" | "first" | "newest" | "prefer":
            inner = Best(attribute)
        case "top" | "distinct" | "collect":
            inner = Counted(attribute)
    return Windowed(inner, attribute.within_days) if attribute.within_days else inner
