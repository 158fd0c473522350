"""The profile record, the JSON of API.md: what a projection writes of one profile, and what purposes see of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec.structs import asdict

from c360.profile.value import time_text

_encode = msgspec.json.Encoder().encode
LEFT_OUT: Any = msgspec.UNSET
"""A value that leaves its key out of the attributes."""


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


class ProfileView(msgspec.Struct, gc=False):
    """The part of a record that is another one for each purpose."""

    subjects: Sequence[str]
    subjects_total: int
    identifiers: Sequence[str]
    attributes: Any
    as_of: str | None


Views = Mapping[str, ProfileView | None]
"""By purpose, what it sees where that is other than the whole; None: nothing may be used for it."""


class _RecordWithViews(ProfileRecord, gc=False):
    views: Views


def attributes_type(names: Sequence[str]) -> Any:
    """What makes the attributes of these names, of their values in this order."""
    fields = [(f"value{i}", Any) for i in range(len(names))]
    renamed = {f"value{i}": name for i, name in enumerate(names)}
    return msgspec.defstruct("Attributes", fields, rename=renamed, gc=False)


def as_of_text(as_of_ms: int | None) -> str | None:
    """`as_of_ms` is epoch milliseconds, None if nothing was ever folded."""
    return None if as_of_ms is None else time_text(as_of_ms)


def same_values(a: Sequence[Any], b: Sequence[Any]) -> bool:
    """Whether values are written alike: 1 and 1.0 are not, though they are equal."""
    return _encode(a) == _encode(b)


class ProfileWriter:
    """Writes the records of one version of one projection."""

    def __init__(self, projection: str, version: int, names: Sequence[str]) -> None:
        """`names`: of the attributes, in the order of their values."""
        self.projection, self.version = projection, version
        self.attributes = attributes_type(names)

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
        views: Views | None = None,
    ) -> bytes:
        """The record. `subjects` and `identifiers` are those listed, in order; values are plain JSON values, or LEFT_OUT.

        `purpose` is null in the internal topic. `as_of_ms` is epoch milliseconds, None if nothing was ever folded.
        """
        record = ProfileRecord(
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
        return _encode(_RecordWithViews(**asdict(record), views=views) if views else record)
