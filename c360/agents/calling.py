"""outside: the calls. A question in, an answer or a dead letter out; at least once, and the answer has the question's name.

    question ──► may it be asked now? ──► breaker, rate ──► and still? ──► call ──► answer
                    no: withheld (`agents.withheld`)          failed: wait, ever longer; at last a dead letter

Nothing is decided on what was true when the question was written: consent, suppression and the fence are asked right before
each call, as doors do, and an identifier is opened then and not before. While that cannot be told, questions wait.

Knows no Kafka, no thread and no clock: who hosts it gives questions, time, randomness and a way to sleep.
"""

from __future__ import annotations

import asyncio
import base64
import traceback
from collections import Counter, OrderedDict, deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import msgspec

from c360.agents.fencing import INPUTS_S, Fence, shut_by, staters_of
from c360.agents.opening import Opening
from c360.agents.sealing import SealedValue
from c360.agents.wire import (
    GOVERNED_BYTES,
    Answer,
    MisfitRecord,
    Question,
    decode_json,
    decode_question,
    encode,
)
from c360.agents.withheld import Decided
from c360.clock import Clock
from c360.engine.global_table import GlobalTable
from c360.engine.transport import TP
from c360.errors import BrokerAway, Shut
from c360.governance.names import Vault
from c360.governance.purposes import Purpose
from c360.governance.sealing import DataKey, Destroyed, is_sealed, read_sealed
from c360.identity.namespace import Namespace
from c360.outside import Outside
from c360.plan import Plan, sealed_of

T = TypeVar("T")
SHUT_S = 0.2  # between two questions whether something may leave
LOOK_S = 1.0  # the longest that is slept before it is looked again
AGAIN_S, AGAIN_MOST_S = 0.5, 60.0  # after a first failure, and at most
FAILURES, OPEN_S, OPEN_MOST_S = 5, 5.0, 300.0  # of a breaker
REMEMBERED_MS, REMEMBERED = 3_600_000, 10_000
NOBODY = Purpose("outside", "contract")  # of an app that declares no purposes

WITHHELD: Mapping[str, str] = {
    "suppressed": "it is about somebody who is forgotten",
    "erased": "what it asks about can be read by nobody any more",
    "unsealed": "it was written before its identifier was personal, so there is no key to seal the answer with",
    "not-an-identifier": "what it asks about identifies nobody by the declaration of today",
}
"""Why a question is not asked, beside what people decided (`c360.governance.consent`): that comes back when they agree."""
FAILED: Mapping[str, str] = {
    "timed-out": "the function took longer than timeout=",
    "raised": "the function raised an error; the dead letter says where",
    "not-an-answer": "the function gave something that is not of the type it is annotated with",
    "too-large": f"an answer is larger than {GOVERNED_BYTES} bytes",
    "not-a-question": "a record of the questions topic is none",
}
"""Why a question was put aside: it is asked again when it is due again."""


# -------------------------------------------------------------------------------------------------- how calls are made
class Breaker:
    """closed ──FAILURES in a row──► open ──after a while──► one call ──success──► closed
    ▲                                                            └──failure──► open, twice as long

    Seconds are any clock's that only goes forward.
    """

    def __init__(self, failures: int = FAILURES, open_s: float = OPEN_S, most_s: float = OPEN_MOST_S) -> None:
        self.failures, self.first_s, self.most_s = failures, open_s, most_s
        self.row = 0  # failures in a row
        self.open_s = open_s  # how long it opens next
        self.until_s: float | None = None  # open until then; None: closed
        self.trying = False  # the one call is under way

    @property
    def is_open(self) -> bool:
        return self.until_s is not None

    def wait_s(self, now_s: float) -> float:
        """How long to wait before asking again; 0: call now, and say what became of it."""
        if self.until_s is None:
            return 0.0
        if self.trying:
            return SHUT_S
        return max(0.0, self.until_s - now_s)

    def begin(self) -> None:
        """A call is made."""
        self.trying = self.until_s is not None

    def succeeded(self) -> None:
        self.row, self.until_s, self.trying, self.open_s = 0, None, False, self.first_s

    def failed(self, now_s: float) -> None:
        self.row += 1
        if self.trying or (self.until_s is None and self.row >= self.failures):
            self.until_s, self.trying = now_s + self.open_s, False
            self.open_s = min(2 * self.open_s, self.most_s)

    def gave_up(self) -> None:
        """A call was not finished, and says nothing."""
        self.trying = False


