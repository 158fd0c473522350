"""Data keys: made per subject and task, wrapped by the master key, kept as records of `{app}.keys`.

Two who seal may meet one subject at the same time, so each makes its own key; all keys of a subject are equal in force,
and destroying them (tombstones of their records) makes what they sealed unreadable. A door that meets an unknown key id
reads the keys to their end: then it is there, or destroyed. `docs/formats/keys.md` has the bytes.

Knows nothing of topics and transactions: records come by a function and go as bytes. What wraps is behind `MasterKeys`.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from binascii import Error
from collections.abc import Callable, Collection, Container, Iterable, Mapping, Sequence
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from c360.errors import NeedsOperator
from c360.governance.sealing import (
    KEY_BYTES,
    TAG_BYTES,
    DataKey,
    Destroyed,
    Sealed,
    UnknownKey,
    check_place,
    fingerprint,
    read_sealed,
)

CIPHER = "AES-SIV-512"
SECRET_BYTES = 32
KEPT = 10_000  # keys at hand, per ring: 0.5 KB each, and 7 µs to unwrap with a master key in memory
WRAPPED = "c360"  # the beginning of what a local master key wrapped
APP = "~app"  # in place of a subject, whose namespace begins with a letter: the app's own secret
SECRET = "secret"

K = TypeVar("K")
V = TypeVar("V")
Random = Callable[[int], bytes]
Lives = Mapping[str, int]
"""How often a subject had been erased; 0 of those that are not in it."""
NO_LIVES: Lives = {}


# ----------------------------------------------------------------------------------------------------- master keys
class MasterKeys(Protocol):
    """What wraps data keys: a file or a key management service. A generation is one master key among several in use.

    Many at once, since a service answers over a network: one call per batch of new subjects, not one per subject.
    """

    @property
    def current(self) -> str:
        """The generation that wraps now."""

    def wrap(self, secrets: Sequence[bytes]) -> list[str]:
        """Each as a text `{generation}:{base64}`, authenticated. Raises when the service does not answer."""

    def unwrap(self, wrapped: Sequence[str]) -> list[bytes | None]:
        """What was wrapped; None for a text that these keys did not wrap, or not so."""

    def rewrap(self, wrapped: Sequence[str]) -> list[str | None]:
        """The same under the current generation; None as above."""


def generation(wrapped: str) -> str:
    """Which generation wrapped it, as the text says itself."""
    return wrapped.rpartition(":")[0]


class LocalMasterKeys:
    """Master keys in memory: the last of them wraps, all of them unwrap. AES-SIV, so nothing random is needed."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        """`keys`: of KEY_BYTES random bytes, oldest first, at least one."""
        self._ciphers = {f"{WRAPPED}:{master_id(key)}": AESSIV(key) for key in keys}
        self.current = f"{WRAPPED}:{master_id(keys[-1])}"

    def __repr__(self) -> str:
        return f"LocalMasterKeys({', '.join(self._ciphers)})"

    @property
    def generations(self) -> Collection[str]:
        return self._ciphers.keys()

    def wrap(self, secrets: Sequence[bytes]) -> list[str]:
        cipher, context = self._ciphers[self.current], [self.current.encode()]
        return [f"{self.current}:{b64encode(cipher.encrypt(secret, context)).decode()}" for secret in secrets]

    def unwrap(self, wrapped: Sequence[str]) -> list[bytes | None]:
        return [self._unwrapped(text) for text in wrapped]

    def _unwrapped(self, text: str) -> bytes | None:
        name, _, sealed = text.rpartition(":")
        cipher = self._ciphers.get(name)
        try:
            secret = b64decode(sealed, validate=True)
            return cipher.decrypt(secret, [name.encode()]) if cipher is not None and len(secret) > TAG_BYTES else None
        except (Error, ValueError, InvalidTag):
            return None

    def rewrap(self, wrapped: Sequence[str]) -> list[str | None]:
        return [None if secret is None else self.wrap([secret])[0] for secret in self.unwrap(wrapped)]


def master_id(key: bytes) -> str:
    """The name of a master key. The key is random and long, so its hash says nothing of it."""
    return fingerprint(b"master key", key)[:12]


# --------------------------------------------------------------------------------------------------------- records
class KeyRecord(NamedTuple):
    """A record of `{app}.keys`. `partition_by`: what its partition follows from, as that of any other topic of subjects."""

    key: bytes
    value: bytes | None  # None: destroyed
    partition_by: str


class Wrapped(msgspec.Struct, frozen=True, omit_defaults=True):
    """The value of a record. `task`: who made the data key; of the app's own secret, nobody. `life`: how often its subject
    had been erased when it was made: an erasure destroys the keys of lives before the next."""

    cipher: str
    wrapped: str
    task: str = ""
    life: int = 0


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Wrapped).decode


def record_key(subject: str, name: str) -> bytes:
    return f"{subject}\0{name}".encode()


def read_record_key(key: bytes) -> tuple[str, str]:
    """The subject and the key id of a record's key."""
    subject, _, name = key.decode().partition("\0")
    return subject, name


