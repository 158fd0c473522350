"""Two topics of profiles as two tables side by side in one local store, in the order of profile ids.

The store is on disk where there are many profiles: what is in memory does not grow with their number.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from hashlib import blake2b
from itertools import islice

from c360.engine.transport import TP, Batch, Reader
from c360.errors import BrokerAway
from c360.ops.diff.compare import Pair, merged
from c360.tables.store import Entry, Store

SIDES = (b"1", b"2")
SILENT = 600  # looks of 0.1 s, as for a transaction that stays open
ASKED = 1000
TOLD = 10_000


class Tables:
    """The last record of each profile in two topics, as far as they were followed."""

    def __init__(
        self, store: Store, reader: Reader, topics: Sequence[str], partitions: int, sample: Sample | None = None
    ) -> None:
        self.store, self.reader, self.sample = store, reader, sample
        self.side = dict(zip(topics, SIDES, strict=True))
        self.at: dict[TP, int] = reader.starts([TP(t, p) for t in self.side for p in range(partitions)])

    def follow(self, told: Callable[[int, int], None] = lambda done, total: None) -> None:
        """Read both to their ends of now. Told of how many offsets are passed, of how many."""
        ends = self.reader.ends(list(self.at))
        total, left, silent = sum(ends[tp] - at for tp, at in self.at.items()), dict(self.at), 0
        for batches in self.reader.read(self.at, ends):
            silent = 0 if batches else silent + 1
            if silent > SILENT:
                raise BrokerAway(f"a transaction in one of {', '.join(self.side)} stays open")
            for batch in batches:
                self.store.write(self._entries(batch))
                left[batch.tp] = batch.offsets[-1] + 1
            told(sum(at - self.at[tp] for tp, at in left.items()), total)
        self.at = {tp: max(end, self.at[tp]) for tp, end in ends.items()}

    def _entries(self, batch: Batch) -> list[Entry]:
        side, sample = self.side[batch.tp.topic], self.sample
        pairs = zip(batch.keys, batch.values, strict=True)
        if sample is None:
            return [(side + key, value) for key, value in pairs if key is not None]
        return [(side + key, value) for key, value in pairs if key is not None and sample.takes(key)]

    def pairs(
        self, keys: Collection[bytes] | None = None, told: Callable[[int], None] = lambda done: None
    ) -> Iterator[Pair]:
        """Of all profiles, or of these, in the order of their ids. Told of how many there were."""
        chosen = None if self.sample is None else self.sample.limit(self._both(None))
        done = 0
        for pair in self._both(keys):
            if chosen is None or hash_of(pair[0]) <= chosen:
                yield pair
                done += 1
                if not done % TOLD:
                    told(done)

    def _both(self, keys: Collection[bytes] | None) -> Iterator[Pair]:
        if keys is not None:
            yield from self._asked(sorted(keys))
            return
        first, second = (
            ((key[1:], value) for key, value in self.store.scan(side, bytes([side[0] + 1]))) for side in SIDES
        )
        yield from merged(first, second)

    def _asked(self, keys: Sequence[bytes]) -> Iterator[Pair]:
        waiting = iter(keys)
        while some := list(islice(waiting, ASKED)):
            found = [self.store.get_many([side + key for key in some]) for side in SIDES]
            yield from zip(some, *found, strict=True)


class Sample:
    """About which profiles are looked at: so many, those with the least hash of their id. The same ones in every run.

    Half as many again are kept on the way, as some may turn out to be gone.
    """

    def __init__(self, profiles: int) -> None:
        self.profiles = profiles
        self.kept = max(64, profiles + profiles // 2)
        self.cut: int | None = None  # those with a greater hash are not looked at
        self.seen: set[int] = set()

    def takes(self, key: bytes) -> bool:
        found = hash_of(key)
        if self.cut is not None and found > self.cut:
            return False
        self.seen.add(found)
        if len(self.seen) > 2 * self.kept:
            self.seen = set(sorted(self.seen)[: self.kept])
            self.cut = max(self.seen)
        return True

    def limit(self, pairs: Iterator[Pair]) -> int:
        """The greatest hash of those that are there now and belong to the sample."""
        found = (hash_of(key) for key, *_ in pairs)
        there = sorted(one for one in found if self.cut is None or one <= self.cut)
        return there[self.profiles - 1] if len(there) >= self.profiles else (1 << 64)


def hash_of(key: bytes) -> int:
    return int.from_bytes(blake2b(key, digest_size=8).digest(), "big")
