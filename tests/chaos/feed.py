"""Traffic without end at a rate, and every record of it remembered in the order it was sent."""

from __future__ import annotations

import threading
import time

from c360.engine.transport import Cluster, TopicSpec
from c360.ops.load import RawRecord
from c360.ops.traffic import endless

PARTITIONS = 4
TOPICS = ("web.clicks", "crm.public.customers", "shop.public.orders")


class Feed:
    """A thread that writes the shop's traffic to raw topics until `finish`."""

    def __init__(self, cluster: Cluster, *, rate: float, seed: int) -> None:
        admin = cluster.admin()
        admin.create([TopicSpec(topic, PARTITIONS, {"retention.ms": "-1"}) for topic in TOPICS])
        admin.close()
        self.producer, self.rate = cluster.producer(), rate
        raw = endless(rate, seed=seed, start_ms=int(time.time() * 1000))
        self.records = (record for record in raw if record.topic in TOPICS)  # of tests/clear_shop.py
        self.sent: list[RawRecord] = []
        self.error: BaseException | None = None
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._run, name="feed", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        begun = time.monotonic()
        try:
            while not self.over.wait(0.02):
                for record in self._due(begun):
                    self.producer.produce(record.topic, record.key, record.value, timestamp=record.timestamp)
                    self.sent.append(record)
        except BaseException as error:  # raised by `finish`
            self.error = error

    def _due(self, begun: float) -> list[RawRecord]:
        count = int((time.monotonic() - begun) * self.rate) - len(self.sent)
        return [next(self.records) for _ in range(count)]

    def finish(self) -> list[RawRecord]:
        """Everything that was sent, acknowledged by the brokers."""
        self.over.set()
        self.thread.join()
        if self.error is not None:
            raise self.error
        self.producer.flush()
        self.producer.close()
        return self.sent