def tombstone(subject: str, name: str) -> KeyRecord:
    """What destroys a key."""
    return KeyRecord(record_key(subject, name), None, subject)


def _read(name: str, value: bytes) -> Wrapped:
    try:
        read = _decode(value)
    except msgspec.DecodeError:
        raise NeedsOperator(
            f"the record of key {name} in the keys topic is not one: c360 alone may write there"
        ) from None
    if read.cipher != CIPHER:
        raise NeedsOperator(f"key {name} is of the cipher {read.cipher!r}, which this c360 does not know: upgrade it")
    return read


def _lost(name: str, wrapped: str) -> NeedsOperator:
    return NeedsOperator(
        f"key {name} cannot be unwrapped: the master key lacks its generation {generation(wrapped)}, or the record was"
        " altered. Give this process the key file or service (C360_KEYS) that has it"
    )


def make_keys(
    app: str, task: str, subjects: Sequence[str], master: MasterKeys, random: Random, lives: Lives = NO_LIVES
) -> tuple[dict[str, DataKey], list[KeyRecord]]:
    """A new data key for each subject, and the records to be written with what is sealed first, in one transaction."""
    secrets = [random(KEY_BYTES) for _ in subjects]
    keys = {s: DataKey(app, s, task, k, lives.get(s, 0)) for s, k in zip(subjects, secrets, strict=True)}
    wrapped = master.wrap(secrets) if secrets else []
    values = [_encode(Wrapped(CIPHER, w, task, k.life)) for w, k in zip(wrapped, keys.values(), strict=True)]
    named = zip(keys.values(), values, strict=True)
    return keys, [KeyRecord(record_key(key.subject, key.id), value, key.subject) for key, value in named]


def unwrap_keys(app: str, records: Sequence[tuple[str, str, bytes]], master: MasterKeys) -> list[DataKey]:
    """Data keys from (subject, key id, value) of their records. Raises NeedsOperator for one that is not what it says."""
    read = [_read(name, value) for _, name, value in records]
    secrets = master.unwrap([r.wrapped for r in read]) if read else []
    keys = []
    for (subject, name, _), said, secret in zip(records, read, secrets, strict=True):
        key = None if secret is None else DataKey(app, subject, said.task, secret, said.life)
        if key is None or key.id != name:
            raise _lost(name, said.wrapped)
        keys.append(key)
    return keys


def own_key(records: Mapping[str, bytes], task: str, life: int = 0) -> str | None:
    """Of a subject's records by key id, the id of the key that a task made in a life. Of several, which a lost state may
    leave, one."""
    read = {name: _read(name, value) for name, value in records.items()}
    return min((name for name, said in read.items() if (said.task, said.life) == (task, life)), default=None)


def generation_of(value: bytes) -> str:
    """Which generation wrapped the key of a record's value."""
    return generation(_read("of a subject", value).wrapped)


def life_of(value: bytes) -> int:
    """The life in which the key of a record's value was made."""
    return _read("of a subject", value).life


