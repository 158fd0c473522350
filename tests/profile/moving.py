"""Moving between profiles, simulated from one seed: what the output holds in the end is what it means, byte for byte.

Production tasks of 1 to 12 partitions take what they like from their inputs, in any interleaving that keeps each pair of
sender and receiver in order; steps break and are thrown away; everything is reset. `python -m tests.profile.moving --runs N
--from S` runs seeds S to S + N - 1.
"""

from __future__ import annotations

import argparse
import sys
import traceback
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from random import Random
from typing import Any
from unittest.mock import patch

import msgspec

from c360.agents import projection
from c360.profile import home, rows
from c360.profile.attribute import Attribute
from c360.profile.format import digest_of
from c360.profile.parts import Assigned, Erased, decode_part
from c360.tables.store import MemoryStore
from tests.profile.moving_task import Broken, Day, Input, Outcome, Record, Rules, Task, Unassigned, rewound
from tests.profile.oracle import DAY, Item, Rule, Source, value_of

Inputs = tuple[tuple[Source, str], ...]
BOTH: Inputs = (("events", "n"), ("rows", "n"))
TEXTS: Inputs = (("events", "t"), ("rows", "t"))
IDS = Rule(Attribute("ids", "collect", "text", limit=1000), (("events", "id"), ("rows", "id")))
POOL = [
    Rule(Attribute("spend", "total", "int", scale=0), BOTH),
    Rule(Attribute("mean", "average", "int"), BOTH),
    Rule(Attribute("best", "maximum", "int"), BOTH),
    Rule(Attribute("least_month", "minimum", "int", within_days=2), BOTH[:1]),
    Rule(Attribute("last", "newest", "text"), TEXTS),
    Rule(Attribute("born", "first", "text"), TEXTS[:1]),
    Rule(Attribute("email", "prefer", "text"), TEXTS[::-1]),
    Rule(Attribute("pages", "top", "text", n=2, limit=2), TEXTS),
    Rule(Attribute("kinds", "distinct", "text", limit=2), TEXTS[:1]),
    Rule(Attribute("some", "collect", "text", limit=2, within_days=3), TEXTS),
    Rule(Attribute("spend_week", "total", "int", scale=0, within_days=3), BOTH),
    Rule(Attribute("clicks", "count", "int", within_days=1), BOTH),
]
TOPICS = ("events", "rows", "assignments", "erased", "days")
PURPOSES: Mapping[int, str | None] = {0: None, 1: "one", 2: "two"}  # view -> name; a view is the bits it needs
STEPS_MAX = 100_000


@lru_cache(maxsize=24)
def attributes(choice: int) -> list[Rule]:
    return [IDS, *Random(choice).sample(POOL, 4)]


# ---------------------------------------------------------------------------------------------------------- history
@dataclass
class History:
    """All that will ever be said, by topic, in the order of each subject; and how it is to be delivered."""

    rules: Rules
    topics: dict[str, list[Input]] = field(default_factory=lambda: {topic: [] for topic in TOPICS})

    def inputs(self) -> Iterator[Input]:
        for inputs in self.topics.values():
            yield from inputs

    def records(self) -> list[Record]:
        return [value for _, value in self.inputs() if isinstance(value, Record)]

    def today(self) -> int:
        return max((value.day for _, value in self.inputs() if isinstance(value, Day)), default=0)

    def lives(self) -> dict[str, int]:
        lives: dict[str, int] = defaultdict(int)
        for key, value in self.inputs():
            if isinstance(value, Record | Erased):
                lives[key] = max(lives[key], value.life)
        return lives

    def assigned(self) -> dict[str, Assigned]:
        last: dict[str, Assigned] = {}
        for key, value in self.topics["assignments"]:
            if isinstance(value, Unassigned):
                last.pop(key, None)
            elif key not in last or value.seq > last[key].seq:
                last[key] = value
        return last


