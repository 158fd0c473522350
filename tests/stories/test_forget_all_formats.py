"""What is left of a customer who is in records of every format: Segment, CloudEvents, Avro, rows in JSON and in Avro, answers.

Two workers, one killed while they forget; a source that is paused meanwhile; somebody outside who answers too late; what
nobody can read; views and a sink in Avro with CloudEvents in their headers. Then the files are read, byte by byte.
"""

from __future__ import annotations

import base64
import json
import os
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import Popen
from typing import Any

import pytest

from c360.engine.kafka import KafkaCluster
from c360.engine.transport import TP, Headers, TopicSpec
from c360.ops import dev_kafka, keys
from c360.ops.profiles import normalized
from c360.ops.records import follow
from tests.governance.mixed_town import Producers, app
from tests.registry import Apicurio
from tests.stories.left import counted, in_state, where_in
from tests.stories.test_proof import FILLER, SOON, SWEEP_S
from tests.stories.tools import begun, c360, free_port, get, stop, wait_for_rest, wait_until, worker

NAME = "tests.governance.mixed_town:app"
WHO, COOKIE, DEVICE, LATE = "c-7777-seven", "kuki-7777-seven", "kuki-7777-device", "kuki-7777-late"
MAIL, BAD, SLOW = "wilhelmina.seven@mail.se", "bad.wilhelmina@mail.se", "slow.wilhelmina@mail.se"
IDS = [WHO, COOKIE, DEVICE]
SECRETS = ["Wilhelmina", "wilhelmina", "hers-alone"]
"""In everything that is personal about her, and in nothing else."""


@pytest.mark.timeout(600)
def test_nothing_is_left_of_a_customer_in_records_of_every_format(
    kafka: str, real_registry: Apicurio, tmp_path: Path
) -> None:
    with dev_kafka.start(data_dir=tmp_path / "kafka") as running:
        town = _Town(running.bootstrap, real_registry, tmp_path)
        try:
            town.story()
        finally:
            town.end()


