"""Rule sets, and versions of one, side by side over the same facts; and identity and profiles that begin from nothing."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from c360 import App, Projection, collect, count
from c360.identity.facts import Fact
from c360.ops.load import RawRecord
from c360.testing import TestDriver
from tests.identity.crowd import crowd, say
from tests.testing.people import Account, Cookie, Customer, Email, Known, Visit, people, who
from tests.testing.world import NOW, NOW_MS, World, read

HISTORIES, RECORDS = 6, 40
Said = Sequence[RawRecord | Fact]


class Next(Projection):
    visits: int = count(Visit)
    names: list[str] = collect(Account.name)


def sets(*names: str) -> App:
    """An app with these of its rule sets, each with a projection that follows it."""
    app = who("sets")
    if "default" in names:
        app.projection("customer", identity=app.identity())(Customer)
    if "risk 1" in names:
        risk = app.identity("risk", changes={Email: {"limit": 1}, Cookie: {"hub_at": 3, "shared_at": None}}, cap=6)
        app.projection("account", identity=risk)(Known)
    if "risk 2" in names:
        risk = app.identity("risk", version=2, changes={Email: {"links": False, "limit": 1}})
        app.projection("next", identity=risk)(Next)
    return app


ALL = {"default": "sets.assignments.v1", "risk 1": "sets.assignments.risk.v1", "risk 2": "sets.assignments.risk.v2"}
FOLLOWED = {"default": "sets.customer.v1", "risk 1": "sets.account.v1", "risk 2": "sets.next.v1"}
AGENTS = {
    "default": ("identity@1", "customer@1"), "risk 1": ("identity.risk@1", "account@1"),
    "risk 2": ("identity.risk@2", "next@1"),
}  # fmt: skip


def send(t: TestDriver, said: Said) -> None:
    for one in said:
        if isinstance(one, Fact):
            say(one, t.plan, t.producer)
            t.producer.flush()
        else:
            t.send(one.topic, one.key, one.value, timestamp=NOW_MS)


def told(seed: int, app: App) -> Said:
    return list(crowd(app.plan(), seed, HISTORIES, RECORDS, NOW_MS))


def latest(t: TestDriver, topic: str) -> dict[str, bytes]:
    t.settle()
    found = {(key or b"").decode(): value for key, value in t.read(topic)}
    return {key: value for key, value in found.items() if value is not None}


def assigned(t: TestDriver, topic: str) -> dict[str, tuple[Any, ...]]:
    """What is said of each subject, without how it came to that."""
    said = {subject: json.loads(value) for subject, value in latest(t, topic).items()}
    return {subject: (one["profile"], one["identifiers"], one["deferred"]) for subject, one in said.items()}


def groups(ids: Mapping[str, tuple[Any, ...]]) -> dict[str, set[str]]:
    found = defaultdict(set)
    for subject, (profile, *_) in ids.items():
        found[profile].add(subject)
    return dict(found)


def records(t: TestDriver, topics: Mapping[str, str]) -> dict[str, int]:
    t.settle()
    return {name: sum(1 for _ in t.read(topic)) for name, topic in topics.items()}


ACCIDENTS = (TestDriver.settle, TestDriver.crash, TestDriver.lose_disk, TestDriver.rebalance)


def disturbed(t: TestDriver, said: Said, dice: random.Random) -> None:
    for n in range(0, len(said), 20):
        send(t, said[n : n + 20])
        dice.choice(ACCIDENTS)(t)


# ------------------------------------------------------------------------------------------------------ side by side
@pytest.mark.parametrize("seed", range(3))
def test_each_rule_set_decides_as_if_it_were_alone_and_projections_follow_the_one_they_name(seed: int) -> None:
    with TestDriver(sets(*ALL), now=NOW) as t:
        said = told(seed, sets(*ALL))
        disturbed(t, said, random.Random(seed))
        t.verify()
        answers = {name: assigned(t, topic) for name, topic in ALL.items()}
        assert len({json.dumps(answer, sort_keys=True) for answer in answers.values()}) == 3
        for name, answer in answers.items():
            profiles = {key: json.loads(value) for key, value in latest(t, FOLLOWED[name]).items()}
            members = {subject: key for key, record in profiles.items() for subject in record["subjects"]}
            assert {subject: profile for subject, (profile, *_) in answer.items() if subject in members} == {
                subject: profile for subject, profile in members.items() if subject in answer
            }
            assert any(record["subjects_total"] > 1 for record in profiles.values())
            with TestDriver(sets(name), now=NOW) as alone:
                send(alone, said)
                assert assigned(alone, ALL[name]) == answer
                assert latest(alone, FOLLOWED[name]) == latest(t, FOLLOWED[name])


@pytest.mark.parametrize("name", ALL)
def test_one_that_begins_anew_leaves_the_others_alone(name: str) -> None:
    with TestDriver(sets(*ALL), now=NOW) as t:
        send(t, told(7, sets(*ALL)))
        written = {**ALL, **{f"{name}'s": topic for name, topic in FOLLOWED.items()}}
        before, ids = records(t, written), assigned(t, ALL[name])
        for agent in AGENTS[name]:
            t.reset(agent)
        after = records(t, written)
        assert {other for other in written if after[other] != before[other]} <= {name, f"{name}'s"}
        assert after[name] > before[name], "it says everything again"
        assert assigned(t, ALL[name]) == ids
        t.verify()


def test_a_new_version_is_built_beside_the_old_one_from_what_is_known() -> None:
    with TestDriver(sets(*ALL), now=NOW) as whole, TestDriver(sets("default", "risk 1"), now=NOW) as t:
        said = told(3, sets(*ALL))
        send(whole, said)
        send(t, said)
        old = {name: ALL[name] for name in ("default", "risk 1")}
        before = records(t, old)
        t.stop()
        t.plan = sets(*ALL).plan()
        t.start()
        assert records(t, old) == before
        assert assigned(t, ALL["risk 2"]) == assigned(whole, ALL["risk 2"])
        assert latest(t, FOLLOWED["risk 2"]) == latest(whole, FOLLOWED["risk 2"])
        t.verify()


# --------------------------------------------------------------------------------------------------- from nothing
TOPICS = {"identity": "people.assignments.v1", "risk": "people.assignments.risk.v1"}
PROFILES = {"customer": "people.customer.v1", "account": "people.account.v1"}


def begin_anew(t: TestDriver, agents: Sequence[str], dice: random.Random) -> None:
    """One after the other, with an accident while each catches up."""
    for agent in agents:
        t.reset(agent)
        for _ in range(dice.randrange(8)):
            for loop in t.loops:
                loop.turn(0.0)
                loop.commit_or_abort()
        dice.choice(ACCIDENTS)(t)


SEEN = {**PROFILES, "changes": "people.identity-changes.v1"}


@pytest.mark.parametrize("seed", range(8))
def test_from_nothing_come_the_same_ids_and_the_same_bytes(seed: int) -> None:
    app, dice = people(), random.Random(seed)
    with TestDriver(app, now=NOW) as t:
        said = told(100 + seed, app)
        disturbed(t, said[:120], dice)
        everything = [agent.name for agent in t.plan.agents if agent.name != "govern"]
        for n, agents in enumerate((["identity@1"], ["customer@1"], everything, everything[::-1])):
            send(t, said[120 + 30 * n : 150 + 30 * n])
            ids = {name: assigned(t, topic) for name, topic in TOPICS.items()}
            profiles = {name: latest(t, topic) for name, topic in PROFILES.items()}
            seen = records(t, SEEN)
            begin_anew(t, agents, dice)
            assert {name: assigned(t, topic) for name, topic in TOPICS.items()} == ids
            assert {name: latest(t, topic) for name, topic in PROFILES.items()} == profiles
            if agents == ["identity@1"]:
                assert records(t, SEEN) == seen, "nobody comes apart meanwhile"
        t.verify()


def test_identity_begins_anew_where_most_partitions_have_no_facts() -> None:
    with TestDriver(people(), now=NOW) as t:
        for name in ("c-1", "c-1"):
            t.send("visits", "k", {"cookie": name, "emails": ["a@b.org"], "page": "a", "ts": "2026-11-02T08:00:00Z"})
        before = assigned(t, TOPICS["identity"])
        assert list(before) == ["cookie:c-1"]
        for _ in range(2):
            t.reset("identity@1")
            assert assigned(t, TOPICS["identity"]) == before
            t.verify()
        assert records(t, TOPICS)["identity"] == 1 + 2


def test_verify_says_that_identity_is_catching_up_until_all_is_said_again() -> None:
    with World(people()) as t:
        send(t, told(2, people()))
        ids = assigned(t, TOPICS["identity"])
        before = sum(len(batch.keys) for batch in read(t.cluster, TOPICS["identity"]))
        t.reset("identity@1")
        complete = []
        for _ in range(60):
            for loop in t.loops:
                loop.turn(0.0)
                loop.commit_or_abort()
            said = sum(len(batch.keys) for batch in read(t.cluster, TOPICS["identity"])) - before
            complete.append(t.report("identity@1").complete)
            assert not complete[-1] or said >= len(ids)
        assert complete[-1]
        assert not complete[0]
