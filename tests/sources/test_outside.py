"""Enrichments that ask outside, through the production engine and the production calls, without Kafka."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from random import Random
from typing import Any

import pytest

from c360 import App, Projection, Record, newest, normalize
from c360.agents.wire import encode
from c360.agents.withheld import Withheld
from c360.engine.partition import partition_of
from c360.engine.transport import TP
from c360.errors import NeedsOperator
from c360.governance.sealing import Destroyed
from c360.ops import consent, dlq, keys
from c360.ops.verify import verify
from c360.testing import TestDriver
from tests.governance.sealed_shop import forms_of, parts_of, stored
from tests.sources.outside_shop import (
    MONTH,
    NOW,
    CrmId,
    Email,
    Far,
    Firm,
    Score,
    app,
    choose,
    click,
    customer,
    far,
    scores,
    versioned,
)

Accident = Callable[[TestDriver], None]
ACCIDENTS = [TestDriver.crash, TestDriver.lose_disk, TestDriver.rebalance]
ANN = Firm(name="Mail Inc", size=12, owner="Olga Owner")


class Place(str): ...


@pytest.fixture
def driver() -> Iterator[TestDriver]:
    for each in (far, scores):
        each.__dict__.update(Far().__dict__)
    far.said["ann@mail.org"] = ANN
    with TestDriver(app, now=NOW) as started:
        yield started


SECRETS = ("ann@mail.org", "Ann Miller", "Olga Owner")


def in_clear(t: TestDriver, secrets: Sequence[str] = SECRETS) -> set[tuple[str, str]]:
    """Where a secret stands in clear, of all that is not the user's; also as base64."""
    t.settle()
    theirs = {topic.name for topic in t.plan.topics if not topic.owned or topic.role == "view"}
    written = [(f"{name}", data) for (name, _), log in parts_of(t) if name not in theirs for data in log]
    forms = {form: secret for secret in secrets for form in forms_of(secret)}
    return {(where, secret) for where, data in [*written, *stored(t)] for form, secret in forms.items() if form in data}


def opened(t: TestDriver, value: Any) -> Any:
    assert t.vault is not None
    field = value["~sealed"].split(":")[1]
    opener = keys.opener_of(t.plan, t.cluster, t.vault)
    return json.loads(opener.open(value, subjects=(value["subject"],), fields=(field,), complete=True))


def rows(t: TestDriver) -> dict[bytes, bytes]:
    """What is kept of what was asked about e-mail addresses."""
    held = dict(t.read("outer.outside.firm_of.changelog"))
    return {key: value for key, value in held.items() if key and value and key.startswith(b"a")}


def test_an_answer_is_in_the_profile(driver: TestDriver) -> None:
    customer(driver, "7", "Ann@Mail.org", 1)
    profile = driver.profile("crm:7")
    assert (profile.firm, profile.firm_size, profile.owner) == ("Mail Inc", 12, "Olga Owner")
    assert profile.boss == "Olga Owner of Mail Inc", "govern sees an answer in clear"
    assert far.asked == ["ann@mail.org"], "as its namespace writes it"
    assert driver.topic("outer.dlq") == []
    driver.verify()


# ------------------------------------------------------------------------------------------------------------ when asked
def test_it_is_asked_once_for_a_subject_and_again_after_refresh(driver: TestDriver) -> None:
    for n in range(3):
        click(driver, n)
    assert driver.profile("cookie:c1").answers == 1
    driver.advance(MONTH - timedelta(seconds=1))
    click(driver, 10)
    assert driver.profile("cookie:c1").answers == 1
    driver.advance(timedelta(seconds=1))
    far.said["ann@mail.org"] = Firm(name="Mail Inc", size=13, owner=None)
    click(driver, 11)
    profile = driver.profile("cookie:c1")
    assert (profile.answers, profile.firm_size, profile.owner) == (2, 13, "Olga Owner")
    assert far.asked == ["ann@mail.org"] * 2
    driver.verify()


