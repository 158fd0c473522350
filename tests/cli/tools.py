"""Running `c360` as a user does: a process of its own, with the settings that the test names and no others."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PATIENCE_S = 60.0


@dataclass(frozen=True)
class Ran:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass(frozen=True)
class C360:
    """The command line with settings: `c360("plan", "--json")`."""

    settings: Mapping[str, str] = field(default_factory=dict)
    directory: Path = ROOT

    def __call__(self, *words: str) -> Ran:
        done = subprocess.run(
            self._command(words), cwd=self.directory, env=self._environ(), capture_output=True, text=True,
            timeout=PATIENCE_S,
        )  # fmt: skip
        assert "Traceback" not in done.stderr, done.stderr
        return Ran(done.returncode, done.stdout, done.stderr)

    def having(self, **settings: str) -> C360:
        """The same with other settings; an empty one is not set."""
        merged = {**self.settings, **settings}
        return C360({name: value for name, value in merged.items() if value}, self.directory)

    @contextmanager
    def started(self, log: Path, *words: str) -> Iterator[subprocess.Popen[bytes]]:
        """A command that runs on; killed at the end of the block if it is still there."""
        with log.open("ab") as out:
            process = subprocess.Popen(
                self._command(words), cwd=self.directory, env=self._environ(), stdout=out, stderr=out
            )
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def _command(self, words: tuple[str, ...]) -> list[str]:
        return [sys.executable, "-m", "c360", *words]

    def _environ(self) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("C360_")}
        return {**inherited, "PYTHONPATH": str(ROOT), **self.settings}


def wait_for_line(pattern: str, log: Path, process: subprocess.Popen[bytes]) -> re.Match[str]:
    """The first place in a log that matches; waits for it while the process lives."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        if found := re.search(pattern, log.read_text()):
            return found
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)
