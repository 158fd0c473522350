"""What is told of an agent is true, whoever tells it and whatever happens in between; and it is told, once there is peace."""

from __future__ import annotations

import inspect
import random
import textwrap
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from unittest.mock import patch

import msgspec
import pytest

from c360.engine.agent import Outbox, Task
from c360.engine.loop import Loop
from c360.engine.memory import MemoryCluster
from c360.engine.teller import QUESTIONS, Teller, Telling
from c360.engine.transport import TP, Admin, Batch, Cluster, Producer, TopicSpec
from c360.errors import BrokerAway, EngineFatal, Fenced, NeedsOperator, OutcomeUnknown, Shut
from c360.tables.store import MemoryStores
from c360.testing.faults import FaultyCluster, FaultyStores
from tests.engine.test_crash import SOMETIMES
from tests.engine.toy import OFTEN, Counting, Toy, World

APPENDED = {"message.timestamp.type": "LogAppendTime"}
FENCE = "toy.fence"
WORKERS = 2
STEPS = 400
SEEDS = 40


class Statement(NamedTuple):
    input: TP
    at_ms: int
    ends: dict[TP, int]


def encode(tp: TP, at_ms: int, ends: Sequence[tuple[TP, int]], of: str = "") -> tuple[bytes, bytes]:
    return f"{tp.topic}/{tp.partition}".encode(), msgspec.json.encode((tp, at_ms, ends))


class Echoing(Counting):
    """Says each record's value again, in a partition that the value decides."""

    toy: Echo

    def process(self, batch: Batch, out: Outbox) -> None:
        super().process(batch, out)
        for value in batch.values:
            out.send(self.toy.topic("echo"), value, value)


@dataclass
class Echo(Toy):
    shut: Callable[[], bool] = lambda: False

    def processor(self, task: Task) -> Echoing:
        return Echoing(self, self.clock)

    def gate(self) -> None:
        if self.shut():
            raise Shut("closed", "the door is closed; wait")

    def telling(self) -> Telling:
        outputs = [TP(self.topic("echo"), p) for p in range(3)]
        return Telling(self.topic("fence"), [self.topic("in"), self.topic("other")], outputs, encode)


@dataclass
class Ground:
    """A log with the echo's topics, and what was said on it."""

    ms: int = 1_700_000_000_000
    tick: Callable[[], int] = lambda: 0
    echo: Echo = field(default_factory=lambda: Echo(inputs=("in", "other")))

    def __post_init__(self) -> None:
        self.cluster = MemoryCluster(now_ms=self.now, quiet_s=0.0)
        echo = self.echo
        admin = self.cluster.admin()
        admin.create([TopicSpec(echo.topic(name), 3, APPENDED) for name in echo.inputs])
        admin.create([TopicSpec(echo.topic("echo"), 3), TopicSpec(FENCE, 1, APPENDED)])
        self.world = World(self.cluster, echo)
        self.producer = self.cluster.producer()
        self.fed = 0

    def now(self) -> int:
        self.ms += self.tick()
        return self.ms

    def say(self, producer: Producer, tp: TP) -> None:
        self.fed += 1
        producer.produce(tp.topic, f"k{self.fed % 5}-{tp.partition}".encode(), f"v{self.fed}".encode(), tp.partition)

    def feed(self, *tps: TP) -> None:
        for tp in tps or self.world.tps:
            self.say(self.producer, tp)
        self.producer.flush()

    def loop(self, **how: Any) -> Loop:
        return self.world.loop(MemoryStores(), **how)

    def teller(self, loop: Loop, cluster: Cluster | None = None, **more: Any) -> Teller:
        how: dict[str, Any] = {"every_s": 0.0, "pass_s": 0.0, "monotonic": lambda: self.ms / 1000} | more
        return Teller(
            self.echo.telling(), self.echo.group, loop.transactional_id, cluster or self.cluster, loop.standing, **how
        )

    def records(self, *tps: TP) -> Iterator[Row]:
        return records(self.cluster, tps)

    def statements(self) -> list[Statement]:
        return statements(self.cluster, self.echo)

    def check(self) -> None:
        check(self.cluster, self.echo, self.world.tps)


# -------------------------------------------------------------------------------------------------------- what there is
class Row(NamedTuple):
    tp: TP
    offset: int
    key: bytes | None
    value: bytes | None
    time_ms: int