def history_of(random: Random, *, partitions: int | None = None) -> History:
    rules = Rules(
        attributes(random.randrange(24)), partitions or random.choice((1, 2, 3, 4, 6, 12)), random.choice((2, 100))
    )
    history = History(rules)
    said = history.topics
    back_and_forth = random.random() < 0.3  # a few subjects that hardly do anything but move
    subjects = [f"s:{i}" for i in range(random.randint(1, 2 if back_and_forth else 8))]
    profiles = [*subjects[: random.choice((1, 2, 8))], *random.sample(("y:8", "z:9"), random.randrange(3))]
    lives: dict[str, int] = defaultdict(int)
    live: list[Record] = []
    nulls = random.random() < 0.3
    moving, erasures = 100 if back_and_forth else 4, random.choice((0, 0, 1, 3))
    seq = 0
    for n in range(random.choice((5, 20, 60))):
        subject = random.choice(subjects)
        match random.choices("erauxm", (6, 4, moving, 2, erasures, 1))[0]:
            case "e":
                _say(said["events"], Record(subject, _item(random, "events", subject, n), 1, lives[subject]))
            case "r":
                live.append(Record(subject, _item(random, "rows", subject, n), 1, lives[subject]))
                _say(said["rows"], live[-1])
            case "a":
                seq += 1
                ids = tuple(sorted(random.sample(("a@x", "b@x", "c@x", "d@x"), random.randint(0, 2))))
                said["assignments"].append((subject, Assigned(seq, random.choice(profiles), ids)))
                if random.random() < 0.2:
                    said["assignments"].append((subject, Unassigned() if nulls else Assigned(seq - 1, "s:0", ())))
            case "u" if live:  # a row is changed or deleted, perhaps now of another subject
                old = live.pop(random.randrange(len(live)))
                pair = [old._replace(sign=-1)]
                if random.random() < 0.7:
                    moved = random.choice((old.subject, subject))
                    live.append(Record(moved, _item(random, "rows", moved, n), 1, lives[moved]))
                    pair.insert(random.randrange(2), live[-1])
                for record in pair:
                    _say(said["rows"], record)
            case "m" if live:  # a retract before its add
                late = Record(subject, _item(random, "rows", subject, n), -1, lives[subject])
                _say(said["rows"], late)
                _say(said["rows"], late._replace(sign=1))
            case "x":
                lives[subject] += 1
                said["erased"].append((subject, Erased(lives[subject])))
            case _:
                pass
    for partition in range(rules.partitions):  # keyed so that each partition has its own
        key = next(k for k in (f"day{i}" for i in range(10_000)) if rules.partition(k) == partition)
        said["days"] += [(key, Day(day)) for day in range(random.choice((1, 7)))]
    last = history.today()
    said["days"] += [(key, Day(last)) for key in {key for key, _ in said["days"]}]
    return history


def _say(topic: list[Input], record: Record) -> None:
    topic.append((record.subject, record))


def _item(random: Random, source: Any, subject: str, n: int) -> Item:
    fields = {
        "id": f"{subject}#{n}",
        "n": random.choice((None, 1, 2, 2, 5, 9)),
        "t": random.choice((None, "a", "b", "c", "d", "é")),
    }
    return Item(source, random.randrange(6) * DAY + random.randrange(3), random.choice((0, 1, 3, 3)), fields)


# ----------------------------------------------------------------------------------------------------------- oracle
Records = dict[tuple[int, str], bytes]  # the output topics: (view, profile) -> record


def oracle(history: History, views: Iterable[int] = PURPOSES) -> Records:
    """What it means: all records of the last lives, at the last assignment, looked at as a whole."""
    rules, lives, assigned, today = history.rules, history.lives(), history.assigned(), history.today()
    members: dict[str, dict[str, list[Record]]] = defaultdict(lambda: defaultdict(list))
    for record in history.records():
        if record.life == lives[record.subject]:
            profile = assigned[record.subject].profile if record.subject in assigned else record.subject
            members[profile][record.subject].append(record)
    out: Records = {}
    for profile, of in members.items():
        for view in views:
            seen = {s: [r for r in records if r.item.mask & view == view] for s, records in of.items()}
            listed = sorted(s for s, records in seen.items() if sum(r.sign for r in records) > 0)
            if listed:
                labels = {i for s in listed for i in (s, *(assigned[s].identifiers if s in assigned else ()))}
                everything = [r for records in seen.values() for r in records]
                live = live_items(everything)
                out[view, profile] = rules.write(
                    profile,
                    listed[: rules.listed],
                    len(listed),
                    sorted(labels)[: rules.listed],
                    [value_of(rule, live, today) for rule in rules.rules],
                    max(r.item.at for r in everything),
                    purpose=PURPOSES[view],
                )
    return out


def written(rules: Rules, records: Records) -> Records:
    """The internal topic: of each profile the record of all, with what purposes see of it where that is another."""
    out: Records = {}
    for (view, profile), data in records.items():
        if view == 0:
            whole = msgspec.json.decode(data)
            views = {}
            for sight in rules.sights:
                found = records.get((sight.bit, profile))
                seen = None if found is None else msgspec.json.decode(found)
                if seen is None or _part(seen) != _part(whole):
                    views[sight.purpose] = seen and _part(seen, [rules.names[i] for i in sight.attributes])
            out[0, profile] = msgspec.json.encode(whole | ({"views": views} if views else {}))
    return out


