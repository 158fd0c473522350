"""Timers come in the order of their times, once, whatever becomes of the transaction or the process."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from c360.tables.store import MemoryStore
from c360.tables.timers import Due, Timers
from tests.tables.lives import Lives, ends

Model = dict[tuple[int, bytes], bytes]


def timers() -> Timers:
    made = Timers(b"t")
    made.bind(MemoryStore())
    return made


def commit(table: Timers) -> None:
    table.store.write(table.changes())
    table.committed()


def test_what_is_due_comes_in_the_order_of_times_and_in_portions() -> None:
    table = timers()
    for at in (30, -5, 10, 20):
        table.schedule(at, b"k", b"%d" % at)
    assert not table.wants(-6)
    assert table.wants(-5)
    assert table.pop(20, 2) == [Due(-5, b"k", b"-5"), Due(10, b"k", b"10")]
    assert table.wants(20)
    assert table.pop(20, 2) == [Due(20, b"k", b"20")]
    assert not table.wants(29)
    assert table.pop(29, 2) == []


def test_a_timer_taken_in_an_aborted_transaction_comes_again() -> None:
    table = timers()
    table.schedule(10, b"k")
    commit(table)
    assert len(table.pop(10, 9)) == 1
    assert not table.wants(10)
    table.rolled_back()
    assert table.wants(10)
    assert table.pop(10, 9) == [Due(10, b"k", b"")]
    commit(table)
    assert not table.wants(10)


def test_one_scheduled_before_those_already_taken_comes() -> None:
    table = timers()
    table.schedule(100, b"k")
    table.pop(100, 9)
    commit(table)
    table.schedule(5, b"late")
    assert table.wants(5)
    assert table.pop(5, 9) == [Due(5, b"late", b"")]


def test_the_end_of_time_is_a_time() -> None:
    table = timers()
    end = (1 << 63) - 1
    table.schedule(end, b"never")
    table.schedule(-end - 1, b"always")
    assert [key for _, key, _ in table.pop(end, 9)] == [b"always"]
    assert not table.wants(end - 1)


def test_days_have_the_keys_they_always_had() -> None:
    """The index of due days of projections (docs/formats/changelog.md)."""
    table = Timers(b"d", 4)
    table.bind(MemoryStore())
    table.schedule(20_000, b"crm:1")
    assert table.changes() == [(b"d" + struct.pack(">I", 20_000 + (1 << 31)) + b"crm:1", b"")]


class Counted(MemoryStore):
    """Counts the entries that scans have passed."""

    passed = 0

    def scan(self, start, stop):  # type: ignore[no-untyped-def]  # as in the store
        for entry in super().scan(start, stop):
            self.passed += 1
            yield entry


def test_asking_again_and_again_looks_into_the_store_once() -> None:
    store = Counted()
    table = Timers(b"t")
    table.bind(store)
    for at in range(1000):
        table.schedule(at, b"k")
    commit(table)
    for now in range(-1000, 0):
        assert not table.wants(now)
    assert store.passed == 1


steps = st.one_of(
    st.tuples(st.just("schedule"), st.integers(-3, 12), st.sampled_from([b"", b"a", b"ab", b"\xff"]), st.binary(max_size=2)),
    st.tuples(st.just("cancel"), st.integers(-3, 12), st.sampled_from([b"", b"a", b"ab", b"\xff"])),
    st.tuples(st.just("pop"), st.integers(-4, 13), st.integers(1, 4)),
    st.tuples(ends),
)  # fmt: skip


@pytest.mark.parametrize("kind", ["memory", "rocks"])
@settings(max_examples=150)
@given(said=st.lists(steps, max_size=40))
def test_timers_are_a_sorted_dictionary_with_transactions_and_lives(kind: str, said: list[tuple]) -> None:  # type: ignore[type-arg]
    lives = Lives(lambda: Timers(b"t"), kind)
    committed: Model = {}
    now: Model = {}
    for verb, *rest in said:
        if verb == "schedule":
            at, key, data = rest
            lives.table.schedule(at, key, data)
            now[at, key] = data
        elif verb == "cancel":
            at, key = rest
            lives.table.cancel(at, key)
            now.pop((at, key), None)
        elif verb == "pop":
            until, limit = rest
            due = sorted(timer for timer in now if timer[0] <= until)[:limit]
            assert lives.table.pop(until, limit) == [Due(at, key, now.pop((at, key))) for at, key in due]
        elif lives.end(verb):
            committed = dict(now)
        else:
            now = dict(committed)
        for moment in (-4, 0, 4, 13):
            assert lives.table.wants(moment) == any(at <= moment for at, _ in now)
    assert lives.table.pop(99, 99) == [Due(*timer, now[timer]) for timer in sorted(now)]
    lives.close()
