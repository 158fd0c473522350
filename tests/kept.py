"""A server beside the tests, under the keeper of our development Kafka: it ends with `stop`, or with who started it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from c360.ops.kafka import keeper


class Kept:
    """The process of `command`, and its directory `home`, which is removed with it. A context manager that ends it."""

    def __init__(self, command: Sequence[str], home: Path) -> None:
        self.home = home
        self._keeper = subprocess.Popen(
            [sys.executable, "-I", "-S", str(keeper.__file__)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,  # Ctrl-C is for the tests; the keeper hears of it from them
            cwd=home,
        )
        spec: keeper.Spec = {
            "commands": [list(command)],
            "directories": [str(home)],
            "after": [],
            "remove": str(home),
            "stop_s": 2.0,
            "orphan_s": 0.0,
        }
        self._tell(json.dumps(spec))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _tell(self, line: str) -> None:
        assert self._keeper.stdin is not None
        assert self._keeper.stdout is not None
        self._keeper.stdin.write(line + "\n")
        self._keeper.stdin.flush()
        (self.pid,) = json.loads(self._keeper.stdout.readline())

    def log(self) -> str:
        return (self.home / "broker.log").read_text(errors="replace")

    def has_ended(self) -> bool:
        return (self.home / "exit").exists()

    def stop(self) -> None:
        """End it for good; a second call does nothing."""
        if self._keeper.poll() is not None:
            return
        assert self._keeper.stdin is not None
        assert self._keeper.stdout is not None
        with suppress(BrokenPipeError):
            self._keeper.stdin.write("stop\n")
            self._keeper.stdin.flush()
        self._keeper.wait()
        with suppress(BrokenPipeError):
            self._keeper.stdin.close()
        self._keeper.stdout.close()
