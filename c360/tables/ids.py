"""Ids seen within a window of record times: "was this one here before?", for millions of ids, with a bounded memory.

In the changelog the ids of one commit are one record per day of record time; in the store each id is an entry, so that
a look-up is one point read. Days that are far past the window are removed from both.

The answer is a function of the sequence of (id, time) alone, so a replay gives what the live run gave:

* stream time: the greatest record time so far, but one record moves it by at most `window` (a clock from the year 2099
  must not end everybody's memory);
* an id is a repeat if it was admitted at a time within `window` of this one, and that time is not before the
  *horizon* = stream time - 2 × window. What is before the horizon may be removed at any moment: nobody can see it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from itertools import islice

from c360.clock import DAY_MS
from c360.tables.store import Entry, Store

ID_BYTES = 16
_TIME = struct.Struct(">q")
_DAY = struct.Struct(">IQ")  # day + 2^31 (record times before 1970 sort first), sequence
_DAY_BIAS = 1 << 31
EXPIRED_PER_COMMIT = 8  # chunks removed in one commit at most, so that no commit gets long


def id_key(text: str) -> bytes:
    """16 bytes for an id of any length."""
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=ID_BYTES).digest()


class IdTable:
    """Ids by time of admission. `prefix`: two bytes, the first for chunks (changelog and store), the second for ids."""

    def __init__(self, prefix: bytes, window_ms: int) -> None:
        assert len(prefix) == 2
        self.chunk_prefix, self.id_prefix = prefix[:1], prefix[1:]
        self.prefix = self.chunk_prefix
        self.window_ms = window_ms
        self.admitted: dict[bytes, int] = {}  # since the last commit
        self.expiring: list[tuple[bytes, list[bytes]]] = []  # chunk key, ids that go with it
        self.stream_time: int | None = None
        self.base_stream_time: int | None = None
        self.sequence = 0
        self.store: Store

    def bind(self, store: Store) -> None:
        self.store = store
        self.admitted.clear()
        self.expiring.clear()

    def resume(self, stream_time: int | None, sequence: int) -> None:
        """Where the last commit left off; both are kept by the task beside its input positions."""
        self.stream_time = self.base_stream_time = stream_time
        self.sequence = sequence

    def admit(self, ids: Sequence[bytes], times: Sequence[int]) -> list[bool]:
        """For each id in order: True and remembered if it is new, False if it is a repeat."""
        admitted = self.admitted
        prefix = self.id_prefix
        unread = [i for i in ids if i not in admitted]
        known: dict[bytes, int] = {}
        if unread:
            for key, data in zip(unread, self.store.get_many([prefix + i for i in unread]), strict=True):
                if data is not None:
                    known[key] = _TIME.unpack(data)[0]
        window = self.window_ms
        stream = self.stream_time
        answers = []
        for key, time in zip(ids, times, strict=True):
            if stream is None:
                stream = time
            elif time > stream:
                stream = min(time, stream + window)
            before = admitted.get(key)
            if before is None:
                before = known.get(key)
            if before is not None and abs(time - before) <= window and before >= stream - 2 * window:
                answers.append(False)
            else:
                admitted[key] = time
                answers.append(True)
        self.stream_time = stream
        return answers

    # ------------------------------------------------------------------------------------------------ transaction
    def changes(self) -> list[Entry]:
        """Chunks of new ids, and tombstones of chunks whose day nobody can see any more, as changelog entries."""
        entries: list[Entry] = []
        by_day: dict[int, list[bytes]] = {}
        for key, time in self.admitted.items():
            by_day.setdefault(time // DAY_MS, []).append(key + _TIME.pack(time))
        for day, rows in by_day.items():
            entries.append((self._chunk_key(day, self.sequence), b"".join(rows)))
        self.sequence += 1
        self.expiring = self._expired()
        entries += [(chunk, None) for chunk, _ in self.expiring]
        return entries

    def _chunk_key(self, day: int, sequence: int) -> bytes:
        return self.chunk_prefix + _DAY.pack(day + _DAY_BIAS, sequence)

    def _expired(self) -> list[tuple[bytes, list[bytes]]]:
        if self.stream_time is None:
            return []
        last_day = (self.stream_time - 2 * self.window_ms) // DAY_MS - 1  # its last millisecond is before the horizon
        found = islice(self.store.scan(self.chunk_prefix, self._chunk_key(last_day + 1, 0)), EXPIRED_PER_COMMIT)
        return [(chunk, self._removable(data, self.store)) for chunk, data in found]

    def _removable(self, data: bytes, store: Store) -> list[bytes]:
        """Ids of an expired chunk that were not admitted again since: their entries go with it."""
        rows = [
            (data[i : i + ID_BYTES], data[i + ID_BYTES : i + ID_BYTES + 8]) for i in range(0, len(data), ID_BYTES + 8)
        ]
        now = store.get_many([self.id_prefix + key for key, _ in rows])
        return [key for (key, time), held in zip(rows, now, strict=True) if held == time and key not in self.admitted]

    def store_entries(self, changes: Iterable[Entry]) -> Iterable[Entry]:
        """What `changes` means for the store."""
        yield from changes
        prefix = self.id_prefix
        for _, ids in self.expiring:
            for key in ids:
                yield prefix + key, None
        for key, time in self.admitted.items():
            yield prefix + key, _TIME.pack(time)

    def outgrown(self) -> bool:
        """Ids are all of one size: how many records a commit may hold bounds them."""
        return False

    def committed(self) -> None:
        self.admitted.clear()
        self.expiring.clear()
        self.base_stream_time = self.stream_time

    def rolled_back(self) -> None:
        self.admitted.clear()
        self.expiring.clear()
        self.stream_time = self.base_stream_time

    def restored(self, entries: Sequence[Entry], store: Store) -> Iterable[Entry]:
        """Chunks from the changelog as store entries, ids unpacked."""
        prefix = self.id_prefix
        gone = [chunk for chunk, data in entries if data is None]
        for chunk, data in zip(gone, store.get_many(gone), strict=True):
            yield chunk, None
            if data is not None:
                for key in self._removable(data, store):
                    yield prefix + key, None
        for chunk, data in entries:
            if data is not None:
                yield chunk, data
                for i in range(0, len(data), ID_BYTES + 8):
                    yield prefix + data[i : i + ID_BYTES], data[i + ID_BYTES : i + ID_BYTES + 8]
