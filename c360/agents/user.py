"""The app's own agents: plain Faust agents over topics of the app, at least once, read_committed.

Faust hosts them because it is the API that Python Kafka users know. It is not on the exactly-once path: offsets are committed
apart from what an agent does, so an agent must bear to see a record twice. By default Faust reads uncommitted records; here it
may not, or an agent would act on governed records of aborted transactions. And how far an agent is, is counted here (`Done`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from random import random
from typing import Any, Protocol, cast

import faust
from faust.auth import SASLCredentials, SSLCredentials
from faust.transport.drivers import aiokafka as driver
from faust.types.auth import CredentialsT
from mode.threads import ServiceThread, WorkerThread

from c360.agents.calling import Allowed, Caller, InOrder, Message, Permit, Place
from c360.agents.contracts import Reading
from c360.agents.sealing import sealed_types
from c360.agents.wire import Governed, Question, governed_decoder, governed_type
from c360.clock import Clock, system
from c360.codecs.avro import Registry
from c360.engine.aio import MECHANISMS, security
from c360.engine.global_table import GlobalTable
from c360.engine.transport import TP, Admin, Cluster, Producer
from c360.errors import BrokerAway, C360Error, Misfit, Shut, UsageError
from c360.governance.names import Vault
from c360.outside import Outside
from c360.plan import Plan

log = logging.getLogger("c360.agents")

READ_COMMITTED = "read_committed"
AGAIN_S = 1.0
LOOK_S = 2.0
STOP_S = 5.0
COMMIT_S = 0.2  # between commits
SESSION_S, HEARTBEAT_S = 10.0, 1.0  # until others take over from who was killed; Faust's are 60 and 3
AHEAD = 16  # times as many questions as calls at a time are done with before the oldest is
FLUSH_S = 30.0  # for answers to be in the log
BEGIN_S = 0.2


class _Worker(WorkerThread):
    """A thread that keeps no process from ending.

    What is asked of a group's coordinator waits behind a request to join, and that until members that were killed are given up.
    So may the end of a consumer, for longer than a worker has.
    """

    def __init__(self, service: ServiceThread, **more: Any) -> None:
        super().__init__(service, **more)
        self.daemon = True

    def stop(self) -> None:
        self.is_stopped.wait(STOP_S)


class _ConsumerThread(driver.AIOKafkaConsumerThread):
    """Faust's consumer thread with an isolation level that Faust has no setting for."""

    Worker = _Worker

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        # aiokafka hands it to the fetcher at start; a release that renames it must not pass unnoticed.
        assert hasattr(consumer, "_isolation_level"), "aiokafka has changed: agents could read aborted records"
        consumer._isolation_level = READ_COMMITTED
        return consumer

    async def on_thread_stop(self) -> None:
        # A fetch that waits for a broker which is away is cancelled, and with it aiokafka's own stop: the thread would end with
        # a traceback on standard error, though nothing is lost, as the app is made anew.
        with contextlib.suppress(asyncio.CancelledError):
            await super().on_thread_stop()


class Done:
    """How far agents are done with partitions: each as far as all are who read its topic.

    What Faust counts is no use. An agent that is cancelled over a record has acknowledged it; where records are done with in
    any order, it takes one that follows the mark of a transaction for acknowledged as soon as a later one is; and it
    acknowledges by itself what it has in its buffers when it stops.
    """

    def __init__(self, readers: Mapping[str, Sequence[str]]) -> None:
        """`readers`: names of agents, by topic."""
        self.readers = readers
        self.told: dict[Any, dict[str, int]] = {}  # by partition, what its agents said

    def tell(self, agent: str, tp: Any, upto: int) -> None:
        """It is done with everything below this offset."""
        self.told.setdefault(tp, {})[agent] = upto

    def upto(self, tp: Any) -> int | None:
        """None while there is somebody who has said nothing."""
        told = self.told.get(tp, {})
        return min(told.values()) if told.keys() >= set(self.readers[tp.topic]) else None


class _Consumer(driver.Consumer):
    """Commits how far agents are done, and nothing else."""

    def _new_consumer_thread(self) -> driver.AIOKafkaConsumerThread:
        return _ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> Iterator[Any]:
        mine = self.assignment()
        yield from [tp for tp in self._done.told if tp in mine]

    def _new_offset(self, tp: Any) -> int | None:
        return self._done.upto(tp)

    @property
    def _done(self) -> Done:
        return cast(_Transport, self.transport).done


