"""What stands in the files of brokers and workers, read here byte by byte: nothing of c360's own readers of topics is asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from c360.tables.rocks import entries_of


def counted(logs: Path, words: list[str], topics: set[str]) -> dict[str, Counter[str]]:
    """How often each stands in the log files of these topics, byte by byte."""
    found: dict[str, Counter[str]] = {}
    for path in logs.rglob("*.log"):
        topic = path.parent.name.rpartition("-")[0]
        if topic in topics:
            with suppress(FileNotFoundError):
                data = path.read_bytes()
                for word in words:
                    if n := data.count(word.encode()):
                        found.setdefault(topic, Counter())[word] += n
    return found


def in_state(directories: list[Path], words: list[str], without: Sequence[str] = ()) -> Counter[str]:
    """The same of state directories: all files as they are, and all entries of RocksDB's tables.

    `without`: paths below that begin so are passed over.
    """
    found: Counter[str] = Counter()
    for directory in directories:
        datas = []
        for path in directory.rglob("*"):
            if _is_below(path, directory, without):
                continue
            with suppress(FileNotFoundError, IsADirectoryError):
                datas.append(path.read_bytes())
        for store in {path.parent for path in directory.rglob("*.sst")}:
            if not _is_below(store, directory, without):
                datas += [key + b"\0" + value for key, value in entries_of(store)]
        for word in words:
            found[word] += sum(data.count(word.encode()) for data in datas)
    return +found


def _is_below(path: Path, directory: Path, names: Sequence[str]) -> bool:
    parts = path.relative_to(directory).parts
    return any(part == name or part.endswith(f".{name}") for part in parts for name in names)


def where_in(directories: list[Path], words: list[str]) -> dict[str, Counter[str]]:
    """How often each stands in which store, or in which file of none."""
    found: dict[str, Counter[str]] = {}
    for directory in directories:
        stores = {path.parent for path in directory.rglob("*.sst")}
        for path in directory.rglob("*"):
            with suppress(FileNotFoundError, IsADirectoryError):
                _count(found, f"{path.relative_to(directory)}", path.read_bytes(), words)
        for store in stores:
            for key, value in entries_of(store):
                _count(found, f"{store.relative_to(directory)} {key[:1]!r}", key + b"\0" + value, words)
    return found


def _count(found: dict[str, Counter[str]], place: str, data: bytes, words: list[str]) -> None:
    for word in words:
        if n := data.count(word.encode()):
            found.setdefault(place, Counter())[word] += n
