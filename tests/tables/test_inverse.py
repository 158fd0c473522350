"""Which members have a key, however many there are, through commits, aborts and restarts."""

from __future__ import annotations

from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from c360.tables.inverse import Inverse
from c360.tables.store import MemoryStore
from tests.tables.lives import Lives, ends

KEYS = [b"", b"a", b"ab", b"b"]
MEMBERS = [b"", b"a", b"a\x00", b"b", b"\xff\xff"]


def everyone(table: Inverse, key: bytes, size: int) -> list[bytes]:
    """All members of a key, in portions."""
    found: list[bytes] = []
    start = b""
    while portion := table.members(key, size, start):
        assert len(portion) <= size
        found += portion
        start = portion[-1] + b"\x00"
    return found


def test_a_set_is_read_in_portions_with_what_is_not_committed_yet() -> None:
    table = Inverse(b"i")
    table.bind(MemoryStore())
    for n in range(0, 10, 2):
        table.add(b"k", b"%d" % n)
    table.store.write(table.changes())
    table.committed()
    for n in range(1, 10, 2):
        table.add(b"k", b"%d" % n)
    table.remove(b"k", b"4")
    table.add(b"other", b"55")
    assert table.members(b"k", 3) == [b"0", b"1", b"2"]
    assert table.members(b"k", 3, b"3") == [b"3", b"5", b"6"]
    assert everyone(table, b"k", 4) == [b"%d" % n for n in range(10) if n != 4]


def test_adding_to_a_large_set_reads_nothing() -> None:
    class Unread(MemoryStore):
        def get_many(self, keys):  # type: ignore[no-untyped-def]  # as in the store
            raise AssertionError("it was read")

        def scan(self, start, stop):  # type: ignore[no-untyped-def]  # as in the store
            raise AssertionError("it was read")

    table = Inverse(b"i")
    table.bind(Unread())
    table.add(b"k", b"1")
    table.remove(b"k", b"2")
    assert len(table.changes()) == 2


steps = st.one_of(
    st.tuples(st.sampled_from(["add", "remove"]), st.sampled_from(KEYS), st.sampled_from(MEMBERS)), st.tuples(ends)
)


@pytest.mark.parametrize("kind", ["memory", "rocks"])
@settings(max_examples=150)
@given(said=st.lists(steps, max_size=40), size=st.integers(1, 3))
def test_it_is_a_dictionary_of_sets_with_transactions_and_lives(kind: str, said: list[tuple], size: int) -> None:  # type: ignore[type-arg]
    lives = Lives(lambda: Inverse(b"i"), kind)
    committed: set[tuple[bytes, bytes]] = set()
    now: set[tuple[bytes, bytes]] = set()
    for verb, *pair in said:
        if verb == "add":
            lives.table.add(*pair)
            now.add((pair[0], pair[1]))
        elif verb == "remove":
            lives.table.remove(*pair)
            now.discard((pair[0], pair[1]))
        elif lives.end(verb):
            committed = set(now)
        else:
            now = set(committed)
        model: defaultdict[bytes, list[bytes]] = defaultdict(list)
        for key, member in sorted(now):
            model[key].append(member)
        assert [everyone(lives.table, key, size) for key in KEYS] == [model[key] for key in KEYS]
        assert all(lives.table.has(k, m) == ((k, m) in now) for k in KEYS for m in MEMBERS)
    lives.close()