def test_subjects_who_share_an_identifier_are_answered_by_one_call(driver: TestDriver) -> None:
    for n in range(5):
        click(driver, n, cookie=f"c{n}")
    customer(driver, "7", "ann@mail.org", 1)
    driver.settle()
    assert far.asked == ["ann@mail.org"]
    assert len(driver.topic("outer.outside.firm_of")) == 6
    assert driver.profile("crm:7").firm == "Mail Inc"
    driver.verify()


def test_none_is_an_answer(driver: TestDriver) -> None:
    click(driver, 1, login="bob@mail.org")
    click(driver, 2, login="bob@mail.org")
    assert driver.profile("cookie:c1").firm is None
    click(driver, 3, login="bob@mail.org")
    driver.settle()
    assert far.asked == ["bob@mail.org"]
    assert driver.topic("outer.outside.firm_of") == []


def test_a_row_that_is_taken_back_asks_nothing(driver: TestDriver) -> None:
    customer(driver, "7", "ann@mail.org", 1)
    customer(driver, "7", "ann@mail.org", 2, name="Ann Smith")
    customer(driver, "7", "bob@mail.org", 3)
    driver.settle()
    assert far.asked == ["ann@mail.org", "bob@mail.org"]


@pytest.mark.parametrize("accident", ACCIDENTS)
def test_no_accident_of_agents_asks_again(driver: TestDriver, accident: Accident) -> None:
    click(driver, 1)
    customer(driver, "7", "ann@mail.org", 1)
    driver.settle()
    click(driver, 2)
    click(driver, 3, login="eve@mail.org")
    accident(driver)
    assert driver.profile("cookie:c1").answers == 2, "one for the cookie, one for the customer, who are one now"
    click(driver, 4)
    assert driver.profile("cookie:c1").answers == 2
    assert far.asked == ["ann@mail.org", "eve@mail.org"]
    driver.verify()


@pytest.mark.parametrize("agent", ["customer@1", "identity@1"])
def test_a_reset_reads_answers_and_asks_nobody(driver: TestDriver, agent: str) -> None:
    click(driver, 1)
    customer(driver, "7", "ann@mail.org", 1)
    before = driver.record("crm:7")
    asked = list(far.asked)
    far.said.clear()
    driver.reset(agent)
    assert driver.record("crm:7") == before
    assert far.asked == asked
    driver.verify()


def go_on(t: TestDriver, declared: App) -> None:
    """A worker of a newer declaration takes over."""
    t.settle()
    t.stop()
    t.plan = declared.plan()
    t.start()
    t.settle()


@pytest.mark.parametrize(("governs", "versions"), [((1,), (1, 2)), ((1, 2), (1, 2)), ((2,), (2,))], ids=str)
def test_new_versions_read_answers_and_ask_nobody(governs: tuple[int, ...], versions: tuple[int, ...]) -> None:
    far.__dict__.update(Far().__dict__)
    far.said["ann@mail.org"] = ANN
    with TestDriver(versioned(), now=NOW) as t:
        customer(t, "7", "ann@mail.org", 1)
        customer(t, "8", "bob@mail.org", 1)
        assert t.profile("crm:7").firm == "Mail Inc"
        t.advance(timedelta(hours=2))
        asked = list(far.asked)
        far.said.clear()
        go_on(t, versioned(governs=governs, versions=versions))
        for version in versions:
            assert t.profile("crm:7", f"customer@{version}").firm == "Mail Inc"
        customer(t, "7", "ann@mail.org", 2, name="Ann Smith")
        t.settle()
        assert far.asked == asked
        t.verify()
        t.advance(MONTH)
        customer(t, "7", "ann@mail.org", 3, name="Ann Miller")
        t.settle()
        assert far.asked == [*asked, "ann@mail.org"], "and goes on with what was asked"


