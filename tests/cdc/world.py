"""Real tables, a real connector, a real worker; and whether what comes out is what SQL says of the tables."""

from __future__ import annotations

import json
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

from c360 import App
from c360.engine.kafka import KafkaCluster
from c360.engine.registry import SchemaRegistry
from c360.engine.transport import TP
from c360.ops.verify import verify
from tests.cdc.crm import MARIADB, POSTGRES, comparable, from_mariadb, from_postgres
from tests.cdc.machines import Connect, MariaDb, PostgresDatabase
from tests.stories.tools import profiles, stop, wait_for_rest, worker

WITHIN_S = 60.0
COMMON = {
    "tasks.max": "1", "tombstones.on.delete": "true", "skipped.operations": "none", "provide.transaction.metadata": "true",
    "decimal.handling.mode": "string", "poll.interval.ms": "50", "snapshot.mode": "initial",
    "topic.creation.default.replication.factor": "1", "topic.creation.default.partitions": "2",
    "heartbeat.interval.ms": "2000", "incremental.snapshot.chunk.size": "64",
}  # fmt: skip


class World:
    """An app over the tables of one database in PostgreSQL, and of MariaDB from `with_mariadb` on."""

    def __init__(
        self, kafka: str, connect: Connect, postgres: PostgresDatabase, home: Path, app: App, where: str, prefix: str
    ) -> None:
        """`where` the app is found by a worker; `prefix`: of its topics, and the connector's name."""
        self.kafka, self.connect, self.postgres, self.home = kafka, connect, postgres, home
        self.where, self.prefix = where, prefix
        self.mariadb: MariaDb | None = None
        self.cluster, self.plan, self.log = KafkaCluster(kafka), app.plan(), home / "worker.log"
        self.settings: dict[str, str] = {}  # of the worker
        self.more: dict[str, str] = {}  # of the connector
        self.worker: subprocess.Popen[bytes] | None = None
        self.signals = 0

    # ------------------------------------------------------------------------------------------------------- its life
    def begin(self) -> None:
        self.postgres.sql(POSTGRES)
        self.connect.ready()
        self.connect.put(self.prefix, self.pg_config())
        wanted = {s.topic for s in self.plan.sources if s.topic.startswith(f"{self.prefix}.")}
        self.until(lambda: wanted <= set(self.topics()), "the topics of the tables")
        self.work()
        self.connect.until_placed(self.prefix)

    def pg_config(self) -> dict[str, str]:
        return {
            **COMMON, "connector.class": "io.debezium.connector.postgresql.PostgresConnector", "plugin.name": "pgoutput",
            "database.hostname": "127.0.0.1", "database.port": str(self.postgres.port), "database.user": "postgres",
            "database.password": "none", "database.dbname": self.postgres.name, "topic.prefix": self.prefix,
            "slot.name": f"c360_{self.prefix}", "publication.name": "c360", "publication.autocreate.mode": "filtered",
            "schema.include.list": "public", "signal.data.collection": "public.signals",
            "topic.heartbeat.prefix": f"{self.prefix}.heartbeat", **self.more,
        }  # fmt: skip

    def with_mariadb(self, mariadb: MariaDb) -> None:
        mariadb.sql(MARIADB)
        self.connect.put("my", self.my_config(mariadb))
        self.mariadb = mariadb
        wanted = {s.topic for s in self.plan.sources if s.topic.startswith("my.")}
        self.until(lambda: wanted <= set(self.topics()), "the topics of the tables")

    def my_config(self, mariadb: MariaDb) -> dict[str, str]:
        return {
            **COMMON, "connector.class": "io.debezium.connector.mariadb.MariaDbConnector",
            "database.hostname": "127.0.0.1", "database.port": str(mariadb.port), "database.user": "cdc",
            "database.password": "cdc", "database.server.id": "184054", "topic.prefix": "my", "database.include.list": "shop",
            "schema.history.internal.kafka.bootstrap.servers": self.kafka, "signal.data.collection": "shop.signals",
            "schema.history.internal.kafka.topic": "my.history", "topic.heartbeat.prefix": "my.heartbeat",
            "database.ssl.mode": "disable", "binary.handling.mode": "base64",
        }  # fmt: skip

    def work(self) -> None:
        self.worker = worker(self.kafka, self.home / "state", self.log, self.where, "--web-port", "0", **self.settings)

    def kill_worker(self) -> None:
        assert self.worker is not None
        self.worker.kill()
        self.worker.wait()

    def end(self) -> None:
        if self.worker is not None and self.worker.poll() is None:
            assert stop(self.worker) == 0, self.log.read_text()[-4000:]

    # -------------------------------------------------------------------------------------------------- what is there
    def topics(self) -> Mapping[str, int]:
        admin = self.cluster.admin()
        try:
            return admin.topics()
        finally:
            admin.close()

    def raw(self, topic: str) -> Iterator[tuple[int, Any, Any]]:
        """Partition, key and value of all records of a raw topic."""
        reader = self.cluster.reader()
        try:
            parts = [TP(topic, p) for p in range(self.topics()[topic])]
            for batches in reader.read(reader.starts(parts)):
                for batch in batches:
                    for key, value in zip(batch.keys, batch.values, strict=True):
                        yield batch.tp.partition, key and json.loads(key), value and json.loads(value)
        finally:
            reader.close()

    def events(self, topic: str, **source: Any) -> list[dict[str, Any]]:
        """The changes in a topic; with `source` those that say so of where they are from."""
        return [v for _, _, v in self.raw(topic) if v and "op" in v and source.items() <= v["source"].items()]

    def repeated(self, topic: str) -> int:
        """How many events came more than once."""
        seen = Counter(
            (json.dumps(key), value["op"], value["source"]["lsn"])
            for _, key, value in self.raw(topic)
            if value and value["op"] != "r"
        )
        return sum(n - 1 for n in seen.values())

    def profiles(self) -> dict[str, dict[str, Any]]:
        made = {}
        for key, value in profiles(self.plan, self.cluster).items():
            made[key.decode()] = comparable(dict(json.loads(value)["attributes"]))
        return {subject: known for subject, known in made.items() if known}

    def wanted(self) -> dict[str, dict[str, Any]]:
        found = from_postgres(self.postgres)
        if self.mariadb is not None:
            found |= from_mariadb(self.mariadb)
        return {subject: known for subject, known in found.items() if known}

    # ----------------------------------------------------------------------------------------------------- conditions
    def until(self, done: Callable[[], bool], what: str, within_s: float = WITHIN_S) -> None:
        deadline = time.monotonic() + within_s
        while not done():
            assert self.worker is None or self.worker.poll() is None, self.log.read_text()[-4000:]
            assert time.monotonic() < deadline, f"{what}: not within {within_s:.0f} s\n{self.connect.log()[-3000:]}"
            time.sleep(0.2)

    def check(self) -> None:
        """Until all profiles are what the tables say, and at rest they still are."""
        wanted = self.wanted()
        deadline = time.monotonic() + WITHIN_S
        while (found := self.profiles()) != wanted:
            assert self.worker is not None
            assert self.worker.poll() is None, self.log.read_text()[-4000:]
            if time.monotonic() > deadline:
                some = dict(list(difference(found, wanted).items())[:5])
                letters = list(self.raw(self.plan.dlq))[:3] if self.plan.dlq in self.topics() else []
                raise AssertionError(f"found, wanted: {some}\nput aside: {letters}\n{self.log.read_text()[-2000:]}")
            time.sleep(0.2)

    def check_some(self, subject: str) -> None:
        """Until this one's profile is."""
        wanted = self.wanted().get(subject)
        self.until(lambda: self.profiles().get(subject) == wanted, subject)

    def check_all(self) -> None:
        """And nothing was put aside, and a slow recomputation from the raw topics agrees."""
        self.check()
        wait_for_rest(self.plan, self.cluster, self.worker, self.log)
        assert difference(self.profiles(), self.wanted()) == {}
        assert [letter["reason"] for _, _, letter in self.raw(self.plan.dlq)] == []
        url = self.settings.get("C360_REGISTRY")
        with closing(SchemaRegistry(url)) if url else nullcontext(None) as registry:
            report = verify(self.plan, self.cluster, [], registry=registry)
        assert (report.differences, report.complete, report.lag) == (0, True, 0), report.to_text()

    # --------------------------------------------------------------------------------------------------------- doings
    def snapshot(self, table: str) -> None:
        """Have a table read again while changes go on."""
        self.signals += 1
        said = json.dumps({"data-collections": [table], "type": "incremental"})
        self.postgres.sql(f"INSERT INTO signals VALUES ('read-{self.signals}', 'execute-snapshot', '{said}');")


def difference(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """By subject: attribute -> (found, wanted)."""
    out = {}
    for subject in sorted({*found, *wanted}):
        a, b = found.get(subject, {}), wanted.get(subject, {})
        if a != b:
            out[subject] = {n: (a.get(n), b.get(n)) for n in sorted({*a, *b}) if a.get(n) != b.get(n)}
    return out
