"""The audit log: who did what, when and why, in chains that show what was taken out, changed, moved or cut off.

One chain per writer, not one for all. An agent's record belongs into the transaction of what it tells of, and there may be
many such transactions at a time; one chain would need one writer, or a lock. A task, or one run of a command, is a writer:
it numbers its records, and each holds the hash of the one before. The number and hash of the last one (`Head`) lie in the
task's state and commit with the record; a run of a command begins a chain of its own, under a name never used before.

What ties chains together: a record may name the heads of others, as its writer has read them (`seen`). Runs of commands
read the log anyway, and name the tips: heads that nobody has named before. What a tip names, it answers for, as it is in its
hash. So whoever takes away a whole chain, or its end, must change the others as well; and the heads that `examine` hands
out can be kept where nobody who writes here can reach.

All in one partition, so that "before" has one meaning. A hash is no signature: who can write all of the log, and the heads
that were kept, can write another log.
"""

from __future__ import annotations

import hashlib
import re
from array import array
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from typing import Literal, NamedTuple

import msgspec

from c360.errors import UsageError
from c360.governance.tokens import TOKEN

FORMAT = 1
LEFT_OUT = "(left out: personal)"
UNENCODABLE = re.compile(r"[\ud800-\udfff]")  # how Python takes bytes of a command line that are no text
HASH_BYTES = 32
LISTED = 1000  # numbers left out in one place that are told one by one: a forged number must not fill the memory
Problem = Literal["unreadable", "foreign", "altered", "missing", "reordered", "doubled", "cut"]

ADDRESS = re.compile(r"[^\s@]+@[^\s@]+\.[^\s@]+")
IDENTIFIER = re.compile(r"(?<![a-z0-9_])([a-z][a-z0-9_]*):(?=(\S+))")


