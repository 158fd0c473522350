"""What `c360 doctor` finds: clocks that differ, and agents without which doors wait."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import count
from pathlib import Path

import pytest

from c360 import App, Record
from c360.engine.global_table import GlobalTable
from c360.engine.memory import MemoryCluster
from c360.engine.transport import TP, TopicSpec
from c360.ops import topics
from c360.ops.doctor import Check, examine
from c360.ops.keys import init_keys, make_secret_once, open_master
from c360.plan import Plan
from c360.tables.store import MemoryStores
from examples.hello import app as hello
from tests.governance.test_rights import clinic

NOW = 1_700_000_000_000


class Nobody:
    """A member that does not mind."""

    def assigned(self, partitions: Sequence[TP]) -> None: ...
    def revoked(self, partitions: Sequence[TP]) -> None: ...
    def lost(self, partitions: Sequence[TP]) -> None: ...


def installed(plan: Plan, broker_ms: int = NOW) -> MemoryCluster:
    cluster = MemoryCluster(now_ms=lambda: broker_ms)
    cluster.admin().create([TopicSpec(topic.name, 2) for topic in plan.topics if not topic.owned])
    topics.apply(plan, cluster.admin())
    return cluster


def found(plan: Plan, cluster: MemoryCluster, path: Path, clock: int = NOW, step: int = 0) -> dict[str, Check]:
    ticks = count(clock, step)
    return {check.name: check for check in examine(plan, cluster, path, clock=lambda: next(ticks))}


@pytest.mark.parametrize(
    ("apart", "ok", "said"),
    [
        (0, True, "differ by less than 1 ms"),
        (250, True, "differ by less than 251 ms"),
        (251, False, "this machine is 251 ms ahead of the broker"),
        (-40_000, False, "this machine is 40000 ms behind the broker"),
    ],
)
def test_a_clock_that_differs_is_said_with_what_to_do(apart: int, ok: bool, said: str, tmp_path: Path) -> None:
    plan = clinic().plan()
    check = found(plan, installed(plan), tmp_path, NOW + apart)["clock"]
    assert (check.ok, bool(check.do)) == (ok, not ok)
    assert said in check.message


def test_a_slow_broker_is_no_clock_that_differs(tmp_path: Path) -> None:
    plan = clinic().plan()
    cluster = installed(plan, NOW + 3_000)
    assert found(plan, cluster, tmp_path, NOW, step=5_000)["clock"].ok, "its time is between our two"


def test_looking_at_the_clock_leaves_nothing_that_reads_as_a_statement(tmp_path: Path) -> None:
    plan = clinic().plan()
    cluster = installed(plan)
    for _ in range(3):
        found(plan, cluster, tmp_path)
    copy = GlobalTable("copy", [plan.fence], cluster, MemoryStores(), clock=lambda: NOW, look_s=0.0)
    for _ in range(5):
        copy.turn()
    copy.fresh(60.0)
    assert list(copy.scan()) == []


def test_an_app_without_a_fence_is_not_asked_for_the_time(tmp_path: Path) -> None:
    plan = hello.plan()
    checks = found(plan, installed(plan), tmp_path, NOW + 99_000)
    assert "clock" not in checks
    assert not {"consent runs", "erasure runs"} & checks.keys()


def test_an_agent_that_nobody_waits_for_may_rest(tmp_path: Path) -> None:
    """Customers can be forgotten, since mail addresses are personal; but nobody has said from where that is asked."""
    app = App("letters")

    @app.identifier("email", personal=True)
    class Email(str): ...

    @app.source("letters", subject="to")
    class Letter(Record):
        to: Email

    plan = app.plan()
    assert plan.agent("erasure")
    assert "erasure runs" not in found(plan, installed(plan), tmp_path)


def test_a_consent_agent_that_nobody_runs_is_said_until_somebody_does(tmp_path: Path) -> None:
    plan = clinic().plan()
    cluster = installed(plan)
    checks = found(plan, cluster, tmp_path)
    for name in ("consent", "erasure"):
        check = checks[f"{name} runs"]
        assert not check.ok
        assert "doors deliver nothing until it runs" in check.message
        member = cluster.consumer(plan.agent(name).group)
        member.subscribe([plan.fence], Nobody())
        assert f"{name} runs" not in found(plan, cluster, tmp_path)


# ------------------------------------------------------------------------------------------------------------- keys
def test_the_master_keys_are_those_of_the_app_or_it_says_what_is_wrong(tmp_path: Path) -> None:
    plan = clinic().plan()
    cluster, path = installed(plan), tmp_path / "keys"

    def looked() -> Check:
        checks = examine(plan, cluster, tmp_path, clock=lambda: NOW, master=lambda: open_master(str(path), str))
        (check,) = [check for check in checks if check.name == "keys"]
        assert bool(check.do) != check.ok
        return check

    assert "there is no master key file" in looked().message
    made = init_keys(path, os.urandom)
    assert (looked().ok, looked().do) == (False, "c360 keys init")
    make_secret_once(plan, cluster, open_master(str(path), str), os.urandom)
    assert (looked().ok, looked().message) == (True, f"generation {made} wraps, and the app's secret opens")
    path.chmod(0o644)
    assert "its mode is 0644" in looked().message
    path.unlink()
    init_keys(path, os.urandom)
    other = looked()
    assert not other.ok
    assert "is not the master key of clinic" in other.message


def test_an_app_that_needs_no_keys_is_not_asked_for_them(tmp_path: Path) -> None:
    plan = hello.plan()
    checks = examine(plan, installed(plan), tmp_path, clock=lambda: NOW, master=lambda: open_master(None, str))
    assert "keys" not in {check.name for check in checks}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("clinic.activation.mail", "what the sink mail was given"),
        ("clinic.patient.v1.research", "the view of patient@1 for research"),
        ("clinic.patient.v7", "the profiles of patient@7"),
    ],
)
def test_topics_that_nobody_keeps_any_more_are_named_with_what_to_do(name: str, said: str, tmp_path: Path) -> None:
    plan = clinic().plan()
    assert plan.app == "clinic"
    cluster = installed(plan)
    before = topics.check(plan, cluster.admin())
    cluster.admin().create([TopicSpec(name, 1), TopicSpec(f"{name}.changelog", 1)])
    (finding,) = [f for f in topics.check(plan, cluster.admin()) if f not in before]
    assert (finding.topic, finding.problem) == (name, "undeclared")
    assert said in finding.message
    assert f"delete it, {name}.changelog and the group {name}" in finding.message
    shown = [c for c in examine(plan, cluster, tmp_path, clock=lambda: NOW) if c.name == "topics" and name in c.message]
    assert [c.ok for c in shown] == [False]
    assert "declare it again" in shown[0].do


def test_topics_of_others_and_of_the_app_itself_are_not_named(tmp_path: Path) -> None:
    plan = clinic().plan()
    cluster = installed(plan)
    before = topics.check(plan, cluster.admin())
    names = [
        "clinic.orders.v1",
        "clinic.activation.old",
        "other.activation.mail",
        "other.activation.mail.changelog",
        "clinics.patient.v1",
        "clinics.patient.v1.changelog",
        "clinic.identity.v9",
        "clinic.identity.v9.changelog",
    ]
    cluster.admin().create([TopicSpec(name, 1) for name in names])
    assert topics.check(plan, cluster.admin()) == before
