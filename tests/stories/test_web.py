"""What a worker says of itself: that it lives, whether it is ready, and numbers that are those of what was sent."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

from c360.engine.transport import TopicSpec
from tests.stories.notes import ALARMS, SIGNALS
from tests.stories.sent import SECRET, Sent, note
from tests.stories.tools import free_port, get, stop, wait_for_rest, wait_until, working

SAMPLE = re.compile(r'([a-z_][a-z0-9_]*)(?:\{((?:[a-z_]+="(?:[^"\\]|\\.)*",?)*)\})? (-?[0-9.]+(?:e[+-]?[0-9]+)?)\Z')
Metrics = dict[tuple[str, str], float]


def parsed(page: str) -> Metrics:
    """Prometheus text: every family described before its samples, no series twice."""
    described: dict[str, set[str]] = {}
    found: Metrics = {}
    for line in page.splitlines():
        if line.startswith("# "):
            _, what, name, _ = line.split(" ", 3)
            described.setdefault(name, set()).add(what)
            continue
        sample = SAMPLE.match(line)
        assert sample, line
        name, labels, value = sample.groups()
        assert described[name] == {"HELP", "TYPE"}
        assert (name, labels) not in found
        found[name, labels or ""] = float(value)
    return found


def test_metrics_count_what_was_sent_and_the_apps_own_agents_hear_what_was_committed(
    sent: Sent, kafka: str, tmp_path: Path
) -> None:
    log, heard, web = tmp_path / "log", tmp_path / "heard", free_port()
    sent.cluster.admin().create([TopicSpec(f"{sent.name}.{topic}", 1) for topic in (SIGNALS, ALARMS)])
    producer = sent.cluster.producer(f"{sent.name}.signals")

    def tell(topic: str, says: str, end: Callable[[], None] = producer.commit) -> None:
        producer.begin()
        producer.produce(f"{sent.name}.{topic}", b"k", json.dumps({"says": says, "secret": SECRET}).encode())
        end()

    arguments, settings = ("--web-port", str(web)), {"STORY": sent.name, "SIGNALS": str(heard)}
    with working(kafka, tmp_path / "state", log, "tests.stories.notes:heard", *arguments, **settings) as process:
        for n in range(40):
            sent.good(to=f"crm:{n % 10}")
        for _ in range(2):
            sent(b"1", note("twice"), partition=0)
            sent(b"1", SECRET.encode(), bad="not-json")
        sent(b"1", note(None, parts=0), bad="enrichment-failed")
        sent.producer.flush()
        tell(SIGNALS, "one")
        tell(SIGNALS, "aborted", producer.abort)
        tell(SIGNALS, "two")
        for says in ("fine", "break", "after"):
            tell(ALARMS, says)
        wait_for_rest(sent.plan, sent.cluster, process, log)
        wait_until(lambda: get(web, "/ready")[0] == 200, process, log)
        assert get(web, "/health") == (200, '{"healthy": true}')

        def lag() -> float:
            counted = parsed(get(web, "/metrics")[1])
            return sum(n for (name, _), n in counted.items() if name == "c360_lag_records")

        wait_until(lambda: lag() == 0, process, log)
        counted = parsed(get(web, "/metrics")[1])
        for name, labels, value in (
            ("c360_governed_total", 'source="notes"', 41),
            ("c360_duplicates_total", 'source="notes"', 1),
            ("c360_misfits_total", 'source="notes",reason="not-json"', 2),
            ("c360_misfits_total", 'source="notes",reason="enrichment-failed"', 1),
            ("c360_records_total", 'agent="govern"', 45),
            ("c360_records_total", 'agent="customer@1"', 41),
            ("c360_folded_total", 'agent="customer@1"', 41),
            ("c360_lag_records", 'agent="govern"', 0),
            ("c360_lag_records", 'agent="customer@1"', 0),
            ("c360_tasks", 'agent="customer@1",phase="running"', 2),
        ):
            assert counted[name, labels] == value, name

        wanted = {"one", "two", "fine", "break", "after", *(f"note good {n}" for n in range(40))}
        wait_until(lambda: heard.exists() and wanted <= set(heard.read_text().splitlines()), process, log)
        sent.good()
        sent.producer.flush()
        wait_for_rest(sent.plan, sent.cluster, process, log)
        assert stop(process) == 0, log.read_text()
    assert "aborted" not in heard.read_text().splitlines()
    assert "@app.agent breaks raised ValueError" in log.read_text()
    assert SECRET not in log.read_text()
    assert "destroyed" not in log.read_text(), "waiting for Faust once left a task behind each second"
    producer.close()
