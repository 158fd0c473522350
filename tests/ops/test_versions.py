"""Versions from rebuild to retirement, on the in-memory log with real workers: what is refused, what a crash leaves behind."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from decimal import Decimal
from itertools import count as count_up
from pathlib import Path
from typing import Any

import orjson
import pytest

from c360 import App, Projection, Record, count, newest, total
from c360.agents.control import Live, VersionState, live_key, version_key
from c360.agents.erasure import KNOWN
from c360.assembly import Worker
from c360.engine.memory import MemoryCluster
from c360.engine.transport import TP, TopicSpec
from c360.errors import BrokerAway, C360Error, NeedsOperator, NotYet, UsageError
from c360.governance.erasure import Known, encode_known
from c360.ops import control, rebuild, topics, versions
from c360.ops.audit import Run
from c360.ops.records import follow
from c360.ops.versions import Waiting
from c360.plan import Plan
from c360.tables.store import MemoryStores
from c360.testing.faults import At, FaultyCluster
from tests.ops.differing import alike

DEADLINE_S = 60.0


def shop(*numbers: int, partitions: int = 2, other: bool = False, card: str = "card") -> Plan:
    """The versions of `customer` with these numbers, all of the same logic. `other`: the second follows rules of its own;
    `card`: the namespace of what makes two one."""
    app = App("shop", partitions=partitions)

    @app.identifier("crm", unique=True)
    class Crm(str): ...

    @app.identifier(card, limit=50)
    class Card(str): ...

    everyone = app.purpose("service", basis="contract")

    @app.source("orders", event_id="id", subject="crm", purposes=[everyone])
    class Order(Record):
        id: int
        crm: Crm
        card: Card | None
        amount: Decimal

    class Sums(Projection):
        spend: Decimal = total(Order.amount)
        orders: int = count(Order)
        card: str | None = newest(Order.card)

    rules = app.identity("other", changes={Card: {"limit": 1}}) if other else None
    for number in numbers:
        followed = rules if number == 2 else None
        app.projection("customer", version=number, purposes=[everyone], identity=followed)(alike(Sums, f"Sums{number}"))
    return app.plan()


class Town:
    """A broker with traffic, and an ordinary worker."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.cluster = plan, MemoryCluster()
        self.cluster.admin().create([TopicSpec("orders", 2)])
        topics.apply(plan, self.cluster.admin())
        control.write(plan, self.cluster, [(live_key("customer"), Live(1))])
        self.sent = 0

    def order(self, customers: int = 20, times: int = 3) -> None:
        producer = self.cluster.producer()
        for _ in range(times):
            for i in range(customers):
                self.sent += 1
                said = {"id": self.sent, "crm": str(i), "amount": f"{self.sent}.50"}
                if i % 3 == 0:
                    said["card"] = f"house{i % 2}"  # some customers are one
                producer.produce("orders", str(i).encode(), orjson.dumps(said))
        producer.flush()

    @contextmanager
    def worker(self, *only: str, slot: str = "ordinary", plan: Plan | None = None) -> Iterator[Worker]:
        worker = Worker(plan or self.plan, self.cluster, MemoryStores(), slot, only=only)
        thread = threading.Thread(target=_quietly(worker))
        thread.start()
        try:
            yield worker
        finally:
            worker.stop()
            thread.join()
        assert worker.error is None

    def profiles(self, version: int) -> dict[bytes, Any]:
        """Without what says which version it is."""
        reader, found = self.cluster.reader(), dict[bytes, bytes]()
        topic = f"shop.customer.v{version}"
        follow(reader, reader.starts([TP(topic, p) for p in range(self.plan.partitions)]), found)
        return {key: value.replace(b'"version":%d' % version, b'"version":N') for key, value in found.items()}

    def built(
        self, agent: str, crew: rebuild.Crew | None = None, stopped: Callable[[], bool] = lambda: False
    ) -> rebuild.Built:
        return rebuild.build(
            self.plan, self.cluster, agent, lambda course: crew or Threads(self, course), lambda report: None, stopped,
            waiting=soon(),
        )  # fmt: skip

    def stage(self, version: int) -> str:
        return control.read(self.plan, self.cluster).stage(self.plan, "customer", version)

    def wait(self, true: Callable[[], bool]) -> None:
        assert Waiting(DEADLINE_S)(true)


