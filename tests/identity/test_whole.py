"""All facts at once come to what the oracle says, as the nodes do."""

from __future__ import annotations

import random

import pytest

from c360.identity.resolve import resolve
from c360.identity.whole import evidence_of, gathered
from c360.testing.oracle.identity import answer
from tests.identity.permutations import random_facts, random_rules


@pytest.mark.parametrize("hundred", range(5))
def test_standings_and_statuses_are_those_of_the_oracle(hundred: int) -> None:
    for seed in range(100 * hundred, 100 * hundred + 100):
        dice = random.Random(seed)
        rules, facts = random_rules(dice), random_facts(dice)
        dice.shuffle(facts)
        right = answer(facts, rules)
        evidence = evidence_of(gathered(facts), rules)
        standings = resolve(evidence.values(), rules).standings
        found = {s: (a.profile, a.identifiers, a.deferred) for s, a in standings.items()}
        assert found == right.standings, seed
        assert {node: e.status for node, e in evidence.items()} == right.status, seed
