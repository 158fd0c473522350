"""What the engine asks of an agent: its topics, and for each task a processor that turns batches into state and output."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from c360.engine.transport import TP, Batch, Headers
from c360.tables.store import Entry, Store


class AnyTable(Protocol):
    """What a task does with its tables at the ends of a transaction (`tables.table.Table`, `tables.ids.IdTable`)."""

    prefix: bytes  # first byte of its changelog keys

    def bind(self, store: Store) -> None: ...
    def changes(self) -> list[Entry]: ...
    def committed(self) -> None: ...
    def outgrown(self) -> bool: ...
    def rolled_back(self) -> None: ...
    def restored(self, entries: Sequence[Entry], store: Store) -> Iterable[Entry]: ...


class Outbox(Protocol):
    """Where a processor puts what it says; all of it is in the transaction of the batch."""

    def send(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        partition: int | None = None,
        headers: Headers | None = None,
    ) -> None: ...


class Processor(Protocol):
    """One task of an agent. Called from one thread; changes its tables and nothing else outside itself."""

    @property
    def tables(self) -> Sequence[AnyTable]: ...

    def resume(self, notes: Mapping[str, Any]) -> None:
        """Continue from what `notes` gave at the last commit; {} for a new task. Tables are restored and bound."""
        ...

    def notes(self) -> dict[str, Any]:
        """Small facts kept with the input positions (JSON values)."""
        ...

    def process(self, batch: Batch, out: Outbox) -> None:
        """Fold a batch of one input partition. A Misfit of a record is handled inside; other exceptions bisect the batch.

        Raises Shut, as `settle` and `finish` may, when nothing may leave now: it will be given the same again.
        """
        ...

    def divert(self, batch: Batch, error: BaseException, out: Outbox) -> None:
        """The one record of `batch` made `process` raise: put it aside so that the others go on."""
        ...

    def settle(self, out: Outbox) -> None:
        """Before a commit: tell other tasks of the agent what they are to be told. Again, when that had them answer."""
        ...

    def finish(self, positions: Mapping[TP, int], now_ms: int, out: Outbox) -> None:
        """Before a commit, when all have settled: say what is due.

        `positions`: next offsets of the inputs; `now_ms`: for timers only.
        """
        ...

    def wants(self, now_ms: int) -> bool:
        """Whether `finish` should be called although no record came: a timer is due, or there is more to say."""
        ...


@runtime_checkable
class Choosy(Protocol):
    """A processor that may have to wait with a record of one input, while its other inputs go on."""

    def takes(self, batch: Batch) -> int:
        """How many of the first records can be processed now. The rest is given again in a moment, and so on."""
        ...


@dataclass(frozen=True)
class Task:
    """What a processor may know of its place: the lead partition, the inputs that belong to it."""

    lead: TP
    inputs: tuple[TP, ...]


class Agent(Protocol):
    """A stage: its own consumer group, changelog and kind of processor.

    `loops`: inputs that its own tasks write, naming the partition; between tasks of one process they may not pass the log.
    """

    name: str
    group: str
    fingerprint: str
    loops: Sequence[str]

    def lead_topics(self) -> Sequence[str]: ...
    def task(self, lead: TP) -> Task:
        """Of a lead partition. Asked again every few seconds: an answer with other inputs begins the task anew with them."""
        ...

    def changelog(self, lead: TP) -> TP: ...
    def store_name(self, lead: TP) -> str: ...
    def processor(self, task: Task) -> Processor: ...


class Copartitioned:
    """What agents have in common whose inputs have equal numbers of partitions: a task is one number, in all of them.

    `lead`: the topic whose partitions are assigned; `log`: the changelog.
    """

    group: str
    lead: str
    reads: Sequence[str]
    log: str

    def lead_topics(self) -> Sequence[str]:
        return (self.lead,)

    def task(self, lead: TP) -> Task:
        return Task(lead, tuple(TP(topic, lead.partition) for topic in self.reads))

    def changelog(self, lead: TP) -> TP:
        return TP(self.log, lead.partition)

    def store_name(self, lead: TP) -> str:
        return f"{self.group}/{lead.partition}"


@runtime_checkable
class Gated(Protocol):
    """An agent whose output may leave only while something holds, such as the fence of a door."""

    def gate(self) -> None:
        """Raises Shut when what its tasks have made since the last commit may not leave.

        The last thing before a commit: positions are sent, and nothing but the decision is left. While it is shut it is
        asked with nothing made, whether trying again is worth it; inputs are not read then, and `finish` of tasks that want
        to say something is called from time to time, so that what takes back may pass a gate that is shut for all else.
        """
        ...
