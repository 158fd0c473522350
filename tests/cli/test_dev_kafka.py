"""`c360 dev kafka` in the foreground: one line of output, and an end when told or when Kafka ends."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

from tests.cli.tools import C360, wait_for_line


def children(pid: int) -> list[int]:
    said = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True)
    return [int(word) for word in said.stdout.split()]


def test_it_runs_until_told_to_stop(kafka: str, tmp_path: Path) -> None:
    log = tmp_path / "kafka.log"
    with C360().started(log, "dev", "kafka") as process:
        address = wait_for_line(r"export C360_BROKER=(\S+)", log, process)[1]
        assert log.read_text().splitlines()[0] == address
        ran = C360({"C360_BROKER": address, "C360_APP": "examples.hello:app"})("topics", "check", "--json")
        assert not ran.json["ok"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(40) == 0, log.read_text()


def test_it_fails_when_kafka_ends_by_itself(kafka: str, tmp_path: Path) -> None:
    log = tmp_path / "kafka.log"
    with C360().started(log, "dev", "kafka") as process:
        wait_for_line("Kafka is ready", log, process)
        (keeper,) = children(process.pid)
        (broker,) = children(keeper)
        os.kill(broker, signal.SIGKILL)
        assert process.wait(40) == 1, log.read_text()
    assert "Kafka has ended by itself. Its log ends with:" in log.read_text()
