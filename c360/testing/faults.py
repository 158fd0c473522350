"""A cluster and stores whose calls can fail, or be the last thing a process does, at any step.

A step is a moment between two effects: "before commit", "after commit", "before write" … A plan is asked at each and
returns the error to raise there, or None.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from typing import Any, cast

from c360.engine.transport import TP, Admin, Batch, Cluster, Consumer, Delivered, Headers, Producer, Reader
from c360.tables.budget import Budget
from c360.tables.store import Entry, Store, Stores

Plan = Callable[[str], BaseException | None]


class Crash(BaseException):
    """The process ends here. No handler of the loop may catch it."""


@dataclass
class At:
    """The plan that raises at the `n`-th step (from 0), once; of those named, if any are."""

    n: int
    error: Callable[[], BaseException]
    named: frozenset[str] = frozenset()
    met: list[str] = field(default_factory=list)
    fired: bool = False

    def __call__(self, step: str) -> BaseException | None:
        if self.named and step not in self.named:
            return None
        self.met.append(step)
        if self.fired or len(self.met) <= self.n:
            return None
        self.fired = True
        return self.error()


@dataclass
class FaultyProducer:
    inner: Producer
    step: Callable[[str], None]

    def begin(self) -> None:
        self.step("before begin")
        self.inner.begin()

    def produce(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        partition: int | None = None,
        headers: Headers | None = None,
        delivered: Delivered | None = None,
        timestamp: int | None = None,
    ) -> None:
        self.step("before produce")
        self.inner.produce(topic, key, value, partition, headers, delivered, timestamp)
        self.step("after produce")

    def send_offsets(self, offsets: Mapping[TP, int], group: Any) -> None:
        self.step("before offsets")
        self.inner.send_offsets(offsets, group)
        self.step("after offsets")

    def commit(self) -> None:
        self.step("before commit")
        self.inner.commit()
        self.step("after commit")

    def abort(self) -> None:
        self.step("before abort")
        self.inner.abort()
        self.step("after abort")

    def flush(self, timeout_s: float | None = None) -> None:
        self.step("before flush")
        self.inner.flush(timeout_s)
        self.step("after flush")

    def close(self) -> None:
        self.inner.close()


@dataclass
class FaultyReader:
    inner: Reader
    step: Callable[[str], None]

    def ends(self, partitions: Sequence[TP]) -> dict[TP, int]:
        self.step("before ends")
        return self.inner.ends(partitions)

    def starts(self, partitions: Sequence[TP]) -> dict[TP, int]:
        self.step("before starts")
        return self.inner.starts(partitions)

    def read(self, positions: Mapping[TP, int], ends: Mapping[TP, int] | None = None) -> Iterator[list[Batch]]:
        for batches in self.inner.read(positions, ends):
            if batches:  # how often there are none is a matter of time
                self.step("before read")
            yield batches

    def follow(self, positions: Mapping[TP, int]) -> Iterator[tuple[list[Batch], dict[TP, int]]]:
        for batches, reached in self.inner.follow(positions):
            if batches:
                self.step("before read")
            yield batches, reached

    def close(self) -> None:
        self.inner.close()


ACTS = frozenset({"create", "delete", "delete_group", "delete_records", "set_group_offsets"})


@dataclass
class FaultyAdmin:
    """What it only asks for is no step."""

    inner: Admin
    step: Callable[[str], None]

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.inner, name)
        if name not in ACTS:
            return method

        def act(*args: Any) -> None:
            self.step(f"before {name}")
            method(*args)
            self.step(f"after {name}")

        return act


@dataclass
class FaultyCluster:
    inner: Cluster
    plan: Plan

    def __post_init__(self) -> None:
        self.name = self.inner.name

    def step(self, name: str) -> None:
        error = self.plan(name)
        if error is not None:
            raise error

    def consumer(self, group: str, *, instance: str | None = None) -> Consumer:
        return self.inner.consumer(group, instance=instance)

    def producer(self, transactional_id: str | None = None) -> Producer:
        self.step("before producer")
        return FaultyProducer(self.inner.producer(transactional_id), self.step)

    def reader(self) -> Reader:
        return FaultyReader(self.inner.reader(), self.step)

    def admin(self) -> Admin:
        return cast(Admin, FaultyAdmin(self.inner.admin(), self.step))


@dataclass(eq=False)
class FaultyStore:
    """Opened once at a time and not used after its end, as a database on disk insists on."""

    inner: Store
    name: str
    stores: FaultyStores

    @property
    def budget(self) -> Budget:
        return self.inner.budget

    def _step(self, name: str) -> None:
        assert self.stores.held.get(self.name) is self, f"{self.name} is used after it was closed"
        self.stores.step(name)

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        self._step("before get")
        return self.inner.get_many(keys)

    def write(self, entries: Iterable[Entry]) -> None:
        self._step("before write")
        self.inner.write(entries)
        self._step("after write")

    def scan(self, start: bytes, stop: bytes) -> Iterator[tuple[bytes, bytes]]:
        return self.inner.scan(start, stop)

    def size_bytes(self) -> int:
        return self.inner.size_bytes()

    def close(self) -> None:
        if self.stores.held.get(self.name) is self:
            del self.stores.held[self.name]
        self.inner.close()

    def destroy(self) -> None:
        self.close()
        self.inner.destroy()


@dataclass
class FaultyStores:
    inner: Stores
    plan: Plan
    held: dict[str, FaultyStore] = field(default_factory=dict)

    def open(self, name: str) -> Store:
        assert name not in self.held, f"{name} is open already"
        store = self.held[name] = FaultyStore(self.inner.open(name), name, self)
        return store

    def step(self, name: str) -> None:
        error = self.plan(name)
        if error is not None:
            raise error

    def forget(self, name: str) -> None:
        assert name not in self.held, f"{name} is open"
        self.inner.forget(name)

    def close(self) -> None:
        self.inner.close()


class Later(Executor):
    """Does what was submitted when it is told to, in order: a restore thread whose time the test decides."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Future[Any], Callable[[], Any]]] = []

    def submit(self, fn, /, *args, **kwargs):  # type: ignore[no-untyped-def]  # Executor's own signature
        future: Future[Any] = Future()
        self.waiting.append((future, lambda: fn(*args, **kwargs)))
        return future

    def work(self) -> None:
        while self.waiting:
            future, call = self.waiting.pop(0)
            try:
                future.set_result(call())
            except Exception as error:  # handed to whoever asks for the result
                future.set_exception(error)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self.work()
