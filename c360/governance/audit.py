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
from collections.abc import Collection, Iterable, Mapping
from typing import Literal, NamedTuple

import msgspec

from c360.errors import UsageError
from c360.governance.tokens import TOKEN

FORMAT = 1
LEFT_OUT = "(left out: personal)"
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
        if (wrong := _personal(text, personal)) is not None:
            raise UsageError(wrong)


def without_personal(entry: Entry, personal: Collection[str]) -> Entry:
    """The entry, with a word in place of each text that `check` refuses: for who cannot refuse to go on."""

    def told(text: str) -> str:
        return text if _personal(text, personal) is None else LEFT_OUT

    return msgspec.structs.replace(
        entry,
        what=told(entry.what),
        reason=told(entry.reason),
        about=tuple(map(told, entry.about)),
        before={told(name): told(text) for name, text in entry.before.items()},
        after={told(name): told(text) for name, text in entry.after.items()},
    )


def _personal(text: str, personal: Collection[str]) -> str | None:
    """What is wrong with a text; None if nothing is."""
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
    findings: list[Finding] = []
    chains: dict[str, dict[int, str]] = {}  # writer → number → hash
    ends: dict[str, Head] = {}
    places: dict[tuple[str, int], int] = {}
    gaps: dict[tuple[str, int], int] = {}  # left out so far: where that was seen
    named: list[tuple[str, Head, int]] = []  # heads that records name, and where
    place = -1
    for place, data in enumerate(records):
        try:
            record = _decode(data)
        except msgspec.DecodeError:
            record = None
        if record is None or record.format != FORMAT or record.number < 0:
            findings.append(Finding("unreadable", "", -1, place))
            continue
        writer, number = record.writer, record.number
        if record.app != app:
            findings.append(Finding("foreign", writer, number, place))
            continue
        if record.hash != _hash(record):
            findings.append(Finding("altered", writer, number, place))
        chain = chains.setdefault(writer, {})
        if number in chain:
            findings.append(Finding("doubled", writer, number, place))
            continue
        if (end := ends.get(writer)) is not None and number < end.number:
            gaps.pop((writer, number), None)
            findings.append(Finding("reordered", writer, number, place))
        else:
            start = end.number + 1 if end else 0 if whole else number
            gaps.update({(writer, left_out): place for left_out in range(start, min(number, start + LISTED))})
            ends[writer] = head_of(record)
        chain[number] = record.hash
        places[writer, number] = place
        if number:
            named.append((writer, Head(number - 1, record.last), place))
        named += [(name, head, place) for name, head in record.seen.items()]
    findings += [Finding("missing", writer, number, place) for (writer, number), place in gaps.items()]
    found = set(findings)
    for writer, head, at in [*named, *((name, head, -1) for name, head in (heads or {}).items())]:
        for finding in _against(writer, head, at, chains.get(writer, {}), places, whole):
            if finding not in found and finding._replace(problem="missing") not in found:
                found.add(finding)
                findings.append(finding)
    return Examined(place + 1, ends, sorted(findings, key=lambda finding: (finding.place < 0, finding.place)))


def _against(
    writer: str, head: Head, place: int, chain: Mapping[int, str], places: Mapping[tuple[str, int], int], whole: bool
) -> Iterable[Finding]:
    """What is said of a record, from outside of it, against the record."""
    known = chain.get(head.number)
    if known is not None:
        there = places[writer, head.number]
        if known != head.hash:
            yield Finding("altered", writer, head.number, there)
        elif 0 <= place < there:
            yield Finding("reordered", writer, head.number, there)
    elif head.number > max(chain, default=-1) and (chain or whole or place < 0):
        yield Finding("cut", writer, head.number, -1)
