"""Ways to make a record worse; each takes the dice and gives another one."""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random
from typing import Any

from tests.fuzz.corpus import Raw

MARK = "@@raw@@"
DEEP = (3, 60, 127, 129, 1_000, 20_000, 200_000)
LONG = (10, 300, 5_000, 70_000, 1_000_000)
# Texts that take the place of a value in JSON: numbers, times and escapes that are at an edge, or over it.
FRAGMENTS: tuple[bytes, ...] = (
    b"null", b"true", b"false", b"{}", b"[]", b'""', b"0", b"-0", b"-0.0", b"1e400", b"-1e400", b"1e-400", b"1e308",
    b"NaN", b"Infinity", b"9223372036854775807", b"9223372036854775808", b"-9223372036854775809",
    b"18446744073709551616", b"253402300800000", b"1e15", b"0.1", b"1e999999999", b"1e-999999999",
    b"1e99999999999999999999", b'"1e999999999"', b'"-1E-999999999"', b'"NaN"', b'"sNaN123"', b'"Infinity"',
    b'"0001-01-01T00:00:00+23:59"', b'"9999-12-31T23:59:59.999999-23:59"', b'"2026-02-30"', b'"2026-11-02T24:00:00Z"',
    b'"2026-11-02"', b'"2026-11-02T09:00:60Z"', b'"2026-10-25T02:30:00"', b'"2026-03-29T02:30:00"', b"62135596800000",
    b"-62135596800001", b"-719163", b"2932897", b"-99999999999999999", b'"\\ud800"', b'"\\udc00\\ud800"',
    b'"\\u0000"', b'"\xff\xfe"', b'"\xed\xa0\x80"', b'"\xf4\x90\x80\x80"', '"٣٤"'.encode(), '"１２"'.encode(),
    '"ﬁ@x.org"'.encode(), b'"a@b"', b'"@"', b'"crm:7"', b'{"ns":"crm","value":7}', b'"unknown"', b'"0000"', b'"\\n"',
    b'" 7 "', b'"__debezium_unavailable_value"', b'"X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ=="',
    b'["__debezium_unavailable_value"]', b'"t"', b'"d"', b'"m"', b'"r"', b'[null,"5"]', b'"[null,\\"5\\"]"',
    b'"[\\"x\\"]"', b'"[]"', b'"{"', b'"[1e400]"', b'"mysql-bin.000003"', b'"1.0"', b'"0.3"', b"+1", b"01", b".5",
    b"1.", b"--1", b"'x'", b"undefined", b"/* */1", b'"\\x"', b'"\t"', b"[1,]", b'{"a":1,}', b"",
)  # fmt: skip


def mutated(dice: Random, good: Sequence[Raw], ids: Sequence[int]) -> Raw:
    """One of the good records after one to three changes; now and then as it is."""
    raw = dice.choice(good)
    for _ in range(dice.choice((0, 1, 1, 1, 1, 2, 2, 3))):
        raw = dice.choices(_WAYS, _WEIGHTS)[0](dice, raw, good, ids)
    return raw


# ------------------------------------------------------------------------------------------------------------- bytes
def _bytes_changed(dice: Random, data: bytes, other: bytes) -> bytes:
    if not data:
        return other
    at = dice.randrange(len(data))
    kind = dice.randrange(11)
    if kind == 0:
        return data[:at] + bytes([data[at] ^ (1 << dice.randrange(8))]) + data[at + 1 :]
    if kind == 1:
        return data[:at]
    if kind == 2:
        return data[at:]
    if kind == 3:
        return data[:at] + data[min(len(data), at + dice.randrange(1, 20)) :]
    if kind == 4 and other:
        cut = dice.randrange(len(other))
        return data[:at] + other[cut:]
    if kind == 5:
        return data[:at] + _varint(dice) + data[at + dice.randrange(2) :]
    if kind == 6 and dice.random() < 0.1:  # something long with its length in front
        size = dice.choices(LONG, (40, 40, 20, 4, 1))[0]
        return data[:at] + _zigzag(size) + dice.choice((b"\x7f", b"\0", b"\x80", b"a")) * size + data[at:]
    if kind == 6:
        return data[:at] + dice.randbytes(dice.randrange(1, 9)) + data[at:]
    if kind == 7:
        piece = data[at : at + dice.randrange(1, 40)]
        return data[:at] + piece * dice.choice((2, 3, 200)) + data[at:]
    if kind == 8:
        return (
            data[:at] + dice.choice((b"\xff", b"\xc3(", b"\xed\xa0\x80", b"\0", b"\xef\xbb\xbf", b"\x80")) + data[at:]
        )
    if kind == 9:
        return dice.choice(
            (b"", b" ", b"null", b"[]", b"{}", b'"', b"\0", b"\1", b"\xef\xbb\xbf" + data, data + data, b"1e400")
        )
    return data[:at] + dice.choice(FRAGMENTS) + data[at:]