def _quietly(worker: Worker) -> Callable[[], None]:
    def run() -> None:
        with suppress(C360Error):  # it is in worker.error
            worker.run()

    return run


class Threads:
    """Builds with a worker of this process."""

    def __init__(self, town: Town, course: rebuild.Course) -> None:
        only = [course.agent.name, *(view.name for view in course.views)]
        self.worker = Worker(town.plan, town.cluster, MemoryStores(), "rebuild", only=only)
        self.thread = threading.Thread(target=_quietly(self.worker))

    def start(self) -> None:
        self.thread.start()

    def failed(self) -> str | None:
        return None if self.thread.is_alive() else repr(self.worker.error)

    def stop(self) -> None:
        self.worker.stop()
        self.thread.join()


def soon() -> Waiting:
    return Waiting(10.0)


def test_a_version_is_built_beside_promoted_rolled_back_and_retired_while_traffic_goes_on() -> None:
    town = Town(shop(1, 2))
    town.order()
    with town.worker() as worker:
        town.wait(lambda: len(town.profiles(1)) > 0)
        built = town.built("customer@2")
        assert (built.state, built.resumed, town.stage(2)) == ("ready", False, "ready")
        town.order()  # ordinary workers go on with it
        assert versions.promote(town.plan, town.cluster, "customer@2", waiting=soon(), run=None).done is False
        assert town.stage(2) == "ready", "looking changes nothing"
        switch = versions.plan_promote(town.plan, control.read(town.plan, town.cluster), "customer@2")
        versions.check(town.plan, town.cluster, switch, soon(), erasing=True)
        versions.switch_over(town.plan, town.cluster, switch)
        assert (town.stage(1), town.stage(2)) == ("previous", "live")
        assert versions.plan_promote(town.plan, control.read(town.plan, town.cluster), "customer@2").done
        town.order()
        town.wait(lambda: town.profiles(1) == town.profiles(2) != {})
        back = versions.plan_rollback(town.plan, control.read(town.plan, town.cluster), "customer")
        versions.check(town.plan, town.cluster, back, soon(), erasing=False)
        versions.switch_over(town.plan, town.cluster, back)
        assert (town.stage(1), town.stage(2)) == ("live", "previous")
        gone = versions.plan_retire(town.plan, town.cluster, "customer@2", force=True, state_dir=None)
        versions.execute_retire(town.plan, town.cluster, gone, Waiting(DEADLINE_S))
        assert town.stage(2) == "retired"
        assert not [topic for topic in town.cluster.admin().topics() if topic.startswith("shop.customer.v2")]
        assert {loop.agent.name for loop in worker.loops} >= {"customer@1", "customer@1:service"}
        town.order()
        town.wait(lambda: b'"orders":12' in b"".join(town.profiles(1).values()))
    with town.worker():  # it does not come back
        town.order()
        town.wait(lambda: b'"orders":15' in b"".join(town.profiles(1).values()))
        assert not [topic for topic in town.cluster.admin().topics() if topic.startswith("shop.customer.v2")]


# --------------------------------------------------------------------------------------------------------- what is refused
def decided(town: Town) -> Mapping[bytes, bytes]:
    return control.read(town.plan, town.cluster).values


@pytest.mark.parametrize(
    ("agent", "states", "error", "says"),
    [
        ("customer@4", {}, UsageError, "customer@3, and no customer@4: decorate the new class"),
        ("customer", {}, UsageError, "which version of customer"),
        ("client@1", {}, UsageError, "has no projection 'client'; it has customer"),
        ("identity@1", {}, UsageError, "builds by itself"),
        ("customer@2", {}, NotYet, "customer@2 is live"),
        ("customer@1", {}, NotYet, "customer@1 is lower than customer@2, which is live.*version=4"),
        ("customer@3", {"customer@3": VersionState("retired")}, NotYet, "a number is used once: declare .* version=4"),
        ("customer@3", {"customer@3": VersionState("ready")}, NotYet, r"is built: c360 diff customer@2 customer@3"),
        ("customer@3", {"customer@9": VersionState("retired"), "customer@3": VersionState("retired")}, NotYet, "version=10"),
    ],
)  # fmt: skip
def test_what_cannot_be_built_is_refused_and_nothing_is_changed(
    agent: str, states: Mapping[str, VersionState], error: type[C360Error], says: str
) -> None:
    town = Town(shop(1, 2, 3))
    control.write(town.plan, town.cluster, [(version_key(name), state) for name, state in states.items()])
    control.write(town.plan, town.cluster, [(live_key("customer"), Live(2))])
    before = decided(town)
    with pytest.raises(error, match=says):
        town.built(agent)
    assert decided(town) == before


