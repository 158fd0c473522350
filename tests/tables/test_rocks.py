"""What only RocksDB can get wrong: memory that its databases share."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

from c360.tables.budget import Budget
from c360.tables.rocks import RocksStores, entries_of

PROGRAM = """
import sys
import time
from pathlib import Path
from c360.tables.rocks import RocksStores

stores = RocksStores(Path(sys.argv[1]))
tasks = [stores.open(f"task-{i}") for i in range(8)]
value = bytes(10_000)
for task in tasks:
    task.write([(b"%08d" % i, value) for i in range(stores.budget.writes // 6 // len(value))])
tasks[-1].write([(b"last", b"!")])
assert tasks[-1].get_many([b"last"]) == [b"!"]
"""


def test_a_write_comes_back_when_other_idle_tasks_fill_the_shared_write_buffer(tmp_path: Path) -> None:
    """In a process of its own: a write that stalls holds the GIL, and no time-out of pytest's could end it."""
    done = subprocess.run([sys.executable, "-c", PROGRAM, str(tmp_path)], timeout=100, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_many_tasks_in_little_memory_do_not_write_a_file_at_each_commit(tmp_path: Path) -> None:
    """An idle task held 2.7 MB of write buffers: with 60 of them all was full for ever, and each commit wrote a file.

    Found by a soak: 20 files and 80 KB of RocksDB's own log a second.
    """
    stores = RocksStores(tmp_path, Budget(16 << 20))
    tasks = [stores.open(f"task-{i}") for i in range(60)]
    for commit in range(20):
        for task in tasks:
            task.write([(b"%d" % commit, bytes(200))])
    numbers = [int(path.stem) for path in tmp_path.rglob("*.sst")]
    for task in tasks:
        task.close()
    assert max(numbers, default=0) == 0, "files written out before anything was full"


def test_what_is_deleted_is_in_the_files_until_they_are_swept(tmp_path: Path) -> None:
    """Also in the list of the files, which names their first and last keys."""
    stores = RocksStores(tmp_path)
    store = stores.open("task/0")
    store.write([(b"k%04d" % i, b"a value that can be compressed " * 4) for i in range(1_000)])
    store.db.flush()
    store.write([(b"k0000", None), (b"k0500", b"another")])

    def found() -> tuple[int, int]:
        entries = [key for key, _ in entries_of(tmp_path / "task/0")]
        others = [path.read_bytes() for path in (tmp_path / "task/0").iterdir() if path.suffix != ".sst"]
        return entries.count(b"k0000"), sum(data.count(b"k0000") for data in others)

    store.db.flush()
    assert found()[0] == 1, "the deletion is in a file of its own"
    assert found()[1] > 0
    assert store.sweep()
    assert found() == (0, 0)
    assert [value for key, value in entries_of(tmp_path / "task/0") if key == b"k0500"] == [b"another"]
    store.close()
    assert not store.sweep(), "it is closed"


def test_stores_are_swept_by_themselves_and_closed_meanwhile(tmp_path: Path) -> None:
    stores = RocksStores(tmp_path)
    kept, closed = stores.open("task/0"), stores.open("task/1")
    for store in (kept, closed):
        store.write([(b"gone", b"x"), (b"stays", b"x")])
        store.db.flush()
        store.write([(b"gone", None)])
    stores.keep_swept(0.05)
    closed.close()
    deadline = time.monotonic() + 30
    while not kept.swept_at():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    stores.close()  # while they are swept their files are written anew all the time, and may be missed
    while {key for key, _ in entries_of(tmp_path / "task/0")} != {b"stays"}:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    kept.close()


def test_a_small_store_that_is_closed_has_no_key_of_what_is_deleted(tmp_path: Path) -> None:
    """A worker that had just restored a task from its changelog stopped, and a forgotten customer's id was in its files."""
    before = RocksStores(tmp_path).open("task/before")
    before.write([(b"the-stays", b"x"), (b"the-gone", None)])
    before.close()
    assert _anywhere(tmp_path, b"the-gone"), "nobody said that these are to be swept"
    stores = RocksStores(tmp_path)
    stores.keep_swept()
    stores.open("task/before").close()
    store = stores.open("task/now")
    store.write([(b"the-stays", b"x"), (b"the-gone", None)])
    store.close()
    stores.close()
    assert not _anywhere(tmp_path, b"the-gone")
    assert [key for name in ("before", "now") for key, _ in entries_of(tmp_path / "task" / name)] == [b"the-stays"] * 2


def _anywhere(directory: Path, key: bytes) -> bool:
    return any(key in path.read_bytes() for path in directory.rglob("*") if path.is_file())


def test_a_store_that_nobody_opens_is_removed_and_one_that_is_open_or_was_lately_stays(tmp_path: Path) -> None:
    stores = RocksStores(tmp_path)
    names = ["agent/0", "agent/1", "agent/2", "copy"]
    left, lately, kept, again = [stores.open(name) for name in names]
    for store in (left, lately, kept, again):
        store.write([(b"k", b"v")])
    for store in (left, lately, again):
        store.close()
    long_ago = time.time() - 3600
    for store in (left, kept, again):
        os.utime(store.path, (long_ago, long_ago))
    opened = stores.open("copy")
    stores.remove_left(60)
    assert [(tmp_path / name / "CURRENT").exists() for name in names] == [False, True, True, True]
    assert not list(tmp_path.rglob("*.gone"))
    assert opened.get_many([b"k"]) == kept.get_many([b"k"]) == [b"v"]
    assert stores.open("agent/0").get_many([b"k"]) == [None], "made anew, to be restored"


def test_what_a_process_died_over_while_it_removed_it_is_removed(tmp_path: Path) -> None:
    RocksStores(tmp_path).open("agent/0").close()
    (tmp_path / "agent/0").rename(tmp_path / "agent/0.gone")
    RocksStores(tmp_path).remove_left(3600)
    assert not list((tmp_path / "agent").iterdir())


def test_who_opens_a_store_while_old_ones_are_removed_has_it(tmp_path: Path) -> None:
    stores = RocksStores(tmp_path)
    done = threading.Event()

    def remove() -> None:
        while not done.is_set():
            stores.remove_left(0)

    thread = threading.Thread(target=remove)
    thread.start()
    try:
        for i in range(50):
            store = stores.open("agent/0")
            store.write([(b"k", b"%d" % i)])
            store.db.flush()
            assert store.get_many([b"k"]) == [b"%d" % i]
            assert (store.path / "CURRENT").exists()
            store.close()
    finally:
        done.set()
        thread.join()


def test_what_is_kept_under_a_name_is_forgotten_and_what_is_not_there_is_not_made(tmp_path: Path) -> None:
    stores = RocksStores(tmp_path)
    store = stores.open("shop.customer.v1/0")
    store.write([(b"key", b"value")])
    store.close()
    stores.forget("shop.customer.v1/0")
    stores.forget("shop.customer.v1/1")
    assert not list((tmp_path / "shop.customer.v1").iterdir())
    stores.close()
