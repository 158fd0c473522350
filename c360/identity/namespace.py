"""Namespaces: the kinds of identifier an app declares, and the label `namespace:value` under which everything is keyed."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from c360.errors import Misfit
from c360.identity import normalize

MAX_VALUE_BYTES = 512
NAME = re.compile(r"[a-z][a-z0-9_]{0,39}\Z")

Normalizer = Callable[[str], str | None]


@dataclass(frozen=True)
class Namespace:
    """One kind of identifier.

    `priority`: the smaller, the better a name for a profile. `unique`, `limit` and `shared_at` bound what identity
    resolution may merge; where nothing is merged they hold by themselves.
    """

    name: str
    priority: int = 15
    unique: bool = False
    limit: int = 5
    shared_at: int | None = 3
    normalize: Normalizer = normalize.text

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
