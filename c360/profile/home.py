"""The home of a subject: where its fragment lies, and what is to be told to those who hold it.

    not a place ──Put──► asked ──Held──► held ──Drop──► not a place
                           └──────────────Drop───────────────┘

The home alone decides in which *places* (profile ids) the subject's fragment lies: it makes a new place before it leaves
the old one, and keeps all places up to date meanwhile. The subject's own id is a place like any other, but one that
needs no message and no copy: what lies there is the home's fragment itself.

Stored under the subject, beside its fragment, and only if there is something to say. No `Home` means: never assigned,
never erased, its fragment lies in its own profile and nowhere else; then nothing here is called. Who was assigned to
itself has a `Home` for its identifiers, and nobody to tell (`only_here`).

One step of a task, all of which commits or nothing:

1. absorb: records are folded into the fragment, and into the `News` where somebody is to be told or others are in the own
   profile; `assign`, `hold`; `begin_life`, then `Owner.own`, then the fragment is emptied; `Owner.put`, `add`, `drop`.
2. `place` for each touched subject, what is local takes effect at once; then `Owner.own` for each of them, and for those to
   whose profiles others have come.
3. Profiles whose day has come are to be looked at.
4. `Owner.settle` for each profile that was touched; its record is written if it is another than the last.

Functions change the home they are given. Knows nothing of owners' states and of partitions.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from c360.profile.fold import Folding, Fragment
from c360.profile.parts import Add, Assigned, Drop, Forget, Held, Identifiers, Place, Put

PUT_BYTES = 512 << 10  # a fragment beyond it is put in pieces,
CELL_BYTES = 4 << 10  # with each cell beyond this in a piece of its own


class Stay(msgspec.Struct, array_like=True):
    """One place: the move that made it, 0 for the own one, and whether its owner is known to hold the fragment."""

    move: int
    held: bool


class Home(msgspec.Struct, array_like=True, kw_only=True):
    """What is known of a subject beside its fragment."""

    profile: str  # as last assigned
    seq: int = 0  # of that assignment
    identifiers: Identifiers = ()
    life: int = 0  # how often it was erased
    revision: int = 0  # counts what was added to places
    moves: int = 0  # counts what was put
    places: dict[str, Stay] = msgspec.field(default_factory=dict)


encode_home = msgspec.msgpack.Encoder(order="deterministic").encode
decode_home = msgspec.msgpack.Decoder(Home).decode


class News:
    """What one step has learned of a subject: records folded since the step began, and whether identifiers changed."""

    __slots__ = ("delta", "renamed")

    def __init__(self) -> None:
        self.delta: Fragment = {}
        self.renamed = False


def home_of(subject: str) -> Home:
    """What it means to have none."""
    return Home(profile=subject, places={subject: Stay(0, True)})


def only_here(subject: str, home: Home) -> bool:
    """Whether the fragment lies in the subject's own profile and nowhere else, so that nobody is to be told."""
    return home.places.keys() == {subject} and home.profile == subject


# ----------------------------------------------------------------------------------------------------------- absorb
def assign(subject: str, home: Home, assigned: Assigned | None, news: News) -> None:
    """Note an assignment, unless a later one is known. None (a tombstone): its own profile again, whatever came before."""
    if assigned is None:
        assigned = Assigned(0, subject)
    elif assigned.seq <= home.seq:
        return
    news.renamed |= home.identifiers != assigned.identifiers
    home.seq, home.profile, home.identifiers = assigned.seq, assigned.profile, assigned.identifiers


def hold(home: Home, held: Held) -> None:
    """The owner holds the fragment; this counts only for the present stay in this place, not for an earlier one."""
    stay = home.places.get(held.profile)
    if stay is not None and stay.move == held.move:
        stay.held = True


def begin_life(subject: str, home: Home, life: int, *, ask: bool = False) -> list[tuple[str, Drop | Forget]]:
    """Leave all places at once. The caller empties the fragment; records of lower lives are to be skipped from now on.

    `ask`: owners are to say when it is done.
    """
    said: Drop | Forget = Forget(subject, life) if ask else Drop(subject)
    drops = [(profile, said) for profile in home.places if profile != subject]
    home.life, home.places = life, {}
    return drops


def is_bare(subject: str, home: Home) -> bool:
    """Whether it says nothing that is not so of everybody, but the life."""
    return home.places.keys() <= {subject} and home.profile == subject and not home.identifiers


# ------------------------------------------------------------------------------------------------------------ place
def place(
    subject: str, home: Home, fragment: Fragment, news: News, *, folding: Folding, local: Callable[[str], bool]
) -> list[tuple[str, Place]]:
    """What is to be told to whom, as (profile, message), after a step that touched this subject.

    `fragment` has the news in it. `local`: whether a profile is of this task; what is sent there takes effect at once.
    The own place is entered and left without a message: look into `home.places` afterwards.
    """
    sent: list[tuple[str, Place]] = []
    places, target = home.places, home.profile
    # News go to every place, also to those that are about to be left: coming back finds them up to date.
    others = [profile for profile in places if profile != subject]
    if others and (news.delta or news.renamed):
        home.revision += 1
        add = Add(subject, home.revision, home.identifiers, folding.encode(news.delta))
        sent += [(profile, add) for profile in others]
    if fragment and target not in places:  # make
        if target == subject:
            places[subject] = Stay(0, True)
        else:
            home.moves += 1
            places[target] = Stay(home.moves, local(target))
            sent += [(target, put) for put in _puts(subject, home, folding, fragment)]
    if target in places and places[target].held:  # before break
        sent += [(profile, Drop(subject)) for profile in others if profile != target]
        home.places = {target: places[target]}
    elif not fragment:
        places.pop(subject, None)  # nothing lies there that anybody could miss
    return sent


def _puts(subject: str, home: Home, folding: Folding, fragment: Fragment) -> list[Put]:
    """The fragment whole or, beyond what one message may carry, in pieces."""
    pieces = [folding.encode(fragment)]
    if len(pieces[0]) > PUT_BYTES:
        rest, large = folding.apart(fragment, CELL_BYTES)
        pieces = [folding.encode(piece) for piece in (rest, *large.values())]
    ids, last = home.identifiers, len(pieces) - 1
    return [Put(subject, home.moves, home.revision, ids, piece, i < last) for i, piece in enumerate(pieces)]
