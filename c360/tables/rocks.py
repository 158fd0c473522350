"""The store on RocksDB: one database per task, one block cache and write-buffer budget per process.

The write-ahead log is off: after a crash RocksDB opens at an earlier batch, whole, and the engine replays the rest from
the changelog, from the position that lies in that same batch.

What is deleted leaves the files when they are compacted, and RocksDB may not do that for ever. Where it has to be gone, `sweep`
does it once a day: one thread per process, one store at a time; and a small store when it is closed, as nobody knows when
it is opened again. What nobody has opened for so long, as its task has moved to another worker, is removed whole: it is only
a copy. `entries_of` reads what files hold, deleted or not.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import starmap
from operator import itemgetter
from pathlib import Path
from typing import cast
from weakref import WeakSet

from rocksdict import (
    AccessType,
    BlockBasedOptions,
    BottommostLevelCompaction,
    Cache,
    CompactOptions,
    DBCompressionType,
    Options,
    Rdict,
    WriteBatch,
    WriteBufferManager,
    WriteOptions,
)

from c360.errors import Fenced, NeedsOperator, TaskCorrupted
from c360.tables.budget import Budget
from c360.tables.store import Entry

log = logging.getLogger("c360.tables")

TASK_BYTES = 512 << 10  # of write buffers, at least: with less than it takes when idle each commit would write a file

SWEEP_S = 86_400.0  # how long what was deleted may stay in the files of a store that is swept
SMALL = 16 << 20  # bytes: what is not more is swept when it is closed: that takes 8 ms for little, 130 for all of it
SWEPT = "SWEPT"  # a file beside RocksDB's; its time is when that was last done
GONE = ".gone"  # ends the name of a directory that is being removed
_NOTHING = b"\xff\xff"  # no table has this prefix

# What an empty directory in its place would not mend. Everything else is damage: the changelog has it all.
OF_THE_MACHINE = (
    "Permission denied", "Operation not permitted", "Read-only file system", "No space left", "quota exceeded",
    "Too many open files", "Input/output error", "File exists", "Not a directory",
)  # fmt: skip


class RocksStore:
    """One task's database. Made by `RocksStores.open`."""

    def __init__(self, path: Path, options: Options, budget: Budget) -> None:
        self.path = path
        self.options = options
        self.budget = budget
        self.closed = self.free = False  # free: and RocksDB has let go of the directory
        self.swept_last = False  # when it is closed
        self.deleted = path.exists()  # whether its files, or what becomes of its memory, may hold what is deleted
        self._sweeping = threading.Lock()
        try:
            self.db = Rdict(str(path), options)
        except Exception as error:  # rocksdict raises bare Exception with RocksDB's text
            text = str(error)
            if "lock" in text.lower():
                raise Fenced(
                    f"the state in {path} is in use by another process; give each worker its own C360_STATE_DIR"
                ) from error
            if any(why in text for why in OF_THE_MACHINE):
                raise NeedsOperator(
                    f"the state in {path} cannot be opened: {text}. Nothing is lost: it is in Kafka."
                    " Check free space and permissions of C360_STATE_DIR, then start again"
                ) from error
            raise TaskCorrupted(f"the state in {path} is damaged: {text}") from error
        self.unlogged = WriteOptions()
        self.unlogged.disable_wal = True  # type: ignore[method-assign, assignment]  # a property, declared as a method
        # On a full disk a write would wait for ever for memory to be written out, and not say why.
        self.unlogged.no_slowdown = True

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        try:
            found = cast("list[bytes | None]", self.db.get(list(keys)))
        except Exception as error:
            raise TaskCorrupted(f"reading {self.path} failed: {error}") from error
        return found

    def write(self, entries: Iterable[Entry]) -> None:
        # In the order of the keys memory takes 150,000 ids in half the time, sorting included (docs/decisions/0009).
        entries = sorted(entries, key=_key)
        deletes = None in map(_value, entries)
        while True:
            try:
                self.db.write(_batch(entries, deletes=deletes), self.unlogged)
                break
            except Exception as error:
                broken = self.db.property_int_value("rocksdb.background-errors")
                waits = "stall" in str(error)
                if broken or not waits:
                    why = "the disk takes nothing, is there no space left?" if waits else error
                    raise TaskCorrupted(f"writing {self.path} failed: {why}") from error
            time.sleep(0.01)  # the disk catches up
        # Afterwards, or a sweep that begins meanwhile takes it for done.
        self.deleted = self.deleted or deletes

    def scan(self, start: bytes, stop: bytes) -> Iterator[tuple[bytes, bytes]]:
        cursor = self.db.iter()
        cursor.seek(start)
        while cursor.valid():
            key: bytes = cursor.key()
            if key >= stop:
                return
            yield key, cursor.value()
            cursor.next()
        try:
            cursor.status()  # a block that cannot be read ends it as well
        except Exception as error:
            raise TaskCorrupted(f"reading {self.path} failed: {error}") from error

    def size_bytes(self) -> int:
        if self.closed:
            return 0
        return sum(
            int(self.db.property_int_value(name) or 0)
            for name in ("rocksdb.total-sst-files-size", "rocksdb.cur-size-all-mem-tables")
        )

    # ----------------------------------------------------------------------------------------------------- sweeping
    def swept_at(self) -> float:
        """When files were last rid of what is deleted, in seconds since 1970; 0.0: never."""
        try:
            return (self.path / SWEPT).stat().st_mtime
        except OSError:
            return 0.0

    def sweep(self) -> bool:
        """Write all files anew without what is deleted; whether it was done. May take long; from any thread.

        RocksDB's list of files names their first and last keys, and is made anew with each change of it: after the
        compaction there is one more, so that the names of files that are gone are gone as well.
        """
        with self._sweeping:
            if self.closed:
                return False
            begun = time.time()
            self.deleted = False
            wholly = CompactOptions()
            wholly.set_bottommost_level_compaction(BottommostLevelCompaction.force())
            try:
                self.db.flush()
                self.db.compact_range(None, None, wholly)
                self.db.delete(_NOTHING, write_opt=self.unlogged)
                self.db.flush()
                (self.path / SWEPT).touch()
                os.utime(self.path / SWEPT, (begun, begun))
            except Exception as error:  # the disk is full, or the store is being closed: it is tried again
                self.deleted = True
                log.warning("sweeping %s: %s", self.path, error)
                return False
            return True

    def close(self) -> None:
        """Write out what is in memory, if that can be done: the changelog has it anyway."""
        if self.swept_last and self.deleted and self.size_bytes() <= SMALL:
            self.sweep()
        error = self._let_go()
        if error is not None:
            log.warning("closing %s: %s; the next worker makes up for it from the changelog", self.path, error)

    def destroy(self) -> None:
        self._let_go()
        shutil.rmtree(self.path, ignore_errors=True)

    def _let_go(self) -> Exception | None:
        if self.closed:
            return None
        self.closed, failed = True, None
        if self._sweeping.locked():
            self.db.cancel_all_background(True)
        with self._sweeping:
            try:
                self.db.close()
            except Exception as error:  # of writing it out: the disk is full
                failed = error
            with suppress(OSError):
                os.utime(self.path)  # since when nobody has it open
        del self.db  # whatever came of it, the directory is free
        self.free = True
        return failed