def _part(record: dict[str, Any], attributes: Iterable[str] | None = None) -> dict[str, Any]:
    """What a purpose may see other than all."""
    part = {key: record[key] for key in ("subjects", "subjects_total", "identifiers", "attributes", "as_of")}
    return (
        part if attributes is None else part | {"attributes": {name: part["attributes"][name] for name in attributes}}
    )


def live_items(records: Iterable[Record]) -> list[Item]:
    live: dict[str, int] = Counter()
    items: dict[str, Item] = {}
    for record in records:
        text = repr(record.item)
        live[text] += record.sign
        items[text] = record.item
    return [item for text, item in items.items() for _ in range(live[text])]


# ------------------------------------------------------------------------------------------------------------ world
class Torn(AssertionError):
    pass


class Vanished(AssertionError):
    pass


class Seen(msgspec.Struct):
    """What the checks look at in a record."""

    subjects: list[str]
    subjects_total: int
    attributes: dict[str, Any]


class Checks:
    """G2 and G3, looked at from outside."""

    def __init__(self, rules: Rules, retracted: set[str]) -> None:
        self.rules, self.retracted = rules, retracted  # subjects of which records are taken back
        self.whole = True  # records have told all of their members; from one on that does not, nothing can be said
        self.moments: dict[str, set[frozenset[str]]] = defaultdict(lambda: {frozenset()})  # ids at commits of the home
        self.newest: dict[str, frozenset[str]] = {}
        self.shown: dict[str, set[str]] = defaultdict(set)  # subject -> profiles whose record lists it
        self.gone: set[str] = set()  # subjects that had no data at some commit, or were erased
        self.listed: dict[str, list[str]] = {}
        self.ids: dict[str, dict[str, set[str]]] = defaultdict(dict)  # profile -> subject -> what its record has of it
        self.puts: dict[tuple[str, str, int], frozenset[str]] = {}  # what was put by a move
        self.held: set[tuple[str, str, int]] = set()

    def committed(self, task: Task, outcome: Outcome) -> None:
        for key in task.news:
            fragment = task.state(key).fragment
            ids = self.rules.folding.values(fragment, task.today)[0] if fragment else []
            self.newest[key] = frozenset(ids)
            self.moments[key].add(self.newest[key])
            if task.life(key) or not self.rules.owner.member(fragment, ()).seen & 1:
                self.gone.add(key)
        for profile, record in outcome.records:
            if self.whole:
                self._record(profile, record)
        for profile, _ in outcome.records:
            if self.whole:
                self._never_vanishes(profile)
        for key in task.news:
            self._held_is_in_the_record(key, task.home(key))

    def _record(self, profile: str, data: bytes | None) -> None:
        record = Seen([], 0, {"ids": []}) if data is None else msgspec.json.decode(data, type=Seen)
        self.whole &= record.subjects_total == len(record.subjects)
        of: dict[str, set[str]] = {s: set() for s in record.subjects}
        for label in record.attributes["ids"]:
            of.setdefault(label.partition("#")[0], set()).add(label)
        for subject, ids in of.items():
            if frozenset(ids) not in self.moments[subject]:
                raise Torn(f"{profile} holds of {subject} what it never was: {ids}")
        self.ids[profile] = of
        before = set(self.listed.get(profile, ()))
        self.listed[profile] = [*before, *record.subjects]
        for subject in before - set(record.subjects):
            self.shown[subject].discard(profile)
        for subject in record.subjects:
            self.shown[subject].add(profile)

    def _held_is_in_the_record(self, subject: str, at: home.Home | None) -> None:
        """A place that counts as held shows what was put there, and news of it, unless there were retracts."""
        for profile, stay in at.places.items() if at is not None else ():
            move = subject, profile, stay.move
            if profile == subject or move in self.held:
                continue
            put = self.puts.setdefault(move, self.newest[subject])
            if stay.held:
                self.held.add(move)
                if (
                    self.whole
                    and subject not in self.gone | self.retracted
                    and not put <= self.ids[profile].get(subject, set())
                ):
                    raise Vanished(f"{profile} does not show what was put there of {subject}")

    def _never_vanishes(self, profile: str) -> None:
        for subject in self.listed[profile]:
            if not self.shown[subject] and subject not in self.gone:
                raise Vanished(f"{subject} is in no profile")


