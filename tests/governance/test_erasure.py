"""The protocol of erasure: seeds agree with the oracle, every guard is missed when it is gone, and stories by name."""

from __future__ import annotations

import inspect
import os
import sys
from collections import Counter
from collections.abc import Callable
from functools import partial
from types import ModuleType

import msgspec
import pytest

from c360.errors import NeedsOperator
from c360.governance import erasure as protocol
from c360.governance.erasure import (
    Books,
    Known,
    Stage,
    decode_erasure,
    decode_known,
    encode_erasure,
    encode_known,
    stage_of,
    step,
    waits_for,
)
from c360.governance.messages import (
    Beside,
    Certify,
    Command,
    Deployed,
    Erase,
    Event,
    Found,
    Lift,
    Mark,
    Out,
    Passed,
    Receipt,
    Requested,
    Settle,
    Settled,
    Shred,
    Shredded,
    Suppress,
    Tick,
)
from c360.governance.suppressed import Hold, Suppressed
from tests.governance.erasure_runs import main, run, world_of
from tests.governance.world import veil

SEEDS = int(os.environ.get("C360_TEST_SEEDS", "500"))
ENOUGH = 500  # seeds, to notice a mutant in

GUARDS = {
    "shredded before it is out": ("if node.subject and node.out is not None and (", "if node.subject and ("),
    "nobody is waited for before it is said who there is": ("if erasure.lifted or not known.govern:", "if erasure.lifted:"),
    "who has passed is forgotten": (
        "known.govern, known.views, known.agents, known.topics = said.govern",
        "known.passed = {t: at for t, at in known.passed.items() if t in said.govern}\n"
        "        known.govern, known.views, known.agents, known.topics = said.govern",
    ),
    "shredded once": ("(node.round == 0 or passed - node.passed)", "node.round == 0"),
    "shredded only when it is new to a task": ("(node.round == 0 or passed - node.passed)", "passed - node.passed"),
    "a subject that was found as an identifier has no keys": ("            node.subject = True\n", "            pass\n"),
    "a task that is at the record has passed it": ("if offset < known.passed", "if offset <= known.passed"),
    "the last record counts, not the first": ("elif node.out is None or out.offset < node.out[1]:", "else:"),
    "nobody waits for govern": (
        "return node.out is not None and _passed(node, known).issuperset(known.govern)",
        "return node.out is not None",
    ),
    "nobody waits for the last shredding": ("0 < node.shredded == node.round", "True"),
    "any answer is that to the last shredding": ("0 < node.shredded == node.round", "0 < node.shredded"),
    "to rest once is enough": ("RESTS = 2", "RESTS = 1"),
    "to rest is not asked for": ("return erasure.rests >= RESTS and all(", "return all("),
    "one view rests for all": ("erasure.settled >= set(known.views)", "bool(erasure.settled)"),
    "any answer is that to the last probe": ("if erasure.probing and probe == erasure.probe:", "if True:"),
    "whoever is found unsettles nothing": ("        self.unsettle(erasure)\n\n    def unsettle", "\n    def unsettle"),
    "who is due in the same step is not asked": (
        "        self.before[erasure.request] = {command for command in before if not isinstance(command, Erase)}\n", ""
    ),
    "a new task or view unsettles nothing": (
        "                self.unsettle(erasure)\n        known.govern",
        "                pass\n        known.govern",
    ),
    "what was on its way when the mark was taken off stays": (
        "        if not erasure.proven and erasure.closed and _is_removed", "        if not erasure.proven and _is_removed"
    ),
    "who was asked is not asked again": (
        "        node.told, node.answered = False, {agent for agent in node.answered if agent.startswith(GOVERN)}\n",
        "        pass\n",
    ),
    "a mark that is off is as one that stands": (
        "erasure.probing = erasure.unmarked = erasure.closed = False", "erasure.probing = erasure.closed = False"
    ),
    "the mark stands after the proof": (
        "yield from (Mark(view, identifier, request, False) for", "yield from (Mark(view, identifier, request, True) for"
    ),
    "what is kept says who it was": (
        "    erasure.identifier = veil(erasure.identifier)\n", ""
    ),
    "it is not said that all was removed": ("                self.written.add(node.veiled)\n", ""),
    "nobody waits for receipts": ("node.told and agents <= node.answered for", "node.told for"),
    "a receipt is one from anybody": ("node.told and agents <= node.answered for", "node.told and node.answered for"),
    "a lift does not wait": ("if erasure.proven and erasure.lifting:", "if erasure.lifting:"),
    "after the proof whoever is found is erased": (
        "erasure is not None and (not erasure.proven or isinstance(event, Lift)):", "erasure is not None:"
    ),
    "a lift is not written": (
        "                self.write(node, erasure.request, Hold(erasure.asked_at, self.now))\n",
        "                pass\n",
    ),
    "a life is like the last": ("life=1 + (said.life if said else 0)", "life=1"),
    "a repeated request begins anew": ("        if known is None:\n", "        if True:\n"),
    "a receipt that is given again takes back": ("known[name] = max(number, known.get(name, 0))", "known[name] = number"),
    "keys of the last shredding only": ("node.keys.update(keys)", "node.keys = set(keys)"),
    "views are not marked when they are new": (
        "        yield from (Mark(view, identifier, request) for view in known.views)\n",
        "        yield from (Mark(view, identifier, request) for view in known.views if erasure.probe == 0)\n",
    ),
}  # fmt: skip


def test_no_seed_diverges() -> None:
    for seed in range(SEEDS):
        try:
            run(seed)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error


def test_seeds_are_about_what_may_go_wrong() -> None:
    found: Counter[str] = Counter()
    for seed in range(200):
        world = world_of(seed)
        found["crashed"] += world.lost
        found["dropped"] += world.dropped
        found["lifted"] += sum(erasure.lifted > 0 for erasure in world.books().erasures.values())
        found["keys"] += sum(len(ids) for ids in world.destroyed.values())
        found["records"] += sum(world.removed.values())
        found["proven"] += len(world.certificates)
        found["twice"] += sum(said.life > 1 for said in dict(world.log).values())
    assert min(found.values()) >= 10, found
    assert len(found) == 7


def mutant(old: str, new: str) -> ModuleType:
    """The protocol again, with one place changed."""
    source = inspect.getsource(protocol)
    assert source.count(old) == 1, f"{old!r} is {source.count(old)} times in the protocol"
    made = ModuleType("mutant_of_erasure")
    sys.modules[made.__name__] = made  # annotations are looked up there
    exec(compile(source.replace(old, new), "mutant", "exec"), made.__dict__)
    return made


@pytest.mark.parametrize("name", GUARDS)
def test_a_guard_taken_away_is_noticed(name: str) -> None:
    code = mutant(*GUARDS[name])
    checks: list[Callable[[ModuleType], None]] = [*STORIES, *(partial(run, seed) for seed in range(ENOUGH))]
    for check in checks:
        try:
            check(code)
        except AssertionError:
            return
    pytest.fail("nothing notices")


def test_the_long_form_says_how_many_diverged(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--runs", "5", "--from", "500000"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "runs 5 divergences 0"


# ------------------------------------------------------------------------------------------------------------- stories
DEPLOYED = Deployed(("g-0",), ("default",), ("customer@1",))
HELD = Suppressed(1, {"r": Hold(1)})


class Told:
    """Books, and what a step has said last."""

    def __init__(self, code: ModuleType = protocol, deployed: Deployed = DEPLOYED) -> None:
        self.code = code
        self.books: Books = code.Books(code.Known(), {}, {}, veil)
        self.now = 0
        self.said: list[Command] = []
        self.tell(deployed)

    def tell(self, *events: Event) -> list[Command]:
        self.now += 1
        self.said = self.code.step(self.books, events, self.now)
        return self.said

    def stage(self) -> str:
        return str(self.code.stage_of(self.books.erasures["r"], self.books.known).name)

    def until_removal(self) -> None:
        self.tell(Requested("r", "s1", True))
        self.tell(Found("r", ("s1",), ("i1",)))
        self.tell(Out("~s1", 0, 0, HELD), Out("~i1", 0, 1, HELD), Passed("g-0", 0, 2))
        self.tell(Shredded("r", "s1", 1, ("k1",)), Settled("r", "default", 1))
        self.tell(Settled("r", "default", 2))

    def until_proof(self) -> None:
        self.until_removal()
        self.tell(*(Receipt("r", i, 1, "customer@1", {"t": 1}, {"t/0": 9}) for i in ("s1", "~i1")))
        self.tell(Settled("r", "default", 3))


def whole_way(code: ModuleType) -> None:
    told = Told(code)
    assert told.tell(Requested("r", "s1", True)) == [
        Suppress("~s1", Suppressed(1, {"r": Hold(2)})),
        Mark("default", "s1", "r"),
    ]
    assert told.stage() == "SUPPRESS"
    assert told.tell(Out("~s1", 0, 7, HELD)) == [Shred("r", "s1", 1, 1)]
    assert told.tell(Passed("g-0", 0, 7)) == [], "one that is at the record has not passed it"
    assert told.stage() == "SHRED"
    assert told.tell(Passed("g-0", 0, 8)) == [Shred("r", "s1", 1, 2), Settle("r", "default", 1)]
    assert told.tell(Settled("r", "default", 1)) == [Settle("r", "default", 2)]
    assert told.tell(Settled("r", "default", 2)) == [], "keys may be left"
    assert told.tell(Shredded("r", "s1", 1, ("k1",))) == []
    assert told.tell(Shredded("r", "s1", 2, ())) == [Erase("r", "s1", 1)]
    assert told.stage() == "REMOVE"
    assert told.tell(Receipt("r", "s1", 1, "customer@1", {"t": 1}, {"t/0": 9})) == [
        Mark("default", "s1", "r", on=False),
        Settle("r", "default", 3),
    ]
    assert told.code.waits_for(told.books.erasures["r"], told.books.known) == ("default",)
    said = told.tell(Settled("r", "default", 3))
    over, certify = said[0], said[-1]
    assert over == Suppress("~s1", Suppressed(1, {"r": Hold(2, 0, told.now)}))
    proven = told.now
    assert isinstance(certify, Certify)
    assert certify.certificate.subjects[0].keys == ("k1",)
    assert told.stage() == "PROVEN"
    lift = Suppressed(1, {"r": Hold(2, told.now + 1, proven)})
    assert told.tell(Lift("r")) == [Suppress("~s1", lift)]
    assert told.stage() == "LIFTED"
    assert told.tell(Tick()) == [Suppress("~s1", lift)]
    assert told.tell(Out("~s1", 0, 9, lift)) == []
    assert told.tell(Tick()) == []


def found_twice_at_rest(code: ModuleType) -> None:
    """An answer to a probe that somebody was found after does not count, nor does one that comes twice."""
    told = Told(code)
    told.tell(Requested("r", "i1", False), Out("~i1", 0, 0, HELD), Passed("g-0", 0, 9))
    told.tell(Found("r", ("s1",)), Settled("r", "default", 1))
    told.tell(Out("~s1", 0, 5, HELD))
    assert told.tell(Shredded("r", "s1", 1, ()), Settled("r", "default", 1)) == []
    assert told.tell(Settled("r", "default", 2)) == [Settle("r", "default", 3)]
    assert told.tell(Settled("r", "default", 2)) == []
    assert told.tell(Settled("r", "default", 3)) == [Erase("r", "i1", 1), Erase("r", "s1", 1)]


def suppression_written_again(code: ModuleType) -> None:
    """What another request adds to the record does not put off who has passed the first."""
    told = Told(code)
    told.tell(Requested("r", "i1", False), Out("~i1", 0, 0, HELD), Out("~i1", 0, 20, HELD))
    assert told.tell(Passed("g-0", 0, 1)) == [Settle("r", "default", 1)]


def a_view_that_is_new(code: ModuleType) -> None:
    """A rule set that was reset, or is new, is marked for every request that stands, and asked before anything is removed."""
    told = Told(code)
    told.until_removal()
    said = told.tell(msgspec.structs.replace(DEPLOYED, views=("default", "risk")))
    assert Mark("risk", "s1", "r") in said
    assert [command for command in said if isinstance(command, Settle)] == [
        Settle("r", "default", 3), Settle("r", "risk", 3),
    ]  # fmt: skip
    assert told.tell(Settled("r", "risk", 3)) == []


def a_receipt_again(code: ModuleType) -> None:
    """An agent that is asked again has nothing left to delete; what it did the first time stays true."""
    told = Told(code)
    told.until_removal()
    told.tell(Receipt("r", "s1", 1, "customer@1", {"t": 3}, {"t/0": 9}))
    told.tell(Receipt("r", "s1", 1, "customer@1", {"t": 0}, {"t/0": 4}))
    told.tell(Receipt("r", "i1", 1, "customer@1"))
    certify = told.tell(Settled("r", "default", 3))[-1]
    assert isinstance(certify, Certify)
    assert (certify.certificate.agents[0].tombstones, certify.certificate.agents[0].reached) == ({"t": 3}, {"t/0": 9})


def keys_of_each_round(code: ModuleType) -> None:
    told = Told(code)
    told.until_removal()
    told.tell(Shredded("r", "s1", 1, ("k2",)))
    assert told.books.erasures["r"].nodes["s1"].keys == {"k1", "k2"}


def asked_before_it_is_said_who_there_is(code: ModuleType) -> None:
    """Without knowing whom to wait for, all would have answered."""
    told = Told(code, Deployed((), (), ()))
    assert told.tell(Requested("r", "i1", False), Out("~i1", 0, 0, HELD)) == []
    assert told.stage() != "PROVEN"


def a_task_that_speaks_before_it_is_known(code: ModuleType) -> None:
    """A task that has said what it has passed does not say it again."""
    told = Told(code, Deployed((), (), ()))
    told.tell(Requested("r", "s1", True), Out("~s1", 0, 0, HELD), Passed("g-1", 0, 1))
    told.tell(DEPLOYED)
    told.tell(Passed("g-0", 0, 1))
    said = told.tell(msgspec.structs.replace(DEPLOYED, govern=("g-0", "g-1")))
    assert said == [Shred("r", "s1", 1, 3), Settle("r", "default", 2)]
    assert told.code.waits_for(told.books.erasures["r"], told.books.known) == ()


def a_subject_that_was_found_as_an_identifier(code: ModuleType) -> None:
    told = Told(code)
    told.tell(Requested("r", "i1", False), Found("r", (), ("c1",)), Out("~c1", 0, 0, HELD))
    assert told.tell(Found("r", ("c1",))) == [Shred("r", "c1", 1, 1)]


def found_after_the_proof(code: ModuleType) -> None:
    """It is nobody's request any more."""
    told = Told(code)
    told.until_proof()
    assert told.tell(Found("r", ("s2",))) == []
    told.tell(Lift("r"))
    assert told.tell(Found("r", ("s2",))) == []
    assert "~s2" not in told.books.suppressed


def found_while_the_mark_is_taken_off(code: ModuleType) -> None:
    """It was on its way: the mark is put on again, and all begins anew for whoever came."""
    told = Told(code)
    told.until_removal()
    told.tell(*(Receipt("r", i, 1, "customer@1") for i in ("s1", "i1")), Beside("r", ("s1", "s9")))
    said = told.tell(Found("r", ("s2",)), Settled("r", "default", 3))
    assert [type(command) for command in said] == [Suppress, Mark]
    said = told.tell(Out("~s2", 0, 8, HELD), Passed("g-0", 0, 9))
    assert said == [Shred("r", "s2", 1, 1), Settle("r", "default", 4)]
    told.tell(Shredded("r", "s2", 1, ()), Settled("r", "default", 4))
    assert told.tell(Settled("r", "default", 5)) == [Erase("r", n, 1) for n in ("i1", "s1", "s2")]
    told.tell(*(Receipt("r", i, 1, "customer@1") for i in ("i1", "s1", "s2")))
    certify = told.tell(Settled("r", "default", 6))[-1]
    assert isinstance(certify, Certify)
    assert [subject.subject for subject in certify.certificate.subjects] == ["~s1", "~s2"]
    assert certify.certificate.beside == ("~s9",)


def only_a_remainder_is_kept(code: ModuleType) -> None:
    told = Told(code)
    told.until_proof()
    kept = told.books.erasures["r"]
    assert (kept.identifier, sorted(kept.nodes), kept.nodes["~s1"].keys) == ("~s1", ["~i1", "~s1"], set())


def asked_again_in_the_same_step(code: ModuleType) -> None:
    """One of two had answered when a new task came: both are asked."""
    told = Told(code, msgspec.structs.replace(DEPLOYED, views=(), agents=("customer@1", "customer@2")))
    told.tell(Requested("r", "i1", False), Out("~i1", 0, 0, HELD), Passed("g-0", 0, 1), Passed("g-1", 0, 1))
    told.tell(Receipt("r", "i1", 1, "customer@1"))
    known = told.books.known
    said = told.tell(Deployed(("g-0", "g-1"), (), known.agents))
    assert said == [Erase("r", "i1", 1)]


STORIES = [
    asked_again_in_the_same_step,
    a_subject_that_was_found_as_an_identifier,
    found_after_the_proof,
    found_while_the_mark_is_taken_off,
    only_a_remainder_is_kept,
    asked_before_it_is_said_who_there_is,
    a_task_that_speaks_before_it_is_known,
    whole_way,
    found_twice_at_rest,
    suppression_written_again,
    a_view_that_is_new,
    a_receipt_again,
    keys_of_each_round,
]


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__)
def test_a_story_goes_as_it_should(story: Callable[[ModuleType], None]) -> None:
    story(protocol)