def records(cluster: Cluster, tps: Sequence[TP]) -> Iterator[Row]:
    reader = cluster.reader()
    for batches in reader.read(reader.starts(tps)):
        for b in batches:
            yield from map(Row, [b.tp] * len(b), b.offsets, b.keys, b.values, b.times)
    reader.close()


def statements(cluster: Cluster, echo: Echo) -> list[Statement]:
    """All that were ever said."""
    found = []
    for row in records(cluster, [TP(echo.topic("fence"), 0)]):
        assert row.key is not None
        assert (row.value is None) == row.key.startswith(b"\0"), "a probe has no value, and a key of its own"
        if row.value is not None:
            tp, at_ms, ends = msgspec.json.decode(row.value, type=tuple[TP, int, list[tuple[TP, int]]])
            assert row.key == encode(tp, at_ms, ends)[0]
            found.append(Statement(tp, at_ms, dict(ends)))
    return found


def check(cluster: Cluster, echo: Echo, inputs: Sequence[TP]) -> None:
    """The slow way: each record that was appended before, one by one, in what was made of it."""
    made = {row.value: row for row in records(cluster, echo.telling().outputs)}
    appended: dict[TP, list[Row]] = {tp: [] for tp in inputs}
    for row in records(cluster, inputs):
        appended[row.tp].append(row)
    for said in statements(cluster, echo):
        for row in appended[said.input]:
            if row.time_ms < said.at_ms:
                echoed = made[row.value]
                assert echoed.offset < said.ends[echoed.tp], f"{said}: of {row.value!r} it is not so"


def told(ground: Ground) -> set[TP]:
    """Inputs of which it is told that all until now is done."""
    return {said.input for said in ground.statements() if said.at_ms >= ground.ms}


@pytest.fixture
def ground() -> Ground:
    return Ground()


# ============================================================================================================== stories
def test_an_idle_agent_is_told_of_with_one_probe_and_a_statement_for_each_input(ground: Ground) -> None:
    loop = ground.loop()
    ground.world.until(lambda: len(loop.standing()) == 6, loop)
    teller = ground.teller(loop)
    for n in range(1, 4):
        ground.ms += 250
        teller.turn()
        assert told(ground) == set(ground.world.tps)
        assert len(list(ground.records(TP(FENCE, 0)))) == 7 * n
    assert not teller.waiting
    assert teller.said.statements == 18
    assert all(set(said.ends) == set(ground.echo.telling().outputs) for said in ground.statements())


def test_nothing_is_told_of_a_record_that_is_read_but_not_committed(ground: Ground) -> None:
    shut = True
    ground.echo.shut = lambda: shut
    loop = ground.loop()
    ground.world.until(lambda: len(loop.standing()) == 6, loop)
    ground.feed(ground.world.tps[0])
    ground.ms += 1
    teller = ground.teller(loop)
    for _ in range(30):
        loop.turn(0.0)
        teller.turn()
    assert told(ground) == set(ground.world.tps[1:])
    assert teller.waiting
    shut = False
    ground.world.until(ground.world.idle, loop)
    teller.turn()
    assert told(ground) == set(ground.world.tps)
    ground.check()


def test_what_only_marks_and_aborted_records_are_behind_is_told(ground: Ground) -> None:
    loop = ground.loop()
    teller, tp = ground.teller(loop), ground.world.tps[0]
    producer = ground.cluster.producer("raw")
    for commit in (False, True, False):
        producer.begin()
        ground.say(producer, tp)
        producer.commit() if commit else producer.abort()
    ground.world.until(lambda: ground.world.group().get(tp), loop)
    end = ground.world.ends([tp])[tp]
    assert ground.world.group()[tp] < end - 1
    for _ in range(3):
        ground.ms += 1
        teller.turn()
        assert tp in told(ground)
    assert teller._inputs[tp].passed == (ground.world.group()[tp], end), "it is looked at once"
    ground.feed(tp)
    ground.ms += 1
    teller.turn()
    assert tp not in told(ground)
    ground.world.until(ground.world.idle, loop)
    teller.turn()
    assert tp in told(ground)
    ground.check()