def test_the_version_before_is_not_built_again() -> None:
    town = Town(shop(1, 2))
    control.write(town.plan, town.cluster, [(live_key("customer"), Live(2, 1))])
    with pytest.raises(NotYet, match="customer@1 is the version that c360 rollback customer goes back to"):
        town.built("customer@1")


def test_where_no_worker_has_ever_said_which_version_is_live_a_rebuild_says_so_first() -> None:
    town = Town(shop(1, 2))
    control.write(town.plan, town.cluster, [(live_key("customer"), None)])
    town.cluster.admin().set_group_offsets(town.plan.agent("customer@1").group, {TP(town.plan.tasks, 0): 1})
    assert town.built("customer@2").state == "ready"
    assert (town.stage(1), town.stage(2)) == ("live", "ready")


def test_a_version_is_built_by_one_at_a_time() -> None:
    town = Town(shop(1, 2))
    held = rebuild.hold(town.plan, town.cluster, town.plan.agent("customer@2"), soon())
    with pytest.raises(NotYet, match="customer@2 is being built by another c360 rebuild"):
        rebuild.hold(town.plan, town.cluster, town.plan.agent("customer@2"), Waiting(0.5))
    assert held.keep()
    town.cluster.expire(held.consumer)  # killed: its session runs out
    assert rebuild.hold(town.plan, town.cluster, town.plan.agent("customer@2"), soon()).keep()
    assert not held.keep()


class Broken(Exception):
    """The process is killed."""


def killing(cluster: Any, method: str, after: int) -> Any:
    """A cluster whose admin, or producers, die at one of their calls."""
    count = 0

    def dies(of: Any) -> Any:
        was = getattr(of, method)

        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal count
            count += 1
            if count == after:
                raise Broken
            return was(*args, **kwargs)

        setattr(of, method, call)
        return of

    class Killed:
        name = "killed"

        def __getattr__(self, name: str) -> Any:
            was = getattr(cluster, name)
            if name not in ("admin", "producer"):
                return was
            return lambda *given: dies(made) if hasattr(made := was(*given), method) else made

    return Killed()


@pytest.mark.parametrize(
    ("method", "after"), [("produce", 1), ("produce", 2), ("produce", 4), ("flush", 2), ("set_group_offsets", 1)]
)
def test_a_rebuild_that_was_killed_while_it_began_is_finished_by_the_same_command(method: str, after: int) -> None:
    town = Town(shop(1, 2))
    town.order()
    with town.worker():
        town.wait(lambda: len(town.profiles(1)) > 0)
        with pytest.raises(Broken):
            rebuild.begin(town.plan, killing(town.cluster, method, after), "customer@2")
        built = town.built("customer@2")
        assert (built.state, town.stage(2)) == ("ready", "ready")
        town.wait(lambda: town.profiles(1) == town.profiles(2) != {})


def test_a_rebuild_waits_for_a_broker_that_is_away_as_its_processes_do() -> None:
    """It takes hours; and it ended, with all of its processes, when a broker was started again."""
    town = Town(shop(1, 2))
    town.order()
    away = At(0, lambda: BrokerAway("a broker is started again"), frozenset({"before ends"}), fired=True)
    asked = count_up()

    def stopped() -> bool:
        if next(asked) == 0:
            away.fired = False
        return False

    with town.worker():
        town.wait(lambda: len(town.profiles(1)) > 0)
        built = rebuild.build(
            town.plan, FaultyCluster(town.cluster, away), "customer@2", lambda course: Threads(town, course),
            lambda report: None, stopped, waiting=soon(),
        )  # fmt: skip
    assert away.fired
    assert next(asked) > 0
    assert built.state == "ready"


def test_a_rebuild_that_is_stopped_on_its_way_goes_on_where_it_was() -> None:
    town = Town(shop(1, 2))
    town.order()
    with town.worker():
        town.wait(lambda: len(town.profiles(1)) > 0)
        assert town.built("customer@2", stopped=lambda: True).state == "building"
        assert town.stage(2) == "building"
        town.order()
        built = town.built("customer@2")
        assert (built.state, built.resumed) == ("ready", True)
        town.wait(lambda: town.profiles(1) == town.profiles(2) != {})


