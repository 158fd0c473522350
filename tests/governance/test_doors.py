"""Doors: what leaves, and what does not, through the driver; the consent and erasure agents are spoken for by hand."""

from __future__ import annotations

from itertools import product
from typing import Any, NamedTuple

import orjson
import pytest

from c360.agents.door import DoorAgent
from c360.engine.partition import partition_of
from c360.engine.transport import TopicSpec
from c360.governance.consent import Status
from c360.governance.keys import record_key
from c360.governance.messages import decode_receipt
from c360.tables.store import MemoryStores
from c360.testing import TestDriver
from tests.governance.door_shop import HOUR, NOW, SECOND, Street, inputs_of, shop


def door_of(t: TestDriver, name: str) -> DoorAgent:
    (agent,) = (loop.agent for loop in t.loops if loop.agent.name == name)
    assert isinstance(agent, DoorAgent)
    return agent


def written(t: TestDriver, topic: str) -> list[tuple[bytes | None, bytes | None]]:
    t.settle()
    return list(t.read(topic))


# --------------------------------------------------------------------------------------------------------- truth table
class Said(NamedTuple):
    """What an identifier has said: the status, and in how many hours it ends; 0: it has ended."""

    status: Status
    hours: int | None = None


SAID: dict[str, Said | None] = {
    "nothing": None,
    "granted": Said("granted"),
    "denied": Said("denied"),
    "withdrawn": Said("withdrawn"),
    "granted for an hour": Said("granted", 1),
    "granted for three": Said("granted", 3),
    "denied for two": Said("denied", 2),
    "granted, expired": Said("granted", 0),
    "denied, expired": Said("denied", 0),
}


def may(said: list[Said | None], hours: float) -> bool:
    """By the words of the design: any that refuses, no; else any that grants, yes; else no."""
    now = [one.status for one in said if one is not None and (one.hours is None or hours < one.hours)]
    return not {"denied", "withdrawn"} & {*now} and "granted" in now


def test_the_truth_table_of_identifiers_decisions_merges_purposes_and_expiry() -> None:
    with Street() as t:
        merged: dict[int, list[Said | None]] = {}
        apart: dict[str, list[Said | None]] = {}
        for n, (of_crm, of_cookie) in enumerate(product(SAID.values(), SAID.values())):
            for first, cookie in ((1000, f"m{n}"), (2000, None)):
                t.customer(first + n, f"N{n}", cookie)
                t.click(cookie or f"a{n}")
                for label, said in ((f"crm:{first + n}", of_crm), (f"cookie:{cookie or f'a{n}'}", of_cookie)):
                    if said is not None:
                        ends = None if said.hours is None else NOW + said.hours * HOUR
                        t.rights.append(label, "marketing", said.status, expires=ends)
            merged[1000 + n] = [of_crm, of_cookie]
            apart[f"crm:{2000 + n}"] = [of_crm]
            apart[f"cookie:a{n}"] = [of_cookie]
        everybody: dict[str, list[Said | None]] = {f"crm:{n}": said for n, said in merged.items()} | apart
        for hours in (0, 1, 2, 3):
            t.rights.state()
            assert t.view("service").keys() == everybody.keys(), "a contract asks nobody"
            assert t.view("marketing").keys() == {who for who, said in everybody.items() if may(said, hours)}
            assert t.sink("crm-sync").keys() == t.view("marketing").keys()
            assert t.view("stats") == {}, "who said nothing of stats is not in it"
            t.advance(HOUR)


def test_a_purpose_sees_what_its_sources_are_for() -> None:
    with Street() as t:
        t.customer(1, "Ann", "a")
        t.click("a")
        t.rights.append("crm:1", "stats", "granted")
        t.rights.decide("crm:1", "marketing", "granted")
        assert t.view("marketing")["crm:1"]["attributes"] == {
            "name": "Ann",
            "clicks": 1,
            "page": "/",
            "greeting": "Dear Ann",
        }
        assert t.view("stats")["crm:1"]["attributes"] == {"clicks": 1, "page": "/"}, (
            "no name, nor what is derived from it"
        )
        assert t.view("stats")["crm:1"]["subjects"] == ["cookie:a"]