class _Transport(driver.Transport):
    Consumer = _Consumer
    done: Done


class Streamed(Protocol):
    """What is hosted: it reads a stream of the bytes of a topic, and tells `stream.app.transport.done` how far it is."""

    name: str
    topic: str

    async def run(self, stream: Any) -> None: ...

    async def rest(self) -> None:
        """Take nothing more; return when that is done which it is to be left time for."""


@dataclass(frozen=True)
class Home:
    """Where Faust lives: how its clients are let in (None: all are), and where it makes directories, which stay empty."""

    credentials: CredentialsT | None
    directory: Path


def home_of(settings: Mapping[str, str], directory: Path) -> Home:
    """By librdkafka's settings. Raises UsageError for what Faust's clients cannot do."""
    try:
        said = security(settings)
    except ValueError as lacking:
        raise UsageError(
            f"{lacking}: @app.agent and async @app.enrich run on Faust, whose client cannot do that. Give them certificates in"
            f" files, and SASL by {', '.join(MECHANISMS)}; or have this worker run what it can: --only"
        ) from None
    tls = said.get("ssl_context")
    if "sasl_mechanism" in said:
        return Home(
            SASLCredentials(
                username=said["sasl_plain_username"],
                password=said["sasl_plain_password"],
                mechanism=said["sasl_mechanism"],
                ssl_context=tls,
            ),
            directory,
        )
    return Home(None if tls is None else SSLCredentials(tls), directory)


class FaustHost:
    """Agents in a `faust.App` on the worker's asyncio loop, one group for all of them.

    Faust does not wait for a broker, nor for topics that are made later: an app that cannot start or falls over is
    thrown away and made anew, also when a topic has come that an agent waits for.
    """

    def __init__(self, group: str, said: str, hosted: Sequence[Streamed], cluster: Cluster, home: Home) -> None:
        """`said`: what they are, for the log."""
        self.group, self.said, self.hosted, self.cluster, self.home = group, said, hosted, cluster, home
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
                    log.warning("%s: %s; trying again", self.said,
                                error if isinstance(error, C360Error) else f"Faust fell over ({said})")  # fmt: skip
            await asyncio.sleep(AGAIN_S)

    async def _with_topics(self) -> list[Streamed]:
        """The agents whose topic exists."""
        admin = await asyncio.to_thread(self.cluster.admin)
        topics = await asyncio.to_thread(admin.topics)
        await asyncio.to_thread(admin.close)
        return [one for one in self.hosted if one.topic in topics]

    async def _host(self, agents: list[Streamed]) -> None:
        """Until there are topics for more of them. Raises what made Faust fall over."""
        app = self._make(agents)
        try:
            await app.start()
            while True:
                # Not `wait()` without an argument: cancelled, it leaves tasks behind that nobody ends.
                if (await app.wait(asyncio.sleep(LOOK_S))).stopped:
                    raise app.crash_reason or RuntimeError("Faust has stopped")
                if len(agents) < len(self.hosted) and await self._with_topics() != agents:
                    return
        finally:
            await _tried(asyncio.gather(*(one.rest() for one in agents)))
            await _tried(app.consumer.commit())
            await _tried(app.stop())  # an app that failed to start cannot be stopped in order

    def _make(self, agents: list[Streamed]) -> faust.App:
        app = faust.App(
            self.group,
            broker=";".join(f"kafka://{host}" for host in self.cluster.name.split(",")),
            broker_credentials=self.home.credentials,
            datadir=self.home.directory,
            web_enabled=False,
            topic_disable_leader=True,
            topic_allow_declare=False,
            consumer_auto_offset_reset="earliest",
            store="memory://",
            broker_session_timeout=SESSION_S,
            broker_heartbeat_interval=HEARTBEAT_S,
            stream_wait_empty=False,  # for what is acknowledged: nothing is
            broker_commit_interval=COMMIT_S,
        )
        transport = _Transport(app.conf.broker_consumer, app, app.loop)
        transport.done = Done(
            {one.topic: [other.name for other in agents if other.topic == one.topic] for one in agents}
        )
        app.transport = transport
        for one in agents:
            topic = app.topic(one.topic, value_serializer="raw", key_serializer="raw")
            app.agent(topic, name=f"{self.group}.{one.name}")(one.run)
        return app


