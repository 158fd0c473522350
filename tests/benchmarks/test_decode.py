"""The measurement of decoding reads what it says that it reads."""

from __future__ import annotations

import json
from typing import Any

import pytest

from benchmarks.decode import Event, Rich, main, readers


def test_formats_that_say_the_same_are_read_as_the_same_records() -> None:
    made = readers(20)
    assert made["json"]() == made["avro"]() == made["avro_by_schema"]() == made["protobuf"]()
    assert made["json_rich"]() == made["avro_rich"]() == made["avro_rich_by_schema"]() == made["protobuf_rich"]()
    assert isinstance(made["avro"]()[0], Event)
    assert isinstance(rich := made["avro_rich"]()[0], Rich)
    assert rich.first == "sku-0"


def test_it_prints_a_figure_for_each_format(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--json", "--rounds", "2", "--records", "10"])
    found: Any = json.loads(capsys.readouterr().out)
    assert {"json", "avro", "protobuf", "segment", "cloudevents", "debezium"} <= found["us"].keys()
    assert all(us["low"] <= us["median"] <= us["high"] for us in found["us"].values())
    main(["--rounds", "1", "--records", "10"])
    assert "noise" in capsys.readouterr().out
