"""People who are parted are, byte by byte and in every kind of attribute, as if they had never met. Through the whole app.

Each story runs twice: with a link that comes and goes, and without it. Raw records are the same in both but for the
field that links, so that whatever differs was left behind by the link.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest

from c360.engine.partition import partition_of
from c360.identity.facts import Claim, Fact, cannot, encode_fact, link
from c360.testing import TestDriver
from tests.testing.apart import account, app, order, visit
from tests.testing.shop import change
from tests.testing.world import NOW, NOW_MS

ANN, BOB, CID = "crm:1", "cookie:b", "cookie:e"
MAIL = "ann@mail.org"
PAGES = ("/", "/deep", "/shoes", "/hats", "/socks", "/ties")
SEEDS = int(os.environ.get("C360_TEST_SEEDS", "1000")) // 20

Accident = Callable[[TestDriver], None]
ACCIDENTS: Mapping[str, Accident] = {
    "crash": TestDriver.crash,
    "lose_disk": TestDriver.lose_disk,
    "rebalance": TestDriver.rebalance,
    "identity anew": lambda t: t.reset("identity@1"),
    "projection anew": lambda t: t.reset("customer@1"),
}


class History:
    """A driver, and the next id and position of what is sent to it."""

    def __init__(self, linked: bool) -> None:
        self.t = TestDriver(app, now=NOW)
        self.linked = linked
        self.n = self.lsn = self.version = 0

    def traffic(self, *subjects: str) -> None:
        """For each subject other values than for the others: visits of two months, orders that change hands."""
        for k, subject in enumerate(subjects):
            for i in range(4):
                self.n += 1
                page = PAGES[(k * 2 + i) % len(PAGES)]
                self.t.send(
                    "visits",
                    "k",
                    visit(self.n, subject, page, f"2026-{10 + i % 2}-0{1 + k % 2}T08:00:{self.n % 60:02}Z"),
                )
            for i in range(2):
                row = order(10 * k + i, subject, f"{self.n * 7 + i}.50", "2026-11-01T12:00:00Z")
                self.row("orders", row)
            moved = order(99, subject, "0.25", f"2026-10-{20 + k}T12:00:00Z")
            self.row("orders", moved)

    def row(self, table: str, row: dict[str, Any], op: str = "u") -> None:
        self.lsn += 1
        key = json.dumps({"id": row["id"]})
        self.t.send(table, key, change(op, self.lsn, None if op == "d" else row, table=table))

    def account(self, id: int, subject: str, mail: str | None, op: str = "u", *, only_if_linked: bool = False) -> None:
        """A row of accounts, whose note is another each time; `only_if_linked`: without its mail, where nobody is linked."""
        said = None if only_if_linked and not self.linked else mail
        self.row("accounts", account(id, subject, said, f"{subject} {self.lsn}"), op)

    def claim(self, *, dead: bool = False) -> Claim:
        """What an operator claims now."""
        self.version += 1
        return Claim(NOW_MS + self.version, dead=dead, first_seen=NOW_MS)

    def profiles(self) -> dict[str, bytes]:
        self.t.settle()
        return latest(self.t)


def say(t: TestDriver, *facts: Fact) -> None:
    """What an operator says."""
    for fact in facts:
        key, value = encode_fact(fact)
        t.producer.produce(t.plan.links, key, value, partition_of(fact.subject.encode(), t.plan.partitions))
    t.producer.flush()


def latest(t: TestDriver) -> dict[str, bytes]:
    found = {(key or b"").decode(): value for key, value in t.read("apart.customer.v1")}
    return {key: value for key, value in found.items() if value is not None}


# ------------------------------------------------------------------------------------------------ one link, each way
def joined_by_rows(h: History) -> None:
    for id, subject in enumerate((ANN, BOB, CID)):
        h.account(id, subject, MAIL, only_if_linked=True)


def row_updates(h: History) -> None:
    for id, subject in enumerate((ANN, BOB, CID)):
        h.account(id, subject, None)


def row_deletes(h: History) -> None:
    for id, subject in enumerate((ANN, BOB, CID)):
        h.account(id, subject, None, "d")


def rows_of_others(h: History) -> None:
    for id in range(3):
        h.account(id, "crm:9", None)


def table_emptied(h: History) -> None:
    h.lsn += 1
    for partition in (0, 1):
        h.t.send("accounts", None, change("t", h.lsn, None, table="accounts"), partition=partition)


def case(h: History, *, dead: bool = False) -> None:
    claim = h.claim(dead=dead)
    if h.linked:
        say(h.t, *(link(subject, "merge:case-1", "operator", claim) for subject in (ANN, BOB, CID)))


def case_and_nothing_against_it(h: History) -> None:
    """Without a link, only the one that is kept when they are separated: links decide by first_seen, then by subject."""
    claim = h.claim()
    say(
        h.t,
        *(
            link(subject, "merge:case-2", "operator", claim)
            for subject in (ANN, BOB, CID)
            if h.linked or subject == BOB
        ),
    )
    separate(h, dead=True)


def separate(h: History, *, dead: bool = False) -> None:
    """Each from each; their links stand, and are refused."""
    claim = h.claim(dead=dead)
    if h.linked:
        pairs = ((ANN, BOB), (ANN, CID), (BOB, CID))
        say(h.t, *(cannot(min(pair), max(pair), "operator", claim) for pair in pairs))


Act = Callable[[History], None]
WAYS: Mapping[str, tuple[Act, Act]] = {
    "rows are updated": (joined_by_rows, row_updates),
    "rows are deleted": (joined_by_rows, row_deletes),
    "rows become another's": (joined_by_rows, rows_of_others),
    "the table is emptied": (joined_by_rows, table_emptied),
    "an operator takes it back": (case, lambda h: case(h, dead=True)),
    "an operator separates": (case_and_nothing_against_it, separate),
}


def story(way: tuple[Act, Act], linked: bool, accident: Accident | None, rounds: int) -> dict[str, bytes]:
    """Traffic before, while and after they are linked; so many times."""
    h = History(linked)
    join, part = way
    for id, subject in enumerate((ANN, BOB, CID)):
        h.account(id, subject, None)
    h.traffic(ANN, BOB, CID)
    for n in range(rounds):
        before = h.profiles()
        join(h)
        h.traffic(CID, ANN, BOB)
        after = h.profiles()
        if linked:
            assert_one(before, after, n)
        h.traffic(BOB, CID, ANN)
        if accident is not None:
            accident(h.t)
        part(h)
        h.traffic(ANN, CID, BOB)
        if accident is not None:
            accident(h.t)
        h.t.settle()
    h.t.verify()
    return h.profiles()


def assert_one(before: dict[str, bytes], after: dict[str, bytes], nth: int) -> None:
    """They are one profile, and every attribute is another than of any of them alone."""
    assert {ANN, BOB, CID} <= before.keys()
    assert {BOB, CID}.isdisjoint(after)
    record = json.loads(after[ANN])
    assert record["subjects"] == sorted([ANN, BOB, CID])
    if nth == 0:
        own = [json.loads(before[subject])["attributes"] for subject in (ANN, BOB, CID)]
        same = [name for name, value in record["attributes"].items() if all(value == one[name] for one in own)]
        assert same == [], "an attribute that all have alike proves nothing"


@pytest.mark.parametrize("accident", [None, *ACCIDENTS])
@pytest.mark.parametrize("way", WAYS)
def test_whoever_is_parted_is_as_if_they_had_never_met(way: str, accident: str | None) -> None:
    happens = None if accident is None else ACCIDENTS[accident]
    parted, never = story(WAYS[way], True, happens, 1), story(WAYS[way], False, None, 1)
    assert parted == never
    assert {ANN, BOB, CID} <= never.keys()


@pytest.mark.parametrize("way", WAYS)
def test_whoever_is_parted_twice_is_as_if_they_had_never_met(way: str) -> None:
    assert story(WAYS[way], True, TestDriver.lose_disk, 2) == story(WAYS[way], False, None, 2)


# ------------------------------------------------------------------------------------------------------ new evidence
@pytest.mark.parametrize("accident", ACCIDENTS)
def test_a_value_that_a_third_customer_has_parts_those_it_joined_until_it_has_gone(accident: str) -> None:
    """In the history to compare with, only the newcomers have the value; and then nobody but those it joins in the end."""
    happens = ACCIDENTS[accident]

    def told(mails: bool, newcomers: bool, stay: bool) -> tuple[dict[str, bytes], dict[str, bytes]]:
        h = History(True)
        h.traffic(ANN, BOB, CID)
        for id, subject in enumerate((ANN, BOB)):
            h.account(id, subject, MAIL if mails or subject == ANN else None)
        h.traffic(BOB, ANN, CID)
        if mails:
            assert json.loads(h.profiles()[ANN])["subjects"] == sorted([ANN, BOB])
        for id, subject in enumerate(("crm:2", "crm:3"), 5):
            h.account(id, subject, MAIL if newcomers else None)
            h.traffic(ANN, BOB, subject)
        happens(h.t)
        shared = h.profiles()
        h.account(5, "crm:2", None)
        happens(h.t)
        h.account(6, "crm:3", None, "u" if stay else "d")
        h.traffic(ANN, BOB, CID)
        h.t.verify()
        return shared, h.profiles()

    parted, joined_again = told(True, True, True)
    assert json.loads(parted[ANN])["subjects"] == [ANN]
    assert json.loads(joined_again[ANN])["subjects"] == sorted([ANN, BOB])
    assert parted == told(False, True, True)[0], "as if Bob had never had it"
    assert joined_again == told(True, False, True)[1], "as if nobody else had ever had it"


# ---------------------------------------------------------------------------------------------------- random histories
SUBJECTS = ("crm:1", "crm:2", "crm:3", *(f"cookie:{name}" for name in "abcde"))
MAILS = (None, None, "a@mail.org", "b@mail.org", "c@mail.org")
DEVICES = (None, None, None, "d-1", "d-2")
LINKING = ("email", "device")


@dataclass(frozen=True)
class Said:
    """One step: a record of a topic, a fact of an operator, or an accident by name."""

    topic: str = ""
    row: dict[str, Any] | None = None
    gone: bool = False  # the row of this id is deleted
    fact: Fact | None = None
    accident: str = ""


def random_history(dice: random.Random) -> list[Said]:
    """Rows that link, and more often do not; operators who join, separate and take back; accidents between."""
    kinds = ["visit", "visit", "order", "account", "account", "account", "gone", "operator", "accident"]
    return [random_step(dice, dice.choice(kinds), n) for n in range(70)]


def random_step(dice: random.Random, kind: str, n: int) -> Said:
    subject = dice.choice(SUBJECTS)
    time = f"2026-1{dice.randrange(2)}-0{dice.randint(1, 2)}T08:00:{dice.randrange(60):02}Z"
    match kind:
        case "visit":
            return Said("visits", visit(dice.randrange(40), subject, dice.choice(PAGES), time))
        case "order":
            return Said("orders", order(dice.randrange(6), subject, f"{dice.randrange(200)}.5", time))
        case "account":
            row = account(dice.randrange(8), subject, dice.choice(MAILS), f"note {n}", dice.choice(DEVICES))
            return Said("accounts", row)
        case "gone":
            return Said(dice.choice(["orders", "accounts"]), {"id": dice.randrange(8)}, gone=True)
        case "operator":
            claim = Claim(NOW_MS + n, dead=dice.random() < 0.5, first_seen=NOW_MS + n)
            if dice.random() < 0.5:
                return Said(fact=link(subject, f"merge:case-{dice.randrange(2)}", "operator", claim))
            one, two = sorted(dice.sample(SUBJECTS, 2))
            return Said(fact=cannot(one, two, "operator", claim))
    return Said(accident=dice.choice([*ACCIDENTS, "settle"]))


def without_what_ended(history: list[Said]) -> list[Said]:
    """The same with only those links that hold in the end, from when they were said for the last time; no accidents."""
    kept: list[Said] = []
    holds: dict[tuple[int, str], tuple[Any, ...] | None] = {}  # by row and field, from the end: what it says for good
    facts = set()
    for step in reversed(history):
        if step.fact is not None:
            slot = (step.fact.subject, step.fact.kind, step.fact.other)
            if slot not in facts and not step.fact.claim.dead:
                kept.append(step)
            facts.add(slot)
        elif step.topic == "accounts" and step.row is not None:
            row = dict(step.row)
            for name in LINKING:
                said = None if step.gone else (row["crm"], row["cookie"], row[name])
                if holds.setdefault((row["id"], name), said) != said:
                    holds[row["id"], name] = None
                if not step.gone and holds[row["id"], name] is None:
                    row[name] = None
            kept.append(replace(step, row=row))
        elif not step.accident:
            kept.append(step)
    return kept[::-1]


def happened(history: list[Said]) -> tuple[dict[str, bytes], dict[str, Any], int]:
    """Profiles, assignments, and the most members that a profile had at a time when it was looked at."""
    h, most = History(True), 0
    for step in history:
        if step.fact is not None:
            say(h.t, step.fact)
        elif step.accident == "settle":
            most = max([most, *(json.loads(record)["subjects_total"] for record in h.profiles().values())])
        elif step.accident:
            ACCIDENTS[step.accident](h.t)
        elif step.topic == "visits":
            h.t.send("visits", "k", step.row)
        elif step.row is not None:
            h.row(step.topic, step.row, "d" if step.gone else "u")
    profiles = h.profiles()
    assignments = {(key or b"").decode(): json.loads(value) for key, value in h.t.read("apart.assignments.v1") if value}
    return profiles, assignments, most


@pytest.mark.timeout(300)
def test_of_links_that_ended_nothing_is_left_in_any_profile() -> None:
    merged = ended = 0
    for seed in range(SEEDS):
        history = random_history(random.Random(seed))
        never = without_what_ended(history)
        profiles, assignments, most = happened(history)
        expected, assigned, _ = happened(never)
        assert profiles == expected, f"seed {seed}"
        for subject, said in assignments.items():
            shown = assigned.get(subject, {"profile": subject, "identifiers": [], "deferred": []})
            assert {name: said[name] for name in ("profile", "identifiers", "deferred")} == {
                name: shown[name] for name in ("profile", "identifiers", "deferred")
            }, f"seed {seed}"
        sizes = [json.loads(record)["subjects_total"] for record in expected.values()]
        merged += max(sizes) > 1
        ended += most > max(sizes)
    assert min(merged, ended) > SEEDS / 10, "it merges and parts enough to prove something"