class Head(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The last record of a chain: its number, from 0, and its hash."""

    number: int
    hash: str


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """What is told. about: identifiers. before and after: what was changed, as short texts."""

    who: str
    what: str  # erase, lift, reset, promote, separate, …
    at: int  # epoch ms
    reason: str
    about: tuple[str, ...] = ()
    before: dict[str, str] = {}
    after: dict[str, str] = {}


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """An entry in its chain. last: the hash of the one before, empty for the first. hash: of all but itself.

    app: whose log it is of, so that what comes from another one is found, too.
    """

    format: int = FORMAT
    app: str
    writer: str
    number: int
    last: str
    seen: dict[str, Head]
    entry: Entry
    hash: str = ""


class Finding(NamedTuple):
    """What does not hold, and of which record. place: how many records of the log came before it; -1: it is not there."""

    problem: Problem
    writer: str
    number: int
    place: int


_encode = msgspec.json.Encoder(order="deterministic").encode
_decode = msgspec.json.Decoder(Record, strict=True).decode


def check(entry: Entry, personal: Collection[str]) -> None:
    """Refuse what is personal: the log is kept. personal: namespaces whose identifiers are written as tokens.

    Raises UsageError. In what people write only mail addresses and identifiers (`phone:…`) can be found. Who did it is not
    looked at: that is the name of an operator or of an agent, and the log is for it.
    """
    for text in (entry.what, entry.reason, *entry.about, *_texts(entry.before), *_texts(entry.after)):
        if (wrong := _wrong(text, personal)) is not None:
            raise UsageError(wrong)


def without_personal(entry: Entry, personal: Collection[str]) -> Entry:
    """The entry, with a word in place of each text that `check` refuses: for who cannot refuse to go on."""

    def told(text: str) -> str:
        return text if _wrong(text, personal) is None else LEFT_OUT

    return msgspec.structs.replace(
        entry,
        what=told(entry.what),
        reason=told(entry.reason),
        about=tuple(map(told, entry.about)),
        before={told(name): told(text) for name, text in entry.before.items()},
        after={told(name): told(text) for name, text in entry.after.items()},
    )


def _wrong(text: str, personal: Collection[str]) -> str | None:
    """What is wrong with a text; None if nothing is."""
    if UNENCODABLE.search(text):
        return "a text for the audit log is not UTF-8, as it came from the command line"
    for namespace, value in IDENTIFIER.findall(text):
        if namespace in personal and not TOKEN.match(value):
            return f"an identifier of '{namespace}' is personal and would stand in the audit log; write its token"
    if ADDRESS.search(text):
        return "a text for the audit log has a mail address in it, and the log is kept; name the number of a ticket instead"
    return None


def _texts(told: Mapping[str, str]) -> Iterable[str]:
    yield from told
    yield from told.values()


def chained(app: str, entry: Entry, writer: str, last: Head | None, seen: Mapping[str, Head] | None = None) -> Record:
    """The next record of a chain, `last` being its head so far. seen: heads of other chains, as far as they were read."""
    others = {name: head for name, head in (seen or {}).items() if name != writer}
    record = Record(
        app=app,
        writer=writer,
        number=last.number + 1 if last else 0,
        last=last.hash if last else "",
        seen=others,
        entry=entry,
    )
    return msgspec.structs.replace(record, hash=_hash(record))


def head_of(record: Record) -> Head:
    """What the next record of its chain is to follow."""
    return Head(record.number, record.hash)


def _hash(record: Record) -> str:
    return hashlib.sha256(_encode(msgspec.structs.replace(record, hash=""))).hexdigest()


encode_record = _encode


def decode_record(data: bytes) -> Record:
    """Raises msgspec.DecodeError."""
    return _decode(data)


def tips_of(app: str, records: Iterable[bytes]) -> dict[str, Head]:
    """The last record of each chain that no record of another chain names as such: for `seen`.

    Few, however many chains there are: a run of a command names what it finds, and is itself found by the next.
    """
    heads: dict[str, Head] = {}
    named: dict[str, Head] = {}
    for data in records:
        if (record := _ours(app, data)) is None:
            continue
        named |= record.seen
        known = heads.get(record.writer)
        if known is None or record.number > known.number:
            heads[record.writer] = head_of(record)
    return {writer: head for writer, head in heads.items() if named.get(writer) != head}


def _ours(app: str, data: bytes) -> Record | None:
    try:
        record = _decode(data)
    except msgspec.DecodeError:
        return None
    return record if record.app == app and record.format == FORMAT else None


# ----------------------------------------------------------------------------------------------------------- verifying
class Examined(NamedTuple):
    """A log as it was found. heads: the last record of each chain, to be kept elsewhere if there are no findings."""

    records: int
    heads: Mapping[str, Head]
    findings: list[Finding]


def verify(
    app: str, records: Iterable[bytes], *, heads: Mapping[str, Head] | None = None, whole: bool = True
) -> list[Finding]:
    """What does not hold; as `examine`."""
    return examine(app, records, heads=heads, whole=whole).findings


def examine(
    app: str, records: Iterable[bytes], *, heads: Mapping[str, Head] | None = None, whole: bool = True
) -> Examined:
    """Findings in the order of the log; then what of `heads` (known from before) is not there.

    whole: the log begins with its first record. If retention has cut its beginning, chains may begin later, and what they
    or others name of what is older is not asked for.

    unreadable: no record, or of another format (then the writer is empty). foreign: of another app. altered: the hash is not
    that of the content, or not what another record or a known head says. missing: a number is left out. reordered: it comes
    after a later one. doubled: its number was there. cut: a record that is known to have been there is beyond the end of its
    chain.
    """
    found: dict[Finding, None] = {}  # in order
    chains: defaultdict[str, _Chain] = defaultdict(_Chain)
    ends: dict[str, Head] = {}
    gaps: dict[tuple[str, int], int] = {}  # left out so far: where that was seen
    open_: list[tuple[str, Head, int]] = []  # heads that were named before they were met, and where
    place = -1
    for place, data in enumerate(records):
        try:
            record = _decode(data)
        except msgspec.DecodeError:
            record = None
        if record is None or record.format != FORMAT or record.number < 0:
            found[Finding("unreadable", "", -1, place)] = None
            continue
        writer, number = record.writer, record.number
        if record.app != app:
            found[Finding("foreign", writer, number, place)] = None
            continue
        if record.hash != _hash(record):
            found[Finding("altered", writer, number, place)] = None
        chain = chains[writer]
        if chain.get(number) is not None:
            found[Finding("doubled", writer, number, place)] = None
            continue
        if (end := ends.get(writer)) is not None and number < end.number:
            gaps.pop((writer, number), None)
            found[Finding("reordered", writer, number, place)] = None
        else:
            start = end.number + 1 if end else 0 if whole else number
            gaps.update({(writer, left_out): place for left_out in range(start, min(number, start + LISTED))})
            ends[writer] = head_of(record)
        chain.put(number, record.hash, place)
        said = [(writer, Head(number - 1, record.last))] if number else []
        for name, head in [*said, *record.seen.items()]:
            if (known := chains[name].get(head.number)) is None:
                open_.append((name, head, place))
            elif known[0] != _bytes(head.hash):
                found[Finding("altered", name, head.number, known[1])] = None
    missing = {Finding("missing", writer, number, place): None for (writer, number), place in gaps.items()}
    for writer, head, named_at in [*open_, *((name, head, -1) for name, head in (heads or {}).items())]:
        finding = _against(writer, head, named_at, chains[writer], ends.get(writer), whole)
        if finding is not None and finding._replace(problem="missing") not in missing:
            found[finding] = None
    findings = sorted([*found, *missing], key=lambda finding: (finding.place < 0, finding.place))
    return Examined(place + 1, ends, findings)


def _against(writer: str, head: Head, place: int, chain: _Chain, end: Head | None, whole: bool) -> Finding | None:
    """What is said of a record, from outside of it, against the record."""
    if (known := chain.get(head.number)) is not None:
        hashed, there = known
        if hashed != _bytes(head.hash):
            return Finding("altered", writer, head.number, there)
        return Finding("reordered", writer, head.number, there) if place >= 0 else None  # it was met after it was named
    if head.number > (-1 if end is None else end.number) and (end is not None or whole or place < 0):
        return Finding("cut", writer, head.number, -1)
    return None


class _Chain:
    """The hashes of a chain's records, and where these lie, by number: 40 bytes for each that follows the one before."""

    __slots__ = ("_first", "_hashes", "_others", "_places")

    def __init__(self) -> None:
        self._first = 0
        self._hashes, self._places = bytearray(), array("q")
        self._others: dict[int, tuple[bytes, int]] = {}

    def get(self, number: int) -> tuple[bytes, int] | None:
        i = number - self._first
        if 0 <= i < len(self._places):
            return bytes(self._hashes[HASH_BYTES * i : HASH_BYTES * (i + 1)]), self._places[i]
        return self._others.get(number)

    def put(self, number: int, hashed: str, place: int) -> None:
        if not self._places:
            self._first = number
        if number == self._first + len(self._places):
            self._hashes += _bytes(hashed)
            self._places.append(place)
        else:
            self._others[number] = _bytes(hashed), place


def _bytes(hashed: str) -> bytes:
    """A hash as it is kept; of what is none, some other bytes."""
    try:
        data = bytes.fromhex(hashed)
    except ValueError:
        data = b""
    return data if len(data) == HASH_BYTES else hashlib.sha256(hashed.encode()).digest()
