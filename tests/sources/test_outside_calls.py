"""How outside functions are called: breaker, rate, waiting, turns; and what may be declared. No Kafka, no clock."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from c360 import App, Personal, Projection, Record, newest
from c360.agents.calling import (
    AGAIN_MOST_S,
    REMEMBERED_MS,
    Allowed,
    Breaker,
    Caller,
    InOrder,
    Limiter,
    Message,
    Place,
    Remembered,
    again_s,
)
from c360.agents.wire import Answer, Question, decode_answer, decode_misfit, encode
from c360.engine.transport import TP
from c360.errors import BrokerAway, DeclarationError, Shut
from c360.outside import Outside

MONTH = timedelta(days=30)


# ------------------------------------------------------------------------------------------------------- small machines
def test_a_breaker_opens_after_failures_in_a_row_and_lets_one_call_try() -> None:
    breaker = Breaker(failures=3, open_s=5.0, most_s=15.0)
    for now in (0.0, 1.0):
        breaker.failed(now)
    breaker.succeeded()
    for now in (2.0, 3.0):
        breaker.failed(now)
    assert not breaker.is_open, "a success in between begins the row anew"
    breaker.failed(4.0)
    assert breaker.is_open
    assert breaker.wait_s(4.0) == 5.0
    assert breaker.wait_s(9.0) == 0.0
    breaker.begin()
    assert breaker.wait_s(9.0) > 0, "one at a time"
    breaker.failed(9.5)
    assert breaker.wait_s(9.5) == 10.0, "twice as long"
    breaker.begin()
    breaker.failed(20.0)
    assert breaker.wait_s(20.0) == 15.0, "but not longer than that"
    breaker.begin()
    breaker.succeeded()
    assert not breaker.is_open
    assert breaker.wait_s(20.0) == 0.0
    for now in (21.0, 22.0, 23.0):
        breaker.failed(now)
    assert breaker.wait_s(23.0) == 5.0, "and begins with the first length again"


def test_a_call_that_was_given_up_lets_another_try() -> None:
    breaker = Breaker(failures=1, open_s=1.0)
    breaker.failed(0.0)
    breaker.begin()
    breaker.gave_up()
    assert breaker.wait_s(1.0) == 0.0


def test_calls_that_began_before_it_opened_do_not_open_it_longer() -> None:
    breaker = Breaker(failures=1, open_s=1.0)
    breaker.failed(0.0)
    breaker.failed(0.5)
    assert breaker.wait_s(0.5) == 0.5


def test_a_rate_spreads_calls_evenly_and_saves_none_up() -> None:
    limiter = Limiter(2.0)
    assert [limiter.wait_s(0.0) for _ in range(3)] == [0.0, 0.5, 1.0]
    assert [limiter.wait_s(100.0) for _ in range(2)] == [0.0, 0.5]
    assert [Limiter(None).wait_s(0.0) for _ in range(3)] == [0.0, 0.0, 0.0]


def test_waiting_doubles_up_to_a_bound_and_differs_by_chance() -> None:
    assert [again_s(n, lambda: 1.0) for n in (1, 2, 3)] == [0.5, 1.0, 2.0]
    assert again_s(3, lambda: 0.0) == 1.0
    assert again_s(10_000, lambda: 1.0) == AGAIN_MOST_S


def test_a_position_is_behind_all_that_is_done_with_in_whatever_order() -> None:
    order = InOrder()
    done = {n: order.take("p0", n) for n in (3, 5, 6, 9)}
    other = order.take("p1", 1)
    assert done[5]() == (-1, 0)
    assert other() == (2, 1)
    assert done[3]() == (6, 2), "what lies between is the marks of transactions"
    assert done[9]() == (-1, 0)
    assert done[6]() == (10, 2)


def test_what_comes_again_is_not_waited_for_by_what_was_done_before() -> None:
    order = InOrder()
    first = order.take("p0", 7)
    again = order.take("p0", 7)
    assert again() == (-1, 0)
    assert first() == (8, 2)


def test_what_is_remembered_ends_and_is_bounded() -> None:
    known = Remembered(1_000, most=2)
    known.put("a", 0, b"1")
    known.put("b", 0, None)
    assert (known.get("a", 999), known.get("b", 999), known.get("a", 1_000)) == ((b"1",), (None,), None)
    known.put("c", 500, b"3")
    assert known.get("a", 500) is None, "the oldest goes"
    assert known.get("c", 400) is None, "a clock that was set back"


# --------------------------------------------------------------------------------------------------------------- calling
class CrmId(str): ...


class Score(Record):
    points: int


Function = Callable[[CrmId], Coroutine[Any, Any, Score | None]]


def an_app(function: Function, **limits: Any) -> App:
    app = App("calls", partitions=1)
    app.identifier("crm")(CrmId)

    @app.source("clicks", subject="customer")
    class Click(Record):
        customer: CrmId

    app.enrich(refresh=MONTH, **limits)(function)
    return app


class Stage:
    """A caller with a clock that only its sleeps move, and what it may ask."""

    def __init__(self, function: Function, *, breaker: Breaker | None = None, **limits: Any) -> None:
        plan = an_app(function, **limits).plan()
        self.outside: Outside = plan.outsides[0]
        self.now, self.slept = 0.0, list[float]()
        self.shut: list[Exception] = []
        self.refused: str | None = None
        self.looks = 0
        self.caller = Caller(
            plan, self.outside, self.look, clock=lambda: int(self.now * 1000), seconds=lambda: self.now, sleep=self.sleep,
            random=lambda: 1.0, breaker=breaker,
        )  # fmt: skip

    async def look(self, question: Question) -> Allowed | str:
        self.looks += 1
        if self.shut:
            raise self.shut.pop()
        return self.refused or Allowed(question.labels[0].partition(":")[2], None)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)

    async def ask(self, value: str, n: int = 0) -> list[Message]:
        label = f"crm:{value}"
        question = Question(id=f"q{n}", subject=label, labels=[label], value=value, at=n)
        return await self.caller.handle(
            encode(question), Place(TP(self.caller.plan.questions(self.caller.outside), 0), n, 0)
        )


def answer_in(messages: list[Message]) -> tuple[Answer, Any]:
    (message,) = messages
    said = decode_answer(message.value)
    return said, msgspec.json.decode(said.record)


def test_an_answer_goes_to_its_subject_with_the_name_of_its_question() -> None:
    async def score_of(customer: CrmId) -> Score | None:
        assert type(customer) is CrmId
        return Score(points=int(customer))

    stage = Stage(score_of)
    (message,) = asyncio.run(stage.ask("7"))
    assert (message.topic, message.key) == ("calls.outside.score_of", b"crm:7")
    said, record = answer_in([message])
    assert (said.id, record) == ("q0", {"points": 7})


def test_a_function_that_takes_too_long_is_stopped_and_called_again() -> None:
    calls = []

    async def score_of(customer: CrmId) -> Score | None:
        calls.append(customer)
        await asyncio.sleep(60)
        return None

    stage = Stage(score_of, timeout=timedelta(milliseconds=5), retries=2)
    (letter,) = asyncio.run(stage.ask("7"))
    assert decode_misfit(letter.value).reason == "timed-out"
    assert len(calls) == 3
    assert stage.slept == [0.5, 1.0], "twice as long each time"
    assert stage.caller.counters.failed == {"timed-out": 1}
    assert stage.caller.counters.waiting == 0


def test_while_nobody_can_tell_whether_it_may_be_asked_it_waits() -> None:
    async def score_of(customer: CrmId) -> Score | None:
        return Score(points=1)

    stage = Stage(score_of)
    stage.shut = [Shut("old", "the fence"), BrokerAway("the copy")]
    assert len(asyncio.run(stage.ask("7"))) == 1
    assert stage.caller.counters.shut == {"old": 1, "copy": 1}
    assert stage.caller.counters.calls == 1


def test_it_is_looked_again_right_before_the_call() -> None:
    async def score_of(customer: CrmId) -> Score | None:
        raise AssertionError("never called")

    stage = Stage(score_of, rate=0.1)
    stage.caller.limiter.wait_s(0.0)
    sleep = stage.sleep

    async def sleep_and_refuse(seconds: float) -> None:
        stage.refused = "withdrawn"
        await sleep(seconds)

    stage.caller.sleep = sleep_and_refuse
    assert asyncio.run(stage.ask("7")) == []
    assert stage.slept == [10.0]
    assert stage.caller.counters.withheld == {"withdrawn": 1}


def test_while_the_breaker_is_open_questions_wait_and_are_asked_later() -> None:
    down = True
    calls = []

    async def score_of(customer: CrmId) -> Score | None:
        calls.append(str(customer))
        if down:
            raise OSError("away")
        return Score(points=1)

    stage = Stage(score_of, breaker=Breaker(failures=2, open_s=100.0), retries=0)

    async def run() -> list[list[Message]]:
        nonlocal down
        first = [await stage.ask("1"), await stage.ask("2")]
        assert stage.caller.breaker.is_open
        down = False
        return [*first, *(await asyncio.gather(*(stage.ask(str(n)) for n in range(3, 8))))]

    found = asyncio.run(run())
    assert [m[0].topic for m in found] == ["calls.dlq"] * 2 + ["calls.outside.score_of"] * 5
    assert stage.now >= 100.0, "nothing was called while it was open"
    assert calls[:3] == ["1", "2", "3"]
    assert not stage.caller.breaker.is_open


def test_questions_of_one_identifier_are_asked_in_their_order_and_others_beside() -> None:
    log: list[str] = []

    async def score_of(customer: CrmId) -> Score | None:
        log.append(f"{customer}>")
        for _ in range(3):
            await asyncio.sleep(0)
        log.append(f"<{customer}")
        return Score(points=1)

    stage = Stage(score_of)
    stage.caller.memory = Remembered(0)

    async def run() -> list[list[Message]]:
        return [*(await asyncio.gather(stage.ask("1", 1), stage.ask("1", 2), stage.ask("2", 3)))]

    found = asyncio.run(run())
    assert [answer_in(m)[0].id for m in found] == ["q1", "q2", "q3"]
    assert log == ["1>", "2>", "<1", "<2", "1>", "<1"]
    assert stage.caller.turns == {}


def test_what_was_answered_lately_is_not_asked_again_but_only_for_so_long() -> None:
    calls = []

    async def score_of(customer: CrmId) -> Score | None:
        calls.append(customer)
        return Score(points=len(calls))

    stage = Stage(score_of)
    assert [answer_in(asyncio.run(stage.ask("7", n)))[1] for n in range(2)] == [{"points": 1}] * 2
    stage.now += REMEMBERED_MS / 1000
    assert answer_in(asyncio.run(stage.ask("7", 3)))[1] == {"points": 2}
    assert (len(calls), stage.caller.counters.remembered) == (2, 1)


def test_an_error_says_nothing_that_a_customer_sent() -> None:
    async def score_of(customer: CrmId) -> Score | None:
        raise ValueError(f"no such customer {customer}")

    stage = Stage(score_of, retries=0)
    (letter,) = asyncio.run(stage.ask("secret-7"))
    said = decode_misfit(letter.value)
    assert said.error == "@app.enrich score_of raised ValueError"
    assert "secret-7" not in (said.traceback or "")
    assert "raise ValueError" in (said.traceback or "")


def test_a_record_that_is_no_question_is_put_aside() -> None:
    async def score_of(customer: CrmId) -> Score | None:
        return None

    stage = Stage(score_of)
    (letter,) = asyncio.run(stage.caller.handle(b"{}", Place(TP("q", 0), 3, 5)))
    said = decode_misfit(letter.value)
    assert (said.reason, said.topic, said.offset) == ("not-a-question", "q", 3)


# ------------------------------------------------------------------------------------------------------------- declaring
class Email(str): ...


class Firm(Record):
    owner: Personal[str]


def declaring() -> App:
    app = App("said", partitions=1)
    app.identifier("crm")(CrmId)
    return app


async def good(customer: CrmId) -> Score | None: ...


async def of_email(email: Email) -> Score | None: ...


async def of_text(text: str) -> Score | None: ...


async def of_two(a: CrmId, b: CrmId) -> Score | None: ...


async def of_record(score: Score) -> Firm | None: ...


async def gives_text(customer: CrmId) -> str | None: ...


async def gives_firm(customer: CrmId) -> Firm | None: ...


def plain(customer: CrmId) -> Score | None: ...


@pytest.mark.parametrize(
    ("function", "said", "why"),
    [
        (plain, {}, r"plain: write `async def plain\(email: Email\)"),
        (of_email, {}, r"of_email: email is Email, which is no identifier; annotate it"),
        (of_text, {}, r"of_text: text is str, which is no identifier"),
        (of_two, {}, r"of_two: takes one identifier"),
        (
            of_record,
            {},
            r"of_record: score is Score, a whole record; .*links=False, limit=None.*async def of_record\(place: Place\)",
        ),
        (gives_text, {}, r"gives_text: returns .*; annotate a record type or None"),
        (good, {"refresh": timedelta(0)}, r"good: refresh= is after how long"),
        (good, {"refresh": 30}, r"good: refresh= is after how long"),
        (good, {"timeout": timedelta(0)}, r"good: timeout="),
        (good, {"retries": -1}, r"good: retries=-1"),
        (good, {"rate": 0}, r"good: rate=0"),
        (good, {"concurrency": 0}, r"good: concurrency=0"),
        (good, {"purpose": "service"}, r"good: purposes= takes what app\.purpose"),
        (good, {"since": datetime(2026, 1, 1, tzinfo=UTC)}, r"since= and refresh= do not go together"),
    ],
)
def test_what_is_wrong_is_refused_with_the_name_that_was_written(function: Any, said: Any, why: str) -> None:
    enrich: Any = declaring().enrich
    with pytest.raises(DeclarationError, match=why):
        enrich(**{"refresh": MONTH, **said})(function)


def test_an_async_function_of_a_record_is_told_the_other_form() -> None:
    app = declaring()

    @app.source("clicks", subject="customer")
    class Click(Record):
        customer: CrmId

    enrich: Any = app.enrich
    with pytest.raises(DeclarationError, match=r"@app\.enrich\(refresh=timedelta\(days=30\)\)"):
        enrich(Click)(good)
    with pytest.raises(DeclarationError, match="says neither a record type nor refresh="):
        enrich()


def test_a_second_one_of_a_name_and_a_record_that_is_read_elsewhere_are_refused() -> None:
    app = declaring()
    app.enrich(refresh=MONTH)(good)
    with pytest.raises(DeclarationError, match="of this name is declared already"):
        app.enrich(refresh=MONTH)(good)

    async def other(customer: CrmId) -> Score | None: ...

    with pytest.raises(DeclarationError, match="Score is already read from"):
        app.enrich(refresh=MONTH)(other)


def test_what_would_never_be_asked_is_refused() -> None:
    app = declaring()
    app.enrich(refresh=MONTH)(good)
    with pytest.raises(DeclarationError, match="good: no source has a field of type CrmId, so it would never be asked"):
        app.plan()


def a_source(app: App, **said: Any) -> None:
    @app.source("clicks", subject="customer", **said)
    class Click(Record):
        customer: CrmId


def test_it_is_asked_for_a_purpose_and_of_sources_that_allow_it() -> None:
    app = declaring()
    service = app.purpose("service", basis="contract")
    a_source(app)
    app.enrich(refresh=MONTH, purpose=service)(good)
    with pytest.raises(DeclarationError, match=r"no source that may be used for 'service' \(purposes=\) has a field"):
        app.plan()
    app = declaring()
    app.purpose("service", basis="contract")
    a_source(app)
    app.enrich(refresh=MONTH)(good)
    with pytest.raises(DeclarationError, match="what is it asked for\\? Say purpose="):
        app.plan()


def test_nothing_is_asked_out_of_a_region_unless_that_is_said() -> None:
    app = declaring()
    a_source(app, region="eu")
    app.enrich(refresh=MONTH)(good)
    with pytest.raises(DeclarationError, match="must stay in region 'eu'"):
        app.plan()
    app = declaring()
    a_source(app, region="eu")
    app.enrich(refresh=MONTH, region="eu")(good)
    assert app.plan().source_of(Score).region == "eu"


def test_a_personal_answer_needs_a_question_with_a_key() -> None:
    app = declaring()
    a_source(app)
    app.enrich(refresh=MONTH)(gives_firm)
    with pytest.raises(
        DeclarationError, match=r"Firm\.owner is personal, .*personal=True on @app\.identifier of CrmId"
    ):
        app.plan()


def test_the_plan_names_what_there_is() -> None:
    app = declaring()
    a_source(app)
    app.enrich(refresh=MONTH)(good)

    @app.projection("customer")
    class Profile(Projection):
        points: int | None = newest(Score.points)

    plan = app.plan()
    roles = {t.name: (t.role, t.partitions) for t in plan.topics if "outside" in t.name}
    assert roles == {
        "said.outside.good": ("answers", 1),
        "said.outside.good.changelog": ("changelog", 1),
        "said.outside.good.questions": ("questions", 1),
        "said.replay.outside.good": ("replay", 1),
        "said.govern.v1.outside.good.changelog": ("changelog", 1),
        "said.governed.outside.good.v1": ("governed", 1),
    }
    agent = plan.agent("outside.good")
    assert agent.reads == ("said.governed.clicks.v1",)
    assert agent.writes == ("said.outside.good.questions", "said.dlq")
    assert all(topic.owned for topic in plan.topics if topic.name.startswith("said."))
