"""Facts: what sources say about subjects, as a versioned set in which order and repetition carry no meaning.

A fact is a link of a subject to an identifier, or a cannot-link of two subjects; a claim is the newest word on it of one
source. Joined by maximum, claims are a semilattice: that is all that the rest relies on.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from c360.errors import NeedsOperator
from c360.identity.rules import Key

FORMAT = 1
Kind = Literal["link", "cannot"]
LINK: Kind = "link"
CANNOT: Kind = "cannot"
OPERATORS = "operator"  # the source of what people say of who is who


class Claim(msgspec.Struct, frozen=True, order=True, array_like=True, gc=False):
    """The greatest wins: the newer version; of one version the dead one, so that an unlink beats a link.

    version comes from the source: event time in ms, or a sequence of its own; never arrival time. first_seen: ms.
    assurance: how sure the source is, greater decides earlier.
    """

    version: int
    dead: bool = False
    first_seen: int = 0
    assurance: int = 0


class Fact(msgspec.Struct, frozen=True, array_like=True, tag=0, gc=False):
    """`other`: of a link an identifier, of a cannot-link another subject. `source`: its name, `name#primary-key` of rows,
    so that deleting one of two rows that say the same leaves the other's claim."""

    subject: Key
    kind: Kind
    other: Key
    source: str
    claim: Claim

    @property
    def id(self) -> str:
        """Of this word, to be named as a cause: the record's key and the version."""
        return f"{_record_key(self)}@{self.claim.version}"


Claims = dict[tuple[Kind, Key, str], Claim]
"""Of one subject: (kind, other, source) → newest claim, dead ones included."""


def link(subject: Key, identifier: Key, source: str, claim: Claim) -> Fact:
    """The subject was seen with the identifier (or, with a dead claim, is no longer held to have it)."""
    return Fact(subject, LINK, identifier, source, claim)


def cannot(subject: Key, other: Key, source: str, claim: Claim) -> Fact:
    """Two subjects are not one customer. Which of the two it is said of makes no difference."""
    return Fact(subject, CANNOT, other, source, claim)


def join(claims: Claims, fact: Fact) -> bool:
    """Join a fact into its subject's claims, in place: commutative, associative, idempotent. True if anything changed."""
    slot = (fact.kind, fact.other, fact.source)
    known = claims.get(slot)
    if known is not None and known >= fact.claim:
        return False
    claims[slot] = fact.claim
    return True


# ------------------------------------------------------------------------------------------------------------- records
def _record_key(fact: Fact) -> str:
    parts = (fact.subject, fact.kind, fact.other, fact.source)
    key = "|".join(parts)
    if "%" not in key and key.count("|") == 3:
        return key  # nearly all
    return "|".join([part.replace("%", "%25").replace("|", "%7C") for part in parts])


def encode_fact(fact: Fact) -> tuple[bytes, bytes]:
    """Key and value of its record: `subject|kind|other|source`, with % and | of the parts escaped; format and claim."""
    return _record_key(fact).encode(), _encode((FORMAT, fact.claim))


def slot_key(subject: Key, kind: Kind, other: Key, source: str) -> bytes:
    """The key of the record of a claim: a tombstone of it takes the claim back."""
    return _record_key(Fact(subject, kind, other, source, Claim(0))).encode()


def decode_slot(key: bytes) -> tuple[Key, Kind, Key, str]:
    """Subject, kind, other and source of a record's key. Raises ValueError for what is none."""
    parts = key.decode().split("|")
    if b"%" in key:
        parts = [part.replace("%7C", "|").replace("%25", "%") for part in parts]
    subject, kind, other, source = parts
    if kind not in (LINK, CANNOT):
        raise ValueError("no kind of fact")
    return subject, LINK if kind == LINK else CANNOT, other, source


def decode_fact(key: bytes, value: bytes) -> Fact:
    """Raises NeedsOperator if another format wrote it."""
    parts = key.decode().split("|")
    if b"%" in key:
        parts = [part.replace("%7C", "|").replace("%25", "%") for part in parts]
    subject, kind, other, source = parts
    found, claim = _decode(value)
    if found != FORMAT or kind not in (LINK, CANNOT):
        raise NeedsOperator(
            "a link fact has a format that this version of c360 does not read; run the version that wrote it, or newer"
        )
    return Fact(subject, LINK if kind == LINK else CANNOT, other, source, claim)


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[int, Claim]).decode