class World:
    """Tasks, what lies between them, and what they have written."""

    def __init__(self, history: History, random: Random, *, crash: float = 0.1, task: type[Task] = Task) -> None:
        self.history, self.rules, self.random, self.crash, self.make = history, history.rules, random, crash, task
        self.records: Records = {}
        self.parts_sent: Counter[str] = Counter()  # by message
        self.written = 0
        retracted = {r.subject for r in history.records() if r.sign < 0}
        self.checks: Checks | None = Checks(self.rules, retracted)
        self.reset(())

    # ---------------------------------------------------------------------------------------------------- life cycle
    def reset(self, first: Iterable[str]) -> None:
        """New tasks, all inputs from the start, `parts` from its end; `first`: topics that are read before others."""
        n = self.rules.partitions
        self.inputs: list[dict[str, deque[Input]]] = [defaultdict(deque) for _ in range(n)]
        self.pairs: list[dict[int, deque[Input]]] = [defaultdict(deque) for _ in range(n)]
        self.pace = {topic: self.random.choice((1, 1, 3, 20)) for topic in (*TOPICS, "parts")}
        for topic, inputs in self.history.topics.items():
            for key, value in inputs:
                self.inputs[self.rules.partition(key)][topic].append((key, value))
        if self.records:
            self.checks = None
            self.stores = [rewound(self.rules, self._ends(i), self._digests(i)) for i in range(n)]
        else:
            self.stores = [MemoryStore() for _ in range(n)]
        self.tasks = [self.make(self.rules, i, store) for i, store in enumerate(self.stores)]
        for topic in first:
            self.drain(topic)

    def _ends(self, i: int) -> dict[str, int]:
        return {f"{topic}/{i}": len(said) for topic, said in self.inputs[i].items() if said and topic != "erased"}

    def _digests(self, partition: int) -> Mapping[str, bytes]:
        return {
            profile: digest_of(record)
            for (_, profile), record in self.records.items()
            if self.rules.partition(profile) == partition
        }

    # --------------------------------------------------------------------------------------------------------- steps
    def run(self, until: float = 1.0) -> None:
        """Until nothing is on its way, or a part of the steps that this may take at most."""
        for _ in range(int(STEPS_MAX * until)):
            busy = [i for i in range(self.rules.partitions) if self._waiting(i)]
            if not busy:
                break
            self.step(self.random.choice(busy))
        else:
            assert until < 1, "it does not come to rest"

    def some_steps(self, n: int) -> None:
        for _ in range(n):
            busy = [i for i in range(self.rules.partitions) if self._waiting(i)]
            if busy:
                self.step(self.random.choice(busy))

    def drain(self, topic: str) -> None:
        for i, inputs in enumerate(self.inputs):
            if inputs[topic]:
                batch = list(inputs[topic])
                inputs[topic].clear()
                self._commit(self.tasks[i], self.tasks[i].step(batch))

    def _waiting(self, i: int) -> bool:
        return any(self.inputs[i].values()) or any(self.pairs[i].values()) or self.tasks[i].is_behind

    def step(self, i: int) -> None:
        """One transaction of task i, or one that is thrown away."""
        queues = [*((t, q) for t, q in self.inputs[i].items()), *(("parts", q) for q in self.pairs[i].values())]
        draws: list[int] = []  # which queue the next item is from
        for j, (topic, queue) in enumerate(queues):
            draws += [j] * min(len(queue), self.random.randint(0, self.pace[topic]))
        self.random.shuffle(draws)
        taken: Counter[int] = Counter()
        batch = []
        for j in draws:
            batch.append(queues[j][1][taken[j]])
            taken[j] += 1
        task = self.tasks[i]
        if self.random.random() < self.crash:
            self._fail(i, batch)
            return
        outcome = task.step(batch)
        for j, n in taken.items():
            for _ in range(n):
                queues[j][1].popleft()
        self._commit(task, outcome)

    def _fail(self, i: int, batch: list[Input]) -> None:
        """A step that leaves no trace: cut off on its way, or not committed; forgotten in memory, or with the process."""
        task = self.tasks[i]
        match self.random.randrange(3):
            case 0:
                with suppress(ValueError):
                    task.step([*batch, ("", None)])
            case 1:
                with suppress(Broken):
                    task.step(batch, most=self.random.randrange(4))
            case _:
                task.step(batch)
        if self.random.random() < 0.5:
            task.abort()
        else:
            self.tasks[i] = self.make(self.rules, i, self.stores[i])

    def _commit(self, task: Task, outcome: Outcome) -> None:
        task.commit()
        for key, data in outcome.parts:
            self.parts_sent[type(decode_part(data)).__name__] += 1
            self.pairs[self.rules.partition(key)][task.partition].append((key, data))
        for profile, record in outcome.records:
            self.written += 1
            if record is None:
                del self.records[0, profile]
            else:
                self.records[0, profile] = record
        if self.checks is not None:
            self.checks.committed(task, outcome)

    # ----------------------------------------------------------------------------------------------------------- end
    def assert_at_rest(self) -> None:
        """What holds when nothing is on its way: each fragment lies where it is assigned to, and nowhere twice."""
        assigned = self.history.assigned()
        slots: set[tuple[str, str]] = set()
        homes: set[tuple[str, str]] = set()
        slots_counted = 0
        for task in self.tasks:
            held = 0
            for at, slot in task.processor.moves.slots.scan():
                length = int.from_bytes(at[:2], "big") + 2
                profile, subject = at[2:length].decode(), at[length:].decode()
                assert profile != subject, "a second copy of a subject that is its own profile"
                lies = self.tasks[self.rules.partition(subject)].state(subject)
                assert slot.fragment == _unexpired(self.rules, lies.fragment, slot.fragment, task.today)
                slots.add((profile, subject))
                held += 1
            assert held == task.processor.moves.held
            for at, state in task.processor.profiles.scan():
                subject = at.decode()
                assert not state.is_nothing()
                target = assigned[subject].profile if subject in assigned else subject
                places = {subject} if state.home is None else set(state.home.places)
                assert not state.fragment or places == {target}
                homes |= {(place, subject) for place in places if place != subject}
                others = task.processor.moves.shared.get(at)
                assert state.shared == (others is not None)
                slots_counted += others.profile.slots if others is not None else 0
                away = state.home is not None and (state.home.life > 0 or places != {subject} or target != subject)
                assert state.told == (state.shared or away)
        assert slots == homes
        assert slots_counted == len(slots)

    def diverged(self) -> str:
        """How the output differs from what it means; nothing if it does not."""
        expected = written(self.rules, oracle(self.history))
        return "\n".join(
            f"{key}\n  is     {self.records.get(key)!r}\n  should {expected.get(key)!r}"
            for key in sorted({*expected, *self.records})
            if self.records.get(key) != expected.get(key)
        )


