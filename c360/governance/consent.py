"""Consent: decisions that people gave on identifiers, what is known of one identifier, and what a profile may be used for.

Of each identifier and purpose only the newest instant is kept; joined by maximum, so that order and repeats carry no
meaning. Expiry is looked at when asked, never when joined: what has expired still is newer than what came before it.
In every doubt the answer is no. Knows nothing of how decisions come or who asks; times are epoch ms, and arguments.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

import msgspec

from c360.errors import NeedsOperator
from c360.governance.purposes import Purpose

FORMAT = 1
NEVER = 1 << 62  # when a decision without an end expires
AHEAD_MS = 5 * 60_000  # how far a refusal's time may be after its append time

Status = Literal["granted", "denied", "withdrawn"]
GRANTED: Status = "granted"
DENIED: Status = "denied"
WITHDRAWN: Status = "withdrawn"
STATUSES: tuple[Status, ...] = (GRANTED, DENIED, WITHDRAWN)


class Decision(msgspec.Struct, frozen=True, gc=False):
    """What somebody decided on a purpose, by an identifier `namespace:value`. `at` comes from the data."""

    identifier: str
    purpose: str
    status: Status
    at: int
    source: str
    expires_at: int | None = None  # from then on it counts as never given

    def clamped(self, appended: int) -> Decision:
        """The same, not later than its record was appended; a refusal up to AHEAD_MS later: a clock from 2099 must not win for
        ever, and a grant from the future must not beat a refusal that is said after it.

        Refusals may be ahead, as clocks are: that way the doubt is a no. Of two from the future the refusal is later.
        """
        latest = appended if self.status == GRANTED else appended + AHEAD_MS
        return self if self.at <= latest else msgspec.structs.replace(self, at=latest)


class Word(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A decision without its place: identifier, purpose and instant."""

    status: Status
    source: str
    expires_at: int | None = None

    @property
    def end(self) -> int:
        return NEVER if self.expires_at is None else self.expires_at


class Newest(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What was said at the newest instant: a grant, a refusal, or both, which is a conflict that the refusal wins."""

    at: int
    grant: Word | None = None
    refusal: Word | None = None

    @property
    def holds(self) -> Word:
        word = self.refusal or self.grant
        assert word is not None, "an instant at which nobody decided"
        return word

    @property
    def conflict(self) -> bool:
        return self.grant is not None and self.refusal is not None


State = dict[str, Newest]
"""Of one identifier: purpose → what was said last."""


def newest(decision: Decision) -> Newest:
    """What is known when only this one is."""
    word = Word(decision.status, decision.source, decision.expires_at)
    return Newest(decision.at, word, None) if decision.status == GRANTED else Newest(decision.at, None, word)


def joined(a: Newest, b: Newest) -> Newest:
    """The later; of one instant both. Commutative, associative, idempotent."""
    if a.at != b.at:
        return a if a.at > b.at else b
    return Newest(a.at, _strictest(a.grant, b.grant), _strictest(a.refusal, b.refusal))


def _strictest(a: Word | None, b: Word | None) -> Word | None:
    """Of two grants the one that ends first, of two refusals the one that ends last; then by name, to have one answer."""
    if a is None or b is None:
        return a or b
    return max(a, b, key=_strictness)


def _strictness(word: Word) -> tuple[int, str, str]:
    return (-word.end if word.status == GRANTED else word.end, word.status, word.source)


def join(state: State, decision: Decision) -> bool:
    """Join a decision about the state's identifier into it, in place. True if anything changed."""
    before = state.get(decision.purpose)
    said = newest(decision)
    after = said if before is None else joined(before, said)
    if after == before:
        return False
    state[decision.purpose] = after
    return True


# -------------------------------------------------------------------------------------------------------------- record
def encode_state(state: State) -> bytes | None:
    """The value of an identifier's record in `{app}.consent`; None, a tombstone, where nothing is known of it.

    Equal states give equal bytes. Nothing leaves a state by itself, not even when it expires: an older decision that comes
    late would then hold again. So a tombstone is only written when the identifier is erased.
    """
    if not state:
        return None
    return _encode((FORMAT, sorted(state.items(), key=_by_purpose)))


def decode_state(value: bytes | None) -> State:
    """The state in a record; of a tombstone, an empty one. Raises NeedsOperator if another format wrote it."""
    if not value:
        return {}
    try:
        found, pairs = _decode(value)
    except msgspec.DecodeError:
        found, pairs = -1, ()
    if found != FORMAT:
        raise NeedsOperator(
            "a consent record has a format that this version of c360 does not read; run the version that wrote it, or newer"
        )
    return dict(pairs)


def _by_purpose(pair: tuple[str, Newest]) -> str:
    return pair[0]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[int, tuple[tuple[str, Newest], ...]]).decode


# ------------------------------------------------------------------------------------------------------------- verdict
Reason = Literal["basis", "granted", "withdrawn", "denied", "conflict", "expired", "unknown"]
REASONS: dict[Reason, str] = {
    "basis": "the purpose does not rest on consent",
    "granted": "it was granted, and nobody refused",
    "withdrawn": "consent was withdrawn by one of the identifiers; only a newer decision on that identifier changes it",
    "denied": "consent was denied by one of the identifiers; only a newer decision on that identifier changes it",
    "conflict": "a grant and a refusal were given at one instant, so it is refused; send the decision again with a newer time",
    "expired": "what was decided has expired; ask the customer again",
    "unknown": "nobody decided; ask the customer, or look whether the consent source sends this purpose and identifier",
}
"""Why, in a sentence that says what to do."""


class Verdict(NamedTuple):
    """Whether a profile may be used for a purpose now. `by`: the identifiers that decided, sorted; `changes_at`: when
    `allowed` becomes its opposite if nothing new is decided; None: never."""

    allowed: bool
    reason: Reason
    by: tuple[str, ...] = ()
    changes_at: int | None = None


def verdict(purpose: Purpose, states: Mapping[str, State], now: int) -> Verdict:
    """Of a profile. states: by identifier of the profile, what is known of it; those of which nothing is may be missing.

    Any that refuses: no. Else any that grants: yes. Else no. Un-merge needs no rule: decisions hang on identifiers.
    """
    if not purpose.asks:
        return Verdict(True, "basis")
    said = {i: known for i, state in states.items() if (known := state.get(purpose.name)) is not None}
    live = {i: known for i, known in said.items() if now < known.holds.end}
    refusing = {i: known for i, known in live.items() if known.refusal is not None}
    granting = {i: known for i, known in live.items() if known.refusal is None}
    last_grant = max((known.holds.end for known in granting.values()), default=now)
    if refusing:
        # The last refusal to end lets a grant through that outlives it; grants that end before it do not count again.
        over = max(known.holds.end for known in refusing.values())
        return Verdict(False, _refusal(refusing.values()), tuple(sorted(refusing)), over if over < last_grant else None)
    if granting:
        return Verdict(True, "granted", tuple(sorted(granting)), None if last_grant == NEVER else last_grant)
    return Verdict(False, "expired" if said else "unknown", tuple(sorted(said)))


def _refusal(refusing: Iterable[Newest]) -> Reason:
    """The plainest: a conflict is named only where nobody refused without contradiction."""
    plain = {known.holds.status for known in refusing if not known.conflict}
    return "withdrawn" if WITHDRAWN in plain else "denied" if DENIED in plain else "conflict"


def conflicts(state: State) -> tuple[str, ...]:
    """Purposes on which an identifier contradicts itself, sorted: to be counted and shown."""
    return tuple(sorted(purpose for purpose, known in state.items() if known.conflict))