def test_what_was_asked_is_not_reset(driver: TestDriver) -> None:
    click(driver, 1)
    with pytest.raises(NeedsOperator, match="would ask again about everybody"):
        driver.reset("outside.firm_of")
    driver.start()


# ---------------------------------------------------------------------------------------------------------- what fails
def test_a_call_that_fails_is_made_again_and_at_last_put_aside(driver: TestDriver) -> None:
    def refuse(value: str) -> None:
        raise RuntimeError(f"no such address: {value}")

    far.trouble = refuse
    click(driver, 1)
    driver.settle()
    assert far.asked == ["ann@mail.org"] * 3, "once, and retries=2"
    (letter,) = driver.topic("outer.dlq")
    assert (letter["stage"], letter["reason"]) == ("outside.firm_of", "raised")
    assert letter["error"] == "@app.enrich firm_of raised RuntimeError"
    assert "outside_shop.py" in letter["traceback"]
    assert "refuse" in letter["traceback"]
    assert in_clear(driver) == set()
    far.trouble = lambda value: None
    driver.advance(MONTH)
    click(driver, 2)
    assert driver.profile("cookie:c1").firm == "Mail Inc", "the next refresh asks again"


def test_a_question_that_was_put_aside_is_asked_again_by_command(driver: TestDriver) -> None:
    def refuse(value: str) -> None:
        raise RuntimeError

    far.trouble = refuse
    click(driver, 1)
    driver.settle()
    far.trouble = lambda value: None
    assert dlq.replay(driver.plan, driver.cluster, topic=None, reason="raised")["replayed"] == 1
    assert driver.profile("cookie:c1").firm == "Mail Inc"
    driver.verify()


@pytest.mark.parametrize("wrong", ["lost", "doubled", "unexpected"])
def test_verify_notices_questions_that_should_not_be_or_are_not(driver: TestDriver, wrong: str) -> None:
    click(driver, 1)
    driver.settle()
    topic = "outer.outside.firm_of.questions"
    ((key, value),) = driver.read(topic)
    if wrong == "lost":
        (partition,) = [p for p, n in driver.cluster.reader().ends([TP(topic, p) for p in range(2)]).items() if n]
        driver.cluster.topics[topic].partitions[partition.partition].values[0] = encode({
            **json.loads(value or b""), "subject": "cookie:c2",
        })  # fmt: skip
    else:
        said = json.loads(value or b"")
        driver.producer.produce(topic, key, encode({**said, "at": said["at"] + (wrong == "unexpected")}))
        driver.producer.flush()
    report = verify(driver.plan, driver.cluster, ["outside.firm_of"], vault=driver.vault)
    kinds = [example["kind"] for example in report.agents["outside.firm_of"].examples]
    assert kinds == (["lost", "unexpected"] if wrong == "lost" else [wrong])


def test_what_is_no_answer_is_put_aside_at_once(driver: TestDriver) -> None:
    far.said["ann@mail.org"] = {"name": "Mail Inc"}
    far.said["bob@mail.org"] = Firm(name="Mail Inc", size="many", owner=None)  # type: ignore[arg-type]
    far.said["eve@mail.org"] = Firm(name="x" * 1_000_001, size=1, owner=None)
    for n, name in enumerate(("ann", "bob", "eve")):
        click(driver, n, login=f"{name}@mail.org")
    driver.settle()
    assert sorted(letter["reason"] for letter in driver.topic("outer.dlq")) == [
        "not-an-answer", "not-an-answer", "too-large",
    ]  # fmt: skip
    assert len(far.asked) == 3


def test_who_dies_between_asking_and_answering_asks_again(driver: TestDriver) -> None:
    class Killed(BaseException): ...

    def die(value: str) -> None:
        raise Killed

    far.trouble = die
    click(driver, 1)
    with pytest.raises(Killed):
        driver.settle()
    far.trouble = lambda value: None
    driver.crash()
    assert driver.profile("cookie:c1").answers == 1
    assert far.asked == ["ann@mail.org"] * 2
    driver.verify()


