"""Customers are forgotten, end to end: on the production engine, in memory."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from datetime import timedelta
from hashlib import blake2b
from typing import Any

import pytest

from c360 import App
from c360.agents import govern
from c360.agents.erasure import Ordered, answering
from c360.agents.govern import Govern
from c360.agents.links import LINKS, LinkWriter
from c360.engine.transport import TP
from c360.errors import NeedsOperator
from c360.governance.audit import decode_record
from c360.governance.certificate import Certificate
from c360.ops import erase
from c360.ops.audit import verify as verified
from c360.plan import CONFIGS
from c360.tables.store import MemoryStores
from c360.testing import TestDriver
from tests.governance.forget_shop import NOW, click, left, open_shop, person, shop
from tests.governance.test_rights import clinic


def test_one_customer_without_others() -> None:
    with TestDriver(shop(joined=False), now=NOW) as driver:
        for number, customer in enumerate(["7", "8", "7"]):
            driver.send("orders", customer, {"id": f"o{number}", "customer": customer, "note": f"note {number}"})
        assert driver.profile("crm:7").orders == 2
        certificate = driver.erase("crm:7")
        assert certificate is not None
        assert len(certificate.subjects) == 1
        assert driver.record("crm:7") is None
        assert driver.profile("crm:8").orders == 1
        driver.send("orders", "7", {"id": "o9", "customer": "7", "note": "again"})
        assert driver.record("crm:7") is None


def merged(driver: TestDriver) -> None:
    """Two customers, of whom one is three subjects: a row, and two cookies that have logged in as its mail address."""
    person(driver, "pk7", "7", "Ada Byron", "ada@mail.se")
    person(driver, "pk8", "8", "Bob Gray", "bob@mail.se")
    for number in range(6):
        click(driver, number, f"c-ada-{number % 2}", "ada@mail.se", f"secret {number}")
        click(driver, 10 + number, "c-bob", "bob@mail.se", f"other {number}")


ADA = ["crm:7", "cookie:c-ada-0", "cookie:c-ada-1", "c-ada-0", "c-ada-1", "Ada Byron", "ada@mail.se"]


def tokens(driver: TestDriver, *labels: str) -> list[str]:
    assert driver.vault is not None
    return [driver.vault.names.token(label) for label in labels]


def test_a_profile_of_three_subjects_and_nobody_else() -> None:
    with TestDriver(shop(), now=NOW) as driver:
        merged(driver)
        record = driver.record("crm:7")
        assert record is not None
        assert record["subjects_total"] == 3
        certificate = driver.erase("crm:7")
        assert certificate is not None
        assert len(certificate.subjects) == 3
        assert not [t.topic for t in certificate.topics if t.policy == "compact" and t.gone_by is None]
        assert certificate.identifiers == tuple(tokens(driver, "email:ada@mail.se"))
        assert driver.record("crm:7") is None
        assert driver.profile("crm:8").clicks == 6
        assert kept(driver, ADA) == {}
        driver.verify()


def test_a_row_of_the_forgotten_of_which_a_column_was_not_sent_is_no_dead_letter() -> None:
    """The row before, which has that column, was removed with the rest of her."""
    with TestDriver(shop(), now=NOW) as driver:
        merged(driver)
        certificate = driver.erase("crm:7")
        assert certificate is not None
        person(driver, "pk7", "7", "__debezium_unavailable_value", "ada@mail.se", at=50, op="u")
        person(driver, "pk77", "7", "__debezium_unavailable_value", None, at=51, op="u")
        person(driver, "pk78", "78", "__debezium_unavailable_value", "ada@mail.se", at=52, op="u")
        assert driver.topic("forget.dlq") == []
        person(driver, "pk79", "79", "__debezium_unavailable_value", None, at=53, op="u")
        (letter,) = driver.topic("forget.dlq")
        assert letter["reason"] == "unknown-row"
        driver.verify()
        driver.lift(certificate)
        person(driver, "pk7", "7", "__debezium_unavailable_value", "ada@mail.se", at=54, op="u")
        assert len(driver.topic("forget.dlq")) == 2
        driver.verify()


def test_a_device_that_nobody_knew_is_not_remembered_for_naming_the_forgotten() -> None:
    """Its record is dropped, and with it the key that would have sealed it."""
    with TestDriver(shop(), now=NOW) as driver:
        merged(driver)
        assert driver.erase("crm:7") is not None
        click(driver, 50, "c-new", "ada@mail.se", "secret")
        person(driver, "pk9", "9", "Ada Byron", "ada@mail.se", at=60)
        assert kept(driver, ["c-new", "crm:9"]) == {}
        click(driver, 51, "c-new", "bob@mail.se", "other")
        click(driver, 52, "c-new", "ada@mail.se", "secret")
        assert driver.profile("crm:8").clicks == 7
        assert kept(driver, ADA) == {}
        driver.verify()


def test_strange_records_among_decisions_stop_nobody_and_are_found() -> None:
    with TestDriver(open_shop(), now=NOW) as driver:
        driver.send("orders", "7", {"id": "o1", "customer": "7", "email": "ada@mail.se", "note": "mine"})
        assert driver.erase("crm:7") is not None
        driver.verify("consent")
        producer = driver.cluster.producer()
        for key in (b"no-namespace", b"\xff:\xfe"):
            producer.produce("open.consent", key, b"\x91\x91", 0)
        producer.flush()
        driver.send("orders", "8", {"id": "o2", "customer": "8", "email": "bob@mail.se", "note": "his"})
        assert driver.profile("crm:8").orders == 1
        with pytest.raises(AssertionError, match=r"2 differences"):
            driver.verify("consent")


def test_what_an_enrichment_refuses_of_the_forgotten_is_no_dead_letter() -> None:
    app = shop(joined=False)

    @app.enrich(app.plan().sources[0].types[0].record)
    def loud(order: Any) -> str:
        return str(order.note.upper())

    with TestDriver(app, now=NOW) as driver:

        def order(number: int, customer: str, note: str | None) -> int:
            driver.send("orders", customer, {"id": f"o{number}", "customer": customer, "note": note})
            return len(driver.topic("forget.dlq"))

        assert [order(1, "7", "hers"), order(2, "7", None)] == [0, 1]
        assert driver.erase("crm:7") is not None
        assert [order(3, "7", None), order(4, "8", None)] == [1, 2]
        driver.verify()


@pytest.mark.parametrize("made", [shop, open_shop])
def test_the_certificate_says_how_far_everybody_had_read(made: Callable[[], App]) -> None:
    with TestDriver(made(), now=NOW) as driver:
        if made is shop:
            merged(driver)
        else:
            driver.send("orders", "7", {"id": "o1", "customer": "7", "email": "ada@mail.se", "note": "mine"})
        certificate = driver.erase("crm:7")
        assert certificate is not None
        agents = {receipts.agent: receipts.reached for receipts in certificate.agents}
        assert agents.keys() == set(answering(driver.plan, driver.cluster.admin().topics()))
        for agent, reached in agents.items():
            topic = driver.plan.suppressed if agent.startswith("govern:") else driver.plan.erase
            ends = {f"{topic}/{p}": part.next for p, part in enumerate(driver.cluster.topics[topic].partitions)}
            assert reached, agent
            assert all(0 < offset <= ends[place] for place, offset in reached.items()), agent
            asked = {f"{topic}/{tp.partition}" for tp in _keyed(driver, topic)}
            assert reached.keys() >= asked, agent


def _keyed(driver: TestDriver, topic: str) -> set[TP]:
    """Partitions that hold records."""
    places = enumerate(driver.cluster.topics[topic].partitions)
    return {TP(topic, p) for p, part in places if any(key is not None for key in part.keys)}


def kept(driver: TestDriver, words: list[str]) -> dict[str, list[str]]:
    """Where these stand in what is kept for good: compacted topics and stores. Topics that are deleted by time are named."""
    passing = {topic.name for topic in driver.plan.topics if CONFIGS[topic.role].get("cleanup.policy") != "compact"}
    return {name: hits for name, hits in left(driver, words).items() if name not in passing}


def test_of_a_personal_identifier_only_the_suppression_is_left() -> None:
    with TestDriver(shop(), now=NOW) as driver:
        merged(driver)
        driver.erase("email:ada@mail.se")
        (mail,) = tokens(driver, "email:ada@mail.se")
        erasing = {"forget.erasure.changelog", "store forget.erasure.v1/0"}
        assert kept(driver, [mail]).keys() == {"forget.suppressed", "store governance"} | erasing


def erased(driver: TestDriver) -> Certificate:
    merged(driver)
    driver.settle()
    certificate = driver.erase("crm:7")
    assert certificate is not None
    return certificate


def nobody_is_back(driver: TestDriver) -> None:
    assert driver.record("crm:7") is None
    assert driver.record("cookie:c-ada-0") is None
    assert driver.profile("crm:8").clicks == 6
    assert kept(driver, ADA) == {}
    driver.verify()


def test_rows_and_keys_of_a_large_task_go_in_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    """A scan of a million rows would hold a task for a quarter of a minute."""
    monkeypatch.setattr(govern, "LOOKED_AT", 2)
    steps = []
    inner = govern.GovernTask._remove_some

    def counted(task: govern.GovernTask, *arguments: Any) -> None:
        inner(task, *arguments)
        steps.append(task)

    with TestDriver(shop(), now=NOW) as driver:
        merged(driver)
        for number in range(20):
            person(driver, f"x{number}", "7" if number % 2 else f"x{number}", "Ada Byron", None)
        monkeypatch.setattr(govern.GovernTask, "_remove_some", counted)
        certificate = driver.erase("crm:7")
        assert certificate is not None
        assert len(steps) > 8
        assert driver.record("crm:7") is None
        assert driver.record("crm:x2") is not None
        assert kept(driver, ["crm:7", "ada@mail.se"]) == {}


def test_a_late_event_is_dropped_and_counted() -> None:
    with TestDriver(shop(), now=NOW) as driver:
        erased(driver)
        click(driver, 50, "c-ada-1", None, "late")
        click(driver, 51, "c-new", "ada@mail.se", "late, under a new cookie")
        person(driver, "pk7", "7", "Ada Again", "ada@mail.se", at=9, op="u")
        nobody_is_back(driver)
        assert driver.record("cookie:c-new") is None
        (govern,) = (loop.agent for loop in driver.loops if isinstance(loop.agent, Govern))
        assert sum(c.suppressed for c in govern.counters.values()) == 3


@pytest.mark.parametrize("agent", ["identity@1", "customer@1"])
def test_a_rebuild_brings_nothing_back(agent: str) -> None:
    with TestDriver(shop(), now=NOW) as driver:
        erased(driver)
        driver.reset(agent)
        nobody_is_back(driver)


@pytest.mark.parametrize("accident", ["crash", "lose_disk", "rebalance"])
def test_no_accident_brings_anything_back(accident: str) -> None:
    with TestDriver(shop(), now=NOW) as driver:
        erased(driver)
        getattr(driver, accident)()
        click(driver, 50, "c-ada-1", None, "late")
        nobody_is_back(driver)


def test_an_old_state_directory_brings_nothing_back() -> None:
    with TestDriver(shop(), now=NOW) as driver:
        merged(driver)
        driver.settle()
        old = deepcopy({name: list(s.scan(b"", b"\xff" * 9)) for name, s in driver.stores.stores.items()})
        assert driver.erase("crm:7") is not None
        driver.stop()
        driver.stores = MemoryStores()
        for name, entries in old.items():
            driver.stores.open(name).write(entries)
        driver.start()
        click(driver, 50, "c-ada-1", None, "late")
        nobody_is_back(driver)


def test_twice_and_for_nobody() -> None:
    with TestDriver(shop(), now=NOW) as driver:
        first = erased(driver)
        second = driver.erase("crm:7")
        assert second is not None
        assert [s.life for s in first.subjects + second.subjects] == [1, 1, 1, 2]
        nobody = driver.erase("crm:4711")
        assert nobody is not None
        assert nobody.subjects[0].keys == ()
        nobody_is_back(driver)
        assert kept(driver, ["4711"]) == {}


def test_after_a_lift_a_new_life_begins() -> None:
    with TestDriver(shop(), now=NOW) as driver:
        certificate = erased(driver)
        driver.lift(certificate)
        click(driver, 60, "c-ada-1", "ada@mail.se", "new life")
        person(driver, "pk7", "7", "Ada Reborn", "ada@mail.se", at=20, op="u")
        record = driver.record("crm:7")
        assert record is not None
        assert record["subjects_total"] == 2
        assert (driver.profile("crm:7").clicks, driver.profile("crm:7").text) == (1, "new life")
        driver.reset("customer@1")
        assert driver.profile("crm:7").clicks == 1
        driver.reset("identity@1")
        assert driver.profile("crm:7").clicks == 1
        assert driver.erase("cookie:c-ada-1") is not None
        assert driver.record("crm:7") is None


def test_who_lives_again_beside_others_of_an_old_profile_is_published_and_stays_when_they_are_erased() -> None:
    """The row of a forgotten customer stays while others of its block live: it had neither an assignment nor a future."""
    with TestDriver(shop(), now=NOW) as driver:
        person(driver, "pk7", "7", "Ada", "x@mail.se")
        click(driver, 1, "c-1", "x@mail.se")
        assert driver.profile("crm:7").clicks == 1
        person(driver, "pk7", "7", "Ada", None, at=2, op="u")
        certificate = driver.erase("crm:7")
        assert certificate is not None
        assert len(certificate.subjects) == 1
        driver.lift(certificate)
        person(driver, "pk7", "7", "Ada Reborn", "y@mail.se", at=20, op="u")
        click(driver, 2, "c-2", "y@mail.se", "new")
        assert driver.profile("crm:7").text == "new"
        assert driver.erase("cookie:c-1") is not None
        assert driver.profile("crm:7").text == "new"
        driver.verify()


def test_govern_does_not_begin_again_with_records_of_a_life_that_is_over() -> None:
    """A raw record does not say of which life it is: read again after a lift it would be of the new one."""
    with TestDriver(shop(), now=NOW) as driver:
        certificate = erased(driver)
        with pytest.raises(NeedsOperator, match="has read what govern wrote"):
            driver.reset("govern")
        driver.start()
        driver.advance(timedelta(hours=1))
        driver.lift(certificate)
        driver.settle()
        with pytest.raises(NeedsOperator, match="erased and lifted, and clicks, people still have records"):
            driver.reset("govern")


def test_who_asks_in_a_record_is_forgotten_too() -> None:
    with TestDriver(shop(), now=NOW) as driver:
        merged(driver)
        driver.send("forget-me", None, {"email": "ADA@mail.se"})
        driver.send("forget-me", None, {})
        driver.settle()
        nobody_is_back(driver)
        (letter,) = driver.topic("forget.dlq")
        assert letter["reason"] == "no-subject"


def test_a_shared_mailbox_is_named_and_not_touched() -> None:
    with TestDriver(shop(), now=NOW) as driver:
        for number in range(1, 7):  # of six customers: it joins nobody
            person(driver, f"pk{number}", str(number), f"Name {number}", "family@mail.se")
        driver.settle()
        certificate = driver.erase("crm:1")
        assert certificate is not None
        assert driver.record("crm:1") is None
        assert driver.profile("crm:2").name == "Name 2"
        certificate = driver.erase("email:family@mail.se")
        assert certificate is not None
        assert certificate.beside == tuple(sorted(tokens(driver, *(f"crm:{n}" for n in (2, 3, 4, 5, 6)))))
        assert driver.profile("crm:2").name == "Name 2"
        (mail,) = tokens(driver, "email:family@mail.se")
        assert "forget.links" not in kept(driver, [mail])


def test_who_asked_and_that_it_is_proven_is_in_the_audit_log_by_its_hash() -> None:
    with TestDriver(shop(), now=NOW) as driver:
        merged(driver)
        driver.crash()
        certificate = driver.erase("crm:7")
        assert certificate is not None
        driver.crash()
        driver.settle()
        assert driver.vault is not None
        log = [decode_record(value or b"") for _, value in driver.read(driver.plan.audit)]
        (done,) = [record.entry for record in log if record.entry.who == "erasure"]
        assert (done.what, done.after["stage"], done.after["subjects"]) == ("erase", "done", "3")
        assert done.after["request"] == certificate.request
        assert done.about == (driver.vault.names.veil("crm:7"),)
        assert verified(driver.plan, driver.cluster).findings == []
        assert "forget.audit" not in left(driver, ADA)


def test_what_is_asked_by_a_topic_is_told_when_it_is_taken_up() -> None:
    """What is asked by a command, the command tells."""
    with TestDriver(clinic(), now=NOW) as driver:
        driver.send("letters", value={"patient": "7", "email": "ann@mail.org", "name": "Ann Lee"})
        driver.settle()
        driver.send("requests", value={"who": "patient:7"})
        driver.settle()
        driver.advance(timedelta(seconds=10))
        driver.settle()
        log = [decode_record(value or b"").entry for _, value in driver.read(driver.plan.audit)]
        told = [entry for entry in log if entry.who == "erasure"]
        assert [entry.after["stage"] for entry in told] == ["intended", "done"]
        assert len({entry.after["request"] for entry in told}) == 1
        assert "patient:7" not in repr(told)


def test_what_has_left_is_taken_back_and_decisions_are_forgotten() -> None:
    with TestDriver(open_shop(), now=NOW) as driver:
        for number, who in enumerate(["7", "8", "7"]):
            order = {"id": f"o{number}", "customer": who, "email": f"p{who}@mail.se", "note": f"note of {who}"}
            driver.send("orders", who, order)
            driver.send(
                "choices", who, {"customer": who, "purpose": "marketing", "granted": True, "at": "2026-03-01T00:00:00Z"}
            )
        assert driver.sink("mailer")["crm:7"] == {"orders": 2, "note": "note of 7"}
        assert driver.view("marketing").keys() == {"crm:7", "crm:8"}
        certificate = driver.erase("crm:7")
        assert certificate is not None
        assert {"consent", "customer@1:marketing", "sink:mailer"} <= {receipts.agent for receipts in certificate.agents}
        assert driver.sink("mailer").keys() == driver.view("marketing").keys() == {"crm:8"}
        assert kept(driver, ["crm:7", "note of 7"]) == {}
        driver.lift(certificate)
        driver.send("orders", "7", {"id": "o9", "customer": "7", "note": "back"})
        assert driver.profile("crm:7").orders == 1
        assert driver.sink("mailer").keys() == {"crm:8"}, "nobody has decided anything in this life"


def test_a_row_that_names_the_erased_does_not_hide_whose_it_is() -> None:
    """Its update is dropped while the erasure runs; unlinked for that, its customer would not be found any more."""
    with TestDriver(shop(), now=NOW) as driver:
        person(driver, "pk7", "7", "Ada Byron", "ada@mail.se")
        click(driver, 1, "c-ada-0", "ada@mail.se", "secret 1")
        click(driver, 2, "c-bob", "bob@mail.se", "other")
        label = driver.vault.names.token("email:ada@mail.se") if driver.vault is not None else ""
        erase.ask(driver.plan, driver.cluster, Ordered(identifier=label))
        for number in range(40):  # at every step of it
            for process in driver.processes:
                process.turn()
            person(driver, "pk7", "7", f"Ada {number}", "ada@mail.se", at=2 + number, op="u")
        driver.settle()
        assert driver.record("crm:7") is None
        assert kept(driver, ADA) == {}


def test_a_row_that_comes_to_somebody_erased_leaves_whom_it_was_of() -> None:
    with TestDriver(shop(), now=NOW) as driver:
        merged(driver)
        driver.settle()
        assert driver.erase("crm:7") is not None
        person(driver, "pk8", "7", "Bob Gray", None, at=5, op="u")
        assert driver.profile("crm:8") is None or driver.profile("crm:8").name is None
        assert driver.record("crm:7") is None


@pytest.mark.parametrize("others", ["2", "11", "3", "40", "77"])
def test_who_shares_a_mailbox_that_could_not_join_him_is_not_forgotten_with_another(others: str) -> None:
    """Once the first is gone, the mailbox is free for the other: in some partitions he was taken for a joiner then."""
    with TestDriver(shop("beside"), now=NOW) as driver:
        person(driver, "pk1", "1", "Ann", "both@mail.se", 1)
        person(driver, "pk2", others, "Bob", "both@mail.se", 2)
        driver.settle()
        certificate = driver.erase("email:both@mail.se")
        assert certificate is not None
        assert (len(certificate.subjects), len(certificate.beside)) == (1, 1)
        assert [driver.profile(f"crm:{crm}") is None for crm in ("1", others)].count(True) == 1
        driver.verify()


def test_what_govern_keeps_of_links_cannot_be_guessed_without_the_secret() -> None:
    """Its hashes outlive who is forgotten: of a label in clear anybody could make an unkeyed one, and look."""
    with TestDriver(shop(), now=NOW) as driver:
        merged(driver)
        driver.settle()
        (mail,) = tokens(driver, "email:ada@mail.se")
        guessed = blake2b(f"cookie:c-ada-0\0{mail}".encode(), digest_size=16).digest()
        kept = {key[1:] for key, _ in driver.read("forget.govern.v1.clicks.changelog") if key and key[:1] == LINKS}
        assert len(kept) == 3
        assert guessed not in kept
        assert driver.vault is not None
        assert LinkWriter(driver.plan, "clicks", driver.vault.names)._key("cookie:c-ada-0", mail) in kept


def test_dead_letters_of_doors_name_the_customer_and_the_certificate_and_the_check_say_for_how_long() -> None:
    with TestDriver(open_shop(), now=NOW) as driver:
        driver.send("choices", "7", {"customer": "7", "purpose": "marketing", "granted": True, "at": NOW.isoformat()})
        driver.send("orders", "7", {"id": "o1", "customer": "7", "note": "boom"})
        driver.settle()
        assert [key for key, _ in driver.read(driver.plan.dlq)] == [b"crm:7"]
        certificate = driver.erase("crm:7")
        assert certificate is not None
        (promised,) = [topic for topic in certificate.topics if topic.topic == driver.plan.dlq]
        places = erase.check(driver.plan, driver.cluster, ["crm:7"], ["boom"], None, driver.now_ms)
        (place,) = [place for place in places if place.place == driver.plan.dlq]
        assert (place.ids, place.values, place.policy) == (1, 0, "delete")
        assert promised.gone_by is place.gone_by is None, "no retention by default, and nothing else is promised"
