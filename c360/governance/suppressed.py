"""The suppressed table: identifiers of which nothing may be used or served, and how often each was erased.

One record per identifier, a join of what each erasure request says of it: joining is commutative, associative and
idempotent, so that whoever reads a record twice, or two in the wrong order, ends with the same. The topic is compacted, and
compaction keeps the last record, not the join: so there is one writer, who always writes the whole record.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from c360.errors import NeedsOperator


class Hold(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """What one request says: suppressed since, and until. Epoch ms; lifted 0: it stands. proven: when all was removed.

    Until then facts about it are still needed, to find who is of the profile; afterwards they are void, also in a rebuild.
    """

    since: int
    lifted: int = 0
    proven: int = 0


class Suppressed(msgspec.Struct, frozen=True):
    """Of one identifier, whose veiled label is the key.

    life: how often it was erased; records of lower lives are void for ever, also after a lift.

    The life stands in the same record as the lift, because two tables would have no order between them: govern could see
    the lift first, and give new records the life that is void.
    """

    life: int
    holds: dict[str, Hold]  # by request

    @property
    def stands(self) -> bool:
        """Whether any request still holds it."""
        return any(not hold.lifted for hold in self.holds.values())

    @property
    def over(self) -> bool:
        """Whether it stands, and all of it was removed."""
        return any(hold.proven and not hold.lifted for hold in self.holds.values())


def join(one: Suppressed | None, other: Suppressed) -> Suppressed:
    """What both say together: the greater life; of a request the earlier since and the later lift."""
    if one is None:
        return other
    holds = dict(one.holds)
    for request, hold in other.holds.items():
        known = holds.get(request)
        holds[request] = (
            hold
            if known is None
            else Hold(min(known.since, hold.since), max(known.lifted, hold.lifted), max(known.proven, hold.proven))
        )
    return Suppressed(max(one.life, other.life), holds)


Look = Callable[[str], Suppressed | None]


def life_if_kept(subject: str, identifiers: Iterable[str], look: Look) -> int | None:
    """Govern's rule: the life that a record is of, or None: it is dropped.

    It is dropped if its subject, or an identifier that it says is the subject's own, is suppressed: an erased customer who
    comes back under a new cookie is recognised by the mail address. look: the identifier's record, if it has one.
    """
    for identifier in identifiers:
        said = look(identifier)
        if said is not None and said.stands:
            return None
    said = look(subject)
    if said is None:
        return 0
    return None if said.stands else said.life


encode_suppressed = msgspec.json.Encoder(order="deterministic").encode
_decode = msgspec.json.Decoder(Suppressed).decode


def decode_suppressed(data: bytes) -> Suppressed:
    """Raises NeedsOperator if these bytes are no such record."""
    try:
        return _decode(data)
    except msgspec.DecodeError as error:  # its text may show values
        raise NeedsOperator(
            "a record of the suppressed table is none that this version of c360 writes: a newer one wrote it, or another"
            " program; nobody is served until it is read by the version that wrote it"
        ) from error
