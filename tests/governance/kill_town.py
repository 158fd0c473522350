"""An app for stories of forgetting that share a broker: STORY names it, and its raw topics are `{name}.people` and so on."""

from __future__ import annotations

import os
from typing import Any

from c360 import App, Personal, Projection, Record, count, newest, normalize


def town(name: str) -> App:
    app = App(name, partitions=3)

    @app.identifier("crm", priority=1, unique=True)
    class CrmId(str): ...

    @app.identifier("email", normalize=normalize.email, personal=True)
    class Email(str): ...

    @app.identifier("cookie", priority=5)
    class Cookie(str): ...

    service = app.purpose("service", basis="contract")

    @app.cdc(f"{name}.people", key="pk", subject="id", purposes=[service])
    class Person(Record):
        pk: str
        id: CrmId
        name: Personal[str]
        email: Email | None = None

    @app.source(f"{name}.clicks", event_id="id", subject="cookie", purposes=[service])
    class Click(Record):
        id: str
        cookie: Cookie
        login: Email | None = None
        text: Personal[str | None] = None

    @app.projection("customer", purposes=[service])
    class Customer(Projection):
        name: str | None = newest(Person.name)
        clicks: int = count(Click)
        text: str | None = newest(Click.text)

    @app.sink("mailer", projection=Customer, purpose=service)
    def mailer(profile: Any) -> dict[str, Any]:
        return {"clicks": profile.clicks, "text": profile.text}

    return app


app = town(os.environ.get("STORY", "killed"))
