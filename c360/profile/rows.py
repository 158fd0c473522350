"""Bytes and keys of slots and profiles in the tables of a task, as docs/formats/parts.md has them."""

from __future__ import annotations

import struct
from collections.abc import Mapping

import msgspec

from c360.profile.fold import Folding
from c360.profile.format import digest_of
from c360.profile.home import CELL_BYTES
from c360.profile.listing import Listing, Member
from c360.profile.slots import Profile, Slot

LISTINGS = "listings"
_LENGTH = struct.Struct(">H")
_encode = msgspec.msgpack.Encoder().encode
_decode_listings = msgspec.msgpack.Decoder(list[Listing]).decode


def prefix_of(profile: bytes) -> bytes:
    """All keys of this profile's slots, or of its parts, begin so, and no others."""
    return _LENGTH.pack(len(profile)) + profile


def key_of(profile: bytes, name: bytes) -> bytes:
    """The key of one slot (by subject) or part (by name)."""
    return prefix_of(profile) + name


class SlotRow(msgspec.Struct, array_like=True, gc=False):
    revision: int
    part: bool
    member: Member
    fragment: bytes


class ProfileRow(msgspec.Struct, array_like=True, gc=False):
    slots: int
    own: Member | None
    listings: bytes
    fragment: bytes
    apart: dict[str, bytes]  # what else there is, in rows of its own


class Rows:
    """The rows of one projection's tables."""

    def __init__(self, folding: Folding) -> None:
        self.folding = folding
        self._slot_row = msgspec.msgpack.Decoder(SlotRow).decode
        self._profile_row = msgspec.msgpack.Decoder(ProfileRow).decode

    def encode_slot(self, slot: Slot) -> bytes:
        return _encode(SlotRow(slot.revision, slot.part, slot.member, self.folding.encode(slot.fragment)))

    def decode_slot(self, data: bytes) -> Slot:
        row = self._slot_row(data)
        return Slot(row.revision, row.member, self.folding.decode(row.fragment), part=row.part)

    def encode_profile(self, profile: Profile) -> tuple[bytes, dict[str, bytes | None]]:
        """The profile's own row, and what has changed in rows beside it, by name; None: to be deleted."""
        fragment, listings, apart = profile.merged, _encode(profile.listings), dict[str, bytes]()
        whole = self.folding.encode(fragment)
        if len(whole) > CELL_BYTES:
            fragment, large = self.folding.apart(fragment, CELL_BYTES)
            apart = {f"{mask}/{i}": self.folding.encode(cell) for (mask, i), cell in large.items()}
            whole = self.folding.encode(fragment)
        if len(listings) > CELL_BYTES:
            apart[LISTINGS], listings = listings, b""
        digests = {name: digest_of(data) for name, data in sorted(apart.items())}
        changed: dict[str, bytes | None] = {n: None for n in profile.apart if n not in apart}
        changed |= {n: data for n, data in apart.items() if profile.apart.get(n) != digests[n]}
        profile.apart = digests
        return _encode(ProfileRow(profile.slots, profile.own, listings, whole, digests)), changed

    def decode_profile(self, data: bytes) -> Profile:
        """The profile without what is in rows beside its own: `missing` names it, for `fill`."""
        row = self._profile_row(data)
        profile = Profile(_decode_listings(row.listings) if row.listings else [])
        profile.slots, profile.own, profile.apart = row.slots, row.own, row.apart
        profile.merged, profile.missing = self.folding.decode(row.fragment), tuple(row.apart)
        return profile

    def fill(self, profile: Profile, parts: Mapping[str, bytes]) -> None:
        """Put in what was missing, as it was stored."""
        assert parts.keys() == set(profile.missing), "parts of a profile are missing"
        for name, data in parts.items():
            if name == LISTINGS:
                profile.listings = _decode_listings(data)
            else:
                self.folding.absorb(profile.merged, self.folding.decode(data))
        profile.missing = ()
