"""The profile record, the JSON of API.md: what a projection writes of one profile for one purpose."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from c360.profile.value import time_text

_encode = msgspec.json.Encoder().encode


class ProfileRecord(msgspec.Struct, gc=False):
    """The keys, in the order they are written in. JSON is compact, Unicode raw."""

    profile_id: str
    projection: str
    version: int
    purpose: str | None
    subjects: Sequence[str]
    subjects_total: int
    identifiers: Sequence[str]
    attributes: Any
    as_of: str | None


class ProfileWriter:
    """Writes the records of one version of one projection."""

    def __init__(self, projection: str, version: int, names: Sequence[str]) -> None:
        """`names`: of the attributes, in the order of their values."""
        self.projection, self.version = projection, version
        fields = [(f"value{i}", Any) for i in range(len(names))]
        renamed = {f"value{i}": name for i, name in enumerate(names)}
        self.attributes: Any = msgspec.defstruct("Attributes", fields, rename=renamed, gc=False)

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
            ProfileRecord(
                profile_id,
                self.projection,
                self.version,
                purpose,
                subjects,
                subjects_total,
                identifiers,
                self.attributes(*values),
                None if as_of_ms is None else time_text(as_of_ms),
            )
        )
