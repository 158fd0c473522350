"""A task that moves fragments between profiles, as the projection agent will: real tables over a store in memory.

One call of `step` is one transaction: a batch in, messages and records out. A crash is a new task over the same store.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, NamedTuple

import msgspec

from c360.profile import home as homes
from c360.profile.fold import AS_OF, Fragment
from c360.profile.format import digest_of
from c360.profile.home import Home, News
from c360.profile.listing import Listing
from c360.profile.parts import Add, Assigned, Drop, Erased, Held, Place, Put, decode_part, encode_part
from c360.profile.record import ProfileWriter
from c360.profile.rows import Rows, key_of, prefix_of
from c360.profile.slots import Owner, Profile, Slot
from c360.tables.store import MemoryStore
from c360.tables.table import Table
from tests.profile.folds import Folder
from tests.profile.oracle import Item, Rule

NO_DUE = -(1 << 31)
PURPOSES: Mapping[int, str | None] = {0: None, 1: "one", 2: "two"}  # view -> name; a view is the bits it needs


class Record(NamedTuple):
    subject: str
    item: Item
    sign: int = 1
    life: int = 0


class Day(NamedTuple):
    day: int


class Unassigned(NamedTuple):
    """A tombstone in the assignments."""


Input = tuple[str, Any]  # key; Record, Assigned, Unassigned, Erased, Day, or bytes from `parts`


class Rules:
    """What is compiled once per projection."""

    def __init__(self, rules: Sequence[Rule], partitions: int, listed: int = 100) -> None:
        self.rules, self.partitions, self.listed = rules, partitions, listed
        self.folder = Folder(rules)
        self.folding = self.folder.folding
        self.owner = Owner(self.folding, tuple(PURPOSES), listed)
        self.rows = Rows(self.folding)
        self.write = ProfileWriter("customer", 1, [rule.attribute.name for rule in rules])

    def partition(self, key: str) -> int:
        return blake2b(key.encode(), digest_size=4).digest()[0] % self.partitions

    def render(self, key: str, view: int, fragment: Fragment, listing: Listing, today: int) -> bytes | None:
        if not listing.total:
            return None
        cells = self.folding.seen(fragment, self.owner.masks(fragment, view))
        return self.write(
            key,
            listing.subjects,
            listing.total,
            listing.identifiers,
            self.folding.show(cells, today),
            cells[AS_OF],
            purpose=PURPOSES[view],
        )


# ------------------------------------------------------------------------------------------------------------- rows
class Head(msgspec.Struct, array_like=True):
    """Day in the index of due days, and digests of the last records, by view."""

    due: int = NO_DUE
    digests: list[bytes] = msgspec.field(default_factory=lambda: [b""] * len(PURPOSES))


@dataclass
class Here:
    """What lies under an id: its subject's fragment and, while it has no `Profile`, the head of its profile."""

    fragment: Fragment = field(default_factory=dict)
    home: Home | None = None
    head: Head | None = field(default_factory=Head)  # None: there is a `Profile`, with the head

    def stays(self, key: str) -> bool:
        """Whether the fragment lies in the subject's own profile."""
        return self.home is None or key in self.home.places

    def is_nothing(self) -> bool:
        return not (self.fragment or self.home or self.head is None or any(self.head.digests))

    def identifiers(self) -> tuple[str, ...]:
        return self.home.identifiers if self.home is not None else ()


@dataclass
class There:
    """A profile with others, its head, and its row's bytes once the step is settled."""

    profile: Profile
    head: Head
    row: bytes = b""


_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(tuple[Head | None, bytes, bytes]).decode
_unpack_there = msgspec.msgpack.Decoder(tuple[Head, bytes]).decode
_DAY = struct.Struct(">I")


