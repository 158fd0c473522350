"""An app that breaks a rule: what it derives is another value each time."""

from __future__ import annotations

from itertools import count as counting

from c360 import App, Projection, Record, count, derived

app = App("moody", partitions=2)
MOODS = counting()


@app.identifier("user")
class UserId(str): ...


@app.source("visits", event_id="id", subject="user")
class Visit(Record):
    id: str
    user: UserId


@app.projection("customer")
class Profile(Projection):
    visits: int = count(Visit)

    @derived
    def mood(self) -> int:
        return next(MOODS)