def test_a_refusal_counts_of_a_subject_that_the_purpose_does_not_see() -> None:
    with Street() as t:
        t.customer(1, "Ann", "a")
        t.click("a")
        t.rights.append("cookie:a", "stats", "granted")
        t.rights.decide("crm:1", "stats", "denied")
        assert t.view("stats") == {}


# ------------------------------------------------------------------------------------------------------------- changes
def test_a_withdrawal_by_any_identifier_empties_view_and_sink() -> None:
    with Street() as t:
        t.customer(1, "Ann", "a")
        t.click("a")
        t.rights.decide("crm:1", "marketing", "granted")
        assert t.sink("crm-sync") == {"crm:1": {"name": "Ann", "clicks": 1}}
        t.rights.decide("cookie:a", "marketing", "withdrawn")
        assert t.view("marketing") == t.sink("crm-sync") == {}
        assert "crm:1" in t.view("service")
        t.later()
        t.rights.decide("cookie:a", "marketing", "granted")
        assert t.sink("crm-sync") == {"crm:1": {"name": "Ann", "clicks": 1}}


def test_an_un_merge_gives_each_side_its_own_decisions_back() -> None:
    with Street() as t:
        t.customer(1, "Ann", "a")
        t.click("a")
        t.rights.append("cookie:a", "marketing", "granted")
        t.rights.decide("crm:1", "marketing", "denied")
        assert t.view("marketing") == {}
        t.customer(1, "Ann", None)
        t.rights.state()
        assert t.view("marketing").keys() == {"cookie:a"}
        assert t.view("service").keys() == {"cookie:a", "crm:1"}


def test_who_is_gone_leaves_a_tombstone_and_who_was_never_there_none() -> None:
    with Street() as t:
        t.customer(1, "Ann")
        t.customer(2, "Bob")
        t.rights.decide("crm:1", "marketing", "granted")
        t.settle()
        t.customer(1)
        t.customer(2)
        t.rights.decide("crm:3", "marketing", "denied")
        keys = [(key, value is None) for key, value in written(t, "doors.customer.v1.marketing")]
        assert keys == [(b"crm:1", False), (b"crm:1", True)]
        for loop in t.loops:
            if isinstance(loop.agent, DoorAgent):
                for task in loop.tasks.values():
                    assert task.processor is not None
                    assert not any(list(table.scan()) for table in task.processor.tables)  # type: ignore[attr-defined]


def test_only_net_changes_leave() -> None:
    with Street() as t:
        t.customer(1, "Ann", "a")
        t.click("a")
        t.rights.decide("crm:1", "marketing", "granted")
        before = len(written(t, "doors.activation.crm-sync")), len(written(t, "doors.customer.v1.marketing"))
        t.click("a", "/x")  # another count, and a page that the sink does not tell
        t.rights.decide("cookie:a", "marketing", "granted")
        t.rights.decide("cookie:a", "stats", "denied")
        assert (len(written(t, "doors.activation.crm-sync")), len(written(t, "doors.customer.v1.marketing"))) == (
            before[0] + 1,
            before[1] + 1,
        )
        t.customer(1, "Ann", "a")
        t.rights.decide("crm:1", "marketing", "granted")
        t.rights.decide("crm:1", "stats", "granted")
        assert len(written(t, "doors.activation.crm-sync")) == before[0] + 1


def test_the_cause_of_a_record_travels_on() -> None:
    with Street() as t:
        t.rights.decide("crm:1", "marketing", "granted")
        t.customer(1, "Ann")
        t.settle()
        reader = t.cluster.reader()
        topic = t.plan.activation(t.plan.doors[-1].sink)  # type: ignore[arg-type]
        positions = reader.starts([*t.rights.ends(topic)])
        batches = [batch for some in reader.read(positions) for batch in some]
        assert [batch.headers(0) for batch in batches] == [[("c360-cause", b"%d" % t.now_ms)]]