def test_an_answer_that_comes_twice_counts_once(driver: TestDriver) -> None:
    click(driver, 1)
    driver.settle()
    ((key, value),) = driver.read("outer.outside.firm_of")
    driver.producer.produce("outer.outside.firm_of", key, value)
    driver.producer.flush()
    assert driver.profile("cookie:c1").answers == 1
    driver.verify()


# -------------------------------------------------------------------------------------------------------- who may be asked
def test_nothing_personal_is_in_clear(driver: TestDriver) -> None:
    click(driver, 1)
    customer(driver, "7", "ann@mail.org", 1)
    driver.settle()
    assert in_clear(driver) == set()
    assert len(driver.topic("outer.outside.firm_of.questions")) == 2


def test_who_does_not_agree_is_not_asked_about(driver: TestDriver) -> None:
    scores.said |= {"c1": Score(points=1), "c2": Score(points=2), "c3": Score(points=3), "c4": Score(points=4)}
    choose(driver, granted=True, cookie="c1")
    choose(driver, granted=False, cookie="c2")
    choose(driver, granted=True, cookie="c4")
    choose(driver, granted=False, email="dan@mail.org")
    driver.settle()
    click(driver, 1, cookie="c1", login=None)
    click(driver, 2, cookie="c2", login=None)
    click(driver, 3, cookie="c3", login=None)
    click(driver, 4, cookie="c4", login="dan@mail.org")
    driver.settle()
    assert scores.asked == ["c1"], "not who refused, nor who never said so, nor who refused by the address beside"
    withheld = driver.outside[1].caller.counters.withheld
    assert withheld == {"denied": 2, "unknown": 1}
    assert driver.profile("cookie:c1").points == 1


def test_who_withdraws_after_the_record_came_is_not_asked_about(driver: TestDriver) -> None:
    scores.said["c1"] = Score(points=1)
    choose(driver, granted=True, cookie="c1")
    driver.settle()
    click(driver, 1, login=None)
    driver.now_ms += 1
    choose(driver, granted=False, cookie="c1")
    driver.settle()
    assert scores.asked == []


def test_who_is_forgotten_is_not_asked_about_and_no_question_can_be_read(driver: TestDriver) -> None:
    customer(driver, "7", "ann@mail.org", 1)
    click(driver, 1)
    assert driver.profile("crm:7").firm == "Mail Inc"
    certificate = driver.erase("crm:7")
    assert certificate is not None
    customer(driver, "7", "ann@mail.org", 2)
    click(driver, 2)
    driver.advance(MONTH)
    click(driver, 3)
    assert driver.profile("crm:7") is None
    assert far.asked == ["ann@mail.org"]
    for value in driver.topic("outer.outside.firm_of.questions"):
        with pytest.raises(Destroyed):
            opened(driver, value["value"])
    for value in driver.topic("outer.outside.firm_of"):
        with pytest.raises(Destroyed):
            opened(driver, value["record"])
    assert rows(driver) == {}
    driver.verify()


def test_a_new_life_is_asked_about_anew_and_an_old_answer_is_not_of_it(driver: TestDriver) -> None:
    customer(driver, "7", "ann@mail.org", 1)
    driver.settle()
    ((key, value),) = driver.read("outer.outside.firm_of")
    certificate = driver.erase("crm:7")
    assert certificate is not None
    driver.lift(certificate)
    driver.producer.produce("outer.outside.firm_of", key, value)  # of somebody who was slow
    driver.producer.flush()
    far.said["ann@mail.org"] = Firm(name="New Inc", size=1, owner=None)
    driver.advance(timedelta(hours=2))
    customer(driver, "7", "ann@mail.org", 2)
    profile = driver.profile("crm:7")
    assert (profile.firm, profile.answers, profile.owner) == ("New Inc", 1, None)
    assert far.asked == ["ann@mail.org"] * 2
    driver.verify()


