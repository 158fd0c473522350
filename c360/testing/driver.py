"""An app under test without Kafka: the production engine on an in-memory log, store and clock, turned in one thread."""

from __future__ import annotations

import json
import time
from collections.abc import Container, Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from functools import cached_property
from random import Random
from types import TracebackType
from typing import Any, Self

import orjson

from c360.agents.contracts import Reading, contract_of
from c360.agents.control import Pause, pause_key
from c360.agents.erasure import Ordered
from c360.agents.render import lazily_typed
from c360.agents.shape import Shape
from c360.app import App
from c360.assembly import Stepping, stepping
from c360.codecs.avro import Registry
from c360.declare import ProjectionDeclaration
from c360.engine.global_table import GlobalTable
from c360.engine.loop import Loop, LoopSettings
from c360.engine.memory import MemoryCluster
from c360.engine.transport import TP, Headers, TopicSpec
from c360.errors import UsageError
from c360.governance.certificate import Certificate
from c360.governance.names import Names
from c360.ops import contracts, control, doors, erase, keys, profiles, reset
from c360.ops.contracts import Subjects
from c360.ops.records import records
from c360.ops.sources import source_of
from c360.rights import Door
from c360.tables.store import MemoryStores
from c360.testing.outside import OutsideCalls

# Commits when nothing more waits, so that `crash` finds work that is not committed.
_LATE = LoopSettings(commit_s=3600.0, commit_share=0.0, shut_s=0.0, shut_most_s=0.0, held_s=0.0)
_TURNS = 10_000


