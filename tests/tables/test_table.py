"""A table sees its own writes, encodes once, and forgets what was aborted."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from c360.tables import budget
from c360.tables.budget import Budget
from c360.tables.store import MemoryStore
from c360.tables.table import Table


class Tight(Budget):
    """Of which nothing is kept after a commit."""

    def outgrown(self, table: object, weight: int) -> bool:
        return True


def text_table(store: MemoryStore) -> Table[str]:
    table: Table[str] = Table(b"t", str.encode, bytes.decode)
    table.bind(store)
    return table


def commit(table: Table[str], store: MemoryStore) -> None:
    store.write(table.changes())
    table.committed()


def test_own_writes_are_seen_before_and_after_the_commit() -> None:
    store = MemoryStore()
    table = text_table(store)
    table.put(b"a", "1")
    assert table.get(b"a") == "1"
    commit(table, store)
    assert table.get(b"a") == "1"
    assert text_table(store).get(b"a") == "1"


def test_an_aborted_write_is_forgotten() -> None:
    store = MemoryStore()
    table = text_table(store)
    table.put(b"a", "1")
    commit(table, store)
    table.put(b"a", "2")
    table.delete(b"b")
    table.rolled_back()
    assert table.get(b"a") == "1"
    assert table.changes() == []


def test_values_changed_in_place_are_written_when_named_and_forgotten_when_aborted() -> None:
    store = MemoryStore()
    table: Table[list[int]] = Table(b"l", bytes, list)
    table.bind(store)
    table.put(b"a", [1])
    store.write(table.changes())
    table.committed()
    table.load([b"a"])[b"a"].append(2)  # type: ignore[union-attr]
    table.touch([b"a"])
    assert table.changes() == [(b"la", bytes([1, 2]))]
    table.rolled_back()
    assert table.get(b"a") == [1]


def test_a_small_cache_forgets_clean_values_and_never_dirty_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "SMALL_BYTES", 0)
    store = MemoryStore(Budget(4_000))
    table = text_table(store)
    for i in range(200):
        table.put(b"%d" % i, "x" * 50)
        commit(table, store)
        table.put(b"dirty", str(i))
        assert table.get(b"dirty") == str(i)
        commit(table, store)
    assert len(table.live) + len(table.old) < 20
    assert table.get(b"0") == "x" * 50


Step = tuple[str, int, int]
steps = st.lists(st.tuples(st.sampled_from(["put", "delete", "commit", "abort"]), st.integers(0, 6), st.integers(0, 9)))


@given(steps)
def test_a_table_is_a_dictionary_with_transactions(said: list[Step]) -> None:
    store = MemoryStore(Tight())
    table = text_table(store)
    committed: dict[bytes, str] = {}
    now: dict[bytes, str] = {}
    for verb, k, v in said:
        key = b"k%d" % k
        if verb == "put":
            table.put(key, str(v))
            now[key] = str(v)
        elif verb == "delete":
            table.delete(key)
            now.pop(key, None)
        elif verb == "commit":
            commit(table, store)
            committed = dict(now)
        else:
            table.rolled_back()
            now = dict(committed)
        assert list(table.scan()) == sorted(now.items())
        assert [table.get(b"k%d" % i) for i in range(7)] == [now.get(b"k%d" % i) for i in range(7)]
    assert {k[1:]: v.decode() for k, v in store.data.items()} == committed