def test_tenants_never_meet(driver: TestDriver) -> None:
    asked: list[str] = []
    app = App("tenants", partitions=2)
    app.identifier("crm", priority=1, unique=True)(CrmId)

    @app.source("clicks", subject="customer", tenant="shop")
    class Visit(Record):
        customer: CrmId
        shop: str

    @app.enrich(refresh=MONTH)
    async def points_of(customer: CrmId) -> Score | None:
        asked.append(customer)
        return Score(points=len(asked))

    @app.projection("customer")
    class Points(Projection):
        points: int | None = newest(Score.points)

    with TestDriver(app, now=NOW) as t:
        for shop in ("a", "b", "a"):
            t.send("clicks", "k", {"customer": "7", "shop": shop}, partition=0)
        assert {t.profile(f"crm:{shop}/7").points for shop in ("a", "b")} == {1, 2}
        assert asked == ["7", "7"]
        t.verify()


@pytest.mark.parametrize("seed", range(12))
def test_whatever_happens_nobody_is_asked_about_more_often_than_is_due(driver: TestDriver, seed: int) -> None:
    dice, events, lsn = Random(seed), 0, 0
    emails = [f"p{n}@mail.org" for n in range(4)]
    for email in emails:
        far.said[email] = Firm(name="Mail Inc", size=1, owner=f"owner of {email}")
    due: dict[tuple[str, str], int] = {}
    calls, forgotten = 0, set[str]()
    for _ in range(25):
        match dice.choice(["click", "click", "click", "row", "time", "accident", "reset", "erase"]):
            case "click":
                events += 1
                click(driver, events, cookie=f"c{dice.randrange(3)}", login=dice.choice([*emails, None]))
            case "row":
                lsn += 1
                customer(driver, str(dice.randrange(3)), dice.choice([*emails, None]), lsn)
            case "time":
                driver.advance(dice.choice([timedelta(hours=2), timedelta(days=20)]))
            case "accident":
                dice.choice(ACCIDENTS)(driver)
            case "reset":
                driver.reset("customer@1")
            case "erase" if dice.random() < 0.3:
                who = f"cookie:c{dice.randrange(3)}"
                assert driver.erase(who) is not None
                forgotten.add(who)
            case _:
                pass
    driver.settle()
    for value in driver.topic("outer.outside.firm_of.questions"):
        pair, at = (value["subject"], value["labels"][0]), value["at"]
        calls += 1
        assert pair not in due or at - due[pair] >= MONTH // timedelta(milliseconds=1)
        due[pair] = at
    assert len(far.asked) <= calls, "never more calls than questions"
    answers = [json.loads(value)["id"] for _, value in driver.read("outer.outside.firm_of") if value]
    assert len(set(answers)) == len(answers)
    assert in_clear(driver, emails) == set()
    driver.verify()


def test_what_is_no_identifier_of_anybody_is_asked_about_as_one_that_links_nobody(driver: TestDriver) -> None:
    """As the refusal of whole records says."""
    asked: list[str] = []
    app = App("places", partitions=2)
    app.identifier("crm", priority=1, unique=True)(CrmId)

    app.identifier("place", links=False, limit=None)(Place)

    @app.source("orders", subject="customer")
    class Order(Record):
        customer: CrmId
        place: Place

    @app.enrich(refresh=MONTH)
    async def score_of(place: Place) -> Score | None:
        asked.append(place)
        return Score(points=len(place))

    @app.projection("customer")
    class Points(Projection):
        points: int | None = newest(Score.points)

    with TestDriver(app, now=NOW) as t:
        for n, place in enumerate(("Rome", "Rome", "Oslo 1", *(f"Town {n}" for n in range(7)))):
            t.send("orders", "k", {"customer": str(min(n, 3)), "place": place}, partition=0)
        assert [t.profile(f"crm:{n}").points for n in range(4)] == [4, 4, 6, 6], "and four customers"
        assert sorted(asked) == ["Oslo 1", "Rome", *(f"Town {n}" for n in range(7))]
        t.verify()


