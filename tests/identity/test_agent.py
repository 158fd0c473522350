"""The identity agent: what it says, what it costs, what a crash leaves; on seeds, what the oracle says."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import replace

import pytest

from benchmarks.identity import Tasks
from c360.agents.identity import NODES, IdentityTask
from c360.agents.shelves import EVIDENCE, HOLDERS, TOLD
from c360.agents.wire import Assignment, IdentityChange, decode_assignment, decode_identity_change
from c360.engine.partition import partition_of
from c360.engine.transport import TP, Batch
from c360.identity.facts import Claim, Fact, cannot, encode_fact, link
from c360.identity.messages import Gather, Told, decode_message, encode_message, encoded
from c360.identity.namespace import Namespace
from c360.identity.node import decode_node
from c360.identity.resolve import Evidence, Link, Standing
from c360.identity.rules import DEFAULTS, OK, Rules
from c360.serving.metrics import page_of
from c360.tables.store import MemoryStores
from c360.testing.oracle.identity import answer
from tests.identity.agent import main, run
from tests.identity.stage import IdentityStage

SEEDS = int(os.environ.get("C360_TEST_SEEDS", "1000")) // 2
RULES = Rules("default", DEFAULTS)
FREE = {n: replace(DEFAULTS[n], limit=1 << 30, shared_at=None, hub_at=None) for n in ("cookie", "device_id")}
MEGABYTE = 1 << 20


def said(subject: str, identifier: str, version: int = 1, *, dead: bool = False) -> Fact:
    return link(subject, identifier, "web", Claim(version, dead, version))


def test_no_seed_diverges() -> None:
    for seed in range(SEEDS):
        try:
            run(seed)
        except Exception as error:
            raise AssertionError(f"seed {seed}: {error}") from error


def test_the_long_form_says_how_many_diverged(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--runs", "10", "--from", "5000000"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "divergences 0"


# ------------------------------------------------------------------------------------------------------- what it says
def assigned(tasks: Tasks) -> list[tuple[str, Assignment]]:
    """What was said since the last time, by subject."""
    topic = tasks.plan.assignments(tasks.plan.identities[0])
    found = [(k.decode(), decode_assignment(v)) for t, k, v in tasks.said if t == topic and k is not None and v]
    return found


def changed(tasks: Tasks) -> list[tuple[str, IdentityChange]]:
    topic = tasks.plan.identity_changes(tasks.plan.identities[0])
    return [(k.decode(), decode_identity_change(v)) for t, k, v in tasks.said if t == topic and k is not None and v]


def news(tasks: Tasks, facts: Iterable[Fact]) -> tuple[Mapping[str, Assignment], list[tuple[str, IdentityChange]]]:
    """The assignments and changes that these facts lead to, told in one commit."""
    tasks.said.clear()
    tasks.tell(facts)
    found = assigned(tasks)
    assert len(dict(found)) == len(found), "a subject was assigned twice in a commit"
    return dict(found), changed(tasks)


def alone(rules: Rules = RULES, **settings: int) -> Tasks:
    return Tasks(rules, 1, MemoryStores(), **settings)


def test_a_subject_that_is_new_and_one_that_joins_it() -> None:
    tasks = alone()
    assignments, changes = news(tasks, [said("customer:1", "email:a")])
    cause = "customer:1|link|email:a|web@1"
    assert assignments == {
        "customer:1": Assignment(
            seq=2, profile="customer:1", identifiers=["email:a"], was=None, change="created", cause=cause
        )
    }
    assert changes == [("customer:1", IdentityChange(change="created", subject="customer:1", cause=cause))]
    news(tasks, [said("cookie:aaaaa1", "phone:1")])
    assignments, changes = news(tasks, [said("cookie:aaaaa1", "email:a")])
    assert assignments["cookie:aaaaa1"].profile == "customer:1"
    assert assignments["cookie:aaaaa1"].was == "cookie:aaaaa1"
    assert assignments["cookie:aaaaa1"].change == "merged"
    assert assignments.keys() == {"cookie:aaaaa1"}
    [(key, change)] = changes
    assert (key, change.change, change.was) == ("customer:1", "merged", "cookie:aaaaa1")


def test_what_comes_and_goes_within_a_commit_is_not_said() -> None:
    tasks = alone()
    news(tasks, [said("customer:1", "email:a"), said("cookie:aaaaa1", "phone:1")])
    assignments, changes = news(
        tasks, [said("cookie:aaaaa1", "email:a"), said("cookie:aaaaa1", "email:a", 2, dead=True)]
    )
    assert (assignments, changes) == ({}, [])


def test_a_twin_is_shown_as_what_it_is_of_and_once() -> None:
    crm = Namespace("crm", 0, unique=True, hub_at=1000, shared_at=None, subject=True)
    rules = Rules("default", {**DEFAULTS, "crm": crm, "=crm": crm.twin()})
    tasks = alone(rules)
    assignments, _ = news(
        tasks, [said("crm:1", "=crm:1"), said("cookie:aaaaa1", "=crm:1"), said("cookie:aaaaa1", "email:a")]
    )
    assert assignments["crm:1"].identifiers == ["crm:1"]
    assert (assignments["cookie:aaaaa1"].profile, assignments["cookie:aaaaa1"].identifiers) == (
        "crm:1",
        ["crm:1", "email:a"],
    )
    refused, changes = news(tasks, [said("crm:2", "=crm:2"), said("crm:2", "email:a")])
    assert refused["crm:2"].deferred == [("email:a", "unique:crm")]
    conflicts = [change for _, change in changes if change.change == "conflict"]
    assert [(c.subject, c.deferred) for c in conflicts] == [("crm:2", [("email:a", "unique:crm")])]


def test_a_value_that_many_share_is_told_and_counted() -> None:
    tasks = alone()
    _, changes = news(tasks, [said(f"customer:n{i}", "email:info") for i in range(3)])
    statuses = [(key, change.status) for key, change in changes if change.change == "status"]
    assert statuses == [("email:info", "shared")]
    (task,) = tasks.tasks
    assert (task.totals["shared"], task.totals["deferred identifier_inactive"]) == (1, 3)
    news(tasks, [said(f"customer:n{i}", "email:info", 2, dead=True) for i in range(3)])
    assert {name: n for name, n in task.totals.items() if name != "members"} == {}


def test_two_that_are_told_apart_keep_what_is_theirs() -> None:
    tasks = alone()
    news(tasks, [said("cookie:aaaaa1", "email:a"), said("cookie:aaaaa2", "email:a")])
    assignments, _ = news(tasks, [cannot("cookie:aaaaa1", "cookie:aaaaa2", "operator", Claim(1))])
    assert assignments.keys() == {"cookie:aaaaa2"}
    assert assignments["cookie:aaaaa2"].deferred == [("email:a", "cannot_link")]
    assert assignments["cookie:aaaaa2"].change == "split"


# --------------------------------------------------------------------------------------------------------- bad input
def test_what_is_no_fact_is_put_aside_and_a_tombstone_is_nothing() -> None:
    stage = IdentityStage(RULES, partitions=3)
    links, loop = stage.plan.links, stage.plan.loop(stage.identity)
    good = said("customer:1", "email:a")
    home = partition_of(b"customer:1", 3)
    stage.say([good])
    key, value = encode_fact(said("customer:1", "email:b"))
    for topic, k, v, partition in (
        (links, key, b"\xff", home),
        (links, b"customer:1|link", value, home),
        (loop, None, encode_message(Gather((), "")), 0),
        (links, key, value, (home + 1) % 3),
        (loop, b"email:a", b"\xc0", 0),
        (loop, b"\xff", encode_message(Gather((), "")), 0),
    ):
        stage.producer.produce(topic, k, v, partition)
    stage.producer.produce(links, key, None, home)
    stage.producer.flush()
    loop_ = stage.loop(MemoryStores())
    stage.settle(loop_)
    loop_.commit_or_abort()
    assert stage.misfits() == 6
    stage.check()


# ------------------------------------------------------------------------------------------------------------ crashes
def test_an_aborted_batch_leaves_nothing_in_memory() -> None:
    tasks = alone()
    tasks.tell([said("customer:1", "email:a")])
    (task,), (store,) = tasks.tasks, tasks.stores
    before = dict(store.scan(b"\x00", b"\xff"))
    tasks.said.clear()
    key, value = encode_fact(said("customer:1", "email:b"))
    task.process(Batch(TP(tasks.links, 0), [0], [key], [value], [0], lambda _: []), tasks)
    assert task.inbox, "a batch leaves messages for the next round"
    for table in task.tables:
        table.rolled_back()
    task.resume(task.notes())
    task.settle(tasks)
    task.finish({}, 0, tasks)
    assert tasks.said == []
    assert [entry for table in task.tables for entry in table.changes()] == []
    tasks.tell([said("customer:1", "email:a")])  # known
    assert dict(store.scan(b"\x00", b"\xff")) == before


# -------------------------------------------------------------------------------------------------------------- costs
def test_a_hub_of_20_000_costs_a_message_and_a_few_rows_for_each_and_no_record_grows() -> None:
    tasks = alone()
    few = [said(f"cookie:c{i:06d}", "phone:hub") for i in range(150)]
    many = [said(f"cookie:c{i:06d}", "phone:hub") for i in range(150, 20_000)]
    for fact in few:
        tasks.tell([fact])
    tasks.rows = 0
    each = 50
    messages = sum(tasks.tell(many[i : i + each]) for i in range(0, len(many), each))
    assert messages == len(many)
    # The subject, its neighbour row and that it waits; and the hub itself once per commit.
    assert tasks.rows <= len(many) * 3 + len(many) // each
    assert tasks.row_bytes_max < 20_000
    assert tasks.tell([said("cookie:c015000", "phone:hub", 2, dead=True)]) == 1
    (task,) = tasks.tasks
    assert task.totals["hub"] == 1


def test_a_shared_value_is_redeemed_from_its_rows() -> None:
    rules = Rules("few", {**DEFAULTS, "email": replace(DEFAULTS["email"], hub_at=None, limit=1000)}, cap=5000)
    facts = [said(f"customer:n{i}", "email:info") for i in range(3)]
    cookies = [said(f"cookie:c{i:06d}", "email:info") for i in range(300)]
    tasks = alone(rules)
    tasks.tell([*facts, *cookies])
    (task,) = tasks.tasks
    assert task.totals["shared"] == 1
    over = [said(f"customer:n{i}", "email:info", 2, dead=True) for i in range(2)]
    assignments, _ = news(tasks, over)
    right = answer([*facts, *cookies, *over], rules).standings
    assert {s: a.profile for s, a in assignments.items() if s.startswith("cookie")} == {
        s: r[0] for s, r in right.items() if s.startswith("cookie")
    }
    assert len(assignments) >= 50


def test_a_large_block_costs_what_a_message_is_about() -> None:
    """4,000 nodes that history has joined: they lie in rows, and a fact about one pair reads and writes a few."""
    tasks = alone(Rules("free", FREE, cap=1 << 30))
    pairs = [(f"cookie:c{i:05d}", f"device_id:d{i:05d}") for i in range(2000)]
    tasks.tell(said(s, d) for s, d in pairs)
    tasks.tell(said(s, "device_id:all") for s, _ in pairs)
    tasks.tell(said(s, "device_id:all", 2, dead=True) for s, _ in pairs)
    assert tasks.counters.largest_block >= 4000
    (task,), (store,) = tasks.tasks, tasks.stores
    assert tasks.row_bytes_max < MEGABYTE // 4
    reads: list[int] = []
    get_many, scan = store.get_many, store.scan

    def counted_scan(start: bytes, stop: bytes) -> object:
        for entry in scan(start, stop):
            reads.append(1)
            yield entry

    store.get_many = lambda keys: reads.append(len(keys)) or get_many(keys)  # type: ignore[method-assign, func-returns-value]
    store.scan = counted_scan  # type: ignore[method-assign, assignment]
    for table in task.tables:
        table.live.clear()
    tasks.rows = 0
    tasks.tell([said("cookie:c00007", "device_id:new")])
    assert sum(reads) < 60
    assert tasks.rows < 20
    right = answer([said("cookie:c00007", "device_id:d00007"), said("cookie:c00007", "device_id:new")], task.rules)
    profile, identifiers, _ = right.standings["cookie:c00007"]
    assert assigned(tasks)[-1][1].identifiers == list(identifiers)
    assert assigned(tasks)[-1][1].profile == profile


def test_a_block_in_rows_is_handed_over_whole_and_leaves_none() -> None:
    rules = Rules("free", FREE, cap=1 << 30)
    tasks = alone(rules, apart=8)
    subjects = sorted((f"cookie:c{i:05d}" for i in range(60)), key=lambda key: rules.of(key).rank)
    facts = [said(subject, "device_id:a") for subject in subjects[1:]]
    tasks.tell(facts)
    (task,), (store,) = tasks.tasks, tasks.stores
    owners = {key[1:17] for prefix in (EVIDENCE, HOLDERS, TOLD) for key, _ in store.scan(prefix, after(prefix))}
    facts.append(said(subjects[0], "device_id:a"))  # the earliest rank of all: it leads from now on
    tasks.tell(facts[-1:])
    now = {key[1:17] for prefix in (EVIDENCE, HOLDERS, TOLD) for key, _ in store.scan(prefix, after(prefix))}
    assert len(owners) == len(now) == 1
    assert owners != now
    nodes = [decode_node(data, rules, task.shelves) for _, data in store.scan(NODES, after(NODES))]
    right = answer(facts, rules).standings
    assert {n.key: n.standing.profile for n in nodes if n.standing} == {s: r[0] for s, r in right.items()}


def after(prefix: bytes) -> bytes:
    return bytes([prefix[0] + 1])


def test_a_chain_and_a_star_of_1_000_cost_what_the_design_says() -> None:
    def component(ends: Iterable[tuple[int, int]], commit: int) -> tuple[Tasks, float]:
        tasks = alone(Rules("free", FREE))
        facts = [said(f"cookie:c{i:06d}", f"device_id:d{j:06d}") for i, j in ends]
        costs = [tasks.tell(facts[i : i + commit]) for i in range(0, len(facts), commit)]
        assert tasks.counters.largest_component == 1000
        assert tasks.row_bytes_max < MEGABYTE // 8
        return tasks, sum(costs) / len(facts)

    _, chain = component(((i, i + far) for i in range(500) for far in (0, 1) if i + far < 500), 1)
    assert chain <= 5.5  # IDENTITY.md §8: in order 4.9
    _, star = component(((i, 0) for i in range(999)), 3)
    assert star <= 6


# --------------------------------------------------------------------------------------------------------------- cuts
def test_a_hand_over_is_cut_so_that_nothing_is_lost_and_what_is_linked_is_together() -> None:
    members = [Evidence(f"cookie:c{i:04d}", 1, OK, (Link(f"email:e{i // 2:04d}", 1, 0),)) for i in range(400)]
    emails = [Evidence(f"email:e{i:04d}", 1, OK) for i in range(200)]
    told = tuple((m.node, Told("cookie:c0000", Standing(m.node, ()))) for m in members)
    whole = Gather((*members, *emails), "f", told, (("r1", tuple(m.node for m in members)),))
    most = 2_000
    records = list(encoded(whole, most))
    assert max(map(len, records)) <= most + 200
    pieces = [decode_message(data) for data in records]
    assert all(isinstance(piece, Gather) for piece in pieces)
    gathers = [piece for piece in pieces if isinstance(piece, Gather)]
    assert {e for g in gathers for e in g.members} == set(whole.members)
    assert dict(pair for g in gathers for pair in g.told) == dict(told)
    for g in gathers:
        assert {s for s, _ in g.told} <= {e.node for e in g.members}, "what was told travels with its evidence"
    assert {n for g in gathers for _, nodes in g.reported for n in nodes} == {m.node for m in members}
    split = sum(
        link.identifier not in {e.node for e in g.members} for g in gathers for m in g.members for link in m.links
    )
    assert split <= 2 * len(gathers)
    assert list(encoded(whole, 1 << 20)) == [encode_message(whole)]


# ------------------------------------------------------------------------------------------------------------ metrics
def test_metrics_show_hubs_and_refused_links() -> None:
    stage = IdentityStage(RULES, partitions=1)
    stage.say(said(f"customer:n{i}", "email:info") for i in range(3))
    loop = stage.loop(MemoryStores())
    stage.settle(loop)
    loop.commit_or_abort()
    page = page_of([loop], {}, 0)
    for line in (
        'c360_identity_inactive_nodes{agent="identity@1",status="shared"} 1',
        'c360_identity_refused_links{agent="identity@1",reason="identifier_inactive"} 3',
        'c360_identity_facts_novel_total{agent="identity@1"} 3',
        'c360_identity_component_nodes_max{agent="identity@1"} 1',
    ):
        assert line + "\n" in page
    [task] = [task.processor for task in loop.tasks.values()]
    assert isinstance(task, IdentityTask)
    assert task.totals["live"] == 4
