"""An app to send bad input to: notes of customers, keyed by customer, and rows of their addresses.

STORY names it, so that stories can share a broker. `fixed` is the same app after its author has learned of a channel;
`heard` the same with agents of its own, which append what they hear to the file SIGNALS.
"""

import os
from collections.abc import AsyncIterator
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

from c360 import App, Projection, Record, collect, count, derived, newest, total
from c360.plan import Plan

NOTES, ROWS, SIGNALS, ALARMS = "notes", "addresses", "signals", "alarms"


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
        samples: list[str] = collect(Note.text, limit=40)
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


def with_agents(app: App, file: Path) -> App:
    """One agent that listens and one that falls over at the first record that says so."""

    def append(said: str) -> None:
        with file.open("a") as out:
            out.write(said + "\n")

    @app.agent(f"{app.name}.{SIGNALS}")
    async def listens(signals: AsyncIterator[dict[str, str]]) -> None:
        async for signal in signals:
            append(signal["says"])

    @app.agent(f"{app.name}.{ALARMS}")
    async def breaks(alarms: AsyncIterator[dict[str, str]]) -> None:
        async for alarm in alarms:
            append(alarm["says"])
            if alarm["says"] == "break":
                raise ValueError(f"cannot bear {alarm['secret']}")

    @app.agent(f"{app.name}.governed.{NOTES}")
    async def reads(notes: AsyncIterator[Any]) -> None:
        async for note in notes:
            append(f"note {note.text}")

    return app


NAME = os.environ.get("STORY", "story")
app = notes_app(NAME, Literal["web", "shop"])
fixed = notes_app(NAME, Literal["web", "shop", "phone"])
heard = with_agents(notes_app(NAME, Literal["web", "shop"]), Path(os.environ.get("SIGNALS", "signals")))


def plan_of(name: str, *more: str) -> Plan:
    """The plan of the app of that name, for this process; `more` are channels it knows besides."""
    return notes_app(name, Literal[("web", "shop", *more)]).plan()
