"""Operators cannot make tenants meet."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from c360.engine.partition import partition_of
from c360.errors import UsageError
from c360.identity.facts import Claim, encode_fact
from c360.ops.identity import say
from c360.ops.identity.graph import read_facts
from c360.testing import TestDriver
from tests.governance.forget_shop import NOW
from tests.governance.tenant_town import town


def said(t: TestDriver, what: say.What, a: str, b: str, *, undo: bool = False) -> say.Saying:
    assert t.vault is not None
    facts = read_facts(t.plan, t.cluster)
    (rules,) = t.plan.identities
    return say.plan_saying(t.plan, rules, facts, what, (a, b), undo=undo, now_ms=t.now_ms, names=t.vault.names)


@pytest.mark.parametrize("what", ["join", "separate"])
@pytest.mark.parametrize(
    ("a", "b"), [("crm:a/7", "crm:b/7"), ("email:a/x@y.se", "email:b/x@y.se"), ("crm:a/7", "email:b/x@y.se")]
)
def test_customers_of_two_tenants_are_neither_joined_nor_separated(what: say.What, a: str, b: str) -> None:
    with TestDriver(town(0), now=NOW) as t:
        with pytest.raises(UsageError, match=r"of tenant a and .* of tenant b"):
            said(t, what, a, b)
        assert said(t, what, a, b.replace(":b/", ":a/").replace("7", "8").replace("x@", "z@")).facts


def test_a_token_does_not_say_whose_it_is() -> None:
    with TestDriver(town(0), now=NOW) as t:
        assert t.vault is not None
        token = t.vault.names.token("email:a/x@y.se")
        with pytest.raises(UsageError, match="a token does not say whose customer"):
            said(t, "join", token, "email:a/z@y.se")


def test_who_were_joined_before_that_was_refused_can_be_parted() -> None:
    with TestDriver(town(0), now=NOW) as t:
        one, two = "cookie:a/1", "cookie:b/1"
        for fact in say.joining(one, two):
            key, value = encode_fact(replace(fact, claim=Claim(1)))
            t.producer.produce(t.plan.links, key, value, partition_of(fact.subject.encode(), t.plan.partitions))
        t.producer.flush()
        assert all(fact.claim.dead for fact in said(t, "join", one, two, undo=True).facts)
