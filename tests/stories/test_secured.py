"""A cluster that asks who one is: TLS, passwords, and the rights of docs/operations/access.md, which are enough."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from confluent_kafka.admin._acl import AclOperation
from confluent_kafka.admin._resource import ResourceType

from c360.engine.kafka import KafkaCluster
from c360.engine.transport import TopicSpec
from tests.stories.secured import Right, secured
from tests.stories.tools import DEADLINE_S, ROOT, c360, stop, wait_until, working

PAGE = ROOT / "docs" / "operations" / "access.md"
ROW = re.compile(
    r"^\| (worker|commands) \| (topic|group|transactional-id) \| (raw|\{app\}\.) \| ([A-Za-z, ]+) \|$", re.MULTILINE
)
APP, NAME, RAW = "tests.stories.secured_town:app", "secured", "crm-secured"
FIRST, MORE = 10, 5
WHY = ("--reason", "ticket 9", "--execute")


def rights_of(who: str) -> list[Right]:
    """As the page says."""
    found = [
        Right(
            ResourceType[kind.replace("-", "_").upper()],
            RAW if name == "raw" else f"{NAME}.",
            [AclOperation[re.sub(r"(?<=[a-z])(?=[A-Z])", "_", word).upper()] for word in may.split(", ")],
            prefix=name != "raw",
        )
        for user, kind, name, may in ROW.findall(PAGE.read_text(encoding="utf-8"))
        if user == who
    ]
    assert len(found) == 4
    return found


def environ(own: dict[str, str]) -> dict[str, str]:
    return {f"C360_KAFKA_{name.upper().replace('.', '_')}": value for name, value in own.items()}


def said(first: int, last: int, path: Path) -> str:
    """Records for `c360 load`, in a file."""
    with path.open("w") as out:
        for n in range(first, last):
            value = {"id": f"e{n}", "customer": str(n), "email": f"p{n}@mail.org"}
            out.write(json.dumps({"topic": RAW, "key": str(n), "value": value}) + "\n")
    return str(path)


@pytest.mark.timeout(400)
def test_worker_agents_calls_and_commands_come_in_with_the_rights_of_the_page(tmp_path: Path) -> None:
    calls, mood, heard, log = (tmp_path / part for part in ("calls", "mood", "heard", "log"))
    mood.write_text("fine")
    calls.touch()
    heard.touch()
    settings = {"STORY": NAME, "CALLS": str(calls), "MOOD": str(mood), "HEARD": str(heard),
                "C360_KEYS": str(tmp_path / "master.key")}  # fmt: skip
    with secured(tmp_path) as cluster:
        KafkaCluster(cluster.inside).admin().create([TopicSpec(RAW, 2)])
        worker = environ(cluster.user("worker", "one word", rights_of("worker")))
        commands = environ(cluster.user("commands", "two words", rights_of("commands")))
        producer = environ(cluster.user("producer", "three", [Right(ResourceType.TOPIC, RAW, [AclOperation.WRITE])]))

        def run(*arguments: str, who: dict[str, str] = commands, **more: str) -> str:
            done = c360(cluster.outside, APP, *arguments, **settings, **who, **more)
            assert done.returncode == 0, f"{arguments}: {done.stderr}"
            return done.stdout

        def firms() -> set[str]:
            return set(heard.read_text().split("\n")) - {"", "None"}

        run("topics", "apply")
        run("keys", "init")
        run("load", said(0, FIRST, tmp_path / "first"), who=producer)
        with working(cluster.outside, tmp_path / "state", log, APP, **settings, **worker) as process:
            wait_until(lambda: len(firms()) == FIRST, process, log)  # asked, folded, and heard by the app's own agent
            assert json.loads(run("profile", "crm:3", "--json"))["attributes"]["firm"] == "Firm of p3"
            run("topics", "check")
            run("doctor")
            assert stop(process) == 0, log.read_text()
        run("reset", "customer@1", "--to-earliest", *WHY)
        run("topics", "apply", VERSIONS="1,2")
        run("load", said(FIRST, FIRST + MORE, tmp_path / "more"), who=producer)
        with working(cluster.outside, tmp_path / "state", log, APP, VERSIONS="1,2", **settings, **worker) as process:
            wait_until(lambda: len(firms()) == FIRST + MORE, process, log)
            run("rebuild", "customer@2", "--execute", VERSIONS="1,2", C360_STATE_DIR=str(tmp_path / "builder"))
            run("promote", "customer@2", *WHY, VERSIONS="1,2")
            run("source", "pause", "contacts", *WHY, VERSIONS="1,2")
            assert json.loads(run("erase", "crm:3", *WHY, "--wait", "--json", VERSIONS="1,2"))["certificate"]
            run("retire", "customer@1", *WHY, "--force", VERSIONS="1,2")
            assert "equal" in run("verify", VERSIONS="1,2")
            assert stop(process) == 0, log.read_text()
        text = log.read_text()
        assert "destroyed" not in text, "Faust's waiting left tasks behind"
        assert not re.search("[Aa]uthoriz|Faust fell over|ERROR", text), text
        for secret in ("one word", "two words"):
            assert secret not in text

        # what is missing is named
        few = [right for right in rights_of("worker") if right.kind is not ResourceType.TRANSACTIONAL_ID]
        unable = environ(cluster.user("unable", "four", few))
        log.write_text("")
        with working(cluster.outside, tmp_path / "other", log, APP, VERSIONS="1,2", **settings, **unable) as process:
            assert process.wait(DEADLINE_S) == 4, log.read_text()
        assert "docs/operations/access.md" in log.read_text()
        for wrong, why in (
            ({"C360_KAFKA_SASL_PASSWORD": "five"}, "SASL authentication error"),
            ({"C360_KAFKA_SSL_CA_LOCATION": "/etc/ssl/certs/ca-certificates.crt"}, "certificate verify failed"),
        ):
            done = c360(cluster.outside, APP, "doctor", **settings | commands | wrong)
            assert (done.returncode, why in done.stdout) == (1, True), done.stdout + done.stderr
