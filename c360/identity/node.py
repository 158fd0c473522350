"""A node's part in deciding who is who: `step` takes its share of a batch, and says what to send and what to publish.

Every subject and identifier is a node, owned by the partition its key hashes to. Collecting only ever adds: nodes that
may belong together point, over `home`, to one leader, which holds their evidence as a block. Deciding is
`c360.identity.resolve`, done anew for what a batch has touched. Invariants, each held by a line below that says so:

| name | is |
|---|---|
| one writer | evidence of a node is made by that node, its version rising; the greater version replaces |
| descent | `home` is a node of earlier rank, or the node itself: it leads. Meet and Gather go to earlier ranks only |
| tied | pointers and Meets on their way connect every two nodes that were ever united |
| contents | only leaders hold a block; the newest evidence of a node is at its leader or on its way there |
| told | the leader's table says what each subject will believe when all messages have arrived |

A step changes its node in place and nothing else: what was not committed is to be read again. Knows no Kafka and no clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from hashlib import blake2b
from typing import Any, NamedTuple, Protocol

import msgspec

from c360.errors import NeedsOperator
from c360.identity.facts import CANNOT, LINK, OPERATORS, Claim, Claims, Fact, Kind, join
from c360.identity.messages import (
    Assign,
    Assigned,
    Change,
    Event,
    Follow,
    Forget,
    Gather,
    Holders,
    Mark,
    Meet,
    Members,
    Message,
    StatusChanged,
    Told,
    Touch,
    Unlink,
    Unsaid,
    Unsay,
    Vanish,
)
from c360.identity.resolve import Block, BlockShelves, Evidence, Member, Pairs, Standing, decide, describe, lent
from c360.identity.rules import OK, STAND_IN, Key, Rules, namespace_of

FORMAT = 1
ERASED = (
    "~erased"  # among the marks of a node: it is, and has only to be let go of; and once with each request, as below
)
RELEASED = "~released"  # then, too: no block has more of it than its version. Its row, and that, stay while messages of
# before may be on their way: older evidence that comes late does not count, and what comes to the row is passed on


def erased_by(request: str) -> str:
    """The mark of a node that was erased for a request."""
    return f"{ERASED}:{request}"


# --------------------------------------------------------------------------------------------------------------- state
class Neighbour(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What an identifier knows of a subject with a live link to it, or of one that only names it."""

    may_link: bool
    uniques: tuple[Key, ...]
    home: Key  # "": it has no live link; claims of it that do not count name us, and are to go if we are erased
    met: bool  # our blocks were united already


NAMES_US = Neighbour(False, (), "", False)


