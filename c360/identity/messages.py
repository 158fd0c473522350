"""What nodes say to each other, and what they publish. One format for all messages: MessagePack arrays, tag first.

Messages go to the partition that owns the destination, exactly once, first in first out per pair of nodes; nothing else is
asked of the way there. `cause` is the id of the fact, or the request of the mark, that brought a message about.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal

import msgspec

from c360.identity.facts import Fact, Kind, slot_key
from c360.identity.resolve import Evidence, Standing
from c360.identity.rules import OK, Key, Status

Change = Literal["created", "merged", "split", "moved", "detail"]


class Touch(msgspec.Struct, frozen=True, array_like=True, tag=1, gc=False):
    """Subject → identifier: how our link stands now.

    Not live and no home: claims of ours that do not count still name you (dead ones, and those of a subject whose own value
    says nothing).
    """

    subject: Key
    live: bool  # False: it is gone
    may_link: bool  # the subject itself is neither shared nor a hub
    uniques: tuple[Key, ...]  # unique ids it lends
    home: Key  # where the subject's evidence goes
    cause: str


class Meet(msgspec.Struct, frozen=True, array_like=True, tag=2, gc=False):
    """Any → the later-ranked of two nodes: your block and that of `other`, which ranks before you, are one."""

    other: Key
    cause: str


class Told(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a subject was last told, and by which leader."""

    by: Key
    standing: Standing


class Gather(msgspec.Struct, frozen=True, array_like=True, tag=3, gc=False):
    """Any → home … leader: new evidence of one node, or a whole block that is handed over."""

    members: tuple[Evidence, ...]
    cause: str
    told: tuple[tuple[Key, Told], ...] = ()
    reported: tuple[tuple[str, tuple[Key, ...]], ...] = ()  # request → nodes already reported
    astray: bool = False  # it came by a node that is erased, at which the members may point


class Assign(msgspec.Struct, frozen=True, array_like=True, tag=4, gc=False):
    """Leader → subject: your standing. change: merged, split or moved, for the case that your profile is another."""

    leader: Key
    standing: Standing
    change: Change
    cause: str


class Mark(msgspec.Struct, frozen=True, array_like=True, tag=5, gc=False):
    """Outside → any node: begin, or end, a standing request for the members of its profile and its holders."""

    request: str
    on: bool = True


class Forget(msgspec.Struct, frozen=True, array_like=True, tag=6, gc=False):
    """Outside → any node: it is erased. Its claims go, and links to it; then it is nobody (docs/decisions/0018)."""

    cause: str


class Unlink(msgspec.Struct, frozen=True, array_like=True, tag=7, gc=False):
    """Identifier → subject: I am erased; claims that name me are to go."""

    identifier: Key
    cause: str


class Unsay(msgspec.Struct, frozen=True, array_like=True, tag=8, gc=False):
    """A claim was taken back for good: its record is no more."""

    kind: Kind
    other: Key
    source: str


class Vanish(msgspec.Struct, frozen=True, array_like=True, tag=9, gc=False):
    """Leader → node that is erased: you are in no block any more. Be no more, once nobody can have a message for you."""

    cause: str


class Follow(msgspec.Struct, frozen=True, array_like=True, tag=11, gc=False):
    """Leader → node of its block: point at me, and let your identifiers know. Nodes that you may point at are to vanish."""

    leader: Key
    cause: str


Message = Fact | Touch | Meet | Gather | Assign | Mark | Forget | Unlink | Unsay | Vanish | Follow
encode_message = msgspec.msgpack.Encoder().encode
decode_message = msgspec.msgpack.Decoder(Message).decode


