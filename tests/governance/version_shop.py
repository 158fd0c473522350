"""An app with three versions of a projection, of which only the doors run: the versions' topics are written by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from c360 import App, Personal, Projection, Record, newest
from c360.agents.control import Live, VersionState, live_key, version_key
from c360.agents.door import DoorAgent, DoorTask
from c360.assembly import Stepping
from c360.engine.partition import partition_of
from c360.ops import control
from c360.testing import TestDriver
from tests.governance.door_shop import Street


def versions(name: str = "versions", declared: Sequence[int] = (1, 2, 3), *, asks: bool = True) -> App:
    """What leaves says of which version it is. The function wants `more`, which the first version does not have, of "/more".

    `asks` False: nobody is asked, and nobody is forgotten.
    """
    app = App(name, partitions=2)

    @app.identifier("crm", priority=1)
    class CrmId(str): ...

    service, marketing = (
        app.purpose("service", basis="contract"),
        app.purpose("marketing", basis="consent" if asks else "contract"),
    )
    kind: Any = Personal[str] if asks else str

    @app.source("clicks", event_id="id", key=CrmId, purposes=[service, marketing])
    class Click(Record):
        id: str
        about: str
        name: kind

    class First(Projection):
        about: str | None = newest(Click.about)

    class Second(Projection):
        about: str | None = newest(Click.about)
        more: str | None = newest(Click.about)

    class Third(Projection):
        about: str | None = newest(Click.about)

    for version, record in ((1, First), (2, Second), (3, Third)):
        if version in declared:
            app.projection("customer", version=version, purposes=[service, marketing])(record)
    given: Any = {1: First, 2: Second, 3: Third}[declared[0]]

    if asks:

        @app.erasure("forget")
        class Forget(Record):
            id: CrmId

    def leaves(profile: Any) -> dict[str, Any]:
        if profile.about == "/more":
            return {"about": profile.more}
        return {"about": profile.about}

    app.sink("mail", projection=given, purpose=marketing)(leaves)
    app.sink("bills", projection=given, purpose=service)(leaves)
    return app


class Versions(Street):
    """Its doors, and a hand that writes what projections and people say. Every door is open unless `rights.stopped`."""

    def __init__(self, app: App | None = None, live: int = 1) -> None:
        self.first = live
        super().__init__(app or versions())

    def start(self) -> None:
        if not hasattr(self, "processes"):
            from c360.ops import topics

            topics.apply(self.plan, self.cluster.admin())
            self.go_live(self.first)
        super().start()

    def _process(self) -> Stepping:
        made = TestDriver._process(self)
        doors = [loop for loop in made.loops if loop.agent.name.startswith("sink:")]
        for loop in made.loops:
            if loop not in doors:
                loop.close()
        for teller in made.tellers:
            teller.close()
        return Stepping(doors, made.tables, (), made.watch)

    def another(self, app: App) -> None:
        """The worker stops, and one of another app begins."""
        self.stop()
        self.plan = app.plan()
        self.start()

    def go_live(self, version: int, previous: int | None = None) -> None:
        control.write(self.plan, self.cluster, [(live_key("customer"), Live(version, previous))])

    def retire(self, version: int) -> None:
        control.write(self.plan, self.cluster, [(version_key(f"customer@{version}"), VersionState("retired"))])

    def put(self, version: int, who: str, about: str | None, *labels: str) -> None:
        """A version says of a profile what it is about; None: that it is no more."""
        value = None
        if about is not None:
            listed = sorted({who, *labels})
            value = {
                "profile_id": who,
                "projection": "customer",
                "version": version,
                "purpose": None,
                "subjects": listed,
                "subjects_total": len(listed),
                "identifiers": listed,
                "attributes": {"about": about} | ({"more": "more"} if version == 2 else {}),
                "as_of": None,
            }
        key = who.encode()
        partition = partition_of(key, self.plan.partitions)
        topic = f"{self.plan.app}.customer.v{version}"
        self.producer.produce(topic, key, None if value is None else json.dumps(value).encode(), partition)
        self.producer.flush()

    def bills(self) -> dict[str, str]:
        return {who: said["about"] for who, said in self.sink("bills").items()}

    def mails(self) -> dict[str, str]:
        return {who: said["about"] for who, said in self.sink("mail").items()}

    def written(self, sink: str = "bills") -> list[tuple[str, str | None]]:
        """All that ever left by a sink."""
        self.settle()
        said = self.read(f"{self.plan.app}.activation.{sink}")
        return [((k or b"").decode(), None if v is None else json.loads(v)["about"]) for k, v in said]

    def door(self, sink: str = "bills") -> DoorAgent:
        (agent,) = (loop.agent for loop in self.loops if loop.agent.name == f"sink:{sink}")
        assert isinstance(agent, DoorAgent)
        return agent

    def tasks(self, sink: str = "bills") -> list[DoorTask]:
        found = [t.processor for loop in self.loops if loop.agent.name == f"sink:{sink}" for t in loop.tasks.values()]
        return [task for task in found if isinstance(task, DoorTask)]
