"""`c360 schemas check` as CI runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from c360.codecs.compatibility import RULES
from c360.ops.schemas import OTHER_RULES
from tests.cli.test_json import hold
from tests.cli.tools import C360
from tests.docs.pages import ROOT, fences, rows, schemas, sections
from tests.ops.test_schemas import MICROS, MILLIS, TEXT, Repository, of, record

PAGE = ROOT / "docs" / "schemas.md"


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path)


def test_findings_are_lines_and_json_and_decide_the_exit_code(repository: Repository) -> None:
    c360 = C360(directory=repository.root)
    repository.commit(order=record(of(MILLIS), of(TEXT, "note")))
    clean = c360("schemas", "check")
    assert (clean.code, clean.out) == (0, "1 schemas read what 0 earlier versions wrote\n")
    repository.write("order.avsc", record(of(MILLIS), of(["null", TEXT], "note")))
    warned = c360("schemas", "check")
    assert (warned.code, c360("schemas", "check", "--strict").code) == (0, 1)
    assert warned.out.startswith("schemas/order.avsc: warning: nullable at note: ")
    repository.write("order.avsc", record(of(MICROS), of(["null", TEXT], "note")))
    broken = c360("schemas", "check")
    assert (broken.code, len(broken.out.splitlines())) == (1, 2)
    ran = c360("schemas", "check", "--json")
    assert ran.code == 1
    hold("c360 schemas check", ran.json)
    assert [(f["path"], f["rule"]) for f in ran.json["findings"]] == [
        ("schemas/order.avsc", "unit"), ("schemas/order.avsc", "nullable"),
    ]  # fmt: skip


def test_the_directory_is_an_option_or_a_setting(repository: Repository) -> None:
    repository.commit(order=record(of(TEXT)))
    (repository.root / "more").mkdir()
    (repository.root / "more" / "a.avsc").write_text("{")
    (repository.root / "pyproject.toml").write_text('[tool.c360]\nschemas = "more"\n')
    c360 = C360(directory=repository.root)
    assert "more/a.avsc: error: not-a-schema: " in c360("schemas", "check").out
    assert c360("schemas", "check", "--dir", "schemas").code == 0
    assert c360.having(C360_SCHEMAS="schemas")("schemas", "check").code == 0


def test_outside_of_git_a_note_says_so_and_the_rest_is_checked(tmp_path: Path) -> None:
    (tmp_path / "schemas").mkdir()
    (tmp_path / "schemas" / "a.avsc").write_text(json.dumps(record(of(TEXT))))
    c360 = C360(directory=tmp_path)
    ran = c360("schemas", "check")
    assert ran.code == 0
    assert ran.err.startswith("note: schemas is in no git repository")
    asked = c360("schemas", "check", "--git", "HEAD")
    assert (asked.code, asked.out) == (2, "")
    assert "schemas is in no git repository" in asked.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--dir nowhere", "there is no directory nowhere"),
        ("--dir .", "there is no *.avsc in ."),
        ("", "there is nothing to check"),
        ("--git HEAD", "--git needs a directory of schemas"),
    ],
)
def test_wrong_use_is_exit_2_and_says_what_to_do(words: str, said: str, tmp_path: Path) -> None:
    ran = C360(directory=tmp_path)("schemas", "check", *words.split())
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err


def test_an_app_s_sources_are_checked(tmp_path: Path) -> None:
    """The app of the page."""
    (tmp_path / "shop.py").write_text("\n".join(fences(PAGE.read_text(encoding="utf-8"), "python")))
    c360 = C360(directory=tmp_path)
    ran = c360("-A", "shop", "schemas", "check", "--json")
    assert (ran.code, ran.json["schemas"], ran.json["findings"]) == (0, 1, [])
    text = (tmp_path / "shop.py").read_text()
    (tmp_path / "shop.py").write_text(text.replace("Personal[str | None]", "str | None"))
    ran = c360("-A", "shop", "schemas", "check")
    assert ran.code == 1
    assert ran.out.startswith("shop shop.orders: error: class at email (shop.orders-value): ")


def test_every_rule_is_in_the_page_and_in_the_schema_of_the_output() -> None:
    table = {row[0].strip("`"): row[1] for row in rows(PAGE.read_text(encoding="utf-8"))[1:]}
    assert table == {**RULES, **OTHER_RULES}
    said = schemas()["c360 schemas check"]["properties"]["findings"]["items"]["properties"]["rule"]["enum"]
    assert said == [*RULES, *OTHER_RULES]


def test_the_step_for_ci_is_yaml_with_the_whole_history() -> None:
    (step,) = fences(sections(PAGE)["In CI"], "yaml")
    steps = yaml.safe_load(step)
    assert steps[0]["with"]["fetch-depth"] == 0
    assert steps[-1]["run"] == "c360 schemas check"
