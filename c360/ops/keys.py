"""Master keys: where they come from at a start, and the file of them. Its bytes: `docs/formats/keys.md`.

The file is made once, read at every start, given new keys by rotation. Whoever reads it reads every sealed value, so it is
refused unless it is its owner's alone (0600). It is written whole, to a file beside it that takes its place: a crash leaves
the old one or the new one.
"""

from __future__ import annotations

import json
import os
import stat
from base64 import b64decode, b64encode
from binascii import Error
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from c360.engine.partition import partition_of
from c360.engine.transport import TP, Cluster, Producer
from c360.errors import NeedsOperator, UsageError
from c360.governance.audit import decode_record
from c360.governance.keys import (
    APP,
    SECRET,
    WRAPPED,
    KeyRecord,
    LocalMasterKeys,
    MasterKeys,
    Opener,
    Random,
    generation,
    generation_of,
    make_secret,
    master_id,
    open_secret,
    record_key,
    rewrapped,
)
from c360.governance.names import Names, Vault
from c360.governance.sealing import KEY_BYTES
from c360.governance.tokens import Tokens
from c360.ops import topics
from c360.ops.records import follow, records
from c360.ops.vault import VaultMasterKeys, is_service
from c360.plan import Plan

FORMAT = "c360 master keys 1"
AT_ONCE = 1_000  # records of one transaction


class FileMasterKeys:
    """`MasterKeys` of a file. Another process may have rotated it: a generation that is not known yet is looked up there."""

    def __init__(self, path: Path) -> None:
        """Raises UsageError for a file that is missing, open to others, or not whole."""
        self.path = path
        self._keys = LocalMasterKeys(read_keys(path))

    @property
    def current(self) -> str:
        return self._keys.current

    def wrap(self, secrets: Sequence[bytes]) -> list[str]:
        return self._keys.wrap(secrets)

    def unwrap(self, wrapped: Sequence[str]) -> list[bytes | None]:
        self._follow(wrapped)
        return self._keys.unwrap(wrapped)

    def rewrap(self, wrapped: Sequence[str]) -> list[str | None]:
        self._follow(wrapped)
        return self._keys.rewrap(wrapped)

    def _follow(self, wrapped: Sequence[str]) -> None:
        if any(generation(text) not in self._keys.generations for text in wrapped):
            self._keys = LocalMasterKeys(read_keys(self.path))