class Tables:
    def __init__(self, rules: Rules, store: MemoryStore) -> None:
        encode, decode, rows = rules.folding.encode, rules.folding.decode, rules.rows

        def here(data: bytes) -> Here:
            head, home, fragment = _unpack(data)
            return Here(decode(fragment), homes.decode_home(home) if home else None, head)

        def there(data: bytes) -> There:
            head, row = _unpack_there(data)
            return There(rows.decode_profile(row), head)

        def bytes_here(value: Here) -> bytes:
            home = b"" if value.home is None else homes.encode_home(value.home)
            return _pack((value.head, home, encode(value.fragment)))

        same: Callable[[bytes], bytes] = lambda data: data  # noqa: E731  # a def would say less
        self.here = Table[Here](b"p", bytes_here, here)
        self.there = Table[There](b"m", lambda value: _pack((value.head, value.row)), there)
        self.slots = Table[Slot](b"s", rows.encode_slot, rows.decode_slot)
        self.parts = Table[bytes](b"c", same, same)
        self.due = Table[bytes](b"d", same, same)
        self.notes = Table[bytes](b"n", same, same)
        self.all: Sequence[Table[Any]] = (self.here, self.there, self.slots, self.parts, self.due, self.notes)
        for table in self.all:
            table.bind(store)


# ------------------------------------------------------------------------------------------------------------- task
class Outcome(NamedTuple):
    parts: list[tuple[str, bytes]]  # key, message
    records: list[tuple[int, str, bytes | None]]  # view, profile, record


