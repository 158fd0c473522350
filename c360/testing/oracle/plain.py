"""JSON as the oracle reads and writes it: nothing is rounded on the way in, one spelling on the way out."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from json.encoder import encode_basestring
from math import isfinite
from typing import Any, NoReturn

DEEPEST = 128  # a payload that is nested deeper is a misfit
INT_DIGITS = 4000  # Python turns text of about this length into an int, and no more


@dataclass(frozen=True)
class Written:
    """A JSON number with a point or an exponent, or a very long one, as it was written."""

    text: str


def _constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _whole(text: str) -> int | Written:
    return int(text) if len(text) <= INT_DIGITS else Written(text)


def parse(data: bytes) -> Any:
    """The value of a JSON text. Raises ValueError for what is no JSON in UTF-8."""
    try:
        value = json.loads(data.decode("utf-8"), parse_float=Written, parse_int=_whole, parse_constant=_constant)
    except RecursionError:
        raise ValueError("too deeply nested") from None
    _check_text(value)
    return value


def parse_payload(data: bytes) -> Any:
    """The value of what a producer sent. Raises ValueError also for what is nested too deep."""
    value = parse(data)
    level = [value]
    for _ in range(DEEPEST):
        level = [
            inner for v in level for inner in (v.values() if isinstance(v, dict) else v if isinstance(v, list) else ())
        ]
    if any(isinstance(v, dict | list) for v in level):
        raise ValueError("too deeply nested")
    return value


def _check_text(value: Any) -> None:
    """Half of a surrogate pair is a character of no text. Raises ValueError."""
    if isinstance(value, str):
        value.encode("utf-8")
    elif isinstance(value, dict):
        for key, inner in value.items():
            _check_text(key)
            _check_text(inner)
    elif isinstance(value, list):
        for inner in value:
            _check_text(inner)


def simple(value: Any) -> Any:
    """A parsed value with floats where numbers are not whole. Raises ValueError for a number beyond any float."""
    if isinstance(value, Written):
        number = float(value.text)
        if not isfinite(number):
            raise ValueError("a number is too large")
        return number
    if isinstance(value, list):
        return [simple(v) for v in value]
    if isinstance(value, dict):
        return {key: simple(v) for key, v in value.items()}
    return value


def canonical(value: Any) -> str:
    """The text by which values are compared, hashed and sorted: compact JSON, keys sorted, raw Unicode."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def written(value: Any) -> str:
    """Compact JSON in the given order, raw Unicode, floats by their shortest digits: the bytes of a profile record."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{encode_basestring(k)}:{written(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(written, value)) + "]"
    if isinstance(value, float):
        return _float_text(value)
    return json.dumps(value, ensure_ascii=False)


def _float_text(value: float) -> str:
    digits, exponent, power = repr(value).partition("e")
    if not exponent:
        return digits
    if int(power) == -5:  # the one exponent that Python writes and the contract does not
        return digits.replace(".", "").replace("-", "-0.0000") if value < 0 else "0.0000" + digits.replace(".", "")
    return f"{digits}e{int(power)}"


def time_text(time: datetime) -> str:
    """An instant as RFC 3339 in UTC, microseconds only if there are any. Raises OverflowError outside of 1 to 9999."""
    return time.astimezone(UTC).isoformat().replace("+00:00", "Z")


def decimal_text(value: Decimal) -> str:
    """Plain notation with the places it was written with."""
    return format(value, "f")