def test_a_rebuild_whose_offsets_have_expired_begins_anew_and_leaves_nothing_of_before() -> None:
    town = Town(shop(1, 2))
    town.order()
    with town.worker():
        town.wait(lambda: len(town.profiles(1)) > 0)
        rebuild.begin(town.plan, town.cluster, "customer@2")
        producer = town.cluster.producer()
        for partition in range(2):  # written before it was stopped; since then somebody was erased
            producer.produce("shop.customer.v2", b"crm:gone", town.profiles(1)[b"crm:1"], partition)
        producer.flush()
        town.cluster.admin().delete_group(town.plan.agent("customer@2").group)
        built = town.built("customer@2")
        assert (built.state, built.resumed) == ("ready", True)
        assert b"crm:gone" not in town.profiles(2)
        town.wait(lambda: town.profiles(1) == town.profiles(2) != {})


def test_a_rebuild_of_which_retention_has_cut_what_it_had_to_read_next_begins_with_what_is_retained() -> None:
    town = Town(shop(1, 2))
    town.order()
    with town.worker():
        town.wait(lambda: len(town.profiles(1)) > 0)
        rebuild.begin(town.plan, town.cluster, "customer@2")
        governed = [TP("shop.governed.orders.v1", partition) for partition in range(2)]
        ends = town.cluster.reader().ends(governed)
        town.cluster.admin().delete_records({tp: end - 5 * tp.partition for tp, end in ends.items()})  # of one all
        built = town.built("customer@2")
        assert (built.state, built.resumed) == ("ready", True)
        assert town.profiles(2)


def test_a_version_that_somebody_runs_by_hand_is_not_built_beneath_them() -> None:
    town = Town(shop(1, 2))
    town.order()
    member = town.cluster.consumer(town.plan.agent("customer@2").group)
    member.subscribe([town.plan.tasks], rebuild.Hold.__new__(rebuild.Hold))
    before = decided(town)
    with pytest.raises(NeedsOperator, match=r"customer@2 is running: its group shop.customer.v2 has 1 members"):
        town.built("customer@2")
    assert decided(town) == before
    logs = [TP("shop.customer.v2.changelog", partition) for partition in range(2)]
    assert set(town.cluster.reader().ends(logs).values()) == {0}


class Nobody:
    """A crew that does nothing, or cannot."""

    def __init__(self, why: str | None = None) -> None:
        self.why = why

    def start(self) -> None: ...
    def failed(self) -> str | None:
        return self.why

    def stop(self) -> None: ...


def test_a_process_that_cannot_go_on_ends_the_rebuild_and_says_why() -> None:
    town = Town(shop(1, 2))
    town.order()
    with town.worker():
        town.wait(lambda: len(town.profiles(1)) > 0)
        with pytest.raises(NeedsOperator, match=r"customer@2 is not built. the disk is full(.|\n)*say the same again"):
            town.built("customer@2", Nobody("the disk is full"))
    assert town.stage(2) == "building"


def test_a_version_that_is_retired_while_it_is_built_is_built_no_more() -> None:
    town = Town(shop(1, 2))
    town.order()
    looks = 0

    def stopped() -> bool:
        nonlocal looks
        looks += 1
        if looks == 2:
            control.write(town.plan, town.cluster, [(version_key("customer@2"), VersionState("retired"))])
        return False

    with town.worker():
        town.wait(lambda: len(town.profiles(1)) > 0)
        with pytest.raises(NotYet, match="somebody else has decided meanwhile that customer@2 is retired"):
            town.built("customer@2", Nobody(), stopped)


# --------------------------------------------------------------------------------------------------- promoting and retiring
def promote(town: Town, agent: str, wait_s: float = 5.0) -> None:
    switch = versions.plan_promote(town.plan, control.read(town.plan, town.cluster), agent)
    versions.check(town.plan, town.cluster, switch, Waiting(wait_s), erasing=True)
    versions.switch_over(town.plan, town.cluster, switch)


