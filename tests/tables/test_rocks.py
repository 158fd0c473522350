"""What only RocksDB can get wrong: memory that its databases share."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from c360.tables.budget import Budget
from c360.tables.rocks import RocksStores

PROGRAM = """
import sys
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
