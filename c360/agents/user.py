"""The app's own agents: plain Faust agents over topics of the app, at least once, read_committed.

Faust hosts them because it is the API that Python Kafka users know. It is not on the exactly-once path: Faust commits
its offsets apart from what an agent does, so an agent must bear to see a record twice. By default Faust reads uncommitted
records; here it may not, or an agent would act on governed records of aborted transactions.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import faust
import msgspec
from faust.transport.drivers import aiokafka as driver

from c360.agents.wire import Governed, governed_decoder, governed_type
from c360.plan import Plan

READ_COMMITTED = "read_committed"


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
    """A `faust.App` with the plan's user agents; lives on the worker's asyncio loop."""

    def __init__(self, plan: Plan, bootstrap: str) -> None:
        self.plan, self.bootstrap = plan, bootstrap
        self.app: faust.App | None = None

    async def start(self) -> None:
        """Make the Faust app on the running loop and start it."""
        app = faust.App(
            f"{self.plan.app}.agents",
            broker=";".join(f"kafka://{host}" for host in self.bootstrap.split(",")),
            web_enabled=False,
            topic_disable_leader=True,
            topic_allow_declare=False,
            consumer_auto_offset_reset="earliest",
            store="memory://",
        )
        app.transport = _Transport(app.conf.broker_consumer, app, app.loop)
        decoders = self._decoders()
        for declared in self.plan.user_agents:
            topic = app.topic(declared.topic, value_serializer="raw", key_serializer="raw")
            decode = decoders.get(declared.topic, msgspec.json.Decoder().decode)
            app.agent(topic, name=f"{self.plan.app}.agents.{declared.name}")(_typed(declared.function, decode))
        self.app = app
        await app.start()

    async def stop(self) -> None:
        if self.app is not None:
            with contextlib.suppress(Exception):  # a Faust app that failed to start cannot be stopped in order
                await self.app.stop()

    def _decoders(self) -> Mapping[str, Callable[[bytes], Any]]:
        """For governed topics: bytes to (record, sign), as record objects."""
        decoders = {}
        for source in self.plan.sources:
            decode = governed_decoder([governed_type(t.record) for t in source.types])
            decoders[self.plan.governed(source)] = decode
        return decoders


def _typed(function: Callable[[Any], Any], decode: Callable[[bytes], Any]) -> Callable[[Any], Any]:
    """The user's agent over decoded values instead of bytes."""

    async def agent(stream: Any) -> None:
        result = function(_values(stream, decode))
        if hasattr(result, "__aiter__"):
            async for _ in result:  # an agent that yields: nobody waits for its answers here
                pass
        else:
            await result

    return agent


async def _values(stream: AsyncIterator[bytes], decode: Callable[[bytes], Any]) -> AsyncIterator[Any]:
    async for value in stream:
        if value is None:
            continue
        said = decode(value)
        if isinstance(said, Governed):
            if said.sign > 0:  # an agent sees what is added; the old row of an update is of no use to it
                yield said.record  # type: ignore[attr-defined]  # subclasses made per record type have it
        else:
            yield said
