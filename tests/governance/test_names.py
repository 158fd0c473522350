"""One place makes labels: of personal namespaces tokens, of tenants apart, and of all others what they always were."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest

from c360 import App, Personal, Projection, Record, cloudevents, count, normalize
from c360.codecs.record import RecordMeta
from c360.errors import DeclarationError, Misfit, UsageError
from c360.governance.keys import AppSecret
from c360.governance.names import Names, is_veiled
from c360.governance.tokens import Tokens
from c360.identity.namespace import Namespace
from c360.ops.profiles import normalized
from c360.testing import TestDriver

EMAIL = Namespace("email", normalize=normalize.email, personal=True)
CRM = Namespace("crm")
PHONE = Namespace("phone", normalize=normalize.phone("NO"), personal=True)
TOKENS = Tokens(AppSecret("shop", bytes(32)))
NAMES = Names(TOKENS)


def test_a_personal_label_is_the_token_of_the_canonical_value() -> None:
    assert NAMES.label(EMAIL, " Ann@Mail.org") == TOKENS.token("email:ann@mail.org")
    assert is_veiled(NAMES.label(EMAIL, "ann@mail.org"))
    assert NAMES.labels(EMAIL)("ANN@mail.org") == NAMES.label(EMAIL, "ann@mail.org")
    with pytest.raises(Misfit):
        NAMES.label(EMAIL, "no address")


def test_other_labels_are_what_they_were_and_cost_that() -> None:
    assert NAMES.label(CRM, " 7 ") == Names().label(CRM, "7") == "crm:7"
    assert Names().labels(CRM) == CRM.label, "the very same function"


def test_tenants_never_share_a_label_and_the_same_person_has_one_in_each() -> None:
    assert NAMES.label(CRM, "7", "acme") == "crm:acme/7"
    labels = {NAMES.label(EMAIL, "ann@mail.org", tenant) for tenant in (None, "acme", "other", 7)}
    assert len(labels) == 4
    assert NAMES.label(PHONE, "22 22 55 55", "acme") == NAMES.label(PHONE, "+4722225555", " acme "), "canonical first"
    for nobody in ("", "  ", "a/b", "a\0b"):
        with pytest.raises(Misfit, match="whose customer") as refused:
            NAMES.label(CRM, "7", nobody)
        assert refused.value.reason == "no-tenant"
    with pytest.raises(Misfit, match="tenant included"):
        NAMES.label(CRM, "7" * 500, "acme-corporation")


def test_a_veil_hides_everything_and_leaves_tokens_as_they_are() -> None:
    token = NAMES.label(EMAIL, "ann@mail.org")
    assert NAMES.veil(token) == token
    assert NAMES.veil("crm:7") == TOKENS.token("crm:7")
    assert NAMES.veil("cookie:~abc") == TOKENS.token("cookie:~abc"), "what only begins like one is none"


def test_who_has_no_keys_is_told_so_without_the_value() -> None:
    with pytest.raises(UsageError, match=r"set C360_KEYS .* or give the token itself") as refused:
        Names().label(EMAIL, "ann@mail.org")
    assert "ann" not in str(refused.value)
    with pytest.raises(UsageError, match="set C360_KEYS"):
        Names().veil("crm:7")


def test_what_a_person_types_may_be_a_token_but_what_a_record_says_may_not() -> None:
    token = NAMES.label(EMAIL, "ann@mail.org")
    value = token.removeprefix("email:")
    assert Names().asked(EMAIL, value) == token
    badge = Namespace("badge", personal=True)
    assert NAMES.label(badge, value) != f"badge:{value}", "nobody names a token by writing one into a record"
    assert NAMES.asked(EMAIL, "acme/ann@mail.org", tenants=True) == NAMES.label(EMAIL, "ann@mail.org", "acme")


# ------------------------------------------------------------------------------------------------------- in the stream
app = App("tenants", partitions=2)


@app.identifier("crm", priority=1, unique=True)
class CrmId(str): ...


@app.identifier("email", normalize=normalize.email)
class Email(str): ...


@app.source("orders", event_id="id", subject="crm", tenant="shop")
class Order(Record):
    id: str
    shop: str | None
    crm: CrmId
    email: Email | None
    login: CrmId | None


@app.projection("customer")
class Customer(Projection):
    orders: int = count(Order)


@pytest.fixture
def driver() -> Iterator[TestDriver]:
    with TestDriver(app) as started:
        yield started


def order(n: int, shop: str | None, crm: str, **more: Any) -> dict[str, Any]:
    return {"id": str(n), "shop": shop, "crm": crm, "email": "ann@mail.org", **more}


def test_two_tenants_may_use_the_same_ids_addresses_and_event_ids(driver: TestDriver) -> None:
    for shop in ("acme", "other"):
        for n in (1, 2):
            driver.send("orders", "k", order(1, shop, f"{n}"))
            driver.send("orders", "k", order(n + 1, shop, f"{n}"))
            driver.send("orders", "k", order(n + 1, shop, f"{n}"))
    driver.send("orders", "k", order(9, None, "1"))
    driver.send("orders", "k", order(9, "a/b", "1"))
    for shop in ("acme", "other"):
        found = driver.record(f"crm:{shop}/1")
        assert found is not None
        assert all(s.startswith(f"crm:{shop}/") for s in found["subjects"])
        assert driver.record(f"email:{shop}/ann@mail.org") == found
    assert [letter["reason"] for letter in driver.topic("tenants.dlq")] == ["no-tenant", "no-tenant"]
    driver.verify()


def test_values_that_say_nothing_are_seen_through_the_tenant(driver: TestDriver) -> None:
    driver.send("orders", "k", order(1, "acme", "1", login="unknown", email=None))
    driver.send("orders", "k", order(2, "acme", "null", login="5", email=None))
    assert driver.topic("tenants.links") == []
    driver.verify()


def test_a_tenant_is_part_of_the_question() -> None:
    assert normalized(app.plan(), "crm:acme/7") == "crm:acme/7"


# --------------------------------------------------------------------------------------------------------- declarations
def record(name: str, **fields: type) -> type[Record]:
    made: type[Record] = RecordMeta(name, (Record,), {"__annotations__": fields})
    return made


def test_what_stands_in_clear_beside_a_record_cannot_be_personal() -> None:
    for settings in ({"event_id": "mail"}, {"tenant": "mail"}):
        wrong = App("wrong")
        user = wrong.identifier("user")(type("User", (str,), {}))
        mail = wrong.identifier("email")(type("Mail", (str,), {}))
        event = record("Event", user=user, mail=mail)
        wrong.source("events", subject="user", **settings)(event)  # type: ignore[arg-type]
        with pytest.raises(DeclarationError, match=r"Event\.mail is personal and .* is written in clear"):
            wrong.plan()
    rows = App("rows")
    mail = rows.identifier("email")(type("Mail", (str,), {}))
    rows.cdc("people", key="mail")(record("Person", mail=mail))
    with pytest.raises(DeclarationError, match=r"Person\.mail is personal and key"):
        rows.plan()


@pytest.mark.parametrize(("personal", "tenant"), [(True, None), (False, "shop"), (False, None)])
def test_rule_sets_block_the_same_values_where_they_cannot_see_them(personal: bool, tenant: str | None) -> None:
    risky = App("risky")
    user = risky.identifier("user")(type("User", (str,), {}))
    mail = risky.identifier("email", personal=personal)(type("Mail", (str,), {}))
    event = record("Event", user=user, mail=mail, shop=str)
    risky.source("events", subject="user", tenant=tenant)(event)
    risky.identity("risk", blocked=("never",))
    if personal or tenant:
        with pytest.raises(DeclarationError, match=r"'risk'.*give all rule sets the same blocked="):
            risky.plan()
    else:
        assert len(risky.plan().identities) == 2


@pytest.mark.parametrize(
    ("attribute", "kind", "instead"),
    [("source", "email", "event_id"), ("id", "text", "event_id"), ("time", "time", "at")],
)
def test_what_names_a_cloudevent_stands_in_clear_so_it_cannot_be_personal(
    attribute: str, kind: str, instead: str
) -> None:
    def shop(**settings: Any) -> App:
        app = App("wrong")
        user = app.identifier("user")(type("User", (str,), {}))
        kinds = {"email": app.identifier("email")(type("Mail", (str,), {})), "text": Personal[str]}
        says = {"user": user, "number": str, "placed": datetime, "said": {**kinds, "time": Personal[datetime]}[kind]}
        event = RecordMeta("Event", (Record,), {"__annotations__": says, "said": cloudevents.attribute(attribute)})
        app.source("events", format="cloudevents", subject="user", **settings)(event)
        return app

    with pytest.raises(DeclarationError, match=rf"Event\.said is personal and .* in clear beside .* say {instead}="):
        shop().plan()
    shop(**{instead: {"event_id": "number", "at": "placed"}[instead]}).plan()
