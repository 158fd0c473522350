"""Tells how far an agent is, in broker time: all that was appended to this input before B is in these outputs below those ends.

Who copies the outputs can then know that it holds everything up to B, and from when on it cannot know any more. The end of the
output alone would say nothing: an agent that stands still writes no more.

One thread beside the agent's loop, with clients of its own; `turn` is one round:

    1 probe     a record without a value on the topic of statements. B: when the broker appended it, by the broker's clock
    2 ask       where the inputs of running tasks end (high watermarks, open transactions included)
    3 wait      until the group's committed positions have reached those ends, or nothing but marks of transactions and
                aborted records is between
    4 say       where the outputs end, and write it down: a statement for each input

Why no statement is ever false. Let r be a record of an input, appended before B.

* The probe was acknowledged before 2 asked, so r lies below the end that 2 found. (A leader that has just been elected does not
  answer before its high watermark has caught up: KIP-207.)
* 3 looks at the positions that the *group coordinator* has, not at what a loop believes. A position is there only when the
  transaction that moved it is decided; everything that was made of the records below it is in that transaction or in earlier
  ones, and was acknowledged before the decision. The same is asked for *after* that, in 4: it lies below those ends.
* What 3 passes over is no record to anybody who reads committed ones, and never becomes one.

Nothing of it rests on who owns the partition. Ownership (`standing`) only says who is to tell, so that not all do. A zombie, a
process that hung between any two steps, a worker whose partition has just moved: each of them tells of positions that were
committed when it looked, and asks for the ends after it looked. Positions do not go back, so what it says is old, but true; and
where an older statement replaces a newer one, readers wait a moment more.

Positions do go back in `c360 reset`, which empties what an agent has made. It refuses to work while the group has members; a
process that hung in 4 since before is left, with the moment between its last look and its next step. Raw topics that are
deleted and made anew are noticed when they end below the position. Brokers' clocks count as one: who uses statements must
allow for how far they differ.

An output topic that is deleted and created again begins at 0, without what was said before. Its agent writes that again, and
notes the topic's id in the transaction in which it is through; until then nothing is told, and what is told says which topic
it is about, as who copies it may still have the other.

Idle, a round costs one probe and one statement per input in one request each, three questions for offsets, and one for an id.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Event
from typing import Any, NamedTuple, Protocol, runtime_checkable

from c360.engine.transport import TP, Admin, Cluster, Producer, Reader
from c360.errors import BrokerAway, C360Error, EngineFatal, NeedsOperator, OutOfLog

log = logging.getLogger("c360.engine")

EVERY_S = 0.25  # between two probes
LOOK_S = 0.02  # between two looks at whether positions have come far enough
PASS_S = 0.05  # before a first look at what lies between: usually the loop commits within that time
PASS_MOST_S = 1.0  # between two such looks, each of which may read a fetch in vain, at most
PASS_TAKES = 4  # times PASS_S: one of them; an open transaction does not end sooner for it
ACK_S = 5.0  # a broker that has not acknowledged a record by then is away
AWAY_S = 0.5
QUESTIONS = 8  # of one input that wait at a time: an agent that is far behind has nothing to say that anybody could use

Encode = Callable[[TP, int, Sequence[tuple[TP, int]], str], tuple[bytes, bytes]]
"""Key and value of a statement: of the input, the broker time in ms, the end of each output, the id of their topic."""


@dataclass(frozen=True)
class Telling:
    """What is told of an agent. `inputs`: raw topics, those of its inputs that nobody of ours writes.

    `topic`: of the statements; it keeps times of append, and has probes as well: keys that begin with a zero byte, without a
    value. `outputs`: all partitions that a record may lead to one in.
    `note`: under it the agent's task notes the id of the outputs' topic, once all that it ever said is in there; where another
    topic has the name by now, nothing is told. "": the outputs' topic is not looked at, its id is "" in statements.
    """

    topic: str
    inputs: Collection[str]
    outputs: Sequence[TP]
    encode: Encode
    note: str = ""


@runtime_checkable
class Told(Protocol):
    """An agent of which it is told how far it is."""

    def telling(self) -> Telling: ...


@dataclass
class Said:
    """For metrics."""

    statements: int = 0
    failures: int = 0


class _Question(NamedTuple):
    """Whether everything below `end` is done; then everything before `at_ms` is."""

    at_ms: int
    end: int


@dataclass
class _Input:
    """One input. Behind `passed[0]` there is no record up to `passed[1]`."""

    questions: list[_Question] = field(default_factory=list)  # oldest first
    passed: tuple[int, int] = (0, 0)
    look_at: float = 0.0
    pause_s: float = 0.0

    def far(self, position: int) -> int:
        """How far one at this position has come."""
        start, upto = self.passed
        return max(position, upto) if start <= position else position


@dataclass(eq=False)
class Teller:
    """Of one agent in one process. `standing` and `noted`: what they give of a `Loop`, asked on this thread.

    `me`: of this process among those of the agent. The times are for callers that step it: all 0 for a look at each turn.
    """

    telling: Telling
    group: str
    me: str
    cluster: Cluster
    standing: Callable[[], Mapping[TP, int]]
    monotonic: Callable[[], float] = time.monotonic
    every_s: float = EVERY_S
    pass_s: float = PASS_S
    noted: Callable[[], Sequence[Mapping[str, Any]]] = tuple
    said: Said = field(default_factory=Said)
    trouble: str = ""

    def __post_init__(self) -> None:
        self._told = -math.inf
        self._odd: str | None = ""  # id of an outputs' topic that does not hold all
        self._asked = -math.inf
        self._inputs: dict[TP, _Input] = {}
        self._producer: Producer | None = None
        self._reader: Reader | None = None
        self._admin: Admin | None = None

    # =================================================================================================== one thread
    def run(self, stopped: Event) -> None:
        """Tell until told to stop. Raises what no retry in this process can mend."""
        try:
            while not stopped.is_set():
                stopped.wait(self._rest_s() if self.turn() else AWAY_S)
        finally:
            self.close()

    def ask(self) -> None:
        """Probe in the next turn, whatever the time."""
        self._asked = -math.inf

    def turn(self) -> bool:
        """One round. False when it could not get on and should be left alone for a while."""
        try:
            self._turn()
        except (BrokerAway, EngineFatal) as error:  # also of a record that was not written: another one will be
            self._failed(error)
            return False
        self.trouble = ""
        return True

    @property
    def waiting(self) -> bool:
        """Whether something that was asked is not answered yet."""
        return any(known.questions for known in self._inputs.values())

    def age(self) -> float:
        """Seconds since all that was asked was answered; inf while it never was, or nothing is here to be told of."""
        return self.monotonic() - self._told if self._inputs else math.inf

    def _rest_s(self) -> float:
        due_s = self.every_s if not self._inputs else max(0.0, self._asked + self.every_s - self.monotonic())
        return min(due_s, LOOK_S) if self.waiting else due_s

    def _turn(self) -> None:
        standing = {tp: n for tp, n in self.standing().items() if tp.topic in self.telling.inputs}
        self._inputs = {tp: self._inputs.get(tp) or _Input() for tp in standing}
        now = self.monotonic()
        if standing and now - self._asked >= self.every_s:
            self._asked = now
            self._probe(now)
        if reached := self._reached(standing, now):
            self._say(reached)

    # =========================================================================================================== steps
    def _probe(self, now: float) -> None:
        """1 and 2."""
        at: list[int | None] = []
        producer = self._writer()
        producer.produce(
            self.telling.topic, b"\0" + self.me.encode(), None, delivered=lambda _, appended_ms: at.append(appended_ms)
        )
        producer.flush(ACK_S)
        if not at:  # a repeated send was found to be there already, and when that was is not known
            return
        if at[0] is None:
            raise NeedsOperator(
                f"{self.telling.topic} does not keep when records are appended, which its statements are about; set its"
                " message.timestamp.type to LogAppendTime (`c360 doctor` shows what differs)"
            )
        for tp, end in self._looker().ends(list(self._inputs)).items():
            known = self._inputs[tp]
            if not known.questions:
                known.look_at, known.pause_s = now + self.pass_s, self.pass_s
            question = _Question(at[0], end)
            if len(known.questions) < QUESTIONS and question not in known.questions:
                known.questions.append(question)

    def _reached(self, standing: Mapping[TP, int], now: float) -> dict[TP, _Question]:
        """3: the newest question of each input that is answered, by what the group has committed."""
        likely = [tp for tp, n in standing.items() if self._likely(self._inputs[tp], n, now)]
        if not likely:
            return {}
        positions = self._asker().group_offsets(self.group)
        fresh = [tp for tp in likely if tp not in positions]
        if fresh:  # nothing of them is committed: all there is is to be read
            positions |= {tp: min(standing[tp], start) for tp, start in self._looker().starts(fresh).items()}
        ahead = [tp for tp in likely if positions[tp] > self._inputs[tp].questions[0].end]
        ends = self._looker().ends(ahead)
        reached = {}
        for tp in likely:
            position = positions[tp]
            if position > ends.get(tp, position):
                continue  # the topic was deleted and made anew; the loop will say so
            if done := self._done(tp, position, now):
                reached[tp] = done
        return reached

    def _likely(self, known: _Input, position: int, now: float) -> bool:
        """Whether it is worth asking for more than the loop says."""
        return bool(known.questions) and (known.far(position) >= known.questions[0].end or now >= known.look_at)

    def _done(self, tp: TP, position: int, now: float) -> _Question | None:
        known, done = self._inputs[tp], None
        for question in known.questions:
            if known.far(position) < question.end and not self._passes(tp, known, position, question.end, now):
                break
            done = question
        return done

    def _passes(self, tp: TP, known: _Input, position: int, end: int, now: float) -> bool:
        """Whether one at this position has nothing left to do up to there. Looks ever more seldom while that is not so."""
        if now < known.look_at:
            return False
        if self._is_empty(tp, known.far(position), end):
            known.passed = position, end
            return True
        known.look_at, known.pause_s = now + known.pause_s, min(2 * known.pause_s, PASS_MOST_S)
        return False

    def _is_empty(self, tp: TP, start: int, end: int) -> bool:
        """Whether there is no committed record between, and all that was begun there is decided."""
        deadline = time.monotonic() + PASS_TAKES * self.pass_s
        try:
            for batches in self._looker().read({tp: start}, {tp: end}):
                if batches or time.monotonic() >= deadline:
                    return False
        except OutOfLog:  # retention has cut it; the loop will say so
            return False
        return True

    def _say(self, reached: Mapping[TP, _Question]) -> None:
        """4."""
        ends = sorted(self._looker().ends(self.telling.outputs).items())
        if (topic_id := self._whole()) is None:
            return
        producer = self._writer()
        for tp, question in sorted(reached.items()):
            key, value = self.telling.encode(tp, question.at_ms, ends, topic_id)
            producer.produce(self.telling.topic, key, value)
        producer.flush(ACK_S)
        self.said.statements += len(reached)
        for tp, answered in reached.items():
            known = self._inputs[tp]
            known.questions = known.questions[known.questions.index(answered) + 1 :]
        if not self.waiting:
            self._told = self.monotonic()

    def _whole(self) -> str | None:
        """The id of the outputs' topic, if it holds all that the agent has ever said. Asked for after the ends: a topic that
        was deleted since had those, and one that has come in its place is another."""
        note = self.telling.note
        if not note:
            return ""
        (topic,) = {tp.topic for tp in self.telling.outputs}
        found = self._asker().topic_ids([topic]).get(topic)
        noted = self.noted()
        if found is None or not noted or any(said.get(note) != found for said in noted):
            if self._odd != found:
                log.info("%s: %s is new here; what is done is told when all that was said is in it", self.group, topic)
                self._odd = found
            return None
        return found

    # --------------------------------------------------------------------------------------------------------- clients
    def _writer(self) -> Producer:
        self._producer = self._producer or self.cluster.producer()
        return self._producer

    def _looker(self) -> Reader:
        self._reader = self._reader or self.cluster.reader()
        return self._reader

    def _asker(self) -> Admin:
        self._admin = self._admin or self.cluster.admin()
        return self._admin

    def _failed(self, error: C360Error) -> None:
        if str(error) != self.trouble:
            log.warning("%s: %s; what is done is not told while it waits", self.group, error)
        self.trouble = str(error)
        self.said.failures += 1
        self.close()

    def close(self) -> None:
        """Let go of the clients, which may never learn better after an error; the next turn makes new ones."""
        clients = (self._producer, self._reader, self._admin)
        self._producer = self._reader = self._admin = None
        for client in clients:
            if client is not None:
                client.close()
