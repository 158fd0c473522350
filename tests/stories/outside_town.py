"""An app that asks outside, for stories: each call is a line in the file CALLS, and the file MOOD says how the far side is.

STORY names it; VERSIONS are those of its projection; with AGREE it asks about numbers of customers, too, where they agree.
"""

from __future__ import annotations

import asyncio
import os
from datetime import datetime, timedelta
from pathlib import Path

from c360 import App, Projection, Record, count, newest, normalize

CONTACTS, CHOICES = "contacts", "choices"


class CrmId(str): ...


class Email(str): ...


class Firm(Record):
    name: str


class Score(Record):
    points: int


def town(
    name: str, calls: Path, mood: Path, versions: tuple[int, ...] = (1,), raw: str = "", *, agree: bool = False
) -> App:
    """`raw`: the topic of contacts, if it is not the app's. `agree`: it asks about numbers of customers, too, if they agree."""
    app = App(name, partitions=2)
    app.identifier("crm", priority=1, unique=True)(CrmId)
    app.identifier("email", normalize=normalize.email, personal=True)(Email)

    service, marketing = None, None
    if agree:
        service, marketing = app.purpose("service", basis="contract"), app.purpose("marketing")
    purposes = [purpose for purpose in (service, marketing) if purpose is not None]

    @app.source(raw or f"{name}.{CONTACTS}", event_id="id", subject="customer", name=CONTACTS, purposes=purposes)
    class Contact(Record):
        id: str
        customer: CrmId
        email: Email

    @app.enrich(refresh=timedelta(days=30), purpose=service, timeout=timedelta(seconds=60), retries=1, concurrency=4)
    async def firm_of(email: Email) -> Firm | None:
        with calls.open("a") as out:
            out.write(f"{email}\n")
        while mood.read_text() == "hangs":
            await asyncio.sleep(0.05)
        if email.startswith("bad"):
            raise ValueError(email)
        return Firm(name=f"Firm of {email.partition('@')[0]}")

    if agree:

        @app.consent(f"{name}.{CHOICES}")
        class Choice(Record):
            customer: CrmId
            purpose: str
            granted: bool
            at: datetime

        @app.enrich(refresh=timedelta(days=30), purpose=marketing)
        async def score_of(customer: CrmId) -> Score | None:
            with calls.open("a") as out:
                out.write(f"{customer}\n")
            return Score(points=int(customer))

    for version in versions:

        class Profile(Projection):
            contacts: int = count(Contact)
            firm: str | None = newest(Firm.name)
            answers: int = count(Firm)

        app.projection("customer", version=version)(Profile)
    return app


app = town(
    os.environ.get("STORY", "story"),
    Path(os.environ.get("CALLS", "calls")),
    Path(os.environ.get("MOOD", "mood")),
    tuple(int(version) for version in os.environ.get("VERSIONS", "1").split(",")),
    agree="AGREE" in os.environ,
)
