"""`c360 collect`: Segment's HTTP API in front of raw topics. 200 means that all replicas in sync have the record.

    request ──write key──► topic ──calls──► queue ──one thread: produce, flush──► 200
                                    full: 429      Kafka away: 503

At least once: who is told 429 or 503, or nothing at all, sends again, and govern knows a call by its `messageId`.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import logging
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from aiohttp import web

from c360.engine.transport import Cluster, Producer
from c360.errors import BrokerAway, C360Error, Misfit, UsageError
from c360.plan import Plan
from c360.serving.calls import BATCH_BYTES, KINDS, RawCall, checker_of, read_body, take
from c360.serving.metrics import Page

PENDING_BYTES = 32 << 20
FLUSH_S = 10.0
RETRY_S = "1"
CORS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Headers": "Authorization, Content-Type",
    "Access-Control-Allow-Methods": "POST, OPTIONS",
}

log = logging.getLogger("c360.collect")


# -------------------------------------------------------------------------------------------------------- write keys
class WriteKeys:
    """Who may write where: the hash of each key, and its topic. Compared in constant time."""

    def __init__(self, topics: Mapping[str, str]) -> None:
        """`topics`: by key."""
        self._topics = {sha256(key.encode()).digest(): topic for key, topic in topics.items()}

    def topic(self, key: str) -> str | None:
        asked, found = sha256(key.encode()).digest(), None
        for known, topic in self._topics.items():
            if hmac.compare_digest(known, asked):
                found = topic
        return found

    @property
    def topics(self) -> set[str]:
        return set(self._topics.values())


def read_keys(path: Path, plan: Plan) -> WriteKeys:
    """One key a line, and its topic where the app reads calls from several. Raises UsageError."""
    try:
        if path.stat().st_mode & 0o077:
            raise UsageError(f"{path} can be read by others: chmod 600 {path}")
        lines = [line.split() for line in path.read_text().splitlines() if line.strip() and not line.startswith("#")]
    except OSError as error:
        raise UsageError(
            f"the write keys {path} cannot be read: {error.strerror}. Make one: (umask 077; openssl rand -hex 24 > {path})"
        ) from None
    topics = sorted({source.topic for source in plan.sources if source.format == "segment"})
    found: dict[str, str] = {}
    for number, parts in enumerate(lines, 1):
        if len(parts) > 2 or (len(parts) == 1 and len(topics) != 1):
            raise UsageError(
                f"{path}, key {number}: write `KEY TOPIC`; calls are read from {', '.join(topics) or 'no topic'}"
            )
        found[parts[0]] = parts[1] if len(parts) == 2 else topics[0]
    if not found:
        raise UsageError(f"{path} has no key in it")
    return WriteKeys(found)


# ------------------------------------------------------------------------------------------------------------- queue
class Full(Exception):
    """More is waiting for Kafka than may."""


@dataclass
class Counters:
    """What became of requests and calls, for metrics."""

    accepted: int = 0
    refused: int = 0
    throttled: int = 0
    unauthorized: int = 0
    away: int = 0


@dataclass
class _Waiting:
    topic: str
    calls: Sequence[RawCall]
    done: Callable[[BaseException | None], None]
    size: int


class Writer:
    """Writes what is put, many requests in one flush, on a thread of its own."""

    def __init__(self, cluster: Cluster, *, most_bytes: int = PENDING_BYTES, flush_s: float = FLUSH_S) -> None:
        self.cluster, self.most_bytes, self.flush_s = cluster, most_bytes, flush_s
        self.pending = 0
        self._queue: list[_Waiting] = []
        self._changed = threading.Condition()
        self._stopping = False
        self._producer: Producer | None = None
        self._thread = threading.Thread(target=self._run, name="collect")

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """What was put is still written."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join()

    def put(self, topic: str, calls: Sequence[RawCall], done: Callable[[BaseException | None], None]) -> None:
        """`done` is called, on the writer's thread, when all are in the log, or with what went wrong. Raises Full."""
        size = sum(len(call.value) + len(call.key) for call in calls)
        with self._changed:
            if self._stopping or self.pending + size > self.most_bytes:
                raise Full
            self.pending += size
            self._queue.append(_Waiting(topic, calls, done, size))
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._queue and not self._stopping:
                    self._changed.wait()
                if not self._queue:
                    break
                taken, self._queue = self._queue, []
            error = self._write(taken)
            with self._changed:
                self.pending -= sum(waiting.size for waiting in taken)
            for waiting in taken:
                waiting.done(error)
        if self._producer is not None:
            self._producer.close()

    def _write(self, taken: Sequence[_Waiting]) -> C360Error | None:
        try:
            if self._producer is None:
                self._producer = self.cluster.producer()
            for waiting in taken:
                for call in waiting.calls:
                    self._producer.produce(waiting.topic, call.key, call.value)
            self._producer.flush(self.flush_s)
        except C360Error as error:
            log.warning("%d requests could not be written: %s", len(taken), error)
            if self._producer is not None:  # what is in it may still be written: nobody was told that it was
                self._producer.close()
                self._producer = None
            return error
        return None


