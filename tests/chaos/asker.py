"""Questions about groups, asked in a process of their own.

librdkafka ends its process when an answer of a group's coordinator comes after the question's time-out (its issues #4605
and #3663), which is what happens here all the time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import TypeVar

from c360.engine.kafka import KafkaCluster
from c360.errors import BrokerAway
from c360.ops.progress import at_rest
from tests.clear_shop import app

T = TypeVar("T")


class Asker:
    """A context manager. Every question may raise BrokerAway."""

    def __init__(self, bootstrap: str) -> None:
        self.bootstrap = bootstrap
        self.pool = self._hire()

    def _hire(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(1, mp_context=get_context("spawn"))

    def __enter__(self) -> Asker:
        return self

    def __exit__(self, *_: object) -> None:
        self.pool.shutdown(cancel_futures=True)

    def members(self, groups: Sequence[str]) -> list[int]:
        """Of each group."""
        return self._ask(_members, self.bootstrap, groups)

    def at_rest(self) -> bool:
        """Whether nothing is left to read for any agent."""
        return self._ask(_at_rest, self.bootstrap)

    def _ask(self, question: Callable[..., T], *about: object) -> T:
        try:
            return self.pool.submit(question, *about).result()
        except BrokenProcessPool:
            self.pool = self._hire()
            raise BrokerAway("who was to ask is gone") from None


def _members(bootstrap: str, groups: Sequence[str]) -> list[int]:
    admin = KafkaCluster(bootstrap).admin()
    try:
        return [admin.group_members(group) for group in groups]
    finally:
        admin.close()


def _at_rest(bootstrap: str) -> bool:
    cluster = KafkaCluster(bootstrap)
    admin, reader = cluster.admin(), cluster.reader()
    try:
        return at_rest(app.plan(), admin, reader)
    finally:
        admin.close()
        reader.close()