def rewrapped(records: Iterable[tuple[bytes, bytes]], master: MasterKeys) -> list[KeyRecord]:
    """Records (key, value) under the current generation, without those that are already. Raises NeedsOperator.

    Whoever writes them must be who destroys keys, too: a record that is written after its tombstone is a key that is back.
    """
    current = master.current
    old = [(key, read) for key, value in records if generation((read := _read(_name(key), value)).wrapped) != current]
    renewed = master.rewrap([read.wrapped for _, read in old]) if old else []
    made = []
    for (key, read), wrapped in zip(old, renewed, strict=True):
        if wrapped is None:
            raise _lost(_name(key), read.wrapped)
        value = _encode(msgspec.structs.replace(read, wrapped=wrapped))
        made.append(KeyRecord(key, value, read_record_key(key)[0]))
    return made


def rewrapped_value(key: bytes, value: bytes, master: MasterKeys) -> bytes | None:
    """One record's value under the current generation; None where these master keys did not wrap it."""
    read = _read(_name(key), value)
    (wrapped,) = master.rewrap([read.wrapped])
    return None if wrapped is None else _encode(msgspec.structs.replace(read, wrapped=wrapped))


def generations_used(records: Iterable[tuple[bytes, bytes]]) -> set[str]:
    """Generations that some record (key, value) is still wrapped by: none of them may be taken from the master keys."""
    return {generation(_read(_name(key), value).wrapped) for key, value in records}


def _name(key: bytes) -> str:
    return read_record_key(key)[1]


# ------------------------------------------------------------------------------------------------ the app's secret
class AppSecret(NamedTuple):
    """What tokens hang on. It outlives every master key."""

    app: str
    secret: bytes

    def __repr__(self) -> str:
        return f"AppSecret({self.app})"


def make_secret(app: str, master: MasterKeys, random: Random) -> KeyRecord:
    """The record of a new secret. Once per app, by one writer that has found none: with a second one every token changes."""
    secret = random(SECRET_BYTES)
    (wrapped,) = master.wrap([secret])
    value = _encode(Wrapped(CIPHER, wrapped, fingerprint(b"app secret", app.encode(), secret)))
    return KeyRecord(record_key(APP, SECRET), value, APP)


def open_secret(app: str, value: bytes | None, master: MasterKeys) -> AppSecret:
    """The app's secret, from the value of its record; also the proof that this is the right master key, at every start.

    Raises NeedsOperator when there is none, or when it was wrapped by another master key.
    """
    if value is None:
        raise NeedsOperator(f"{app} has no secret in its keys topic yet: make it once, with `c360 keys init`")
    read = _read(SECRET, value)
    (secret,) = master.unwrap([read.wrapped])
    if secret is None:
        raise NeedsOperator(
            f"C360_KEYS is not the master key of {app}: its keys were wrapped by {generation(read.wrapped)}, and this is"
            f" {master.current}. Nothing was sealed. Give this process the right key file or service"
        )
    if fingerprint(b"app secret", app.encode(), secret) != read.task:
        raise NeedsOperator(f"the secret in the keys topic is not that of {app}: it was copied from another app")
    return AppSecret(app, secret)


# ------------------------------------------------------------------------------------------------------------ rings
class Recent(Generic[K, V]):
    """The last `most` things used, by key."""

    __slots__ = ("_kept", "most")

    def __init__(self, most: int) -> None:
        self._kept: dict[K, V] = {}
        self.most = most

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: K) -> V | None:
        found = self._kept.pop(key, None)
        if found is not None:
            self._kept[key] = found  # now the newest
        return found

    def split(self, keys: Iterable[K]) -> tuple[dict[K, V], list[K]]:
        """What is kept of these, and which are not; each once."""
        found: dict[K, V] = {}
        missing: list[K] = []
        for key in dict.fromkeys(keys):
            value = self.get(key)
            if value is None:
                missing.append(key)
            else:
                found[key] = value
        return found, missing

    def put(self, key: K, value: V) -> None:
        self._kept.pop(key, None)
        self._kept[key] = value
        if len(self._kept) > self.most:
            del self._kept[next(iter(self._kept))]

    def forget(self, chosen: Callable[[K], bool]) -> None:
        self._kept = {key: value for key, value in self._kept.items() if not chosen(key)}