class _Town:
    """The app, its producers, and two workers."""

    def __init__(self, broker: str, registry: Apicurio, home: Path) -> None:
        self.broker, self.home, self.log = broker, home, home / "worker.log"
        self.plan, self.cluster = app.plan(), KafkaCluster(broker)
        self.admin, self.producer = self.cluster.admin(), self.cluster.producer()
        self.mood, self.master = home / "mood", home / "keys"
        self.states = [home / "state" / "0", home / "state" / "1"]
        self.port = free_port()
        self.settings = {
            "C360_KEYS": str(self.master), "C360_REGISTRY": registry.url, "C360_CLOUDEVENTS": "true",
            "C360_SWEEP": f"{SWEEP_S}", "MOOD": str(self.mood),
        }  # fmt: skip
        self.workers: list[Popen[bytes]] = []
        self.others: list[Popen[str]] = []
        self.p = Producers("mixed", self.send, registry)

    def send(self, topic: str, key: bytes | None, value: bytes | None, headers: Headers | None) -> None:
        self.producer.produce(topic, key, value, None, headers)

    def run(self, *arguments: str, status: int = 0) -> Any:
        settings = {**self.settings, "C360_STATE_DIR": str(self.home / "state")}
        said = c360(self.broker, NAME, *arguments, **settings)
        assert said.returncode == status, said.stderr + said.stdout
        return json.loads(said.stdout) if "--json" in arguments else said.stdout

    def start(self, slot: int) -> None:
        more = ["--web-port", str(self.port)] if slot == 0 else []
        made = worker(self.broker, self.states[slot], self.log, NAME, *more, C360_SLOT=str(slot), **self.settings)
        self.workers[slot:] = [made, *self.workers[slot + 1 :]]

    def end(self) -> None:
        for process in self.workers:
            process.kill()
            process.wait()
        for other in self.others:
            other.kill()
            other.wait()
            if other.stderr is not None:
                other.stderr.close()

    def until(self, done: Any) -> None:
        wait_until(done, self.workers[0], self.log)

    def held(self, topic: str) -> dict[str, bytes]:
        reader = self.cluster.reader()
        found: dict[bytes, bytes] = {}
        follow(reader, reader.starts([TP(topic, p) for p in range(self.plan.partitions)]), found)
        reader.close()
        return {key.decode(): value for key, value in found.items()}

    # ----------------------------------------------------------------------------------------------------- traffic
    def others_write(self) -> None:
        for n in range(1, 5):
            who, mail = f"c-{n}", f"p{n}@mail.se"
            self.p.identify(who, f"kuki-{n}", f"Somebody {n}", mail)
            self.p.search(who, None, f"words of {n}")
            self.p.order(who, f"Street {n}")
            self.p.letter(who, mail, f"Dear {n}", binary=n % 2 == 0)
            self.p.person(who, f"Somebody {n}", mail, None)
            self.p.card(f"{who}-card", who, f"Somebody {n}")
        self.producer.flush()

    def she_writes(self) -> None:
        p = self.p
        p.search(None, COOKIE, "hers-alone before she said who she is")
        p.identify(WHO, COOKIE, "Wilhelmina Seven", MAIL)
        p.identify(None, DEVICE, "Wilhelmina Seven", BAD)
        p.call("alias", WHO, None, previousId=DEVICE)
        p.call("group", WHO, None, groupId="g-1", traits={"role": "hers-alone role"})
        p.order(WHO, "hers-alone street", "hers-alone parcel")
        p.letter(WHO, MAIL, "hers-alone letter", binary=True)
        p.letter(WHO, BAD, "hers-alone other letter", binary=False)
        p.person(WHO, "Wilhelmina", MAIL, "hers-alone notes")
        p.person(WHO, "Wilhelmina Seven", MAIL, "hers-alone newer notes")
        p.card(f"{WHO}-gone", WHO, "Wilhelmina with a card of before")
        p.card(f"{WHO}-lost", WHO, "Wilhelmina with a card that was lost")
        p.card(f"{WHO}-lost", WHO, "Wilhelmina with a card that was lost", op="d")
        p.no_cards()
        p.card(f"{WHO}-card", WHO, "Wilhelmina with a card")
        self.producer.flush()

    def nobody_can_read(self) -> None:
        """Of each format something that is wrong, and says who she is."""
        p, said = self.p, f"hers-alone {WHO} {MAIL}"
        text = said.encode()
        json_kind: Headers = [("content-type", b"application/cloudevents+json")]
        self.send("mixed.orders", WHO.encode(), text, None)
        self.send("mixed.orders", WHO.encode(), b"\0\0\0\x7f\x7f" + text, None)
        self.send("mixed.orders", WHO.encode(), p.frames["orders"] + text, None)
        self.send("mixed.orders", WHO.encode(), p.frames["cards"] + text, None)
        self.send("mixed.web", COOKIE.encode(), b'{"type": "track", "event": "Searched", "userId": "' + text, None)
        p.call("identify", WHO, None, traits={"email": {"it": said}, "name": said})
        p.call("track", None, None, event="Searched", properties={"words": said})
        p.call("identify", WHO, None, traits={"name": said}, context={"consent": {"categoryPreferences": said}})
        p.call("alias", WHO, None, previousId=[said])
        self.send("mixed.letters", WHO.encode(), text, json_kind)
        for version, subject in (("0.3", MAIL), ("1.0", said)):
            attributes = {
                "specversion": version,
                "type": "se.letter.sent",
                "id": "1",
                "source": "/",
                "subject": subject,
            }
            headers = [(f"ce_{name}", value.encode()) for name, value in attributes.items()]
            self.send("mixed.letters", WHO.encode(), text, [*headers, ("content-type", b"application/json")])
            self.send("mixed.letters", WHO.encode(), text, [*headers, ("content-type", b"text/plain")])
        p.person(f"{WHO}-never", "__debezium_unavailable_value", MAIL, said)
        row = {"id": WHO, "name": said, "email": MAIL, "notes": None}
        self.send("mixed.people", b'{"id": "c-7777-seven"}', json.dumps(row).encode(), None)
        self.send("mixed.people", text, text, None)
        self.send("mixed.cards", text, p.frames["cards"] + text, None)
        self.send("mixed.cards", p.frames["keys"] + text, p.frames["cards"] + text, None)
        self.send("mixed.forget", WHO.encode(), json.dumps({"email": said}).encode(), None)
        self.send("mixed.forget", WHO.encode(), text, None)
        p.search(WHO, None, "boom hers-alone")
        self.producer.flush()

    @contextmanager
    def collected(self) -> Iterator[None]:
        """Calls that come over HTTP: one that is written, and some that cannot be."""
        (file := self.home / "write-keys").write_text("key-of-web mixed.web\n")
        file.chmod(0o600)
        port = free_port()
        asked = begun(self.broker, NAME, "collect", "--keys", str(file), "--port", str(port), **self.settings)
        self.others.append(asked)
        assert asked.stderr is not None
        assert "http" in asked.stderr.readline()
        basic = base64.b64encode(b"key-of-web:").decode()

        def post(kind: str, said: Any) -> int:
            request = urllib.request.Request(
                f"http://127.0.0.1:{port}/v1/{kind}", json.dumps(said).encode(), {"Authorization": f"Basic {basic}"}
            )
            try:
                with urllib.request.urlopen(request, timeout=30) as answer:
                    return int(answer.status)
            except urllib.error.HTTPError as error:
                with error:
                    return error.code

        words = {"event": "Searched", "properties": {"words": "hers-alone collected"}}
        assert post("track", {"userId": WHO, **words}) == 200
        assert post("track", words) == 400
        assert post("identify", {"userId": WHO, "traits": {"email": {"it": MAIL}, "name": "Wilhelmina"}}) == 400
        page = get(port, "/metrics")[1]
        yield
        asked.terminate()
        rest = asked.communicate()[1]
        for word in [*IDS, *SECRETS]:
            assert word not in page
            assert word not in rest

    # ------------------------------------------------------------------------------------------------------- story
    def story(self) -> None:
        plan, p = self.plan, self.p
        self.mood.write_text("well")
        self.admin.create([TopicSpec(t.name, 3) for t in plan.topics if not t.owned])
        for topic in plan.topics:
            if topic.owned:
                soon = SOON if topic.config.get("cleanup.policy") == "compact" else {}
                config = {**topic.config, **soon, "compression.type": "uncompressed"}
                self.admin.create([TopicSpec(topic.name, topic.partitions or 3, config)])
        compacted = {t.name for t in plan.topics if t.owned and t.config.get("cleanup.policy") == "compact"}
        raw = {t.name for t in plan.topics if not t.owned}
        self.run("keys", "init")
        self.run("topics", "apply", "--json")
        self.start(0)
        self.start(1)
        # 1 others, and the customer, in all formats
        self.others_write()
        self.she_writes()
        self.nobody_can_read()
        label = f"crm:{WHO}"
        doors = {door.agent: plan.leaves(door) for door in plan.doors}
        projected = plan.projected(plan.projections[0])
        with self.collected():

            def is_known() -> bool:
                found = self.held(projected).get(label)
                if found is None:
                    return False
                said = json.loads(found)["attributes"]
                counts = (said["searches"], said["orders"], said["letters"], said["firm"] is not None)
                return counts == (3, 1, 2, True) and said["holder"] is not None and said["role"] is not None

            self.until(is_known)
            self.until(
                lambda: all(label in self.held(topic) for agent, topic in doors.items() if agent != "sink:mailer")
            )
            self.until(lambda: self.run("erase", label, "--dry-run", "--json")["subjects"] == sorted(
                [label, f"cookie:{COOKIE}", f"cookie:{DEVICE}"]))  # fmt: skip
        wait_for_rest(plan, self.cluster, self.workers[0], self.log)
        assert b"Wilhelmina" in self.held(doors["sink:rows"])[label]
        letters = self.run("dlq", "list", "--json")
        print(json.dumps(letters))
        names = keys.open_vault(plan, self.cluster, keys.open_master(str(self.master), str), os.urandom).names
        tokens = [normalized(plan, f"email:{mail}", names) for mail in (MAIL, BAD, SLOW)]
        words = [*IDS, LATE, *tokens]
        clear = [*IDS, *SECRETS]
        assert counted(self.home / "kafka", words, compacted)
        # 2 a source is paused, with her in what is not read; somebody outside is asked, and does not answer yet
        self.run("source", "pause", "orders", "--reason", "a test", "--execute")
        time.sleep(1.0)
        for n in range(20):
            p.order(WHO, f"hers-alone street {n} of the pause")
        self.mood.write_text("hangs")
        p.letter(WHO, SLOW, "hers-alone slow letter", binary=True)
        self.producer.flush()

        def waits_outside() -> bool:
            page = get(self.port, "/metrics")[1]
            return any(tokens[2] in value.decode() for value in self.values(plan.questions(plan.outsides[0]))) and bool(
                page
            )

        self.until(waits_outside)
        # 3 she is forgotten, while one worker is killed, under traffic
        asked = begun(
            self.broker, NAME, "erase", label, "--execute", "--reason", "ticket 7", "--wait", "--json", **self.settings
        )
        self.others.append(asked)
        for n in range(40):
            p.search(f"c-{n % 4 + 1}", None, "others")
            p.search(WHO, None, "hers-alone while she is forgotten")
            p.card(f"{WHO}-card-{n}", WHO, "Wilhelmina with a new card")
            self.producer.flush()
            if n in (10, 25):
                self.workers[1].kill()
                self.workers[1].wait()
                self.start(1)
            time.sleep(0.1)
        self.mood.write_text("well")
        why = asked.communicate(timeout=100)[1]
        assert asked.returncode == 0, why
        # 4 she writes again, also from a device that nobody knows; the source goes on; letters are sent back
        self.she_writes()
        p.call("identify", None, LATE, traits={"name": "Wilhelmina Seven", "email": MAIL})
        p.letter(WHO, MAIL, "hers-alone letter of later", binary=True)
        p.no_cards()
        self.run("source", "resume", "orders", "--execute")
        self.producer.flush()
        self.run("dlq", "replay")
        wait_for_rest(plan, self.cluster, self.workers[0], self.log)
        page = get(self.port, "/metrics")[1]
        # 5 the workers sweep their files while they run
        suppression = ["governance", "erasure.v1"]
        clean: list[float] = []

        def stays_clean() -> bool:
            if in_state(self.states, words + SECRETS, suppression) or in_state(self.states, clear):
                clean.clear()
            else:
                clean.append(time.monotonic())
            return bool(clean) and clean[-1] - clean[0] > 2 * SWEEP_S

        try:
            self.until(stays_clean)
        except AssertionError:
            raise AssertionError(where_in(self.states, words + SECRETS)) from None
        assert [stop(process) for process in self.workers] == [0, 0], self.log.read_text()[-5000:]
        assert self.run("verify", "--json")["differences"] == 0
        # 6 the broker compacts
        deadline = time.monotonic() + 90
        kept = {plan.suppressed, f"{plan.app}.erasure.changelog"}
        logs = self.home / "kafka"
        while found := counted(logs, words, compacted - kept) | counted(logs, clear, kept):
            assert time.monotonic() < deadline, found
            for name in compacted:
                for partition in range(self.admin.topics()[name]):
                    self.producer.produce(name, FILLER, None, partition)
            self.producer.flush()
            time.sleep(1.1)
        # 7 nothing can be read, in no file, no line of a log, no metric
        everywhere = {path.name.rpartition("-")[0] for path in logs.rglob("*-*") if path.is_dir()} - raw
        assert counted(logs, SECRETS, everywhere) == {}
        assert in_state(self.states, words + SECRETS, suppression) == Counter(), where_in(self.states, words + SECRETS)
        assert [word for word in [*words, *SECRETS] if word in self.log.read_text() or word in page] == []
        assert label not in self.held(projected)
        assert json.loads(self.held(projected)["crm:c-1"])["attributes"]["orders"] == 1
        # 8 and so say the commands
        (values := self.home / "values").write_text("\n".join(SECRETS))
        checked = self.run("erase", label, "--check", "--values", str(values), "--json")
        assert (checked["readable_bytes"], [place for place in checked["check"] if not place["holds"]]) == (0, [])
        for place in checked["check"]:
            if place["ids"] or place["values"]:
                print(place["place"], place["policy"], place["ids"], place["values"], place["gone_by"])
        assert self.run("audit", "verify", "--json")["findings"] == []
        self.producer.close()

    def values(self, topic: str) -> list[bytes]:
        reader = self.cluster.reader()
        found = []
        for batches in reader.read(reader.starts([TP(topic, p) for p in range(self.plan.partitions)])):
            for batch in batches:
                found += [value for value in batch.values if value is not None]
        reader.close()
        return found
