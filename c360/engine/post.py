"""Messages between tasks of one loop are handed over inside its transaction, instead of through the log.

An agent's tasks write to each other through topics that they read themselves (`Agent.loops`). Where both are tasks of one
loop, the way through the log costs a commit, a record written and a record read, and gains nothing: what both change is
committed by one transaction anyway (docs/decisions/0015).

First in, first out from one task to another must hold across both ways. So a partition is open for messages by hand only
when its task has read all that its present senders, or their owners before us, have written to it:

    1  a task begins to run, or a transaction is aborted: all partitions close
    2  messages go through the log. The first that we write to a partition lies behind all that was written before
    3  its task has read it, and all that we have written since: the partition opens
    4  what is too much for one commit goes through the log after all: closed until it is read
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
        self._open: set[TP] = set()
        self._until: dict[TP, int] = {}  # closed ones → offset that is to be read before, if anything was written
        self._times_closed = 0

    def close(self, partitions: Iterable[TP]) -> None:
        """1: these are all there are, and none is open. What is in their mail is of before, and first."""
        self._open.clear()
        self._until = {tp: UNKNOWN for tp in partitions if tp.topic in self.topics}
        self._times_closed += 1

    def drop(self, partitions: Iterable[TP]) -> None:
        """Their task is no longer here."""
        for tp in partitions:
            self._open.discard(tp)
            self._until.pop(tp, None)

    def send(self, tp: TP, message: Message, producer: Producer) -> None:
        """By hand where it may be."""
        if tp in self._open:
            self.mail.setdefault(tp, []).append(message)
        else:
            self._write(tp, message, producer)

    def read(self, tp: TP, position: int) -> None:
        """3: its task has read all before this offset."""
        if UNKNOWN < self._until.get(tp, UNKNOWN) < position:
            del self._until[tp]
            self._open.add(tp)

    def take(self, at_least: int = 1) -> list[Batch]:
        """The mail of those partitions that have so many messages, as batches."""
        due = [tp for tp, messages in self.mail.items() if len(messages) >= at_least]
        return [_batch(tp, self.mail.pop(tp)) for tp in due]

    def spill(self, producer: Producer) -> None:
        """4: all that is not delivered."""
        spilt, self.mail = self.mail, {}
        for tp, messages in spilt.items():
            self._open.discard(tp)
            for message in messages:
                self._until[tp] = UNKNOWN
                self._write(tp, message, producer)

    def _write(self, tp: TP, message: Message, producer: Producer) -> None:
        """2: its offset is known before anybody can read it, at the latest in the commit."""
        key, value, headers = message
        if tp in self._until:
            self._until[tp] = UNKNOWN
            producer.produce(tp.topic, key, value, tp.partition, headers, partial(self._wrote, tp, self._times_closed))
        else:  # another loop's
            producer.produce(tp.topic, key, value, tp.partition, headers)

    def _wrote(self, tp: TP, times_closed: int, offset: int) -> None:
        if times_closed == self._times_closed and tp in self._until:
            self._until[tp] = max(self._until[tp], offset)


def _batch(tp: TP, messages: list[Message]) -> Batch:
    nowhere = [-1] * len(messages)
    keys, values = [key for key, _, _ in messages], [value for _, value, _ in messages]
    return Batch(tp, nowhere, keys, values, nowhere, lambda i: messages[i][2] or [])