# --------------------------------------------------------------------------------------------------------------- sinks
def test_a_function_that_gives_nothing_or_raises_takes_back_what_was_there() -> None:
    with Street() as t:
        t.customer(1, "Ann", "a")
        t.click("a")
        t.rights.decide("crm:1", "marketing", "granted")
        for page in ("/broken", "/nothing"):
            t.later()
            t.click("a")
            assert t.sink("crm-sync").keys() == {"crm:1"}
            t.later()
            t.click("a", page)
            assert t.sink("crm-sync") == {}
        (letter,) = (r for r in t.topic("doors.dlq") if r["stage"] == "sink:crm-sync")
        assert letter["reason"] == "sink-failed"
        assert "ValueError" in letter["error"]
        assert "Ann" not in str(letter), "what an error says may be the customer's"
        t.rights.decide("cookie:a", "stats", "granted")
        t.rights.decide("cookie:a", "marketing", "granted")
        assert sum(r["stage"] == "sink:crm-sync" for r in t.topic("doors.dlq")) == 1, "said once"


def test_a_sink_whose_function_changed_looks_at_everybody_again() -> None:
    with Street() as t:
        for n in range(5):
            t.customer(n, f"N{n}")
            t.rights.append(f"crm:{n}", "marketing", "granted")
        t.rights.state()
        assert t.sink("crm-sync")["crm:3"] == {"name": "N3", "clicks": 0}
        t.stop()
        object.__setattr__(t.plan.doors[-1].sink, "function", lambda profile: {"who": profile.name})
        t.start()
        assert t.sink("crm-sync") == {f"crm:{n}": {"who": f"N{n}"} for n in range(5)}


# ----------------------------------------------------------------------------------------------------------- the fence
def test_a_stopped_agent_stops_delivery_and_what_ends_is_taken_back_all_the_same() -> None:
    with Street() as t:
        for n in (1, 2):
            t.customer(n, f"N{n}")
        t.rights.append("crm:1", "marketing", "granted", expires=NOW + HOUR)
        t.rights.decide("crm:2", "marketing", "granted")
        assert t.view("marketing").keys() == {"crm:1", "crm:2"}
        t.rights.stopped = True
        t.advance(2 * SECOND)
        t.customer(2, "Changed")
        t.customer(3, "New")
        t.rights.append("crm:3", "marketing", "granted")
        assert t.view("marketing")["crm:2"]["attributes"]["name"] == "N2"
        assert "crm:3" not in t.view("service"), "nor may a contract, as long as nobody knows who is to be forgotten"
        t.advance(HOUR)
        assert t.view("marketing").keys() == {"crm:2"}
        assert door_of(t, "customer@1:marketing").counters.shut["stale"]
        t.rights.stopped = False
        t.rights.state()
        assert t.view("marketing").keys() == {"crm:2", "crm:3"}
        assert t.view("marketing")["crm:2"]["attributes"]["name"] == "Changed"


def test_a_suppression_is_acted_on_while_the_consent_agent_is_silent() -> None:
    with Street() as t:
        t.customer(1, "Ann", "a")
        t.rights.decide("crm:1", "marketing", "granted")
        assert t.view("marketing").keys() == {"crm:1"}
        t.rights.stopped = True
        t.advance(10 * SECOND)
        t.rights.suppress("cookie:a")
        assert t.view("marketing") == t.view("service") == t.sink("crm-sync") == {}


def test_a_door_that_has_not_read_as_far_as_the_agent_has_written_waits() -> None:
    with Street() as t:
        t.rights.decide("crm:1", "marketing", "granted")
        t.later(2 * SECOND)
        ahead = {tp: end + 1 for tp, end in t.rights.ends(t.plan.consent).items()}
        t.advance(2 * SECOND)
        for place, output in [(p, o) for p, o in _inputs(t) if o == t.plan.consent]:
            t.rights.say(place, t.now_ms, ahead)
            assert output
        t.producer.flush()
        t.customer(1, "Ann")
        assert t.view("marketing") == {}
        assert door_of(t, "customer@1:marketing").counters.shut["behind"]
        t.rights.state()
        assert t.view("marketing").keys() == {"crm:1"}


def test_a_partition_of_the_input_that_nobody_speaks_for_shuts_the_door() -> None:
    with Street() as t:
        t.rights.decide("crm:1", "marketing", "granted")
        t.advance(2 * SECOND)
        for place, output in _inputs(t):
            if place.topic != "choices" or place.partition == 0:
                t.rights.say(place, t.now_ms, t.rights.ends(output))
        t.producer.flush()
        t.customer(1, "Ann")
        assert t.view("marketing") == {}
        assert t.view("service").keys() == {"crm:1"}, "it needs no statement of who keeps consent"
        t.rights.state()
        assert t.view("marketing").keys() == {"crm:1"}