def _unexpired(rules: Rules, whole: Any, slot: Any, today: int) -> Any:
    """The home's fragment as the slot has it: both without what has expired."""
    own = rules.folding.merge(whole, {})
    rules.folding.expire(own, today)
    rules.folding.expire(slot, today)
    return own


# --------------------------------------------------------------------------------------------------------------- run
@contextmanager
def pieces_beyond(size: int) -> Iterator[None]:
    """What is larger travels in pieces, and is stored in rows of its own."""
    with (
        patch.object(home, "PUT_BYTES", size),
        patch.object(home, "CELL_BYTES", size),
        patch.object(rows, "CELL_BYTES", size),
    ):
        yield


def simulate(seed: int, *, task: type[Task] = Task) -> World:
    """One history, delivered in one way. Raises what went wrong on the way; compare the end with `diverged`."""
    with pieces_beyond(30) if seed % 2 else nullcontext(), patch.object(projection, "SWEPT_PER_COMMIT", 1 + seed % 5):
        return _simulate(Random(seed), task)


def _simulate(random: Random, task: type[Task]) -> World:
    world = World(history_of(random), random, crash=random.choice((0, 0.1, 0.4)), task=task)
    for _ in range(random.choice((0, 0, 0, 1, 2))):
        world.some_steps(random.randrange(60))
        world.reset(("assignments", "erased") if random.random() < 0.5 else ())
    world.run()
    world.assert_at_rest()
    return world


def failure_of(seed: int, *, task: type[Task] = Task) -> str:
    """What went wrong with a seed; nothing if all went well."""
    try:
        return simulate(seed, task=task).diverged()
    except Exception:
        return traceback.format_exc()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.profile.moving")
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--from", type=int, default=0, dest="first")
    asked = parser.parse_args()
    divergences = 0
    for seed in range(asked.first, asked.first + asked.runs):
        if failure := failure_of(seed):
            divergences += 1
            print(f"seed {seed}\n{failure}", flush=True)
    print(f"divergences {divergences}")
    return divergences > 0


if __name__ == "__main__":
    sys.exit(main())
