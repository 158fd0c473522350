"""An app that seals, for stories: `STORY` is its name, `HEARD` the file that its agent writes what it gets into."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any

from c360 import App, Personal, Projection, Record, count, newest, normalize


def sealing_app(name: str, heard: Path | None = None) -> App:
    app = App(name, partitions=2)

    @app.identifier("crm", priority=1, unique=True)
    class CrmId(str): ...

    @app.identifier("email", normalize=normalize.email, personal=True)
    class Email(str): ...

    class Address(Record):
        street: Personal[str]
        country: str

    marketing = app.purpose("marketing")

    @app.source(f"{name}.orders", name="orders", event_id="id", subject="crm", purposes=[marketing])
    class Order(Record):
        id: str
        crm: CrmId
        email: Email | None
        name: Personal[str]
        address: Address | None = None
        page: str = "/"

    @app.consent(f"{name}.choices", name="choices")
    class Choice(Record):
        crm: CrmId
        purpose: str
        granted: bool
        at: datetime

    @app.projection("customer", purposes=[marketing])
    class Customer(Projection):
        name: str | None = newest(Order.name)
        orders: int = count(Order)

    if heard is not None:
        governed = app.plan().governed(app.plan().sources[0])

        @app.agent(governed)
        async def listens(orders: AsyncIterator[Any]) -> None:
            async for order in orders:
                street = None if order.address is None else order.address.street
                with heard.open("a") as out:
                    out.write(
                        f"{type(order).__name__} {order.id} {order.page} {order.name} {order.email} {street} {order!r}\n"
                    )

    return app


app = sealing_app(os.environ.get("STORY", "sealing"))
heard = sealing_app(os.environ.get("STORY", "sealing"), Path(os.environ.get("HEARD", "heard")))
