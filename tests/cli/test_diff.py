"""`c360 diff` as it is typed, on a log in memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from jsonschema import Draft202012Validator

from c360.cli import common
from c360.cli.diff import Limit
from c360.cli.main import cli
from c360.ops.diff import Report
from c360.ops.diff.compare import Tally, Terms
from tests.cli.test_json import hold
from tests.docs.pages import schemas
from tests.ops.differing import Moving, Other, versions

MODULE = "tests.cli.test_diff:app"
app = versions(Other)


@pytest.fixture(scope="module")
def world() -> Moving:
    world = Moving(app, 1)
    world.sending = 1.0
    for _ in range(300):
        world.step()
    world.on = False
    world.driver.settle()
    return world


@pytest.fixture
def c360(world: Moving, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(common.Context, "cluster", lambda self, broker=None: world.driver.cluster)

    def run(*words: str) -> Result:
        return CliRunner().invoke(cli, ["-A", MODULE, "diff", "customer@1", "customer@2", *words])

    return run


def test_what_it_prints_as_json_is_what_the_page_says(c360: Any) -> None:

    ran = c360("--json")
    assert ran.exit_code == 0, ran.stderr
    said = json.loads(ran.stdout)
    hold("c360 diff", said)
    assert said["changed"] > 0
    assert said["attributes"]["spend"]["difference"]["sum"].startswith("-")
    sampled = json.loads(c360("--json", "--sample", "5", "--examples", "0").stdout)
    Draft202012Validator(schemas()["c360 diff"]).validate(sampled)
    assert (sampled["sampled"], sampled["equal"] + sampled["changed"], sampled["examples"]) == (5, 5, [])


def test_as_text_it_says_the_numbers_and_shows_examples(c360: Any) -> None:
    ran = c360("--examples", "2")
    assert ran.exit_code == 0, ran.stderr
    assert "profiles compared at one cut" in ran.stdout
    assert "spend: " in ran.stdout
    assert " → " in ran.stdout
    assert "reading profiles: " in ran.stderr


@pytest.mark.parametrize(("limit", "code"), [("0%", 1), ("0", 1), ("100%", 0), ("100000", 0), ("99.9 %", 0)])
def test_more_than_may_differ_is_exit_1(c360: Any, limit: str, code: int) -> None:
    ran = c360("--max-changed", limit)
    assert ran.exit_code == code
    assert ("more than --max-changed allows" in ran.stderr) == bool(code)
    assert "profiles compared" in ran.stdout


def test_a_limit_is_not_kept_where_nothing_could_be_compared() -> None:
    tally = Tally(Terms(()), moving=3)
    report = Report("customer@1", "customer@2", tally, {}, 8, None)
    for limit in (Limit(part=1.0), Limit(profiles=1000)):
        assert limit.over(report)
        tally.equal = 1
        assert not limit.over(report)
        tally.equal = 0


@pytest.mark.parametrize("limit", ["2 percent", "-1", "101%", ""])
def test_what_is_no_limit_is_wrong_use(c360: Any, limit: str) -> None:
    ran = c360("--max-changed", limit)
    assert ran.exit_code == 2
    assert "neither a percentage" in ran.stderr


def test_the_page_is_written_beside(c360: Any, tmp_path: Path) -> None:
    file = tmp_path / "diff.html"
    ran = c360("--html", str(file))
    assert ran.exit_code == 0, ran.stderr
    assert file.read_text().startswith("<!doctype html>")
    missing = c360("--html", str(tmp_path / "no" / "diff.html"))
    assert missing.exit_code == 2
    assert "there is no directory" in missing.stderr


def test_the_local_copy_is_gone_in_the_end(c360: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert c360().exit_code == 0
    assert list(tmp_path.iterdir()) == []
