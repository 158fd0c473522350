"""Purposes: what data is used for, on which legal basis, and what of a projection a purpose may see.

What a record may be used for is said by its source, never by the record, so it does not depend on arrival. A source that
says nothing may be used for no purpose: missing is never yes. Knows nothing of people and of what they decided.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from c360.errors import DeclarationError

Basis = Literal[
    "consent", "contract", "legal_obligation", "vital_interests", "public_task", "legitimate_interests"
]  # Article 6 (1) of the GDPR, a to f
BASES: tuple[str, ...] = get_args(Basis)
NAME = re.compile(r"[a-z][a-z0-9_]{0,39}\Z")  # it ends the name of a topic
TAKEN = frozenset({"parts"})  # `{app}.customer.v3.parts` is not a view

Permitted = frozenset[str]
"""A purpose set: names of the purposes that a source's records may be used for."""


@dataclass(frozen=True)
class Purpose:
    """One use of data. Only with the basis `consent` people's decisions count. Raises DeclarationError."""

    name: str
    basis: Basis = "consent"

    def __post_init__(self) -> None:
        if not NAME.match(self.name):
            raise DeclarationError(
                f"purpose {self.name!r}: write a lower-case letter, then letters, digits or _, at most 40 in all; "
                "it becomes part of a topic's name"
            )
        if self.name in TAKEN:
            raise DeclarationError(f"purpose {self.name!r}: the name is taken by a topic of c360; use another")
        if self.basis not in BASES:
            raise DeclarationError(
                f"purpose {self.name!r}: basis={self.basis!r} is none; write one of {', '.join(BASES)}"
            )

    @property
    def asks(self) -> bool:
        """Whether people's decisions count."""
        return self.basis == "consent"


class Purposes:
    """The declared purposes of an app, and purpose sets as bits. Raises DeclarationError where a name is said twice.

    A bit is a purpose's place in the order of names, so declaring them in another order changes nothing. Another purpose
    moves bits: where masks are stored, `names` is part of what was stored.
    """

    def __init__(self, declared: Iterable[Purpose]) -> None:
        self.by_name: dict[str, Purpose] = {}
        for purpose in declared:
            if purpose.name in self.by_name:
                raise DeclarationError(f"purpose {purpose.name!r} is declared twice; keep one of them")
            self.by_name[purpose.name] = purpose
        self.names: tuple[str, ...] = tuple(sorted(self.by_name))
        self._bits = {name: 1 << i for i, name in enumerate(self.names)}

    def __contains__(self, name: object) -> bool:
        return name in self.by_name

    def permitted(self, said: Iterable[str], where: str) -> Permitted:
        """The purpose set that a declaration says (`where`: how the user knows it). Raises DeclarationError."""
        names = frozenset(said)
        if unknown := sorted(names - self.by_name.keys()):
            raise DeclarationError(
                f"{where}: purposes= names {', '.join(map(repr, unknown))}, which no app.purpose declares; "
                f"declared are: {', '.join(self.names) or 'none'}"
            )
        return names

    def mask(self, permitted: Iterable[str]) -> int:
        """A purpose set as bits."""
        return sum(self._bits[name] for name in set(permitted))

    def of_mask(self, mask: int) -> Permitted:
        assert 0 <= mask < 1 << len(self.names), "a mask with bits of purposes that are not declared"
        return frozenset(name for name in self.names if self._bits[name] & mask)


# --------------------------------------------------------------------------------------------------------- projections
Sets = Mapping[str, tuple[Permitted, ...]]
"""By attribute: the purpose sets for which it has a state each, in a fixed order."""


def states_of(
    attributes: Mapping[str, Iterable[str]], permitted: Mapping[str, Permitted]
) -> dict[str, tuple[Permitted, ...]]:
    """The states that a projection keeps. attributes: name → its sources; permitted: source → its purpose set.

    One state per distinct purpose set: sources that may be used alike fold into one.
    """
    return {
        attribute: tuple(sorted({permitted.get(source, frozenset()) for source in sources}, key=sorted))
        for attribute, sources in attributes.items()
    }


@dataclass(frozen=True)
class View:
    """What a purpose may see: by attribute the states to merge; `whole` are those of which it misses none."""

    states: Sets
    whole: frozenset[str]


def view_of(states: Sets, purpose: str) -> View:
    """Of each attribute the states whose every record may be used for the purpose; an attribute without one is left out."""
    seen = {attribute: tuple(s for s in sets if purpose in s) for attribute, sets in states.items()}
    seen = {attribute: sets for attribute, sets in seen.items() if sets}
    return View(seen, frozenset(a for a, sets in seen.items() if sets == states[a]))


def check_view(states: Sets, purpose: str, where: str) -> View:
    """The view; raises DeclarationError where it could never hold anything (`where`: how the user knows the projection)."""
    view = view_of(states, purpose)
    if not view.states:
        raise DeclarationError(
            f"{where}: no source of its attributes may be used for {purpose!r}, so the view would be empty for ever; "
            f"add {purpose} to purposes= of a source, or take it out of the projection"
        )
    return view
