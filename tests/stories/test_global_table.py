"""A process that copies topics is killed in the middle; the next one has its disk and ends with all there is."""

from __future__ import annotations

import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from c360.clock import system
from c360.engine.global_table import GlobalTable
from c360.engine.kafka import KafkaCluster
from c360.engine.transport import TP, TopicSpec
from c360.tables.rocks import RocksStores

RECORDS, KEYS, PARTITIONS = 200_000, 20_000, 3

PROGRAM = """
import sys
from pathlib import Path
from threading import Event
from c360.clock import system
from c360.engine.global_table import GlobalTable
from c360.engine.kafka import KafkaCluster
from c360.tables.rocks import RocksStores

broker, topic, place = sys.argv[1:]
table = GlobalTable("copy", [topic], KafkaCluster(broker), RocksStores(Path(place)), system)
while table.copied.records < 60_000:
    table.turn()
print("copied", flush=True)
table.run(Event())
"""


@pytest.mark.timeout(180)
def test_a_copy_is_whole_after_a_kill_and_after_its_topic_was_made_anew(kafka: str, tmp_path: Path) -> None:
    topic, cluster = f"global-{uuid.uuid4().hex[:10]}", KafkaCluster(kafka)
    admin, producer, reader = cluster.admin(), cluster.producer(f"{topic}-producer"), cluster.reader()
    spec = TopicSpec(topic, PARTITIONS, {"cleanup.policy": "compact"})
    admin.create([spec])
    truth: dict[bytes, bytes] = {}
    tps = [TP(topic, p) for p in range(PARTITIONS)]

    def say(first: int, last: int, *, commit: bool = True) -> None:
        producer.begin()
        for n in range(first, last):
            key, value = b"%d" % (n % KEYS), None if n % 7 == 0 else b"%d" % n
            producer.produce(topic, key, value)
            if commit and value is None:
                truth.pop(key, None)
            elif commit and value is not None:
                truth[key] = value
        if commit:
            producer.commit()
        else:
            producer.abort()

    for start in range(0, RECORDS // 2, 10_000):
        say(start, start + 10_000)
    child = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, kafka, topic, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "copied\n"
    say(RECORDS // 2, RECORDS // 2 + 10_000)
    child.kill()
    child.wait()
    child.stdout.close()
    say(0, 5_000, commit=False)
    for start in range(RECORDS // 2 + 10_000, RECORDS, 10_000):
        say(start, start + 10_000)

    def whole(table: GlobalTable) -> None:
        deadline = time.monotonic() + 60
        asked = time.monotonic()
        while table.age() > time.monotonic() - asked:
            assert time.monotonic() < deadline, table.trouble
            table.turn()
        assert dict(table.scan()) == truth
        ends = reader.ends(tps)  # the mark of the last commit may have come since
        while any(table.reached()[tp] < end for tp, end in ends.items()):
            assert time.monotonic() < deadline, table.trouble
            table.turn()
        table.wait_until(ends, time.monotonic())

    table = GlobalTable("copy", [topic], cluster, RocksStores(tmp_path), system)
    begun = time.monotonic()
    whole(table)
    print(f"{table.copied.records} records in {time.monotonic() - begun:.2f} s")
    assert table.copied.rebuilds == 0
    table.close()
    table = GlobalTable("copy", [topic], cluster, RocksStores(tmp_path), system)
    whole(table)
    assert table.copied.records == 0, "all of it was on the disk"
    seen = table.mark()
    say(0, 10)
    whole(table)
    assert {key for _, key in table.changes(seen).keys} == {b"%d" % n for n in range(10)}

    admin.delete([topic])
    truth.clear()
    admin.create([spec])
    say(0, RECORDS // 10)
    while not table.copied.rebuilds:
        table.turn()
    whole(table)
    table.close()
    for client in (admin, producer, reader):
        client.close()