@pytest.mark.parametrize(
    ("state", "says"),
    [
        (None, "customer@2 was never built: c360 rebuild customer@2"),
        (VersionState("building"), "customer@2 is being built: c360 rebuild customer@2"),
        (VersionState("retired"), "customer@2 is retired: its topics are gone. Declare the class as version=3"),
        (VersionState("ready"), r"customer@2 is \d+ records behind where its inputs ended"),
    ],
)
def test_a_version_that_is_not_built_and_caught_up_is_not_promoted(state: VersionState | None, says: str) -> None:
    town = Town(shop(1, 2))
    town.order()
    with town.worker("govern", "customer@1"):
        town.wait(lambda: len(town.profiles(1)) > 0)
    control.write(town.plan, town.cluster, [(version_key("customer@2"), state)])
    before = decided(town)
    with pytest.raises(NotYet, match=says):
        promote(town, "customer@2", 0.2)
    assert decided(town) == before


def test_a_version_by_other_rules_is_not_promoted_before_these_have_read_all_links() -> None:
    town = Town(shop(1, 2, other=True))
    town.order()
    control.write(town.plan, town.cluster, [(version_key("customer@2"), VersionState("ready"))])
    with town.worker("govern", "identity@1", "customer@1", "customer@2", "customer@1:service", "customer@2:service"):
        town.wait(lambda: len(town.profiles(1)) > 0)
        with pytest.raises(NotYet, match=r"identity.other@1 is \d+ records behind where its inputs ended"):
            promote(town, "customer@2", 1.0)
    with town.worker():
        promote(town, "customer@2", DEADLINE_S)
    assert town.stage(2) == "live"


def test_a_version_is_not_promoted_while_somebody_is_forgotten() -> None:
    town = Town(shop(1, 2, card="email"))
    control.write(town.plan, town.cluster, [(version_key("customer@2"), VersionState("ready"))])
    assert town.plan.erases
    producer = town.cluster.producer()
    producer.produce("shop.erasure.changelog", KNOWN, encode_known(Known(open={"shop.erasure-commands/0/7"})), 0)
    producer.flush()
    with pytest.raises(NotYet, match=r"1 erasures are under way.*the request is shop.erasure-commands/0/7"):
        promote(town, "customer@2")


def test_a_version_that_was_retired_in_the_moment_of_its_promotion_is_not_called_live() -> None:
    town = Town(shop(1, 2))
    said = [(live_key("customer"), Live(2, 1)), (version_key("customer@2"), VersionState("retired"))]
    control.write(town.plan, town.cluster, said)
    with pytest.raises(NotYet, match="somebody has retired it at the same moment"):
        promote(town, "customer@2")


def test_a_version_with_another_count_of_partitions_is_not_promoted() -> None:
    town = Town(shop(1, 2))
    town.cluster.admin().delete(["shop.customer.v2"])
    town.cluster.admin().create([TopicSpec("shop.customer.v2", 3)])
    control.write(town.plan, town.cluster, [(version_key("customer@2"), VersionState("ready"))])
    with pytest.raises(NotYet, match=r"\(customer@2 has 3, customer@1 has 2\)"):
        promote(town, "customer@2")


def test_who_decides_at_the_same_time_as_another_is_told_so() -> None:
    town = Town(shop(1, 2, 3))
    ready = [(version_key(f"customer@{n}"), VersionState("ready")) for n in (2, 3)]
    control.write(town.plan, town.cluster, ready)
    switch = versions.plan_promote(town.plan, control.read(town.plan, town.cluster), "customer@2")
    control.write(town.plan, town.cluster, [(live_key("customer"), Live(3, 1))])
    with pytest.raises(NotYet, match="somebody else has decided meanwhile that customer@3 is live"):
        versions.switch_over(town.plan, town.cluster, switch)
    assert town.stage(3) == "live"


def test_the_version_that_was_live_goes_on_when_two_others_have_come_after_it() -> None:
    town = Town(shop(1, 2, 3))
    control.write(town.plan, town.cluster, [(version_key(f"customer@{n}"), VersionState("ready")) for n in (2, 3)])
    for number in (2, 3):
        now = control.read(town.plan, town.cluster)
        switch = versions.plan_promote(town.plan, now, f"customer@{number}")
        versions.switch_over(town.plan, town.cluster, switch)
    assert [town.stage(n) for n in (1, 2, 3)] == ["ready", "previous", "live"]
    assert control.read(town.plan, town.cluster).runs(town.plan, "customer@1")


