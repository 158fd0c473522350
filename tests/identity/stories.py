"""Named stories of IDENTITY.md §9 that are about the protocol. Each takes the module with `step`, the real one or a mutant."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

from c360.identity.facts import Claim, link
from c360.identity.messages import Assign, Assigned, Gather, Meet, Told, Touch
from c360.identity.namespace import Namespace
from c360.identity.resolve import Evidence, Link, Standing
from c360.identity.rules import OK, Rules
from tests.identity.world import World

LOOSE = Rules(
    "loose",
    {
        "cookie": Namespace("cookie", 20, limit=99, shared_at=None, hub_at=None, subject=True),
        "customer": Namespace("customer", 0, unique=True, shared_at=None, hub_at=None, subject=True),
        "email": Namespace("email", 3, limit=99, shared_at=3, hub_at=100),
    },
)
BY_RANK = sorted((f"cookie:k{i:04d}" for i in range(9)), key=lambda key: LOOSE.of(key).rank)
FIRST, SECOND, THIRD, LAST = BY_RANK[0], BY_RANK[1], BY_RANK[2], BY_RANK[-1]
HERE, THERE = Standing("cookie:here", ()), Standing("cookie:there", ())


def overtaken_leader(code: ModuleType) -> None:
    """An Assign of a former leader that arrives after the new leader's is refused."""
    subject = code.Node(LAST)
    code.step(subject, [Assign(FIRST, HERE, "merged", "f2")], LOOSE)
    late = code.step(subject, [Assign(SECOND, THERE, "merged", "f1")], LOOSE)
    assert (subject.standing, late.events) == (HERE, [])


def the_pointer_that_knew_too_much(code: ModuleType) -> None:
    """A subject whose pointer moved by a Meet has no other teller by that: the real one is still believed."""
    subject = code.Node(LAST)
    code.step(subject, [Meet(SECOND, "f0"), Assign(SECOND, HERE, "merged", "f1"), Meet(FIRST, "f2")], LOOSE)
    assert subject.home == FIRST
    code.step(subject, [Assign(SECOND, THERE, "merged", "f3")], LOOSE)
    assert (subject.standing, subject.home) == (THERE, FIRST)


def two_tellers_one_table(code: ModuleType) -> None:
    """Tables of two leaders merge: what counts is the word of the earliest-ranked, which is what the subject believes."""
    alone = Standing(LAST, ())
    evidence = (Evidence(LAST, 1, OK),)
    believed = Gather(evidence, "f1", ((LAST, Told(SECOND, THERE)),))
    refused = Gather(evidence, "f2", ((LAST, Told(THIRD, alone)),))
    for batches in ([[believed, refused]], [[refused, believed]], [[refused], [believed]]):
        leader = code.Node(FIRST)
        sends = [sent for batch in batches for sent in code.step(leader, batch, LOOSE).sends]
        assert [(to, type(message), message.standing) for to, message in sends] == [(LAST, Assign, alone)], batches


def a_table_goes_with_its_block(code: ModuleType) -> None:
    """What the former leader has told need not be told again."""
    world = World(LOOSE, code=code)
    email = "email:a"
    world.tell(link(subject, email, "web", Claim(1)) for subject in (SECOND, THIRD))
    world.put(FIRST, link(FIRST, email, "web", Claim(1)))
    world.events.clear()
    world.sent.clear()
    world.drain()
    profile = min(FIRST, SECOND, THIRD)
    changed = [
        e for e in world.events if isinstance(e, Assigned) and e.was != e.standing.profile and e.subject != FIRST
    ]
    told = world.sent["Assign"]
    assert told == len(changed) == (profile == FIRST) * 2


def old_evidence_by_the_long_way(code: ModuleType) -> None:
    """A hand-over that brings older evidence after a direct update changes nothing."""
    old, new = Evidence(LAST, 1, OK, (Link("email:a", 1, 0),)), Evidence(LAST, 2, OK)
    leader = code.Node(FIRST)
    code.step(leader, [Gather((new,), "f2")], LOOSE)
    late = code.step(leader, [Gather((old,), "f1")], LOOSE)
    assert late.sends == []
    assert leader.lead.block.evidence()[LAST] == new


def the_cut_tie(code: ModuleType) -> None:
    """A pointer that moves leaves a Meet behind: the old target learns where it went."""
    node = code.Node(LAST)
    code.step(node, [Meet(SECOND, "f1")], LOOSE)
    done = code.step(node, [Meet(FIRST, "f2")], LOOSE)
    assert done.sends == [(SECOND, Meet(FIRST, "f2"))]
    assert node.home == FIRST


