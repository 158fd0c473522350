"""The app that asks outside, over a topic of others, with an agent of its own, which writes what it hears into HEARD."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from tests.stories.outside_town import town

NAME = os.environ.get("STORY", "story")
RAW = f"crm-{NAME}"
HEARD = Path(os.environ.get("HEARD", "heard"))
VERSIONS = tuple(int(version) for version in os.environ.get("VERSIONS", "1").split(","))
app = town(NAME, Path(os.environ.get("CALLS", "calls")), Path(os.environ.get("MOOD", "mood")), VERSIONS, RAW)


@app.agent(f"{NAME}.customer.v1")
async def hears(profiles: AsyncIterator[Any]) -> None:
    async for profile in profiles:
        with HEARD.open("a") as out:
            out.write(f"{profile['attributes']['firm']}\n")