def test_each_of_a_list_is_asked_about_unless_there_are_too_many(driver: TestDriver) -> None:
    asked: list[str] = []
    app = App("lists", partitions=2)
    app.identifier("crm", priority=1, unique=True)(CrmId)
    app.identifier("email", normalize=normalize.email, personal=True)(Email)

    @app.source("letters", subject="sender")
    class Letter(Record):
        sender: CrmId
        to: list[Email]

    @app.enrich(refresh=MONTH)
    async def points_of(email: Email) -> Score | None:
        asked.append(email)
        return Score(points=len(asked))

    @app.projection("customer")
    class Points(Projection):
        points: int | None = newest(Score.points)

    with TestDriver(app, now=NOW) as t:
        t.send("letters", "k", {"sender": "7", "to": ["a@mail.org", "B@mail.org", "a@mail.org", "nobody"]})
        t.send("letters", "k", {"sender": "8", "to": [f"p{n}@mail.org" for n in range(100)]})
        t.settle()
        assert sorted(asked) == ["a@mail.org", "b@mail.org"]
        t.verify()


# ------------------------------------------------------------------------------------------------------ who agrees later
def scored(t: TestDriver) -> list[dict[str, Any]]:
    """Questions about cookies."""
    found: list[dict[str, Any]] = t.topic("outer.outside.score_of.questions")
    return found


def noted(t: TestDriver) -> set[str]:
    """Subjects of whom something is kept until they agree."""
    held = dict(t.read("outer.outside.score_of.changelog"))
    return {key[1:].split(b"\0")[0].decode() for key, value in held.items() if key and value and key.startswith(b"w")}


def test_who_agrees_is_asked_about_at_once(driver: TestDriver) -> None:
    scores.said["c1"] = Score(points=7)
    for n, cookie in enumerate(("c1", "c2", "c3")):
        click(driver, n, cookie=cookie, login=None)
    assert driver.profile("cookie:c1").points is None
    assert noted(driver) == {"cookie:c1", "cookie:c2", "cookie:c3"}
    choose(driver, granted=True, cookie="c1")
    assert driver.profile("cookie:c1").points == 7
    assert scores.asked == ["c1"], "and nobody else"
    first, again = [q for q in scored(driver) if q["subject"] == "cookie:c1"]
    assert again == {**first, "again": 1}
    assert noted(driver) == {"cookie:c2", "cookie:c3"}
    driver.now_ms += 1
    choose(driver, granted=True, cookie="c1")
    driver.settle()
    assert scores.asked == ["c1"], "a second yes asks nothing"
    driver.verify()


def test_who_agrees_by_another_identifier_of_the_record_is_asked_about(driver: TestDriver) -> None:
    scores.said["c1"] = Score(points=7)
    click(driver, 1, login="ann@mail.org")
    driver.settle()
    choose(driver, granted=True, email="ann@mail.org")
    assert driver.profile("cookie:c1").points == 7
    driver.verify()


def test_a_refusal_that_stands_beside_a_yes_keeps_it_back_until_it_is_taken_back(driver: TestDriver) -> None:
    scores.said["c1"] = Score(points=7)
    choose(driver, granted=False, email="ann@mail.org")
    driver.settle()
    click(driver, 1, login="ann@mail.org")
    choose(driver, granted=True, cookie="c1")
    driver.settle()
    assert scores.asked == []
    driver.now_ms += 1
    choose(driver, granted=True, email="ann@mail.org")
    assert driver.profile("cookie:c1").points == 7
    driver.verify()