class TestDriver:
    """Sends records to an app and reads what it makes of them; between the two, everything has come to rest.

    `partitions` is the number of partitions of raw topics. `now` is the clock when it starts; it stands still until
    `advance`. Without `now` it is the time of the machine: give one to an app with windows (`within=`), or its values
    change with the calendar. Agents of `@app.agent` do not run here; they are Faust's, with test tools of its own. What
    `@app.enrich(refresh=…)` asks is asked when all has come to rest, one question after the other, by `asyncio.run`: so
    not from within a test that is async itself.
    """

    __test__ = False  # not a test case, whatever pytest takes from the name
    subjects: Subjects | None = None
    cloudevents = False

    def __init__(
        self,
        app: App,
        *,
        partitions: int = 2,
        now: datetime | None = None,
        registry: Registry | None = None,
        subjects: Subjects | None = None,
        cloudevents: bool = False,
    ) -> None:
        """`registry`: of schemas that raw values name. `subjects`: the same, where doors are to write Avro. `cloudevents`:
        whether what leaves has these attributes in its headers. Raises DeclarationError where the app is wrong."""
        self.registry, self.subjects, self.cloudevents = registry, subjects, cloudevents
        self.plan = app.plan()
        if subjects is not None:
            contracts.apply(self.plan, subjects)
        self.now_ms = time.time_ns() // 1_000_000 if now is None else int(now.timestamp() * 1000)
        self.cluster = MemoryCluster(now_ms=self._now, quiet_s=0.0)
        raw = [TopicSpec(topic.name, partitions) for topic in self.plan.topics if not topic.owned]
        self.cluster.admin().create(raw)
        self.stores = MemoryStores()
        self.producer = self.cluster.producer()
        self.slots = 0
        self.random = Random(0).randbytes  # the same keys in every run: a driver's data is nobody's
        self.vault = keys.vault_in_memory(self.plan, self.cluster, self.random)
        self.outside = [
            OutsideCalls(
                self.plan,
                outside,
                self.cluster,
                self.vault,
                clock=self._now,
                turn=self._turn_all,
                table=self._decisions,
            )
            for outside in self.plan.outsides
        ]
        self.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.stop()

    def start(self) -> None:
        """Start a worker; the driver begins with one."""
        self.processes = [self._process()]

    def stop(self) -> None:
        """SIGTERM: the worker commits what it has done and leaves."""
        for process in self.processes:
            process.leave()
        self.processes = []

    @property
    def loops(self) -> list[Loop]:
        """Of the worker; while a second one joins, of both."""
        return [loop for process in self.processes for loop in process.loops]

    # -------------------------------------------------------------------------------------------------------- sending
    def send(
        self,
        topic: str,
        key: str | bytes | None = None,
        value: Any = None,
        *,
        timestamp: int | None = None,
        partition: int | None = None,
        headers: Headers | None = None,
    ) -> None:
        """Append a record to a raw topic. A value that is neither bytes nor None is written as JSON.

        `timestamp` is the append time in epoch milliseconds, by default the driver's clock. Raises UsageError for a
        topic that the app does not read.
        """
        if topic not in self.cluster.admin().topics():
            known = ", ".join(source.topic for source in self.plan.sources)
            raise UsageError(f"{self.plan.app!r} has no topic {topic!r}; it reads {known}")
        data = value if value is None or isinstance(value, bytes) else json.dumps(value, default=_plain).encode()
        raw_key = key.encode() if isinstance(key, str) else key
        self.producer.produce(topic, raw_key, data, partition, headers, timestamp=timestamp)
        self.producer.flush()

    # -------------------------------------------------------------------------------------------------------- reading
    def profile(self, identifier: str, projection: str | None = None, *, purpose: str | None = None) -> Any:
        """The profile that has this identifier ("crm:7"), as an instance of the app's class; None if there is none.

        All of it, for every purpose, and in clear: a test sees through what is sealed. `projection` ("customer" or
        "customer@1") is needed only if there are several.

        With `purpose`: as that may see it now, asked as a door asks; None also where nothing of it may leave.
        """
        if purpose is not None:
            return self._profile_for(identifier, self._projection(projection), purpose)
        declared = self._projection(projection)
        found = self.record(identifier, projection)
        if found is None:
            return None
        shape = Shape(self.plan, declared, None, sensitive=[a.name for a in declared.attributes])
        seen = shape.look(found)
        return None if seen is None else shape.instance(seen, self._open)

    def sink(self, name: str) -> dict[str, Any]:
        """What the far side of a sink holds by now: by profile id, the JSON that the sink's function gave."""
        return self._leaves(doors.sink_door(self.plan, name))

    def preview(self, name: str, version: int) -> doors.Preview:
        """What a sink would send if this version of its projection were live; nothing is sent.

        `held_back["sink-failed"]`: for so many profiles its function fails on this version.
        """
        self.settle()
        door = doors.sink_door(self.plan, name)
        return doors.preview(
            self.plan,
            self.cluster,
            door,
            version,
            vault=self.vault,
            clock=self._now,
            wire=contracts.wires(self.plan, self.subjects).get(door.agent),
            wait_s=0.0,
            pause=lambda _: None,
        )

    def view(self, purpose: str, projection: str | None = None) -> dict[str, Any]:
        """What the view for a purpose holds by now: by profile id, its record."""
        declared = self._projection(projection)
        for door in self.plan.doors:
            if (door.projection, door.purpose.name, door.sink) == (declared, purpose, None):
                return self._leaves(door)
        raise UsageError(f"{declared.record.__name__} is not made for {purpose!r}; it is for {declared.purposes}")

    def pause(self, source: str) -> None:
        """Read nothing of a source until `resume`, as `c360 source pause` does."""
        self._turn(source, Pause(self.now_ms))

    def resume(self, source: str) -> None:
        """Read it again, from where it stood."""
        self._turn(source, None)

    def _turn(self, source: str, pause: Pause | None) -> None:
        name = source_of(self.plan, source).name
        control.write(self.plan, self.cluster, [(pause_key(name), pause)])
        self.settle()

    def erase(self, identifier: str, reason: str = "test") -> Certificate | None:
        """Forget the customer of an identifier ("crm:7"), as `c360 erase` does. The certificate; None while there is none."""
        label = profiles.normalized(self.plan, identifier, self._names())
        request = erase.ask(self.plan, self.cluster, Ordered(identifier=label, reason=reason, who="test"))
        self.settle()
        return erase.certificate_of(self.plan, self.cluster, request)

    def lift(self, certificate: Certificate) -> None:
        """End a suppression, as `c360 erase --lift` does: who comes from now on, comes anew."""
        erase.ask(self.plan, self.cluster, Ordered(lift=certificate.request, who="test"))
        self.settle()

    def _leaves(self, door: Door) -> dict[str, Any]:
        self.settle()
        held: dict[bytes | None, bytes | None] = dict(self.read(self.plan.leaves(door)))
        read = orjson.loads if self.subjects is None else self._reading.read
        return {key.decode(): read(value) for key, value in held.items() if key is not None and value is not None}

    @cached_property
    def _reading(self) -> Reading:
        return Reading(self.registry)

    def _profile_for(self, identifier: str, declared: ProjectionDeclaration, purpose: str) -> Any:
        self.settle()
        door = doors.view_door(self.plan, declared, purpose)
        answer = doors.ask_door(
            self.plan,
            self.cluster,
            door,
            identifier,
            names=self._names(),
            vault=self.vault,
            clock=self._now,
            fence_max_age_ms=1000,
            contract=None if self.subjects is None else contract_of(self.plan, door),
            wait_s=0.0,
            pause=lambda _: None,
        )
        if answer.profile is None:
            return None
        shape = Shape(self.plan, declared, purpose)
        values = answer.profile["attributes"]
        return lazily_typed(declared, shape.hidden)(**{a.name: values[a.name] for a in shape.taken})

    def _open(self, value: Any, subjects: Container[str], fields: Container[str]) -> bytes:
        assert self.vault is not None
        opener = keys.opener_of(self.plan, self.cluster, self.vault)
        return opener.open(value, subjects=subjects, fields=fields, complete=True)

    def record(self, identifier: str, projection: str | None = None) -> dict[str, Any] | None:
        """The same as the JSON that the projection's topic has of it, sealed values as they are."""
        self.settle()
        return profiles.find_profile(self.plan, self.cluster, self._projection(projection), identifier, self._names())

    def topic(self, name: str) -> list[Any]:
        """The JSON values of a topic's committed records, partition by partition; None for a tombstone."""
        self.settle()
        return [None if value is None else orjson.loads(value) for _, value in self.read(name)]

    def read(self, topic: str) -> Iterator[tuple[bytes | None, bytes | None]]:
        """Keys and values of the committed records of a topic as they are, without waiting for rest."""
        count = self.cluster.admin().topics().get(topic)
        if count is None:
            raise UsageError(f"there is no topic {topic!r}; `c360 plan` lists those of the app")
        reader = self.cluster.reader()
        for _, _, key, value in records(reader, reader.starts([TP(topic, p) for p in range(count)])):
            yield key, value

    def verify(self, *agents: str) -> None:
        """Recompute what these agents (default: all) have made. Raises AssertionError with what differs, or
        why that cannot be told."""
        from c360.ops.verify import verify  # here: it imports the oracle, which lives beside this module

        self.settle()
        names = agents or [a.name for a in self.plan.agents]
        report = verify(self.plan, self.cluster, names, vault=self.vault, registry=self.registry, clock=self._now)
        assert not report.differences, report.to_text()
        assert report.complete, report.to_text()

    # --------------------------------------------------------------------------------------------- time and accidents
    def advance(self, by: timedelta) -> None:
        """Move the clock; windows close when their day has come."""
        self.settle()
        self.now_ms += by // timedelta(milliseconds=1)

    def crash(self) -> None:
        """The worker dies in the middle of what was sent last, before it commits; another starts on its disk."""
        for loop in self.loops:
            loop.turn(0.0)
            self.cluster.expire(loop.consumer)
        self.start()

    def lose_disk(self) -> None:
        """As `crash`, and the state directory is gone: tables are restored from their changelogs."""
        self.stores = MemoryStores()
        self.crash()

    def rebalance(self) -> None:
        """A second worker joins, with a disk of its own, and takes its share; then the first leaves."""
        self.stores = MemoryStores()
        self.slots += 1
        self.processes.append(self._process())
        self.settle()
        self.processes.pop(0).leave()
        self.settle()

    def reset(self, agent: str) -> None:
        """`c360 reset AGENT --to-earliest --execute`: stop, rewind, start again."""
        self.settle()
        self.stop()
        reset.order_reset(self.plan, self.cluster, reset.plan_reset(self.plan, self.cluster, agent))
        self.start()

    # ---------------------------------------------------------------------------------------------------------- parts
    def settle(self) -> None:
        """Turn until nothing moves. Everything that reads does this first."""
        self._rest()
        while self.processes:
            asked = [calls.run() for calls in self.outside]
            if not any(asked):
                return
            self._rest()

    def _rest(self) -> None:
        quiet = 0
        for process in self.processes:
            process.ask()
        for _ in range(_TURNS):
            if quiet == 4:  # rounds: a rebalance takes that many
                return
            quiet = 0 if self._turn_all() else quiet + 1
        raise AssertionError(f"the agents did not come to rest in {_TURNS} turns")

    def _turn_all(self) -> bool:
        busy = [process.turn() for process in self.processes]
        return any(busy)

    def _decisions(self) -> GlobalTable | None:
        """What a worker knows of what people decided."""
        return next((table for process in self.processes for table in process.tables), None)

    def _process(self) -> Stepping:
        slot = f"driver-{self.slots}"
        return stepping(
            self.plan, self.cluster, self.stores, slot=slot, clock=self._now, settings=_LATE, vault=self.vault,
            registry=self.registry, wires=contracts.wires(self.plan, self.subjects), cloudevents=self.cloudevents,
        )  # fmt: skip

    def _names(self) -> Names:
        return profiles.NO_NAMES if self.vault is None else self.vault.names

    def _now(self) -> int:
        return self.now_ms

    def _projection(self, name: str | None) -> ProjectionDeclaration:
        return profiles.chosen_projection(self.plan, name, control.live_in(self.plan, self.cluster))


def _plain(value: Any) -> str:
    """What JSON has no type for, as raw topics have it."""
    if isinstance(value, Decimal):
        return str(value)
    raise TypeError(f"a {type(value).__name__} cannot be sent as JSON")
