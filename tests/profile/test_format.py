"""docs/formats/fragment.md says what the bytes are."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec

from c360.profile.attribute import Attribute
from c360.profile.fold import Folding, Fragment, Reader

PAGE = Path(__file__).parents[2] / "docs" / "formats" / "fragment.md"
FOLDING = Folding(
    [
        Attribute("orders", "count", "bool"),
        Attribute("spend", "total", "decimal"),
        Attribute("mean", "average", "decimal"),
        Attribute("best", "maximum", "int"),
        Attribute("seen", "newest", "datetime"),
        Attribute("email", "prefer", "text"),
        Attribute("pages", "top", "text", limit=2),
        Attribute("month", "total", "decimal", within_days=30),
    ]
)
AT = 1793610900000


def golden_fragment() -> Fragment:
    amount, best = (lambda r: r[0]), (lambda r: r[1])
    row = FOLDING.folder([Reader(i, 0, amount) for i in (0, 1, 2, 7)] + [Reader(3, 0, best)], rows=True)
    event = FOLDING.folder(
        [Reader(4, 0, lambda r: r[0]), Reader(5, 1, lambda r: "ann@example.org"), Reader(6, 0, lambda r: r[1])],
        rows=False,
    )
    fragment = FOLDING.empty()
    row(fragment, (Decimal("19.99"), 7), AT, 1, 3)
    row(fragment, (Decimal(5), 12), AT, 1, 3)
    row(fragment, (Decimal(5), 12), AT, -1, 3)
    for second, page in enumerate(("/", "/b", "/c")):
        seen = datetime(2026, 11, 2, 9, 15, tzinfo=UTC) + timedelta(seconds=second)
        event(fragment, (seen, page), AT + second * 1000, 1, 1)
    row(fragment, (Decimal(10**20), -1), -1, 1, 3)
    return fragment


def golden_bytes() -> bytes:
    blocks = re.findall(r"```\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    return bytes.fromhex(re.sub(r"#.*", "", blocks[-1]))


def test_the_bytes_of_the_page_are_the_bytes() -> None:
    assert FOLDING.encode(golden_fragment()).hex(" ") == golden_bytes().hex(" ")


def test_the_bytes_of_the_page_are_read() -> None:
    fragment = FOLDING.decode(golden_bytes())
    assert fragment == golden_fragment()
    assert FOLDING.values(fragment, 20_760) == [
        2,
        "100000000000000000019.99",
        "50000000000000000010.00",  # 50000000000000000009.995, half even
        7,
        "2026-11-02T09:15:02Z",
        "ann@example.org",
        ["/", "/b", "/c"],
        "19.99",
    ]


def test_the_page_says_the_layout() -> None:
    """Read by any MessagePack library, with nothing of c360."""
    flat: list[Any] = msgspec.msgpack.decode(golden_bytes())
    assert flat[0] == 2
    assert flat[1::2] == [1, 3]
    events, rows = flat[2::2]
    at = f"{AT + 2000 + 500_000_000_000_000}"
    assert events == [
        3,
        AT + 2000,
        0,
        0,
        None,
        None,
        f'{at}"2026-11-02T09:15:02Z"',
        f'9998{at}"ann@example.org"',
        [{"/": 1, "/b": 1, "/c": 1}, None, events[8][2]],
        None,
    ]
    assert events[8][2] in ("/", "/b", "/c")
    big = int.from_bytes(rows[3].data, "big", signed=True)
    assert (rows[3].code, big) == (1, 10**22 + 1999)
    assert rows[:3] == [2, AT, 2]
    assert rows[4][0] == 2
    assert rows[5:9] == [[None, {"-1": 1, "7": 1}], None, None, None]
    assert [day for day, _ in rows[9]] == [-1, AT // 86_400_000]
    assert list(rows[5][1]) == ["-1", "7"]


def test_a_fragment_of_no_records_is_the_format_alone() -> None:
    assert FOLDING.encode(FOLDING.empty()) == b"\x91\x02"
    assert FOLDING.decode(b"\x91\x02") == {}
