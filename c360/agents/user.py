"""The app's own agents: plain Faust agents over topics of the app, at least once, read_committed.

Faust hosts them because it is the API that Python Kafka users know. It is not on the exactly-once path: Faust commits
its offsets apart from what an agent does, so an agent must bear to see a record twice. By default Faust reads uncommitted
records; here it may not, or an agent would act on governed records of aborted transactions.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import traceback
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import faust
from faust.transport.drivers import aiokafka as driver

from c360.agents.contracts import Reading
from c360.agents.sealing import sealed_types
from c360.agents.wire import Governed, governed_decoder, governed_type
from c360.codecs.avro import Registry
from c360.declare import UserAgent
from c360.engine.transport import Cluster
from c360.errors import C360Error, Misfit, Shut
from c360.plan import Plan

log = logging.getLogger("c360.agents")

READ_COMMITTED = "read_committed"
AGAIN_S = 1.0
LOOK_S = 2.0
STOP_S = 5.0


class _ConsumerThread(driver.AIOKafkaConsumerThread):
    """Faust's consumer thread with an isolation level that Faust has no setting for."""

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        # aiokafka hands it to the fetcher at start; a release that renames it must not pass unnoticed.
        assert hasattr(consumer, "_isolation_level"), "aiokafka has changed: agents could read aborted records"
        consumer._isolation_level = READ_COMMITTED
        return consumer


class _Consumer(driver.Consumer):
    def _new_consumer_thread(self) -> driver.AIOKafkaConsumerThread:
        return _ConsumerThread(self, loop=self.loop, beacon=self.beacon)


class _Transport(driver.Transport):
    Consumer = _Consumer


class UserAgents:
    """The plan's user agents in a `faust.App` on the worker's asyncio loop.

    Faust does not wait for a broker, nor for topics that are made later: an app that cannot start or falls over is
    thrown away and made anew, also when a topic has come that an agent waits for.
    """

    def __init__(self, plan: Plan, cluster: Cluster, registry: Registry | None = None) -> None:
        """`registry`: of schemas that values of doors name."""
        self.plan, self.cluster, self.reading = plan, cluster, Reading(registry)
        self.keeping: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Returns at once; the agents run when the broker and their topics are there."""
        for noisy in ("aiokafka", __name__):  # what they meet is said here, once
            logging.getLogger(noisy).setLevel(logging.CRITICAL)
        self.keeping = asyncio.create_task(self._keep())

    async def stop(self) -> None:
        if self.keeping is not None:
            self.keeping.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self.keeping

    async def _keep(self) -> None:
        said = ""
        while True:
            try:
                agents = await self._with_topics()
                if agents:
                    await self._host(agents)
                    said = ""
            except Exception as error:
                if said != (said := type(error).__name__):
                    log.warning("the app's own agents: %s; trying again",
                                error if isinstance(error, C360Error) else f"Faust fell over ({said})")  # fmt: skip
            await asyncio.sleep(AGAIN_S)

    async def _with_topics(self) -> list[UserAgent]:
        """The agents whose topic exists."""
        admin = await asyncio.to_thread(self.cluster.admin)
        topics = await asyncio.to_thread(admin.topics)
        await asyncio.to_thread(admin.close)
        return [a for a in self.plan.user_agents if a.topic in topics]

    async def _host(self, agents: list[UserAgent]) -> None:
        """Until there are topics for more of them. Raises what made Faust fall over."""
        app = self._make(agents)
        try:
            await app.start()
            while True:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(app.wait(), LOOK_S)
                    raise app.crash_reason or RuntimeError("Faust has stopped")
                if len(agents) < len(self.plan.user_agents) and await self._with_topics() != agents:
                    return
        finally:
            with contextlib.suppress(Exception):  # an app that failed to start cannot be stopped in order
                await asyncio.wait_for(app.stop(), STOP_S)

    def _make(self, agents: list[UserAgent]) -> faust.App:
        app = faust.App(
            f"{self.plan.app}.agents",
            broker=";".join(f"kafka://{host}" for host in self.cluster.name.split(",")),
            web_enabled=False,
            topic_disable_leader=True,
            topic_allow_declare=False,
            consumer_auto_offset_reset="earliest",
            store="memory://",
        )
        app.transport = _Transport(app.conf.broker_consumer, app, app.loop)
        decoders = self._decoders()
        for declared in agents:
            topic = app.topic(declared.topic, value_serializer="raw", key_serializer="raw")
            decode = decoders.get(declared.topic, self.reading.read)
            hosted = _Hosted(declared.name, declared.function, decode)
            app.agent(topic, name=f"{self.plan.app}.agents.{declared.name}")(hosted.run)
        return app

    def _decoders(self) -> Mapping[str, Callable[[bytes], Any]]:
        """For governed topics: bytes to (record, sign), as record objects."""
        decoders: dict[str, Callable[[bytes], Any]] = {}
        for source in self.plan.sources:
            decode = governed_decoder([governed_type(t) for t in sealed_types(self.plan, source)])
            decoders |= {view.governed(source): decode for view in self.plan.views}
        return decoders


class _Hosted:
    """A user's agent over decoded values instead of bytes. One that raises goes on with the record after that."""

    def __init__(self, name: str, function: Callable[[Any], Any], decode: Callable[[bytes], Any]) -> None:
        self.name, self.function, self.decode = name, function, decode
        self.taken = 0

    async def run(self, stream: Any) -> None:
        values = self._values(stream)
        while True:
            before = self.taken
            try:
                result = self.function(_Rest(values))
                if hasattr(result, "__aiter__"):
                    async for _ in result:  # an agent that yields: nobody waits for its answers here
                        pass
                else:
                    await result
                return
            except Exception as error:  # its text may hold what a customer sent
                at = traceback.extract_tb(error.__traceback__)[-1]
                log.error("@app.agent %s raised %s at %s:%s; it goes on with the next record", self.name,
                          type(error).__name__, at.filename, at.lineno)  # fmt: skip
            if self.taken == before:  # it did not get as far as a record
                await asyncio.sleep(AGAIN_S)

    async def _values(self, stream: AsyncIterator[bytes]) -> AsyncIterator[Any]:
        async for value in stream:
            self.taken += 1
            if value is None:
                continue
            try:
                said = await self._decoded(value)
            except (ValueError, Misfit) as error:
                log.error("@app.agent %s: a record that is no JSON was left out (%s)", self.name, type(error).__name__)
                continue
            if not isinstance(said, Governed):
                yield said
            elif said.sign > 0:  # an agent sees what is added; the old row of an update is of no use to it
                yield said.record  # type: ignore[attr-defined]  # subclasses made per record type have it

    async def _decoded(self, value: bytes) -> Any:
        """Waits while a registry does not answer."""
        while True:
            try:
                return self.decode(value)
            except Shut:
                await asyncio.sleep(AGAIN_S)


class _Rest:
    """What is left of an iterator: an agent that falls over does not end it."""

    def __init__(self, values: AsyncIterator[Any]) -> None:
        self.values = values

    def __aiter__(self) -> _Rest:
        return self

    async def __anext__(self) -> Any:
        return await anext(self.values)
