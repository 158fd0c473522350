"""A customer is forgotten on a real broker, while others come and go; what is left is looked for byte by byte."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from c360.agents.erasure import Ordered
from c360.assembly import Worker
from c360.engine.kafka import KafkaCluster
from c360.engine.transport import TopicSpec
from c360.governance.keys import LocalMasterKeys
from c360.governance.sealing import KEY_BYTES
from c360.ops import erase, keys, profiles, topics
from c360.tables.rocks import RocksStores
from tests.governance.forget_shop import shop

PEOPLE, CLICKS = 20, 2_000
PATIENCE_S = 90.0


@pytest.mark.timeout(300)
def test_a_customer_is_forgotten_under_traffic(broker: str, tmp_path: Path) -> None:
    plan, cluster = shop().plan(), KafkaCluster(broker)
    admin = cluster.admin()
    admin.create([TopicSpec(topic.name, 3) for topic in plan.topics if not topic.owned])
    topics.apply(plan, admin)
    master = LocalMasterKeys([os.urandom(KEY_BYTES)])
    keys.make_secret_once(plan, cluster, master, os.urandom)
    vault = keys.open_vault(plan, cluster, master, os.urandom)
    worker = Worker(plan, cluster, RocksStores(tmp_path), slot="one", master=master)
    thread = threading.Thread(target=worker.run)
    thread.start()
    producer, number = cluster.producer(), 0

    def clicks(count: int) -> None:
        nonlocal number
        for _ in range(count):
            who = number % PEOPLE + 1
            value = f'{{"id": "e{number}", "cookie": "kuki-{who}-", "login": "p{who}@mail.se", "text": "word-{who}-"}}'
            producer.produce("clicks", f"kuki-{who}-".encode(), value.encode())
            number += 1
        producer.flush()

    try:
        clicks(CLICKS)
        _until(lambda: profiles.find_profile(plan, cluster, plan.projections[0], "cookie:kuki-7-", vault.names) is not None)
        label = profiles.normalized(plan, "email:p7@mail.se", vault.names)
        begun = time.monotonic()
        request = erase.ask(plan, cluster, Ordered(identifier=label))
        while erase.certificate_of(plan, cluster, request) is None:
            assert time.monotonic() - begun < PATIENCE_S, erase.where(plan, cluster, request)
            assert worker.error is None
            clicks(20)
        print(f"proven after {time.monotonic() - begun:.1f} s")
        clicks(100)
        time.sleep(1.0)
    finally:
        worker.stop()
        thread.join()
    places = erase.check(plan, cluster, ["cookie:kuki-7-", label], ["word-7-"], None, 0)
    assert [place for place in places if not place.holds] == []
    assert sum(place.values for place in places if place.policy != "user") == 0
    assert profiles.find_profile(plan, cluster, plan.projections[0], "cookie:kuki-7-", vault.names) is None
    assert profiles.find_profile(plan, cluster, plan.projections[0], "cookie:kuki-8-", vault.names) is not None


def _until(so) -> None:  # type: ignore[no-untyped-def]
    deadline = time.monotonic() + PATIENCE_S
    while not so():
        assert time.monotonic() < deadline
        time.sleep(0.3)
