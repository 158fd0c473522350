"""Who may import whom. A room is a package under `c360/` or a module beside them; nothing is run, only parsed."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
WORDS = {"errors", "events", "clock", "config"}  # imported by all
DOMAIN = {"identity", "governance", "profile"}  # pure; the three do not know each other
SAYING = {
    "classes",
    "declare",
    "rights",
    "outside",
    "plan",
    "app",
}  # what a user can say; each other's, and what they are said in
MACHINE = {"codecs", "tables", "engine"}  # has never heard of a customer
LOOKED_INTO = DOMAIN | SAYING | MACHINE | {"agents"}

MAY_IMPORT: dict[str, set[str]] = {
    **{room: set() for room in WORDS},  # nothing of ours,
    "config": {"errors"},  # but this one refuses misspelt settings
    **dict.fromkeys(DOMAIN, WORDS),
    "codecs": WORDS,
    "tables": WORDS | {"codecs"},
    "engine": WORDS | {"codecs", "tables"},
    **dict.fromkeys(SAYING, WORDS | DOMAIN | SAYING | {"codecs"}),
    "agents": WORDS | DOMAIN | SAYING | MACHINE,  # the corridor, the only place that sees both wings
    "serving": WORDS | LOOKED_INTO,
    "ops": WORDS | LOOKED_INTO | {"testing"},  # `verify` compares with the oracle, which lives in testing
    "assembly": WORDS | LOOKED_INTO | {"serving", "ops"},
    "cli": WORDS | LOOKED_INTO | {"serving", "ops", "assembly", "c360"},
    "testing": WORDS | LOOKED_INTO | {"serving", "ops", "assembly", "c360"},  # enters any room; only ops enters it
    "__main__": {"cli"},  # python -m c360
    "c360": WORDS | DOMAIN | SAYING | {"codecs"},  # the front door, c360/__init__.py
}
EXCEPTIONS: dict[str, set[str]] = {
    "c360.ops.demo": {"c360", "assembly", "serving"},  # an app of its own and a whole worker, to show what one does
    "c360.ops.bench": {"assembly", "serving"},  # a whole worker, to measure it
}

# What only one module may touch: a change of client, store or framework is a change of one file.
ONE_DOOR: dict[str, set[str]] = {
    "confluent_kafka": {"c360.engine.kafka", "c360.engine.kafka_errors", "c360.engine.registry"},
    "rocksdict": {"c360.tables.rocks"},
    "os.environ": {"c360.config"},
    "faust": {"c360.agents.user"},
    "aiokafka": {"c360.engine.aio", "c360.agents.user"},
    "aiohttp.web": {"c360.serving.web", "c360.serving.collect"},
    "google.protobuf": {  # an extra: who imports these does so where it is needed
        "c360.app",
        "c360.codecs.fitting",
        "c360.codecs.messages",
        "c360.codecs.protobuf",
        "c360.testing.oracle.messages",
    },
}


class Import(NamedTuple):
    where: str  # file:line
    module: str  # who imports
    name: str  # what, as far as it is written


def room_of(module: str) -> str:
    return module.removeprefix("c360.").partition(".")[0]


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_in(path: Path, module: str, source: str) -> Iterator[Import]:
    """Every import in a file, also those inside functions and for type checkers only, and every use of `os.environ`."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(source, str(path))):
        where = f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Import):
            yield from (Import(where, module, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from (Import(where, module, f"{base}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "os":
            yield Import(where, module, f"os.{node.attr}")


def broken_rooms(imports: list[Import]) -> Iterator[str]:
    for where, module, name in imports:
        if name != "c360" and not name.startswith("c360."):
            continue
        here, there = room_of(module), room_of(name)
        if there not in MAY_IMPORT:
            there = "c360"  # `from c360 import App`: the front door
        if here not in MAY_IMPORT:
            yield f"{where}: the room '{here}' is not in MAY_IMPORT (tests/test_layers.py): say what it may import"
        elif here != there and there not in MAY_IMPORT[here] | EXCEPTIONS.get(module, set()):
            allowed = ", ".join(sorted(MAY_IMPORT[here])) or "nothing of ours"
            yield f"{where}: {module} imports {name}, but '{here}' may import {allowed}"


def broken_doors(imports: list[Import]) -> Iterator[str]:
    for where, module, name in imports:
        name = "os.environ" if name in ("os.getenv", "os.environb", "os.putenv") else name
        for door, users in ONE_DOOR.items():
            if f"{name}.".startswith(f"{door}.") and module not in users:
                yield f"{where}: {module} uses {door}, but only {' and '.join(sorted(users))} may"


def all_imports() -> list[Import]:
    found: list[Import] = []
    for path in sorted((ROOT / "c360").rglob("*.py")):
        found += imports_in(path, module_of(path), path.read_text(encoding="utf-8"))
    return found


def test_every_room_imports_only_what_it_may() -> None:
    broken = list(broken_rooms(all_imports()))
    assert not broken, "\n".join(broken)


def test_clients_stores_frameworks_and_the_environment_have_one_door_each() -> None:
    broken = list(broken_doors(all_imports()))
    assert not broken, "\n".join(broken)


@pytest.mark.parametrize(
    ("path", "source", "rule"),
    [
        ("c360/identity/graph.py", "from c360.profile import fold", "'identity' may import"),
        ("c360/engine/loop.py", "def f():\n    import c360.agents.govern", "loop.py:2"),
        ("c360/engine/loop.py", "from ..agents import govern", "imports c360.agents.govern"),
        ("c360/errors.py", "from c360 import clock", "nothing of ours"),
        ("c360/agents/govern.py", "from c360.testing import oracle", "'agents' may import"),
        ("c360/attic/old.py", "import c360.errors", "is not in MAY_IMPORT"),
        ("c360/ops/topics.py", "from confluent_kafka.admin import AdminClient", "only c360.engine.kafka and"),
        ("c360/tables/store.py", "import rocksdict", "only c360.tables.rocks"),
        ("c360/cli/run.py", "from aiohttp import web", "only c360.serving.collect and c360.serving.web may"),
        ("c360/ops/slot.py", "import os\nwho = os.environ['USER']", "slot.py:2"),
        ("c360/ops/slot.py", "from os import getenv", "uses os.environ"),
    ],
)
def test_a_broken_rule_is_found_and_named(path: str, source: str, rule: str) -> None:
    found = list(imports_in(ROOT / path, module_of(ROOT / path), source))
    said = [*broken_rooms(found), *broken_doors(found)]
    assert len(said) == 1
    assert rule in said[0]


def test_importing_c360_starts_no_client_and_no_framework() -> None:
    """Whoever only declares an app pays for no broker client, store or web server, and needs none of them to work."""
    heavy = "{'faust', 'aiohttp', 'aiokafka', 'confluent_kafka', 'rocksdict'}"
    program = f"import sys, c360; print(*sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []
