"""The fold of one record type, and the values of a cell set, as straight-line code.

The fold is the hot loop of a projection, so it is written out once per record type and compiled, instead of walking over
readers for each record. For `orders = count(Order)` and `spend = total(Order.amount)` over rows it is

    def fold(fragment, record, at_ms, sign, mask):
        assert sign == 1 or sign == -1, 'sign is 1 or -1'
        if not -62135596800000 <= at_ms <= 253402300799999: raise bad_time()
        value0 = True
        value1 = record.record.amount
        fit1 = value1
        if fit1 is not None:
            try: fit1 = ready1(fit1)
            except Unfit as error: raise misfit('spend', error) from None
        cells = fragment.get(mask)
        if cells is None:
            cells = fragment[mask] = blank.copy()
            cells[1] = at_ms
        elif cells[1] is None or at_ms > cells[1]: cells[1] = at_ms
        cells[0] += sign
        if value0 is not None: cells[2] += sign
        if fit1 is not None: cells[3] += fit1 * sign

and their values are `[cells[2] if cells[2] > 0 else 0, shown3(cells[3])]`. What counts only from, or up to, an event time has
it as a number in its line: `value1 = record.record.amount if at_ms >= 1772323200000 else None`; all else costs nothing by it.

What several attributes take is read, tested and made ready once.

Everything that can fail comes before the first change: a record that raises leaves the fragment as it was.
Names are ours and numbers are checked; nothing a user wrote becomes code but names of fields, and of attributes as literals.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from c360.errors import Misfit
from c360.profile.attribute import Attribute
from c360.profile.cells import Cell, Sum
from c360.profile.value import TIME_MAX_MS, TIME_MIN_MS, Unfit

RECORDS, AS_OF, FIRST = 0, 1, 2  # positions in a cell set: live records, newest event time in ms, the first attribute
Fold = Callable[[dict[int, list[Any]], Any, int, int, int], None]
"""fold(fragment, record, at_ms, sign, mask): changes the fragment in place; raises Misfit and leaves it as it was."""
Show = Callable[[list[Any], int], list[Any]]
"""show(cells, today): plain JSON values in the order of the attributes; `today` in days since 1970."""


@dataclass(frozen=True, slots=True)
class Reader:
    """Where one attribute takes a value from a record.

    `read` gives a value of the attribute's type, or None for nothing; for a flag, what is false is nothing too; for a
    count, all that matters is whether it is None. It is a function of the record, or the path of attributes to the value,
    such as "record.amount"; "" is True. Text must be valid Unicode. `where`: whether the record counts at all.
    """

    attribute: int  # its index in the projection
    rank: int  # of the source among those of the attribute, 0 is the most trusted; only `prefer` looks at it
    read: Callable[[Any], Any] | str
    where: Callable[[Any], Any] | None = None
    since: int | None = None  # the event time in ms of the first record that it reads; None: all
    until: int | None = None  # and that of the first that it no longer reads

    @property
    def when(self) -> str:
        """The condition on the event time as code; "" without one."""
        after = "" if self.since is None else f"at_ms >= {int(self.since)}"
        return after if self.until is None else f"{after}{after and ' and '}at_ms < {int(self.until)}"


def _misfit(attribute: str, error: Unfit) -> Misfit:
    return Misfit("unfit-value", f"attribute {attribute} {error}")


def _bad_time() -> Misfit:
    return Misfit("unfit-time", "the event time is outside of the years 1 to 9999")


def compile_fold(
    attributes: Sequence[Attribute],
    cells: Sequence[Cell],
    places: Sequence[int],
    blank: list[Any],
    readers: Sequence[Reader],
    *,
    rows: bool,
) -> Fold:
    """The fold of records that these readers read; `rows`: they may be taken back.

    `cells` and `places`: how and where in a cell set each attribute is kept. `blank` is an empty cell set.
    """
    names: dict[str, Any] = {"blank": blank, "Unfit": Unfit, "misfit": _misfit, "bad_time": _bad_time}
    signs = ("sign == 1 or sign == -1", "sign is 1 or -1") if rows else ("sign == 1", "events are never taken back")
    one, signed = ("sign", " * sign") if rows else ("1", "")
    reads = _Reads(names)
    changes = []
    for k, reader in enumerate(readers):
        attribute, cell = attributes[reader.attribute], cells[reader.attribute]
        position = places[reader.attribute]
        value = reads.value(reader)
        if cell.ready is not None:
            value = reads.fit(value, cell.ready, attribute.name)
        there = value if attribute.kind == "flag" else f"{value} is not None"
        if not isinstance(cell, Sum):
            names[f"change{k}"] = cell.change(reader.rank, rows=rows)
            changes.append(f"if {there}: change{k}(cells, {position}, {value}, at_ms, sign)")
        elif cell.ones:
            changes.append(f"if {there}: cells[{position}] += {one}")
        else:
            changes.append(f"if {there}: cells[{position}] += {value}{signed}")
    body = [
        f"assert {signs[0]}, {signs[1]!r}",
        f"if not {TIME_MIN_MS} <= at_ms <= {TIME_MAX_MS}: raise bad_time()",
        *reads.lines,
        "cells = fragment.get(mask)",
        "if cells is None:",
        "    cells = fragment[mask] = blank.copy()",
        f"    cells[{AS_OF}] = at_ms",
        f"elif cells[{AS_OF}] is None or at_ms > cells[{AS_OF}]: cells[{AS_OF}] = at_ms",
        f"cells[{RECORDS}] += {one}",
        *changes,
    ]
    text = "\n    ".join(["def fold(fragment, record, at_ms, sign, mask):", *body])
    exec(compile(text, "<fold>", "exec"), names)
    fold: Fold = names["fold"]
    return fold


class _Reads:
    """The lines of a fold that read values; each value, test and conversion has one line and one name."""

    def __init__(self, names: dict[str, Any]) -> None:
        self.names = names
        self.lines: list[str] = []
        self.known: dict[Any, str] = {}

    def _once(self, key: Any, name: str, lines: Callable[[str], list[str]]) -> str:
        if key not in self.known:
            self.known[key] = named = f"{name}{len(self.known)}"
            self.lines += lines(named)
        return self.known[key]

    def _function(self, function: Callable[[Any], Any], name: str) -> str:
        self.names[name] = function
        return name

    def value(self, reader: Reader) -> str:
        """The name of what a reader reads."""
        read, where, when = reader.read, reader.where, reader.when
        if callable(read):
            said = f"{self._function(read, f'read{len(self.known)}')}(record)"
        else:
            assert all(map(str.isidentifier, read.split("."))) or not read, read
            said = f"record.{read}" if read else "True"
        if where is not None:
            test = self._function(where, f"where{len(self.known)}")
            tested = f"{when}{when and ' and '}{test}(record)"  # a condition of another time may know other values only
            when = self._once((where, when), "holds", lambda name: [f"{name} = {tested}"])
        if when:
            said = f"{said} if {when} else None"
        return self._once((read, where, when), "value", lambda name: [f"{name} = {said}"])

    def fit(self, value: str, ready: Callable[[Any], Any], attribute: str) -> str:
        """The name of a value made ready for an attribute."""
        function = self._function(ready, f"ready{len(self.known)}")
        return self._once(
            (value, ready),
            "fit",
            lambda name: [
                f"{name} = {value}",
                f"if {name} is not None:",
                f"    try: {name} = {function}({name})",
                f"    except Unfit as error: raise misfit({attribute!r}, error) from None",
            ],
        )


def compile_show(attributes: Sequence[Attribute], cells: Sequence[Cell], places: Sequence[int]) -> Show:
    """What makes the values of a cell set."""
    names: dict[str, Any] = {}
    shown = []
    for i, (attribute, cell, place) in enumerate(zip(attributes, cells, places, strict=True)):
        if not isinstance(cell, Sum):
            names[f"show{i}"] = cell.show
            shown.append(f"show{i}(cells[{place}], today)")
        elif attribute.kind == "count":
            shown.append(f"cells[{place}] if cells[{place}] > 0 else 0")
        elif attribute.kind == "flag":
            shown.append(f"cells[{place}] > 0")
        else:
            names[f"shown{i}"] = cell.shown
            shown.append(f"shown{i}(cells[{place}])")
    show: Show = eval(f"lambda cells, today: [{', '.join(shown)}]", names)
    return show