def test_there_is_nothing_to_go_back_to_before_a_promotion() -> None:
    town = Town(shop(1, 2))
    now = control.read(town.plan, town.cluster)
    with pytest.raises(NotYet, match="customer was never promoted"):
        versions.plan_rollback(town.plan, now, "customer")
    with pytest.raises(UsageError, match="say which projection goes back, not which version: c360 rollback customer"):
        versions.plan_rollback(town.plan, now, "customer@1")


def test_neither_the_live_version_nor_the_one_before_is_retired_by_mistake() -> None:
    town = Town(shop(1, 2))
    control.write(town.plan, town.cluster, [(live_key("customer"), Live(2, 1))])
    with pytest.raises(NotYet, match="customer@2 is live"):
        versions.plan_retire(town.plan, town.cluster, "customer@2", force=True, state_dir=None)
    with pytest.raises(NotYet, match="customer@1 is the version that c360 rollback customer goes back to"):
        versions.plan_retire(town.plan, town.cluster, "customer@1", force=False, state_dir=None)
    gone = versions.plan_retire(town.plan, town.cluster, "customer@1", force=True, state_dir=None)
    of_it = ("", ".changelog", ".parts", ".service", ".service.changelog")
    assert set(gone.topics) == {f"shop.customer.v1{name}" for name in of_it}
    assert gone.groups == ("shop.customer.v1", "shop.customer.v1.service")


@pytest.mark.parametrize(
    ("method", "after"), [("produce", 1), ("group_members", 1), ("delete", 1), ("delete_group", 2)]
)
def test_a_retirement_that_was_killed_is_finished_by_the_same_command(method: str, after: int) -> None:
    town = Town(shop(1, 2))
    control.write(town.plan, town.cluster, [(live_key("customer"), Live(2))])

    def planned() -> versions.Retirement:
        return versions.plan_retire(town.plan, town.cluster, "customer@1", force=False, state_dir=None)

    with pytest.raises(Broken):
        versions.execute_retire(town.plan, killing(town.cluster, method, after), planned(), soon())
    versions.execute_retire(town.plan, town.cluster, planned(), soon())
    assert planned().topics == ()
    assert town.stage(1) == "retired"
    assert (
        topics.apply(town.plan, town.cluster.admin(), gone=control.read(town.plan, town.cluster).gone(town.plan)) == []
    )


def test_what_a_rebuild_has_left_that_was_never_finished_goes_with_its_version(tmp_path: Path) -> None:
    town = Town(shop(1, 2))
    control.write(town.plan, town.cluster, [(version_key("customer@2"), VersionState("building"))])
    (tmp_path / "rebuild/shop.customer.v2/process-0/shop/shop.customer.v2/0").mkdir(parents=True)
    (tmp_path / "rebuild/shop.customer.v3").mkdir()
    with Run(town.plan, town.cluster, who="kim", random=bytes) as run:
        gone = versions.retire(
            town.plan, town.cluster, "customer@2", force=False, waiting=soon(), run=run, state_dir=tmp_path
        )
    assert gone.state == ()
    assert [path.name for path in (tmp_path / "rebuild").iterdir()] == ["shop.customer.v3"]


def test_nothing_is_retired_while_nobody_knows_which_version_is_live() -> None:
    town = Town(shop(1, 2))
    town.cluster.admin().delete([town.plan.control])  # of an app whose first version was live
    for agent in ("customer@1", "customer@2"):
        with pytest.raises(NotYet, match=r"shop\.control does not say which version of customer is live"):
            versions.plan_retire(town.plan, town.cluster, agent, force=True, state_dir=None)


def test_a_version_that_was_decided_on_again_while_its_workers_stopped_keeps_its_topics() -> None:
    town = Town(shop(1, 2))
    control.write(town.plan, town.cluster, [(live_key("customer"), Live(2))])
    gone = versions.plan_retire(town.plan, town.cluster, "customer@1", force=False, state_dir=None)

    def decides(seconds: float) -> None:
        control.write(town.plan, town.cluster, [(version_key("customer@1"), VersionState("ready"))])
        town.cluster.expire(member)

    member = town.cluster.consumer(town.plan.agent("customer@1").group)
    member.subscribe([town.plan.tasks], rebuild.Hold.__new__(rebuild.Hold))
    with pytest.raises(NotYet, match="somebody else has decided meanwhile what becomes of customer@1"):
        versions.execute_retire(town.plan, town.cluster, gone, Waiting(10.0, decides))
    assert "shop.customer.v1" in town.cluster.admin().topics()


