"""The profile record, the JSON of API.md: what a projection writes of one profile for one purpose."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from c360.profile.value import time_text

_encode = msgspec.json.Encoder().encode


class ProfileWriter:
    """Writes the records of one version of one projection. Keys are in one order, JSON is compact, Unicode raw."""

    def __init__(self, projection: str, version: int, names: Sequence[str]) -> None:
        """`names`: of the attributes, in the order of their values."""
        self.projection, self.version, self.names = projection, version, tuple(names)

    def __call__(
        self,
        profile_id: str,
        subjects: Sequence[str],
        subjects_total: int,
        identifiers: Sequence[str],
        values: Sequence[Any],
        as_of_ms: int | None,
        *,
        purpose: str | None = None,
    ) -> bytes:
        """The record. `subjects` and `identifiers` are those listed, in order; values are plain JSON values.

        `purpose` is null in the internal topic. `as_of_ms` is epoch milliseconds, None if nothing was ever folded.
        """
        return _encode(
            {
                "profile_id": profile_id,
                "projection": self.projection,
                "version": self.version,
                "purpose": purpose,
                "subjects": subjects,
                "subjects_total": subjects_total,
                "identifiers": identifiers,
                "attributes": dict(zip(self.names, values, strict=True)),
                "as_of": None if as_of_ms is None else time_text(as_of_ms),
            }
        )