_key, _value = itemgetter(0), itemgetter(1)


def _batch(entries: Sequence[Entry], *, deletes: bool) -> WriteBatch:
    batch = WriteBatch(raw_mode=True)
    put, delete = batch.put, batch.delete
    if not deletes:  # nearly always, and half the time without a look at each
        deque(starmap(put, entries), maxlen=0)
        return batch
    for key, value in entries:
        if value is None:
            delete(key)
        else:
            put(key, value)
    return batch


class RocksStores:
    """Opens databases under a directory, with shared memory budgets."""

    def __init__(self, directory: Path, budget: Budget | None = None) -> None:
        self.directory = directory
        self.budget = budget or Budget()
        self.cache = Cache(self.budget.blocks)
        # Never stalling: a stalled write waits for memory that only writes to the other databases would flush, with the
        # GIL held, so a process whose other tasks are idle would stand still for ever.
        self.buffers = WriteBufferManager(self.budget.writes, False)
        self._swept = False  # whether what is deleted is to leave the files
        self._opened: WeakSet[RocksStore] = WeakSet()
        self._opening: list[Path] = []
        self._lock = threading.Lock()  # of these two, against removing what is opened at the same moment
        self._stop = threading.Event()
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise NeedsOperator(f"C360_STATE_DIR {directory} cannot be made: {error.strerror}") from error

    def options(self) -> Options:
        options = Options(raw_mode=True)
        options.create_if_missing(True)
        options.set_write_buffer_manager(self.buffers)
        options.set_write_buffer_size(16 << 20)
        options.set_max_write_buffer_number(3)
        # Most ids were never seen: a filter over what is in memory says so in 0.4 µs, a search takes 1.3. It is made whole
        # with the first write; so large, it has 10 bits for each id of a full buffer.
        options.set_memtable_whole_key_filtering(True)
        options.set_memtable_prefix_bloom_ratio(0.015)
        options.set_arena_block_size(64 << 10)  # an idle task takes 0.3 MB of the shared budget, not 2.7
        options.set_max_background_jobs(2)
        options.set_keep_log_file_num(2)
        options.set_max_log_file_size(1 << 20)  # they have no bound by themselves
        options.set_max_manifest_file_size(1)  # with each change of the files: it has keys of files that are gone
        options.set_max_open_files(256)
        options.set_compression_type(DBCompressionType.lz4())
        table = BlockBasedOptions()
        table.set_bloom_filter(10, False)
        table.set_block_size(8192)
        table.set_block_cache(self.cache)
        table.set_cache_index_and_filter_blocks(True)
        options.set_block_based_table_factory(table)
        return options

    def open(self, name: str) -> RocksStore:
        path = self.directory / name
        with self._lock:
            self._opening.append(path)
        try:
            store = self._open(path)
            with self._lock:
                store.swept_last = self._swept
                self._opened.add(store)
        finally:
            with self._lock:
                self._opening.remove(path)
        self.buffers.set_buffer_size(max(self.budget.writes, TASK_BYTES * len(self._opened)))
        return store

    def _open(self, path: Path) -> RocksStore:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            store = RocksStore(path, self.options(), self.budget)
        except TaskCorrupted as error:
            log.warning("%s; it is made again from its changelog", error)
            shutil.rmtree(path, ignore_errors=True)
            store = RocksStore(path, self.options(), self.budget)
        except OSError as error:
            raise NeedsOperator(f"the state directory {path.parent} cannot be made: {error.strerror}") from error
        return store

    def forget(self, name: str) -> None:
        if (self.directory / name).exists():
            self.open(name).destroy()

    def close(self) -> None:
        self._stop.set()

    def keep_swept(self, every_s: float = SWEEP_S) -> None:
        """From now on what is deleted leaves the files of each store within this time; one that nobody opens for so long goes.

        Nobody else may use the directory: a worker holds it by a lock.
        """
        with self._lock:
            self._swept = True
            for store in self._opened:
                store.swept_last = True
        threading.Thread(target=self._sweep, args=(every_s,), name="sweep", daemon=True).start()

    def _sweep(self, every_s: float) -> None:
        while not self._stop.wait(min(every_s / 4, 60.0)):
            for store in list(self._opened):
                if not self._stop.is_set() and time.time() - store.swept_at() >= every_s / 2:
                    store.sweep()
            self.remove_left(every_s * 3 / 4)

    def remove_left(self, age_s: float) -> None:
        """Remove the directories of stores that nobody has had open for so long: of tasks that are others' now.

        Renamed first, so that who opens one meanwhile finds either all of it or nothing, and restores it from its changelog.
        """
        for path in [current.parent for current in self.directory.rglob("CURRENT")]:  # each RocksDB has one
            with self._lock, suppress(OSError):
                held = [*self._opening, *(store.path for store in self._opened if not store.free)]
                if self._stop.is_set() or path in held or time.time() - path.stat().st_mtime < age_s:
                    continue
                path.rename(path.with_name(path.name + GONE))
                log.info("%s is removed: its task is another worker's since %.0f s or more", path, age_s)
        for path in list(self.directory.rglob(f"*{GONE}")):  # also those that a process died over
            shutil.rmtree(path, ignore_errors=True)


