"""Namespaces: the kinds of identifier an app declares, and the label `namespace:value` under which everything is keyed."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from c360.errors import Misfit
from c360.identity import normalize

MAX_VALUE_BYTES = 512
TWIN = "="  # before the name of a namespace, and so of its keys
NAME = re.compile(r"[a-z][a-z0-9_]{0,39}\Z")


def shown(key: str) -> str:
    """A node as the world knows it: a twin is what it is of."""
    return key.removeprefix(TWIN)


def shown_reason(reason: str) -> str:
    """A reason names a kind; that of a twin is what it is of, too."""
    return reason.replace(f":{TWIN}", ":")


Normalizer = Callable[[str], str | None]


@dataclass(frozen=True)
class Namespace:
    """One kind of identifier, and what identity resolution may do with its values (`c360.identity.rules`).

    `priority`: the smaller, the earlier its links decide and the better a name for a profile. `unique`: two of these are
    never one customer. `limit`: values in one profile. `shared_at`: so many different values of one unique namespace seen
    with a value, and it links nobody. `hub_at`: more neighbours than this, and it links nobody. None turns either off.
    `subject`: facts are about these. `links=False`: an attribute that only forbids, such as a birth date: it joins nobody,
    and no profile holds more than `limit` values of it. Where nothing is merged, all of them hold by themselves.
    `personal`: its values are written as tokens, not in clear.
    """

    name: str
    priority: int = 15
    unique: bool = False
    limit: int = 5
    shared_at: int | None = 3
    normalize: Normalizer = normalize.text
    subject: bool = False
    hub_at: int | None = 20
    links: bool = True
    personal: bool = False

    def twin(self) -> Namespace:
        """The identifier of a kind that names subjects, too (docs/decisions/0013): the same rules, `=` before its name."""
        return replace(self, name=TWIN + self.name, subject=False)

    @property
    def most(self) -> int:
        """How many values one profile may hold."""
        return 1 if self.unique else self.limit

    def label(self, value: str) -> str:
        """The subject `namespace:value` with the value normalised. Raises Misfit when it identifies nobody."""
        canonical = self.normalize(value)
        if canonical is None:
            raise Misfit(
                "no-subject", f"the {self.name} identifier is blank or not valid, so the record is about nobody"
            )
        label = f"{self.name}:{canonical}"
        if len(label) > MAX_VALUE_BYTES or "\x00" in label:
            raise Misfit(
                "no-subject", f"the {self.name} identifier is longer than {MAX_VALUE_BYTES} or has a NUL in it"
            )
        return label
