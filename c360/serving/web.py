"""The worker's web: `/health`, `/ready`, `/metrics`, on an asyncio loop in a thread of its own.

User agents (Faust) run on the same asyncio loop: it is the process's only one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import threading
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol

from aiohttp import web

from c360.agents.calling import Caller
from c360.clock import system
from c360.engine.global_table import GlobalTable
from c360.engine.loop import Loop, Phase
from c360.engine.teller import Teller
from c360.engine.transport import Cluster
from c360.errors import C360Error, UsageError
from c360.serving.metrics import lag_of, page_of

log = logging.getLogger("c360.worker")

START_S = 30.0


class Hosted(Protocol):
    """Something that lives on the asyncio loop beside the web."""

    async def start(self) -> None: ...
    async def stop(self) -> None: ...


class Web:
    """Serves a worker's state. `loops`, `tables` and `healthy` are asked at each request."""

    def __init__(
        self,
        loops: Callable[[], Sequence[Loop]],
        healthy: Callable[[], bool],
        cluster: Cluster,
        *,
        port: int | None,
        host: str = "127.0.0.1",
        hosted: Sequence[Hosted] = (),
        tables: Callable[[], Sequence[GlobalTable]] = tuple,
        tellers: Callable[[], Sequence[Teller]] = tuple,
        callers: Sequence[Caller] = (),
    ) -> None:
        """`port` None: no web, only what is hosted; 0: any free port, see `self.port` after `start`."""
        self.loops, self.healthy, self.cluster = loops, healthy, cluster
        self.tables, self.tellers, self.callers = tables, tellers, callers
        self.port, self.host, self.hosted = port, host, hosted
        self.reader = cluster.reader()
        self.reading = asyncio.Lock()  # one reader, one request at a time
        self.asyncio = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.asyncio.run_forever, name="web", daemon=True)
        self.runner: web.AppRunner | None = None

    def start(self) -> None:
        """Returns when requests are answered and hosted services run. Raises what their start raised."""
        self.thread.start()
        self._do(self._start())

    def stop(self) -> None:
        """Stop what is hosted, then the web."""
        self._do(self._stop())
        self.asyncio.call_soon_threadsafe(self.asyncio.stop)
        self.thread.join()
        self.asyncio.close()
        self.reader.close()

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self.asyncio).result(START_S)

    async def _start(self) -> None:
        if self.port is not None:
            app = web.Application()
            app.add_routes(
                [web.get("/health", self._health), web.get("/ready", self._ready), web.get("/metrics", self._metrics)]
            )
            self.runner = web.AppRunner(app, access_log=None)
            await self.runner.setup()
            try:
                await web.TCPSite(self.runner, self.host, self.port).start()
            except OSError as error:
                raise UsageError(
                    f"port {self.port} for the worker's web is not free; choose another --web-port"
                ) from error
            self.port = self.runner.addresses[0][1]
            log.info("web on http://%s:%d", self.host, self.port)
        for service in self.hosted:
            await service.start()

    async def _stop(self) -> None:
        for service in self.hosted:
            await service.stop()
        if self.runner is not None:
            await self.runner.cleanup()

    async def _health(self, request: web.Request) -> web.Response:
        fine = self.healthy()
        return web.json_response({"healthy": fine}, status=200 if fine else 503)

    async def _ready(self, request: web.Request) -> web.Response:
        waiting = {loop.agent.name: why for loop in self.loops() if (why := why_not_ready(loop))}
        waiting |= {table.name: why for table in self.tables() if (why := why_not_whole(table))}
        ready = not waiting and self.healthy() and bool(self.loops())
        return web.json_response({"ready": ready, "waiting": waiting}, status=200 if ready else 503)

    async def _metrics(self, request: web.Request) -> web.Response:
        lag: dict[str, int] = {}
        async with self.reading:
            with contextlib.suppress(C360Error):  # the broker is away: everything else is still told
                lag = await asyncio.to_thread(lag_of, self.loops(), self.reader)
        text = await asyncio.to_thread(
            page_of, self.loops(), lag, system(), self.tables(), self.tellers(), self.callers
        )
        return web.Response(text=text, content_type="text/plain", charset="utf-8")


def why_not_ready(loop: Loop) -> str:
    """Why an agent is not at work yet; "" when it is. A member without partitions is ready: it stands by."""
    if loop.waiting_for:
        return loop.waiting_for
    if loop.producer is None or not loop.subscribed:
        return "starting"
    restoring = sum(t.phase is Phase.RESTORING for t in list(loop.tasks.values()))
    return f"restoring {restoring} tasks" if restoring else ""


def why_not_whole(table: GlobalTable) -> str:
    """Why a copy cannot be asked yet; "" when it can."""
    return table.trouble or ("copying" if table.age() == math.inf else "")