async def _tried(ending: Awaitable[Any]) -> None:
    """Wait for it, but not for long, nor for its being cancelled: Faust may wait for a broker that does not answer."""
    task = asyncio.ensure_future(ending)
    done, _ = await asyncio.wait({task}, timeout=STOP_S)
    if not done:
        task.cancel()
    elif not task.cancelled():
        task.exception()  # it is no matter any more


class UserAgents(FaustHost):
    """The plan's user agents."""

    def __init__(self, plan: Plan, cluster: Cluster, home: Home, registry: Registry | None = None) -> None:
        """`registry`: of schemas that values of doors name."""
        decoders, read = _decoders(plan), Reading(registry).read
        hosted = [_Hosted(a.name, a.topic, a.function, decoders.get(a.topic, read)) for a in plan.user_agents]
        super().__init__(f"{plan.app}.agents", "the app's own agents", hosted, cluster, home)


def _decoders(plan: Plan) -> Mapping[str, Callable[[bytes], Any]]:
    """For governed topics: bytes to (record, sign), as record objects."""
    decoders: dict[str, Callable[[bytes], Any]] = {}
    for source in plan.sources:
        decode = governed_decoder([governed_type(t) for t in sealed_types(plan, source)])
        decoders |= {view.governed(source): decode for view in plan.views}
    return decoders


class _Hosted:
    """A user's agent over decoded values instead of bytes. One that raises goes on with the record after that.

    It is done with a record when it asks for the next one.
    """

    def __init__(self, name: str, topic: str, function: Callable[[Any], Any], decode: Callable[[bytes], Any]) -> None:
        self.name, self.topic, self.function, self.decode = name, topic, function, decode
        self.taken = 0
        self.resting, self.free = False, asyncio.Event()
        self.free.set()

    async def run(self, stream: Any) -> None:
        stream.enable_acks, self.resting = False, False
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
                self.free.set()
                return
            except Exception as error:  # its text may hold what a customer sent
                at = traceback.extract_tb(error.__traceback__)[-1]
                log.error("@app.agent %s raised %s at %s:%s; it goes on with the next record", self.name,
                          type(error).__name__, at.filename, at.lineno)  # fmt: skip
            if self.taken == before:  # it did not get as far as a record
                await asyncio.sleep(AGAIN_S)

    async def rest(self) -> None:
        """Of the record at hand: one that is given up is seen again."""
        self.resting = True
        await self.free.wait()

    async def _values(self, stream: Any) -> AsyncIterator[Any]:
        async for event in stream.events():
            if self.resting:
                await asyncio.Future()  # until it is cancelled
            self.taken += 1
            self.free.clear()
            for value in await self._said(event.value):
                yield value
            stream.app.transport.done.tell(self.name, event.message.tp, event.message.offset + 1)
            self.free.set()

    async def _said(self, value: bytes | None) -> tuple[Any, ...]:
        """What of a record is for an agent: nothing, or one value."""
        if value is None:
            return ()
        try:
            said = await self._decoded(value)
        except (ValueError, Misfit) as error:
            log.error("@app.agent %s: a record that is no JSON was left out (%s)", self.name, type(error).__name__)
            return ()
        if not isinstance(said, Governed):
            return (said,)
        # An agent sees what is added; the old row of an update is of no use to it.
        return (said.record,) if said.sign > 0 else ()  # type: ignore[attr-defined]  # made per record type, it has it

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


# --------------------------------------------------------------------------------------------------- outside enrichments
Known = tuple[GlobalTable | None, Vault | None]
"""The process's copies of what people decided, and its keys: None of an app without."""


