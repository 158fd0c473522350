"""An app to send bad input to: notes of customers, keyed by customer, and rows of their addresses.

STORY names it, so that stories can share a broker. `fixed` is the same app after its author has learned of a channel.
"""

import os
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal

from c360 import App, Projection, Record, count, derived, newest, total
from c360.plan import Plan

NOTES, ROWS = "notes", "addresses"


def notes_app(name: str, channels: Any) -> App:
    """Raw topics are `{name}.notes` and `{name}.addresses`."""
    app = App(name, partitions=2)

    @app.identifier("crm", priority=1)
    class CrmId(str): ...

    @app.source(f"{name}.{NOTES}", key=CrmId, event_id="id", at="at", name=NOTES)
    class Note(Record):
        id: str | None
        text: str
        channel: channels = "web"
        amount: Decimal | None
        at: datetime | None
        parts: int = 1
        anything: Any = None

    @app.cdc(f"{name}.{ROWS}", key="id", subject="owner", name=ROWS)
    class Address(Record):
        id: int
        owner: CrmId
        city: str
        plan: str | None

    @app.enrich(Note)
    def share(note: Note) -> float:
        return 1 / note.parts

    @app.projection("customer")
    class Profile(Projection):
        notes: int = count(Note)
        text: str | None = newest(Note.text)
        anything: Any = newest(Note.anything)
        spent: Decimal = total(Note.amount)
        shares: Decimal = total(share)
        addresses: int = count(Address)
        city: str | None = newest(Address.city)

        @derived
        def half(self) -> int:
            if self.notes == 3:
                raise ValueError(f"three cannot be halved for {self.text}")
            return self.notes // 2

    return app


NAME = os.environ.get("STORY", "story")
app = notes_app(NAME, Literal["web", "shop"])
fixed = notes_app(NAME, Literal["web", "shop", "phone"])


def plan_of(name: str, *more: str) -> Plan:
    """The plan of the app of that name, for this process; `more` are channels it knows besides."""
    return notes_app(name, Literal[("web", "shop", *more)]).plan()
