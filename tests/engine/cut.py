"""A cluster whose logs may be cut between the look at where they begin and the reading: deleting records is not fenced."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from c360.engine.transport import TP, Batch, Reader
from c360.testing.faults import FaultyCluster, FaultyReader


@dataclass
class CutReader(FaultyReader):
    cut: Callable[[], object]

    def read(self, positions: Mapping[TP, int], ends: Mapping[TP, int] | None = None) -> Iterator[list[Batch]]:
        reading = self.inner.read(positions, ends)
        self.cut()
        return reading


@dataclass
class CutCluster(FaultyCluster):
    """`plan` is asked as ever; `cut` before each reading."""

    cut: Callable[[], object]

    def reader(self) -> Reader:
        return CutReader(self.inner.reader(), self.step, self.cut)