class Calls(FaustHost):
    """Of one outside enrichment: its questions, so many at a time, each asked until it is answered or put aside. A question is
    done with when its answer is in the log: whoever is killed before, has it asked again."""

    def __init__(
        self,
        plan: Plan,
        outside: Outside,
        cluster: Cluster,
        home: Home,
        known: Callable[[], Known | None],
        *,
        clock: Clock = system,
        fence_max_age_ms: int = 1000,
    ) -> None:
        """`known`: None while the worker is getting ready."""
        self.plan, self.outside, self.known, self.clock = plan, outside, known, clock
        self.name, self.topic, self.fence_max_age_ms = outside.name, plan.questions(outside), fence_max_age_ms
        self.caller = Caller(
            plan, outside, self._look, clock=clock, seconds=time.monotonic, sleep=asyncio.sleep, random=random
        )
        self.thread = ThreadPoolExecutor(1, thread_name_prefix=outside.agent)  # reads from disk, and asks the broker
        self.permit: Permit | None = None
        self.admin: Admin | None = None
        self.producer: Producer | None = None
        self.writing, self.written, self.flushed = asyncio.Lock(), 0, 0
        group, said = f"{plan.answers(outside)}.calls", f"@app.enrich {outside.name}"
        super().__init__(group, said, [self], cluster, home)

    async def stop(self) -> None:
        await super().stop()
        for client in (self.producer, self.admin):
            if client is not None:
                await asyncio.to_thread(client.close)
        self.thread.shutdown(wait=False)

    # ------------------------------------------------------------------------------------------------------- stream
    async def run(self, stream: Any) -> None:
        """So many at a time. What is committed is how far all are done with."""
        stream.enable_acks = False
        most = self.outside.limits.concurrency
        room, ahead, order = asyncio.Semaphore(most), asyncio.Semaphore(most * AHEAD), InOrder()
        fallen: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        under_way: set[asyncio.Task[None]] = set()

        async def one(event: Any, done: Callable[[], tuple[int, int]]) -> None:
            message = event.message
            place = Place(TP(message.topic, message.partition), message.offset, int((message.timestamp or 0) * 1000))
            if event.value is not None:
                await self._write(await self.caller.handle(event.value, place))
            upto, count = done()
            if count:
                stream.app.transport.done.tell(self.name, message.tp, upto)
            for _ in range(count):
                ahead.release()

        def over(task: asyncio.Task[None]) -> None:
            under_way.discard(task)
            room.release()
            if not task.cancelled() and (error := task.exception()) is not None and not fallen.done():
                fallen.set_exception(error)

        try:
            async for event in stream.events():
                for free in (ahead, room):
                    await _first(asyncio.ensure_future(free.acquire()), fallen)
                task = asyncio.create_task(one(event, order.take(event.message.tp, event.message.offset)))
                under_way.add(task)
                task.add_done_callback(over)
        finally:
            fallen.cancel()
            for task in under_way:
                task.cancel()

    async def rest(self) -> None:
        """Nobody waits for what it has at hand: that may take long, and is asked again."""

    async def _write(self, messages: list[Message]) -> None:
        """Returns when they are in the log; whoever waits meanwhile is written with the next ones."""
        if not messages:
            return
        if self.producer is None:
            self.producer = await asyncio.to_thread(self.cluster.producer)
        for message in messages:
            self.producer.produce(message.topic, message.key, message.value)
        self.written += len(messages)
        mine = self.written
        async with self.writing:
            if self.flushed < mine:
                upto = self.written
                await asyncio.to_thread(self.producer.flush, FLUSH_S)
                self.flushed = upto

    # ------------------------------------------------------------------------------------------------------ permits
    async def _look(self, question: Question) -> Allowed | str:
        while (known := self.known()) is None:
            await asyncio.sleep(BEGIN_S)
        return await asyncio.get_running_loop().run_in_executor(self.thread, self._asked, question, known)

    def _asked(self, question: Question, known: Known) -> Allowed | str:
        if self.permit is None:
            self.permit = Permit(
                self.plan, self.outside, *known, clock=self.clock, partitions=self._partitions,
                fence_max_age_ms=self.fence_max_age_ms,
            )  # fmt: skip
        return self.permit.look(question)

    def _partitions(self) -> Mapping[str, int]:
        if self.admin is None:
            self.admin = self.cluster.admin()
        try:
            return self.admin.topics()
        except BrokerAway:
            self.admin = None
            raise


async def _first(wanted: asyncio.Future[Any], fallen: asyncio.Future[None]) -> None:
    """Wait for what is wanted. Raises what has fallen meanwhile."""
    await asyncio.wait({wanted, fallen}, return_when=asyncio.FIRST_COMPLETED)
    if fallen.done():
        wanted.cancel()
        fallen.result()
