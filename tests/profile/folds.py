"""Drives a Folding with the records of `oracle`."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from typing import NamedTuple

from c360.profile.fold import AS_OF, RECORDS, Folding, Fragment, Reader
from tests.profile.oracle import Item, Rule, Source


def present(folding: Folding, fragment: Fragment, masks: Container[int] | None = None) -> bool:
    return folding.seen(fragment, masks)[RECORDS] > 0  # type: ignore[no-any-return]


def as_of(folding: Folding, fragment: Fragment, masks: Container[int] | None = None) -> int | None:
    return folding.seen(fragment, masks)[AS_OF]  # type: ignore[no-any-return]


class Signed(NamedTuple):
    item: Item
    sign: int = 1


class Folder:
    def __init__(self, rules: Sequence[Rule]) -> None:
        self.folding = Folding([rule.attribute for rule in rules])
        self.folds = {source: self._fold(rules, source) for source in ("events", "rows")}

    def _fold(self, rules: Sequence[Rule], source: Source):  # type: ignore[no-untyped-def]  # a Fold
        readers = [
            Reader(i, rank, lambda item, name=name: item.fields[name])  # type: ignore[misc]
            for i, rule in enumerate(rules)
            for rank, (of, name) in enumerate(rule.inputs)
            if of == source
        ]
        return self.folding.folder(readers, rows=source == "rows")

    def fold(self, fragment: Fragment, item: Item, sign: int = 1) -> None:
        self.folds[item.source](fragment, item, item.at, sign, item.mask)

    def of(self, signed: Iterable[Signed | Item]) -> Fragment:
        """The fragment of these records, folded one after the other."""
        fragment = self.folding.empty()
        for one in signed:
            item, sign = one if isinstance(one, Signed) else Signed(one)
            self.fold(fragment, item, sign)
        return fragment

    def merged(self, fragments: Iterable[Fragment]) -> Fragment:
        whole = self.folding.empty()
        for fragment in fragments:
            whole = self.folding.merge(whole, fragment)
        return whole
