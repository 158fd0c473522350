"""Keys on a real broker: two who make a customer's first, a service that goes away, topics that are lost, and who may look."""

from __future__ import annotations

import json
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from c360.agents.erasure import Ordered
from c360.agents.wire import decode_json
from c360.assembly import Worker
from c360.engine.kafka import KafkaCluster
from c360.engine.transport import TP, TopicSpec
from c360.errors import NeedsOperator
from c360.governance.consent import decode_state
from c360.governance.keys import LocalMasterKeys, MasterKeys
from c360.governance.sealing import KEY_BYTES
from c360.ops import erase, keys, profiles, topics
from c360.ops.records import records
from c360.ops.vault import VaultMasterKeys
from c360.ops.verify import verify
from c360.plan import Plan
from c360.tables.rocks import RocksStores
from tests.governance.vault import TOKEN, fake_vault
from tests.stories.sealing import sealing_app
from tests.stories.tools import stop, wait_for_rest, wait_until, working

PEOPLE = 40
DEADLINE_S = 60.0


class Ground:
    """The app under a name of its own, on the shared broker."""

    def __init__(self, broker: str, master: MasterKeys) -> None:
        self.name, self.broker = f"keys-{uuid.uuid4().hex[:10]}", broker
        self.plan: Plan = sealing_app(self.name).plan()
        self.cluster = KafkaCluster(broker)
        self.admin, self.reader, self.producer = self.cluster.admin(), self.cluster.reader(), self.cluster.producer()
        self.admin.create([TopicSpec(topic.name, 2) for topic in self.plan.topics if not topic.owned])
        topics.apply(self.plan, self.admin)
        self.master, self.sent = master, 0
        keys.make_secret_once(self.plan, self.cluster, master, os.urandom)
        self.vault = keys.open_vault(self.plan, self.cluster, master, os.urandom)

    def close(self) -> None:
        for client in (self.admin, self.reader, self.producer):
            client.close()

    def order(self, who: str, partition: int, name: str = "") -> None:
        self.sent += 1
        said = {"id": str(self.sent), "crm": who, "email": f"p{who}@mail.org", "name": name or f"Name {who}",
                "address": {"street": f"Street {who}", "country": "AT"}}  # fmt: skip
        self.producer.produce(f"{self.name}.orders", who.encode(), json.dumps(said).encode(), partition)

    def choose(self, who: str, *, granted: bool) -> None:
        said = {
            "crm": who,
            "purpose": "marketing",
            "granted": granted,
            "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        self.producer.produce(f"{self.name}.choices", who.encode(), json.dumps(said).encode())
        self.producer.flush()

    def table(self, topic: str) -> dict[bytes, bytes]:
        """As it is now, compacted."""
        found: dict[bytes, bytes] = {}
        for _, _, key, value in records(
            self.reader, self.reader.starts([TP(topic, p) for p in range(self.admin.topics()[topic])])
        ):
            found.pop(key or b"", None)
            if value is not None:
                found[key or b""] = value
        return found

    def governed(self) -> list[dict[str, Any]]:
        topic = self.plan.governed(self.plan.sources[0])
        tps = [TP(topic, p) for p in range(2)]
        return [
            decode_json(value) for _, _, _, value in records(self.reader, self.reader.starts(tps)) if value is not None
        ]

    def profile(self, who: str) -> dict[str, Any] | None:
        return profiles.find_profile(self.plan, self.cluster, self.plan.projections[0], who, self.vault.names)

    def decided(self) -> dict[str, str]:
        held = self.table(self.plan.consent)
        return {who.decode(): decode_state(value)["marketing"].holds.status for who, value in held.items()}

    def view(self) -> dict[bytes, bytes]:
        return self.table(self.plan.leaves(self.plan.doors[0]))

    def verified(self) -> None:
        report = verify(self.plan, self.cluster, [], vault=self.vault)
        assert report.differences == 0, report.to_text()

    @contextmanager
    def worker(self, state: Path, slot: str = "one") -> Iterator[Worker]:
        worker = Worker(self.plan, self.cluster, RocksStores(state), slot, master=self.master)
        thread = threading.Thread(target=self._run, args=(worker,))
        thread.start()
        try:
            yield worker
        finally:
            worker.stop()
            thread.join()

    def _run(self, worker: Worker) -> None:
        try:
            worker.run()
        except Exception as error:  # looked at by the story
            worker.error = error


def until(done: Callable[[], bool], worker: Worker | None = None) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not done():
        assert worker is None or worker.error is None, worker
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)


