"""The directory of local state is a cache: it may be taken, damaged, full or gone, and nothing is lost."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.stories.sent import Sent, note
from tests.stories.tools import assert_verified, attributes, stop, wait_for_rest, wait_until, worker, working

APP = "tests.stories.notes:app"


def assert_all_known(sent: Sent) -> None:
    assert {s: a["notes"] for s, a in attributes(sent.plan, sent.cluster).items()} == sent.notes
    assert_verified(sent.plan, sent.cluster)


def ends_with(kafka: str, sent: Sent, state: Path, log: Path) -> tuple[int, str]:
    """Exit code of a worker that cannot go on, and its last line."""
    process = worker(kafka, state, log, APP, STORY=sent.name)
    try:
        return process.wait(60), log.read_text().splitlines()[-1]
    finally:
        process.kill()
        process.wait()


def test_a_second_worker_in_a_state_dir_is_refused_and_the_first_goes_on(
    sent: Sent, kafka: str, tmp_path: Path
) -> None:
    state, log = tmp_path / "state", tmp_path / "log"
    with working(kafka, state, log, APP, STORY=sent.name) as process:
        wait_until((state / "slot").exists, process, log)
        code, said = ends_with(kafka, sent, state, tmp_path / "second")
        assert code == 3
        assert f"{state} is in use by another worker" in said
        for _ in range(4):
            sent.good()
        sent.producer.flush()
        wait_for_rest(sent.plan, sent.cluster, process, log)
        assert_all_known(sent)
        assert stop(process) == 0


def test_a_state_dir_that_cannot_be_used_is_named(sent: Sent, kafka: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("no directory")
    for state in (file, file / "below", Path("/proc/c360")):
        code, said = ends_with(kafka, sent, state, tmp_path / "log")
        assert code == 4
        assert f"the state directory {state} cannot be used" in said


# ----------------------------------------------------------------------------------------------------------- damage
def overwritten(path: Path) -> None:
    path.write_bytes(os.urandom(path.stat().st_size))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[20] ^= 0xFF
    path.write_bytes(data)


DAMAGE: list[tuple[str, Callable[[Path], None]]] = [
    ("CURRENT", overwritten), ("CURRENT", Path.unlink), ("CURRENT", cut),
    ("MANIFEST-*", overwritten), ("MANIFEST-*", Path.unlink), ("MANIFEST-*", cut),
    ("*.sst", overwritten), ("*.sst", Path.unlink), ("*.sst", flipped),
    ("OPTIONS-*", overwritten), ("rocksdict-config.json", overwritten), ("IDENTITY", cut),
]  # fmt: skip


def test_damaged_state_is_made_again_from_its_changelog(sent: Sent, kafka: str, tmp_path: Path) -> None:
    state, log = tmp_path / "state", tmp_path / "log"
    todo = list(DAMAGE)
    for _ in range(4):
        for database in sorted(p.parent for p in state.rglob("IDENTITY")):
            pattern, harm = todo[0]
            files = list(database.glob(pattern))
            if files:  # a table that nothing was written to has no data file
                todo.pop(0)
                for file in files:
                    harm(file)
            if not todo:
                break
        with working(kafka, state, log, APP, STORY=sent.name) as process:
            for n in range(40):
                sent.good(to=f"crm:{n}")
            sent.producer.flush()
            wait_for_rest(sent.plan, sent.cluster, process, log)
            assert_all_known(sent)
            assert stop(process) == 0, log.read_text()
        if not todo:
            break
    assert todo == []
    assert "is made again from its changelog" in log.read_text()


# --------------------------------------------------------------------------------------------------------- full disk
@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A directory on a disk of 8 MB."""
    directory = tmp_path / "disk"
    directory.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(directory)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a small file system")
    yield directory
    subprocess.run(["umount", "--lazy", str(directory)], check=True)


def send_large(sent: Sent, customers: int) -> None:
    """A note of 400 KB of each, which nothing makes smaller."""
    for n in range(customers):
        sent(str(n).encode(), note(None, os.urandom(200_000).hex()))
        sent.notes[f"crm:{n}"] = 1


def test_a_full_disk_ends_the_worker_with_a_clear_error_and_room_is_all_it_needs(
    sent: Sent, kafka: str, tmp_path: Path, small_disk: Path
) -> None:
    log = tmp_path / "log"
    with working(kafka, small_disk, log, APP, STORY=sent.name) as process:
        send_large(sent, 140)
        while process.poll() is None:
            sent.good()
            sent.good(to="crm:1")
            sent.producer.flush()
            try:
                process.wait(0.1)
            except subprocess.TimeoutExpired:
                continue
        assert process.returncode == 4
    said = log.read_text().splitlines()[-1]
    assert "no space left" in said.lower()
    assert "Nothing is lost" in said
    assert "Traceback" not in log.read_text()
    subprocess.run(["mount", "-o", "remount,size=300m", str(small_disk)], check=True)
    with working(kafka, small_disk, log, APP, STORY=sent.name) as process:
        wait_for_rest(sent.plan, sent.cluster, process, log)
        sent.good()
        sent.producer.flush()
        wait_for_rest(sent.plan, sent.cluster, process, log)
        assert_all_known(sent)
        assert stop(process) == 0


def test_a_disk_that_is_full_only_at_the_end_keeps_nobody_from_stopping(
    sent: Sent, kafka: str, tmp_path: Path, small_disk: Path
) -> None:
    log = tmp_path / "log"
    with working(kafka, small_disk, log, APP, STORY=sent.name) as process:
        send_large(sent, 40)
        sent.producer.flush()
        wait_for_rest(sent.plan, sent.cluster, process, log)
        assert stop(process) == 0
    assert "No space left on device" in log.read_text()
    state = tmp_path / "elsewhere"
    shutil.copytree(small_disk, state)
    with working(kafka, state, log, APP, STORY=sent.name) as process:
        sent.good()
        sent.producer.flush()
        wait_for_rest(sent.plan, sent.cluster, process, log)
        assert_all_known(sent)
        assert stop(process) == 0
