"""What the pages say can be done, can: snippets run, commands and targets exist, links lead somewhere."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from c360.cli.main import cli
from tests.cli.tools import C360
from tests.docs.pages import PAGES, ROOT, fences, prose, spans

README = ROOT / "README.md"
HERE = re.compile(r"(c360|docs|examples|schemas|tests)/[\w./-]+")  # a path in the repository


def told() -> list[tuple[Path, str]]:
    """Every command line in a shell block, and every text in backticks, with its page."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        lines = [line for block in fences(text, "sh") for line in block.splitlines()]
        found += [(page, line) for line in [*lines, *spans(text)]]
    return found


def ids(value: object) -> str:
    return value.name if isinstance(value, Path) else str(value)


@pytest.mark.parametrize("page", [p for p in PAGES if fences(p.read_text(encoding="utf-8"), "python")], ids=ids)
def test_python_snippets_are_an_app_that_runs(page: Path, tmp_path: Path) -> None:
    """Each together with those above it."""
    snippets = fences(page.read_text(encoding="utf-8"), "python")
    for n in range(len(snippets)):
        (tmp_path / "snippet.py").write_text("\n".join(snippets[: n + 1]))
        ran = C360(directory=tmp_path)("-A", "snippet", "plan", "--json")
        assert ran.code == 0, ran.err


def test_the_readme_s_app_is_the_hello_example() -> None:
    """Line for line, without the docstring and empty lines: the example is the source."""
    example = (ROOT / "examples" / "hello.py").read_text(encoding="utf-8").split("\n\n", 1)[1]
    snippet = fences(README.read_text(encoding="utf-8"), "python")[0]
    assert [s for s in snippet.splitlines() if s] == [s for s in example.splitlines() if s]


def refusal(words: list[str]) -> str | None:
    """Why these words after `c360` are no command with options of its own; None if they are one."""
    command: click.Command = cli
    try:
        while True:
            context = click.Context(command)
            _, words, _ = command.make_parser(context).parse_args(words)
            if not isinstance(command, click.Group) or not words:
                return None
            _, found, words = command.resolve_command(context, words)
            assert found is not None
            command = found
    except click.UsageError as error:
        return error.message


def c360_lines() -> list[tuple[Path, list[str]]]:
    found = []
    for page, line in told():
        words = shlex.split(line.replace("'", ""), comments=True)
        if words and words[0] == "c360" and "COMMAND" not in words:
            found.append((page, [re.split(r"[|]", w)[0] for w in words[1:] if w != "&"]))
    return found


@pytest.mark.parametrize(("page", "words"), c360_lines(), ids=ids)
def test_a_command_that_a_page_tells_to_type_exists(page: Path, words: list[str]) -> None:
    assert refusal(words) is None


def test_a_command_that_does_not_exist_would_be_found() -> None:
    assert len(c360_lines()) >= 20
    assert "wroker" in str(refusal(["wroker"]))
    assert "--no-such" in str(refusal(["worker", "--no-such"]))
    assert "shwo" in str(refusal(["-A", "x:y", "dlq", "shwo"]))


def test_make_targets_that_pages_name_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (phony,) = re.findall(r"^\.PHONY: (.*)$", makefile, flags=re.MULTILINE)
    targets = set(phony.split())
    assert targets == set(re.findall(r"^([a-z-]+):.*##", makefile, flags=re.MULTILINE))
    named = {match[1] for _, line in told() if (match := re.match(r"(?:\S+=\S+ )?make ([a-z-]+)", line))}
    assert {"demo", "test", "check"} <= named <= targets


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_links_and_paths_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", prose(text)) if "://" not in link]
    assert [link for link in links if not (page.parent / link).exists()] == []
    paths = [span for span in spans(text) if HERE.fullmatch(span)]
    assert [path for path in paths if not (ROOT / path).exists() and not (page.parent / path).exists()] == []


def test_reasons_of_misfits_are_in_their_table() -> None:
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "c360").rglob("*.py"))
    used = set(re.findall(r'(?:Misfit\(|reason=)\s*"([a-z-]+)"', source))
    page = (ROOT / "docs" / "formats" / "governed.md").read_text(encoding="utf-8")
    listed = set(
        re.findall(r"`([a-z-]+)`", "".join(re.findall(r"^\| (`[^|]*) \|", page.partition("| reason |")[2], re.M)))
    )
    assert listed == used | {"failed"}