def test_a_tick_asks_again_for_what_was_not_answered() -> None:
    told = Told()
    told.until_removal()
    told.tell(Receipt("r", "s1", 1, "customer@1"))
    assert told.tell(Tick()) == [Erase("r", "i1", 1)]


def test_every_event_again_says_nothing() -> None:
    told = Told()
    told.until_proof()
    before = encode_erasure(told.books.erasures["r"])
    again = (
        Requested("r", "s1", True), Found("r", ("s1",), ("i1",)), Out("~s1", 0, 0, HELD), Passed("g-0", 0, 2),
        Shredded("r", "s1", 1, ("k1",)), Settled("r", "default", 2), Receipt("r", "s1", 1, "customer@1", {"t": 1}), DEPLOYED,
    )  # fmt: skip
    assert told.tell(*again) == []
    assert encode_erasure(told.books.erasures["r"]) == before


def test_an_erasure_for_nobody_suppresses_and_is_proven() -> None:
    told = Told(deployed=Deployed(("g-0",), (), ("customer@1",)))
    told.tell(Requested("r", "i1", False), Lift("another"))
    assert told.tell(Out("~i1", 0, 0, HELD), Passed("g-0", 0, 1)) == [Erase("r", "i1", 1)]
    (_, certify) = told.tell(Receipt("r", "i1", 1, "customer@1"))
    assert isinstance(certify, Certify)
    assert (certify.certificate.subjects, certify.certificate.identifiers) == ((), ("~i1",))