def test_while_a_transaction_is_open_on_an_input_nothing_later_is_told_of_it(ground: Ground) -> None:
    loop = ground.loop()
    teller, tp = ground.teller(loop), ground.world.tps[0]
    producer = ground.cluster.producer("raw")
    producer.begin()
    ground.say(producer, tp)
    ground.ms += 1
    for commit in (None, True):
        if commit:
            producer.commit()
        for _ in range(10):
            loop.turn(0.0)
            teller.turn()
        assert (tp in told(ground)) == bool(commit)
    assert told(ground) == set(ground.world.tps)
    ground.check()


def test_far_behind_it_asks_seldom_and_forgets_no_question_that_it_asked_first(ground: Ground) -> None:
    looks: list[str] = []
    loop = ground.loop()
    ground.world.until(lambda: len(loop.standing()) == 6, loop)
    teller, tp = ground.teller(loop, pass_s=0.05, every_s=0.25), ground.world.tps[0]
    ground.feed(tp)
    begun = ground.ms
    teller.cluster = FaultyCluster(ground.cluster, looks.append)
    while ground.ms < begun + 20_000:
        ground.ms += 20
        teller.turn()
    assert 20 <= Counter(looks)["before read"] < 27, "each second, in the long run"
    waiting = list(teller._inputs[tp].questions)
    assert len(waiting) == QUESTIONS
    assert waiting[0].at_ms == begun + 20
    assert tp not in {said.input for said in ground.statements()}
    ground.world.until(ground.world.idle, loop)
    teller.turn()
    assert [said.at_ms for said in ground.statements() if said.input == tp] == [waiting[-1].at_ms]
    ground.ms += 250
    teller.turn()
    assert told(ground) == set(ground.world.tps)


def test_a_raw_topic_that_was_made_anew_is_not_told_of(ground: Ground) -> None:
    loop = ground.loop()
    ground.feed()
    ground.feed()
    ground.world.until(ground.world.idle, loop)
    admin = ground.cluster.admin()
    admin.delete(["toy.in"])
    admin.create([TopicSpec("toy.in", 3, APPENDED)])
    ground.feed(*(tp for tp in ground.world.tps if tp.topic == "toy.in"))
    ground.ms += 1
    ground.teller(loop).turn()
    assert told(ground) == {tp for tp in ground.world.tps if tp.topic == "toy.other"}


def test_tasks_of_others_are_not_told_of(ground: Ground) -> None:
    first, second = ground.loop(slot="0"), ground.loop(slot="1")
    ground.world.until(lambda: len(first.standing()) == 4 and len(second.standing()) == 2, first, second)
    for loop in (first, second):
        ground.ms += 1
        ground.teller(loop).turn()
        assert told(ground) == set(loop.standing())


def test_a_topic_that_keeps_the_times_of_producers_is_refused(ground: Ground) -> None:
    ground.cluster.topics[FENCE].append_time = False
    loop = ground.loop()
    ground.world.until(lambda: loop.standing(), loop)
    with pytest.raises(NeedsOperator, match=r"toy\.fence.*LogAppendTime"):
        ground.teller(loop).turn()


