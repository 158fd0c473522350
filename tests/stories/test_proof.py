"""What is left of a forgotten customer, in the bytes on the disks of a real broker and of two workers.

10,000 events, two subjects that were merged, dead letters, a view and three sinks, a neighbour who shares the mailbox, traffic
all the while. The files are read here by themselves: nothing of c360's own readers is asked, but for what it says at the end.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from c360.engine.kafka import KafkaCluster
from c360.engine.transport import TP, TopicSpec
from c360.ops import dev_kafka, keys
from c360.ops.profiles import normalized
from c360.ops.records import follow
from tests.governance.proof_town import app
from tests.stories.left import counted, in_state, where_in
from tests.stories.tools import c360, stop, wait_until, working

NAME = "tests.governance.proof_town:app"
EVENTS = 10_000
CUSTOMER, COOKIE, MAIL = "c-7777-seven", "kuki-7777-seven", "wilhelmina.seven@mail.se"
SECRETS = ["Wilhelmina Seven", "she-wrote-this", MAIL, "letter-of-seven"]
SOON = {  # so that the broker compacts at once what it would in a day
    "min.cleanable.dirty.ratio": "0.01", "segment.ms": "1000", "delete.retention.ms": "0", "max.compaction.lag.ms": "1000",
    "file.delete.delay.ms": "0",
}  # fmt: skip
FILLER = b"~filler"
SWEEP_S = 4


@pytest.mark.timeout(600)
def test_nothing_of_a_forgotten_customer_is_in_the_files_of_brokers_and_workers(kafka: str, tmp_path: Path) -> None:
    logs, log, master = tmp_path / "kafka", tmp_path / "worker.log", tmp_path / "keys"
    with dev_kafka.start(data_dir=logs) as running:
        _story(running.bootstrap, logs, log, master, tmp_path)


def _story(broker: str, logs: Path, log: Path, master: Path, tmp_path: Path) -> None:
    plan, cluster = app.plan(), KafkaCluster(broker)
    admin, producer = cluster.admin(), cluster.producer()
    admin.create([TopicSpec(t.name, 3) for t in plan.topics if not t.owned])
    # All as c360 makes them, but compacted soon, and with bytes that can be searched.
    for topic in plan.topics:
        if topic.owned:
            soon = SOON if topic.config.get("cleanup.policy") == "compact" else {}
            config = {**topic.config, **soon, "compression.type": "uncompressed"}
            admin.create([TopicSpec(topic.name, topic.partitions or 3, config)])
    compacted = {t.name for t in plan.topics if t.owned and t.config.get("cleanup.policy") == "compact"}
    raw = {t.name for t in plan.topics if not t.owned}

    def run(*arguments: str) -> Any:
        said = c360(broker, NAME, *arguments, C360_KEYS=str(master), C360_STATE_DIR=str(tmp_path / "state"))
        assert said.returncode == 0, said.stderr + said.stdout
        return json.loads(said.stdout) if "--json" in arguments else None

    def send(topic: str, key: str, value: Any) -> None:
        producer.produce(topic, key.encode(), json.dumps(value).encode())

    def person(crm: str, name: str, email: str | None) -> None:
        now = time.time_ns()
        row = {"pk": crm, "id": crm, "name": name, "email": email}
        source = {"connector": "postgresql", "lsn": now, "ts_ms": now // 1_000_000, "snapshot": "false"}
        send("people", json.dumps({"pk": crm}), {"op": "u", "before": None, "after": row, "source": source, "ts_ms": 1})

    def click(number: int, cookie: str, login: str | None, text: str | None = None) -> None:
        send("clicks", cookie, {"id": f"e{number}", "cookie": cookie, "page": "/", "login": login, "text": text})

    def choose(crm: str) -> None:
        at = datetime.now(UTC).isoformat()
        send("choices", crm, {"id": crm, "purpose": "marketing", "granted": True, "at": at})

    def held(topic: str) -> dict[str, bytes]:
        reader = cluster.reader()
        found: dict[bytes, bytes] = {}
        follow(reader, reader.starts([TP(topic, p) for p in range(plan.partitions)]), found)
        reader.close()
        return {key.decode(): value for key, value in found.items()}

    run("keys", "init")
    doors = [plan.leaves(door) for door in plan.doors]
    projected = plan.projected(plan.projections[0])
    state = [tmp_path / "state" / "one", tmp_path / "state" / "two"]
    settings = {"C360_KEYS": str(master), "C360_SWEEP": f"{SWEEP_S}"}
    with (
        working(broker, state[0], log, NAME, **settings) as one,
        working(broker, state[1], log, NAME, **settings) as two,
    ):
        # 1 the customer, others, and a neighbour who shares the mailbox
        for number in range(1, 7):
            person(f"c-{number}", f"Somebody {number}", f"p{number}@mail.se")
            choose(f"c-{number}")
        person(CUSTOMER, SECRETS[0], MAIL)
        choose(CUSTOMER)
        for number in range(EVENTS):
            click(number, COOKIE, MAIL if number % 10 == 0 else None, f"{SECRETS[1]} {number}")
        producer.flush()
        person("c-neighbour", "A Neighbour", MAIL)
        # 2 dead letters: one that says who it is of, one that nobody can read
        send("clicks", COOKIE, {"id": "bad", "cookie": COOKIE, "page": None, "text": SECRETS[3]})
        producer.produce("clicks", COOKIE.encode(), b"\xff\xfe{" + SECRETS[3].encode() + b" " + COOKIE.encode())
        producer.flush()
        label = f"crm:{CUSTOMER}"

        def merged() -> bool:
            found = held(projected).get(label)
            return found is not None and json.loads(found)["attributes"].get("clicks") == EVENTS

        wait_until(merged, one, log)
        wait_until(lambda: all(label in held(topic) for topic in doors), one, log)
        wait_until(lambda: "crm:c-neighbour" in held(projected), one, log)
        wait_until(lambda: run("erase", label, "--dry-run", "--json")["beside"] == ["crm:c-neighbour"], one, log)
        names = keys.open_vault(plan, cluster, keys.open_master(str(master), str), os.urandom).names
        token = normalized(plan, f"email:{MAIL}", names)
        words = [CUSTOMER, COOKIE, token]
        clear = [CUSTOMER, COOKIE, *SECRETS]
        # What stays of a suppression, under keyed hashes only; of a personal identifier its token is that.
        suppression = ["governance", "erasure.v1"]
        assert counted(logs, words, compacted)
        # 3 master keys are rotated, and the customer is forgotten, under traffic
        with _traffic(lambda n: click(EVENTS + n, f"kuki-{n % 50}", f"p{n % 5}@mail.se", "others")):
            rotated = run("keys", "rotate", "--json")
            assert rotated["wrapped"] > 0
            begun = time.monotonic()
            said = run("erase", label, "--execute", "--reason", "ticket 7", "--wait", "--json")
            print(f"proven after {time.monotonic() - begun:.1f} s")
        producer.flush()
        assert sorted(said["subjects"]) == sorted(map(names.veil, (label, f"cookie:{COOKIE}")))
        # 4 the workers sweep their files while they run; nobody has stopped
        assert (one.poll(), two.poll()) == (None, None)
        clean: list[float] = []  # when it was found so, without a break

        def stays_clean() -> bool:
            """For more than a sweep: a file that is replaced while it is read is not seen at all."""
            if in_state(state, words + SECRETS, suppression) or in_state(state, clear):
                clean.clear()
            else:
                clean.append(time.monotonic())
            return bool(clean) and clean[-1] - clean[0] > 2 * SWEEP_S

        try:
            wait_until(stays_clean, one, log)
        except AssertionError:
            raise AssertionError(where_in(state, words + SECRETS)) from None
        assert (stop(one), stop(two)) == (0, 0)
    # 5 the broker compacts: what is written last stays in a segment of its own, so something else is written
    deadline = time.monotonic() + 90
    kept = {plan.suppressed, f"{plan.app}.erasure.changelog"}  # of the suppression, under keyed hashes only
    while found := counted(logs, words, compacted - kept) | counted(logs, clear, kept):
        assert time.monotonic() < deadline, found
        for name in compacted:
            for partition in range(admin.topics()[name]):
                producer.produce(name, FILLER, None, partition)
        producer.flush()
        time.sleep(1.1)
    # 6 no file has a personal value that can be read
    everywhere = {path.name.rpartition("-")[0] for path in logs.rglob("*-*") if path.is_dir()} - raw
    assert counted(logs, SECRETS, everywhere) == {}
    assert in_state(state, words + SECRETS, suppression) == Counter(), where_in(state, words + SECRETS)
    assert in_state(state, clear) == Counter(), where_in(state, clear)
    assert label not in held(projected)
    assert "crm:c-neighbour" in held(projected)
    # 7 and so says the command
    (values := tmp_path / "values").write_text("\n".join(SECRETS))
    checked = run("erase", label, "--check", "--values", str(values), "--json")
    assert (checked["readable_bytes"], [p for p in checked["check"] if not p["holds"]]) == (0, [])
    # What is open in topics that cannot be told to forget goes by a day; but governed rows are kept whole, as a rebuild needs
    # what it takes back, and of a loop what was read is deleted with its segment.
    undated = {plan.parts(plan.projections[0]), *map(plan.loop, plan.identities)}
    undated |= {plan.governed(source) for source in plan.sources if source.kind == "rows"}
    dated = {
        place["place"]: place["gone_by"] for place in checked["check"] if place["policy"] == "delete" and place["ids"]
    }
    assert f"{plan.app}.governed.clicks.v1" in dated
    assert [name for name, by in dated.items() if by is None and name not in undated] == []
    for place in checked["check"]:
        print(place["place"], place["policy"], place["ids"], place["values"], place["gone_by"])
    producer.close()


@contextmanager
def _traffic(send: Callable[[int], None]) -> Iterator[None]:
    done = threading.Event()

    def go() -> None:
        number = 0
        while not done.wait(0.005):
            send(number)
            number += 1

    thread = threading.Thread(target=go)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