def test_a_version_that_is_being_retired_is_not_promoted() -> None:
    town = Town(shop(1, 2))
    control.write(town.plan, town.cluster, [(version_key("customer@2"), VersionState("ready"))])
    switch = versions.plan_promote(town.plan, control.read(town.plan, town.cluster), "customer@2")
    control.write(town.plan, town.cluster, [(version_key("customer@2"), VersionState("retired"))])
    before = decided(town)
    with pytest.raises(NotYet, match="customer@2 is being retired by somebody else; customer@1 is live as before"):
        versions.switch_over(town.plan, town.cluster, switch)
    assert decided(town) == before


def test_a_worker_that_was_away_while_a_version_was_retired_deletes_what_it_has_of_it() -> None:
    town = Town(shop(1, 2))
    town.order()
    stores = MemoryStores()

    def run(until: Callable[[], bool]) -> None:
        worker = Worker(town.plan, town.cluster, stores, "away")
        thread = threading.Thread(target=_quietly(worker))
        thread.start()
        town.wait(until)
        worker.stop()
        thread.join()
        assert worker.error is None

    def kept() -> set[str]:
        return {name.rpartition("/")[0] for name, store in stores.stores.items() if store.data}

    run(lambda: len(town.profiles(1)) > 0)
    assert {"shop.customer.v1", "shop.customer.v1.service"} <= kept()
    control.write(town.plan, town.cluster, [(live_key("customer"), Live(2))])
    gone = versions.plan_retire(town.plan, town.cluster, "customer@1", force=False, state_dir=None)
    versions.execute_retire(town.plan, town.cluster, gone, soon())
    run(lambda: len(town.profiles(2)) > 0)
    assert not {name for name in kept() if name.startswith("shop.customer.v1")}


def test_a_version_that_somebody_still_runs_keeps_its_topics() -> None:
    town = Town(shop(1, 2))
    control.write(town.plan, town.cluster, [(live_key("customer"), Live(2))])
    member = town.cluster.consumer(town.plan.agent("customer@1").group)
    member.subscribe([town.plan.tasks], rebuild.Hold.__new__(rebuild.Hold))
    gone = versions.plan_retire(town.plan, town.cluster, "customer@1", force=False, state_dir=None)
    with pytest.raises(NotYet, match=r"shop.customer.v1 still has 1 members"):
        versions.execute_retire(town.plan, town.cluster, gone, Waiting(0.3))
    assert "shop.customer.v1" in town.cluster.admin().topics()


def test_local_state_of_a_version_is_found_whichever_process_made_it(tmp_path: Path) -> None:
    plan = shop(1, 2)
    for where in ("shop/shop.customer.v1/0", "process-1/shop/shop.customer.v1.service/1", "shop/shop.customer.v2/0"):
        (tmp_path / where).mkdir(parents=True)
    agents = plan.agents_of(versions.version_of(plan, "customer@1"))
    assert versions.local_state(plan, agents, tmp_path) == [
        tmp_path / "process-1/shop/shop.customer.v1.service", tmp_path / "shop/shop.customer.v1",
    ]  # fmt: skip


def test_versions_are_listed_with_how_far_they_are() -> None:
    town = Town(shop(1, 2))
    town.order()
    with town.worker():
        town.wait(lambda: len(town.profiles(1)) > 0)
        assert town.built("customer@2", stopped=lambda: True).state == "building"
        town.wait(lambda: versions.versions(town.plan, town.cluster)[0].lag == 0)
        first, second, identity = versions.versions(town.plan, town.cluster)
    assert (first.agent, first.state, first.progress) == ("customer@1", "live", 1.0)
    assert (second.agent, second.state) == ("customer@2", "building")
    assert second.lag == 60 + 8 <= first.records, "of 20 customers who have ordered, 7 are in profiles of several"
    assert (identity.agent, identity.projection, identity.state) == ("identity@1", None, "live")
    assert "shop.customer.v2.parts" in second.topics
    assert set(identity.topics) == {
        "shop.assignments.v1", "shop.identity-changes.v1", "shop.identity.v1", "shop.identity.v1.changelog",
    }  # fmt: skip
