"""What the tests of documents read out of Markdown pages, and the commands they compare it with."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import click

from c360.cli.main import cli

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference"
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def sections(page: Path) -> dict[str, str]:
    """Text by heading of the second level, fenced blocks included."""
    parts = re.split(r"^## (.+)\n", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def fences(text: str, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def prose(text: str) -> str:
    """The text without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def rows(text: str) -> list[list[str]]:
    """Cells of the rows of all tables, without the lines of dashes."""
    lines = [line for line in prose(text).splitlines() if line.startswith("|")]
    cells = [[c.strip() for c in line.strip("|").split("|")] for line in lines]
    return [row for row in cells if not set(row[0]) <= set("-: ")]


def spans(text: str) -> list[str]:
    """Texts between backticks."""
    return re.findall(r"`([^`\n]+)`", prose(text))


@cache
def schemas() -> dict[str, dict[str, Any]]:
    """The JSON Schema of each command that has one, by heading of the command line's page."""
    found = {}
    for heading, text in sections(REFERENCE / "cli.md").items():
        for block in fences(text, "json"):
            assert heading not in found, f"{heading} has two schemas"
            found[heading] = json.loads(block)
    return found


def commands() -> list[tuple[str, click.Command]]:
    """`c360` and every command that does something, by its words."""

    def under(words: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
        if isinstance(command, click.Group):
            for name, child in command.commands.items():
                yield from under(f"{words} {name}", child)
        else:
            yield words, command

    return [("c360", cli), *under("c360", cli)]


def options_of(command: click.Command) -> set[str]:
    """Its options as typed, without those for help."""
    return {name for p in command.params if isinstance(p, click.Option) and not p.hidden for name in p.opts}