def _varint(dice: Random) -> bytes:
    """A number as Avro writes it, often a large one: a length, a count, the number of a branch."""
    number = dice.choice(
        (0, 1, -1, 2, 7, 63, 1 << 20, 1 << 31, 1 << 40, (1 << 62), (1 << 63) - 1, 1 << 70)
    ) * dice.choice((1, -1))
    return _zigzag(number)


def _zigzag(number: int) -> bytes:
    number = (number << 1) ^ (number >> 80)
    out = bytearray()
    while number > 127 and len(out) < 12:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number & 127])


def _value(dice: Random, raw: Raw, good: Sequence[Raw], ids: Sequence[int]) -> Raw:
    return replace(raw, value=_bytes_changed(dice, raw.value or b"", dice.choice(good).value or b""))


def _key(dice: Random, raw: Raw, good: Sequence[Raw], ids: Sequence[int]) -> Raw:
    key = dice.choice(
        (None, b"", b"\xff", b"7", b"null", _bytes_changed(dice, raw.key or b"", b"x" * 5_000), dice.choice(good).key)
    )
    return replace(raw, key=key)


def _gone(dice: Random, raw: Raw, good: Sequence[Raw], ids: Sequence[int]) -> Raw:
    return replace(raw, value=dice.choice((None, b"")))


def _schema(dice: Random, raw: Raw, good: Sequence[Raw], ids: Sequence[int]) -> Raw:
    """Another schema's id, or one that nobody has."""
    number = dice.choice((*ids, *ids, 0, 99, 2**31, 2**32 - 1)).to_bytes(4, "big")
    value = raw.value or b""
    kind = dice.randrange(5)
    if kind < 2:
        return replace(raw, value=b"\0" + number + value[5:])
    if kind == 2:
        return replace(
            raw, headers=(*raw.headers, (dice.choice(("__value_schema_id", "__key_schema_id")), b"\0" + number))
        )
    if kind == 3:
        return replace(raw, value=b"\1" + dice.randbytes(16) + value[5:])
    return replace(raw, key=b"\0" + number + (raw.key or b""), value=value + b"\2" * dice.choice((1, 400, 200_000)))


def _headers(dice: Random, raw: Raw, good: Sequence[Raw], ids: Sequence[int]) -> Raw:
    headers = list(raw.headers)
    if headers and dice.random() < 0.7:
        i = dice.randrange(len(headers))
        name, said = headers[i]
        if dice.random() < 0.3:
            del headers[i]
        elif dice.random() < 0.3:
            headers.append((name, dice.choice(good).value or b""))
        else:
            headers[i] = (name, _bytes_changed(dice, said or b"", name.encode()))
    else:
        names = ("content-type", "ce_id", "ce_specversion", "ce_time", "ce_", "ce_data", "__value_schema_id", "", "é")
        values = (
            b"application/cloudevents",
            b"application/cloudevents-batch+json",
            b"text/plain",
            b"",
            b"\xff",
            b"1.0",
            b"application/json;",
        )
        headers.insert(dice.randrange(len(headers) + 1), (dice.choice(names), dice.choice(values)))
    return replace(raw, headers=tuple(headers))


# -------------------------------------------------------------------------------------------------------------- JSON
def _tree(dice: Random, raw: Raw, good: Sequence[Raw], ids: Sequence[int]) -> Raw:
    """A value at some path becomes one of another type, a huge one, a deep one, another's; or a name is there twice."""
    head, text = b"", raw.value or b""
    if text[:1] == b"\0" and text[5:6] == b"{":
        head, text = text[:5], text[5:]
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError):
        return _value(dice, raw, good, ids)
    places = _places(tree)
    if not places:
        return _value(dice, raw, good, ids)
    holder, at = dice.choice(places)
    fragment = _fragment(dice, holder[at], good)
    kind = dice.randrange(8)
    if kind == 0:
        del holder[at]
    elif kind == 1 and isinstance(holder, dict):
        holder[dice.choice(("", "type", "op", "data", "payload", at.upper(), at + "\0"))] = holder.pop(at)
    elif kind == 2:
        other, there = dice.choice(places)
        with_that = (
            copy.deepcopy(other[there]) if there in (other if isinstance(other, dict) else range(len(other))) else 1
        )
        holder[at] = with_that
    elif kind == 3 and isinstance(holder, dict):
        holder[f"{MARK}{at}"] = MARK
        text = json.dumps(tree, ensure_ascii=False).encode("utf-8", "surrogatepass")
        return replace(
            raw, value=head + text.replace(MARK.encode(), b"", 1).replace(b'"%s"' % MARK.encode(), fragment, 1)
        )
    else:
        holder[at] = MARK
    written = json.dumps(tree, ensure_ascii=dice.random() < 0.3).encode("utf-8", "surrogatepass")
    return replace(raw, value=head + written.replace(b'"%s"' % MARK.encode(), fragment))


def _places(tree: Any) -> list[tuple[Any, Any]]:
    """Where values are: what holds them, and at which name or index."""
    found: list[tuple[Any, Any]] = []
    left = [tree]
    while left and len(found) < 500:
        here = left.pop()
        items = here.items() if isinstance(here, dict) else enumerate(here) if isinstance(here, list) else ()
        for at, inside in items:
            found.append((here, at))
            left.append(inside)
    return found


def _fragment(dice: Random, was: Any, good: Sequence[Raw]) -> bytes:
    kind = dice.randrange(40)
    if kind == 0:
        deep = dice.choices(DEEP, (8, 8, 8, 8, 4, 2, 1))[0]
        opening, closing = dice.choice(((b"[", b"]"), (b'{"a":', b"}"), (b"[", b""), (b'[{"":', b"}]")))
        return opening * deep + b"1" + closing * deep
    if kind in (1, 2):
        long = dice.choices(LONG, (40, 40, 20, 4, 1))[0]
        return dice.choice((b'"%s"', b"%s", b'"1.%s"', b"0.%s", b"-%s")) % (dice.choice((b"1", b"9", b"0")) * long)
    if kind == 3:
        return b'"%s"' % ("é\u0000"[0] * dice.choice(LONG[:4])).encode()
    if kind == 4:
        return b"[%s]" % b",".join([dice.choice((b"1", b"{}", b'"x"'))] * dice.choice((1, 300, 20_000)))
    if kind == 5:
        return b"{%s}" % b",".join(b'"%d":%d' % (i, i) for i in range(dice.choice((1, 300, 5_000))))
    if kind == 6:
        return dice.choice(good).value or b"null"
    if kind == 7:
        return b'"%s"' % base64.b64encode(dice.randbytes(dice.choice((1, 30, 3_000))))
    if kind == 8 and isinstance(was, int | float):
        return str(-was * dice.choice((1, 10**6, 10**18))).encode()
    if kind == 9:
        return json.dumps(json.dumps(was)).encode()
    return dice.choice(FRAGMENTS)


Way = Callable[[Random, Raw, Sequence[Raw], Sequence[int]], Raw]
_WAYS: tuple[Way, ...] = (_tree, _value, _key, _gone, _schema, _headers)
_WEIGHTS = (45, 30, 8, 1, 8, 8)
