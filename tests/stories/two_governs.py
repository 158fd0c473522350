"""The shop of two versions of govern, under a name that the story gives it: a worker in another process runs it."""

from __future__ import annotations

import os

from c360 import App
from tests.testing.test_govern_versions import shop


def app_of(story: str, *governs: int) -> App:
    return shop(*governs, name=story, raw=f"{story}.")


app = app_of(os.environ.get("STORY", "story"), *map(int, os.environ.get("GOVERNS", "1").split(",")))