@pytest.fixture
def ground(kafka: str) -> Iterator[Ground]:
    made = Ground(kafka, LocalMasterKeys([os.urandom(KEY_BYTES)]))
    yield made
    made.close()


# ------------------------------------------------------------------------------------------------------- two at once
@pytest.mark.timeout(300)
def test_two_workers_make_a_customer_s_first_key_at_one_time_and_one_is_killed(kafka: str, tmp_path: Path) -> None:
    """Each customer comes in both partitions; the process that dies has written keys whose values are not decided on."""
    file = tmp_path / "keys"
    keys.init_keys(file, os.urandom)
    fresh = Ground(kafka, keys.open_master(str(file), lambda: ""))
    log = tmp_path / "log"
    how = {"STORY": fresh.name, "C360_KEYS": str(file)}
    app = "tests.stories.sealing:app"
    with (
        working(fresh.broker, tmp_path / "a", log, app, "--only", "govern", C360_SLOT="a", **how) as first,
        working(fresh.broker, tmp_path / "b", log, app, "--only", "govern", C360_SLOT="b", **how) as second,
    ):
        until(lambda: fresh.admin.group_members(fresh.plan.agent("govern").group) == 2)
        for n in range(PEOPLE):
            for partition in range(2):
                fresh.order(f"a{n}", partition)
        fresh.producer.flush()
        until(lambda: len(fresh.governed()) == 2 * PEOPLE)
        for n in range(PEOPLE):
            for partition in range(2):
                fresh.order(f"b{n}", partition)
        fresh.producer.flush()
        second.kill()
        second.wait()
        until(lambda: len(fresh.governed()) == 4 * PEOPLE)
        assert stop(first) == 0, log.read_text()
    found = [key.split(b"\0")[0] for key in fresh.table(fresh.plan.keys) if key.startswith(b"crm:")]
    assert {found.count(f"crm:{kind}{n}".encode()) for kind in "ab" for n in range(PEOPLE)} == {2}, "one of each task"
    opener = keys.opener_of(fresh.plan, fresh.cluster, fresh.vault)
    for said in fresh.governed():
        who = said["record"]["crm"]
        sealed = said["record"]["name"]
        opened = opener.open(sealed, subjects=(f"crm:{who}",), fields=("Order.name",), complete=True)
        assert json.loads(opened) == f"Name {who}"
    assert {p["record"]["name"]["~sealed"].split(":")[0].encode() for p in fresh.governed()} == {
        key.split(b"\0")[1] for key in fresh.table(fresh.plan.keys) if key.startswith(b"crm:")
    }, "every key has its values, every value its key"
    fresh.verified()
    fresh.close()


# -------------------------------------------------------------------------------------------------------- the service
@pytest.mark.timeout(300)
def test_a_worker_waits_for_its_key_service_at_the_start_and_later_and_says_so(kafka: str, tmp_path: Path) -> None:
    with fake_vault() as service:
        service.add("shop")
        ground = Ground(kafka, VaultMasterKeys(service.url, lambda: TOKEN))
        log = tmp_path / "log"
        service.status = 503
        how = {"STORY": ground.name, "C360_KEYS": service.url, "C360_KEYS_TOKEN": TOKEN}
        with working(kafka, tmp_path / "state", log, "tests.stories.sealing:app", **how) as process:
            said = "cannot answer now (status 503): Vault is sealed; waiting for it"
            wait_until(lambda: log.exists() and said in log.read_text(), process, log)
            assert ground.governed() == []
            service.status = 0
            ground.order("1", 0)
            ground.producer.flush()
            wait_until(lambda: len(ground.governed()) == 1, process, log)
            service.status = 503
            ground.order("2", 0)
            ground.producer.flush()
            wait_until(lambda: "cannot answer now" in log.read_text().split(said, 1)[1], process, log)
            assert len(ground.governed()) == 1
            service.status = 0
            wait_until(lambda: len(ground.governed()) == 2, process, log)
            wait_for_rest(ground.plan, ground.cluster, process, log)
            assert stop(process) == 0, log.read_text()
        assert "Traceback" not in log.read_text()
        assert TOKEN not in log.read_text()
        ground.verified()
        ground.close()


