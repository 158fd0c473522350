"""Asking outside on a real broker: a far side that hangs, workers that are killed and share the questions, people who agree
later, and a rebuild."""

from __future__ import annotations

import json
import os
import time
import uuid
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest

from c360.engine.kafka import KafkaCluster
from c360.engine.transport import TP, TopicSpec
from c360.ops import keys, topics
from c360.ops.records import records
from c360.ops.verify import verify
from tests.stories.outside_town import CHOICES, CONTACTS, town
from tests.stories.tools import c360, free_port, get, stop, wait_for_rest, wait_until, working

APP = "tests.stories.outside_town:app"
FIRST, MORE = 40, 20
AGREES_S = 20.0  # "within seconds", on a machine with others on it


@pytest.mark.timeout(400)
def test_killed_and_shared_and_rebuilt_it_asks_again_only_what_was_not_answered(kafka: str, tmp_path: Path) -> None:
    name, cluster = f"outside-{uuid.uuid4().hex[:10]}", KafkaCluster(kafka)
    calls, mood, log, key_file = (tmp_path / part for part in ("calls", "mood", "log", "master.key"))
    calls.touch()
    mood.write_text("hangs")
    keys.init_keys(key_file, os.urandom)
    plan = town(name, calls, mood, agree=True).plan()
    settings = {"STORY": name, "AGREE": "1", "CALLS": str(calls), "MOOD": str(mood), "C360_KEYS": str(key_file)}
    admin, reader, producer = cluster.admin(), cluster.reader(), cluster.producer()
    admin.create([TopicSpec(f"{name}.{CONTACTS}", 2), TopicSpec(f"{name}.{CHOICES}", 2)])
    topics.apply(plan, admin)
    keys.make_secret_once(plan, cluster, keys.FileMasterKeys(key_file), os.urandom)

    def send(first: int, last: int) -> None:
        for n in range(first, last):
            email = f"bad{n}@mail.org" if n == 7 else f"p{n}@mail.org"
            said = {"id": f"e{n}", "customer": str(n), "email": email}
            producer.produce(plan.sources[0].topic, f"{n}".encode(), json.dumps(said).encode())
        producer.flush()

    def agree(n: int) -> None:
        at = datetime.now(UTC).isoformat()
        said = {"customer": str(n), "purpose": "marketing", "granted": True, "at": at}
        producer.produce(f"{name}.{CHOICES}", f"{n}".encode(), json.dumps(said).encode())
        producer.flush()

    def values(topic: str) -> list[bytes]:
        partitions = [TP(topic, p) for p in range(admin.topics().get(topic, 0))]
        return [r.value for r in records(reader, reader.starts(partitions)) if r.value is not None]

    def answered() -> int:
        return len(values(f"{name}.outside.firm_of"))

    def ids(answers: list[bytes]) -> set[str]:
        """One that was written by who was killed right after it has come again."""
        return {json.loads(answer)["id"] for answer in answers}

    def asked(of: str = "@") -> Counter[str]:
        """About addresses; "": about customers."""
        return Counter(line for line in calls.read_text().split() if ("@" in line) == bool(of))

    port = free_port()
    with working(kafka, tmp_path / "a", log, APP, "--web-port", str(port), **settings) as process:
        send(0, FIRST)
        wait_until(lambda: len(values(f"{name}.outside.firm_of.questions")) == FIRST, process, log)
        wait_until(lambda: len(asked()) == 4, process, log)
        time.sleep(1.0)
        assert len(asked()) == 4, "so many at a time; the others wait in their topic"
        page = get(port, "/metrics")[1]
        assert 'c360_outside_waiting{agent="outside.firm_of"} 4' in page
        assert f'c360_outside_due_total{{agent="outside.firm_of"}} {FIRST}' in page
        process.kill()
    assert answered() == 0

    mood.write_text("fine")
    with (
        working(kafka, tmp_path / "b", log, APP, **settings) as one,
        working(kafka, tmp_path / "c", log, APP, **settings) as two,
    ):
        wait_until(lambda: answered() >= FIRST - 1, one, log)
        wait_until(lambda: len(values(plan.dlq)) >= 1, one, log)
        mood.write_text("hangs")
        send(FIRST, FIRST + MORE)
        wait_until(lambda: len(asked()) > FIRST + 4, one, log)  # both have some at hand
        assert stop(two) == 0, log.read_text()
        mood.write_text("fine")
        wait_until(lambda: len(asked()) == FIRST + MORE and answered() >= FIRST + MORE - 1, one, log)
        wait_until(lambda: len(values(f"{name}.outside.score_of.withheld")) >= FIRST + MORE, one, log)
        wait_for_rest(plan, cluster, one, log)
        assert asked("") == Counter(), "nobody has agreed"
        agree(3)
        began = time.monotonic()
        wait_until(lambda: asked("") == Counter(["3"]), one, log)
        took_s = time.monotonic() - began
        one.kill()
    assert took_s < AGREES_S
    agree(5)
    with working(kafka, tmp_path / "b", log, APP, **settings) as one:
        wait_until(lambda: len(ids(values(f"{name}.outside.score_of"))) == 2, one, log)
        wait_for_rest(plan, cluster, one, log)
        assert stop(one) == 0, log.read_text()
    assert set(asked("")) == {"3", "5"}

    letters = [json.loads(value) for value in values(plan.dlq)]
    assert {(letter["stage"], letter["reason"]) for letter in letters} == {("outside.firm_of", "raised")}
    assert b"mail.org" not in b"".join(values(plan.dlq))
    assert max(asked().values()) <= 6, "what was at hand of who was killed, or left, is asked again; no more"
    assert sum(asked().values()) <= FIRST + MORE + 4 + 8 + 8
    before, about = asked(), asked("")

    with working(kafka, tmp_path / "b", log, APP, VERSIONS="1,2", **settings) as process:
        built = c360(kafka, APP, "rebuild", "customer@2", "--execute", VERSIONS="1,2", C360_STATE_DIR=str(tmp_path / "r"),
                     **settings)  # fmt: skip
        assert built.returncode == 0, built.stderr
        both = town(name, calls, mood, (1, 2), agree=True).plan()
        wait_for_rest(both, cluster, process, log, tuple(a.name for a in both.agents if a.name != "customer@2"))
        assert stop(process) == 0, log.read_text()
    assert (asked(), asked("")) == (before, about), "a rebuild asks nobody"
    for version in (1, 2):
        profiles = {}
        for found in records(reader, reader.starts([TP(f"{name}.customer.v{version}", p) for p in range(2)])):
            profiles[found.key] = json.loads(found.value or b"null")
        said = {key.decode(): p["attributes"] for key, p in profiles.items() if key is not None and p is not None}
        assert len(said) == FIRST + MORE
        assert {a["answers"] for who, a in said.items() if who != "crm:7"} == {1}
        assert said["crm:9"]["firm"] == "Firm of p9"
        assert (said["crm:7"]["firm"], said["crm:7"]["answers"]) == (None, 0)
    vault = keys.open_vault(both, cluster, keys.FileMasterKeys(key_file), os.urandom)
    report = verify(both, cluster, [a.name for a in both.agents if a.name != "customer@2"], vault=vault)
    assert (report.differences, report.complete, report.lag) == (0, True, 0), report.to_text()
    for client in (admin, reader, producer):
        client.close()
