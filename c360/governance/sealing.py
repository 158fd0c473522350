"""Sealed values: a field of a record, encrypted for one place and readable only with a data key of its subject.

The cipher is AES-SIV (RFC 5297) with a 512-bit key: a deterministic AEAD, so that equal values of one subject and field are
equal bytes under one key, and a repeated record changes no profile. It authenticates the app, the subject and the field
beside the value, so that a ciphertext cannot be moved. Knows nothing of where keys come from (`c360.governance.keys`), and
of values only that they are bytes.

What is not hidden: that two values of one subject and field are equal, and how long a value is.
"""

from __future__ import annotations

import hashlib
from base64 import b32encode
from binascii import Error, a2b_base64, b2a_base64
from collections.abc import Container
from functools import lru_cache
from typing import Any, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from c360.errors import C360Error, Misfit

CIPHERS_KEPT = 2048  # ready for use in this process: each takes 4 KB, and 3 µs to make, twice what sealing takes
KEY_BYTES = 64  # two AES-256 keys: one authenticates, one encrypts
TAG_BYTES = 16  # a sealed value is this much longer, before base64
ID_BYTES = 15  # of a hash: 24 letters and digits without padding
SEALED, SUBJECT = "~sealed", "subject"


class UnknownKey(C360Error):
    """Read the keys to their end and open again: the key is there then, or it was destroyed (`Destroyed`)."""


class Destroyed(C360Error):
    """Leave the value out: its key was destroyed, nobody can read it ever again."""


_cipher = lru_cache(CIPHERS_KEPT)(AESSIV)


def fingerprint(*parts: bytes) -> str:
    """24 lower-case letters and digits that stand for the parts; two lists of parts share them once in 2^120 pairs."""
    hashed = hashlib.sha256()
    for part in parts:
        hashed.update(len(part).to_bytes(4, "big") + part)
    return b32encode(hashed.digest()[:ID_BYTES]).decode().lower()


class Sealed(NamedTuple):
    """A sealed value as it is written: what it says of itself, and its bytes as base64."""

    key_id: str
    field: str
    subject: str
    ciphertext: str

    def shape(self) -> dict[str, str]:
        """The JSON value: `{"~sealed": "{key id}:{field}:{base64}", "subject": …}`, the same keys in the same order."""
        return {SEALED: f"{self.key_id}:{self.field}:{self.ciphertext}", SUBJECT: self.subject}


def is_sealed(value: Any) -> bool:
    """Whether a JSON value has the form of a sealed one. It says nothing of whether it can be opened."""
    return isinstance(value, dict) and SEALED in value


def read_sealed(value: Any) -> Sealed:
    """What a sealed JSON value says of itself, which is to be believed only once it is opened. Raises Misfit."""
    if isinstance(value, dict) and value.keys() == {SEALED, SUBJECT}:
        text, subject = value[SEALED], value[SUBJECT]
        if isinstance(text, str) and isinstance(subject, str) and text.count(":") == 2:
            key_id, field, ciphertext = text.split(":")
            return Sealed(key_id, field, subject, ciphertext)
    raise Misfit("not-sealed", f'a sealed value was expected: {{"{SEALED}": "key id:field:base64", "{SUBJECT}": …}}')


class DataKey:
    """One data key of one subject.

    `secret`: KEY_BYTES random bytes. `task`: who made it; two tasks never share a key. `life`: of the subject, when it was
    made. The id is a fingerprint of all
    that, so that no two keys have the same one, and a key that is not what its id says is noticed.
    """

    __slots__ = ("_place", "_secret", "id", "life", "subject", "task")

    def __init__(self, app: str, subject: str, task: str, secret: bytes, life: int = 0) -> None:
        assert len(secret) == KEY_BYTES
        self.id = fingerprint(b"data key", app.encode(), subject.encode(), task.encode(), secret)
        self.subject, self.task, self.life = subject, task, life
        self._secret = secret
        self._place = f"{app}\0{subject}\0".encode()

    def __repr__(self) -> str:
        return f"DataKey({self.id})"  # a subject may be personal, and the key is secret

    def seal(self, field: str, value: bytes) -> str:
        """The text of a sealed value: `{key id}:{field}:{base64}`. `value`: at least a byte; of JSON, the canonical text.

        `field`: the path it has in a record, `Customer.address.street`. Equal arguments give equal text.
        """
        sealed = _cipher(self._secret).encrypt(value, [self._place + field.encode()])
        return f"{self.id}:{field}:{b2a_base64(sealed, newline=False).decode()}"

    def open(self, sealed: Sealed) -> bytes:
        """The value that was sealed with this key for the subject and field that it says. Raises Misfit if it was not."""
        try:
            written = sealed.ciphertext.encode()
            ciphertext = a2b_base64(written)
            ours = sealed.subject == self.subject and sealed.key_id == self.id
            # One way only
            if ours and len(ciphertext) > TAG_BYTES and b2a_base64(ciphertext, newline=False) == written:
                return _cipher(self._secret).decrypt(ciphertext, [self._place + sealed.field.encode()])
        except (Error, UnicodeError, InvalidTag):
            pass
        raise Misfit(
            "sealed-altered",
            "a sealed value is not what was sealed: its bytes, subject, field or key id were changed since",
        )


def check_place(sealed: Sealed, subjects: Container[str], fields: Container[str]) -> None:
    """Raises Misfit for a sealed value that stands where it does not belong: it is another subject's, or another field's.

    To be asked of a value that could be opened: only then is what it says of itself true.
    """
    if sealed.subject not in subjects:
        raise Misfit("sealed-elsewhere", "a sealed value stands with a subject that is not the one it was sealed for")
    if sealed.field not in fields:
        raise Misfit("sealed-elsewhere", "a sealed value stands in a field that is not the one it was sealed for")
