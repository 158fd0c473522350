"""Commands that do something, on the in-memory log: each tells the audit log, refuses without it, and `audit` shows it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from c360 import App
from c360.cli import apps, audit, dlq, identity, keys, state
from c360.cli.common import Context
from c360.config import Settings
from c360.engine.memory import MemoryCluster
from c360.engine.transport import TP, Cluster, TopicSpec
from c360.ops import audit as auditing
from tests.cli.test_json import hold
from tests.governance.test_rights import clinic
from tests.testing.people import app
from tests.testing.world import World


class Here(Context):
    """The invocation on a cluster of ours."""

    def __init__(self, app: App, cluster: Cluster) -> None:
        super().__init__("people:app")
        self.__dict__["app"], self.here = app, cluster

    def cluster(self, broker: str | None = None) -> Cluster:
        return self.here


@pytest.fixture
def world() -> World:
    world = World(app)
    world.send("visits", "c-1", b"not json")
    world.settle()
    world.stop()
    return world


def call(world: World, command: click.Command, *words: str) -> Result:
    return CliRunner().invoke(command, list(words), obj=Here(app, world.cluster))


def told(world: World) -> list[dict[str, Any]]:
    ran = call(world, audit.audit, "tail", "--json")
    assert ran.exit_code == 0, ran.stderr
    hold("c360 audit tail", json.loads(ran.stdout))
    return [line["record"]["entry"] for line in json.loads(ran.stdout)["records"]]


SEPARATE = ("separate", "crm:1", "crm:2", "--execute", "--reason", "two sisters")
RESET = ("customer@1", "--to-earliest", "--execute", "--reason", "ticket 7")
ACTIONS: list[tuple[click.Command, tuple[str, ...], list[str]]] = [
    (state.reset, RESET, ["intended", "done"]),
    (identity.identity, SEPARATE, ["done"]),
    (identity.identity, ("join", *SEPARATE[1:]), ["done"]),
    (dlq.dlq, ("replay",), ["intended", "done"]),
]


@pytest.mark.parametrize(("command", "words", "stages"), ACTIONS)
def test_what_is_done_is_told_with_who_and_why(
    world: World, command: click.Command, words: tuple[str, ...], stages: list[str]
) -> None:
    ran = call(world, command, *words, "--as", "kim")
    assert ran.exit_code == 0, ran.stderr
    entries = told(world)
    assert [entry["after"]["stage"] for entry in entries] == stages
    assert {entry["who"] for entry in entries} == {"kim"}
    reasons = {words[words.index("--reason") + 1]} if "--reason" in words else {""}
    assert {entry["reason"] for entry in entries} == reasons
    assert call(world, audit.audit, "verify").exit_code == 0


@pytest.mark.parametrize(("command", "words", "stages"), ACTIONS)
def test_without_the_log_nothing_is_done_and_the_command_that_makes_it_is_named(
    world: World, command: click.Command, words: tuple[str, ...], stages: list[str]
) -> None:
    everything = [name for name in world.cluster.admin().topics() if name != world.plan.audit]
    world.cluster.admin().delete([world.plan.audit])

    def state_now() -> object:
        reader, counts = world.cluster.reader(), world.cluster.admin().topics()
        ends = reader.ends([TP(name, p) for name in everything for p in range(counts[name])])
        return ends, [world.cluster.admin().group_offsets(agent.group) for agent in world.plan.agents]

    before = state_now()
    ran = call(world, command, *words)
    assert (ran.exit_code, ran.stdout) == (4, "")
    assert "there is no audit log people.audit: `c360 topics apply` makes it" in ran.stderr
    assert state_now() == before
    assert stages


def test_a_dry_run_tells_nothing_and_needs_no_log(world: World) -> None:
    assert call(world, state.reset, "customer@1", "--to-earliest").exit_code == 0
    assert call(world, identity.identity, "separate", "crm:1", "crm:2").exit_code == 0
    assert told(world) == []
    world.cluster.admin().delete([world.plan.audit])
    assert call(world, state.reset, "customer@1", "--to-earliest").exit_code == 0


def test_a_refusal_is_told_and_a_mistyped_command_is_not(world: World) -> None:
    read = call(world, state.reset, "govern", *RESET[1:])
    world.start()
    world.settle()
    running = call(world, state.reset, *RESET)
    for ran, entry in zip((read, running), told(world), strict=True):
        assert (ran.exit_code, ran.stdout) == (4, "")
        assert (entry["what"], entry["after"]["stage"], entry["reason"]) == ("reset", "refused", "ticket 7")
        assert entry["after"]["why"] in ran.stderr
    n = 2
    for words in (("nobody", *RESET[1:]), ("customer@1", "--execute", "--reason", "x"), RESET[:3]):
        assert call(world, state.reset, *words).exit_code == 2
    assert call(world, identity.identity, "separate", "crm:1", "crm:1", *SEPARATE[3:]).exit_code == 2
    assert len(told(world)) == n


def test_a_reason_with_an_address_is_refused_and_kept_nowhere(world: World) -> None:
    for command, words, _ in ACTIONS[:3]:
        ran = call(world, command, *words[:-1], "ann@mail.org wants it")
        assert ran.exit_code == 2
        assert "mail address" in ran.stderr
    assert told(world) == []
    assert not any(b"ann@" in (value or b"") for _, value in world.read(world.plan.links))


def test_undoing_needs_no_reason_and_is_told_as_such(world: World) -> None:
    assert call(world, identity.identity, *SEPARATE).exit_code == 0
    assert call(world, identity.identity, *SEPARATE[:3], "--undo", "--execute").exit_code == 0
    assert [entry["after"].get("undo") for entry in told(world)] == [None, "yes"]


def test_topics_that_are_made_are_told_and_none_are_not() -> None:
    cluster = MemoryCluster()
    world = World(app)
    cluster.admin().create([TopicSpec(source.topic, 2) for source in world.plan.sources])
    here = Here(app, cluster)
    for made in (True, False):
        ran = CliRunner().invoke(apps.topics, ["apply", "--json", "--as", "kim"], obj=here)
        assert ran.exit_code == 0, ran.stderr
        assert bool(json.loads(ran.stdout)["created"]) == made
    lines, _ = auditing.tail(world.plan, cluster, 10)
    assert [line.record.entry.after["stage"] for line in lines if line.record] == ["intended", "done"]


def test_master_keys_that_are_made_and_rotated_are_told_by_generation_and_not_by_key(tmp_path: Path) -> None:
    cluster, file = MemoryCluster(), tmp_path / "keys"
    here = Here(clinic(), cluster)
    here.__dict__["settings"] = Settings(keys=str(file), broker="here")
    cluster.admin().create([TopicSpec(t.name, 2) for t in here.plan.topics if not t.owned])
    for words in (["init"], ["init"], ["rotate"], ["rotate", "--new-only"]):
        ran = CliRunner().invoke(keys.keys, [*words, "--as", "kim"], obj=here)
        assert ran.exit_code == 0, ran.output
    lines, _ = auditing.tail(here.plan, cluster, 99)
    told = [line.record.entry for line in lines if line.record]
    assert [(e.what, e.after["stage"], e.after.get("secret"), e.after.get("wrapped")) for e in told] == [
        ("topics apply", "intended", None, None), ("topics apply", "done", None, None),
        ("keys init", "intended", None, None), ("keys init", "done", "made", None),
        ("keys init", "intended", None, None), ("keys init", "done", "there", None),
        ("keys rotate", "intended", None, None), ("keys rotate", "done", None, "1"),
    ]  # fmt: skip
    assert told[-1].after["generation"] != told[-1].before["generation"] == told[2].after["generation"]
    secrets = [key["key"] for key in json.loads(file.read_bytes())["keys"]]
    assert not any(secret in repr(told) for secret in secrets)
    assert auditing.verify(here.plan, cluster).findings == []


# ---------------------------------------------------------------------------------------------------- looking at it
def test_the_tail_reads_as_a_sentence_per_entry_and_cannot_write_to_a_terminal(world: World) -> None:
    assert call(world, identity.identity, *SEPARATE, "--as", "kim\x1b[2J").exit_code == 0
    ran = call(world, audit.audit, "tail")
    (line,) = ran.stdout.splitlines()
    assert "kim?[2J separate done crm:1 crm:2  because two sisters" in line
    assert "was profiles=crm:1, crm:2" in line
    producer = world.cluster.producer()
    producer.produce(world.plan.audit, b"x", b"nothing", 0)
    producer.flush()
    assert "NO RECORD OF AN AUDIT LOG" in call(world, audit.audit, "tail", "-n", "1").stdout


def test_what_comes_is_followed_as_one_document_per_line(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(3):
        assert call(world, identity.identity, *SEPARATE).exit_code == 0
    real = auditing.follow

    def two(*words: Any) -> Iterator[auditing.Line]:
        assert call(world, dlq.dlq, "replay").exit_code == 0
        return islice(real(*words), 2)

    monkeypatch.setattr(auditing, "follow", two)
    ran = call(world, audit.audit, "tail", "-n", "1", "--follow", "--json")
    assert ran.exit_code == 0, ran.stderr
    lines = [json.loads(line) for line in ran.stdout.splitlines()]
    assert [line["record"]["entry"]["what"] for line in lines] == ["separate", "dlq replay", "dlq replay"]
    for line in lines:
        hold("c360 audit tail", {"records": [line]})


def verify(world: World, *words: str) -> tuple[int, dict[str, Any]]:
    ran = call(world, audit.audit, "verify", "--json", *words)
    found = json.loads(ran.stdout)
    hold("c360 audit verify", found)
    return ran.exit_code, found


def rewritten(world: World, change: Callable[[list[bytes]], list[bytes]]) -> None:
    """Somebody with too many rights makes the log anew."""
    log = [value or b"" for _, value in world.read(world.plan.audit)]
    admin = world.cluster.admin()
    admin.delete([world.plan.audit])
    admin.create([TopicSpec(world.plan.audit, 1)])
    producer = world.cluster.producer()
    for value in change(log):
        producer.produce(world.plan.audit, b"cli", value, 0)
    producer.flush()


def test_heads_that_are_kept_are_renewed_while_the_log_is_right_and_left_when_it_is_not(
    world: World, tmp_path: Path
) -> None:
    kept = tmp_path / "heads.json"
    both = ("--heads", str(kept), "--write-heads", str(kept))
    for command, words, _ in ACTIONS:
        assert call(world, command, *words).exit_code == 0
    code, first = verify(world, *both[2:])
    assert (code, first["records"], first["chains"], first["whole"], first["findings"]) == (0, 6, 4, True, [])
    assert json.loads(kept.read_text())["heads"] == first["heads"]
    assert call(world, dlq.dlq, "replay").exit_code == 0
    assert verify(world, *both)[1]["chains"] == 5
    good = kept.read_bytes()
    rewritten(world, lambda log: log[:-2])
    assert verify(world)[0] == 0, "of the last run nobody but the kept heads knows"
    code, cut = verify(world, *both)
    assert (code, [f["problem"] for f in cut["findings"]]) == (1, ["cut"])
    assert kept.read_bytes() == good
    said = call(world, audit.audit, "verify", *both)
    assert "was left as it is" in said.stderr
    assert "was there, and is not any more" in said.stdout


def test_a_byte_that_was_changed_is_a_finding(world: World) -> None:
    for command, words, _ in ACTIONS:
        assert call(world, command, *words).exit_code == 0
    rewritten(world, lambda log: [*log[:2], log[2].replace(b"two sisters", b"too sisters"), *log[3:]])
    code, found = verify(world)
    assert code == 1
    assert [(f["problem"], f["offset"]) for f in found["findings"]] == [("altered", 2)]
    said = call(world, audit.audit, "verify").stdout
    assert "altered: cli/" in said
    assert "1 FINDINGS" in said


def test_a_beginning_that_was_deleted_is_said(world: World) -> None:
    for command, words, _ in ACTIONS:
        assert call(world, command, *words).exit_code == 0
    world.cluster.admin().delete_records({TP(world.plan.audit, 0): 4})
    code, found = verify(world)
    assert (code, found["whole"], found["findings"]) == (0, False, [])
    assert "the beginning of the log is gone" in call(world, audit.audit, "verify").stdout