def test_a_partition_that_was_added_to_an_input_shuts_the_door_until_somebody_speaks_for_it() -> None:
    with Street() as t:
        t.rights.decide("crm:1", "marketing", "granted")
        before = _inputs(t)
        t.cluster.admin().delete(["choices"])
        t.cluster.admin().create([TopicSpec("choices", 3)])
        for place, output in before:
            t.rights.say(place, t.now_ms, t.rights.ends(output))
        t.producer.flush()
        t.customer(1, "Ann")
        assert t.view("marketing") == {}
        assert door_of(t, "customer@1:marketing").counters.shut["silent"]
        t.rights.state()
        assert t.view("marketing").keys() == {"crm:1"}


def _inputs(t: TestDriver) -> list[Any]:
    return inputs_of(t.plan, t.cluster.admin().topics())


def test_an_app_where_nobody_is_asked_and_nothing_is_sealed_has_no_fence() -> None:
    with TestDriver(shop("plain", personal=False), now=NOW) as t:
        t.send("clicks", key="a", value={"id": "1", "cookie": "a", "page": "/"})
        assert t.view("service").keys() == {"cookie:a"}
        assert t.view("marketing") == {}
        t.stop()


# -------------------------------------------------------------------------------------------------------- right before
class Killed(BaseException):
    """The process dies."""


def die() -> None:
    raise Killed


def test_a_withdrawal_learnt_of_right_before_a_crash_is_acted_on() -> None:
    for accident in ("crash", "lose_disk"):
        with Street() as t:
            t.customer(1, "Ann", "a")
            t.rights.decide("crm:1", "marketing", "granted")
            assert t.sink("crm-sync").keys() == {"crm:1"}
            t.rights.decide("cookie:a", "marketing", "withdrawn")
            for loop in t.loops:
                loop.gate = die if isinstance(loop.agent, DoorAgent) else loop.gate
            with pytest.raises(Killed):
                t.settle()
            for loop in t.loops:
                t.cluster.expire(loop.consumer)
            if accident == "lose_disk":
                t.stores = MemoryStores()
            t.start()
            assert t.sink("crm-sync") == t.view("marketing") == {}


def test_news_between_the_decision_and_the_commit_stops_the_delivery() -> None:
    with Street() as t:
        t.rights.decide("crm:1", "marketing", "granted")
        t.settle()
        agent = door_of(t, "sink:crm-sync")
        (loop,) = (loop for loop in t.loops if loop.agent is agent)
        asked: list[str] = []

        def gate() -> None:
            if agent.made.delivered and not asked:
                asked.append("now")
                t.rights.decide("crm:1", "marketing", "withdrawn")
                t.processes[0].tables[0].turn()
                t.processes[0].tables[0].turn()
            agent.gate()

        loop.gate = gate
        t.customer(1, "Ann")
        assert t.sink("crm-sync") == {}
        assert asked
        assert agent.counters.shut["news"] == 1
        assert written(t, "doors.activation.crm-sync") == []


def test_a_decision_that_ends_between_the_decision_and_the_commit_stops_the_delivery() -> None:
    with Street() as t:
        t.rights.decide("crm:1", "marketing", "granted", expires=NOW + SECOND / 2)
        agent = door_of(t, "sink:crm-sync")
        (loop,) = (loop for loop in t.loops if loop.agent is agent)

        def gate() -> None:
            if agent.made.delivered:
                t.now_ms += 500
            agent.gate()

        loop.gate = gate
        t.customer(1, "Ann")
        assert t.sink("crm-sync") == {}
        assert agent.counters.shut["expired"] == 1


def test_a_fence_that_falls_between_the_decision_and_the_commit_stops_the_delivery() -> None:
    with Street() as t:
        t.rights.decide("crm:1", "marketing", "granted")
        agent = door_of(t, "sink:crm-sync")
        (loop,) = (loop for loop in t.loops if loop.agent is agent)

        def gate() -> None:
            if agent.made.delivered:
                t.now_ms += 1001
            agent.gate()

        loop.gate = gate
        t.customer(1, "Ann")
        assert t.sink("crm-sync") == {}
        loop.gate = agent.gate
        t.rights.state()
        assert t.sink("crm-sync").keys() == {"crm:1"}


