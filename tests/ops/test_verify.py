"""`c360 verify` finds one lost, doubled or altered record in whatever an agent wrote, and nothing else."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from c360.engine.transport import TP
from c360.errors import UsageError
from c360.ops import reset
from tests.testing.shop import app, change, click, customer, order
from tests.testing.world import NOW_MS, At, World

CLICKS, CUSTOMERS, ORDERS = "shop.governed.web.clicks.v1", "shop.governed.customers.v1", "shop.governed.orders.v1"
PROFILES, DLQ = "shop.customer.v3", "shop.dlq"


def traffic(world: World) -> None:
    """Repeats, misfits, updates, a delete, a moved row, TOAST, a row read again, tombstones."""
    for n in range(20):
        world.send("web.clicks", f"k{n}", click(f"e{n}", f"{n % 4}", f"shoes/{n % 5}"))
    world.send("web.clicks", "k1", click("e4", "0", "shoes/4"))  # a repeat
    world.send("web.clicks", "k1", click(None, "0", "shoes/4"))  # without an id nothing is a repeat
    world.send("web.clicks", "k1", click(None, "0", "shoes/4"))
    world.send("web.clicks", "k2", click("late", None, "hats/1", ts="2099-01-01T00:00:00Z"))  # clamped
    world.send("web.clicks", "k2", b"{not json")
    world.send("web.clicks", "k2", click("odd", "1", "no section"))  # the enrichment raises
    world.send("web.clicks", "k2", click("nobody", "  "))
    for id in ("0", "1", "2"):
        row = customer(id, f"{id}@example.com", "long")
        world.send("crm.customers", json.dumps({"id": id}), change("r", 10, row, snapshot="true"))
    world.send("crm.customers", '{"id": "1"}', change("u", 20, customer("1", "new@example.com", "longer")))
    toast = "__debezium_unavailable_value"
    world.send("crm.customers", '{"id": "1"}', change("u", 30, customer("1", "toast@example.com", toast)))
    world.send("crm.customers", '{"id": "2"}', change("d", 31, None))
    world.send("crm.customers", '{"id": "2"}', None)
    world.send("crm.customers", '{"id": "0"}', change("r", 40, customer("0", "0@example.com", "long"), snapshot="true"))
    world.send("crm.customers", '{"id": "0"}', change("u", 5, customer("0", "stale@example.com")))
    for n in range(6):
        world.send("crm.orders", json.dumps({"id": n}), change("c", 50 + n, order(n, f"{n % 3}", f"{n * 40}.50")))
    world.send("crm.orders", '{"id": 1}', change("u", 60, order(1, "2", "7.25", placed="2026-10-20T00:00:00Z")))
    world.send("crm.orders", '{"id": 2}', change("u", 61, {"id": 2, "customer": "2", "amount": "much"}))


@pytest.fixture
def world() -> World:
    world = World(app)
    traffic(world)
    world.settle()
    return world


def test_an_undisturbed_run_has_no_differences(world: World) -> None:
    report = world.report()
    assert report.examples == []
    assert report.complete
    assert report.lag == 0
    assert set(report.agents) == {"govern", "identity@1", "customer@3"}
    assert report.positions["web.clicks/0"] + report.positions["web.clicks/1"] == 27
    assert len(world.latest(PROFILES)) == 5
    stages = [m["stage"] for m in world.values(DLQ)]
    assert stages.count("govern") == 4
    assert "customer@3" in stages  # a derived value that divides by zero


def test_agents_are_verified_one_by_one_and_unknown_ones_refused(world: World) -> None:
    assert set(world.report("govern").agents) == {"govern"}
    with pytest.raises(UsageError, match=r"no agent 'other' in 'shop'; it has govern, identity@1, customer@3"):
        world.report("other")


@pytest.mark.parametrize("topic", [CLICKS, CUSTOMERS, ORDERS])
@pytest.mark.parametrize("n", [0, -1])
def test_one_lost_governed_record_is_found(world: World, topic: str, n: int) -> None:
    report = world.report("govern", edit=At(world.cluster, topic, n).lost)
    assert report.differences == 1
    assert (report.examples[0]["kind"], report.examples[0]["topic"]) == ("lost", topic)
    assert world.report("customer@3", edit=At(world.cluster, topic, n).lost).differences >= 1


@pytest.mark.parametrize("topic", [CLICKS, CUSTOMERS, ORDERS])
@pytest.mark.parametrize("n", [0, -1])
def test_one_doubled_governed_record_is_found(world: World, topic: str, n: int) -> None:
    report = world.report("govern", edit=At(world.cluster, topic, n).doubled)
    assert report.differences == 1
    assert report.examples[0]["kind"] == "doubled"


@pytest.mark.parametrize(
    ("topic", "old", "new"),
    [
        (CLICKS, b'"category":"shoes/', b'"category":"shoe/'),
        (CLICKS, b'"at":', b'"at":1'),
        (CLICKS, b'"section":"', b'"section":"x'),
        (CLICKS, b'"cause":', b'"cause":1'),
        (CLICKS, b'"origin":[', b'"origin":["x",'),
        (ORDERS, b'.50"', b'.5"'),
        (CUSTOMERS, b"example.com", b"example.org"),
    ],
)
def test_one_altered_governed_record_is_found(world: World, topic: str, old: bytes, new: bytes) -> None:
    report = world.report("govern", edit=At(world.cluster, topic, 0).altered(old, new))
    assert report.differences >= 1
    assert "altered" in {e["kind"] for e in report.examples}


def test_a_governed_record_in_the_wrong_partition_is_found(world: World) -> None:
    here = At(world.cluster, CLICKS, 0)
    edit = here.altered(b"{", b"{")

    def elsewhere(batch):  # type: ignore[no-untyped-def]  # an Edit
        batch = edit(batch)
        if batch.tp == here.tp:
            batch.keys = [b"crm:somebody else" for _ in batch.keys]
        return batch

    assert world.report("govern", edit=elsewhere).differences >= 1


def test_one_altered_lost_or_doubled_profile_is_found(world: World) -> None:
    last = At(world.cluster, PROFILES, -1)
    for edit, kind in (
        (last.altered(b'"version":3', b'"version":4'), "altered"),
        (last.altered(b'"clicks":', b'"clicks": '), "altered"),  # bytes count, not only values
        (last.doubled, "doubled"),
    ):
        report = world.report("customer@3", edit=edit)
        assert [e["kind"] for e in report.examples] == [kind]
        assert report.differences == 1
    for n in range(len(world.values(PROFILES))):
        record = At(world.cluster, PROFILES, n)
        found = world.report("customer@3", edit=record.lost)
        superseded = At(world.cluster, PROFILES, n)
        assert superseded.offset == record.offset
        assert found.differences <= 1
    assert world.report("customer@3", edit=last.lost).differences == 1


def test_a_profile_that_should_not_be_is_found(world: World) -> None:
    world.producer.produce(PROFILES, b"crm:ghost", b"{}")
    world.producer.flush()
    assert [e["kind"] for e in world.report("customer@3").examples] == ["unexpected"]


def test_lost_and_doubled_dead_letters_are_found(world: World) -> None:
    for edit, kind in ((At(world.cluster, DLQ, 0).lost, "lost"), (At(world.cluster, DLQ, 0).doubled, "doubled")):
        report = world.report("govern", edit=edit)
        assert [(e["kind"], e["topic"]) for e in report.examples] == [(kind, DLQ)]


def test_examples_show_hashes_of_keys_and_are_bounded(world: World) -> None:
    report = world.report(edit=lambda b: b.slice(0, 0) if b.tp.topic in (CLICKS, PROFILES) else b)
    assert report.differences > 20
    assert len(report.examples) == 20
    said = json.dumps(report.to_json()) + report.to_text()
    assert "crm:" not in said.replace('"crm.', "")
    assert "example.com" not in said
    assert report.examples[0]["key"].startswith("sha256:")
    assert "lost: shop.governed.web.clicks.v1/" in report.to_text()


def test_what_is_not_read_yet_is_lag_and_no_difference(world: World) -> None:
    for n in range(7):
        world.send("web.clicks", "k", click(f"new{n}", "0"))
    report = world.report()
    assert (report.differences, report.lag) == (0, 7)
    assert report.complete


def test_before_the_first_commit_everything_is_empty_and_equal() -> None:
    world = World(app)
    traffic(world)
    report = world.report()
    assert (report.differences, report.lag) == (0, 44)
    assert report.positions == {}


def test_a_replayed_misfit_counts_once(world: World) -> None:
    (misfit,) = [m for m in world.values(DLQ) if m["reason"] == "no-subject"]
    headers = [("c360-origin", str(misfit["offset"]).encode()), ("c360-time", str(misfit["timestamp"]).encode())]
    fixed = json.dumps(click("nobody", "3")).encode()
    for _ in range(2):
        world.send("shop.replay.web.clicks", "k2", fixed, partition=misfit["partition"], headers=headers)
        world.settle()
    report = world.report()
    assert report.examples == []
    assert world.latest(PROFILES)["crm:3"]["attributes"]["clicks"] == 6
    assert world.report(edit=At(world.cluster, CLICKS, -1).doubled).differences >= 1


def test_a_replayed_row_counts_once(world: World) -> None:
    (misfit,) = [m for m in world.values(DLQ) if m["topic"] == "crm.orders"]
    assert world.latest(PROFILES)["crm:2"]["attributes"]["orders"] == 3
    headers = [("c360-origin", str(misfit["offset"]).encode()), ("c360-time", str(misfit["timestamp"]).encode())]
    fixed = change("u", 61, order(2, "0", "9.99"))
    for _ in range(2):
        world.send("shop.replay.orders", '{"id": 2}', fixed, partition=misfit["partition"], headers=headers)
        world.settle()
    assert world.latest(PROFILES)["crm:2"]["attributes"]["orders"] == 2
    assert world.report().examples == []
    assert world.report("govern", edit=At(world.cluster, ORDERS, -1).lost).differences == 1


def test_a_truncate_takes_back_the_rows_before_it_in_all_partitions(world: World) -> None:
    world.send("crm.orders", None, change("t", 100, None), partition=0)
    world.settle()
    world.send("crm.orders", '{"id": 9}', change("c", 101, order(9, "1", "3.00")))
    world.settle()
    report = world.report()
    assert report.examples == []
    assert world.latest(PROFILES)["crm:1"]["attributes"]["spend"] == "3.00"
    for n in (0, 5, -1):
        assert world.report("govern", edit=At(world.cluster, ORDERS, n).lost).differences == 1
        assert world.report("govern", edit=At(world.cluster, ORDERS, n).doubled).differences == 1
    assert world.report("govern", edit=At(world.cluster, "shop.truncates.orders", -1).lost).differences >= 1


def test_windows_move_with_the_day_the_projection_has_read(world: World) -> None:
    before = world.latest(PROFILES)["crm:0"]["attributes"]["spend_7d"]
    world.now_ms += 30 * 86_400_000
    world.settle()
    report = world.report()
    assert report.examples == []
    assert before != world.latest(PROFILES)["crm:0"]["attributes"]["spend_7d"] == "0.00"


# ------------------------------------------------------------------------------------------------ not the whole story
def lines(world: World, path: Path, *, skip: int = 0) -> Path:
    """An archive of the raw clicks."""
    said = []
    for p in (0, 1):
        reader = world.cluster.reader()
        for batches in reader.read({TP("web.clicks", p): 0}):
            for b in batches:
                for key, value, at in zip(b.keys, b.values, b.times, strict=True):
                    assert key is not None
                    assert value is not None
                    record = {"topic": "web.clicks", "key": key.decode(), "timestamp": at, "value": value.decode()}
                    said.append(json.dumps(record))
    path.write_text("\n".join(said[skip:]) + "\n")
    return path


def test_cut_input_is_not_complete_until_the_archive_fills_it(world: World, tmp_path: Path) -> None:
    whole = lines(world, tmp_path / "raw.jsonl")
    partial = lines(world, tmp_path / "partial.jsonl", skip=1)
    world.cluster.admin().delete_records({TP("web.clicks", 0): 3, TP("web.clicks", 1): 2})
    report = world.report("govern")
    assert not report.complete
    assert report.examples == []
    assert "retention has cut" in report.to_text()
    assert world.report("govern", edit=At(world.cluster, CLICKS, -1).doubled).differences == 1
    filled = world.report("govern", archive=[whole])
    assert filled.complete
    assert filled.examples == []
    assert not world.report("govern", archive=[partial]).complete


def test_a_projection_that_catches_up_after_a_reset_is_not_complete_until_it_has(world: World) -> None:
    world.stop()
    planned = reset.plan_reset(world.plan, world.cluster, "customer@3")
    reset.execute_reset(world.plan, world.cluster, planned)
    report = world.report("customer@3")
    assert not report.complete
    assert report.differences == 0
    world.start()
    world.settle()
    report = world.report()
    assert report.complete
    assert report.examples == []


def test_an_agent_that_commits_meanwhile_is_not_judged(world: World) -> None:
    """Every look at the output finds it a commit further."""

    def works(batch):  # type: ignore[no-untyped-def]  # an Edit
        if batch.tp.topic == PROFILES:
            world.now_ms += 1
            world.send("web.clicks", "k", click(f"more{world.now_ms}", "0"))
            world.settle()
        return batch.slice(0, 0) if batch.tp.topic == PROFILES else batch

    report = world.report("customer@3", edit=works)
    assert not report.complete
    assert "commits faster" in report.to_text()
    assert world.now_ms > NOW_MS


def test_a_record_that_makes_a_profile_too_large_to_be_written_is_put_aside_and_verified(world: World) -> None:
    before = world.latest(PROFILES)["crm:0"]["attributes"]["clicks"]
    for loop in world.loops:
        loop.settings = replace(loop.settings, record_bytes=4000)
    for n in range(40):
        world.send("web.clicks", "k", click(f"large{n}", "0", f"{n}/" + "x" * 1000))
        world.send("web.clicks", "k", click(f"small{n}", f"s{n % 9}"))
    world.settle()
    letters = [m for m in world.values(DLQ) if m["reason"] == "too-large"]
    assert 0 < len(letters) < 40
    assert {(m["stage"], m["topic"]) for m in letters} == {("customer@3", CLICKS)}
    latest = world.latest(PROFILES)
    assert latest["crm:0"]["attributes"]["clicks"] == before + 40 - len(letters)
    assert sum(latest[f"crm:s{n}"]["attributes"]["clicks"] for n in range(9)) == 40
    assert world.report().examples == []
    n = [m["reason"] for m in world.values(DLQ)].index("too-large")
    assert world.report(edit=At(world.cluster, DLQ, n).lost).differences >= 1
