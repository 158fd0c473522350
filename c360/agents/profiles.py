"""What a projection's task keeps, by subject and by profile, and the bytes of it (docs/formats/parts.md)."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from c360.profile.fold import Folding, Fragment
from c360.profile.format import DIGEST_BYTES
from c360.profile.home import Home, decode_home, encode_home
from c360.profile.rows import Rows
from c360.profile.slots import Profile

PROFILES, SHARED, SLOTS, CELLS, DUE = b"p", b"o", b"s", b"c", b"d"  # tables
NO_DUE = -(1 << 31)
LARGE_BYTES = 100_000  # a fragment beyond it is slow to keep, and worth a warning

DAY_BYTES = 4  # in the keys of the index of due days
_HEAD = struct.Struct(">Bi")
_HEAD_BYTES = _HEAD.size + DIGEST_BYTES
_NO_DIGEST = bytes(DIGEST_BYTES)
_SIZE = struct.Struct(">I")
_HOME, _SHARED, _TOLD = 1, 2, 4  # bits of a row's first byte


class ProfileState:
    """What lies under one id: the fragment of its subject, and what was last written of its profile.

    `digest` of the last record (b"" without one) and `due`, the day it is in the index of due days, are those of the
    profile; if it is shared, they are in its `Shared`. `home` None: there is nothing to say (`c360.profile.home`).
    `told`: somebody else is to be told what is folded, so that it cannot just be folded.
    """

    __slots__ = ("digest", "due", "fragment", "home", "shared", "told")

    def __init__(self, fragment: Fragment, digest: bytes = b"", due: int = NO_DUE) -> None:
        self.fragment, self.digest, self.due = fragment, digest, due
        self.home: Home | None = None
        self.shared = self.told = False

    def stays(self, subject: str) -> bool:
        """Whether the fragment lies in the subject's own profile."""
        return self.home is None or subject in self.home.places

    def is_nothing(self) -> bool:
        return not (self.fragment or self.digest or self.home is not None or self.shared)


class Shared:
    """A profile that others than its own subject are in; `row` is what is stored of it, once the step is settled."""

    __slots__ = ("digest", "due", "profile", "row")

    def __init__(self, profile: Profile, digest: bytes, due: int, row: bytes = b"") -> None:
        self.profile, self.digest, self.due, self.row = profile, digest, due, row


Head = ProfileState | Shared  # whichever has the digest and the due day


class ProfileCodec:
    """Bytes of a `ProfileState`. `large` is told of each fragment that is stored with more than LARGE_BYTES."""

    def __init__(self, folding: Folding, large: Callable[[int], None] = lambda size: None) -> None:
        self.fragment_bytes, self.fragment_of, self.large = folding.encode, folding.decode, large

    def encode(self, state: ProfileState) -> bytes:
        fragment, digest = self.fragment_bytes(state.fragment), state.digest or _NO_DIGEST
        if len(fragment) > LARGE_BYTES:
            self.large(len(fragment))
        home = state.home
        if home is None and not state.told:  # a shared one is told
            return _HEAD.pack(0, state.due) + digest + fragment
        flags = _HOME * (home is not None) + _SHARED * state.shared + _TOLD * state.told
        said = b"" if home is None else encode_home(home)
        return b"".join((_HEAD.pack(flags, state.due), digest, _SIZE.pack(len(said)), said, fragment))

    def decode(self, data: bytes) -> ProfileState:
        flags, due = _HEAD.unpack_from(data)
        digest, start = data[_HEAD.size : _HEAD_BYTES], _HEAD_BYTES
        home = None
        if flags:
            start += _SIZE.size
            end = start + _SIZE.unpack_from(data, _HEAD_BYTES)[0]
            home = decode_home(data[start:end]) if flags & _HOME else None
            start = end
        state = ProfileState(self.fragment_of(data[start:]), digest if any(digest) else b"", due)
        if flags:
            state.home, state.shared, state.told = home, bool(flags & _SHARED), bool(flags & _TOLD)
        return state


def written_before(folding: Folding, digest: bytes) -> bytes:
    """The row of a profile of which nothing is known but what was last written of it."""
    return ProfileCodec(folding).encode(ProfileState(folding.empty(), digest))


def notes_of_reset(catch_up: Mapping[str, int]) -> dict[str, Any]:
    """What a task begins with: inputs ("topic/partition") to be read up to an offset, then all profiles to be compared."""
    return {"catch_up": dict(catch_up)} if catch_up else {"sweep": ""}


class SharedRow(msgspec.Struct, array_like=True, gc=False):
    due: int
    digest: bytes
    profile: bytes


_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(SharedRow).decode


def encode_shared(shared: Shared) -> bytes:
    assert shared.row, "a profile was changed after it was settled"
    return _pack(SharedRow(shared.due, shared.digest, shared.row))


def decode_shared(rows: Rows, data: bytes) -> Shared:
    row = _unpack(data)
    return Shared(rows.decode_profile(row.profile), row.digest, row.due, row.profile)
