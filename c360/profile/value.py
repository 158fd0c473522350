"""Values of records as text: how each type is written, compared and shown.

State holds values only as text, so that equal values are equal bytes and dictionaries have one kind of key. Two texts
matter: the *text* of a value (`shoes`, `12.50`, `2026-11-02T09:15:00Z`) and its *encoding*, the canonical JSON
(compact, keys sorted, raw UTF-8), which is the text itself or the text in quotes. Ties are broken by encodings.
Knows nothing of attributes and rules.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import MAX_EMAX, MAX_PREC, MIN_EMIN, Context, Decimal
from functools import cache, lru_cache
from json.encoder import encode_basestring as quote  # a string as JSON, raw Unicode
from math import isfinite
from typing import Any

from c360.profile.attribute import ValueType

DIGITS_MAX = 400  # of a number before the point, or zeros after it: more than a float has, fewer than Python prints
BEYOND = 10**DIGITS_MAX
DAY_MS = 86_400_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
EPOCH_DAY = EPOCH.toordinal()
# First and last millisecond that has a date: years 1 to 9999.
TIME_MIN_MS = (1 - EPOCH_DAY) * DAY_MS
TIME_MAX_MS = (date.max.toordinal() + 1 - EPOCH_DAY) * DAY_MS - 1
_EXACT = Context(prec=MAX_PREC, Emax=MAX_EMAX, Emin=MIN_EMIN)  # moves a point without rounding


class Unfit(Exception):
    """A value that its attribute cannot take. The message names types and bounds, never the value."""


def _not_a(expected: str, value: Any) -> Unfit:
    return Unfit(f"takes {expected}, found {type(value).__name__}")


# ------------------------------------------------------------------------------------------------------------ times
@lru_cache(maxsize=4096)
def _day_text(day: int) -> str:
    """Days since 1970 as a date. Raises ValueError outside of the years 1 to 9999."""
    return date.fromordinal(day + EPOCH_DAY).isoformat()


_MINUTES = tuple(f"T{minute // 60:02}:{minute % 60:02}:" for minute in range(24 * 60))
_SECONDS = tuple(f"{second:02}Z" for second in range(60))
_MILLIS = tuple(f"{second:02}." for second in range(60)), tuple(f"{ms:03}Z" for ms in range(1000))


@lru_cache(maxsize=1 << 14)
def _minute_text(minute: int) -> str:
    """Minutes since 1970 as a time up to its seconds."""
    day, minute = divmod(minute, 24 * 60)
    return _day_text(day) + _MINUTES[minute]


def time_text(at_ms: int) -> str:
    """Epoch milliseconds as RFC 3339 in UTC, with milliseconds only if there are any."""
    minute, rest = divmod(at_ms, 60_000)
    second, ms = divmod(rest, 1000)
    if ms:
        return f"{_minute_text(minute)}{_MILLIS[0][second]}{_MILLIS[1][ms]}"
    return _minute_text(minute) + _SECONDS[second]


# ---------------------------------------------------------------------------------------------------- value -> text
def _int(value: Any) -> int:
    """A checked int. A bool is none: `True` in a total would be a mistake nobody sees."""
    if value.__class__ is not int:
        if not isinstance(value, int) or isinstance(value, bool):
            raise _not_a("int", value)
        value = int(value)
    if not -BEYOND < value < BEYOND:
        raise Unfit(f"takes numbers of up to {DIGITS_MAX} digits")
    return value  # type: ignore[no-any-return]


def _float(value: Any) -> float:
    if value.__class__ is not float:
        if not isinstance(value, float):
            value = _int(value)
        try:
            value = float(value)
        except OverflowError:
            raise Unfit("takes numbers that a float can hold") from None
    if not isfinite(value):
        raise Unfit("takes finite numbers, found an infinite one or NaN")
    return value + 0.0  # type: ignore[no-any-return]  # -0.0 becomes 0.0


def _decimal(value: Any) -> Decimal:
    if not isinstance(value, Decimal):
        value = Decimal(_int(value))
    if not value.is_finite():
        raise Unfit("takes finite numbers, found an infinite one or NaN")
    if not -DIGITS_MAX <= value.adjusted() < DIGITS_MAX:
        raise Unfit(f"takes numbers of up to {DIGITS_MAX} digits before or after the point")
    return value  # type: ignore[no-any-return]


def _int_text(value: Any) -> str:
    return str(_int(value))


def _float_text(value: Any) -> str:
    return repr(_float(value))


def _decimal_text(value: Any) -> str:
    """As written, in plain notation: 1E+3 is 1000, 9.50 stays 9.50."""
    number = _decimal(value)
    text = str(number)
    return format(number, "f") if "E" in text else text


def _decimal_normal(value: Any) -> str:
    """One text per number: no zeros after the last digit, no minus before zero."""
    text = _decimal_text(value)
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def _datetime_text(value: Any) -> str:
    """The instant in UTC, RFC 3339, microseconds only if there are any. (`isoformat` takes twice as long.)

    Also of an RFC 3339 text as msgspec writes it, with six digits of microseconds or none.
    """
    if value.__class__ is str:
        if value[-1] == "Z":
            return value
        value = datetime.fromisoformat(value)
    if not isinstance(value, datetime):
        raise _not_a("datetime", value)
    try:
        since = value - EPOCH
        day = _day_text(since.days)
    except TypeError:
        raise Unfit("takes datetimes with a time zone, found one without") from None
    except (ValueError, OverflowError):
        raise Unfit("takes times that are in the years 1 to 9999 in UTC too") from None
    minute, second = divmod(since.seconds, 60)
    if since.microseconds:
        return f"{day}{_MINUTES[minute]}{second:02}.{since.microseconds:06}Z"
    return f"{day}{_MINUTES[minute]}{_SECONDS[second]}"


def _date_text(value: Any) -> str:
    if not isinstance(value, date) or isinstance(value, datetime):
        raise _not_a("date", value)
    return value.isoformat()


def _text(value: Any) -> str:
    if value.__class__ is not str:
        if not isinstance(value, str):
            raise _not_a("text", value)
        value = str.__str__(value)  # of a subclass, such as a user's identifier: the plain string
    return value  # type: ignore[no-any-return]


def _bool_text(value: Any) -> str:
    if not isinstance(value, bool):
        raise _not_a("bool", value)
    return "true" if value else "false"


_canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode


def _json_text(value: Any) -> str:
    try:
        return _canonical(value)
    except (TypeError, ValueError, RecursionError):
        raise Unfit("takes plain JSON values: null, true, numbers, text, lists, and objects with text keys") from None


# ------------------------------------------------------------------------------------------------- text -> value
def _same(text: str) -> str:
    return text


def _is_true(text: str) -> bool:
    return text == "true"


def _by_number(text: str) -> tuple[Decimal, str]:
    return Decimal(text), text


def instant_order(text: str) -> str:
    """Without the Z, a time sorts before the same second with a fraction."""
    return text[:-1]


@dataclass(frozen=True)
class Shape:
    """One type of values."""

    text: Callable[[Any], str]  # as written; raises Unfit
    normal: Callable[[Any], str]  # the same text for values that count as equal; raises Unfit
    shown: Callable[[str], Any]  # text -> plain JSON value
    order: Callable[[str], Any] | None  # text -> what minimum and maximum compare; None: the text itself
    quoted: bool  # whether the JSON value is a string

    def encoding(self, text: str) -> str:
        """The canonical JSON of a text."""
        return quote(text) if self.quoted else text

    def decoded(self, encoding: str) -> Any:
        """The plain JSON value of an encoding."""
        if not self.quoted:
            return self.shown(encoding)
        return json.loads(encoding) if "\\" in encoding else encoding[1:-1]


SHAPES: Mapping[ValueType, Shape] = {
    "int": Shape(_int_text, _int_text, int, int, quoted=False),
    "float": Shape(_float_text, _float_text, float, float, quoted=False),
    "decimal": Shape(_decimal_text, _decimal_normal, _same, _by_number, quoted=True),
    "datetime": Shape(_datetime_text, _datetime_text, _same, instant_order, quoted=True),
    "date": Shape(_date_text, _date_text, _same, None, quoted=True),
    "text": Shape(_text, _text, _same, None, quoted=True),
    "bool": Shape(_bool_text, _bool_text, _is_true, None, quoted=False),
    "json": Shape(_json_text, _json_text, json.loads, None, quoted=False),
}


# ------------------------------------------------------------------------------------------------- numbers as units
@cache
def units_of(kind: ValueType, scale: int) -> Callable[[Any], int]:
    """A function from a number to whole multiples of 10^-scale, rounded half even. It raises Unfit."""
    if kind == "int":
        factor = 10**scale
        return lambda value: _int(value) * factor
    if kind == "float":  # by its shortest digits: 0.1 is a tenth
        return lambda value: round(_EXACT.scaleb(Decimal(repr(_float(value))), scale))

    move = _EXACT.scaleb
    return lambda value: round(move(_decimal(value), scale))  # `round` without digits is exact and half even


def units_text(units: int, scale: int) -> str:
    """Units as a decimal number with `scale` places: (-5, 2) is -0.05."""
    if not scale:
        return str(units)
    if units < 0:
        return f"-{units_text(-units, scale)}"
    whole, rest = divmod(units, 10**scale)
    return f"{whole}.{rest:0{scale}}" if scale > 3 else f"{whole}{_PLACES[scale][rest]}"


# The few texts behind the point that most amounts have.
_PLACES = [[f".{rest:0{scale}}" for rest in range(10**scale)] for scale in range(4)]


def divided(units: int, n: int) -> int:
    """units / n, n > 0, to the nearest whole number, half even."""
    quotient, rest = divmod(units, n)
    return quotient + (2 * rest > n or (2 * rest == n and quotient % 2 == 1))
