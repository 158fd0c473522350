"""Outside enrichments under test: the same calls as a worker's, in one thread, with a clock that stands still.

What a function does is the test's. It is called when the agents have come to rest, and nothing is waited for: where a worker
would sleep, the driver's seconds go on and its processes are turned.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from random import Random

from c360.agents.calling import Allowed, Caller, Permit, Place
from c360.agents.wire import Question
from c360.clock import Clock
from c360.engine.global_table import GlobalTable
from c360.engine.memory import MemoryCluster
from c360.engine.transport import TP
from c360.governance.names import Vault
from c360.outside import Outside
from c360.plan import Plan

SLEEPS = 1_000  # of one question; then it waits until it is looked again


class StillShut(Exception):
    """It cannot be told whether a question may be asked; nor will it be by waiting."""


class OutsideCalls:
    """Of one outside enrichment. `turn`: of the processes that know what people decided; `table`: their copy of that."""

    def __init__(
        self,
        plan: Plan,
        outside: Outside,
        cluster: MemoryCluster,
        vault: Vault | None,
        *,
        clock: Clock,
        turn: Callable[[], object],
        table: Callable[[], GlobalTable | None],
    ) -> None:
        self.plan, self.outside, self.cluster, self.vault = plan, outside, cluster, vault
        self.clock, self.turn, self.table = clock, turn, table
        self.seconds, self.sleeps = 0.0, 0
        self.next: dict[TP, int] = {}  # what is committed: below it questions are done with
        random = Random(0)
        self.caller = Caller(
            plan,
            outside,
            self._look,
            clock=clock,
            seconds=lambda: self.seconds,
            sleep=self._sleep,
            random=random.random,
        )

    def run(self) -> bool:
        """Ask what is waiting, one after the other. Whether there was anything. Raises what the function raises that is no
        Exception, with the question still to be asked."""
        topic = self.plan.questions(self.outside)
        count = self.cluster.admin().topics().get(topic, 0)
        reader = self.cluster.reader()
        try:
            starts = reader.starts([TP(topic, p) for p in range(count)]) | self.next
            batches = [batch for some in reader.read(starts) for batch in some]
        finally:
            reader.close()
        asked = False
        for batch in batches:
            for at, offset in enumerate(batch.offsets):
                if (value := batch.values[at]) is not None:
                    asked = True
                    try:
                        self._ask(value, Place(batch.tp, offset, batch.times[at]))
                    except StillShut:
                        return False
                self.next[batch.tp] = offset + 1
        return asked

    def _ask(self, value: bytes, place: Place) -> None:
        self.sleeps = 0
        producer = self.cluster.producer()
        for message in asyncio.run(self.caller.handle(value, place)):
            producer.produce(message.topic, message.key, message.value)
        producer.flush()

    async def _look(self, question: Question) -> Allowed | str:
        # Anew: a process of before may be gone
        permit = Permit(
            self.plan,
            self.outside,
            self.table(),
            self.vault,
            clock=self.clock,
            partitions=self._partitions,
            inputs_s=0.0,
        )
        return permit.look(question)

    def _partitions(self) -> Mapping[str, int]:
        return self.cluster.admin().topics()

    async def _sleep(self, seconds: float) -> None:
        self.seconds += seconds
        self.sleeps += 1
        if self.sleeps > SLEEPS:
            raise StillShut
        self.turn()
