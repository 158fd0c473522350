"""`docs/reference/metrics.md` lists what a worker's `/metrics` prints: names, types, labels."""

from __future__ import annotations

import math
import re
from contextlib import closing

from c360.agents.govern import Govern
from c360.engine.global_table import GlobalTable
from c360.engine.memory import MemoryCluster
from c360.engine.registry import SchemaRegistry
from c360.identity.rules import DEFAULTS, Rules
from c360.ops.demo import Demo
from c360.ops.traffic import traffic
from c360.serving.metrics import lag_of, page_of
from c360.tables.store import MemoryStores
from c360.testing import TestDriver
from examples.shop.app import app
from tests.docs.pages import REFERENCE, rows
from tests.engine.test_teller import Ground
from tests.governance import decided
from tests.governance.door_shop import SECOND, Street
from tests.identity.stage import IdentityStage
from tests.sources import outside_shop
from tests.sources.registry import FakeRegistry
from tests.sources.test_avro import NINE, ORDER, order
from tests.sources.test_avro import shop as avro_shop

Metric = tuple[str, frozenset[str]]  # type and labels


def asked_outside() -> TestDriver:
    """An app whose function has failed, and that was not let ask."""
    t = TestDriver(outside_shop.app, now=outside_shop.NOW)
    outside_shop.far.said["ann@mail.org"] = "no answer"
    outside_shop.click(t, 1)
    t.settle()
    t.outside[0].caller.counters.shut["keys"] += 1
    return t


def printed() -> dict[str, Metric]:
    """What a worker prints that has seen everything: traffic with misfits, and an error it recovered from."""
    demo = Demo(app.plan(), MemoryCluster(), MemoryStores(), slot="0")
    demo.fold(traffic(2_000, seed=7, end_ms=1_767_225_600_000), lambda glance: None)
    loops = demo.worker.loops
    loops[0].metrics.recovered("TaskMigrated")
    govern = next(loop.agent for loop in loops if isinstance(loop.agent, Govern))
    with closing(SchemaRegistry("http://127.0.0.1:9")) as registry:
        govern.registry = registry
    identity = IdentityStage(Rules("default", DEFAULTS)).loop(MemoryStores())
    copy = GlobalTable("governance", ("shop.tasks",), demo.worker.cluster, MemoryStores(), lambda: 0)
    while copy.age() == math.inf:
        copy.turn()
    teller = Ground().teller(identity)
    street = Street()
    street.customer(1, "Ann")
    street.rights.stopped = True
    street.advance(SECOND * 5)
    street.customer(2, "Bob")
    street.settle()
    door = next(loop for loop in street.loops if loop.agent.name == "sink:crm-sync")
    deciding = decided.driver()
    for status in ("granted", "denied", "perhaps"):
        deciding.send("choices", None, decided.choice("crm:7", status))
    deciding.settle()
    known = FakeRegistry()
    number = known.register(ORDER)
    avro = TestDriver(avro_shop(), now=NINE, registry=known)
    for value in (known.write(number, order(1)), known.write(number, order(2))[:-1]):
        avro.send("orders", "7", value)
    avro.settle()
    asking = asked_outside()
    callers = [calls.caller for calls in asking.outside]
    loops_of_all = [*loops, identity, door, *deciding.loops, *asking.loops, *avro.loops]
    page = page_of(loops_of_all, lag_of(loops, demo.reader), 1_767_225_600_000, [copy], [teller], callers)
    asking.stop()
    street.stop()
    copy.close()
    types = dict(re.findall(r"^# TYPE (\w+) (\w+)$", page, flags=re.MULTILINE))
    found: dict[str, Metric] = {}
    for name, labels in re.findall(r"^(c360_\w+)\{(.*)\} (?:\d+(?:\.\d+)?(?:e-\d+)?|\+Inf)$", page, flags=re.MULTILINE):
        metric = types[name], frozenset(re.findall(r'(\w+)="', labels))
        assert found.setdefault(name, metric) == metric, f"{name} has labels now and then"
    assert found.keys() == types.keys(), "a line that this test does not understand"
    return found


def test_the_page_lists_every_metric_as_it_is_printed() -> None:
    listed = {
        row[0].strip("`"): (row[1], frozenset(row[2].split(", ")))
        for row in rows((REFERENCE / "metrics.md").read_text(encoding="utf-8"))
        if row[0].startswith("`c360_") and not row[0].startswith("`c360_collect_")  # tests/sources/test_collect.py
    }
    assert listed == printed()


def test_large_numbers_keep_their_digits() -> None:
    demo = Demo(app.plan(), MemoryCluster(), MemoryStores(), slot="0")
    demo.fold(traffic(100, seed=7, end_ms=1_767_225_600_000), lambda glance: None)
    demo.worker.loops[0].metrics.records = 1_234_567_891
    assert "} 1234567891\n" in page_of(demo.worker.loops, {}, 0)
