"""TCP proxies on one thread: the network between a worker and a broker, which can be cut and mended.

Knows bytes and connections, and nothing of Kafka.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")

HOST = "127.0.0.1"
CHUNK = 1 << 16


class Proxy:
    """Listens on `port` and passes bytes on to `target`, once it is known. Methods are called on the network's thread."""

    def __init__(self) -> None:
        self.port = 0
        self.target: tuple[str, int] | None = None
        self.whole = asyncio.Event()
        self.whole.set()
        self.server: asyncio.Server | None = None
        self.tasks: set[asyncio.Task[None]] = set()
        self.links: set[asyncio.StreamWriter] = set()

    async def listen(self) -> None:
        self.server = await asyncio.start_server(self._accepted, HOST, self.port)
        self.port = self.server.sockets[0].getsockname()[1]

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._carry(reader, writer))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until either side ends it."""
        mine = [writer]
        self.links.add(writer)
        try:
            await self.whole.wait()
            assert self.target is not None
            far_reader, far_writer = await asyncio.open_connection(*self.target)
            mine.append(far_writer)
            self.links.add(far_writer)
            ways = [asyncio.ensure_future(self._pass_on(reader, far_writer))]
            ways.append(asyncio.ensure_future(self._pass_on(far_reader, writer)))
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
        except OSError:
            pass  # nobody listens there: the client sees its connection end
        finally:
            for link in mine:
                self.links.discard(link)
                link.transport.abort()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(CHUNK):
                await self.whole.wait()  # while it is cut, what was sent is under way, and arrives late
                writer.write(data)
                await writer.drain()

    async def cut(self) -> None:
        """Nothing arrives any more; nobody is told."""
        self.whole.clear()

    async def mend(self) -> None:
        """What is under way arrives."""
        self.whole.set()

    async def reset(self) -> None:
        """Connections end, and what was under way is lost."""
        for link in list(self.links):
            link.transport.abort()

    async def close(self) -> None:
        if self.server is not None:
            self.server.close()
        for task in list(self.tasks):
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


class Network:
    """A thread with all proxies. A context manager; its methods may be called from any thread."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, name="network")
        self.proxies: list[Proxy] = []

    def __enter__(self) -> Network:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for proxy in self.proxies:
            self.do(proxy.close())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Run on the network's thread; returns when it is done."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(10)

    def proxy(self) -> Proxy:
        """One that listens and waits for its target."""
        proxy = Proxy()
        self.do(proxy.listen())
        self.proxies.append(proxy)
        return proxy
