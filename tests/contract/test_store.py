"""What every store promises, asked of each in the same words."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from c360.errors import Fenced, NeedsOperator, TaskCorrupted
from c360.tables.rocks import RocksStores
from c360.tables.store import MemoryStores, Store, Stores


@pytest.fixture(params=["memory", "rocks"])
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> Stores:
    return MemoryStores() if request.param == "memory" else RocksStores(tmp_path)


@pytest.fixture
def store(stores: Stores) -> Iterator[Store]:
    opened = stores.open("agent/0")
    yield opened
    opened.close()


def test_what_is_written_is_read_and_what_is_not_there_is_none(store: Store) -> None:
    store.write([(b"a", b"1"), (b"b", b"2")])
    assert store.get_many([b"b", b"x", b"a"]) == [b"2", None, b"1"]
    assert store.get_many([]) == []


def test_of_two_entries_of_one_write_the_later_holds(store: Store) -> None:
    store.write([(b"a", b"1"), (b"a", b"2"), (b"b", b"1"), (b"b", None)])
    assert store.get_many([b"a", b"b"]) == [b"2", None]


def test_deleting_what_is_not_there_is_fine(store: Store) -> None:
    store.write([(b"never", None)])
    assert store.get_many([b"never"]) == [None]


def test_an_empty_value_is_a_value(store: Store) -> None:
    store.write([(b"a", b"")])
    assert store.get_many([b"a"]) == [b""]


def test_a_scan_gives_a_range_in_key_order(store: Store) -> None:
    store.write([(k, k) for k in (b"a\xff", b"a", b"b", b"a\x00", b"c")])
    assert [k for k, _ in store.scan(b"a", b"b")] == [b"a", b"a\x00", b"a\xff"]


def test_a_scan_does_not_see_what_is_written_meanwhile(store: Store) -> None:
    store.write([(b"a", b"1"), (b"b", b"1"), (b"c", b"1")])
    scan = store.scan(b"", b"\xff")
    first = next(scan)
    store.write([(b"b", None), (b"d", b"2")])
    assert [first, *scan] == [(b"a", b"1"), (b"b", b"1"), (b"c", b"1")]


def test_what_is_closed_is_there_when_opened_again(stores: Stores) -> None:
    store = stores.open("agent/1")
    store.write([(b"a", b"1")])
    store.close()
    store.close()
    again = stores.open("agent/1")
    assert again.get_many([b"a"]) == [b"1"]
    again.close()


def test_what_is_destroyed_is_gone(stores: Stores) -> None:
    store = stores.open("agent/2")
    store.write([(b"a", b"1")])
    store.destroy()
    again = stores.open("agent/2")
    assert again.get_many([b"a"]) == [None]
    again.close()


def test_stores_of_different_names_do_not_meet(stores: Stores) -> None:
    one, two = stores.open("agent/3"), stores.open("agent/4")
    one.write([(b"a", b"1")])
    assert two.get_many([b"a"]) == [None]
    one.close()
    two.close()


def test_a_database_that_is_open_elsewhere_is_a_clear_error(tmp_path: Path) -> None:
    first = RocksStores(tmp_path).open("agent/0")
    with pytest.raises(Fenced, match="C360_STATE_DIR"):
        RocksStores(tmp_path).open("agent/0")
    first.close()


def test_a_damaged_database_is_begun_again(tmp_path: Path) -> None:
    stores = RocksStores(tmp_path)
    store = stores.open("agent/0")
    store.write([(b"a", b"1")])
    store.close()
    (tmp_path / "agent" / "0" / "CURRENT").write_text("rubbish\n")
    again = stores.open("agent/0")
    assert again.get_many([b"a"]) == [None]
    again.close()


def test_a_scan_over_a_damaged_block_does_not_end_as_if_there_were_no_more(tmp_path: Path) -> None:
    stores = RocksStores(tmp_path)
    store = stores.open("agent/0")
    store.write([(b"%05d" % n, os.urandom(100)) for n in range(2000)])
    store.close()
    (table,) = (tmp_path / "agent" / "0").glob("*.sst")
    data = bytearray(table.read_bytes())
    data[len(data) // 2] ^= 0xFF
    table.write_bytes(data)
    again = stores.open("agent/0")
    with pytest.raises(TaskCorrupted, match="reading"):
        list(again.scan(b"", b"\xff"))
    again.close()


def test_a_directory_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(NeedsOperator, match="C360_STATE_DIR"):
        RocksStores(tmp_path / "file")


def test_a_store_that_cannot_flush_when_it_is_closed_says_so_and_goes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A full disk at a clean stop: what was not flushed is in the changelog."""

    class Full:
        def close(self) -> None:
            raise Exception("IO error: No space left on device")  # as rocksdict does

    store = RocksStores(tmp_path).open("agent/0")
    inner, store.db = store.db, Full()  # type: ignore[assignment]
    store.close()
    inner.close()
    assert "No space left on device" in caplog.text