def test_who_keeps_a_request_is_named() -> None:
    told = Told()
    told.tell(Requested("r", "s1", True), Out("~s1", 0, 0, HELD))
    erasure, known = told.books.erasures["r"], told.books.known
    assert (stage_of(erasure, known), waits_for(erasure, known)) == (Stage.SHRED, ("g-0",))
    told.tell(Passed("g-0", 0, 1), Shredded("r", "s1", 1, ()), Shredded("r", "s1", 2, ()))
    assert (stage_of(erasure, known), waits_for(erasure, known)) == (Stage.RESOLVE, ("default",))
    told.tell(Settled("r", "default", 1))
    told.tell(Settled("r", "default", 2))
    assert (stage_of(erasure, known), waits_for(erasure, known)) == (Stage.REMOVE, ("customer@1",))
    told.tell(Receipt("r", "s1", 1, "customer@1"), Settled("r", "default", 3))
    told.tell(Settled("r", "default", 3))
    assert (stage_of(erasure, known), waits_for(erasure, known)) == (Stage.PROVEN, ())


def test_states_come_back_and_other_formats_stop() -> None:
    told = Told()
    told.until_proof()
    erasure, known = told.books.erasures["r"], told.books.known
    assert decode_erasure(encode_erasure(erasure)) == erasure
    assert decode_known(encode_known(known)) == known
    for decode in (decode_erasure, decode_known):
        with pytest.raises(NeedsOperator, match="format 9"):
            decode(msgspec.msgpack.encode((9, None)))


def test_what_a_batch_holds_makes_no_difference_to_the_end() -> None:
    events: list[Event] = [
        DEPLOYED, Requested("r", "s1", True), Out("~s1", 0, 0, HELD), Passed("g-0", 0, 1), Beside("r", ("s4",)),
    ]  # fmt: skip
    one, each = Books(Known(), {}, {}, veil), Books(Known(), {}, {}, veil)
    step(one, events, 5)
    for event in events:
        step(each, [event], 5)
    assert one.erasures["r"].nodes["s1"].passed == each.erasures["r"].nodes["s1"].passed
    assert stage_of(one.erasures["r"], one.known) == stage_of(each.erasures["r"], each.known)