# ------------------------------------------------------------------------------------------------------------- agents
@pytest.mark.timeout(300)
def test_an_agent_of_the_app_gets_records_with_what_is_sealed_in_them_sealed(kafka: str, tmp_path: Path) -> None:
    file, heard, log = tmp_path / "keys", tmp_path / "heard", tmp_path / "log"
    keys.init_keys(file, os.urandom)
    ground = Ground(kafka, keys.open_master(str(file), lambda: ""))
    how = {"STORY": ground.name, "C360_KEYS": str(file), "HEARD": str(heard)}
    with working(kafka, tmp_path / "state", log, "tests.stories.sealing:heard", **how) as process:
        for n in range(5):
            ground.order(str(n), n % 2, name="Secret Name")
        ground.producer.flush()
        wait_until(lambda: heard.exists() and len(heard.read_text().splitlines()) >= 5, process, log)
        assert stop(process) == 0, log.read_text()
    lines = sorted(set(heard.read_text().splitlines()))
    assert len(lines) == 5
    for n, line in enumerate(sorted(lines, key=lambda text: text.split()[1])):
        assert line.startswith(
            f"Order {n + 1} / <sealed Order.name> <sealed Order.email> <sealed Order.address.street> Order("
        )
    for secret in ("Secret", "Street", "mail.org", "~sealed"):
        assert secret not in heard.read_text()
        assert secret not in log.read_text()
    ground.close()


# --------------------------------------------------------------------------------------------------- topics that are lost
@pytest.mark.timeout(300)
def test_consent_that_is_deleted_is_written_again_and_nothing_leaves_that_was_refused(
    ground: Ground, tmp_path: Path
) -> None:
    with ground.worker(tmp_path) as worker:
        for who, granted in (("1", True), ("2", False)):
            ground.order(who, 0)
            ground.choose(who, granted=granted)
        until(lambda: ground.view().keys() == {b"crm:1"}, worker)
        before = ground.admin.topic_ids([ground.plan.consent])
        ground.admin.delete([ground.plan.consent])
        until(lambda: ground.admin.topic_ids([ground.plan.consent]).keys() == before.keys() and
              ground.admin.topic_ids([ground.plan.consent]) != before, worker)  # fmt: skip
        until(lambda: ground.decided() == {"crm:1": "granted", "crm:2": "denied"}, worker)
        ground.order("3", 0)
        ground.choose("3", granted=True)
        until(lambda: ground.view().keys() == {b"crm:1", b"crm:3"}, worker)
    assert worker.error is None
    ground.verified()


@pytest.mark.timeout(300)
def test_who_is_suppressed_is_written_again(ground: Ground, tmp_path: Path) -> None:
    topic = ground.plan.suppressed
    with ground.worker(tmp_path) as worker:
        for who in ("1", "2"):
            ground.order(who, 0)
            ground.choose(who, granted=True)
        until(lambda: ground.view().keys() == {b"crm:1", b"crm:2"}, worker)
        request = erase.ask(ground.plan, ground.cluster, Ordered(identifier="crm:1"))
        until(lambda: erase.certificate_of(ground.plan, ground.cluster, request) is not None, worker)
        held = ground.table(topic)
        assert held
    with ground.worker(tmp_path) as worker:
        until(lambda: len(worker.loops) > 0, worker)
        ground.admin.delete([topic])
        until(lambda: topic not in ground.admin.topics())
        # One whose consumer meets it before it has looked ends; then the next start sees to it.
        until(lambda: worker.error is not None or (topic in ground.admin.topics() and ground.table(topic) == held))
    with ground.worker(tmp_path) as worker:
        until(lambda: {k: v for k, v in ground.table(topic).items() if k in held} == held, worker)
        ground.order("1", 0)
        ground.order("3", 0)
        ground.choose("3", granted=True)
        until(lambda: ground.view().keys() == {b"crm:2", b"crm:3"}, worker)
        assert ground.profile("crm:1") is None
        request = erase.ask(ground.plan, ground.cluster, Ordered(identifier="crm:2"))
        until(lambda: erase.certificate_of(ground.plan, ground.cluster, request) is not None, worker)
        until(lambda: ground.view().keys() == {b"crm:3"}, worker)
    assert worker.error is None


@pytest.mark.timeout(300)
def test_keys_that_are_deleted_stop_the_worker_and_nothing_is_taken_for_erased(ground: Ground, tmp_path: Path) -> None:
    with ground.worker(tmp_path) as worker:
        ground.order("1", 0)
        ground.choose("1", granted=True)
        until(lambda: ground.view().keys() == {b"crm:1"}, worker)
        before = ground.view()
        ground.admin.delete([ground.plan.keys])
        until(lambda: worker.error is not None)
    assert isinstance(worker.error, NeedsOperator)
    assert f"{ground.plan.keys} was deleted and created again" in str(worker.error)
    assert ground.view() == before
    assert ground.table(ground.plan.keys) == {}