@pytest.mark.parametrize("accident", ACCIDENTS)
@pytest.mark.parametrize("settled", [True, False])
def test_no_accident_loses_who_waits_or_asks_twice(driver: TestDriver, accident: Accident, *, settled: bool) -> None:
    scores.said |= {"c1": Score(points=1), "c2": Score(points=2)}
    click(driver, 1, cookie="c1", login=None)
    click(driver, 2, cookie="c2", login=None)
    if settled:
        driver.settle()
    accident(driver)
    driver.settle()
    choose(driver, granted=True, cookie="c1")
    if settled:
        driver.settle()
    accident(driver)
    choose(driver, granted=True, cookie="c2")
    accident(driver)
    assert [driver.profile(f"cookie:{c}").points for c in ("c1", "c2")] == [1, 2]
    assert sorted(scores.asked) == ["c1", "c2"]
    assert sorted(q.get("again", 0) for q in scored(driver)) == [0, 0, 1, 1]
    driver.verify()


def test_a_reset_asks_nobody_who_waits(driver: TestDriver) -> None:
    click(driver, 1, login=None)
    driver.settle()
    for agent in ("customer@1", "identity@1"):
        driver.reset(agent)
    driver.settle()
    assert (scores.asked, len(scored(driver))) == ([], 1)
    choose(driver, granted=True, cookie="c1")
    driver.settle()
    assert scores.asked == ["c1"]
    driver.verify()


def test_what_was_withheld_once_and_said_twice_is_asked_once(driver: TestDriver) -> None:
    """The caller is killed between saying it and committing its position: another says it again."""
    click(driver, 1, login=None)
    driver.settle()
    topic = "outer.outside.score_of.withheld"
    ((key, value),) = driver.read(topic)
    choose(driver, granted=True, cookie="c1")
    driver.settle()
    driver.producer.produce(topic, key, value)
    driver.producer.flush()
    driver.settle()
    assert scores.asked == ["c1"]
    assert len(scored(driver)) == 2
    driver.verify()


def test_of_a_newer_question_the_older_one_is_not_asked(driver: TestDriver) -> None:
    click(driver, 1, login=None)
    driver.settle()
    driver.advance(MONTH)
    click(driver, 2, login=None)
    driver.settle()
    assert len(scored(driver)) == 2
    choose(driver, granted=True, cookie="c1")
    driver.settle()
    assert scores.asked == ["c1"]
    assert scored(driver)[-1]["at"] == max(q["at"] for q in scored(driver))
    driver.verify()


def test_after_refresh_nothing_is_kept_of_who_never_agreed(driver: TestDriver) -> None:
    click(driver, 1, login=None)
    driver.settle()
    assert noted(driver) == {"cookie:c1"}
    driver.advance(MONTH)
    driver.settle()
    assert noted(driver) == set()
    choose(driver, granted=True, cookie="c1")
    driver.settle()
    assert scores.asked == []
    click(driver, 2, login=None)
    driver.settle()
    assert scores.asked == ["c1"], "the next record asks"
    driver.verify()


def test_who_withdraws_before_the_call_waits_again(driver: TestDriver) -> None:
    scores.said["c1"] = Score(points=7)

    def refuse(value: str) -> None:
        if len(scores.asked) == 1:
            driver.now_ms += 1
            choose(driver, granted=False, cookie="c1")
            for _ in range(20):
                driver._turn_all()
            raise RuntimeError

    scores.trouble = refuse
    click(driver, 1, login=None)
    driver.settle()
    choose(driver, granted=True, cookie="c1")
    driver.settle()
    assert (scores.asked, noted(driver)) == (["c1"], {"cookie:c1"})
    driver.now_ms += 1
    choose(driver, granted=True, cookie="c1")
    assert driver.profile("cookie:c1").points == 7
    assert [q.get("again", 0) for q in scored(driver)] == [0, 1, 2]
    driver.verify()


