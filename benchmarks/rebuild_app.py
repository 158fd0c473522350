"""The shop in clear with several versions of its projection, all with the same logic: C360_TEST_VERSIONS says how many."""

from __future__ import annotations

import os
import runpy
from pathlib import Path
from typing import Any

from c360 import App, Projection

CLEAR = Path(__file__).parents[1] / "tests" / "clear_shop.py"


def shop(versions: int) -> App:
    """A new one each time."""
    clear = runpy.run_path(str(CLEAR))
    app: App = clear["app"]
    first: Any = clear["Profile"]
    for number in range(2, versions + 1):
        same = {**first.__dict__, "__annotations__": dict(first.__annotations__)}
        app.projection("customer", version=number)(type(f"Profile{number}", (Projection,), same))
    return app


app = shop(int(os.environ.get("C360_TEST_VERSIONS", "2")))
