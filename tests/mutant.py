"""A guard taken away: a function written anew with a line of it replaced, to see that a test notices."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from unittest.mock import patch


class Mutant(NamedTuple):
    what: str
    owner: Any  # module or class
    function: str
    old: str
    new: str
    seed: int = 0  # one that notices, as histories are drawn today

    @contextmanager
    def at_work(self) -> Iterator[None]:
        function = getattr(self.owner, self.function)
        source = textwrap.dedent(inspect.getsource(function))
        assert source.count(self.old) == 1, f"{self.function} no longer has this line once: {self.old}"
        made: dict[str, Any] = {}
        exec(compile(source.replace(self.old, self.new), "mutant", "exec"), function.__globals__, made)
        with patch.object(self.owner, self.function, made[self.function]):
            yield