class Limiter:
    """So many calls a second, evenly; None: no limit."""

    def __init__(self, rate: float | None) -> None:
        self.every_s = 0.0 if rate is None else 1 / rate
        self.next_s = 0.0

    def wait_s(self, now_s: float) -> float:
        """How long to wait; the call that is made then is counted."""
        at = max(now_s, self.next_s)
        self.next_s = at + self.every_s
        return at - now_s


def again_s(failures: int, random: Callable[[], float]) -> float:
    """How long to wait after so many failures of a question: twice as long each time, less up to half by chance."""
    return float(min(AGAIN_MOST_S, AGAIN_S * 2 ** min(failures - 1, 30)) * (0.5 + random() / 2))


class Remembered:
    """What was answered lately, by identifier: subjects who have one in common are answered by one call. In memory only."""

    def __init__(self, keep_ms: int, most: int = REMEMBERED) -> None:
        self.keep_ms, self.most = keep_ms, most
        self.known: OrderedDict[str, tuple[int, bytes | None]] = OrderedDict()

    def get(self, label: str, now_ms: int) -> tuple[bytes | None] | None:
        found = self.known.get(label)
        if found is None or not 0 <= now_ms - found[0] < self.keep_ms:
            return None
        return (found[1],)

    def put(self, label: str, now_ms: int, answer: bytes | None) -> None:
        self.known[label] = now_ms, answer
        self.known.move_to_end(label)
        if len(self.known) > self.most:
            self.known.popitem(last=False)

    def forget(self, label: str) -> None:
        self.known.pop(label, None)


class InOrder:
    """Questions of partitions, done with in any order: how far all are done with, of each."""

    def __init__(self) -> None:
        self.taken: dict[Any, deque[list[Any]]] = {}  # by partition: [offset, whether it is done with], as they came

    def take(self, tp: Any, offset: int) -> Callable[[], tuple[int, int]]:
        """To be called when it is done with: the offset to go on from, and how many that is done with by now."""
        entry: list[Any] = [offset, False]
        taken = self.taken.setdefault(tp, deque())
        taken.append(entry)

        def done() -> tuple[int, int]:
            entry[1] = True
            upto, count = -1, 0
            while taken and taken[0][1]:
                upto, count = max(upto, taken.popleft()[0] + 1), count + 1
            return upto, count

        return done


# ------------------------------------------------------------------------------------------------------- may it be asked
class Allowed(NamedTuple):
    """`value`: what it asks about, in clear; `key`: that it was sealed with."""

    value: str
    key: DataKey | None


class Permit:
    """What may be asked now. Used by one thread."""

    def __init__(
        self,
        plan: Plan,
        outside: Outside,
        governance: GlobalTable | None,
        vault: Vault | None,
        *,
        clock: Clock,
        partitions: Callable[[], Mapping[str, int]],
        fence_max_age_ms: int = 1000,
        inputs_s: float = INPUTS_S,
    ) -> None:
        """`governance`, `vault`: of an app that has something to ask them. `partitions`: of each topic at the broker."""
        self.plan, self.governance, self.clock = plan, governance, clock
        self.purpose = outside.purpose or NOBODY
        self.namespace: Namespace = plan.identifiers[outside.kind]
        self.decided = Decided(plan, self.purpose, governance, vault)
        self.opening = Opening(plan, governance, vault)
        self.seals = bool(sealed_of(plan, plan.source_of(outside.record)))
        self.fields = {
            f"{c.declared.name}.{name}{'[]' if many else ''}"
            for c in plan.carriers(outside)
            for name, _, many in c.fields
        }
        self.fence: Fence | None = None
        if governance is not None and staters_of(plan, self.purpose):
            self.fence = Fence(
                plan, self.purpose, governance, partitions, max_age_ms=fence_max_age_ms, inputs_s=inputs_s
            )

    def look(self, question: Question) -> Allowed | str:
        """Or why it is not asked. Raises Shut, BrokerAway while that cannot be told."""
        now = self.clock()
        if self.fence is not None and not (answer := self.fence.held(now)).deliver:
            raise shut_by(answer)
        if self.decided.suppressed(question):
            return "suppressed"
        if not (found := self.decided.verdict(question, now)).allowed:
            return found.reason
        return self._opened(question)

    def _opened(self, question: Question) -> Allowed | str:
        said, key = question.value, None
        if is_sealed(said):
            sealed = read_sealed(said)
            self.opening.have([(sealed.subject, sealed.key_id)])
            try:
                said = decode_json(self.opening.open(said, (question.subject,), self.fields))
            except Destroyed:
                return "erased"
            key = self.opening.key(question.value)
        elif self.seals:
            return "unsealed"
        value = self.namespace.normalize(str(said))
        return "not-an-identifier" if value is None else Allowed(value, key)


