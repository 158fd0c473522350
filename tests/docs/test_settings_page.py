"""`docs/reference/settings.md` lists what `c360/config.py` reads."""

from __future__ import annotations

import tomllib
from pathlib import Path

from c360.config import CLIENT, KNOWN, PREFIX, Settings, read_settings
from c360.engine.kafka_settings import FIXED
from tests.docs.pages import REFERENCE, fences, rows, sections, spans

PAGE = REFERENCE / "settings.md"
TEXT = PAGE.read_text(encoding="utf-8")


def test_the_page_lists_every_setting_by_both_its_names() -> None:
    listed = {row[0].strip("`"): row[1].strip("`") for row in rows(TEXT)[1:]}
    assert listed == {PREFIX + name.upper(): name for name in KNOWN}
    assert f"`{PREFIX}{CLIENT}<NAME>`" in TEXT


def test_the_defaults_are_those_of_the_code(tmp_path: Path) -> None:
    settings = read_settings({}, tmp_path)
    assert settings == Settings()
    defaults = {row[1].strip("`"): row[2] for row in rows(TEXT)[1:]}
    assert defaults["state_dir"] == f"`{settings.state_dir}`"
    assert (settings.app, settings.broker, settings.slot) == (None, None, None)


def test_the_client_settings_that_are_refused_are_listed() -> None:
    listed = set(spans(sections(PAGE)["Kafka client settings"].rpartition(":")[2]))
    assert listed == FIXED


def test_the_example_is_read_as_it_is_written(tmp_path: Path) -> None:
    (block,) = fences(TEXT, "toml")
    (tmp_path / "pyproject.toml").write_text(block)
    settings = read_settings({}, tmp_path)
    said = tomllib.loads(block)["tool"]["c360"]
    assert (settings.app, settings.broker, settings.kafka) == (said["app"], said["broker"], said["kafka"])
    assert read_settings({"C360_BROKER": "other:1", "C360_KAFKA_SASL_MECHANISM": "PLAIN"}, tmp_path).kafka == {
        **said["kafka"],
        "sasl.mechanism": "PLAIN",
    }