def meet_for_a_retired_leader(code: ModuleType) -> None:
    """It passes a Meet on, to the later-ranked of its own home and the other."""
    node = code.Node(LAST)
    code.step(node, [Meet(FIRST, "f1")], LOOSE)
    done = code.step(node, [Meet(SECOND, "f2")], LOOSE)
    assert done.sends == [(SECOND, Meet(FIRST, "f2"))]
    assert node.home == FIRST


def late_redemption(code: ModuleType) -> None:
    """Those who came while a value was shared are united when it is no longer."""
    world = World(LOOSE, code=code)
    numbers = [f"customer:n{i}" for i in range(3)]
    world.tell(link(subject, "email:a", "crm", Claim(1)) for subject in (*numbers, FIRST, SECOND))
    assert world.node(FIRST).standing == Standing(FIRST, (), (("email:a", "identifier_inactive"),))
    world.tell(link(number, "email:a", "crm", Claim(2, dead=True)) for number in numbers[1:])
    assert {world.node(s).standing for s in (FIRST, SECOND, numbers[0])} == {Standing(numbers[0], ("email:a",))}


def what_is_shared_unites_no_more(code: ModuleType) -> None:
    """A value of many customers is one message per fact, and no block grows by it."""
    world = World(LOOSE, code=code)
    facts = [link(f"customer:n{i:03d}", "email:info", "crm", Claim(1)) for i in range(60)]
    world.tell(facts[:3])
    assert world.tell(facts[3:]) == len(facts[3:])
    assert world.sent["Touch"] == len(facts)
    largest = max(len(node.lead.block.members) for node in world.nodes() if node.lead)
    assert largest <= 4


def learned_the_number_later(code: ModuleType) -> None:
    """A subject gets a unique id after it linked the e-mail: the e-mail hears of it."""
    rules = Rules("r", {**LOOSE.namespaces, "crm_id": Namespace("crm_id", 1, unique=True)})
    world = World(rules, code=code)
    world.tell(link(BY_RANK[i], "email:a", "web", Claim(1)) for i in range(3))
    world.tell(link(BY_RANK[i], f"crm_id:7{i}", "crm", Claim(1)) for i in range(3))
    email = world.node("email:a")
    assert email.evidence
    assert email.evidence.status == "shared"


def a_touch_says_how_a_link_stands(code: ModuleType) -> None:
    """A link that is gone takes the ids it lent with it."""
    node = code.Node("email:a")
    for i in range(2):
        code.step(node, [Touch(f"customer:{i}", True, True, (f"customer:{i}",), f"customer:{i}", "f")], LOOSE)
    code.step(node, [Touch("customer:0", False, False, (), "customer:0", "f")], LOOSE)
    assert (list(node.neighbours.of), node.neighbours.spread) == (["customer:1"], 1)


def a_link_that_is_gone_leads_nowhere(code: ModuleType) -> None:
    """Who has left an identifier is not found over it when those who stayed are decided on later."""
    named, left = sorted((SECOND, THIRD))
    linked = [Evidence(subject, 1, OK, (Link("email:a", 1, 0),)) for subject in (named, left)]
    leader = code.Node(FIRST)
    code.step(leader, [Gather((*linked, Evidence("email:a", 1, OK)), "f1")], LOOSE)
    code.step(leader, [Gather((Evidence(named, 2, OK),), "f2")], LOOSE)
    more = Evidence(left, 2, OK, (Link("email:a", 1, 0), Link("email:b", 1, 0)))
    done = code.step(leader, [Gather((more, Evidence("email:b", 1, OK)), "f3")], LOOSE)
    told = {to: message.standing for to, message in done.sends}
    assert told == {left: Standing(left, ("email:a", "email:b"))}


STORIES: tuple[Callable[[ModuleType], None], ...] = (
    overtaken_leader,
    the_pointer_that_knew_too_much,
    two_tellers_one_table,
    a_table_goes_with_its_block,
    old_evidence_by_the_long_way,
    the_cut_tie,
    meet_for_a_retired_leader,
    late_redemption,
    what_is_shared_unites_no_more,
    learned_the_number_later,
    a_touch_says_how_a_link_stands,
    a_link_that_is_gone_leads_nowhere,
)
