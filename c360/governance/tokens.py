"""Tokens: how an identifier of a personal namespace is written outside of doors, `email:~k3v…`.

A keyed hash of the identifier, always the same for one app, so that links, keys and look-ups work as with the value itself,
and whoever has no secret cannot even try values. Whoever has it can, and values such as e-mail addresses are few enough to
be tried: it is kept as keys are, wrapped (`c360.governance.keys`), and a new master key changes no token.
"""

from __future__ import annotations

import hmac
import re
from base64 import b32encode

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from c360.governance.keys import AppSecret

TOKEN_BYTES = 15  # of the hash: among 10^10 identifiers two share a token with a probability below 10^-16
MARK = "~"
# The value of a personal label, wherever it stands in a text
TOKEN = re.compile(rf"{MARK}[a-z2-7]{{24}}(?![A-Za-z0-9])")


class Tokens:
    """Makes the tokens of an app."""

    def __init__(self, secret: AppSecret) -> None:
        info = f"c360 tokens\0{secret.app}".encode()
        self._key = HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive(secret.secret)

    def __repr__(self) -> str:
        return "Tokens()"

    def token(self, label: str) -> str:
        """`namespace:~` and 24 lower-case letters and digits for a label `namespace:value`, its value normalised.

        HMAC-SHA-256 of the whole label, so that one value in two namespaces has two tokens.
        """
        namespace, colon, _ = label.partition(":")
        assert colon
        hashed = hmac.digest(self._key, label.encode(), "sha256")[:TOKEN_BYTES]
        return f"{namespace}:{MARK}{b32encode(hashed).decode().lower()}"


def is_token(label: str) -> bool:
    """Whether a label of a personal namespace is a token already. In other namespaces a value may look like one."""
    return label.partition(":")[2].startswith(MARK)