# ----------------------------------------------------------------------------------------------------------- inspection
def entries_of(directory: Path) -> Iterator[tuple[bytes, bytes]]:
    """All that the files of a store hold, also what is deleted or was written over; a worker may have it open.

    Each file is read by itself, as the deletion of what is in one stands in another. (Within one there is but one state of
    a key.) Keys of deletions are not seen. What a worker has in memory is in no file.
    """
    read: set[str] = set()
    while files := [path for path in sorted(directory.glob("*.sst")) if path.name not in read]:
        for path in files:
            read.add(path.name)
            yield from _entries_of_file(path)


def _entries_of_file(path: Path) -> Iterator[tuple[bytes, bytes]]:
    with tempfile.TemporaryDirectory() as alone:
        (Path(alone) / path.name).symlink_to(path.absolute())
        options = Options(raw_mode=True)
        try:
            Rdict.repair(alone, options)
            db = Rdict(alone, options, access_type=AccessType.read_only())
        except Exception as error:
            if path.exists():
                raise NeedsOperator(f"{path} cannot be read: {error}") from error
            return  # compacted meanwhile: what it had is in another one
        try:
            cursor = db.iter()
            cursor.seek_to_first()
            while cursor.valid():
                yield cursor.key(), cursor.value()
                cursor.next()
        finally:
            db.close()
