"""The fence: a door delivers only while it can show that its copies are young enough; in every doubt it waits.

The agents that keep consent and suppression state, for each of their raw input partitions: everything appended there
before broker time T is in my output up to these offsets. A door compares that with how far its copies have come. Comparing
with the end of the output instead would show nothing: a stopped agent's output has no more to read.
Knows nothing of Kafka; `now` is the door's clock, which must agree with the broker's to within `fence_max_age`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

import msgspec

from c360.errors import NeedsOperator

FORMAT = 1


class Place(msgspec.Struct, frozen=True, array_like=True, order=True, gc=False):
    """A partition of a topic: of a raw input that an agent reads, or of its output that doors copy."""

    topic: str
    partition: int


class Statement(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """All that was appended to `input` before broker time `at` (ms) is in the outputs below these offsets.

    `ends`: by output partition, the offset after the last record; sorted. Every partition that could have got one.
    `of`: the id of the output topic; one that is made anew under its name is another, in which those offsets mean nothing.
    """

    input: Place
    at: int
    ends: tuple[tuple[Place, int], ...]
    of: str = ""

    def reached(self, copied: Mapping[Place, int]) -> bool:
        """copied: by output partition, the next offset to be read; what is not in it has not been read at all."""
        return all(copied.get(place, 0) >= end for place, end in self.ends)


def statement_key(input: Place, output: str) -> bytes:
    """Key of the record: by the topic that it is about, too, as two agents may read one input."""
    return f"{output} {input.topic}/{input.partition}".encode()


def encode_statement(statement: Statement) -> bytes:
    return _encode((FORMAT, statement))


def decode_statement(value: bytes) -> Statement:
    """Raises NeedsOperator if another format wrote it."""
    try:
        found, statement = _decode(value)
    except msgspec.DecodeError:
        found, statement = -1, None
    if found != FORMAT or statement is None:
        raise NeedsOperator(
            "a statement of the fence has a format that this version of c360 does not read; let consent, erasure and doors "
            "run the same version"
        )
    return statement


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[int, Statement]).decode


Statements = Mapping[Place, Sequence[Statement]]
"""By input: what its agent has said, as far as it may still be needed (`kept`)."""


def kept(said: Iterable[Statement], copied: Mapping[Place, int]) -> tuple[Statement, ...]:
    """Of one input's statements the newest that is reached, and all newer ones: the rest says nothing more. By time."""
    ordered = sorted(said, key=_by_time)
    reached = [i for i, statement in enumerate(ordered) if statement.reached(copied)]
    return tuple(ordered[reached[-1] :] if reached else ordered)


def _by_time(statement: Statement) -> int:
    return statement.at


# -------------------------------------------------------------------------------------------------------------- answer
Why = Literal["open", "silent", "anew", "behind", "stale", "clock", "expired", "news", "version"]
WHYS: dict[Why, str] = {
    "open": "the fence is held",
    "silent": "its agent has never said how far it is; look whether the agent runs (c360 worker --only consent,erasure)",
    "anew": "what its agent writes is in a topic that was deleted and created again since it said how far it is, or this door's"
    " copy still is of the one before; wait, the agent writes it again, and c360 verify consent shows what there is",
    "behind": "this door's copy has not read as far as the agent has written; it is catching up, wait",
    "stale": "its agent has not said for too long how far it is; look whether the agent runs, and its lag",
    "clock": "the agent's statement is from this door's future; set the clocks of broker and workers right",
    "expired": "a decision has expired since this was decided; decide again",
    "news": "a decision on one of the identifiers has come since this was decided; decide again",
    "version": "another version of its projection is live than this worker knows of; start a worker of the app that has it",
}
"""Why a door waits, in a sentence about one input that says what to do."""


class Answer(NamedTuple):
    """`deliver` or wait, why, which input it hangs on, and until when a `deliver` holds at most (exclusive, ms)."""

    deliver: bool
    why: Why
    input: Place | None = None
    until: int | None = None


def ask(
    inputs: Collection[Place],
    said: Statements,
    copied: Mapping[Place, int],
    *,
    now: int,
    fence_max_age_ms: int,
) -> Answer:
    """Whether a door may deliver at `now`: for each raw input partition it must hold a young statement, and have reached it.

    inputs: all partitions that the consent and erasure agents have to read, from the plan and the broker, never from what
    was said: an input whose agent is silent would be missing there. A door of an app that has none does not ask.
    The first reason of the first input in order is named, so that equal questions have equal answers.
    """
    assert inputs, "a fence without inputs would always be open"
    oldest: tuple[int, Place] | None = None
    for place in sorted(inputs):
        why, at = _held(said.get(place, ()), copied, now, fence_max_age_ms)
        if why != "open":
            return Answer(False, why, place)
        if oldest is None or at < oldest[0]:
            oldest = at, place
    assert oldest is not None
    return Answer(True, "open", oldest[1], oldest[0] + fence_max_age_ms + 1)


def _held(said: Iterable[Statement], copied: Mapping[Place, int], now: int, most: int) -> tuple[Why, int]:
    """One input: how it stands, and the time of the newest statement that serves."""
    statements = list(said)
    if not statements:
        return "silent", 0
    # A door whose clock is behind would take a dead agent's last word for young; so what is too far ahead does not serve.
    serving = [s for s in statements if s.at <= now + most]
    if not serving:
        return "clock", 0
    young = [s for s in serving if s.at >= now - most]
    if not young:
        return "stale", 0
    reached = [s.at for s in young if s.reached(copied)]
    return ("open", max(reached)) if reached else ("behind", 0)


# -------------------------------------------------------------------------------------------------------------- commit
class Taken(NamedTuple):
    """What a delivery that was decided on rests upon: who may not have changed their mind, and when an answer expires.

    identifiers: all of the profiles in it, also those of which nothing is known. changes_at: the least of its verdicts'.
    """

    identifiers: frozenset[str]
    changes_at: int | None


def recheck(taken: Taken, fence: Answer, news: Collection[str], *, now: int) -> Answer:
    """Right before the commit, or the request: may what was decided still leave?

    fence: what `ask` says *now*, with the copies as they are now. news: identifiers of which the copies have read anything
    (consent or suppression) since the decision. Topic doors abort when told to wait, others do not send.
    """
    if not fence.deliver:
        return fence
    if taken.changes_at is not None and taken.changes_at <= now:
        return Answer(False, "expired")
    if not taken.identifiers.isdisjoint(news):
        return Answer(False, "news")
    return fence
