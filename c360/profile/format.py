"""Bytes of a fragment, as docs/formats/fragment.md has them: MessagePack, one form for equal fragments."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

import msgspec

from c360.errors import NeedsOperator

FORMAT = 2
DIGEST_BYTES = 16
BIG_INT = 1  # MessagePack extension type: a whole number beyond 64 bits, big-endian two's complement, shortest form

# Sorts the keys of dictionaries, which are all text; lists are in one order by themselves.
_encode = msgspec.msgpack.Encoder(order="deterministic").encode


def _ext(code: int, data: memoryview) -> int:
    if code != BIG_INT:
        raise _unreadable(f"an extension of type {code}")
    return int.from_bytes(data, "big", signed=True)


_decode = msgspec.msgpack.Decoder(list[Any], ext_hook=_ext).decode


def _unreadable(found: str) -> NeedsOperator:
    return NeedsOperator(
        f"a profile's state has {found}, which this version of c360 and this declaration of the projection did not"
        " write; give the projection a new version, or run `c360 reset` for it"
    )


def encode_fragment(fragment: dict[int, list[Any]]) -> bytes:
    """[FORMAT, mask, cell set, mask, cell set, …], masks rising."""
    flat: list[Any] = [FORMAT]
    for mask in fragment if len(fragment) < 2 else sorted(fragment):
        flat += (mask, fragment[mask])
    try:
        return _encode(flat)
    except OverflowError:  # a sum beyond 64 bits: rare enough to look for it only now
        return _encode(_with_big_ints(flat))


def _with_big_ints(value: Any) -> Any:
    match value:
        case int() if not -(1 << 63) <= value < 1 << 64:
            length = (value if value >= 0 else ~value).bit_length() // 8 + 1
            return msgspec.msgpack.Ext(BIG_INT, value.to_bytes(length, "big", signed=True))
        case list():
            return [_with_big_ints(v) for v in value]
        case _:
            return value


def decode_fragment(data: bytes, positions: int) -> dict[int, list[Any]]:
    """The fragment; `positions` is the length of its cell sets. Raises NeedsOperator if the bytes are another's."""
    flat = _decode(data)
    if flat[0] != FORMAT:
        raise _unreadable(f"format {flat[0]}")
    fragment = dict(zip(flat[1::2], flat[2::2], strict=True))
    for cells in fragment.values():
        if len(cells) != positions:
            raise _unreadable(f"{len(cells) - 2} cells instead of {positions - 2}")
    return fragment


def digest_of(written: bytes) -> bytes:
    """Tells whether bytes are other than those written last."""
    return blake2b(written, digest_size=DIGEST_BYTES).digest()
