"""What homes and owners tell each other through `parts`, and what homes are told from outside.

A message says what its key does not: `Put`, `Add`, `Drop` and `Forget` are keyed by the profile they are for, `Held`,
`Forgotten`, `Assigned` and `Erased` by the subject. Bytes: docs/formats/parts.md. Fragments in messages are bytes, so a
message shares nothing with the states it was made from. Knows subjects and profiles as texts, and no partitions.
"""

from __future__ import annotations

import msgspec

from c360.errors import NeedsOperator

Identifiers = tuple[str, ...]


class Put(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=1):
    """Home to owner: hold this fragment. It is `move` of its subject; with `more`, further pieces of it follow."""

    subject: str
    move: int
    revision: int
    identifiers: Identifiers
    fragment: bytes
    more: bool = False


class Add(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=2):
    """Home to owner: merge this into what you hold. `revision` is one more than that of the last Put or Add."""

    subject: str
    revision: int
    identifiers: Identifiers
    delta: bytes


class Drop(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=3):
    """Home to owner: hold it no longer."""

    subject: str


class Held(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=4):
    """Owner to home: what was put by this move is in my record."""

    profile: str
    move: int


class Assigned(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=5):
    """Identity to home: the subject's profile and accepted identifiers; the greatest `seq` holds."""

    seq: int
    profile: str
    identifiers: Identifiers = ()


class Forget(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=7):
    """Home to owner: hold it no longer, it was erased; and say when that is so."""

    subject: str
    life: int


class Forgotten(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=8):
    """Owner to home: what it was to forget is in no record of mine any more."""

    profile: str
    life: int


class Erased(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=6):
    """Erasure to home: records of lives before `life` are void, for ever."""

    life: int


Place = Put | Add | Drop | Forget
Part = Put | Add | Drop | Forget | Held | Forgotten
encode_part = msgspec.msgpack.Encoder().encode  # of Assigned and Erased too; structs have no order to choose
_decoder: msgspec.msgpack.Decoder[Part | Assigned | Erased] = msgspec.msgpack.Decoder(Part | Assigned | Erased)


def decode_part(data: bytes) -> Part | Assigned | Erased:
    """The message of these bytes. Raises NeedsOperator if they are none."""
    try:
        return _decoder.decode(data)
    except msgspec.DecodeError as error:  # its text may show values
        raise NeedsOperator(
            "a message in `parts` is none that this version of c360 writes: a newer one wrote it, or another program;"
            " stop those, then run `c360 reset` for this projection"
        ) from error
