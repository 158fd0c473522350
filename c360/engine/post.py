"""Messages between tasks of one loop are handed over inside its transaction, instead of through the log.

An agent's tasks write to each other through topics that they read themselves (`Agent.loops`). Where both are tasks of one
loop, the way through the log costs a commit, a record written and a record read, and gains nothing: what both change is
committed by one transaction anyway (docs/decisions/0015).

First in, first out from one task to another must hold across both ways. So a partition is open for mail only when its task
has read all that its present senders, or their owners before us, have written to it:

    1  a task begins to run, or a transaction is aborted: all partitions close
    2  mail is kept until the commit. What is for a closed partition is written to the log then: behind all that was written
       before
    3  its task has read the last that we wrote: the partition opens, also for what is kept by then
    4  mail that is too much for one commit is written to the log as well: closed until it is read
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from functools import partial

from c360.engine.transport import TP, Batch, Headers, Producer

Message = tuple[bytes | None, bytes | None, Headers | None]  # key, value
UNKNOWN = -1


class Post:
    """The mail of one loop. `topics`: those that its tasks write to each other."""

    def __init__(self, topics: Collection[str]) -> None:
        self.topics = frozenset(topics)
        self.mail: dict[TP, list[Message]] = {}
        self.bytes = 0  # of it
        self.open: set[TP] = set()
        self._until: dict[TP, int] = {}  # closed ones → offset that is to be read before, if anything was written
        self._times_closed = 0

    def close(self, partitions: Iterable[TP]) -> None:
        """1: these are all there are, and none is open. Mail that is kept stays."""
        self.open.clear()
        self._until = {tp: UNKNOWN for tp in partitions if tp.topic in self.topics}
        self._times_closed += 1

    def drop(self, partitions: Iterable[TP]) -> None:
        """Their task is no longer here."""
        for tp in partitions:
            self.open.discard(tp)
            self._until.pop(tp, None)

    def forget(self) -> None:
        """What was said in a transaction that was aborted."""
        self.mail.clear()
        self.bytes = 0

    def send(self, tp: TP, message: Message, producer: Producer) -> None:
        """2: to be kept, where the partition is of this loop."""
        key, value, headers = message
        if tp in self.open or tp in self._until:
            self.mail.setdefault(tp, []).append(message)
            self.bytes += len(value or b"")
        else:
            producer.produce(tp.topic, key, value, tp.partition, headers)

    def read(self, tp: TP, position: int) -> None:
        """3: its task has read all before this offset."""
        if UNKNOWN < self._until.get(tp, UNKNOWN) < position:
            del self._until[tp]
            self.open.add(tp)

    def waiting(self) -> int:
        """Messages that could be handed over now."""
        return sum(len(messages) for tp, messages in self.mail.items() if tp in self.open)

    def take(self, at_least: int = 1) -> list[Batch]:
        """The mail of open partitions that have so many messages, as batches."""
        due = [tp for tp, messages in self.mail.items() if len(messages) >= at_least and tp in self.open]
        batches = [_batch(tp, self.mail.pop(tp)) for tp in due]
        self.bytes -= sum(len(value or b"") for batch in batches for value in batch.values)
        return batches

    def spill(self, producer: Producer) -> None:
        """2, 4: all that is kept. Offsets are known before anybody can read the records, at the latest in the commit."""
        for tp, messages in self.mail.items():
            self.open.discard(tp)
            self._until[tp] = UNKNOWN
            wrote = partial(self._wrote, tp, self._times_closed)
            for key, value, headers in messages:
                producer.produce(tp.topic, key, value, tp.partition, headers, wrote)
        self.forget()

    def _wrote(self, tp: TP, times_closed: int, offset: int, _: int | None) -> None:
        if times_closed == self._times_closed and tp in self._until:
            self._until[tp] = max(self._until[tp], offset)


def _batch(tp: TP, messages: list[Message]) -> Batch:
    nowhere = [-1] * len(messages)
    keys, values = [key for key, _, _ in messages], [value for _, value, _ in messages]
    return Batch(tp, nowhere, keys, values, nowhere, lambda i: messages[i][2] or [])
