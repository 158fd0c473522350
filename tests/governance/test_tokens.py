"""A token stands for an identifier: the same for ever in one app, another in any other, and silent about the value."""

from __future__ import annotations

import hashlib
import hmac
from base64 import b32encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from c360.governance.keys import AppSecret, LocalMasterKeys, make_secret, open_secret, rewrapped
from c360.governance.sealing import KEY_BYTES
from c360.governance.tokens import TOKEN_BYTES, Tokens, is_token

SECRET = bytes(range(32))
TOKENS = Tokens(AppSecret("shop", SECRET))
ANN = "email:ann@example.org"
GOLDEN = "email:~xsou5lnljlehtkalxlossvzp"

values = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)


def hkdf(secret: bytes, info: bytes) -> bytes:
    """RFC 5869 without salt, for one block."""
    extracted = hmac.digest(bytes(32), secret, "sha256")
    return hmac.digest(extracted, info + b"\x01", "sha256")


@given(values)
def test_a_token_is_the_hmac_of_the_label_under_a_key_made_of_the_secret(value: str) -> None:
    label = f"email:{value}"
    hashed = hmac.new(hkdf(SECRET, b"c360 tokens\0shop"), label.encode(), hashlib.sha256).digest()
    assert TOKENS.token(label) == "email:~" + b32encode(hashed[:TOKEN_BYTES]).decode().lower()


def test_the_token_of_an_identifier_stays_what_it_is() -> None:
    """Golden: docs/formats/keys.md. A change here makes everybody a stranger."""
    assert TOKENS.token(ANN) == GOLDEN


def test_a_token_differs_by_value_namespace_app_and_secret() -> None:
    others = [
        TOKENS.token("email:bob@example.org"),
        TOKENS.token("login:ann@example.org"),
        Tokens(AppSecret("outlet", SECRET)).token(ANN),
        Tokens(AppSecret("shop", SECRET[::-1])).token(ANN),
    ]
    assert len({token.partition(":")[2] for token in [TOKENS.token(ANN), *others]}) == 5


def test_a_new_master_key_changes_no_token() -> None:
    one, two = bytes(KEY_BYTES), bytes(range(KEY_BYTES))
    record = make_secret("shop", LocalMasterKeys([one]), lambda n: bytes(range(n)))
    assert record.value is not None
    (renewed,) = rewrapped([(record.key, record.value)], LocalMasterKeys([one, two]))
    assert Tokens(open_secret("shop", renewed.value, LocalMasterKeys([two]))).token(ANN) == GOLDEN


@given(values)
def test_a_token_is_known_by_its_mark_and_holds_nothing_of_the_value(value: str) -> None:
    token = TOKENS.token(f"email:{value}")
    assert is_token(token)
    assert token.isascii()
    assert len(token) == len("email:~") + 24
    assert len(value) < 4 or value not in token.partition(":")[2]


def test_a_colon_in_a_value_is_a_part_of_it() -> None:
    assert TOKENS.token("email:a:b") != TOKENS.token("email:a")
    assert TOKENS.token("email:a:b").startswith("email:~")
    assert not is_token("email:a:~b")


def test_what_is_no_label_has_no_token() -> None:
    with pytest.raises(AssertionError):
        TOKENS.token("ann@example.org")
