"""The fold of one record type, and the values of a cell set, as straight-line code.

The fold is the hot loop of a projection, so it is written out once per record type and compiled, instead of walking over
readers for each record. For `orders = count(Order)` and `spend = total(Order.amount)` over rows it is

    def fold(fragment, record, at_ms, sign, mask):
        assert sign == 1 or sign == -1, 'sign is 1 or -1'
        if not -62135596800000 <= at_ms <= 253402300799999: raise bad_time()
        value0 = read0(record)
        value1 = read1(record)
        if value1 is not None:
            try: value1 = ready1(value1)
            except Unfit as error: raise misfit('spend', error) from None
        cells = fragment.get(mask)
        if cells is None:
            cells = fragment[mask] = blank.copy()
            cells[1] = at_ms
        elif cells[1] is None or at_ms > cells[1]: cells[1] = at_ms
        cells[0] += sign
        if value0 is not None: cells[2] += sign
        if value1 is not None: cells[3] += value1 * sign

and their values are `[cells[2] if cells[2] > 0 else 0, shown3(cells[3])]`.

Everything that can fail comes before the first change: a record that raises leaves the fragment as it was.
Names are ours and numbers are checked; nothing a user wrote becomes code but the attribute's name, as a literal.
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

    `read` returns a value of the attribute's type, or None for nothing; for a flag, what is false is nothing too; for a
    count, all that matters is whether it is None. Text must be valid Unicode.
    """

    attribute: int  # its index in the projection
    rank: int  # of the source among those of the attribute, 0 is the most trusted; only `prefer` looks at it
    read: Callable[[Any], Any]


def _misfit(attribute: str, error: Unfit) -> Misfit:
    return Misfit("unfit-value", f"attribute {attribute} {error}")


def _bad_time() -> Misfit:
    return Misfit("unfit-time", "the event time is outside of the years 1 to 9999")


def compile_fold(
    attributes: Sequence[Attribute], cells: Sequence[Cell], blank: list[Any], readers: Sequence[Reader], *, rows: bool
) -> Fold:
    """The fold of records that these readers read; `rows`: they may be taken back. `blank` is an empty cell set."""
    names: dict[str, Any] = {"blank": blank, "Unfit": Unfit, "misfit": _misfit, "bad_time": _bad_time}
    signs = ("sign == 1 or sign == -1", "sign is 1 or -1") if rows else ("sign == 1", "events are never taken back")
    one, signed = ("sign", " * sign") if rows else ("1", "")
    reads, changes = [], []
    for k, reader in enumerate(readers):
        attribute, cell = attributes[reader.attribute], cells[reader.attribute]
        position = FIRST + reader.attribute
        change = cell.change(reader.rank, rows=rows)
        there = f"value{k}" if attribute.kind == "flag" else f"value{k} is not None"
        names |= {f"read{k}": reader.read, f"ready{k}": cell.ready, f"change{k}": change}
        reads.append(f"value{k} = read{k}(record)")
        if cell.ready is not None:
            reads += [
                f"if value{k} is not None:",
                f"    try: value{k} = ready{k}(value{k})",
                f"    except Unfit as error: raise misfit({attribute.name!r}, error) from None",
            ]
        if not isinstance(cell, Sum):
            changes.append(f"if {there}: change{k}(cells, {position}, value{k}, at_ms, sign)")
        elif cell.ones:
            changes.append(f"if {there}: cells[{position}] += {one}")
        else:
            changes.append(f"if {there}: cells[{position}] += value{k}{signed}")
    body = [
        f"assert {signs[0]}, {signs[1]!r}",
        f"if not {TIME_MIN_MS} <= at_ms <= {TIME_MAX_MS}: raise bad_time()",
        *reads,
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


def compile_show(attributes: Sequence[Attribute], cells: Sequence[Cell]) -> Show:
    """What makes the values of a cell set."""
    names: dict[str, Any] = {}
    shown = []
    for i, (attribute, cell) in enumerate(zip(attributes, cells, strict=True), FIRST):
        if not isinstance(cell, Sum):
            names[f"show{i}"] = cell.show
            shown.append(f"show{i}(cells[{i}], today)")
        elif attribute.kind == "count":
            shown.append(f"cells[{i}] if cells[{i}] > 0 else 0")
        elif attribute.kind == "flag":
            shown.append(f"cells[{i}] > 0")
        else:
            names[f"shown{i}"] = cell.shown
            shown.append(f"shown{i}(cells[{i}])")
    show: Show = eval(f"lambda cells, today: [{', '.join(shown)}]", names)
    return show