# --------------------------------------------------------------------------------------------------------------- web
@dataclass
class Collector:
    """The HTTP side. `now` and `new_id` are the clock and what makes ids."""

    plan: Plan
    keys: WriteKeys
    writer: Writer
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    new_id: Callable[[], str] = lambda: f"c360-{uuid.uuid4()}"
    counters: Counters = field(default_factory=Counters)

    def __post_init__(self) -> None:
        """Raises UsageError for a topic of a key that the app reads no calls from."""
        self.checks = {topic: checker_of(self.plan, topic) for topic in self.keys.topics}

    def app(self) -> web.Application:
        made = web.Application(client_max_size=BATCH_BYTES + 1024)
        for kind in (*KINDS, "batch"):
            made.router.add_post(f"/v1/{kind}", self._posted)
            made.router.add_route("OPTIONS", f"/v1/{kind}", self._asked)
        made.router.add_get("/health", self._health)
        made.router.add_get("/metrics", self._metrics)
        return made

    async def _posted(self, request: web.Request) -> web.Response:
        kind = request.path.rpartition("/")[2]
        try:
            body = await request.read()
            calls, said = read_body(kind, body)
        except web.HTTPRequestEntityTooLarge:
            return _answer(413, success=False, message=f"at most {BATCH_BYTES} bytes a request")
        except Misfit as misfit:
            self.counters.refused += 1
            return _answer(413 if misfit.reason == "too-large" else 400, success=False, message=str(misfit))
        topic = self.keys.topic(_write_key(request, said))
        if topic is None:
            self.counters.unauthorized += 1
            return _answer(
                401, success=False, message="the write key is none of ours; give it as user name, or as writeKey"
            )
        taken, refused = take(calls, self.checks[topic], self.now(), self.new_id)
        self.counters.refused += len(refused)
        if taken:
            answer = await self._write(topic, taken)
            if answer is not None:
                return answer
        rejected = [{"index": r.index, "reason": r.reason, "message": r.message} for r in refused]
        fine = bool(taken) or not refused
        return _answer(
            200 if fine else 400, success=fine, accepted=len(taken), **({"rejected": rejected} if rejected else {})
        )

    async def _write(self, topic: str, taken: Sequence[RawCall]) -> web.Response | None:
        """Wait until it is in the log. The answer where it is not."""
        loop = asyncio.get_running_loop()
        written: asyncio.Future[BaseException | None] = loop.create_future()

        def tell(error: BaseException | None) -> None:
            if not written.done():  # who asked may have gone
                written.set_result(error)

        def done(error: BaseException | None) -> None:
            loop.call_soon_threadsafe(tell, error)

        try:
            self.writer.put(topic, taken, done)
        except Full:
            self.counters.throttled += 1
            return _answer(429, success=False, message="too much is waiting to be written; send it again in a moment")
        error = await written
        if error is not None:
            self.counters.away += 1
            why = "Kafka does not answer" if isinstance(error, BrokerAway) else "it could not be written"
            return _answer(503, success=False, message=f"{why}; send it again in a moment")
        self.counters.accepted += len(taken)
        return None

    async def _asked(self, request: web.Request) -> web.Response:
        return web.Response(status=204, headers=CORS)

    async def _health(self, request: web.Request) -> web.Response:
        return web.json_response({"healthy": True, "waiting_bytes": self.writer.pending})

    async def _metrics(self, request: web.Request) -> web.Response:
        page, told = Page(), self.counters
        page.totals(
            "c360_collect_",
            {},
            [
                ("accepted", "Calls that are in the log.", told.accepted),
                ("refused", "Calls, or requests, that cannot be used.", told.refused),
                ("throttled", "Requests answered with 429.", told.throttled),
                ("unauthorized", "Requests without a write key of ours.", told.unauthorized),
                ("away", "Requests that could not be written.", told.away),
            ],
        )
        page.add("c360_collect_waiting_bytes", "gauge", "Waiting to be written.", {}, self.writer.pending)
        return web.Response(text=page.text(), content_type="text/plain")


def _answer(status: int, **said: Any) -> web.Response:
    again = {"Retry-After": RETRY_S} if status in (429, 503) else {}
    return web.json_response(said, status=status, headers={**CORS, **again})


def _write_key(request: web.Request, said: Mapping[str, Any]) -> str:
    """As the user name of basic authentication, as libraries send it, or in the body, as browsers' beacons must."""
    scheme, _, credentials = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(credentials, validate=True).decode().partition(":")[0]
        except (binascii.Error, ValueError):
            return ""
    found = said.get("writeKey")
    return found if isinstance(found, str) else ""


def serve(collector: Collector, host: str, port: int, stopping: threading.Event, ready: Callable[[int], None]) -> None:
    """Answer requests until `stopping`; `ready` is told the port. Raises UsageError where it is not free."""
    asyncio.run(_serve(collector, host, port, stopping, ready))


async def _serve(
    collector: Collector, host: str, port: int, stopping: threading.Event, ready: Callable[[int], None]
) -> None:
    runner = web.AppRunner(collector.app(), access_log=None)
    await runner.setup()
    collector.writer.start()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise UsageError(f"port {port} is not free; choose another --port") from error
        ready(runner.addresses[0][1])
        while not stopping.is_set():
            await asyncio.sleep(0.1)
    finally:
        await runner.cleanup()
        await asyncio.to_thread(collector.writer.stop)