# ----------------------------------------------------------------------------------------------------------------- calls
@dataclass
class CallCounters:
    """For metrics, of one process. A question that comes again counts again."""

    asked: int = 0  # questions that came
    calls: int = 0
    answered: int = 0
    nothing: int = 0  # answers that are None
    remembered: int = 0  # answers without a call
    retries: int = 0
    waiting: int = 0  # questions at hand that are neither answered nor put aside
    withheld: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    shut: Counter[str] = field(default_factory=Counter)


class Message(NamedTuple):
    """What is to be written."""

    topic: str
    key: bytes | None
    value: bytes


class Place(NamedTuple):
    """Where a question lies."""

    tp: TP
    offset: int
    time: int


class _Failed(Exception):
    """A call did not bring an answer. `final`: it would not the next time."""

    def __init__(self, reason: str, said: str, places: str | None = None, *, final: bool = False) -> None:
        super().__init__(said)
        self.reason, self.places, self.final = reason, places, final


class Caller:
    """Of one outside enrichment, in one process."""

    def __init__(
        self,
        plan: Plan,
        outside: Outside,
        look: Callable[[Question], Awaitable[Allowed | str]],
        *,
        clock: Clock,
        seconds: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
        random: Callable[[], float],
        breaker: Breaker | None = None,
    ) -> None:
        """`look`: as `Permit.look`. `clock`: epoch ms; `seconds`: a clock that only goes forward; `random`: 0 to 1."""
        self.plan, self.outside, self.look = plan, outside, look
        self.clock, self.seconds, self.sleep, self.random = clock, seconds, sleep, random
        self.breaker = breaker or Breaker()
        self.limiter = Limiter(outside.limits.rate)
        self.counters = CallCounters()
        self.seals = bool(sealed_of(plan, plan.source_of(outside.record)))
        self.topic, self.withheld = plan.answers(outside), plan.withheld(outside)
        self.checked = msgspec.json.Decoder(outside.record).decode
        refresh_ms = int(outside.refresh.total_seconds() * 1000)
        self.memory = Remembered(min(REMEMBERED_MS, refresh_ms))
        self.turns: dict[str, tuple[asyncio.Lock, int]] = {}  # by identifier, with how many wait for it

    async def handle(self, data: bytes, place: Place) -> list[Message]:
        """What is to be written for a question before it is done with. Waits as long as it takes."""
        counters = self.counters
        counters.asked += 1
        try:
            question = decode_question(data)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return [self._letter(data, place, _Failed("not-a-question", FAILED["not-a-question"]))]
        counters.waiting += 1
        try:
            return await self._in_turn(question.labels[0], lambda: self._answer(question, data, place))
        finally:
            counters.waiting -= 1

    async def _in_turn(self, label: str, work: Callable[[], Awaitable[T]]) -> T:
        """One at a time for one identifier, in the order they came."""
        lock, waiting = self.turns.get(label, (asyncio.Lock(), 0))
        self.turns[label] = lock, waiting + 1
        try:
            async with lock:
                return await work()
        finally:
            lock, waiting = self.turns[label]
            if waiting == 1:
                del self.turns[label]
            else:
                self.turns[label] = lock, waiting - 1

    async def _answer(self, question: Question, data: bytes, place: Place) -> list[Message]:
        failures = 0
        while True:
            try:
                found = await self._try(question)
            except _Failed as failed:
                failures += 1
                if failed.final or failures > self.outside.limits.retries:
                    return [self._letter(data, place, failed)]
                self.counters.retries += 1
                await self.sleep(again_s(failures, self.random))
                continue
            if isinstance(found, str):
                self.counters.withheld[found] += 1
                if found in ("suppressed", "erased"):
                    self.memory.forget(question.labels[0])
                if self.outside.waits and found not in WITHHELD:
                    return [Message(self.withheld, question.subject.encode(), data)]
                return []
            answer, key = found
            self.counters.answered += 1
            if answer is None:
                self.counters.nothing += 1
                return []
            return [Message(self.topic, question.subject.encode(), self._said(question, answer, key))]

    async def _try(self, question: Question) -> str | tuple[bytes | None, DataKey | None]:
        """An answer, or why it is not asked. Raises _Failed."""
        allowed = await self._may(question)
        if isinstance(allowed, str):
            return allowed
        if (known := self.memory.get(question.labels[0], self.clock())) is not None:
            self.counters.remembered += 1
            return known[0], allowed.key
        await self._free()
        try:
            allowed = await self._may(question)  # right before it leaves
        except BaseException:
            self.breaker.gave_up()
            raise
        if isinstance(allowed, str):
            self.breaker.gave_up()
            return allowed
        answer = await self._call(allowed.value)
        self.memory.put(question.labels[0], self.clock(), answer)
        return answer, allowed.key

    async def _may(self, question: Question) -> Allowed | str:
        while True:
            try:
                return await self.look(question)
            except Shut as shut:
                self.counters.shut[shut.reason] += 1
            except BrokerAway:
                self.counters.shut["copy"] += 1
            await self.sleep(SHUT_S)

    async def _free(self) -> None:
        """Until the breaker and the rate let a call through, which is made then."""
        while wait_s := self.breaker.wait_s(self.seconds()):
            await self.sleep(min(wait_s, LOOK_S))
        self.breaker.begin()
        if wait_s := self.limiter.wait_s(self.seconds()):
            await self.sleep(wait_s)

    async def _call(self, value: str) -> bytes | None:
        """The function's answer as JSON. Whatever it raises, its text stays here: it may hold what a customer sent."""
        self.counters.calls += 1
        try:
            said = await asyncio.wait_for(
                self.outside.function(self.outside.kind(value)), self.outside.limits.timeout_s
            )
        except TimeoutError:
            self.breaker.failed(self.seconds())
            raise _Failed("timed-out", f"@app.enrich {self.outside.name} took longer than timeout=") from None
        except Exception as error:
            self.breaker.failed(self.seconds())
            places = "".join(traceback.format_tb(error.__traceback__))[-8000:]
            raise _Failed("raised", f"@app.enrich {self.outside.name} raised {type(error).__name__}", places) from None
        except BaseException:
            self.breaker.gave_up()
            raise
        self.breaker.succeeded()
        return None if said is None else self._json(said)

    def _json(self, said: Any) -> bytes:
        name, record = self.outside.name, self.outside.record
        if not isinstance(said, record):
            wrong = f"@app.enrich {name} gave a {type(said).__name__}, not a {record.__name__} or None"
            raise _Failed("not-an-answer", wrong, final=True)
        try:
            data = encode(said)
            self.checked(data)
        except Exception as error:  # fields of a record are not looked at when it is made
            wrong = f"@app.enrich {name} gave a {record.__name__} with a field of another type ({type(error).__name__})"
            raise _Failed("not-an-answer", wrong, final=True) from None
        if len(data) > GOVERNED_BYTES:
            raise _Failed("too-large", f"@app.enrich {name}: {FAILED['too-large']}", final=True)
        return data

    def _said(self, question: Question, answer: bytes, key: DataKey | None) -> bytes:
        if self.seals:
            assert key is not None, "the permit saw to that"
            answer = encode(SealedValue(key.seal(self.outside.agent, answer), key.subject))
        return encode(Answer(id=question.id, record=msgspec.Raw(answer), life=question.life))

    def _letter(self, data: bytes, place: Place, failed: _Failed) -> Message:
        self.counters.failed[failed.reason] += 1
        said = MisfitRecord(
            stage=self.outside.agent,
            topic=place.tp.topic,
            partition=place.tp.partition,
            offset=place.offset,
            timestamp=place.time,
            reason=failed.reason,
            error=str(failed),
            value=base64.b64encode(data).decode(),
            size=len(data),
            traceback=failed.places,
        )
        return Message(self.plan.dlq, None, encode(said))
