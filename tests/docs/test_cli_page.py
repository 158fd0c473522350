"""`docs/reference/cli.md` has every command and option, and no other; its schemas are strict ones."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import click
import pytest
from jsonschema import Draft202012Validator

from c360.errors import C360Error
from tests.docs.pages import REFERENCE, commands, options_of, rows, schemas, sections

PAGE = REFERENCE / "cli.md"
SHARED = "What all commands share"
OPEN = {"attributes"}  # objects whose keys are the app's


def test_every_command_has_its_heading_and_no_heading_is_without_a_command() -> None:
    assert sections(PAGE).keys() == {SHARED, *dict(commands())}


@pytest.mark.parametrize(("heading", "command"), commands())
def test_every_option_is_in_the_table_of_its_command_and_no_other(heading: str, command: click.Command) -> None:
    text = sections(PAGE)[heading]
    listed = {name for row in rows(text) for name in re.findall(r"`(-[^`]*)`", row[0])}
    assert listed - {"-h", "--help"} == options_of(command)
    assert set(re.findall(r"`(--[a-z-]+)`", text)) <= {o for _, other in commands() for o in options_of(other)} | {
        "--help"
    }


@pytest.mark.parametrize(("heading", "command"), commands())
def test_every_option_explains_itself(heading: str, command: click.Command) -> None:
    assert command.help
    assert [p.name for p in command.params if isinstance(p, click.Option) and not p.help] == []


def test_the_exit_codes_are_those_of_the_errors() -> None:
    listed = {int(row[0]) for row in rows(sections(PAGE)[SHARED])[1:]}
    errors: list[type[C360Error]] = [C360Error, *C360Error.__subclasses__()]
    assert listed == {0, 130, *(error.exit_code for error in errors)}


def objects(schema: Any, name: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every part of a schema that describes an object, with the key it is under."""
    if isinstance(schema, dict):
        if "object" in schema.get("type", ()):
            yield name, schema
        for key, part in schema.items():
            yield from objects(part, key)
    elif isinstance(schema, list):
        for part in schema:
            yield from objects(part, name)


@pytest.mark.parametrize("heading", schemas())
def test_a_schema_names_every_key_and_asks_for_all(heading: str) -> None:
    schema = schemas()[heading]
    Draft202012Validator.check_schema(schema)
    for name, part in objects(schema):
        if name in OPEN:
            continue
        if "properties" in part:
            assert part["additionalProperties"] is False, name
            assert sorted(part["required"]) == sorted(part["properties"]), name
        else:
            assert "type" in part["additionalProperties"] or "$ref" in part["additionalProperties"], name