# ------------------------------------------------------------------------------------------------------- sealed values
def test_a_key_that_is_not_known_yet_is_waited_for_and_one_that_was_destroyed_leaves_its_value_out() -> None:
    with Street() as t:
        t.customer(1, "Ann")
        t.rights.decide("crm:1", "marketing", "granted")
        assert t.sink("crm-sync") == {"crm:1": {"name": "Ann", "clicks": 0}}
        sealed = t.record("crm:1")["attributes"]["name"]["~sealed"]  # type: ignore[index]
        for subject, name in [("crm:1", sealed.partition(":")[0])]:
            t.rights._write(t.plan.keys, record_key(subject, name).decode(), None)
        t.rights.state()
        t.click("z")
        t.rights.decide("crm:1", "marketing", "granted", at=t.now_ms + 1)
        assert t.sink("crm-sync") == {"crm:1": {"name": None, "clicks": 0}}


def test_what_was_altered_is_not_delivered_and_is_told() -> None:
    with Street() as t:
        t.customer(1, "Ann")
        t.rights.decide("crm:1", "marketing", "granted")
        assert t.sink("crm-sync").keys() == {"crm:1"}
        topic = t.plan.projected(t.plan.projections[0])
        (value,) = (value for key, value in t.read(topic) if key == b"crm:1" and value)
        start = value.index(b"Customer.name:") + len(b"Customer.name:")
        altered = value[:start] + (b"A" if value[start : start + 1] != b"A" else b"B") + value[start + 1 :]
        t.rights._write(topic, "crm:1", None)
        t.producer.produce(topic, b"crm:1", altered)
        t.producer.flush()
        assert t.sink("crm-sync") == t.view("marketing") == {}
        letters = {r["stage"]: r["reason"] for r in t.topic("doors.dlq")}
        assert letters["sink:crm-sync"] == "sealed-altered"
        assert door_of(t, "sink:crm-sync").counters.misfits == 1


# ------------------------------------------------------------------------------------------------------------- erasure
def test_a_suppressed_identifier_takes_its_profile_out_of_every_door_and_a_lift_brings_it_back() -> None:
    with Street() as t:
        t.customer(1, "Ann", "a")
        t.rights.decide("crm:1", "marketing", "granted")
        assert t.view("service").keys() == t.view("marketing").keys() == {"crm:1"}
        t.rights.suppress("cookie:a")
        assert t.view("service") == t.view("marketing") == t.sink("crm-sync") == {}
        t.rights.suppress("cookie:a", lift=True)
        assert t.view("service").keys() == t.view("marketing").keys() == {"crm:1"}


def test_an_erasure_removes_what_is_held_and_says_so() -> None:
    with Street() as t:
        t.customer(1, "Ann", "a")
        t.customer(2, "Bob")
        t.rights.append("crm:2", "marketing", "granted")
        t.rights.decide("crm:1", "marketing", "granted")
        assert t.sink("crm-sync").keys() == {"crm:1", "crm:2"}
        life = t.rights.suppress("crm:1")
        t.rights.erase("crm:1", life)
        assert t.sink("crm-sync").keys() == {"crm:2"}
        receipts = [decode_receipt(key, value) for key, value in written(t, t.plan.receipts) if key and value]
        doors = {door.agent for door in t.plan.doors}
        assert {r.agent for r in receipts} >= doors
        assert {(r.identifier, r.life) for r in receipts if r.agent in doors} == {("crm:1", 1)}
        for loop in t.loops:
            if loop.agent.name == "sink:crm-sync":
                for task in loop.tasks.values():
                    rows = [row for table in task.processor.tables for row in table.scan()]  # type: ignore[union-attr]
                    assert not [row for row in rows if b"crm:1" in row[0] or b"cookie:a" in str(row[1]).encode()]


def test_an_erasure_that_was_lifted_meanwhile_removes_nobody_who_began_anew() -> None:
    with Street() as t:
        life = t.rights.suppress("crm:1")
        t.rights.suppress("crm:1", lift=True)
        t.customer(1, "Ann")
        assert t.view("service").keys() == {"crm:1"}
        t.rights.erase("crm:1", life)
        assert t.view("service").keys() == {"crm:1"}
        assert written(t, t.plan.receipts)


