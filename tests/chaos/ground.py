"""Brokers, each of which every worker reaches through a proxy of its own, and the tester directly."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from c360.ops import dev_kafka
from tests.chaos.proxy import HOST, Network, Proxy
from tests.stories.tools import alive

STOP_S = 60.0


class Ground:
    """What the workers stand on. Brokers and workers are counted from 0."""

    def __init__(self, running: dev_kafka.Running, network: Network, proxies: Sequence[Sequence[Proxy]]) -> None:
        self.running, self.network = running, network
        self.proxies = proxies  # by worker, by broker
        self.bootstrap = running.bootstrap
        self.brokers = len(running.pids)

    def door(self, worker: int) -> str:
        """Bootstrap servers for a worker."""
        return ",".join(f"{HOST}:{proxy.port}" for proxy in self.proxies[worker])

    def cut(self, worker: int, brokers: Sequence[int]) -> None:
        for broker in brokers:
            self.network.do(self.proxies[worker][broker].cut())

    def mend(self, worker: int, *, late: bool) -> None:
        """`late`: what was sent while it was cut arrives now; else it is lost with its connections."""
        for proxy in self.proxies[worker]:
            if not late and not proxy.whole.is_set():
                self.network.do(proxy.reset())
            self.network.do(proxy.mend())

    def mend_all(self) -> None:
        for worker in range(len(self.proxies)):
            self.mend(worker, late=True)

    def signal(self, broker: int, number: signal.Signals) -> None:
        os.kill(self.running.pids[broker], number)

    def stop(self, broker: int) -> None:
        """As an operator does: it hands over what it leads, and ends."""
        pid = self.running.pids[broker]
        self.signal(broker, signal.SIGTERM)
        deadline = time.monotonic() + STOP_S
        while alive(pid):
            assert time.monotonic() < deadline, f"broker {broker} does not stop:\n{self.running.log_text()[-2000:]}"
            time.sleep(0.05)

    def kill(self, broker: int) -> None:
        self.signal(broker, signal.SIGKILL)

    def start(self, *brokers: int) -> None:
        self.running.start_again(*brokers)


@contextmanager
def ground(brokers: int, workers: int) -> Iterator[Ground]:
    """Brokers and the network to them, gone at the end of the block."""
    with Network() as network:
        proxies = [[network.proxy() for _ in range(brokers)] for _ in range(workers)]
        doors = {f"WORKER{w}": [f"{HOST}:{proxy.port}" for proxy in own] for w, own in enumerate(proxies)}
        with dev_kafka.start(brokers=brokers, doors=doors) as running:
            for own, name in zip(proxies, doors, strict=True):
                for proxy, target in zip(own, running.doors[name], strict=True):
                    proxy.target = target
            yield Ground(running, network, proxies)