def read_keys(path: Path) -> list[bytes]:
    """The master keys of a file, oldest first. Raises UsageError saying what is wrong with it and what to do."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if not stat.S_ISREG(mode):
                raise UsageError(f"the master key file {path} is not a file (C360_KEYS)")
            if mode & 0o077:
                raise UsageError(
                    f"the master key file {path} can be used by others (its mode is {stat.S_IMODE(mode):04o}):"
                    f" chmod 600 {path}, and if others may have read it, rotate its keys"
                )
            content = file.read()
    except FileNotFoundError:
        raise UsageError(
            f"there is no master key file {path} (C360_KEYS): bring it from where the app was first run. Only for a new app"
            " make one, with `c360 keys init`: a new key opens nothing that was sealed with another"
        ) from None
    except OSError as error:
        raise UsageError(f"the master key file {path} (C360_KEYS) cannot be read: {error.strerror}") from error
    return _keys_in(path, content)


def _keys_in(path: Path, content: bytes) -> list[bytes]:
    garbled = UsageError(
        f"the master key file {path} (C360_KEYS) is cut short, altered or something else: bring back a copy of it"
    )
    try:
        said = json.loads(content)
        if said["format"] != FORMAT or not said["keys"]:
            raise garbled
        keys = [b64decode(key["key"], validate=True) for key in said["keys"]]
        names = [key["id"] for key in said["keys"]]
    except (ValueError, KeyError, TypeError, Error):
        raise garbled from None
    if any(len(key) != KEY_BYTES or master_id(key) != name for key, name in zip(keys, names, strict=True)):
        raise garbled
    return keys


def init_keys(path: Path, random: Random) -> str:
    """Make a file with one new key; its generation. Raises UsageError if there is a file: it is never written over."""
    key = random(KEY_BYTES)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{path.parent} cannot be made: {error.strerror}") from error
    if path.exists():
        raise UsageError(f"{path} exists already; it may be the only key to what was sealed, so it stays")
    _write(path, lambda: [key])
    return f"{WRAPPED}:{master_id(key)}"


def rotate_keys(path: Path, random: Random) -> str:
    """Add a new key, which wraps from now on; its generation. What older ones wrapped is to be rewrapped (`rewrapped`).

    Every process needs the new file: they read it again when they meet the new generation.
    """
    key = random(KEY_BYTES)
    _write(path, lambda: [*read_keys(path), key])
    return f"{WRAPPED}:{master_id(key)}"


def retirable(path: Path, used: Collection[str]) -> list[str]:
    """The generations of a file but the current one. Raises NeedsOperator if one of them is used."""
    old = [f"{WRAPPED}:{master_id(key)}" for key in read_keys(path)[:-1]]
    if needed := sorted(set(old) & set(used)):
        raise NeedsOperator(
            f"{', '.join(needed)} still wraps keys: rewrap them first, with `c360 keys rotate --wrap-only`"
        )
    return old


def retire_keys(path: Path, used: Collection[str]) -> list[str]:
    """Take all keys but the current one out of the file; their generations.

    `used`: generations that records are wrapped by (`generations_used`), read to the end after every worker has the new
    file. Raises NeedsOperator if one of them would go.
    """
    old: list[str] = []

    def kept() -> list[bytes]:
        old.extend(retirable(path, used))
        return read_keys(path)[-1:]

    _write(path, kept)
    return old


def _write(path: Path, keys: Callable[[], Sequence[bytes]]) -> None:
    """Put keys in the place of the file. `keys` is called while nobody else may: the file beside is the lock, too."""
    beside = path.with_name(f".{path.name}.new")
    try:
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise UsageError(
            f"{beside} exists: another process changes the keys now, or one was killed at it. If none does, remove that file"
        ) from None
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}") from error
    try:
        with open(descriptor, "w", encoding="ascii") as file:
            os.fchmod(descriptor, 0o600)  # whatever the umask takes away
            file.write(_text(keys()))
            file.flush()
            os.fsync(descriptor)
        beside.rename(path)
        _sync_directory(path)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}. Its keys are as they were") from error
    finally:
        beside.unlink(missing_ok=True)


def _text(keys: Sequence[bytes]) -> str:
    said = {"format": FORMAT, "keys": [{"id": master_id(k), "key": b64encode(k).decode()} for k in keys]}
    return json.dumps(said, indent=1) + "\n"


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# ------------------------------------------------------------------------------------------------------- at every start
NO_KEYS = (
    "this app seals personal values, so it needs its master key: set C360_KEYS to the file that has it, or to the URL of a"
    " transit key. For a new app, `c360 keys init` makes one"
)


def open_master(said: str | None, token: Callable[[], str]) -> MasterKeys:
    """The master keys that C360_KEYS names: a file, or the URL of a transit key. Raises UsageError, ServiceAway."""
    if said is None:
        raise UsageError(NO_KEYS)
    return VaultMasterKeys(said, token) if is_service(said) else FileMasterKeys(Path(said))


def read_records(plan: Plan, cluster: Cluster, subjects: Collection[str] | None = None) -> dict[bytes, bytes]:
    """The records of the keys topic as it ends now, key to value; `subjects`: only what may be theirs."""
    count = cluster.admin().topics().get(plan.keys)
    found: dict[bytes, bytes] = {}
    if count is None:
        return found
    partitions = range(count) if subjects is None else {partition_of(s.encode(), count) for s in subjects}
    reader = cluster.reader()
    try:
        follow(reader, reader.starts([TP(plan.keys, p) for p in partitions]), found)
    finally:
        reader.close()
    return found


def secret_of(plan: Plan, cluster: Cluster) -> bytes | None:
    """The value of the record of the app's secret; None where there is none yet."""
    return read_records(plan, cluster, (APP,)).get(record_key(APP, SECRET))


def was_made(plan: Plan, cluster: Cluster) -> bool:
    """Whether the audit log tells that the app was given a secret once."""
    if plan.audit not in cluster.admin().topics():
        return False
    reader = cluster.reader()
    try:
        for found in records(reader, reader.starts([TP(plan.audit, 0)])):
            with suppress(ValueError):
                entry = decode_record(found.value or b"").entry
                if entry.what == "keys init" and entry.after.get("secret") == "made":
                    return True
    finally:
        reader.close()
    return False


def _refuse_lost(plan: Plan, cluster: Cluster) -> None:
    """Raises NeedsOperator where the app's secret was there once and is not any more."""
    if was_made(plan, cluster):
        raise _lost(plan)


def _lost(plan: Plan) -> NeedsOperator:
    return NeedsOperator(f"{plan.keys} has lost the secret of {plan.app}, which it had been given: {KEYS_LOST}")


KEYS_LOST = (
    "what is sealed cannot be opened any more, and nothing is sealed with keys that nobody would find again. Bring the topic"
    " back from a copy of it, under its name, with all of its records. If there is none, begin anew: stop all workers, delete"
    " all topics and groups of the app and the state directories, `c360 keys init`; the raw topics have everything in clear"
)


