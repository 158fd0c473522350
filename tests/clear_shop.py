"""The example shop with nothing sealed, for stories of machinery, which compare what two runs wrote byte by byte.

Keys are random, so what is sealed is other bytes in each run. It is the source of the example but for that.
"""

from __future__ import annotations

from pathlib import Path

from c360 import App

SHOP = Path(__file__).parents[1] / "examples" / "shop" / "app.py"
CLEAR = {'@app.identifier("email", ': '@app.identifier("email", personal=False, ', "Personal[str]": "str"}


def _clear(source: str) -> str:
    for said, instead in CLEAR.items():
        assert source.count(said) == 1, said
        source = source.replace(said, instead)
    return source


exec(compile(_clear(SHOP.read_text(encoding="utf-8")), str(SHOP), "exec"))
app: App = globals()["app"]
assert not app.plan().needs_keys
