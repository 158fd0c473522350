"""A sealed value opens where it was sealed and nowhere else, and whoever changes a bit of it is noticed."""

from __future__ import annotations

import json
from base64 import b64decode

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from hypothesis import given
from hypothesis import strategies as st

from c360.errors import Misfit
from c360.governance.sealing import (
    CIPHERS_KEPT,
    KEY_BYTES,
    TAG_BYTES,
    DataKey,
    Sealed,
    check_place,
    is_sealed,
    read_sealed,
)
from tests.governance.siv import siv_encrypt

SECRET = bytes(range(KEY_BYTES))
KEY = DataKey("shop", "crm:7", "web.clicks/3", SECRET)
FIELD = "Customer.name"
ANN = b'"Ann"'
GOLDEN = '{"~sealed": "pvearpcjf3y7n54ibtkcajbx:Customer.name:KmRIoFNSId0HXDIg0OIGTowcye4M", "subject": "crm:7"}'

values = st.binary(min_size=1, max_size=200)
subjects = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=40)
fields = st.from_regex(r"[A-Z][a-z]{0,8}(\.[a-z_]{1,8}(\[\])?){1,3}", fullmatch=True)


def sealed(value: bytes = ANN, field: str = FIELD, key: DataKey = KEY) -> Sealed:
    key_id, said, ciphertext = key.seal(field, value).split(":")
    return Sealed(key_id, said, key.subject, ciphertext)


def reason(altered: Sealed, key: DataKey = KEY) -> str:
    with pytest.raises(Misfit) as refused:
        key.open(altered)
    return refused.value.reason


def bits(text: str) -> list[str]:
    """The text with each of its bits turned, as far as that is still text."""
    data = text.encode()
    turned = [data[:i] + bytes([data[i] ^ (1 << bit)]) + data[i + 1 :] for i in range(len(data)) for bit in range(7)]
    return [t.decode() for t in turned]


# ------------------------------------------------------------------------------------------------------- the cipher
def test_the_example_of_the_rfc_is_what_the_cipher_and_our_reading_of_the_rfc_make() -> None:
    """RFC 5297, A.1."""
    key = bytes.fromhex("fffefdfcfbfaf9f8f7f6f5f4f3f2f1f0f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff")
    associated = bytes.fromhex("101112131415161718191a1b1c1d1e1f2021222324252627")
    plain = bytes.fromhex("112233445566778899aabbccddee")
    expected = bytes.fromhex("85632d07c6e8f37f950acd320a2ecc9340c02b9690c4dc04daef7f6afe5c")
    assert AESSIV(key).encrypt(plain, [associated]) == expected
    assert siv_encrypt(key, plain, associated) == expected


@given(values, subjects, fields, st.binary(min_size=KEY_BYTES, max_size=KEY_BYTES))
def test_a_sealed_value_is_the_rfc_s_of_the_value_and_the_place(
    value: bytes, subject: str, field: str, secret: bytes
) -> None:
    text = DataKey("shop", subject, "t", secret).seal(field, value)
    place = f"shop\0{subject}\0{field}".encode()
    assert b64decode(text.split(":")[2]) == siv_encrypt(secret, value, place)


def test_the_bytes_of_a_sealed_value_stay_what_they_are() -> None:
    """Golden: docs/formats/keys.md. A change here makes everything that is sealed unreadable."""
    assert json.dumps(sealed().shape()) == GOLDEN
    assert KEY.open(read_sealed(json.loads(GOLDEN))) == ANN


# ------------------------------------------------------------------------------------------------------- round trip
@given(values, fields)
def test_what_is_sealed_opens_and_equal_values_are_equal_bytes(value: bytes, field: str) -> None:
    one = sealed(value, field)
    again = sealed(value, field, DataKey("shop", "crm:7", "web.clicks/3", SECRET))
    assert one == again
    assert KEY.open(one) == value
    assert read_sealed(json.loads(json.dumps(one.shape()))) == one
    assert len(b64decode(one.ciphertext)) == len(value) + TAG_BYTES


@given(values, values)
def test_different_values_are_different_bytes(a: bytes, b: bytes) -> None:
    assert (sealed(a) == sealed(b)) == (a == b)


@pytest.mark.parametrize(
    "other",
    [
        DataKey("shop", "crm:8", "web.clicks/3", SECRET),
        DataKey("outlet", "crm:7", "web.clicks/3", SECRET),
        DataKey("shop", "crm:7", "web.clicks/4", SECRET),
        DataKey("shop", "crm:7", "web.clicks/3", SECRET[::-1]),
    ],
    ids=["subject", "app", "task", "secret"],
)
def test_every_part_of_a_key_makes_another_key_id(other: DataKey) -> None:
    assert other.id != KEY.id