def encoded(message: Message, most: int) -> Iterator[bytes]:
    """A message as records of at most `most` bytes or so: a Gather that is larger is cut.

    It may be taken in by the piece, in their order. Blocks only merge: evidence counts by its version, whenever it comes.
    What was told is compared by rank, and travels with its subject's evidence, so that whoever decides on a subject knows
    what it believes. Between two pieces a leader may decide on less than there is, as between any two messages; that is
    why what is linked travels together. `reported` that comes late may be reported again, which is allowed.
    """
    data = encode_message(message)
    if len(data) <= most or not isinstance(message, Gather):
        yield data
        return
    told, cause = dict(message.told), message.cause
    members: list[Evidence] = []
    size = 0
    for evidence in _together(message.members):
        known = told.get(evidence.node)
        weight = len(_encode_part((evidence, evidence.node, known)))
        if members and size + weight > most:
            yield _piece(members, told, message)
            members, size = [], 0
        members.append(evidence)
        size += weight
    if members:
        yield _piece(members, told, message)
    assert not told, "what was told without evidence of its subject is cut off"
    for request, nodes in message.reported:
        step = max(1, len(nodes) * most // (len(_encode_part(nodes)) + 1))
        for i in range(0, len(nodes), step):
            yield encode_message(Gather((), cause, (), ((request, nodes[i : i + step]),)))


def _piece(members: Sequence[Evidence], told: dict[Key, Told], whole: Gather) -> bytes:
    pairs = [(evidence.node, told.pop(evidence.node)) for evidence in members if evidence.node in told]
    return encode_message(Gather(tuple(members), whole.cause, tuple(pairs), astray=whole.astray))


def _together(members: Iterable[Evidence]) -> list[Evidence]:
    """The same in an order in which what is linked stands together."""
    left = {evidence.node: evidence for evidence in members}
    holders: dict[Key, list[Key]] = {}
    for evidence in left.values():
        for link in evidence.links:
            holders.setdefault(link.identifier, []).append(evidence.node)
    ordered: list[Evidence] = []
    for node in list(left):
        queue = [node]
        while queue:
            here = left.pop(queue.pop(), None)
            if here is not None:
                ordered.append(here)
                # A value that links nobody ties nothing together.
                queue += [link.identifier for link in here.links]
                queue += holders.pop(here.node, ()) if here.status == OK else ()
    return ordered


_encode_part = msgspec.msgpack.Encoder().encode


# ----------------------------------------------------------------------------------------------------------- published
class Assigned(msgspec.Struct, frozen=True, array_like=True, tag=0, gc=False):
    """By a subject; the greatest `seq` holds. `was`: its profile before, an alias of `standing.profile` from now on.

    change: merged, the old profile has ceased; split, this one is new; moved, both exist; detail, the profile is the same.
    """

    subject: Key
    seq: int
    standing: Standing
    was: Key | None
    change: Change
    cause: str


class StatusChanged(msgspec.Struct, frozen=True, array_like=True, tag=1, gc=False):
    """By a node, when it may or may not link any more."""

    node: Key
    status: Status


class Members(msgspec.Struct, frozen=True, array_like=True, tag=2, gc=False):
    """By a leader: nodes newly found in the profile of a marked node."""

    request: str
    node: Key
    added: tuple[Key, ...]


class Holders(msgspec.Struct, frozen=True, array_like=True, tag=3, gc=False):
    """By an identifier that is marked or erased: subjects that hold it by a live link, in its profile or not."""

    request: str
    node: Key
    added: tuple[Key, ...]


class Unsaid(msgspec.Struct, frozen=True, array_like=True, tag=4, gc=False):
    """By a subject: this claim is to be taken back for good, for the sake of somebody who is erased."""

    subject: Key
    kind: Kind
    other: Key
    source: str


Event = Assigned | StatusChanged | Members | Holders | Unsaid
encode_event = msgspec.msgpack.Encoder().encode
decode_event = msgspec.msgpack.Decoder(Event).decode


# ------------------------------------------------------------------------------------------------------------ to tasks
class Rest(msgspec.Struct, frozen=True, array_like=True, tag="rest"):
    """A record of the loop with an empty key: one task's word in a round after a reset."""

    round: int
    busy: bool


class Probe(msgspec.Struct, frozen=True, array_like=True, tag="probe"):
    """Of the erasure agent to each task: say when all has come to rest that follows from the facts there are.

    Where they end says a mark among them (`probe_mark`), so that nobody has to ask for the end of a log.
    """

    name: str  # of this one question, also where it is asked again
    request: str
    view: str
    probe: int


PROBE = "~probe/"  # in place of a subject, whose namespace begins with a letter


def probe_mark(probe: Probe) -> bytes:
    """The key of the mark: that of a claim of nobody, whose record has no value."""
    return slot_key(PROBE + probe.name, "link", probe.view, "probe")


class Round(msgspec.Struct, frozen=True, array_like=True, tag="round"):
    """One task's word in a round of a probe."""

    name: str
    round: int
    busy: bool


class Gone(msgspec.Struct, frozen=True, array_like=True, tag="gone"):
    """Of the task that erases somebody to each task: assignments are to say no more that a subject was of this profile."""

    profile: Key


encode_probe = msgspec.msgpack.Encoder().encode  # any of the four
decode_probe: Callable[[bytes], Rest | Probe | Round | Gone] = msgspec.msgpack.Decoder(
    Rest | Probe | Round | Gone
).decode
