"""Guards taken away, one at a time: functions written anew with a line of theirs replaced."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from unittest.mock import patch

from c360.agents.moves import Moves
from c360.agents.projection import ProjectionTask
from c360.profile import home
from c360.profile.listing import Listings
from c360.profile.rows import Rows
from c360.profile.slots import Owner


class Mutant(NamedTuple):
    what: str
    owner: Any  # module or class
    function: str
    old: str
    new: str
    seed: int = 0  # one that notices, as histories are drawn today

    @contextmanager
    def at_work(self) -> Iterator[None]:
        function = getattr(self.owner, self.function)
        source = textwrap.dedent(inspect.getsource(function))
        assert source.count(self.old) == 1, f"{self.function} no longer has this line once: {self.old}"
        made: dict[str, Any] = {}
        exec(compile(source.replace(self.old, self.new), "mutant", "exec"), function.__globals__, made)
        with patch.object(self.owner, self.function, made[self.function]):
            yield


MUTANTS = [
    Mutant("an old assignment wins", home, "assign", "elif assigned.seq <= home.seq:", "elif False:"),
    Mutant("a null assignment is nothing", home, "assign", "assigned = Assigned(0, subject)", "return"),
    Mutant("new identifiers are no news", home, "assign", "news.renamed |= home.identifiers", "home.identifiers", 12),
    Mutant("Held of an earlier stay counts", home, "hold", "and stay.move == held.move", "", 60),
    Mutant("Held is not heard", home, "hold", "stay.held = True", "pass"),
    Mutant("an erased life stays where it was", home, "begin_life", "if profile != subject]", "if False]", 47),
    Mutant("a new life is in the old places", home, "begin_life", "life, {}", "life, home.places", 47),
    Mutant("places are not kept up to date", home, "place", "if others and (news.delta or news.renamed):", "if False:"),
    Mutant(
        "only the assigned place is",
        home,
        "place",
        "for profile in others]",
        "for profile in others if profile == target]",
    ),
    Mutant("only records are news", home, "place", "(news.delta or news.renamed)", "news.delta", 12),
    Mutant("a place is put again", home, "place", "if fragment and target not in places:", "if fragment:"),
    Mutant("its own place is forgotten", home, "place", "places[subject] = Stay(0, True)", "pass"),
    Mutant("all moves are one", home, "place", "home.moves += 1", "pass", 60),
    Mutant("put is held", home, "place", "Stay(home.moves, local(target))", "Stay(home.moves, True)"),
    Mutant("local is not held", home, "place", "Stay(home.moves, local(target))", "Stay(home.moves, False)"),
    Mutant("break before make", home, "place", "if target in places and places[target].held:", "if target in places:"),
    Mutant("no break", home, "place", "if target in places and places[target].held:", "if False:"),
    Mutant(
        "a left place is not dropped",
        home,
        "place",
        "for profile in others if profile != target]",
        "for profile in ()]",
    ),
    Mutant("a dropped place is known", home, "place", "home.places = {target: places[target]}", "pass"),
    Mutant("the first piece is all", Owner, "put", "slot.part = put.more", "slot.part = False"),
    Mutant("further pieces are lost", Owner, "put", "self.folding.absorb(slot.fragment, piece)", "pass"),
    Mutant("what is put is not merged", Owner, "put", "self.folding.absorb(profile.merged, slot.fragment)", "pass"),
    Mutant(
        "who is put is not listed", Owner, "put", "self._count(profile, put.subject, slot, put.identifiers)", "pass"
    ),
    Mutant("what is added is not merged", Owner, "add", "self.folding.absorb(profile.merged, delta)", "pass"),
    Mutant("what is added is not in the slot", Owner, "add", "self.folding.absorb(slot.fragment, delta)", "pass"),
    Mutant("revisions stand still", Owner, "add", "slot.revision = add.revision", "pass"),
    Mutant("who is added to is listed as before", Owner, "add", "self._count(", "(lambda *_: None)("),
    Mutant("what is dropped stays", Owner, "drop", "self._subtract(profile, slot.fragment)", "pass", 23),
    Mutant("who is dropped is listed", Owner, "drop", "self._list(profile, subject, slot.member, NOBODY)", "pass", 14),
    Mutant("slots are not counted down", Owner, "drop", "profile.slots -= 1", "pass"),
    Mutant("its own news are missing", Owner, "own", "self.folding.absorb(profile.merged, delta)", "pass", 41),
    Mutant("its own fragment is missing", Owner, "own", "self.folding.absorb(profile.merged, fragment)", "pass"),
    Mutant("its own fragment stays", Owner, "own", "self._subtract(profile, fragment)", "pass", 46),
    Mutant("its own subject is not listed", Owner, "own", "self._list(", "(lambda *_: None)("),
    Mutant("stale cells stay", Owner, "_subtract", "profile.stale |= stale", "pass", 23),
    Mutant("all is made anew but for its own", Owner, "settle", "if profile.own is not None:", "if False:"),
    Mutant("lists stay", Owner, "settle", "if profile.unlisted:", "if False:"),
    Mutant("members stay listed", Listings, "change", "return False", "pass"),
    Mutant("identifiers stay listed", Listings, "change", "set(was.identifiers) <= set(now.identifiers)", "True", 10),
    Mutant("identifiers are not listed", Listings, "change", "or was.identifiers != now.identifiers", "", 81),
    Mutant("all members count twice", Listings, "change", "listing.total += not before", "listing.total += 1", 52),
    Mutant("what is apart is not read", Rows, "fill", "self.folding.absorb(", "(lambda *_: None)("),
    Mutant(
        "what is apart is not updated",
        Rows,
        "encode_profile",
        "if profile.apart.get(n) != digests[n]",
        "if n not in profile.apart",
    ),
    Mutant(
        "what is no longer apart stays",
        Rows,
        "encode_profile",
        "profile.apart = digests",
        "profile.apart |= digests",
        173,
    ),
    Mutant("records of an erased life count", Moves, "fold", "if record.life < life:", "if False:"),
    Mutant("a new life waits for its Erased", Moves, "fold", "if record.life > life:", "if False:"),
    Mutant("news are told to nobody", Moves, "fold", "fold(news.delta,", "fold({},"),
    Mutant("its own fragment is emptied first", Moves, "_begin_life", "self._own(key, state)", "pass", 69),
    Mutant("an erased life goes on", Moves, "_begin_life", "state.fragment = self.folding.empty()", "pass"),
    Mutant("a new life is like the first", Moves, "_begin_life", "home_of(subject), True", "home_of(subject), False"),
    Mutant("Erased is not heard", Moves, "_hear", "self._begin_life(key, state, life)", "pass"),
    Mutant(
        "an old Erased counts", Moves, "_hear", "if life > (0 if state.home is None else state.home.life):", "if True:"
    ),
    Mutant("Held is not said", Moves, "_receive", "message.more or self._is_local(message.subject)", "True"),
    Mutant(
        "Held is said too early",
        Moves,
        "_receive",
        "message.more or self._is_local(message.subject)",
        "self._is_local(message.subject)",
    ),
    Mutant("what is dropped stays in its slot", Moves, "_receive", "self.slots.delete(at)", "pass"),
    Mutant("slots are not counted", Moves, "_receive", "self.held += shared.profile.slots - before", "pass"),
    Mutant("nobody knows that its profile is shared", Moves, "_share", "self.news.setdefault(key, News())", "pass"),
    Mutant(
        "what was written is forgotten",
        Moves,
        "_share",
        "Shared(self.owner.new(), state.digest,",
        'Shared(self.owner.new(), b"",',
    ),
    Mutant("nobody is to be told", Moves, "place", "state.told = _told(key, state)", "pass"),
    Mutant("its own is not among others", Moves, "place", "self._own(key, state)", "pass"),
    Mutant(
        "what was shared is not written",
        Moves,
        "_store",
        "state.digest, state.due, state.shared = shared.digest,",
        'state.digest, state.due, state.shared = b"",',
    ),
    Mutant("what was shared is shared", Moves, "_store", "self.shared.delete(key)", "pass"),
    Mutant(
        "it is seen where it does not lie",
        Moves,
        "settle",
        "state.fragment if stays else",
        "state.fragment if True else",
    ),
    Mutant("what was said is said again", Moves, "flush", "self.sent.clear()", "pass"),
    Mutant("news stay news", Moves, "flush", "self.news.clear()", "pass"),
    Mutant("aborted news stay", Moves, "resume", "self.news.clear()", "pass"),
    Mutant("what was aborted is said", Moves, "resume", "self.sent.clear()", "pass"),
    Mutant("slots are counted anew", Moves, "resume", "self.held, self.today = held, today", "self.today = today"),
    Mutant("aborted steps stay in memory", Moves, "_shared", "self.shared.touch((key,))", "pass", 37),
    Mutant("aborted news stay in memory", Moves, "_touch", "self.profiles.touch((key,))", "pass"),
    Mutant("who is told is not asked", ProjectionTask, "_fold", "state.told or view.life", "view.life"),
    Mutant("lives are not asked for", ProjectionTask, "_fold", "state.told or view.life", "state.told"),
    Mutant("today is forgotten", ProjectionTask, "notes", "if self.today:", "if False:"),
    Mutant("slots are forgotten", ProjectionTask, "notes", "if self.moves.held:", "if False:"),
    Mutant("nobody looks at midnight", ProjectionTask, "_expire", "self.today,", "-1,", 23),
    Mutant("after a reset nobody compares", ProjectionTask, "finish", '{}, ""', "{}, None"),
    Mutant("what is shared waits until all is read", ProjectionTask, "finish", "self._settle_only()", "pass"),
]