class Apart(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Of neighbours that lie on shelves: how many, how many wait, unique ids by namespace, how many only name us."""

    degree: int
    waits: int
    spread: dict[str, int]
    naming: int = 0


class NeighbourShelves(NamedTuple):
    """Where the neighbours of a node lie that has too many to be carried about whole."""

    of: MutableMapping[Key, Neighbour]
    waiting: MutableMapping[Key, bool]
    counts: MutableMapping[Key, int]


class LeadShelves(NamedTuple):
    """Where a block and what was told of it lie, if it is too large to be carried about whole."""

    evidence: MutableMapping[Key, Evidence]
    holders: Pairs
    told: MutableMapping[Key, Told]


class Shelves(Protocol):
    """Rows of their own for what large nodes hold."""

    def neighbours(self, node: Key) -> NeighbourShelves: ...
    def lead(self, node: Key) -> LeadShelves: ...


class Neighbours:
    """Neighbours of an identifier, and what its status needs of them, kept up so that a hub of thousands costs no more."""

    __slots__ = ("_counts", "_spread", "degree", "naming", "of", "shelved", "waiting", "waits")

    def __init__(self, of: Mapping[Key, Neighbour], shelves: NeighbourShelves | None = None) -> None:
        """`shelves`: empty ones, to lie on."""
        self.shelved = shelves is not None
        shelves = shelves or NeighbourShelves({}, {}, {})
        self.of = shelves.of
        self.waiting = shelves.waiting  # those to be united with when the identifier may link
        self._counts = shelves.counts  # unique id → neighbours that lend it
        self._spread: dict[str, int] = {}  # namespace → different unique ids lent
        self.degree = self.waits = self.naming = 0  # how many live links; how many wait; how many that only name us
        for subject, neighbour in of.items():
            self._add(subject, neighbour)

    @classmethod
    def lying(cls, shelves: NeighbourShelves, apart: Apart) -> Neighbours:
        """Those that lie on shelves already."""
        found = cls({}, shelves)
        found.degree, found.waits, found._spread, found.naming = apart.degree, apart.waits, apart.spread, apart.naming
        return found

    @property
    def sizes(self) -> Apart:
        return Apart(self.degree, self.waits, self._spread, self.naming)

    def holders(self) -> tuple[Key, ...]:
        """Subjects with a live link, in their order."""
        return tuple(sorted(subject for subject, neighbour in self.of.items() if neighbour.home))

    def put(self, subject: Key, neighbour: Neighbour | None) -> None:
        """Another word on a subject; None: it is gone."""
        old = self.of.pop(subject, None)
        if old is not None:
            if old.home:
                self.degree -= 1
            else:
                self.naming -= 1
            for unique in old.uniques:
                self._count(unique, -1)
            if old.may_link and not old.met:
                del self.waiting[subject]
                self.waits -= 1
        if neighbour is not None:
            self._add(subject, neighbour)

    def _add(self, subject: Key, neighbour: Neighbour) -> None:
        if neighbour.home:
            self.degree += 1
        else:
            self.naming += 1
        self.of[subject] = neighbour
        for unique in neighbour.uniques:
            self._count(unique, 1)
        if neighbour.may_link and not neighbour.met:
            self.waiting[subject] = True
            self.waits += 1

    def clear(self) -> None:
        """Forget all of them, also what lies on shelves."""
        for rows in (self.of, self.waiting, self._counts):
            rows.clear()
        self._spread, self.degree, self.waits, self.naming = {}, 0, 0, 0

    def _count(self, unique: Key, sign: int) -> None:
        count = self._counts.get(unique, 0) + sign
        if count:
            self._counts[unique] = count
        else:
            del self._counts[unique]
        if count == (1 if sign > 0 else 0):
            name = namespace_of(unique)
            spread = self._spread.pop(name, 0) + sign
            if spread:
                self._spread[name] = spread

    @property
    def spread(self) -> int:
        """How many different values of one unique namespace are lent, at most."""
        return max(self._spread.values(), default=0)


class Lead:
    """What a leader holds: a block, and what it has told of it."""

    __slots__ = ("block", "reported", "told")

    def __init__(self, block: Block, told: MutableMapping[Key, Told], reported: dict[str, set[Key]]) -> None:
        self.block = block
        self.told = told  # subjects of the block
        self.reported = reported  # request → nodes already reported

    def give_up(self) -> None:
        """It was handed over: what lies on shelves goes."""
        if self.block.shelves is not None:
            self.block.shelves.evidence.clear()
            self.block.shelves.holders.clear()
            self.told.clear()


class Node:
    """State of one node. As a subject it has claims and a standing, as an identifier neighbours, as a leader a lead."""

    __slots__ = ("assigned_by", "claims", "evidence", "home", "key", "lead", "marks", "neighbours", "seq", "standing")

    def __init__(self, key: Key) -> None:
        self.key = key
        self.home = key
        self.evidence: Evidence | None = None
        self.marks: tuple[str, ...] = ()
        self.claims: Claims = {}
        self.assigned_by: Key | None = None
        self.standing: Standing | None = None
        self.seq = 0
        self.neighbours: Neighbours | None = None
        self.lead: Lead | None = None  # contents: only where home == key


def is_blank(node: Node) -> bool:
    """Whether nothing is known of it, so that it need not be kept."""
    return (
        not (node.claims or node.marks or node.standing or node.evidence or node.neighbours or node.lead)
        and node.home == node.key
    )


def is_leaving(node: Node) -> bool:
    """Whether it, or somebody in its block, is erased and released: to be forgotten once identity has rested."""
    return RELEASED in node.marks or (node.lead is not None and bool(_released(node.lead.block)))


def forget_released(node: Node) -> None:
    """Identity has rested, so that nothing older of who is released in its block can come: their versions go, too."""
    if (lead := node.lead) is not None:
        for one, member in sorted(_released(lead.block).items()):
            if not lead.block.near(member):
                lead.block.drop(one)
        if not lead.block.size:
            lead.give_up()
            node.lead = None


def let_go_of(node: Node) -> bool:
    """Identity has rested: forget who is released. Whether the node itself is to go; what lies on shelves goes now."""
    forget_released(node)
    if RELEASED not in node.marks or node.lead is not None:
        return is_blank(node)
    if node.neighbours is not None:
        node.neighbours.clear()
    return True


def let_go(message: Message) -> bool:
    """Whether it asks for nothing but less: a node that is not there need not be made for it."""
    match message:
        case Touch(_, live, home=home):
            return not live and home != ""
        case Mark(_, on):
            return not on
        case Forget() | Unlink() | Unsay() | Vanish() | Assign() | Follow():
            return True
        case _:
            return False


def requests_of(marks: Iterable[str]) -> list[str]:
    """Standing requests among the marks."""
    return [mark for mark in marks if mark != RELEASED and not mark.startswith(ERASED)]


def stand_in(living: Iterable[Evidence]) -> Key:
    """A name for who is to lead these: of no namespace, and nothing of who is erased is in it."""
    said = "|".join(sorted(f"{evidence.node} {evidence.version}" for evidence in living))
    return STAND_IN + blake2b(said.encode(), digest_size=12).hexdigest()


def shelve(node: Node, shelves: Shelves, most: int) -> None:
    """Lay what a node holds on shelves, where it is more than `most` neighbours or members. There it stays, once it is."""
    neighbours, lead = node.neighbours, node.lead
    if neighbours is not None and neighbours.degree + neighbours.naming > most and not neighbours.shelved:
        node.neighbours = Neighbours(neighbours.of, shelves.neighbours(node.key))
    if lead is not None and lead.block.size > most and lead.block.shelves is None:
        evidence, holders, told = shelves.lead(node.key)
        told.update(lead.told)
        block = Block(lead.block.rules, lead.block.evidence().values(), BlockShelves(evidence, holders))
        node.lead = Lead(block, told, lead.reported)


class _Saved(msgspec.Struct, array_like=True, gc=False):
    """A node as it is written; what follows from the rest is not, and of what lies on shelves only how much it is."""

    format: int
    key: Key
    home: Key
    evidence: Evidence | None
    marks: tuple[str, ...]
    claims: list[tuple[Kind, Key, str, Claim]]
    assigned_by: Key | None
    standing: Standing | None
    seq: int
    neighbours: Mapping[Key, Neighbour]
    members: Mapping[Key, Evidence]
    told: Mapping[Key, Told]
    reported: dict[str, set[Key]]
    neighbours_apart: Apart | None = None
    members_apart: tuple[int, list[Key]] | None = None  # how many, those with marks


_encode = msgspec.msgpack.Encoder(order="deterministic").encode
_decode = msgspec.msgpack.Decoder(_Saved).decode


def encode_node(node: Node) -> bytes:
    """The same for equal nodes, whatever their history, as long as nothing of them lies on shelves."""
    neighbours, lead = node.neighbours, node.lead
    near_by = lead is not None and lead.block.shelves is None
    return _encode(
        _Saved(
            FORMAT,
            node.key,
            node.home,
            node.evidence,
            node.marks,
            [(*slot, node.claims[slot]) for slot in sorted(node.claims)],
            node.assigned_by,
            node.standing,
            node.seq,
            neighbours.of if neighbours and not neighbours.shelved else {},
            lead.block.evidence() if lead and near_by else {},
            lead.told if lead and near_by else {},
            lead.reported if lead else {},
            neighbours.sizes if neighbours and neighbours.shelved else None,
            (lead.block.size, sorted(lead.block.marked)) if lead and not near_by else None,
        )
    )


def decode_node(data: bytes, rules: Rules, shelves: Shelves | None = None) -> Node:
    """For the rules that it was made by, on the shelves that it was laid on.

    Raises NeedsOperator if another format wrote it.
    """
    saved = _decode(data)
    if saved.format != FORMAT:
        raise NeedsOperator(
            f"identity's state has format {saved.format}, which this version of c360 did not write; give the rules a new"
            " version, or run `c360 reset` for them"
        )
    node = Node(saved.key)
    node.home = saved.home
    node.evidence = saved.evidence
    node.marks = saved.marks
    node.claims = {(kind, other, source): claim for kind, other, source, claim in saved.claims}
    node.assigned_by = saved.assigned_by
    node.standing = saved.standing
    node.seq = saved.seq
    if saved.neighbours:
        node.neighbours = Neighbours(saved.neighbours)
    elif saved.neighbours_apart is not None:
        assert shelves is not None, "a node that lies on shelves was read without them"
        node.neighbours = Neighbours.lying(shelves.neighbours(node.key), saved.neighbours_apart)
    if saved.members:
        node.lead = Lead(Block(rules, saved.members.values()), dict(saved.told), saved.reported)
    elif saved.members_apart is not None:
        assert shelves is not None, "a block that lies on shelves was read without them"
        evidence, holders, told = shelves.lead(node.key)
        block = Block(rules, (), BlockShelves(evidence, holders))
        block.size, block.marked = saved.members_apart[0], set(saved.members_apart[1])
        node.lead = Lead(block, told, saved.reported)
    return node


# ---------------------------------------------------------------------------------------------------------------- step
class Outcome(NamedTuple):
    """What a step says: to whom what, and to the world."""

    sends: list[tuple[Key, Message]]
    events: list[Event]
    novel: int = 0  # facts that were news
    largest: int = 0  # nodes of the largest component that was decided


def step(node: Node, messages: Iterable[Message], rules: Rules) -> Outcome:
    """One node takes its share of a batch, in place. The same of equal nodes and messages."""
    turn = _Turn(node, rules, messages)
    turn.run()
    return Outcome(turn.sends, turn.events, turn.novel, turn.largest)


class _Turn:
    """One step on its way: the node, what it still has to read, and what it has said so far."""

    __slots__ = (
        "astray", "cause", "events", "inbox", "largest", "me", "near", "novel", "rules", "said", "sends", "stale",
    )  # fmt: skip

    def __init__(self, me: Node, rules: Rules, messages: Iterable[Message]) -> None:
        self.me, self.rules = me, rules
        self.inbox: deque[Message] = deque(messages)
        self.sends: list[tuple[Key, Message]] = []
        self.events: list[Event] = []
        self.cause = ""
        self.novel = self.largest = 0
        self.stale = False  # own evidence may be out of date
        self.astray: set[Key] = set()  # nodes that may point at who is erased
        self.near: set[Key] = set()  # nodes in whose components the decision may be out of date
        self.said: set[Key] = set()  # of whom claims of ours say another thing than before

    def run(self) -> None:
        """Read everything, then bring own evidence up to date, then the decision: once per batch, not per message."""
        inbox = self.inbox
        while True:
            if inbox:
                message = inbox.popleft()
                _TAKEN[type(message)](self, message)
            elif self.stale:
                self.stale = False
                self.refresh()
            elif self.near:
                self.settle()
            else:
                return

    def send(self, to: Key, message: Message) -> None:
        if to == self.me.key:
            self.inbox.append(message)  # a node answers itself at once, inside the same step
        else:
            self.sends.append((to, message))

    # --------------------------------------------------------------------------- own knowledge: what evidence is made of
    def on_fact(self, fact: Fact) -> None:
        known = self.me.claims.get((fact.kind, fact.other, fact.source))
        if join(self.me.claims, fact):
            if fact.kind == LINK and (known is None or known.dead != fact.claim.dead):
                self.said.add(fact.other)
            self.cause = fact.id
            self.novel += 1
            self.stale = True
            if RELEASED in self.me.marks or (not fact.claim.dead and fact.source != OPERATORS):
                self.live()

    def live(self) -> None:
        """Records name us. Those of a life that is over came before we were erased, so this is a new one."""
        self.me.marks = tuple(requests_of(self.me.marks))

    def on_touch(self, touch: Touch) -> None:
        me, subject = self.me, touch.subject
        self.cause = touch.cause
        self.stale = True
        neighbours = me.neighbours = me.neighbours or Neighbours({})
        old = neighbours.of.get(subject)
        if not touch.live:
            if touch.home:
                neighbours.put(subject, None)
            elif old is None and any(mark.startswith(erased_by("")) for mark in me.marks):
                self.send(subject, Unlink(me.key, touch.cause))  # it came after we were erased, from before
            else:
                neighbours.put(subject, NAMES_US)
                if old is None:
                    self.live()
            return
        if old is None:
            self.live()
        met = old is not None and old.met
        neighbours.put(subject, Neighbour(touch.may_link, touch.uniques, touch.home, met))
        if old is None or not old.home:
            self.events += [Holders(request, me.key, (subject,)) for request in requests_of(me.marks)]

    def on_mark(self, mark: Mark) -> None:
        me = self.me
        marks = set(me.marks) - {RELEASED} if mark.on else set(me.marks)
        if not mark.on and mark.request not in marks:
            return  # it has vanished meanwhile, and what is left of it only points: it is not to have a standing again
        self.cause = mark.request
        self.stale = True
        if mark.on and mark.request not in marks and me.neighbours and me.neighbours.degree:
            self.events.append(Holders(mark.request, me.key, me.neighbours.holders()))
        me.marks = tuple(sorted(marks | {mark.request} if mark.on else marks - {mark.request}))

    # ------------------------------------------------------------------------------------------------------- erasure
    def on_forget(self, forget: Forget) -> None:
        """Nothing is said of us any more, nor by us. Whoever holds us by a link is told that it goes; before them our leader
        that we are erased, else it would see who takes the place of one that has gone, and nobody who went."""
        me = self.me
        self.cause = forget.cause
        self.events += [Unsaid(me.key, *slot) for slot in sorted(me.claims)]
        for other in sorted({other for kind, other, _ in me.claims if kind == CANNOT}):
            self.send(other, Unlink(me.key, forget.cause))  # who are kept apart are said to be so of both
        self.said |= {other for kind, other, _ in me.claims if kind == LINK}
        me.claims = {}
        me.marks = tuple(sorted({*me.marks, ERASED, erased_by(forget.cause)}))
        self.refresh()
        if me.neighbours and me.neighbours.degree:
            self.events.append(Holders(forget.cause, me.key, me.neighbours.holders()))  # also those of other profiles
        for subject in sorted(me.neighbours.of) if me.neighbours else ():
            self.send(subject, Unlink(me.key, forget.cause))

    def on_unlink(self, unlink: Unlink) -> None:
        me = self.me
        self.cause = unlink.cause
        for slot in sorted(slot for slot in me.claims if slot[1] == unlink.identifier):
            del me.claims[slot]
            self.events.append(Unsaid(me.key, *slot))
            self.said.add(unlink.identifier)
            self.stale = True

    def on_unsay(self, unsay: Unsay) -> None:
        if self.me.claims.pop((unsay.kind, unsay.other, unsay.source), None) is not None:
            self.said.add(unsay.other)
            self.stale = True

    def on_vanish(self, vanish: Vanish) -> None:
        me = self.me
        if ERASED in me.marks and not requests_of(me.marks) and not me.claims:  # else there was more to say meanwhile
            me.marks = (ERASED, RELEASED)

    def vanish(self, lead: Lead) -> bool:
        """As leader: let go of those in the block who are erased. True: of all of it, or it is led by another now.

        Nobody may point at them any more then, nor at us if we are one of them. If nobody lives, nobody does. Else a stand-in
        leads in our place, before whom none ranks; and the leader has all who live point at it, and tells them once more what
        it has told: what those said whom it came after is not believed then. Rows of the erased pass on what still comes, and
        the block keeps their versions, until the task knows that nothing can (`let_go_of`).
        """
        block, me = lead.block, self.me
        released = _released(block)
        members = {node: block.member(node) for node in block.marked - released.keys()}
        erased = {node for node, member in members.items() if ERASED in _marks(member)}
        leads = me.key not in erased and ERASED not in me.marks
        if not erased and leads:
            return False
        if len(erased) < len(members) or any(requests_of(_marks(members[node])) for node in erased):
            return False  # who is found for a request must be known as long as it stands
        gone = erased | released.keys()
        if len(gone) < block.size and any(block.near(one) for node in erased if (one := members[node]) is not None):
            return False  # claims that name them are on their way out
        living = {node: evidence for node, evidence in block.evidence().items() if node not in gone}
        if living and not leads:
            self.unite(stand_in(living.values()))
            return True
        for node in sorted(erased):
            self.send(node, Vanish(self.cause))
            block.release(node, (ERASED, RELEASED))
            lead.told.pop(node, None)
        if not living:
            lead.reported.clear()
            return True
        for node in sorted(living):
            for other in living[node].cannot:
                if other in erased:
                    self.send(node, Unlink(other, self.cause))
            if node != me.key:
                self.send(node, Follow(me.key, self.cause))
            if (told := lead.told.get(node)) is not None:
                lead.told[node] = Told(me.key, told.standing)
                self.send(node, Assign(me.key, told.standing, "merged", self.cause))
        return False

    def on_follow(self, follow: Follow) -> None:
        me = self.me
        self.cause = follow.cause
        self.unite(follow.leader)
        if (mine := me.evidence) is not None:
            may_link, uniques = mine.status == OK, lent(mine, self.rules)
            for link in mine.links:
                self.send(link.identifier, Touch(me.key, True, may_link, uniques, me.home, self.cause))

    def refresh(self) -> None:
        """Make own evidence anew; if it differs, tell the leader, and the identifiers what of it is theirs to know."""
        me, old, neighbours = self.me, self.me.evidence, self.me.neighbours
        version = old.version + 1 if old else 1  # one writer
        nature = self.rules.of(me.key)
        if neighbours and not (neighbours.degree or neighbours.naming or me.marks or me.claims):
            me.marks = (ERASED,)  # who named us is erased: nobody knows us any more
        marks = tuple([mark for mark in me.marks if mark != RELEASED])
        if nature.subject:
            mine = describe(me.key, version, me.claims, marks, self.rules)
        else:
            status = nature.status(neighbours.degree, neighbours.spread) if neighbours else OK
            mine = Evidence(me.key, version, status, marks=marks)
        if old is None or not mine.says_as(old):
            me.evidence = mine
            if mine.status != (old.status if old else OK):
                self.events.append(StatusChanged(me.key, mine.status))
            if mine.links or (old and old.links):
                self.touch(old, mine)
            self.on_gather(Gather((mine,), self.cause))
        if self.said:
            self.name(mine)
        if neighbours and neighbours.waits and mine.status == OK:
            for subject in sorted(neighbours.waiting):
                neighbour = neighbours.of[subject]
                neighbours.put(subject, Neighbour(neighbour.may_link, neighbour.uniques, neighbour.home, met=True))
                self.unite(neighbour.home)

    def name(self, mine: Evidence) -> None:
        """Tell identifiers to which we have no live link (any more) whether claims of ours name them still: they, and nobody
        else, can have those taken back."""
        said, self.said = self.said - {link.identifier for link in mine.links}, set()
        of = self.rules.of
        still = {other for kind, other, _ in self.me.claims if kind == LINK} & said if said else set[Key]()
        for other in sorted(said):
            if of(other).links and not of(other).subject:
                home = "" if other in still else self.me.home
                self.send(other, Touch(self.me.key, False, False, (), home, self.cause))

    def touch(self, old: Evidence | None, new: Evidence) -> None:
        """Tell identifiers how our links stand, where it is not what they were told: that follows from our evidence."""
        before = {link.identifier for link in old.links} if old else set[Key]()
        after = {link.identifier for link in new.links}
        may_link, uniques = new.status == OK, lent(new, self.rules)
        same = old is not None and (old.status == OK, lent(old, self.rules)) == (may_link, uniques)
        for identifier in sorted(after - before if same else after):  # of the others tells `name`
            self.send(identifier, Touch(self.me.key, True, may_link, uniques, self.me.home, self.cause))

    # ----------------------------------------------------------------------------------------- blocks: they only merge
    def unite(self, other: Key) -> None:
        """Our block and that of `other` are one. The later-ranked of their two leaders yields."""
        me, home, of = self.me, self.me.home, self.rules.of
        if other in (home, me.key):
            return
        first, last = (other, home) if of(other).rank < of(home).rank else (home, other)
        if last == me.key:
            self.send(first, self.hand_over())  # contents: own evidence of this very step is in it
        else:
            self.send(last, Meet(first, self.cause))  # tied: whoever the pointer leaves learns where it went
        if last == home:
            me.home = first  # descent

    def on_meet(self, meet: Meet) -> None:
        self.cause = meet.cause
        self.unite(meet.other)

    def hand_over(self) -> Gather:
        lead, self.me.lead = self.me.lead, None
        self.near.clear()
        if lead is None:
            return Gather((), self.cause)
        reported = tuple((request, tuple(sorted(nodes))) for request, nodes in sorted(lead.reported.items()))
        members = sorted(lead.block.evidence().values(), key=_is_erased)  # these last: with them the rest is let know
        astray, self.astray = bool(self.astray) or ERASED in self.me.marks, set()
        all_of_it = Gather(tuple(members), self.cause, tuple(lead.told.items()), reported, astray)
        lead.give_up()
        return all_of_it

    def on_gather(self, gather: Gather) -> None:
        me = self.me
        self.cause = gather.cause
        if me.home != me.key:
            if ERASED in me.marks and not gather.astray:
                gather = msgspec.structs.replace(gather, astray=True)
            self.send(me.home, gather)  # contents
            return
        lead = me.lead or Lead(Block(self.rules), {}, {})
        for evidence in gather.members:
            self.near.update(lead.block.put(evidence))
            if gather.astray:
                self.astray.add(evidence.node)
        if lead.block.size or gather.told or gather.reported:
            me.lead = lead
        self.near |= self.astray
        of = self.rules.of
        for subject, told in gather.told:  # told: of several leaders a subject believes the earliest-ranked
            known = lead.told.get(subject)
            if known is None or of(told.by).rank < of(known.by).rank:
                lead.told[subject] = told
                self.near.add(subject)
        for request, nodes in gather.reported:
            lead.reported.setdefault(request, set()).update(nodes)
            self.near.add(me.key)  # so that it is looked at whether anybody still asks

    # ------------------------------------------------------------------------------------------------------- decisions
    def settle(self) -> None:
        """As leader: decide what has changed, tell subjects whose standing is another, report members of marked nodes."""
        key, lead, near = self.me.key, self.me.lead, self.near
        assert lead is not None
        self.near = set()
        if self.vanish(lead):
            return
        for node in sorted(self.astray - {key}):
            self.send(node, Follow(key, self.cause))
        self.astray = set()
        if lead.block.marked:
            near = near - _released(lead.block).keys()  # of them nothing is said
        result = decide(lead.block, near)
        self.largest = max(self.largest, result.largest)
        told = lead.told
        news: list[tuple[Key, Standing, Change]] = []
        for subject, standing in result.standings.items():
            known = told.get(subject)
            if known is None or known.standing != standing:
                was = known.standing.profile if known else None
                news.append((subject, standing, _change(was, standing.profile, result.standings, told)))
        for subject, standing, change in sorted(news, key=_by_key):
            told[subject] = Told(key, standing)
            self.send(subject, Assign(key, standing, change, self.cause))
        if lead.block.marked or lead.reported:
            self.report(lead, result.groups)

    def report(self, lead: Lead, groups: Iterable[Sequence[Member]]) -> None:
        """Tell what is newly found with marked nodes, and forget requests that nobody makes any more.

        Nothing is found for a request any more once somebody is erased for it: who only then is with a marked node takes
        the place that the erased has left, and was of another profile. So it is with who comes in the place of somebody that
        another request has begun to erase: for this one only those are found who are linked past all of them.
        """
        members = {node: lead.block.member(node) for node in lead.block.marked}
        marks = {node: member.evidence.marks for node, member in members.items() if member and member.evidence}
        begun = {mark for its in marks.values() for mark in its if mark.startswith(ERASED)}
        going = {node for node, its in marks.items() if ERASED in its}
        going.update(*(nodes for request, nodes in lead.reported.items() if erased_by(request) in begun))
        for group in groups:
            of_group = {member.nature.key: member for member in group}
            for node in sorted(marks.keys() & of_group.keys()):
                for request in requests_of(marks[node]):
                    reported = lead.reported.setdefault(request, set())
                    if any(erased_by(request) in marks.get(known, ()) for known in reported):
                        continue
                    nodes = set(of_group)
                    if not nodes.isdisjoint(going):
                        nodes = _past(going, {node, *reported}, of_group, lead.block)
                    if added := nodes - reported:
                        reported |= added
                        self.events.append(Members(request, node, tuple(sorted(added))))
        for request in lead.reported.keys() - {request for requests in marks.values() for request in requests}:
            del lead.reported[request]

    def on_assign(self, assign: Assign) -> None:
        me, of = self.me, self.rules.of
        if me.assigned_by is not None and of(assign.leader).rank > of(me.assigned_by).rank:
            return  # told: a former leader's word, overtaken on its way
        me.assigned_by = assign.leader
        if of(assign.leader).rank < of(me.home).rank:
            me.home = assign.leader  # a shorter way
        if assign.standing != me.standing:
            was = me.standing.profile if me.standing else None
            me.standing = assign.standing
            me.seq += 1
            change: Change = assign.change
            if was is None:
                change = "created"
            elif was == assign.standing.profile:
                change = "detail"
            self.events.append(Assigned(me.key, me.seq, assign.standing, was, change, assign.cause))


def _past(going: set[Key], known: set[Key], group: Mapping[Key, Member], block: Block) -> set[Key]:
    """Nodes of a group that links connect with known ones past those that go, and with them those known and those that go."""
    found = known & group.keys() - going
    queue = sorted(found)
    for here in queue:  # grows on the way
        for there in sorted(block.near(group[here]).keys() & group.keys() - going - found):
            found.add(there)
            queue.append(there)
    return found | (group.keys() & (known | going))


def _marks(member: Member | None) -> tuple[str, ...]:
    return member.evidence.marks if member is not None and member.evidence is not None else ()


def _released(block: Block) -> dict[Key, Member]:
    """Those of whom a block has nothing but their versions."""
    members = {node: block.member(node) for node in block.marked}
    return {node: member for node, member in members.items() if member and RELEASED in _marks(member)}


def _is_erased(evidence: Evidence) -> bool:
    return ERASED in evidence.marks


def _by_key(news: tuple[Key, Standing, Change]) -> Key:
    return news[0]


def _change(was: Key | None, profile: Key, now: Mapping[Key, Standing], told: Mapping[Key, Told]) -> Change:
    """How a subject comes from one profile to another, as far as a leader knows; whether it is another, the subject knows.

    A profile exists where the subject it is named after is in it.
    """
    if was is None:
        return "merged"
    known = told.get(was)
    named = now.get(was, known.standing if known else None)
    if named is None or named.profile != was:
        return "merged"
    other = told.get(profile)
    return "moved" if other and other.standing.profile == profile else "split"


_TAKEN: dict[type, Callable[[_Turn, Any], None]] = {
    Fact: _Turn.on_fact,
    Touch: _Turn.on_touch,
    Meet: _Turn.on_meet,
    Gather: _Turn.on_gather,
    Assign: _Turn.on_assign,
    Mark: _Turn.on_mark,
    Forget: _Turn.on_forget,
    Unlink: _Turn.on_unlink,
    Unsay: _Turn.on_unsay,
    Vanish: _Turn.on_vanish,
    Follow: _Turn.on_follow,
}