def test_a_receipt_waits_until_the_copy_has_the_suppression() -> None:
    with Street() as t:
        t.customer(1, "Ann")
        t.settle()
        t.rights.erase("crm:1", 1)
        assert written(t, t.plan.receipts) == []
        assert door_of(t, "sink:crm-sync").counters.shut["behind"]
        t.rights.suppress("crm:1")
        assert len(written(t, t.plan.receipts)) >= len(t.plan.doors)


# ------------------------------------------------------------------------------------------------ accidents and replays
def test_doors_hold_the_same_after_accidents_and_a_rebalance() -> None:
    with Street() as t:
        for n in range(12):
            t.customer(n, f"N{n}", f"c{n}")
            t.click(f"c{n}")
            t.rights.append(f"crm:{n}", "marketing", "granted" if n % 3 else "denied")
        t.rights.state()
        held = t.view("marketing"), t.sink("crm-sync")
        assert len(held[0]) == 8
        lines = len(written(t, "doors.customer.v1.marketing"))
        for accident in (t.crash, t.lose_disk, t.rebalance):
            accident()
            t.rights.state()
            assert (t.view("marketing"), t.sink("crm-sync")) == held
        assert len(written(t, "doors.customer.v1.marketing")) == lines, "nothing was said again"


@pytest.mark.parametrize("agent", ["customer@1", "customer@1:marketing", "sink:crm-sync"])
def test_a_replay_delivers_nothing_that_is_not_allowed_and_nobody_vanishes_meanwhile(agent: str) -> None:
    with Street() as t:
        for n in range(6):
            t.customer(n, f"N{n}", f"c{n}")
            t.click(f"c{n}")
            t.rights.append(f"crm:{n}", "marketing", "granted")
        t.rights.state()
        assert len(t.sink("crm-sync")) == 6
        t.rights.append("cookie:c1", "marketing", "withdrawn")
        t.rights.append("crm:2", "marketing", "granted", at=t.now_ms + 1, expires=NOW + HOUR)
        t.rights.state()
        kept = {"crm:0", "crm:2", "crm:3", "crm:4", "crm:5"}
        assert t.sink("crm-sync").keys() == kept
        t.advance(HOUR)
        t.rights.state()
        kept -= {"crm:2"}
        assert t.sink("crm-sync").keys() == t.view("marketing").keys() == kept
        before = written(t, "doors.activation.crm-sync"), written(t, "doors.customer.v1.marketing")
        t.reset(agent)
        t.rights.decide("crm:4", "marketing", "withdrawn", at=t.now_ms + 1)
        kept -= {"crm:4"}
        assert t.sink("crm-sync").keys() == t.view("marketing").keys() == kept
        after = written(t, "doors.activation.crm-sync"), written(t, "doors.customer.v1.marketing")
        for one, two in zip(before, after, strict=True):
            new = [*two]
            for line in one:
                new.remove(line)
            assert new == [(b"crm:4", None)]


def test_a_reset_of_a_door_takes_back_who_is_no_more() -> None:
    with Street() as t:
        for n in range(4):
            t.customer(n, f"N{n}")
            t.rights.append(f"crm:{n}", "marketing", "granted")
        t.rights.state()
        assert len(t.sink("crm-sync")) == 4
        t.stop()
        t.rights._write(t.plan.activation(t.plan.doors[-1].sink), "crm:77", b"{}")  # type: ignore[arg-type]
        t.start()
        t.reset("sink:crm-sync")
        t.rights.state()
        assert t.sink("crm-sync").keys() == {f"crm:{n}" for n in range(4)}


# ------------------------------------------------------------------------------------------------ asked from outside
def test_a_profile_for_a_purpose_is_what_its_door_would_let_out() -> None:
    with Street() as t:
        t.customer(1, "Ann", "a")
        t.click("a")
        assert t.profile("crm:1", purpose="marketing") is None
        t.rights.append("cookie:a", "stats", "granted")
        t.rights.decide("crm:1", "marketing", "granted")
        seen = t.profile("cookie:a", purpose="marketing")
        assert (seen.name, seen.clicks, seen.greeting) == ("Ann", 1, "Dear Ann")
        seen = t.profile("cookie:a", purpose="stats")
        assert (seen.clicks, hasattr(seen, "name")) == (1, False)
        t.advance(5 * SECOND)
        assert t.profile("crm:1", purpose="marketing") is None, "the fence is not held any more"