def open_vault(plan: Plan, cluster: Cluster, master: MasterKeys, random: Random) -> Vault:
    """What an app that needs keys starts with. Raises NeedsOperator where it has no secret, or another master key."""
    found = secret_of(plan, cluster)
    if found is None and was_made(plan, cluster):
        found = secret_of(plan, cluster)  # it may just have been made: that is told after it is there
        if found is None:
            raise _lost(plan)
    secret = open_secret(plan.app, found, master)
    return Vault(plan.app, master, Names(Tokens(secret)), random)


def vault_in_memory(plan: Plan, cluster: Cluster, random: Random) -> Vault | None:
    """Keys for an app that ends with this process, and its topics; None for an app that needs none."""
    if not plan.needs_keys:
        return None
    topics.apply(plan, cluster.admin())
    master = LocalMasterKeys([random(KEY_BYTES)])
    make_secret_once(plan, cluster, master, random)
    return open_vault(plan, cluster, master, random)


# ------------------------------------------------------------------------------------------------------------- writing
def writer_of(plan: Plan) -> str:
    """The transactional id of commands that write keys: of two at once the newer ends the older's transaction.

    Who destroys keys is the erasure agent, in its own transactions: `rewrap` says why that goes together.
    """
    return f"{plan.app}.keys"


def make_secret_once(plan: Plan, cluster: Cluster, master: MasterKeys, random: Random) -> bool:
    """Give an app its secret, unless it has one. Returns whether it was made now; what is there is opened, as a check.

    The topic must exist. Raises NeedsOperator where the app had a secret and has lost it. Two at once: the later producer
    fences the earlier, and reads what that one has committed.
    """
    producer = cluster.producer(writer_of(plan))
    try:
        producer.begin()
        known = secret_of(plan, cluster)
        if known is None:
            _refuse_lost(plan, cluster)
            _say(plan, cluster, producer, [make_secret(plan.app, master, random)])
        producer.commit()
    finally:
        producer.close()
    open_secret(plan.app, secret_of(plan, cluster), master)
    return known is None


def rewrap(plan: Plan, cluster: Cluster, master: MasterKeys) -> int:
    """Wrap all keys under the newest generation; how many were not yet. May be repeated, also after a crash.

    A key that is destroyed meanwhile stays so, without a lock between the two:

    1. what is wrapped anew is in the log, not committed; so it is known where;
    2. all that is committed before that place is read: whose key was destroyed there is left out, and it begins again;
    3. it is committed. What destroys a key from now on lies behind, and compaction keeps the last.
    """
    count = cluster.admin().topics()[plan.keys]
    producer, reader = cluster.producer(writer_of(plan)), cluster.reader()
    try:
        positions, known = reader.starts([TP(plan.keys, p) for p in range(count)]), dict[bytes, bytes]()
        follow(reader, positions, known)
        renewed, written = rewrapped(known.items(), master), 0
        for start in range(0, len(renewed), AT_ONCE):
            portion = [record for record in renewed[start : start + AT_ONCE] if record.key in known]
            while portion:
                producer.begin()
                follow(reader, positions, known, _say(plan, cluster, producer, portion))
                left = [record for record in portion if record.key in known]
                if len(left) == len(portion):
                    producer.commit()
                    written += len(portion)
                    break
                producer.abort()
                portion = left
        return written
    finally:
        reader.close()
        producer.close()


def generations(records: Iterable[tuple[bytes, bytes]]) -> dict[str, int]:
    """How many records each generation wraps."""
    return dict(sorted(Counter(generation_of(value) for _, value in records).items()))


def _say(plan: Plan, cluster: Cluster, producer: Producer, records: Sequence[KeyRecord]) -> Mapping[TP, int]:
    """Write them; where the first of each partition lies."""
    count, firsts = cluster.admin().topics()[plan.keys], dict[TP, int]()
    for record in records:
        place = TP(plan.keys, partition_of(record.partition_by.encode(), count))

        def delivered(offset: int, *_: object, place: TP = place) -> None:
            firsts[place] = min(offset, firsts.get(place, offset))

        producer.produce(plan.keys, record.key, record.value, place.partition, delivered=delivered)
    producer.flush()
    return firsts


# ------------------------------------------------------------------------------------------------------------- opening
def opener_of(plan: Plan, cluster: Cluster, vault: Vault) -> Opener:
    """Opens with the keys that there are now: for commands, which look once."""
    records = read_records(plan, cluster)

    def found(wanted: Collection[tuple[str, str]]) -> dict[tuple[str, str], bytes]:
        return {pair: records[key] for pair in wanted if (key := record_key(*pair)) in records}

    return Opener(plan.app, vault.master, found)
