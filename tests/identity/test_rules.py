"""Rules: what contradicts itself is refused with what to write, the default table is the page's."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial

import pytest

from c360.errors import DeclarationError
from c360.identity import normalize
from c360.identity.namespace import Namespace
from c360.identity.rules import BLOCKED, DEFAULTS, HUB, OK, SHARED, Rules, spread_of

COOKIE = DEFAULTS["cookie"]


@pytest.mark.parametrize(
    ("rules", "says"),
    [
        (partial(Namespace, "a", limit=0), "no profile could hold one"),
        (partial(Namespace, "a", priority=-1), "0 or more"),
        (partial(Namespace, "a", shared_at=1), "write 2 or more, or None"),
        (partial(Namespace, "a", hub_at=0), "or links=False"),
        (partial(Namespace, "a", subject=True, links=False), "leave one of them out"),
        (partial(Namespace, "a", unique=True, links=False), "is written links=False, limit=1"),
        (partial(Namespace, "session_id"), "use the id of the user, device or cookie"),
    ],
)
def test_a_namespace_that_contradicts_itself_says_what_to_write(rules: partial[Namespace], says: str) -> None:
    namespace = rules()
    with pytest.raises(DeclarationError, match=re.escape(says)) as error:
        Rules("growth", {"cookie": COOKIE, namespace.name: namespace})
    assert "identity 'growth'" in str(error.value)
    assert repr(namespace.name) in str(error.value)


def test_rules_that_contradict_themselves_say_what_to_write() -> None:
    with pytest.raises(DeclarationError, match="give one subject=True"):
        Rules("r", {"email": DEFAULTS["email"]})
    with pytest.raises(DeclarationError, match="cap=1 quarantines everybody"):
        Rules("r", DEFAULTS, cap=1)
    with pytest.raises(DeclarationError, match="no regular expression"):
        Rules("r", DEFAULTS, blocked=("[",))
    with pytest.raises(DeclarationError, match="declared under the name 'mail'"):
        Rules("r", {"cookie": COOKIE, "mail": DEFAULTS["email"]})


def test_defaults_are_the_table_of_the_page() -> None:
    table = {n.name: (n.subject, n.unique, n.priority, n.most, n.shared_at, n.hub_at) for n in DEFAULTS.values()}
    assert table["customer"] == (True, True, 0, 1, None, 1000)
    assert table["merge"] == (False, False, 0, 50, None, 100)
    assert table["user_id"] == table["crm_id"] == (False, True, 1, 1, None, 1000)
    assert table["loyalty_id"] == table["card_hash"] == (False, False, 2, 3, 3, 20)
    assert table["email"] == table["email_sha256"] == (False, False, 3, 5, 3, 100)
    assert table["phone"] == (False, False, 4, 5, 3, 100)
    assert table["name_dob_postcode"] == (False, False, 6, 12, 2, 12)
    assert table["device_id"] == table["idfa"] == table["gaid"] == table["idfv"] == (False, False, 10, 5, 2, 100)
    assert table["cookie"] == table["ga_client_id"] == (True, False, 20, 50, 2, 50)
    custom = Namespace("badge")
    assert (custom.priority, custom.most, custom.shared_at, custom.hub_at, custom.links) == (15, 5, 3, 20, True)


@pytest.mark.parametrize(
    "value",
    ["", " ", "0", "0000-00", "00000000-0000-0000-0000-000000000000", "-1", "NULL", "None", "nan", "N/A", "not set",
     "[object Object]", '"null"', "''", "test_7", "test-user", "a@example.com", "A@TEST.ORG", "distinct_id"],
)  # fmt: skip
def test_a_value_that_says_nothing_is_blocked(value: str) -> None:
    rules = Rules("r", DEFAULTS)
    assert not rules.of(f"email:{value}").links
    assert not rules.of(f"cookie:{value}").links


@pytest.mark.parametrize("value", ["tester", "a@example.net", "10", "nullable", "id7", "a@mytest.com", "-12"])
def test_a_value_that_only_looks_like_nothing_is_not_blocked(value: str) -> None:
    assert Rules("r", DEFAULTS).of(f"email:{value}").links


def test_undeclared_keys_link_nobody_and_what_only_forbids_holds() -> None:
    rules = Rules("r", {**DEFAULTS, "born": Namespace("born", links=False, limit=1)})
    ghost, born, blocked = rules.of("ghost:1"), rules.of("born:1950"), rules.of("born:unknown")
    assert (ghost.links, ghost.holds, ghost.subject) == (False, False, False)
    assert (born.links, born.holds) == (False, True)
    assert (blocked.links, blocked.holds) == (False, False)


def test_a_status_follows_from_neighbours() -> None:
    email = Rules("r", DEFAULTS).of("email:a")
    assert [email.status(100, 2), email.status(101, 0), email.status(5, 3)] == [OK, HUB, SHARED]
    customer = Rules("r", DEFAULTS).of("customer:1")
    assert customer.status(1000, 1 << 40) == OK
    assert [spread_of(k) for k in ([], ["a:1"], ["a:1", "b:1"], ["a:1", "b:1", "b:2"])] == [0, 1, 1, 2]


def test_the_fingerprint_is_another_where_a_decision_could_be_and_only_there() -> None:
    base = Rules("growth", DEFAULTS)
    assert base.fingerprint == Rules("risk", dict(reversed([*DEFAULTS.items()]))).fingerprint
    email = DEFAULTS["email"]
    others = [
        Rules("growth", {**DEFAULTS, "email": changed})
        for changed in (
            replace(email, limit=6),
            replace(email, shared_at=None),
            replace(email, hub_at=99),
            replace(email, priority=2),
            replace(email, links=False),
            replace(email, normalize=normalize.email_by_provider()),
            replace(email, normalize=normalize.text),
        )
    ]
    others += [Rules("growth", DEFAULTS, cap=999), Rules("growth", DEFAULTS, blocked=BLOCKED[1:])]
    others += [Rules("growth", {**DEFAULTS, "phone": replace(DEFAULTS["phone"], normalize=normalize.phone("DE"))})]
    assert len({r.fingerprint for r in [base, *others]}) == len(others) + 1
    assert len(base.fingerprint) == 32


def test_subjects_rank_before_identifiers_and_ranks_are_spread() -> None:
    rules = Rules("r", DEFAULTS)
    ranked = sorted((rules.of(k) for k in ("email:a", "cookie:aaaaa1", "customer:1", "phone:1")), key=lambda n: n.rank)
    assert [n.subject for n in ranked] == [True, True, False, False]
    keys = [f"customer:{i:04d}" for i in range(50)]
    assert sorted(keys, key=lambda k: rules.of(k).rank) != keys
