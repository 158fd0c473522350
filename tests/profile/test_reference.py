"""The same as the specification in code, shared/design/projection_reference.py, wherever both are defined.

They differ on purpose in types that the reference does not have (Decimal, times), in one zero for floats, in showing
no count below zero, and in being asked for fewer cells: the events of a part that has none cannot have left.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from c360.profile.fold import AS_OF, FIRST, RECORDS, Fragment
from tests.profile.folds import Folder, Signed, as_of, present
from tests.profile.oracle import Item, Rule, items, rules

PLAIN = {"int", "float", "text", "bool", "json"}
PURPOSES = ("one", "two")  # bits of a mask; mask 0 is in no purpose's view


@pytest.fixture(scope="module")
def reference(shared: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("projection_reference", shared / "design" / "projection_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def both_defined(rule: Rule) -> bool:
    a = rule.attribute
    return a.type in PLAIN and (a.kind not in ("total", "average") or a.scale <= 2)  # it computes with 28 digits


def fits(item: Item) -> bool:
    numbers = [v for v in item.fields.values() if isinstance(v, int | float)]
    return all(repr(v) != "-0.0" and abs(v) <= 2**64 for v in numbers)


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[Rule], list[list[Signed]]]:
    drawn = draw(rules().map(lambda rules: [r for r in rules if both_defined(r)]).filter(bool))
    live = [item for item in draw(items(drawn)) if fits(item)]
    gone = [item for item in draw(items(drawn, sources=("rows",), most=4)) if fits(item)]
    signed = draw(st.permutations([*map(Signed, live), *map(Signed, gone), *(Signed(i, -1) for i in gone)]))
    cut = draw(st.integers(0, len(signed)))
    return drawn, [signed[:cut], signed[cut:]]


def plan_of(reference: ModuleType, drawn: list[Rule]) -> Any:
    attributes = {
        r.attribute.name: reference.Attribute(
            r.attribute.kind, r.inputs, r.attribute.n, r.attribute.limit, r.attribute.within_days, r.attribute.scale
        )
        for r in drawn
    }
    return reference.Plan(attributes, frozenset({"rows"}), PURPOSES, 1)


def their_fragment(reference: ModuleType, plan: Any, signed: list[Signed]) -> Any:
    fragment: Any = {}
    for item, sign in signed:
        record = reference.Record(item.source, "s", sign, item.mask, item.at, item.fields, 0)
        fragment = reference.join(plan, fragment, reference.contribution(plan, record))
    return fragment


def their_cell(reference: ModuleType, plan: Any, fragment: Any, name: str, masks: set[int]) -> Any:
    whole: Any = {}
    for mask in sorted(masks):
        whole = reference.merge(plan.attribute(f"0/{name}"), whole, fragment.get(f"{mask}/{name}", {}))
    return whole


def never_below_zero(rule: Rule, value: Any) -> Any:
    return max(value, 0) if rule.attribute.kind == "count" else value


def assert_same(
    reference: ModuleType, drawn: list[Rule], ours: list[Any], plan: Any, theirs: Any, masks: set[int], today: int
) -> None:
    for rule, value in zip(drawn, ours, strict=True):
        name = rule.attribute.name
        cell = their_cell(reference, plan, theirs, name, masks)
        assert value == never_below_zero(rule, reference.value(plan.attributes[name], cell, today)), rule.attribute.kind


@given(histories(), st.integers(-8, 24), st.sampled_from([{0}, {1, 3}, {0, 1, 3}]))
def test_values_presence_and_time_are_those_of_the_reference(
    reference: ModuleType, history: tuple[list[Rule], list[list[Signed]]], today: int, masks: set[int]
) -> None:
    drawn, parts = history
    folder, plan = Folder(drawn), plan_of(reference, drawn)
    ours = [folder.of(part) for part in parts]
    theirs = [their_fragment(reference, plan, part) for part in parts]
    whole, their_whole = folder.merged(ours), reference.join(plan, *theirs)
    values = folder.folding.values(whole, today, masks)
    assert_same(reference, drawn, values, plan, their_whole, masks, today)
    newest = reference.value(reference._AS_OF, their_cell(reference, plan, their_whole, "#as_of", masks), today)
    assert as_of(folder.folding, whole, masks) == newest
    for bit in range(len(PURPOSES)):
        seen = {mask for mask in whole if mask >> bit & 1}
        assert present(folder.folding, whole, seen) == reference.present(their_whole, bit)


@given(histories(), st.integers(-8, 24))
def test_what_subtract_leaves_and_asks_for_is_as_in_the_reference(
    reference: ModuleType, history: tuple[list[Rule], list[list[Signed]]], today: int
) -> None:
    drawn, parts = history
    folder, plan = Folder(drawn), plan_of(reference, drawn)
    leaving, staying = (folder.of(part) for part in parts)
    their_leaving, their_staying = (their_fragment(reference, plan, part) for part in parts)
    rest, stale = folder.folding.subtract(folder.folding.merge(leaving, staying), leaving)
    their_whole = reference.join(plan, their_leaving, their_staying)
    their_rest, their_stale = dict(their_whole), set()
    for name, cell in their_leaving.items():
        left = reference.subtract(plan.attribute(name), their_whole.get(name, {}), cell)
        mask, _, attribute = name.partition("/")
        if left is None:
            their_stale.add((int(mask), position(drawn, attribute)))
        their_rest[name] = left or {}
    assert stale <= their_stale
    assert all(no_events(leaving, mask, i) for mask, i in their_stale - stale)
    if not their_stale:
        for masks in ({0}, {1}, {3}):
            values = folder.folding.values(rest, today, masks)
            assert_same(reference, drawn, values, plan, their_rest, masks, today)


def position(drawn: list[Rule], name: str) -> int:
    special = {"#records": RECORDS, "#as_of": AS_OF}
    return special[name] if name in special else FIRST + [r.attribute.name for r in drawn].index(name)


def no_events(part: Fragment, mask: int, i: int) -> bool:
    """The cell of this part has rows only, on one of its days at least."""
    cell = part[mask][i]
    days = [inner for _, inner in cell] if isinstance(cell[0], list) else [cell]
    return any(inner[0] is None for inner in days)
