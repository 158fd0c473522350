"""The master key file: nobody else's, whole, never written over; rotated so that a crash loses nothing."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from random import Random

import pytest

from c360.errors import NeedsOperator, UsageError
from c360.governance.keys import generation
from c360.ops.keys import FileMasterKeys, init_keys, read_keys, retire_keys, rotate_keys

SECRET = bytes(range(64))
random = Random(7).randbytes


@pytest.fixture
def path(tmp_path: Path) -> Path:
    init_keys(tmp_path / "deep" / "keys", random)
    return tmp_path / "deep" / "keys"


def test_a_file_is_made_for_its_owner_alone_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o777)
    try:
        made = init_keys(tmp_path / "keys", random)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o600
    keys = FileMasterKeys(tmp_path / "keys")
    assert keys.current == made
    assert keys.unwrap(keys.wrap([SECRET])) == [SECRET]


def test_a_file_that_is_there_is_never_written_over(path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(UsageError, match="exists already"):
        init_keys(path, random)
    assert path.read_bytes() == before


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o610, 0o601])
def test_a_file_that_others_can_use_is_refused(path: Path, mode: int) -> None:
    path.chmod(mode)
    with pytest.raises(UsageError, match=f"its mode is {mode:04o}.*chmod 600"):
        FileMasterKeys(path)


def test_a_missing_file_and_a_directory_are_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="bring it from where the app was first run"):
        FileMasterKeys(tmp_path / "none")
    with pytest.raises(UsageError, match="C360_KEYS"):
        FileMasterKeys(tmp_path)


def test_a_file_that_is_cut_short_or_altered_anywhere_is_refused(path: Path) -> None:
    whole = path.read_bytes()
    key = whole.index(b'"key"') + 8
    altered = [whole[:n] for n in range(0, len(whole) - 2, 7)]  # without its last newline it is still whole
    altered += [whole[:n] + bytes([whole[n] ^ 1]) + whole[n + 1 :] for n in range(key, key + 80)]
    for content in [*altered, b"[]", b'{"format": "c360 master keys 1", "keys": []}', b"\xff"]:
        path.write_bytes(content)
        with pytest.raises(UsageError, match="cut short, altered or something else") as refused:
            FileMasterKeys(path)
        assert content[key : key + 8].decode(errors="replace") not in str(refused.value) or len(content) <= key


def test_a_rotation_adds_a_key_and_what_older_ones_wrapped_still_opens(path: Path) -> None:
    before = FileMasterKeys(path)
    (old,) = before.wrap([SECRET])
    made = rotate_keys(path, random)
    after = FileMasterKeys(path)
    assert (after.current, len(read_keys(path))) == (made, 2)
    assert made != before.current
    assert after.unwrap([old]) == [SECRET]
    (renewed,) = after.rewrap([old])
    assert renewed is not None
    assert generation(renewed) == made
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_process_that_runs_since_before_a_rotation_reads_the_file_again(path: Path) -> None:
    running = FileMasterKeys(path)
    rotate_keys(path, random)
    assert running.unwrap(FileMasterKeys(path).wrap([SECRET])) == [SECRET]
    assert running.current == FileMasterKeys(path).current


def test_a_key_that_no_file_knows_is_not_unwrapped(path: Path, tmp_path: Path) -> None:
    init_keys(tmp_path / "other", random)
    assert FileMasterKeys(path).unwrap(FileMasterKeys(tmp_path / "other").wrap([SECRET])) == [None]


def test_old_keys_go_only_when_nothing_is_wrapped_by_them(path: Path) -> None:
    old = FileMasterKeys(path).current
    current = rotate_keys(path, random)
    with pytest.raises(NeedsOperator, match=old):
        retire_keys(path, {old, current})
    assert len(read_keys(path)) == 2
    assert retire_keys(path, {current}) == [old]
    assert FileMasterKeys(path).current == current
    assert len(read_keys(path)) == 1


def test_two_changes_at_once_do_not_lose_a_key_and_a_crash_leaves_the_old_file(path: Path) -> None:
    before = path.read_bytes()
    beside = path.with_name(".keys.new")
    beside.write_text("half a fi")
    with pytest.raises(UsageError, match="another process changes the keys now"):
        rotate_keys(path, random)
    assert path.read_bytes() == before
    beside.unlink()
    path.chmod(0o644)
    with pytest.raises(UsageError, match="chmod 600"):
        rotate_keys(path, random)
    assert not beside.exists()