def test_who_is_forgotten_is_not_kept_nor_asked_about_when_they_agree(driver: TestDriver) -> None:
    for n, cookie in enumerate(("c1", "c2")):
        click(driver, n, cookie=cookie, login=None)
    driver.settle()
    late = dict(driver.read("outer.outside.score_of.withheld"))[b"cookie:c1"]
    assert driver.erase("cookie:c1") is not None
    assert noted(driver) == {"cookie:c2"}
    driver.producer.produce("outer.outside.score_of.withheld", b"cookie:c1", late)
    driver.producer.flush()
    driver.settle()
    assert noted(driver) == {"cookie:c2"}
    driver.now_ms += 1
    choose(driver, granted=True, cookie="c1")
    driver.settle()
    assert scores.asked == []
    driver.verify()


def test_who_is_named_by_anothers_question_is_not_kept_when_they_are_forgotten(driver: TestDriver) -> None:
    for n in range(4):
        click(driver, n, cookie=f"c{n}", login="ann@mail.org" if n < 3 else "eve@mail.org")
    driver.settle()
    assert noted(driver) == {f"cookie:c{n}" for n in range(4)}
    assert driver.erase("email:ann@mail.org") is not None
    driver.settle()
    assert noted(driver) == {"cookie:c3"}
    held = dict(driver.read("outer.outside.score_of.changelog"))
    kept = [key for key, value in held.items() if key and value is not None]
    assert sorted(key[:1] for key in kept if key[:1] in b"wit") == [b"i", b"i", b"t", b"w"]
    driver.verify()


def test_a_refusal_that_ends_lets_it_be_asked(driver: TestDriver) -> None:
    """Nothing is decided then: a timer."""
    scores.said["c1"] = Score(points=7)
    choose(driver, granted=True, email="ann@mail.org")
    driver.settle()
    until = driver.now_ms + 3_600_000
    setting = consent.plan_setting(
        driver.plan, driver.cluster, "cookie:c1", "marketing", "denied", expires_at=until, now_ms=driver.now_ms
    )
    said = consent.message(driver.plan, setting)
    driver.producer.produce(said.topic, said.key, said.value, said.partition)
    driver.producer.flush()
    driver.settle()
    click(driver, 1, login="ann@mail.org")
    driver.settle()
    assert scores.asked == []
    driver.advance(timedelta(hours=1))
    assert driver.profile("cookie:c1").points == 7
    driver.verify()


@pytest.mark.parametrize("wrong", ["lost", "doubled", "unexpected", "not asked"])
def test_verify_notices_what_waits_and_should_not_or_does_not(driver: TestDriver, wrong: str) -> None:
    for n, cookie in enumerate(("c1", "c2")):
        click(driver, n, cookie=cookie, login=None)
    driver.settle()
    if wrong == "not asked":
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(Withheld, "_due_by_name", lambda task, due: task.rest.clear())
            choose(driver, granted=True, cookie="c1")
            driver.settle()
    elif wrong in ("doubled", "unexpected"):
        choose(driver, granted=True, cookie="c1")
        driver.settle()
        topic = "outer.outside.score_of.questions"
        key, value = next((k, v) for k, v in driver.read(topic) if v and json.loads(v).get("again"))
        again = {**json.loads(value or b""), "again": 1 if wrong == "doubled" else 3}
        driver.producer.produce(topic, key, encode(again))
        driver.producer.flush()
    else:
        rows = [
            key for key, _ in driver.read("outer.outside.score_of.changelog") if key and key.startswith(b"wcookie:c2")
        ]
        partition = partition_of(b"cookie:c2", 2)
        driver.producer.produce("outer.outside.score_of.changelog", rows[0], None, partition)
        driver.producer.flush()
    report = verify(driver.plan, driver.cluster, ["outside.score_of"], vault=driver.vault, clock=driver._now)
    kinds = [example["kind"] for example in report.agents["outside.score_of"].examples]
    assert set(kinds) == {wrong}, report.to_text()