def test_parts_of_a_place_cannot_be_shifted_into_each_other() -> None:
    assert DataKey("a", "bc", "t", SECRET).id != DataKey("ab", "c", "t", SECRET).id
    one, other = DataKey("a", "b\0c", "t", SECRET), DataKey("a", "b", "t", SECRET)
    assert one.seal("d", ANN).split(":")[2] == other.seal("c\0d", ANN).split(":")[2]  # why neither may have a NUL
    assert one.seal("d", ANN).split(":")[2] != other.seal("cd", ANN).split(":")[2]


def test_more_keys_than_ciphers_are_kept_work_all_the_same() -> None:
    keys = [DataKey("shop", f"crm:{n}", "t", n.to_bytes(KEY_BYTES, "big")) for n in range(CIPHERS_KEPT + 50)]
    written = [sealed(ANN, FIELD, key) for key in keys]
    assert {key.open(each) for key, each in zip(keys, written, strict=True)} == {ANN}


# -------------------------------------------------------------------------------------------------------- tampering
def test_any_bit_of_the_ciphertext_that_is_turned_is_noticed() -> None:
    one = sealed(b'"Ann of Green Gables"')
    for turned in bits(one.ciphertext):
        assert reason(one._replace(ciphertext=turned)) == "sealed-altered"


def test_any_bit_of_what_a_sealed_value_says_of_itself_that_is_turned_is_noticed() -> None:
    one = sealed()
    for part in ("key_id", "field", "subject"):
        for turned in bits(getattr(one, part)):
            assert reason(one._replace(**{part: turned})) == "sealed-altered"


@given(st.text(max_size=60))
def test_what_is_no_ciphertext_is_altered_and_nothing_worse(text: str) -> None:
    assert reason(sealed()._replace(ciphertext=text)) == "sealed-altered"


def test_of_the_ways_to_write_a_ciphertext_in_base64_only_one_opens() -> None:
    one = sealed(b"12")  # 18 bytes: no padding
    assert "=" not in one.ciphertext
    assert reason(one._replace(ciphertext=one.ciphertext + "\n")) == "sealed-altered"
    padded = sealed(b"123")
    assert padded.ciphertext.endswith("==")
    last = padded.ciphertext[-3]
    beside = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    other = beside[beside.index(last) ^ 1]
    respelt = padded.ciphertext[:-3] + other + "=="
    assert b64decode(respelt) == b64decode(padded.ciphertext)
    assert reason(padded._replace(ciphertext=respelt)) == "sealed-altered"


# ------------------------------------------------------------------------------------------------------------ moved
def test_a_sealed_value_that_says_another_place_than_its_own_is_altered() -> None:
    assert reason(sealed()._replace(field="Customer.street")) == "sealed-altered"
    other = DataKey("shop", "crm:8", "web.clicks/3", SECRET)
    assert reason(sealed()._replace(subject="crm:8", key_id=other.id), other) == "sealed-altered"


def test_one_that_stands_in_another_place_than_it_truly_says_is_elsewhere() -> None:
    one = sealed()
    check_place(one, {"crm:7", "crm:9"}, {FIELD})
    for subjects_there, fields_there, word in (({"crm:8"}, {FIELD}, "subject"), ({"crm:7"}, {"Click.login"}, "field")):
        with pytest.raises(Misfit, match=word) as refused:
            check_place(one, subjects_there, fields_there)
        assert refused.value.reason == "sealed-elsewhere"


# ------------------------------------------------------------------------------------------------------------- form
@pytest.mark.parametrize(
    "value",
    [
        None, 7, "Ann", [], {}, {"~sealed": "a:b:c"}, {"~sealed": "a:b", "subject": "s"}, {"~sealed": 1, "subject": "s"},
        {"~sealed": "a:b:c", "subject": None}, {"~sealed": "a:b:c", "subject": "s", "more": 1},
        {"~sealed": "a:b:c:d", "subject": ""},
    ],
)  # fmt: skip
def test_what_has_not_the_form_of_a_sealed_value_is_refused(value: object) -> None:
    with pytest.raises(Misfit) as refused:
        read_sealed(value)
    assert refused.value.reason == "not-sealed"


def test_sealed_values_are_told_from_others() -> None:
    assert is_sealed(sealed().shape())
    assert not any(map(is_sealed, (None, "~sealed", {"subject": "crm:7"}, [])))


def test_nothing_secret_or_personal_is_in_what_is_printed_of_a_key_or_said_of_a_failure() -> None:
    key = DataKey("shop", "email:ann@example.org", "t", SECRET)
    with pytest.raises(Misfit) as refused:
        key.open(sealed(ANN, FIELD, key)._replace(ciphertext="AAAA"))
    said = repr(key) + str(key) + str(refused.value) + repr(refused.value.__cause__)
    assert "ann" not in said.lower()
    assert repr(SECRET)[2:12] not in said
    assert refused.value.__suppress_context__ or refused.value.__context__ is None
