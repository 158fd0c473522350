"""One number bounds what all tables of a process keep decoded."""

from __future__ import annotations

import pytest

from c360.config import Settings, read_settings
from c360.errors import UsageError
from c360.tables.budget import DEFAULT_BYTES, SMALL_BYTES, Budget
from c360.tables.store import MemoryStore, MemoryStores
from c360.tables.table import Table


class Holder:
    pass


def test_the_parts_are_no_more_than_the_whole() -> None:
    budget = Budget(100 << 20)
    assert budget.values + budget.blocks + budget.writes <= 100 << 20


def test_tables_that_hold_much_share_alike_and_small_ones_take_nothing() -> None:
    budget = Budget(64 << 20)  # 16 MiB are for values in use
    small, one, other = Holder(), Holder(), Holder()
    assert not budget.outgrown(small, SMALL_BYTES)
    assert not budget.outgrown(one, 16 << 20)
    assert budget.outgrown(one, (16 << 20) + 1)
    assert not budget.outgrown(other, 8 << 20)
    assert budget.outgrown(one, 9 << 20), "now there are two"
    del other
    assert not budget.outgrown(one, 9 << 20), "the other's task is gone"


def test_all_tables_of_a_process_together_stay_within_it() -> None:
    """Values of 10 KB, ten thousand keys in each of eight tables: 800 MB if all were kept."""
    stores = MemoryStores()
    tables = []
    for i in range(8):
        table: Table[bytes] = Table(b"t", bytes, bytes)
        table.bind(stores.open(str(i)))
        tables.append(table)
    most = 0
    for step in range(60):
        for table in tables:
            for k in range(100):
                table.put(b"%d-%d" % (step, k), bytes(10_000))
            table.store.write(table.changes())
            table.committed()
        kept = sum(len(v) for t in tables for held in (t.live, t.old) for v in held.values() if v is not None)
        most = max(most, kept)
    budget = stores.budget
    assert most <= budget.values, "by their encoded size, of which memory is reckoned to take four times as much"
    assert most > budget.values // 16, "and it is used"


def test_a_table_that_has_outgrown_its_part_says_so_before_the_commit() -> None:
    table: Table[bytes] = Table(b"t", bytes, bytes)
    table.bind(MemoryStore(Budget(4 << 20)))
    table.put(b"known", bytes(10_000))
    table.changes()  # from here on it knows how large values are
    for k in range(100):
        assert not table.outgrown() or k > 20
        table.put(b"%d" % k, bytes(10_000))
    assert table.outgrown()


@pytest.mark.parametrize("said", ["31", "-1", "many", "64.5", ""])
def test_a_memory_that_is_none_is_refused(said: str) -> None:
    with pytest.raises(UsageError, match="memory_mb"):
        read_settings({"C360_MEMORY_MB": said})


def test_the_memory_is_a_setting() -> None:
    assert read_settings({"C360_MEMORY_MB": "64"}).memory_mb == 64
    assert read_settings({}).memory_mb == 384
    assert Settings.memory_mb << 20 == DEFAULT_BYTES
