"""What a forgotten customer leaves with others, or had once and has no more: by their claims, and by what they were called."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import pytest

from c360.agents.wire import Assignment, decode_assignment
from c360.engine.transport import TopicSpec
from c360.identity.facts import Claim, Fact
from c360.ops import erase
from c360.ops.identity.say import joining, separating, write
from c360.plan import CONFIGS
from c360.testing import TestDriver
from tests.governance.forget_shop import NOW, click, left, person, shop

Story = Callable[[TestDriver], None]


def mail(name: str) -> str:
    return f"email:{name}@mail.se"


def is_forgotten(driver: TestDriver, *labels: str) -> None:
    """In compacted topics and stores they are not there beyond the suppression, neither in clear nor as tokens."""
    assert driver.vault is not None
    tokens = [driver.vault.names.token(label) for label in labels if label.startswith("email:")]
    words = [*tokens, *(label for label in labels if not label.startswith("email:"))]
    its_own = {"forget.suppressed", "store governance", "forget.erasure.changelog", "store forget.erasure.v1/0"}
    passing = {topic.name for topic in driver.plan.topics if CONFIGS[topic.role].get("cleanup.policy") != "compact"}
    found = {name: hits for name, hits in left(driver, words).items() if name not in its_own | passing}
    assert not found, found


def said(driver: TestDriver, facts: Sequence[Fact], version: int, *, dead: bool = False) -> None:
    claim = Claim(version, dead=dead, first_seen=0 if dead else version)
    write(driver.plan, driver.cluster, [msgspec.structs.replace(f, claim=claim) for f in facts], reason="", actor="")
    driver.settle()


def assignment(driver: TestDriver, subject: str) -> Assignment:
    driver.settle()
    (identity,) = driver.plan.identities
    value = dict(driver.read(driver.plan.assignments(identity)))[subject.encode()]
    assert value is not None
    return decode_assignment(value)


# ------------------------------------------------------------------------------------------------- what others claim
def corrected(driver: TestDriver) -> None:
    person(driver, "pk7", "7", "Ada", "ada@mail.se")
    person(driver, "pk8", "8", "Bob", "ada@mail.se")
    driver.settle()
    person(driver, "pk8", "8", "Bob", "bob@mail.se", at=2, op="u")


def said_before_it_was_hers(driver: TestDriver) -> None:
    person(driver, "pk8", "8", "Bob", "ada@mail.se")
    driver.settle()
    person(driver, "pk8", "8", "Bob", "bob@mail.se", at=2, op="u")
    driver.settle()
    person(driver, "pk7", "7", "Ada", "ada@mail.se")


def a_cookie_that_says_nothing(driver: TestDriver) -> None:
    person(driver, "pk7", "7", "Ada", "ada@mail.se")
    click(driver, 1, "null", "ada@mail.se")


def a_crowd_that_has_left(driver: TestDriver) -> None:
    """More than lie in one row."""
    person(driver, "pk7", "7", "Ada", "ada@mail.se")
    for number in range(80):
        person(driver, f"x{number}", f"x{number}", "Bob", "ada@mail.se")
    driver.settle()
    for number in range(80):
        person(driver, f"x{number}", f"x{number}", "Bob", f"b{number}@mail.se", at=2, op="u")


@pytest.mark.parametrize(
    "story", [corrected, said_before_it_was_hers, a_cookie_that_says_nothing, a_crowd_that_has_left]
)
@pytest.mark.parametrize("rebuilt", [False, True])
def test_what_others_once_said_of_an_address_goes_with_it(story: Story, rebuilt: bool) -> None:
    with TestDriver(shop(), now=NOW) as driver:
        story(driver)
        driver.settle()
        if rebuilt:
            driver.reset("identity@1")
        assert driver.erase("crm:7") is not None
        is_forgotten(driver, "crm:7", mail("ada"))
        driver.reset("identity@1")
        is_forgotten(driver, "crm:7", mail("ada"))
        driver.verify()


def test_who_said_it_and_no_more_is_not_named_as_beside() -> None:
    with TestDriver(shop(), now=NOW) as driver:
        corrected(driver)
        driver.settle()
        certificate = driver.erase("crm:7")
        assert certificate is not None
        assert certificate.beside == ()
        assert driver.profile("crm:8").name == "Bob"


# ----------------------------------------------------------------------------------------------- what was hers once
def moved_to_another_address(driver: TestDriver) -> None:
    person(driver, "pk7", "7", "Ada", "old@mail.se")
    driver.settle()
    person(driver, "pk7", "7", "Ada", "ada@mail.se", at=2, op="u")


def more_addresses_than_join(driver: TestDriver) -> None:
    for number in range(8):
        person(driver, f"pk{number}", "7", "Ada", f"a{number}@mail.se", at=number + 1)
    person(driver, "pk9", "7", "Ada", "old@mail.se", at=9)


@pytest.mark.parametrize("story", [moved_to_another_address, more_addresses_than_join])
def test_an_address_that_nobody_else_names_goes_though_it_was_not_of_the_profile(story: Story) -> None:
    with TestDriver(shop(), now=NOW) as driver:
        story(driver)
        driver.settle()
        assert driver.erase("crm:7") is not None
        is_forgotten(driver, "crm:7", mail("old"), mail("ada"), *(mail(f"a{n}") for n in range(8)))
        driver.verify()


def test_it_is_not_suppressed_and_whoever_comes_with_it_next_is_as_any() -> None:
    with TestDriver(shop(), now=NOW) as driver:
        moved_to_another_address(driver)
        driver.settle()
        assert driver.erase("crm:7") is not None
        person(driver, "pk8", "8", "Bob", "old@mail.se", at=3)
        click(driver, 1, "c-bob", "old@mail.se")
        assert driver.profile("crm:8").clicks == 1
        driver.verify()
        assert driver.erase("crm:8") is not None
        is_forgotten(driver, "crm:7", "crm:8", "cookie:c-bob", mail("old"))


def test_an_address_that_somebody_else_names_stays_theirs() -> None:
    with TestDriver(shop(), now=NOW) as driver:
        moved_to_another_address(driver)
        click(driver, 1, "c-1", "old@mail.se")
        driver.settle()
        assert driver.erase("crm:7") is not None
        click(driver, 2, "c-2", "old@mail.se")
        record = driver.record("cookie:c-1")
        assert record is not None
        assert record["subjects"] == ["cookie:c-1", "cookie:c-2"]
        is_forgotten(driver, "crm:7", mail("ada"))
        driver.verify()


# ------------------------------------------------------------------------------------------------ what others were of
def left_her_profile(driver: TestDriver) -> None:
    click(driver, 1, "c-1", "old@mail.se")
    moved_to_another_address(driver)
    driver.settle()
    assert assignment(driver, "cookie:c-1").was == "crm:7"


def was_separated(driver: TestDriver) -> None:
    click(driver, 1, "c-1", "ada@mail.se")
    person(driver, "pk7", "7", "Ada", "ada@mail.se")
    driver.settle()
    said(driver, separating("cookie:c-1", "crm:7"), 5)
    assert assignment(driver, "cookie:c-1").profile == "cookie:c-1"


def was_separated_and_is_not(driver: TestDriver) -> None:
    """And is of another by now."""
    click(driver, 1, "c-1", "bob@mail.se")
    person(driver, "pk7", "7", "Ada", "ada@mail.se")
    driver.settle()
    said(driver, separating("cookie:c-1", "crm:7"), 5)
    said(driver, separating("cookie:c-1", "crm:7"), 6, dead=True)


def was_joined(driver: TestDriver) -> None:
    click(driver, 1, "c-1", "bob@mail.se")
    person(driver, "pk7", "7", "Ada", "ada@mail.se")
    driver.settle()
    said(driver, joining("cookie:c-1", "crm:7"), 5)
    said(driver, joining("cookie:c-1", "crm:7"), 6, dead=True)
    assert assignment(driver, "cookie:c-1").was == "crm:7"


@pytest.mark.parametrize("story", [left_her_profile, was_separated, was_separated_and_is_not, was_joined])
@pytest.mark.parametrize("accident", ["nothing", "reset", "crash", "lose_disk"])
def test_who_was_of_her_profile_says_so_no_more(story: Story, accident: str) -> None:
    with TestDriver(shop(), now=NOW) as driver:
        story(driver)
        driver.settle()
        if accident == "reset":
            driver.reset("identity@1")
        elif accident != "nothing":
            getattr(driver, accident)()
        before = assignment(driver, "cookie:c-1")
        clicks = driver.profile("cookie:c-1").clicks
        assert driver.erase("crm:7") is not None
        is_forgotten(driver, "crm:7", mail("ada"))
        after = assignment(driver, "cookie:c-1")
        assert (after.profile, after.was) == ("cookie:c-1", "cookie:c-1" if before.was == "crm:7" else before.was)
        assert driver.profile("cookie:c-1").clicks == clicks
        driver.reset("identity@1")
        is_forgotten(driver, "crm:7", mail("ada"))
        driver.verify()


def test_who_was_of_her_profile_and_is_forgotten_leaves_nothing_where_that_was_remembered() -> None:
    with TestDriver(shop(), now=NOW) as driver:
        left_her_profile(driver)
        assert driver.erase("cookie:c-1") is not None
        is_forgotten(driver, "cookie:c-1", mail("old"))
        assert driver.erase("crm:7") is not None
        is_forgotten(driver, "crm:7", "cookie:c-1", mail("ada"), mail("old"))


# ------------------------------------------------------------------------------------------------------ who comes back
def test_what_is_dropped_leaves_no_key_under_a_new_name() -> None:
    """Who is forgotten comes with a new cookie, and logs in: the cookie would be known by nothing but its data key."""
    with TestDriver(shop(), now=NOW) as driver:
        person(driver, "pk7", "7", "Ada", "ada@mail.se")
        driver.settle()
        assert driver.erase("crm:7") is not None
        click(driver, 1, "c-new", "ada@mail.se", "secret")
        person(driver, "pk9", "9", "Ada", "ada@mail.se", at=5)
        is_forgotten(driver, "crm:7", "cookie:c-new", "crm:9", mail("ada"))
        click(driver, 2, "c-new", None, "of somebody")
        assert driver.profile("cookie:c-new").text == "of somebody"


def test_forgotten_back_and_forgotten_again() -> None:
    with TestDriver(shop(), now=NOW) as driver:
        for life in (1, 2, 3):
            left_her_profile(driver) if life == 1 else person(driver, "pk7", "7", "Ada", "old@mail.se", at=10 * life)
            person(driver, "pk7", "7", "Ada", "ada@mail.se", at=10 * life + 1, op="u")
            driver.settle()
            certificate = driver.erase("crm:7")
            assert certificate is not None
            assert certificate.subjects[0].life == life
            is_forgotten(driver, "crm:7", mail("ada"))
            driver.lift(certificate)


# ------------------------------------------------------------------------------------------- what is declared no more
def test_the_check_looks_into_topics_of_what_the_app_declares_no_more() -> None:
    with TestDriver(shop(), now=NOW) as driver:
        person(driver, "pk7", "7", "Ada", "ada@mail.se")
        driver.settle()
        assert driver.erase("crm:7") is not None
        for name in (
            "forget.assignments.risk.v1",
            "forget.buyer.v1",
            "forget.buyer.v1.changelog",
            "forget.news",
            "other.links.v2",
        ):
            driver.cluster.admin().create([TopicSpec(name, 1)])
            driver.producer.produce(name, b"crm:7", b"{}", 0)
        driver.producer.flush()
        places = erase.check(driver.plan, driver.cluster, ["crm:7"], [], None, driver.now_ms)
        broken = {place.place: place.promise for place in places if not place.holds}
        assert broken.keys() == {"forget.assignments.risk.v1", "forget.buyer.v1", "forget.buyer.v1.changelog"}
        assert all("delete it" in promise for promise in broken.values())
