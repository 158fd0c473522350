"""The suppressed table: joins commute, and govern drops whoever is suppressed, also under another name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from c360.errors import NeedsOperator
from c360.governance.suppressed import (
    Hold,
    Suppressed,
    decode_suppressed,
    encode_suppressed,
    join,
    life_if_kept,
)

holds = st.builds(Hold, st.integers(1, 3), st.integers(0, 3))
said = st.builds(Suppressed, st.integers(0, 3), st.dictionaries(st.sampled_from(["r1", "r2"]), holds))


@given(said, said, said)
def test_order_and_repetition_of_joins_make_no_difference(a: Suppressed, b: Suppressed, c: Suppressed) -> None:
    assert join(a, b) == join(b, a)
    assert join(join(a, b), c) == join(a, join(b, c))
    assert join(a, a) == a
    assert join(None, a) == a


@given(said)
def test_a_record_comes_back_in_one_form(one: Suppressed) -> None:
    data = encode_suppressed(one)
    assert decode_suppressed(data) == one
    assert encode_suppressed(Suppressed(one.life, dict(reversed(one.holds.items())))) == data


def test_a_lift_of_one_request_leaves_what_another_holds() -> None:
    lifted = Suppressed(1, {"r1": Hold(1, 5)})
    assert not lifted.stands
    assert join(lifted, Suppressed(2, {"r2": Hold(3)})).stands
    assert not join(lifted, Suppressed(1, {"r1": Hold(1)})).stands, "an old record does not undo a lift"


@pytest.mark.parametrize(
    ("subject", "identifiers", "life"),
    [
        ("crm:1", (), 0),
        ("crm:2", (), None),
        ("crm:3", (), 2),
        ("cookie:9", ("email:lifted",), 0),
        ("cookie:9", ("email:gone",), None),
        ("crm:3", ("email:lifted", "email:gone"), None),
    ],
)
def test_govern_drops_the_suppressed_and_says_of_which_life_the_others_are(
    subject: str, identifiers: tuple[str, ...], life: int | None
) -> None:
    table = {
        "crm:2": Suppressed(1, {"r": Hold(1)}),
        "crm:3": Suppressed(2, {"r": Hold(1, 4), "q": Hold(2, 3)}),
        "email:gone": Suppressed(1, {"r": Hold(1)}),
        "email:lifted": Suppressed(7, {"r": Hold(1, 2)}),
    }
    assert life_if_kept(subject, identifiers, table.get) == life


@pytest.mark.parametrize("data", [b"", b"{}", b'{"life": "ann@mail.org", "holds": {}}'])
def test_what_is_no_record_stops_and_is_not_shown(data: bytes) -> None:
    with pytest.raises(NeedsOperator, match="suppressed table") as caught:
        decode_suppressed(data)
    assert "ann" not in str(caught.value)
