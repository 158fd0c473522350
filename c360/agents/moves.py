"""What a projection's task does for subjects whose fragment lies elsewhere, or with others, in the steps of `profile.home`.

    Assigned, Held ──► home ──Put, Add, Drop──► owner ──► merge of a shared profile, one of the task's records
    records     ─────►  │                         ▲
                        └────── `parts` ──────────┘        what is for the own partition takes effect at once

What is absorbed in batch after batch adds up in `news`. `place` and `flush` come before the commit, and again when tasks of
the same process have answered; `settle` comes last, once for a profile. A subject that is its own profile, with nobody else
in it, is never seen here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from c360.agents.folding import View
from c360.agents.profiles import (
    CELLS,
    NO_DUE,
    SHARED,
    SLOTS,
    Head,
    ProfileState,
    Shared,
    decode_shared,
    encode_shared,
)
from c360.agents.wire import CAUSE
from c360.engine.agent import Outbox
from c360.engine.partition import partition_of
from c360.engine.transport import Batch
from c360.errors import NeedsOperator
from c360.profile import home as homes
from c360.profile.fold import Fold, Fragment
from c360.profile.home import News
from c360.profile.listing import Listing
from c360.profile.parts import (
    Add,
    Assigned,
    Drop,
    Erased,
    Forget,
    Forgotten,
    Held,
    Part,
    Place,
    Put,
    decode_part,
    encode_part,
)
from c360.profile.rows import Rows, key_of, prefix_of
from c360.profile.slots import Owner, Slot
from c360.tables.table import Table, after


@dataclass
class MoveCounters:
    """What homes and owners of this process have done, for metrics; work that was aborted counts again."""

    puts: int = 0  # taken in by owners, local ones, too
    adds: int = 0
    drops: int = 0
    sent: int = 0  # messages in `parts`
    moved: int = 0  # fragments that have left a place for another


class Moves:
    """Homes and owners of one task.

    `profiles` and `touched` (what is to be looked at before the commit, and the newest cause) are the task's own.
    """

    def __init__(
        self,
        owner: Owner,
        rows: Rows,
        topic: str,
        partition: int,
        partitions: int,
        profiles: Table[ProfileState],
        touched: dict[bytes, int],
        counters: MoveCounters,
    ) -> None:
        """`topic`: that of `parts`; with `partitions` it says where a profile is kept."""
        self.owner, self.rows, self.folding = owner, rows, owner.folding
        self.topic, self.partition, self.partitions = topic, partition, partitions
        self.profiles, self.touched, self.counters = profiles, touched, counters
        self.shared: Table[Shared] = Table(SHARED, encode_shared, lambda data: decode_shared(rows, data))
        self.slots: Table[Slot] = Table(SLOTS, rows.encode_slot, rows.decode_slot)
        same: Callable[[bytes], bytes] = bytes
        self.cells: Table[bytes] = Table(CELLS, same, same)
        self.tables = (self.shared, self.slots, self.cells)
        self.held = 0  # slots
        self.today = 0  # the greatest day that was told
        self.news: dict[bytes, News] = {}  # of subjects that were touched since the last `place`
        self.sent: list[tuple[bytes, bytes, int]] = []  # key, message, cause
        self.forgotten: list[tuple[str, str, int]] = []  # subject, profile, life: of a place that holds it no longer

    def resume(self, held: int, today: int) -> None:
        """Forget the step; `held` slots, and the day, as of the last commit."""
        self.news.clear()
        self.sent.clear()
        self.forgotten.clear()
        self.held, self.today = held, today

    # ----------------------------------------------------------------------------------------------------- absorb
    def fold(self, key: bytes, state: ProfileState, fold: Fold, record: View, mask: int) -> bool:
        """Fold a record of a subject of whose news others are to be told, or of another life than its first.

        False: it is of an erased life, and void. Raises Misfit, as the fold does.
        """
        life = 0 if state.home is None else state.home.life
        if record.life < life:
            return False
        if record.life > life:
            self._begin_life(key, state, record.life)  # its Erased is still on the way
        fold(state.fragment, record, record.at, record.sign, mask)
        news = self.news.setdefault(key, News())
        if state.shared or (state.home is not None and not homes.only_here(key.decode(), state.home)):
            fold(news.delta, record, record.at, record.sign, mask)
        return True

    def assign(self, key: bytes, assigned: Assigned | None) -> None:
        """None: the subject is its own profile again; of one that is not known there is nothing to say."""
        if assigned is None and self.profiles.get(key) is None:
            return
        state = self._touch(key)
        subject = key.decode()
        state.home = state.home or homes.home_of(subject)
        homes.assign(subject, state.home, assigned, self.news[key])

    def hear(self, batch: Batch) -> None:
        """Messages of `parts`. Raises NeedsOperator for one that cannot follow what is known."""
        heard = [(_key(k), decode_part(v or b"")) for k, v in zip(batch.keys, batch.values, strict=True)]
        states = self.profiles.load({key for key, _ in heard})
        shared = [(key, m) for key, m in heard if (state := states[key]) is not None and state.shared]
        self.shared.load({key for key, _ in shared})
        self.slots.load({key_of(k, m.subject.encode()) for k, m in shared if isinstance(m, Put | Add | Drop | Forget)})
        for i, (key, message) in enumerate(heard):
            self._hear(key, message, _cause_of(batch, i))

    def _hear(self, key: bytes, message: Part | Assigned | Erased, cause: int) -> None:
        match message:
            case Put() | Add() | Drop() | Forget():
                self._receive(key, message, cause)
            case Forgotten(profile, life):
                self.forgotten.append((key.decode(), profile, life))
            case Held():
                state = self.profiles.get(key)
                if state is not None and state.home is not None:
                    self._touch(key)
                    homes.hold(state.home, message)
            case Assigned():
                self.assign(key, message)
            case Erased(life):
                state = self._touch(key)
                if life > (0 if state.home is None else state.home.life):
                    self._begin_life(key, state, life)

    def erase(self, key: bytes, life: int) -> list[str] | None:
        """End lives below this one, and keep nothing of them. Profiles of other tasks that are still to say that they have
        done so; None where nothing was known."""
        state = self.profiles.get(key)
        if state is None:
            return None
        waiting: list[str] = []
        if state.home is None or state.home.life < life:
            waiting = [
                profile for profile in self._begin_life(key, state, life, ask=True) if not self._is_local(profile)
            ]
        home = state.home
        assert home is not None
        home.profile, home.identifiers = key.decode(), ()
        return waiting

    def _begin_life(self, key: bytes, state: ProfileState, life: int, *, ask: bool = False) -> list[str]:
        """The profiles that are told to drop it."""
        self._touch(key)
        subject = key.decode()
        state.home, state.told = state.home or homes.home_of(subject), True
        drops = homes.begin_life(subject, state.home, life, ask=ask)
        self._own(key, state, self.news[key])
        state.fragment = self.folding.empty()  # news of the life that ends are told to nobody: it has no places
        self._send(drops, -1)
        return [profile for profile, _ in drops]

    # ------------------------------------------------------------------------------------------------------ place
    def place(self) -> None:
        """Have all homes that were touched say what is new, and where their fragments are to lie."""
        while self.news:
            turn, self.news = self.news, {}
            for key, news in turn.items():
                self._place(key, news)
            for key, news in turn.items():
                state = self._state(key)
                self._own(key, state, news)
                state.told = _told(key, state)

    def _place(self, key: bytes, news: News) -> None:
        state = self._state(key)
        self.folding.expire(state.fragment, self.today)  # nobody else does while it lies elsewhere, or with others
        if (home := state.home) is None:
            return
        before = home.places.keys() if state.fragment else ()
        self._send(
            homes.place(key.decode(), home, state.fragment, news, folding=self.folding, local=self._is_local),
            self.touched.get(key, -1),
        )
        self.counters.moved += any(place not in home.places for place in before)

    def _is_local(self, profile: str) -> bool:
        return partition_of(profile.encode(), self.partitions) == self.partition

    def _send(self, messages: Iterable[tuple[str, Place]], cause: int) -> None:
        for profile, message in messages:
            if self._is_local(profile):
                self._receive(profile.encode(), message, cause)
            else:
                self.sent.append((profile.encode(), encode_part(message), cause))

    def _own(self, key: bytes, state: ProfileState, news: News) -> None:
        """What lies here in the own profile: with others there, in their merge."""
        subject = key.decode()
        if state.shared:
            self.owner.own(
                self._shared(key).profile,
                subject,
                state.fragment,
                delta=news.delta,
                identifiers=() if state.home is None else state.home.identifiers,
                stays=state.stays(subject),
            )

    # ------------------------------------------------------------------------------------------------------ owner
    def _receive(self, key: bytes, message: Place, cause: int) -> None:
        shared = self._share(key)
        subject = message.subject.encode()
        at = key_of(key, subject)
        slot = self.slots.get(at)
        before = shared.profile.slots
        match message:
            case Put():
                slot = self.owner.put(shared.profile, slot, message)
                self.counters.puts += not message.more
                if not (message.more or self._is_local(message.subject)):
                    held = Held(key.decode(), message.move)
                    self.sent.append((subject, encode_part(held), -1))
            case Add():
                slot = self.owner.add(shared.profile, slot, message)
                self.counters.adds += 1
            case Drop() | Forget():
                self.owner.drop(shared.profile, message.subject, slot)
                self.counters.drops += 1
                slot = None
                if isinstance(message, Forget) and not self._is_local(message.subject):
                    done = Forgotten(key.decode(), message.life)
                    self.sent.append((subject, encode_part(done), -1))
        self.held += shared.profile.slots - before
        self._look_at(key, cause)
        if slot is None:
            self.slots.delete(at)
        else:
            self.folding.expire(slot.fragment, self.today)
            self.slots.put(at, slot)

    def _share(self, key: bytes) -> Shared:
        """The profile of this id, as one that others are in."""
        state = self._state(key)
        if state.shared:
            return self._shared(key)
        shared = Shared(self.owner.new(), state.digest, state.due)
        self.shared.put(key, shared)
        self.profiles.touch((key,))
        state.digest, state.due, state.shared = b"", NO_DUE, True
        self.news.setdefault(key, News())  # its own subject is one among others now
        return shared

    def settle(self, key: bytes, state: ProfileState) -> tuple[Head, Fragment, Sequence[Listing], int | None]:
        """At the end of a step: what the record of this profile is made of, and the day on which to look at it again.

        The head is the one that is to be kept up to date.
        """
        profile = key.decode()
        if not state.told and state.home is not None:  # nobody else is in it, and it is nowhere else: by far the most
            listings = self.owner.alone(profile, state.fragment, state.home.identifiers)
            return state, state.fragment, listings, self.folding.expire(state.fragment, self.today)
        stays, due = state.stays(profile), None
        if not state.shared:
            self.profiles.touch((key,))
            if state.fragment and stays:
                due = self.folding.expire(state.fragment, self.today)
        if state.shared:
            shared = self._shared(key)
            merged = shared.profile
            due = self.owner.settle(
                merged, profile, slots=lambda: self._slots(key), fragment=state.fragment, today=self.today
            )
            self._store(key, state, shared)
            if state.shared:
                return shared, merged.merged, merged.listings, due
        fragment = state.fragment if stays else self.folding.empty()
        listings = self.owner.alone(profile, fragment, () if state.home is None else state.home.identifiers)
        return state, fragment, listings, due

    def _store(self, key: bytes, state: ProfileState, shared: Shared) -> None:
        """The rows of a profile with others; or none, and the profile is its own subject's alone again."""
        if shared.profile.slots:
            shared.row, changed = self.rows.encode_profile(shared.profile)
        else:
            changed = dict.fromkeys(shared.profile.apart)
            self.shared.delete(key)
            self.profiles.touch((key,))
            state.digest, state.due, state.shared = shared.digest, shared.due, False
            state.told = _told(key, state)
        for name, data in changed.items():
            at = key_of(key, name.encode())
            if data is None:
                self.cells.delete(at)
            else:
                self.cells.put(at, data)

    def flush(self, out: Outbox) -> None:
        """Say what is for other partitions, in the order in which it was said."""
        for key, message, cause in self.sent:
            headers = [(CAUSE, b"%d" % cause)] if cause >= 0 else None
            out.send(self.topic, key, message, partition_of(key, self.partitions), headers)
        self.counters.sent += len(self.sent)
        self.sent.clear()

    # ------------------------------------------------------------------------------------------------------ state
    def _state(self, key: bytes) -> ProfileState:
        state = self.profiles.get(key)
        if state is None:
            state = ProfileState(self.folding.empty())
            self.profiles.put(key, state)
        return state

    def _touch(self, key: bytes) -> ProfileState:
        """A subject of which there is news."""
        state = self._state(key)
        self.profiles.touch((key,))
        self.news.setdefault(key, News())
        self._look_at(key, -1)
        return state

    def _look_at(self, key: bytes, cause: int) -> None:
        self.touched[key] = max(self.touched.get(key, -1), cause)

    def _shared(self, key: bytes) -> Shared:
        found = self.shared.get(key)
        assert found is not None
        self.shared.touch((key,))  # before it changes: a step that fails on the way is forgotten
        found.row = b""
        if found.profile.missing:
            at = {name: key_of(key, name.encode()) for name in found.profile.missing}
            rows = self.cells.load(list(at.values()))
            self.rows.fill(found.profile, {n: data for n, k in at.items() if (data := rows[k]) is not None})
        return found

    def _slots(self, key: bytes) -> Iterator[tuple[str, Slot]]:
        prefix = prefix_of(key)
        for at, slot in self.slots.scan(prefix, after(prefix)):
            yield at[len(prefix) :].decode(), slot


def _told(key: bytes, state: ProfileState) -> bool:
    """Whether somebody else is to be told what is folded for this subject, or some records are void."""
    home = state.home
    return state.shared or (home is not None and (home.life > 0 or not homes.only_here(key.decode(), home)))


def _key(key: bytes | None) -> bytes:
    if key is None:
        raise NeedsOperator(
            "a message in `parts` has no key, so it is none of c360's: find out who writes there, and stop it; then run"
            " `c360 reset` for this projection"
        )
    return key


def _cause_of(batch: Batch, i: int) -> int:
    return next((int(value) for name, value in batch.headers(i) if name == CAUSE), -1)
