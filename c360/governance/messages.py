"""What the erasure protocol is told (events) and what it asks for (commands).

`Erase`, `Receipt` and `Passed` go to and come from other agents as records; their bytes are JSON, `schemas/` has the
contracts. The others are what the erasure agent makes of records that have a form of their own, or does itself.

A request is named by the record that asks for it, so that one name never stands for two. Identifiers are texts as they may
be written outside of doors: of personal namespaces, tokens.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

from c360.errors import NeedsOperator
from c360.governance.certificate import Certificate, Promise
from c360.governance.suppressed import Suppressed


# -------------------------------------------------------------------------------------------------------------- events
class Requested(msgspec.Struct, frozen=True, gc=False):
    """Somebody is to be forgotten. subject: the identifier is of a namespace that names subjects."""

    request: str
    identifier: str
    subject: bool


class Lift(msgspec.Struct, frozen=True, gc=False):
    """The suppression of a request is to end. What was shredded stays so."""

    request: str


class Found(msgspec.Struct, frozen=True):
    """Identity: these are of the profile of the marked identifier. May grow for as long as the mark stands."""

    request: str
    subjects: tuple[str, ...]
    others: tuple[str, ...] = ()  # identifiers that are no subjects


class Beside(msgspec.Struct, frozen=True):
    """Identity: subjects that hold the marked identifier by a live link, in its profile or not."""

    request: str
    subjects: tuple[str, ...]


class Out(msgspec.Struct, frozen=True):
    """A record of `{app}.suppressed`, read back: all that is read from there on knows of it. identifier: veiled."""

    identifier: str
    partition: int
    offset: int
    said: Suppressed


class Passed(msgspec.Struct, frozen=True, gc=False):
    """A govern task: no transaction of mine begins any more with a copy of `{app}.suppressed` that ends before `offset`.

    offset: of the next record, so that a record is passed if its own is below. A task begins, also after a crash or on
    another worker, with a copy that was read to its end.
    """

    task: str
    partition: int
    offset: int


class Shredded(msgspec.Struct, frozen=True):
    """`Shred` is done: every key that the subject had when this was asked has its tombstone; these ids it had."""

    request: str
    subject: str
    round: int
    keys: tuple[str, ...]


class Settled(msgspec.Struct, frozen=True, gc=False):
    """Of a view of identity: after `Settle` of this probe was asked, its facts and its loop were seen without lag.

    To be told after all that it had reported until then.
    """

    request: str
    view: str
    probe: int


class Receipt(msgspec.Struct, frozen=True, omit_defaults=True):
    """An agent or door: of the identifier nothing of lives below `life` is in what I hold, in what I have put out, nor on
    its way from one of my tasks to another.

    identifier: as it was asked for, or veiled, from those who know it so. Key: the request. tombstones: how many, by topic.
    reached: by `topic/partition`, how far it had read what asks it: the offset that it would read next.
    """

    request: str
    identifier: str
    life: int
    agent: str
    tombstones: dict[str, int] = {}
    reached: dict[str, int] = {}


class Deployed(msgspec.Struct, frozen=True):
    """Who there is, as it is now: said at each start, by the plan."""

    govern: tuple[str, ...]  # tasks: raw topic-partitions
    views: tuple[
        str, ...
    ]  # rule sets of identity with their life: one that was reset has another name, and is marked anew
    agents: tuple[str, ...]  # all that must give a receipt, doors too; govern, who holds rows, among them
    topics: dict[str, Promise] = {}


class Tick(msgspec.Struct, frozen=True, gc=False):
    """Ask again for what was not answered."""


# In any order, any of them again
Event = Requested | Lift | Found | Beside | Out | Passed | Shredded | Settled | Receipt | Deployed | Tick


# ------------------------------------------------------------------------------------------------------------ commands
class Suppress(msgspec.Struct, frozen=True):
    """Write this record of `{app}.suppressed`. identifier: veiled. Answer: `Out`."""

    identifier: str
    said: Suppressed


class Mark(msgspec.Struct, frozen=True, gc=False):
    """Put the standing mark on the node, in this view, or take it off (from a node that is gone, too). Answers, for as
    long as it stands: `Found`, `Beside`."""

    view: str
    identifier: str
    request: str
    on: bool = True


class Shred(msgspec.Struct, frozen=True, gc=False):
    """Tombstone every data key of the subject that is of a life below `life`. Answer: `Shredded`."""

    request: str
    subject: str
    life: int
    round: int


class Settle(msgspec.Struct, frozen=True, gc=False):
    """Look whether identity is at rest. Answer: `Settled`."""

    request: str
    view: str
    probe: int


class Erase(msgspec.Struct, frozen=True, gc=False):
    """To every agent and door: delete what you hold and have put out of the identifier, of lives below `life`.

    Key: the identifier. It may be a subject, a profile's id, or an identifier that a profile holds. Asked again, answer
    again. Answer: `Receipt`.
    """

    request: str
    identifier: str
    life: int


class Certify(msgspec.Struct, frozen=True):
    """Write the certificate."""

    certificate: Certificate


Command = Suppress | Mark | Shred | Settle | Erase | Certify


# ------------------------------------------------------------------------------------------------------------- records
class _Erase(msgspec.Struct, frozen=True):
    request: str
    life: int


class _Found(msgspec.Struct, frozen=True, omit_defaults=True):
    """What identity says, one of three: who is of the profile, who stands beside it, which view has come to rest."""

    subjects: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    view: str = ""
    probe: int = 0


class _Passed(msgspec.Struct, frozen=True):
    partition: int
    offset: int


class _Receipt(msgspec.Struct, frozen=True, omit_defaults=True):
    identifier: str
    life: int
    agent: str
    tombstones: dict[str, int] = {}
    reached: dict[str, int] = {}


_encode = msgspec.json.Encoder(order="deterministic").encode
_T = TypeVar("_T")


def _decode(data: bytes, kind: type[_T]) -> _T:
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.DecodeError as error:  # its text may show values
        raise NeedsOperator(
            "a record of the erasure protocol is none that this version of c360 writes: a newer one wrote it, or another"
            " program; stop those, and go on with the newest"
        ) from error


def encode_erase(erase: Erase) -> tuple[bytes, bytes]:
    """Key and value of the record: so it comes to the task that owns the identifier."""
    return erase.identifier.encode(), _encode(_Erase(erase.request, erase.life))


def decode_erase(key: bytes, value: bytes) -> Erase:
    """Raises NeedsOperator if it is none."""
    said = _decode(value, _Erase)
    return Erase(said.request, key.decode(), said.life)


def encode_receipt(receipt: Receipt) -> tuple[bytes, bytes]:
    """Key and value of the record."""
    said = _Receipt(receipt.identifier, receipt.life, receipt.agent, receipt.tombstones, receipt.reached)
    return receipt.request.encode(), _encode(said)


def decode_receipt(key: bytes, value: bytes) -> Receipt:
    """Raises NeedsOperator if it is none."""
    said = _decode(value, _Receipt)
    return Receipt(key.decode(), said.identifier, said.life, said.agent, said.tombstones, said.reached)


def encode_passed(passed: Passed) -> tuple[bytes, bytes]:
    """Key and value of the record."""
    return f"{passed.task}/{passed.partition}".encode(), _encode(_Passed(passed.partition, passed.offset))


def decode_passed(key: bytes, value: bytes) -> Passed:
    """Raises NeedsOperator if it is none."""
    said = _decode(value, _Passed)
    return Passed(key.decode().rpartition("/")[0], said.partition, said.offset)


def encode_found(event: Found | Beside | Settled) -> tuple[bytes, bytes]:
    """Key and value of the record of `{app}.found`."""
    match event:
        case Found(_, subjects, others):
            said = _Found(subjects=subjects, others=others)
        case Beside(_, subjects):
            said = _Found(beside=subjects)
        case Settled(_, view, probe):
            said = _Found(view=view, probe=probe)
    return event.request.encode(), _encode(said)


def decode_found(key: bytes, value: bytes) -> Found | Beside | Settled:
    """Raises NeedsOperator if it is none."""
    said, request = _decode(value, _Found), key.decode()
    if said.view:
        return Settled(request, said.view, said.probe)
    return Beside(request, said.beside) if said.beside else Found(request, said.subjects, said.others)
