"""Any order, repeated, lagging, on any partitions, crashed: in the end what the oracle says. The short form."""

from __future__ import annotations

import os
import random

import pytest

from c360.identity.facts import Fact, encode_fact
from c360.testing.oracle.identity import answer
from tests.identity.permutations import main, random_facts, random_rules, run
from tests.identity.world import World

SEEDS = int(os.environ.get("C360_TEST_SEEDS", "1000")) * 2


def test_no_seed_diverges() -> None:
    for seed in range(SEEDS):
        try:
            run(seed)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error


def test_dead_claims_and_what_was_overtaken_change_nothing() -> None:
    for seed in range(60):
        dice = random.Random(seed)
        rules, facts = random_rules(dice), random_facts(dice)
        newest: dict[bytes, Fact] = {}
        for fact in facts:
            known = newest.setdefault(encode_fact(fact)[0], fact)
            newest[encode_fact(fact)[0]] = max(known, fact, key=lambda f: f.claim)
        live = [fact for fact in newest.values() if not fact.claim.dead]
        world = World(rules)
        world.tell(live)
        right = answer(facts, rules).standings
        for node in world.nodes():
            if node.standing:
                said = (node.standing.profile, node.standing.identifiers, node.standing.deferred)
                assert said == right[node.key]


def test_the_long_form_says_how_many_diverged(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--runs", "20", "--from", "5000000"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "divergences 0"