class Task:
    def __init__(self, rules: Rules, partition: int, store: MemoryStore) -> None:
        self.rules, self.partition, self.store = rules, partition, store
        self.tables = Tables(rules, store)
        self._resume()

    def _resume(self) -> None:
        today = self.tables.notes.get(b"today")
        self.today = 0 if today is None else int(today)

    def step(
        self, batch: Iterable[Input], *, write: bool = True, swept: Mapping[str, Mapping[int, bytes]] | None = None
    ) -> Outcome:
        """`write`: not while catching up. `swept`: profiles to be compared with these digests of what is written."""
        self.news: dict[str, News] = {}  # of subjects that were touched
        self.dirty: dict[str, None] = {}  # profiles whose record may have changed
        self.sent: list[tuple[str, bytes]] = []
        for key, value in batch:  # 1 absorb
            self._absorb(key, value)
        self._place()  # 2 place
        self._expire()  # 3 expire
        for key, digests in (swept or {}).items():
            self._sweep(key, digests)
        records = [r for key in sorted(self.dirty) for r in self._settle(key, write=write)]  # 4 write
        return Outcome(self.sent, records)

    def commit(self) -> None:
        self.store.write([entry for table in self.tables.all for entry in table.changes()])
        for table in self.tables.all:
            table.committed()

    def abort(self) -> None:
        """Forget the step, or what it had done until it failed."""
        for table in self.tables.all:
            table.rolled_back()
        self._resume()

    # ----------------------------------------------------------------------------------------------------- absorb
    def _absorb(self, key: str, value: Any) -> None:
        match value:
            case Record():
                self._fold(key, value)
            case Assigned() | Unassigned():
                here = self._touched(key)
                here.home = here.home or homes.home_of(key)
                homes.assign(key, here.home, value if isinstance(value, Assigned) else None, self.news[key])
            case Erased():
                if value.life > life_of(self._here(key)):
                    self._begin_life(key, value.life)
            case Day():
                if value.day > self.today:
                    self.today = value.day
                    self.tables.notes.put(b"today", b"%d" % value.day)
            case bytes():
                self._hear(key, decode_part(value))
            case _:
                raise ValueError("no input")

    def _fold(self, key: str, record: Record) -> None:
        here = self._touched(key)
        if record.life > life_of(here):
            self._begin_life(key, record.life)  # its Erased is still on the way
        if record.life < life_of(here):
            return  # of an erased life, however late it comes
        self.rules.folder.fold(here.fragment, record.item, record.sign)
        if here.head is None or (here.home is not None and not homes.only_here(key, here.home)):
            self.rules.folder.fold(self.news[key].delta, record.item, record.sign)

    def _begin_life(self, key: str, life: int) -> None:
        here = self._touched(key)
        here.home = here.home or homes.home_of(key)
        drops = homes.begin_life(key, here.home, life)
        self._own(key, here)
        here.fragment = {}  # news of the life that ends are told to nobody: it has no places
        self._send(drops)

    def _hear(self, key: str, message: Any) -> None:
        if isinstance(message, Held):
            here = self.tables.here.get(key.encode())
            if here is not None and here.home is not None:
                homes.hold(here.home, message)
                self._touched(key)
        else:
            self._receive(key, message)

    # ------------------------------------------------------------------------------------------------------ place
    def _place(self) -> None:
        folding = self.rules.folding
        for key in list(self.news):
            here = self._here(key)
            if here.home is not None:
                folding.expire(here.fragment, self.today)  # nobody else does while it lies elsewhere
                self._send(
                    homes.place(key, here.home, here.fragment, self.news[key], folding=folding, local=self._is_local)
                )
        for key in self.news:  # also those to whose profiles others have just come
            self._own(key, self._here(key))

    def _is_local(self, key: str) -> bool:
        return self.rules.partition(key) == self.partition

    def _send(self, messages: Iterable[tuple[str, Place]]) -> None:
        for profile, message in messages:
            if self._is_local(profile):
                self._receive(profile, message)
            else:
                self.sent.append((profile, encode_part(message)))

    def _own(self, key: str, here: Here) -> None:
        """What lies here in the own profile: with others there, in their merge."""
        there = self._there(key, here)
        if there is not None:
            self.rules.owner.own(
                there.profile,
                key,
                here.fragment,
                delta=self.news[key].delta,
                identifiers=here.identifiers(),
                stays=here.stays(key),
            )

    # ------------------------------------------------------------------------------------------------------- slots
    def _receive(self, key: str, message: Put | Add | Drop) -> None:
        owner, slots = self.rules.owner, self.tables.slots
        here = self._here(key)
        there = self._there(key, here)
        if there is None:
            there = There(owner.new(), here.head or Head())
            here.head = None
            self.tables.here.touch((key.encode(),))
            self.tables.there.put(key.encode(), there)
            self._touched(key)  # its own subject is one among others now
        at = key_of(key.encode(), message.subject.encode())
        slot = slots.get(at)
        self.dirty[key] = None
        if isinstance(message, Drop):
            owner.drop(there.profile, message.subject, slot)
            slots.delete(at)
            return
        if isinstance(message, Put):
            slot = owner.put(there.profile, slot, message)
            if not message.more and not self._is_local(message.subject):
                self.sent.append((message.subject, encode_part(Held(key, message.move))))
        else:
            slot = owner.add(there.profile, slot, message)
        self.rules.folding.expire(slot.fragment, self.today)
        slots.put(at, slot)

    # ------------------------------------------------------------------------------------------------------- write
    def _expire(self) -> None:
        for at, _ in list(self.tables.due.scan(b"", day_key(self.today + 1))):
            key = at[4:].decode()
            self.tables.due.delete(at)
            here = self._here(key)
            there = self._there(key, here)
            head = here.head if there is None else there.head
            assert head is not None
            head.due = NO_DUE
            self._touch_head(key, here)
            self.dirty[key] = None

    def _sweep(self, key: str, digests: Mapping[int, bytes]) -> None:
        here = self._here(key)
        there = self._there(key, here)
        head = here.head if there is None else there.head
        assert head is not None
        head.digests = [digests.get(view, b"") for view in PURPOSES]
        self._touch_head(key, here)
        self.dirty[key] = None

    def _settle(self, key: str, *, write: bool) -> Iterator[tuple[int, str, bytes | None]]:
        owner, here = self.rules.owner, self._here(key)
        there = self._there(key, here)
        fragment = here.fragment if here.stays(key) else {}
        due = None
        if fragment and (here.head is not None or key in self.news):
            self.tables.here.touch((key.encode(),))
            due = self.rules.folding.expire(here.fragment, self.today)
        if there is not None:
            due = owner.settle(
                there.profile, key, slots=lambda: self._slots(key), fragment=here.fragment, today=self.today
            )
            self._store_there(key, here, there)
        if here.head is None:
            assert there is not None
            fragment, listings, head = there.profile.merged, there.profile.listings, there.head
        else:
            listings, head = owner.alone(key, fragment, here.identifiers()), here.head
        if due is not None and due != head.due:
            head.due = due
            self._touch_head(key, here)
            self.tables.due.put(day_key(due) + key.encode(), b"")
        for i, view in enumerate(PURPOSES) if write else ():
            record = self.rules.render(key, view, fragment, listings[i], self.today)
            digest = b"" if record is None else digest_of(record)
            if digest != head.digests[i]:
                head.digests[i] = digest
                self._touch_head(key, here)
                yield view, key, record
        if here.is_nothing():
            self.tables.here.delete(key.encode())

    def _store_there(self, key: str, here: Here, there: There) -> None:
        """The rows of a profile with others, or none of them any more."""
        if there.profile.slots:
            there.row, changed = self.rules.rows.encode_profile(there.profile)
        else:
            here.head, changed = there.head, dict.fromkeys(there.profile.apart)  # alone again
            self.tables.here.touch((key.encode(),))
            self.tables.there.delete(key.encode())
        for name, data in changed.items():
            at = key_of(key.encode(), name.encode())
            if data is None:
                self.tables.parts.delete(at)
            else:
                self.tables.parts.put(at, data)

    def _touch_head(self, key: str, here: Here) -> None:
        (self.tables.there if here.head is None else self.tables.here).touch((key.encode(),))

    # ------------------------------------------------------------------------------------------------------- state
    def here(self, key: str) -> Here:
        """What lies there, for looking at only."""
        return self.tables.here.get(key.encode()) or Here()

    def _here(self, key: str) -> Here:
        found = self.tables.here.get(key.encode())
        if found is None:
            found = Here()
            self.tables.here.put(key.encode(), found)
        return found

    def _touched(self, key: str) -> Here:
        self.news.setdefault(key, News())
        self.dirty[key] = None
        here = self._here(key)
        self.tables.here.touch((key.encode(),))
        return here

    def _there(self, key: str, here: Here) -> There | None:
        if here.head is not None:
            return None
        found = self.tables.there.get(key.encode())
        assert found is not None
        self.tables.there.touch((key.encode(),))  # before it changes: a step that fails on the way is forgotten, too
        if found.profile.missing:
            at = {name: key_of(key.encode(), name.encode()) for name in found.profile.missing}
            rows = self.tables.parts.load(list(at.values()))
            self.rules.rows.fill(found.profile, {n: data for n, k in at.items() if (data := rows[k]) is not None})
        return found

    def _slots(self, key: str) -> Iterator[tuple[str, Slot]]:
        prefix = prefix_of(key.encode())
        for at, slot in self.tables.slots.scan(prefix, prefix + b"\xff"):
            yield at[len(prefix) :].decode(), slot

    # ------------------------------------------------------------------------------------------------------- reset
    def resync(self, written: Mapping[str, Mapping[int, bytes]], *, write: bool = True) -> Outcome:
        """After a reset, with `parts` at its end: slots are forgotten, homes announce; `written`: digests by profile."""
        tables = self.tables
        for table in (tables.there, tables.slots, tables.parts, tables.due):
            for at in [at for at, _ in table.scan()]:
                table.delete(at)
        self.news, self.dirty, self.sent = {}, {}, []
        known = [at.decode() for at, _ in tables.here.scan()]
        for key in {*known, *written}:
            here = self._touched(key)
            digests = written.get(key, {})
            here.head = Head(NO_DUE, [digests.get(view, b"") for view in PURPOSES])
            if here.home is not None:
                homes.announce(here.home)
        self._place()
        records = [r for key in sorted(self.dirty) for r in self._settle(key, write=write)]
        return Outcome(self.sent, records)


def life_of(here: Here) -> int:
    return 0 if here.home is None else here.home.life


def day_key(day: int) -> bytes:
    return _DAY.pack(day + (1 << 31))