def test_verification_finds_what_is_lost_altered_doubled_and_not_allowed() -> None:
    with Street() as t:
        for n in range(3):
            t.customer(n, f"N{n}", f"c{n}")
            t.click(f"c{n}")
            t.rights.append(f"crm:{n}", "marketing", "granted")
        t.rights.decide("cookie:c1", "marketing", "denied")
        doors = [door.agent for door in t.plan.doors]
        t.verify(*doors)
        topic = t.plan.view(t.plan.projections[0], "marketing")
        *_, good = (value for key, value in t.read(topic) if key == b"crm:2")
        for key, value, kind in (
            ("crm:1", good, "unexpected"),
            ("crm:2", None, "lost"),
            ("crm:2", good, "doubled"),
            ("crm:0", good, "altered"),
        ):
            t.rights._write(topic, key, value)
            if kind == "doubled":
                t.rights._write(topic, key, value)
            with pytest.raises(AssertionError, match=kind):
                t.verify("customer@1:marketing")


# ------------------------------------------------------------------------------------------------------ while it is shut
def test_what_else_was_decided_while_shut_is_still_to_be_done() -> None:
    with Street() as t:
        for n in (1, 2):
            t.customer(n, f"N{n}")
        t.rights.decide("crm:1", "marketing", "granted")
        assert t.view("marketing").keys() == {"crm:1"}
        t.rights.stopped = True
        t.advance(10 * SECOND)
        t.rights.append("crm:2", "marketing", "granted")  # the agent wrote it, and died before it said so
        t.rights.suppress("crm:1")
        assert t.view("marketing") == {}
        t.crash()
        assert t.view("marketing") == {}
        t.rights.stopped = False
        t.rights.state()
        assert t.view("marketing").keys() == {"crm:2"}


def test_an_erasure_leaves_those_alone_who_have_the_identifier_no_more() -> None:
    with Street() as t:
        home = partition_of(b"crm:1", t.plan.partitions)  # the task that is asked to erase is that of the profile
        mine = next(c for c in "abcdefgh" if partition_of(f"cookie:{c}".encode(), t.plan.partitions) == home)
        t.customer(1, "Ann", mine)
        t.click(mine)
        t.rights.decide("crm:1", "marketing", "granted")
        assert t.view("marketing")["crm:1"]["identifiers"] == [f"cookie:{mine}", "crm:1"]
        t.customer(1, "Ann", None)
        assert t.sink("crm-sync").keys() == {"crm:1"}
        t.rights.erase(f"cookie:{mine}", t.rights.suppress(f"cookie:{mine}"))
        assert t.sink("crm-sync").keys() == {"crm:1"}
        assert t.view("service").keys() == {"crm:1"}


def test_those_who_share_an_identifier_are_taken_back_a_portion_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("c360.agents.door.PROFILES_PER_COMMIT", 3)
    with Street() as t:
        agent = door_of(t, "sink:crm-sync")
        topic = t.plan.projected(t.plan.projections[0])
        t.rights.decide("cookie:shared", "marketing", "granted")
        for n in range(40):
            t.rights._write(topic, f"crm:{n}", shared_record(n))
        t.rights.state()
        assert len(t.sink("crm-sync")) == 40
        commits = next(loop for loop in t.loops if loop.agent is agent).metrics.commits
        t.rights.decide("cookie:shared", "marketing", "withdrawn")
        assert t.sink("crm-sync") == {}
        assert next(loop for loop in t.loops if loop.agent is agent).metrics.commits > commits + 2


def shared_record(n: int) -> bytes:
    labels = [f"crm:{n}", "cookie:shared"]
    said = {"profile_id": f"crm:{n}", "projection": "customer", "version": 1, "purpose": None, "as_of": None}
    values = {"name": None, "clicks": n, "page": None}
    return orjson.dumps(said | {"subjects": labels, "subjects_total": 2, "identifiers": labels, "attributes": values})
