"""docs/formats/parts.md says what the bytes are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from c360.agents.profiles import ProfileCodec, ProfileState, Shared, decode_shared, encode_shared
from c360.errors import NeedsOperator
from c360.profile.attribute import Attribute
from c360.profile.fold import Folding, Reader
from c360.profile.home import Home, Stay, decode_home, encode_home
from c360.profile.parts import Add, Assigned, Drop, Erased, Held, Put, decode_part, encode_part
from c360.profile.rows import Rows
from c360.profile.slots import Owner

PAGE = Path(__file__).parents[2] / "docs" / "formats" / "parts.md"
IDS = ("email:a@example.org",)
FOLDING = Folding([Attribute("clicks", "count", "int")])
NOTHING = FOLDING.encode(FOLDING.empty())
MESSAGES = [
    Put("crm:7", 3, 300, IDS, NOTHING),
    Add("crm:7", 300, IDS, NOTHING),
    Drop("crm:7"),
    Held("crm:1", 3),
    Assigned(9, "crm:1", IDS),
    Erased(1),
]


def golden(block: int) -> list[bytes]:
    blocks = re.findall(r"```\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    return [bytes.fromhex(line) for line in blocks[block].splitlines()]


def rows_of_the_page() -> list[bytes]:
    home = Home(profile="crm:1", seq=9, identifiers=IDS, moves=1)
    home.places = {"crm:7": Stay(0, True), "crm:1": Stay(1, False)}
    owner, rows, fragment = Owner(FOLDING, (0,)), Rows(FOLDING), FOLDING.empty()
    FOLDING.folder([Reader(0, 0, "")], rows=False)(fragment, None, 1793610900000, 1, 0)
    profile = owner.new()
    slot = owner.put(profile, None, Put("crm:7", 1, 0, IDS, FOLDING.encode(fragment)))
    return [encode_home(home), rows.encode_profile(profile)[0], rows.encode_slot(slot)]


def rows_of_a_task() -> list[bytes]:
    """What lies under the subject: never assigned, then as above; and the profile's row, around that of above."""
    home, profile, _ = golden(1)
    plain = ProfileState(FOLDING.empty())
    FOLDING.folder([Reader(0, 0, "")], rows=False)(plain.fragment, None, 1793610900000, 1, 0)
    moved = ProfileState(plain.fragment, due=20759)
    moved.home, moved.told = decode_home(home), True
    shared = Shared(Rows(FOLDING).decode_profile(profile), b"\x05" * 16, 20759, profile)
    codec = ProfileCodec(FOLDING)
    return [codec.encode(plain), codec.encode(moved), encode_shared(shared)]


def test_the_bytes_of_messages_are_those_of_the_page() -> None:
    assert [encode_part(message).hex(" ") for message in MESSAGES] == [data.hex(" ") for data in golden(0)]


def test_messages_of_the_page_are_read() -> None:
    assert [decode_part(data) for data in golden(0)] == MESSAGES


def test_the_bytes_of_rows_are_those_of_the_page() -> None:
    assert [row.hex(" ") for row in rows_of_the_page()] == [data.hex(" ") for data in golden(1)]


def test_the_bytes_of_a_task_s_rows_are_those_of_the_page() -> None:
    assert [row.hex(" ") for row in rows_of_a_task()] == [data.hex(" ") for data in golden(2)]


def test_a_task_s_rows_of_the_page_are_read() -> None:
    *subjects, shared = golden(2)
    codec = ProfileCodec(FOLDING)
    assert [codec.encode(codec.decode(row)) for row in subjects] == subjects
    assert encode_shared(decode_shared(Rows(FOLDING), shared)) == shared


def test_rows_of_the_page_are_read() -> None:
    home, profile, slot = golden(1)
    rows = Rows(FOLDING)
    assert encode_home(decode_home(home)) == home
    assert rows.encode_profile(rows.decode_profile(profile))[0] == profile
    assert rows.encode_slot(rows.decode_slot(slot)) == slot


@pytest.mark.parametrize("data", [b"", b"\x91\x09", b"\x92\x03\x07", b"{}", NOTHING])
def test_what_is_no_message_stops_the_task_and_is_not_shown(data: bytes) -> None:
    with pytest.raises(NeedsOperator, match="is none that this version"):
        decode_part(data)
