"""An app with two agents of its own over one projection topic, for stories: each record that one is done with is a line in a
file. STORY names the app; HEARD is where the files are; SLOW_S is how long an agent takes of a record.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from c360 import App, Projection, Record, newest

PEOPLE = "people"
STORY, HEARD, SLOW_S = (
    os.environ.get("STORY", "story"),
    Path(os.environ.get("HEARD", ".")),
    float(os.environ.get("SLOW_S", "0")),
)


def town(name: str) -> App:
    app = App(name, partitions=2)

    @app.identifier("crm", priority=1, unique=True)
    class CrmId(str): ...

    @app.source(f"{name}.{PEOPLE}", event_id="id", subject="customer", name=PEOPLE)
    class Said(Record):
        id: str
        customer: CrmId
        word: str

    @app.projection("customer")
    class Profile(Projection):
        word: str | None = newest(Said.word)

    async def hear(profiles: AsyncIterator[Any], name: str, slow_s: float) -> None:
        async for profile in profiles:
            _say(f"{name}.begun", profile)
            await asyncio.sleep(slow_s)
            _say(f"{name}.done", profile)

    @app.agent(f"{name}.customer.v1")
    async def slow(profiles: AsyncIterator[Any]) -> None:
        await hear(profiles, "slow", SLOW_S)

    @app.agent(f"{name}.customer.v1")
    async def quick(profiles: AsyncIterator[Any]) -> None:
        await hear(profiles, "quick", 0.0)

    return app


def _say(file: str, profile: Any) -> None:
    with (HEARD / file).open("a") as out:
        out.write(f"{profile['profile_id']} {profile['attributes']['word']}\n")


app = town(STORY)