@pytest.mark.parametrize("error", [BrokerAway, EngineFatal])
def test_without_a_broker_it_waits_and_goes_on_with_new_clients(
    ground: Ground, error: type[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    away = True
    made: list[str] = []

    def plan(step: str) -> BaseException | None:
        made.extend([step] * (step == "before producer"))
        return error("away") if away and step == "before flush" else None

    loop = ground.loop()
    ground.world.until(lambda: len(loop.standing()) == 6, loop)
    teller = ground.teller(loop, FaultyCluster(ground.cluster, plan))
    for _ in range(3):
        ground.ms += 250
        assert not teller.turn()
    assert teller.said.failures == len(made) == 3
    assert [record.getMessage() for record in caplog.records] == [
        "toy.group: away; what is done is not told while it waits"
    ]
    away = False
    assert teller.turn()
    assert told(ground) == set(ground.world.tps)
    assert teller.trouble == ""


# ======================================================================================================= whatever happens
class Interrupted(FaultyCluster):
    """A cluster at which things happen also around a question for a group's offsets."""

    def admin(self) -> Admin:
        admin = super().admin()
        ask = admin.group_offsets

        def group_offsets(group: str) -> dict[TP, int]:
            self.step("before offsets")
            found = ask(group)
            self.step("after offsets")
            return found

        admin.group_offsets = group_offsets  # type: ignore[method-assign]
        return admin


@dataclass(eq=False)
class Process:
    slot: str
    loop: Loop
    teller: Teller
    alive: bool = True


class Schedule:
    """Workers, zombies, and producers whose transactions end as they like; between any two steps of a teller all may happen."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.ground = Ground(tick=lambda: self.dice.random() < 0.3)
        self.ground.echo.shut = lambda: not self.calm and self.dice.random() < 0.2
        self.disks = {str(n): MemoryStores() for n in range(WORKERS)}
        self.processes: dict[str, Process] = {}
        self.zombies: list[Process] = []
        self.raw = [self.ground.cluster.producer(f"raw-{n}") for n in range(2)]
        self.open = [False, False]
        self.calm = False
        self.inside = 0  # a teller's turn
        self.happened = Counter[str]()

    # ------------------------------------------------------------------------------------------------------ what happens
    def step(self) -> None:
        match self.dice.random():
            case x if x < 0.10:
                self.ground.feed(*self.dice.choices(self.ground.world.tps, k=self.dice.randint(1, 4)))
            case x if x < 0.20:
                self._transact(self.dice.randrange(len(self.raw)))
            case x if x < 0.205:
                self._end(self.dice.choice(list(self.disks)))
            case x if x < 0.21 and self.processes:
                self.happened["hung"] += 1
                self.ground.cluster.expire(self.dice.choice(list(self.processes.values())).loop.consumer)
            case x if x < 0.70:
                self._turn(self.dice.choice(list(self.disks)))
            case _:
                self._tell()

    def _transact(self, n: int) -> None:
        producer = self.raw[n]
        if not self.open[n]:
            producer.begin()
            self.open[n] = True
        for tp in self.dice.choices(self.ground.world.tps[:4], k=self.dice.randint(0, 2)):
            self.ground.say(producer, tp)
        if self.calm or self.dice.random() < 0.7:
            producer.commit() if self.dice.random() < 0.6 else producer.abort()
            self.open[n] = False

    def _end(self, slot: str) -> None:
        """The process dies, or it hangs and another takes its place: what it tells from then on is a zombie's."""
        if process := self.processes.pop(slot, None):
            self.happened["ended"] += 1
            self.ground.cluster.expire(process.loop.consumer)
            self.ground.cluster.producer(process.loop.transactional_id)  # its transaction times out
            self.zombies.append(process)
            if self.dice.random() < 0.3:
                self.disks[slot] = MemoryStores()

    def _turn(self, slot: str) -> None:
        process = self.processes.get(slot)
        if process is None:
            cluster = FaultyCluster(self.ground.cluster, self._plan_loop)
            disk, settings = FaultyStores(self.disks[slot], lambda _: None), self.dice.choice((OFTEN, SOMETIMES))
            loop = self.ground.world.loop(disk, slot=slot, cluster=cluster, settings=settings)
            telling = Interrupted(self.ground.cluster, self._plan_teller)
            every_s, pass_s = self.dice.choice((0.0, 0.02)), self.dice.choice((0.0, 0.01))
            teller = self.ground.teller(loop, telling, every_s=every_s, pass_s=pass_s)
            self.processes[slot] = Process(slot, loop, teller)
            return
        try:
            process.loop.turn(0.0)
        except Fenced:
            self._end(slot)
            return
        if process.loop.producer is None:
            self.ground.cluster.producer(process.loop.transactional_id)

    def _tell(self) -> None:
        those = [*self.processes.values(), *self.zombies[-3:]]
        if those and not self.inside:
            chosen = self.dice.choice(those)
            self.inside += 1
            self.happened["zombie told"] += chosen in self.zombies
            chosen.teller.turn()
            self.inside -= 1

    def _plan_loop(self, step: str) -> BaseException | None:
        if self.calm or self.dice.random() > 0.004 or step not in ("before commit", "after commit", "before produce"):
            return None
        return BrokerAway("injected") if step == "before produce" else OutcomeUnknown("injected")

    def _plan_teller(self, step: str) -> BaseException | None:
        """Between two of its steps others do theirs."""
        if self.calm:
            return None
        for _ in range(self.dice.choice((0, 0, 1, 6))):
            self.step()
        self.happened["within"] += 1
        return BrokerAway("injected") if self.dice.random() < 0.01 else None

    # ----------------------------------------------------------------------------------------------------------- the end
    def run(self) -> None:
        for _ in range(STEPS):
            self.step()
        self.calm = True
        for n in range(len(self.raw)):
            self._transact(n)
        self.ground.feed()
        ground, world = self.ground, self.ground.world
        for slot in self.disks:
            self._turn(slot)
        for _ in range(3_000):
            for slot in self.disks:
                self._turn(slot)
            if world.idle() or self._read():
                break
        else:
            raise AssertionError("it did not come to rest")
        before = ground.ms = ground.ms + 100
        for _ in range(300):
            ground.ms += 1
            for slot, process in self.processes.items():
                self._turn(slot)
                process.teller.turn()
            if {said.input for said in ground.statements() if said.at_ms >= before} == set(world.tps):
                break
        else:
            raise AssertionError("what is at rest is not told")
        ground.check()

    def _read(self) -> bool:
        """As `World.idle`, where inputs end with marks."""
        ground = self.ground
        committed = {tp: ground.world.group().get(tp, 0) for tp in ground.world.tps}
        return not any(offset >= committed[tp] for tp, offset, *_ in ground.records(*ground.world.tps))


def test_whatever_is_told_is_true_and_in_peace_everything_is_told() -> None:
    happened = Counter[str]()
    statements = 0
    for seed in range(SEEDS):
        schedule = Schedule(seed)
        try:
            schedule.run()
        except Exception as error:
            raise AssertionError(f"seed {seed}: {error}") from error
        happened += schedule.happened
        statements += len(schedule.ground.statements())
    assert statements > 20 * SEEDS
    assert min(happened[name] for name in ("ended", "hung", "zombie told", "within")) > SEEDS


class Change(NamedTuple):
    """A line of a function replaced."""

    owner: Any
    function: str
    old: str
    new: str


MUTANTS: Mapping[str, tuple[Change, ...]] = {
    "the ends of inputs are asked before the probe": (
        Change(Teller, "_probe", "at: list[int | None] = []",
               "at: list[int | None] = []; early = self._looker().ends(list(self._inputs))"),
        Change(Teller, "_probe", "self._looker().ends(list(self._inputs)).items()", "early.items()"),
    ),
    "the time is a later one": (Change(Teller, "_probe", "_Question(at[0], end)", "_Question(at[0] + 3, end)"),),
    "the ends of outputs are asked before the positions": (
        Change(Teller, "_reached", "positions = self._asker()",
               "self.early = self._looker().ends(self.telling.outputs); positions = self._asker()"),
        Change(Teller, "_say", "self._looker().ends(self.telling.outputs)", "self.early"),
    ),
    "an output is not looked at": (
        Change(Teller, "_say", "ends = sorted(self._looker().ends(self.telling.outputs).items())",
               "ends = [(tp, n * tp.partition) for tp, n in self._looker().ends(self.telling.outputs).items()]"),
    ),
    "what is read counts": (
        Change(Loop, "standing", "task.base", "task.next"),
        Change(Teller, "_reached", "self._asker().group_offsets(self.group)", "dict(standing)"),
    ),
    "records in between do not count": (Change(Teller, "_is_empty", "if batches or", "if"),),
    "more is passed than was looked at": (
        Change(Teller, "_passes", "known.passed = position, end", "known.passed = position, end + 2"),
    ),
    "nearly there is enough": (Change(Teller, "_done", "< question.end and", "< question.end - 1 and"),),
}  # fmt: skip


def mutated(changes: Sequence[Change]) -> ExitStack:
    """Those functions without a guard, until the stack is closed."""
    stack = ExitStack()
    for owner, name in {(change.owner, change.function) for change in changes}:
        function = getattr(owner, name)
        source = textwrap.dedent(inspect.getsource(function))
        for change in changes:
            if (change.owner, change.function) == (owner, name):
                assert source.count(change.old) == 1, f"{name} no longer has this once: {change.old}"
                source = source.replace(change.old, change.new)
        made: dict[str, Any] = {}
        exec(compile(source, "mutant", "exec"), function.__globals__, made)
        stack.enter_context(patch.object(owner, name, made[name]))
    return stack


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_guard_taken_away_is_noticed(mutant: str) -> None:
    with mutated(MUTANTS[mutant]):
        for seed in range(SEEDS):
            try:
                Schedule(seed).run()
            except AssertionError as error:
                if "it is not so" in str(error):
                    return
                raise
    raise AssertionError(f"nobody noticed: {mutant}")
