"""The versions that schema files had in git: what was committed, under which names, with what they referred to at the time."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

from c360.config import environment
from c360.errors import UsageError

PATTERN = ":(top,glob)**/*.avsc"  # of the whole repository: a file may come from elsewhere
LOCAL = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_COMMON_DIR")  # git sets them for its hooks
FULL = "in CI, check out with the whole history (actions/checkout: fetch-depth: 0), else `git fetch --unshallow`"


@dataclass(frozen=True)
class Commit:
    """`files`: the schema files of the repository as they were then, path -> id of its content."""

    id: str
    at: int
    files: Mapping[str, str]
    renames: Sequence[tuple[str, str]]  # old path, new path

    @property
    def said(self) -> str:
        return f"{self.id[:9]} of {datetime.fromtimestamp(self.at, UTC):%Y-%m-%d}"


@dataclass(frozen=True)
class Gone:
    """A file that was committed and is not there any more."""

    path: Path
    last: Commit  # that had it


@dataclass
class History:
    """Commits that touched schema files, the newest first, and the names that files of now had in each."""

    top: Path
    commits: list[Commit]

    @cached_property
    def contents(self) -> dict[str, bytes]:
        """By id, all that the commits have."""
        ids = sorted({blob for commit in self.commits for blob in commit.files.values()})
        return dict(_contents(self.top, ids))

    def path_of(self, file: Path) -> str:
        """In the repository. A link that leads out of it is the link."""
        whole = file.resolve()
        if not whole.is_relative_to(self.top):
            whole = file.parent.resolve() / file.name
        return whole.relative_to(self.top).as_posix()

    def names(self, files: Sequence[Path]) -> Iterator[tuple[Commit, dict[Path, str]]]:
        """With each commit the path that each of the files had then, of those that it has."""
        asked = {self.path_of(file): file for file in files}
        now = [*asked, *(self.commits[0].files if self.commits else ())]  # others, too: a name may have been theirs
        owner = {path: path for path in now}
        had = {path: [path] for path in now}
        for commit in self.commits:
            then = {file: _there(commit, owner, path, had[path]) for path, file in asked.items()}
            yield commit, {file: path for file, path in then.items() if path is not None}
            for old, new in commit.renames:
                if new in owner and owner.get(old) != owner[new]:
                    had[owner[new]].append(old)
                    owner[old] = owner[new]  # before this commit that name was this file's

    def gone(self, files: Sequence[Path], directory: Path) -> list[Gone]:
        """Files that were in the directory."""
        below = directory.resolve()
        known: set[str] = {self.path_of(file) for file in files}
        found: dict[str, Gone] = {}
        for commit, names in self.names(files):
            known |= {*names.values(), *(old for old, new in commit.renames if new in known)}
            for path in commit.files:
                if path not in known and path not in found and (self.top / path).is_relative_to(below):
                    found[path] = Gone(self.top / path, commit)
        return [found[path] for path in sorted(found)]


def _there(commit: Commit, owner: Mapping[str, str], path: str, names: Sequence[str]) -> str | None:
    """The name that a file of now had in a commit; None: it had none."""
    return next((name for name in names if owner[name] == path and name in commit.files), None)


def history(directory: Path, revision: str | None) -> History | None:
    """Of the repository that the directory is in; None: it is in none, and no revision was named.

    `revision`: what git takes, whose history it is, or two as A..B: what was at A, and the commits after it up to B. Raises
    UsageError where that does not exist, or where not all of the history is here.
    """
    top = _top(directory)
    if top is None:
        if revision is not None:
            raise UsageError(f"--git {revision}: {directory} is in no git repository")
        return None
    first, until = _range(revision)
    if revision is None and not _succeeds(top, "rev-parse", "--verify", "--quiet", "HEAD"):
        return History(top, [])  # nothing was committed yet
    end = _commit(top, until, revision)
    start = None if first is None else _commit(top, first, revision)
    shallow = _git(top, "rev-parse", "--is-shallow-repository").strip() == b"true"
    if shallow and (start is None or not _succeeds(top, "merge-base", "--is-ancestor", start, end)):
        raise UsageError(f"this clone is shallow, so older versions cannot be compared with: {FULL}")
    return History(top, _commits(top, end, start))


def _range(revision: str | None) -> tuple[str | None, str]:
    first, dots, until = (revision or "HEAD").partition("..")
    if not dots:
        return None, first
    if until.startswith(".") or not first:
        raise UsageError(f"--git {revision}: write A..B, or A.. for all since A")
    return first, until or "HEAD"


def _top(directory: Path) -> Path | None:
    """Where the repository begins; asked of the disk, so that what git says goes wrong is told and not taken for none."""
    resolved = directory.resolve()
    if not any((above / ".git").exists() for above in (resolved, *resolved.parents)):
        return None
    return Path(_git(resolved, "rev-parse", "--show-toplevel").decode().rstrip("\n")).resolve()


def _commit(top: Path, name: str, revision: str | None) -> str:
    """Its id. What begins with a dash is no revision."""
    words = ("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
    found = _run(top, words)
    if found.returncode:
        raise UsageError(f"--git {revision or name}: there is no revision {name} here; {FULL}")
    return found.stdout.decode().strip()


def _commits(top: Path, end: str, start: str | None) -> list[Commit]:
    """The newest first; after `start`, with what was there at it."""
    words = ["rev-list", "--topo-order", "--reverse", "--full-history", "--parents", "--timestamp"]
    lines = [line.split() for line in _git(top, *words, end, "--", PATTERN).decode().splitlines()]
    asked = "".join(" ".join(line[1:3]) + "\n" for line in lines)  # a merge: beside its first parent
    told = _git(top, "diff-tree", "--stdin", "-r", "--root", "--raw", "-z", "-M", "--", PATTERN, given=asked.encode())
    changes = _changes(told, {line[1] for line in lines})
    found: dict[str, Commit] = {}
    for at, name, *parents in lines:
        files = dict(found[parents[0]].files) if parents and parents[0] in found else {}
        for status, blob, paths in changes.get(name, ()):
            if status in "DR":
                files.pop(paths[0], None)
            if status != "D":
                files[paths[-1]] = blob
        renames = [(paths[0], paths[1]) for status, _, paths in changes.get(name, ()) if status == "R"]
        found[name] = Commit(name, int(at), files, renames)
    if start is None:
        return [*reversed(found.values())]
    since = set(_git(top, "rev-list", f"{start}..{end}").decode().split())
    kept = [commit for name, commit in reversed(found.items()) if name in since]
    return [*kept, _as_at(top, start)]


def _as_at(top: Path, commit: str) -> Commit:
    at = int(_git(top, "show", "--no-patch", "--format=%ct", commit).split()[-1])
    entries = _git(top, "ls-tree", "-r", "-z", "--full-tree", commit).decode("utf-8", "surrogateescape").split("\0")
    files = {
        path: said.split()[2]
        for entry in entries
        if entry.endswith(".avsc")
        for said, _, path in [entry.partition("\t")]
    }
    return Commit(commit, at, files, ())


def _changes(told: bytes, commits: set[str]) -> dict[str, list[tuple[str, str, list[str]]]]:
    """By commit: status, id of the content, one path or two."""
    words = iter(told.decode("utf-8", "surrogateescape").split("\0"))
    found: dict[str, list[tuple[str, str, list[str]]]] = {}
    current: list[tuple[str, str, list[str]]] = []
    for word in words:
        if word in commits:
            current = found.setdefault(word, [])
        elif word.startswith(":"):
            *_, blob, status = word.split(" ")
            paths = [next(words) for _ in range(2 if status[0] in "RC" else 1)]
            current.append((status[0], blob, paths))
    return found


def _contents(top: Path, ids: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    told = _git(top, "cat-file", "--batch", given="".join(f"{one}\n" for one in ids).encode())
    at = 0
    for one in ids:
        end = told.index(b"\n", at)
        head = told[at:end]
        at = end + 1
        kind, _, size = head.partition(b" ")[2].partition(b" ")
        if kind != b"blob":  # a submodule or a link to nowhere
            continue
        yield one, told[at : at + int(size)]
        at += int(size) + 1


def _succeeds(top: Path, *words: str) -> bool:
    return _run(top, words).returncode == 0


def _git(top: Path, *words: str, given: bytes | None = None) -> bytes:
    done = _run(top, words, given)
    if done.returncode:
        raise UsageError(f"git {words[0]} failed: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


def _run(top: Path, words: Sequence[str], given: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    try:
        kept = {name: said for name, said in environment().items() if name not in LOCAL}
        return subprocess.run(["git", "-C", str(top), *words], input=given, capture_output=True, env=kept)
    except FileNotFoundError:
        raise UsageError("git is not installed, and the earlier versions of the schemas are in it") from None