class Sealer:
    """The keys that one task seals with: one per subject, found or made a batch at a time.

    `records`: from subjects to the records of their keys, by key id; destroyed ones are not among them. It must know all that
    the task itself has written: what its own state has lost is to be read from the keys topic first.
    """

    def __init__(
        self,
        app: str,
        task: str,
        master: MasterKeys,
        records: Callable[[Collection[str]], Mapping[str, Mapping[str, bytes]]],
        random: Random,
        kept: int = KEPT,
    ) -> None:
        self.app, self.task, self.master, self.random = app, task, master, random
        self._records = records
        self._ready: Recent[str, DataKey] = Recent(kept)

    def keys(self, subjects: Iterable[str], lives: Lives | None = None) -> tuple[dict[str, DataKey], list[KeyRecord]]:
        """The key of each subject of a batch, and the records of those made just now: to be written in its transaction.

        `lives`: of subjects that were erased before; what a key of an earlier life sealed is to stay unreadable.
        """
        ready, missing = self._ready.split(subjects)
        if lives:
            old = [s for s, key in ready.items() if key.life != lives.get(s, 0)]
            missing += old
            for subject in old:
                del ready[subject]
        if not missing:
            return ready, []
        lives = lives or NO_LIVES
        records = self._records(missing)
        own = {s: own_key(records.get(s, {}), self.task, lives.get(s, 0)) for s in missing}
        found = [(s, name, records[s][name]) for s, name in own.items() if name is not None]
        ready |= {key.subject: key for key in unwrap_keys(self.app, found, self.master)}
        lacking = [s for s in missing if s not in ready]
        made, new = make_keys(self.app, self.task, lacking, self.master, self.random, lives)
        ready |= made
        for subject in missing:
            self._ready.put(subject, ready[subject])
        return ready, new

    def forget(self, subject: str | None = None) -> None:
        """Without a subject, all: what was made in a transaction that was aborted was never written.

        With one: its keys were destroyed.
        """
        self._ready.forget(lambda s: subject is None or s == subject)


class Opener:
    """Opens sealed values with the keys of an app.

    `records`: from (subject, key id) pairs to the values of their records; those that are missing or destroyed are left out.
    """

    def __init__(
        self,
        app: str,
        master: MasterKeys,
        records: Callable[[Collection[tuple[str, str]]], Mapping[tuple[str, str], bytes]],
        kept: int = KEPT,
    ) -> None:
        self.app, self.master = app, master
        self._records = records
        self._ready: Recent[tuple[str, str], DataKey] = Recent(kept)

    def prepare(self, wanted: Iterable[tuple[str, str]]) -> dict[tuple[str, str], DataKey]:
        """Keys by (subject, key id), unwrapped in one call; without those that have no record."""
        ready, missing = self._ready.split(wanted)
        if missing:
            records = self._records(missing)
            for key in unwrap_keys(self.app, [(*pair, value) for pair, value in records.items()], self.master):
                ready[key.subject, key.id] = key
                self._ready.put((key.subject, key.id), key)
        return ready

    def open(self, value: Any, *, subjects: Container[str], fields: Container[str], complete: bool) -> bytes:
        """The bytes that were sealed as this JSON value. `subjects`, `fields`: those that may stand where it was found.

        `complete`: the records reach to the end of the keys, as it was after the value was read. Raises UnknownKey if not and
        there is no key, Destroyed if so; Misfit for a value that is none, was altered or moved; NeedsOperator.
        """
        sealed = read_sealed(value)
        opened = self._key(sealed, complete).open(sealed)
        check_place(sealed, subjects, fields)
        return opened

    def _key(self, sealed: Sealed, complete: bool) -> DataKey:
        pair = sealed.subject, sealed.key_id
        key = self._ready.get(pair) or self.prepare([pair]).get(pair)
        if key is not None:
            return key
        if complete:
            raise Destroyed("the key of a sealed value was destroyed")
        raise UnknownKey("the key of a sealed value is not known yet: read the keys to their end")

    def forget(self, subject: str, name: str) -> None:
        """A key was destroyed: its record became a tombstone."""
        self._ready.forget(lambda pair: pair == (subject, name))
