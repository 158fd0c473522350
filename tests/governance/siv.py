"""AES-SIV written out from RFC 5297, section 2, for any key length: what the library is compared with."""

from __future__ import annotations

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR
from cryptography.hazmat.primitives.cmac import CMAC

ZERO = bytes(16)


def siv_encrypt(key: bytes, plain: bytes, *associated: bytes) -> bytes:
    half = len(key) // 2
    tag = _s2v(key[:half], [*associated, plain])
    counter = bytearray(tag)
    counter[8] &= 0x7F
    counter[12] &= 0x7F
    encryptor = Cipher(AES(key[half:]), CTR(bytes(counter))).encryptor()
    return tag + encryptor.update(plain) + encryptor.finalize()


def _s2v(key: bytes, parts: list[bytes]) -> bytes:
    d = _cmac(key, ZERO)
    for part in parts[:-1]:
        d = _xor(_doubled(d), _cmac(key, part))
    last = parts[-1]
    if len(last) >= 16:
        return _cmac(key, last[:-16] + _xor(last[-16:], d))
    return _cmac(key, _xor(_doubled(d), (last + b"\x80").ljust(16, b"\0")))


def _cmac(key: bytes, data: bytes) -> bytes:
    mac = CMAC(AES(key))
    mac.update(data)
    return mac.finalize()


def _doubled(block: bytes) -> bytes:
    number = int.from_bytes(block, "big") << 1
    return (number ^ 0x87 if number >> 128 else number).to_bytes(17, "big")[1:]


def _xor(a: bytes, b: bytes) -> bytes:
    return bytes(x ^ y for x, y in zip(a, b, strict=True))
