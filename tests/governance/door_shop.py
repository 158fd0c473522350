"""An app with views and a sink, and who speaks for its consent and erasure agents: topics written by hand."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from c360 import App, Personal, Projection, Record, count, derived, newest
from c360.assembly import Stepping
from c360.engine.partition import partition_of
from c360.engine.transport import TP
from c360.governance.consent import Decision, State, Status, encode_state, join
from c360.governance.fence import Place, Statement, encode_statement, statement_key
from c360.governance.messages import Erase, encode_erase
from c360.governance.suppressed import Hold, Suppressed, encode_suppressed
from c360.plan import Plan
from c360.testing import TestDriver

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
SECOND, HOUR = timedelta(seconds=1), timedelta(hours=1)


def shop(name: str = "doors", *, personal: bool = True) -> App:
    """Customers with a cookie each, perhaps, who join by it. `personal` False: nothing is sealed, and nobody can be erased."""
    app = App(name, partitions=2)

    @app.identifier("crm", priority=1)
    class CrmId(str): ...

    @app.identifier("cookie", priority=5)
    class Cookie(str): ...

    service = app.purpose("service", basis="contract")
    marketing = app.purpose("marketing")
    stats = app.purpose("stats")

    kind: Any = Personal[str] if personal else str

    @app.cdc("customers", key="id", purposes=[service, marketing])
    class Customer(Record):
        id: CrmId
        cookie: Cookie | None
        name: kind

    @app.source("clicks", event_id="id", subject="cookie", purposes=[service, marketing, stats])
    class Click(Record):
        id: str
        cookie: Cookie
        page: str

    @app.projection("customer", purposes=[service, marketing, stats])
    class Profile(Projection):
        name: str | None = newest(Customer.name)
        clicks: int = count(Click)
        page: str | None = newest(Click.page)

        @derived
        def greeting(self) -> str | None:
            return None if self.name is None else f"Dear {self.name}"

    @app.consent("choices")
    class Choice(Record):
        id: CrmId
        purpose: str
        granted: bool
        at: datetime

    if personal:

        @app.erasure("forget")
        class Forget(Record):
            id: CrmId

    @app.sink("crm-sync", projection=Profile, purpose=marketing)
    def crm_sync(profile: Profile) -> dict[str, Any] | None:
        if profile.page == "/broken":
            raise ValueError(f"{profile.name} is at fault")
        if profile.page == "/nothing":
            return None
        return {"name": profile.name, "clicks": profile.clicks}

    return app


class Rights:
    """What the consent and erasure agents write, at once and by hand."""

    def __init__(self, driver: TestDriver) -> None:
        self.driver, self.plan = driver, driver.plan
        self.consents: dict[str, State] = {}
        self.suppressed: dict[str, Suppressed] = {}
        self.stopped = False

    def decide(
        self, label: str, purpose: str, status: Status, *, at: int | None = None, expires: datetime | None = None
    ) -> None:
        """Somebody decides, and the agent says that it is so far."""
        self.append(label, purpose, status, at=at, expires=expires)
        self.state()

    def append(
        self, label: str, purpose: str, status: Status, *, at: int | None = None, expires: datetime | None = None
    ) -> None:
        state = self.consents.setdefault(label, {})
        ends = None if expires is None else int(expires.timestamp() * 1000)
        join(state, Decision(label, purpose, status, self.driver.now_ms if at is None else at, "test", ends))
        self._write(self.plan.consent, label, encode_state(state))

    def suppress(self, label: str, *, lift: bool = False) -> int:
        """The life that begins with it."""
        known = self.suppressed.get(label) or Suppressed(0, {})
        hold = Hold(self.driver.now_ms, self.driver.now_ms if lift else 0)
        self.suppressed[label] = said = Suppressed(known.life + (not lift), {"request": hold})
        vault = self.driver.vault
        assert vault is not None
        self._write(self.plan.suppressed, vault.names.veil(label), encode_suppressed(said))
        self.state()
        return said.life

    def erase(self, label: str, life: int) -> None:
        key, value = encode_erase(Erase("request", label, life))
        self._write(self.plan.erase, key.decode(), value)

    def state(self, *, at: int | None = None) -> None:
        """Say of every input how far the outputs are, unless the agents have stopped."""
        if self.stopped:
            return
        counts = self.driver.cluster.admin().topics()
        for place, output in inputs_of(self.plan, counts):
            self.say(place, self.driver.now_ms if at is None else at, self.ends(output))
        self.driver.producer.flush()

    def say(self, place: Place, at: int, ends: dict[TP, int]) -> None:
        output = next(iter(ends)).topic
        of = self.driver.cluster.admin().topic_ids([output])[output]
        statement = Statement(place, at, tuple(sorted((Place(*tp), end) for tp, end in ends.items())), of)
        key = statement_key(place, output)
        self.driver.producer.produce(self.plan.fence, key, encode_statement(statement), 0)

    def ends(self, topic: str) -> dict[TP, int]:
        reader = self.driver.cluster.reader()
        count = self.driver.cluster.admin().topics()[topic]
        return reader.ends([TP(topic, p) for p in range(count)])

    def _write(self, topic: str, key: str, value: bytes | None) -> None:
        partition = partition_of(key.encode(), self.plan.partitions)
        self.driver.producer.produce(topic, key.encode(), value, partition)
        self.driver.producer.flush()


def inputs_of(plan: Plan, counts: dict[str, int]) -> list[tuple[Place, str]]:
    """The partitions that the two agents have to read, and the topic that they write."""
    asked = [(t, plan.consent) for t in [*(s.asked.topic for s in plan.consents), plan.consent_commands] if plan.asks]
    if plan.erases:
        erasing = [*(s.asked.topic for s in plan.erasures_said), plan.erasure_commands]
        asked += [(topic, plan.suppressed) for topic in erasing]
    return [(Place(topic, p), output) for topic, output in asked for p in range(counts.get(topic, 0))]


class Street(TestDriver):
    """The shop with its people."""

    __test__ = False

    def __init__(self, app: App | None = None) -> None:
        super().__init__(app or shop(), now=NOW)
        self.rights = Rights(self)
        self.clicked = 0
        self.rights.state()

    def _process(self) -> Stepping:
        """Without the agents that this test plays itself."""
        made = super()._process()
        played = [loop for loop in made.loops if loop.agent.name in ("consent", "erasure")]
        for loop in played:
            loop.close()
        for teller in made.tellers:
            teller.close()
        return Stepping([loop for loop in made.loops if loop not in played], made.tables)

    def customer(self, n: int, name: str | None = None, cookie: str | None = None) -> None:
        """A row of customers; without a name it is deleted."""
        row = None if name is None else {"id": str(n), "cookie": cookie, "name": name}
        self.clicked += 1
        source = {"ts_ms": self.now_ms, "lsn": self.clicked}
        envelope = {"before": None, "after": row, "op": "u" if row else "d", "ts_ms": self.now_ms, "source": source}
        if row is None:
            envelope["before"] = {"id": str(n), "cookie": None, "name": ""}
        self.send("customers", key=str(n), value=envelope)

    def click(self, cookie: str, page: str = "/") -> None:
        self.clicked += 1
        self.send("clicks", key=cookie, value={"id": str(self.clicked), "cookie": cookie, "page": page})

    def later(self, by: timedelta = SECOND) -> None:
        """Time passes, and the agents go on saying how far they are."""
        self.advance(by)
        self.rights.state()
