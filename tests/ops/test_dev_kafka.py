"""The development broker: ready when `start` returns, gone when its owner is gone, plain words when it cannot run."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from c360.errors import UsageError
from c360.ops import dev_kafka
from c360.ops.kafka import probe, settings
from c360.ops.kafka.provide import Docker, Jars, find_kafka
from tests.stories.tools import alive

ROOT = Path(__file__).parents[2]


def until(condition: Callable[[], bool], what: str, *, within_s: float = 30) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {within_s} s: {what}"
        time.sleep(0.05)


def address(bootstrap: str) -> tuple[str, int]:
    host, _, port = bootstrap.partition(":")
    return host, int(port)


@pytest.fixture(scope="module")
def jars() -> Jars:
    if not Path("/proc/self/stat").exists():
        pytest.skip("looks at processes through /proc")
    found: Jars | Docker | UsageError
    try:
        found = find_kafka()
    except UsageError as error:
        found = error
    if isinstance(found, UsageError):
        if os.environ.get("C360_TEST_BROKER"):
            pytest.skip(f"C360_TEST_BROKER serves the other tests; here: {found}")
        pytest.fail(str(found), pytrace=False)
    if isinstance(found, Docker):
        pytest.skip("tests of the processes need Java and Maven; here docker runs Kafka")
    return found


# --- on a real broker ---------------------------------------------------------------------------------------------


@pytest.mark.kafka
def test_a_broker_is_ready_when_start_returns_and_gone_after_stop(jars: Jars) -> None:
    with dev_kafka.start() as kafka:
        host, port = address(kafka.bootstrap)
        assert probe.live_brokers(host, port) == 1
        assert len(kafka.pids) == 1
        assert alive(kafka.pids[0])
        home = Path(os.readlink(f"/proc/{kafka.pids[0]}/cwd")).parent
    assert not alive(kafka.pids[0])
    assert probe.live_brokers(host, port) == 0
    assert not home.exists()
    assert "Performing controller activation" in kafka.log_text()
    kafka.stop()


@pytest.mark.kafka
def test_a_second_start_uses_the_jars_and_the_class_archive_of_the_first(jars: Jars) -> None:
    with dev_kafka.start():
        pass
    assert jars.archive.exists()
    made = jars.archive.stat().st_mtime_ns
    said: list[str] = []
    with dev_kafka.start(say=said.append) as kafka:
        command = Path(f"/proc/{kafka.pids[0]}/cmdline").read_bytes().split(b"\0")
        mapped = Path(f"/proc/{kafka.pids[0]}/maps").read_text(encoding="utf-8")
    assert f"-XX:SharedArchiveFile={jars.archive}".encode() in command
    assert str(jars.archive) in mapped  # the flag alone proves nothing: an archive that does not fit is ignored
    assert said == []
    assert jars.archive.stat().st_mtime_ns == made


@pytest.mark.kafka
def test_a_data_directory_keeps_the_cluster_and_its_number_of_brokers(jars: Jars, tmp_path: Path) -> None:
    with dev_kafka.start(data_dir=tmp_path / "kept"):
        pass
    meta = tmp_path / "kept" / "broker-1" / "data" / "meta.properties"
    before = meta.read_text(encoding="utf-8")
    with dev_kafka.start(data_dir=tmp_path / "kept") as kafka:
        assert "The metadata log appears to be empty" not in kafka.log_text()
    assert meta.read_text(encoding="utf-8") == before
    with pytest.raises(UsageError, match="holds the data of 1 broker, not of 3"):
        dev_kafka.start(brokers=3, data_dir=tmp_path / "kept")


@pytest.mark.kafka
def test_three_brokers_know_each_other(jars: Jars) -> None:
    quick = {"broker.session.timeout.ms": 2000, "broker.heartbeat.interval.ms": 500}
    with dev_kafka.start(brokers=3, overrides=quick) as kafka:
        nodes = [address(one) for one in kafka.bootstrap.split(",")]
        assert [probe.live_brokers(host, port) for host, port in nodes] == [3, 3, 3]
        os.kill(kafka.pids[2], signal.SIGKILL)
        until(lambda: probe.live_brokers(*nodes[0]) == 2, "the others notice a dead broker")
    assert not any(alive(pid) for pid in kafka.pids)


@pytest.mark.kafka
def test_a_broker_that_was_killed_starts_again_and_tells_at_each_door_the_address_that_stands_there(jars: Jars) -> None:
    with dev_kafka.start(doors={"WEST": ["127.0.0.1:7"], "EAST": ["127.0.0.1:9"]}) as kafka:
        [west], [east] = kafka.doors["WEST"], kafka.doors["EAST"]
        assert len({address(kafka.bootstrap), west, east}) == 3
        assert probe.live_brokers(*west) == 1
        killed = kafka.pids[0]
        os.kill(killed, signal.SIGKILL)
        until(kafka.ended, "its end is noticed")
        kafka.start_again(0)
        assert not kafka.ended()
        assert kafka.pids[0] != killed
        assert probe.live_brokers(*east) == 1
        properties = settings.broker_properties(kafka._nodes[0], kafka._nodes, {})
        assert properties["advertised.listeners"].endswith(",WEST://127.0.0.1:7,EAST://127.0.0.1:9")
    assert not alive(kafka.pids[0])


OWNER = """
import json, multiprocessing, sys, time
from c360.ops import dev_kafka
kafka = dev_kafka.start()
if sys.argv[1] == "fork":                     # a child that holds every open pipe of its parent
    multiprocessing.get_context("fork").Process(target=time.sleep, args=(3600,), daemon=True).start()
children = [child.pid for child in multiprocessing.active_children()]
try:
    print(json.dumps([kafka.pids, children, str(kafka._home)]), flush=True)
    kafka.wait()
except KeyboardInterrupt:
    kafka.stop()
    sys.exit(130)
"""


@pytest.fixture
def owner() -> Iterator[Callable[[str], tuple[subprocess.Popen[str], list[int], list[int], Path]]]:
    """Starts a process that owns a broker; yields it, the broker's ids, its children's ids, its temporary directory."""
    started: list[subprocess.Popen[str]] = []
    orphans: list[int] = []

    def start(how: str) -> tuple[subprocess.Popen[str], list[int], list[int], Path]:
        process = subprocess.Popen([sys.executable, "-c", OWNER, how], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        pids, children, home = json.loads(process.stdout.readline())
        orphans.extend(children)
        return process, pids, children, Path(home)

    yield start
    for process in started:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
    for pid in orphans:
        if alive(pid):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.kafka
@pytest.mark.parametrize("how", ["alone", "fork"])
def test_a_broker_does_not_outlive_an_owner_that_is_killed(
    jars: Jars, owner: Callable[[str], tuple[subprocess.Popen[str], list[int], list[int], Path]], how: str
) -> None:
    process, pids, children, home = owner(how)
    assert alive(pids[0])
    process.kill()
    process.wait()
    until(lambda: not alive(pids[0]), "the broker is gone", within_s=5)
    until(lambda: not home.exists(), "its directory is gone", within_s=5)
    assert all(alive(child) for child in children)


@pytest.mark.kafka
def test_control_c_stops_the_broker_and_leaves_nothing(
    jars: Jars, owner: Callable[[str], tuple[subprocess.Popen[str], list[int], list[int], Path]]
) -> None:
    process, pids, _, home = owner("alone")
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    until(lambda: not alive(pids[0]), "the broker is gone", within_s=5)
    until(lambda: not home.exists(), "its directory is gone", within_s=5)


@pytest.mark.kafka
def test_a_broker_outlives_the_thread_that_started_it(jars: Jars) -> None:
    with ThreadPoolExecutor(1) as pool:
        kafka = pool.submit(dev_kafka.start).result()
    with kafka:
        time.sleep(1)  # four looks of the keeper, had it taken the thread for its owner
        assert alive(kafka.pids[0])


@pytest.mark.kafka
def test_wait_returns_when_the_broker_ends_by_itself(jars: Jars) -> None:
    with dev_kafka.start() as kafka:
        os.kill(kafka.pids[0], signal.SIGKILL)
        kafka.wait()
        assert not alive(kafka.pids[0])


@pytest.mark.kafka
def test_a_broker_that_cannot_start_says_why(jars: Jars) -> None:
    with pytest.raises(UsageError, match=r"(?s)ended while starting.*num\.io\.threads"):
        dev_kafka.start(overrides={"num.io.threads": "many"})


@pytest.mark.kafka
def test_a_port_that_somebody_has_is_named(jars: Jars) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(UsageError, match=rf"port {port} is taken: .* --port"):
            dev_kafka.start(port=port)


@pytest.mark.kafka
def test_a_port_taken_in_the_last_moment_is_exchanged_for_another(jars: Jars, monkeypatch: pytest.MonkeyPatch) -> None:
    free_ports = dev_kafka._ports
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        offered = [taken]

        def ports(brokers: int, first: int | None, each: int) -> list[list[int]]:
            [[port, controller]] = free_ports(brokers, first, each)
            return [[offered.pop() if offered else port, controller]]

        monkeypatch.setattr(dev_kafka, "_ports", ports)
        with dev_kafka.start() as kafka:
            assert address(kafka.bootstrap)[1] != taken
        assert offered == []


# --- without a broker ---------------------------------------------------------------------------------------------


def program(directory: Path, name: str, script: str) -> None:
    directory.mkdir(exist_ok=True)
    path = directory / name
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(0o755)


def java(directory: Path, version: str) -> None:
    program(directory, "java", f"echo 'openjdk version \"{version}\"' >&2")


def test_a_machine_with_nothing_is_told_all_that_would_help(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        find_kafka(tmp_path, path=str(tmp_path))
    assert str(caught.value).startswith("No Java 17+ with Maven and no docker found: install")
    assert "(no java on the path; no mvn on the path; no docker on the path)" in str(caught.value)


@pytest.mark.parametrize("version", ["11.0.2", "1.8.0_402"])
def test_an_old_java_is_named_and_not_used(tmp_path: Path, version: str) -> None:
    java(tmp_path / "bin", version)
    program(tmp_path / "bin", "mvn", "exit 0")
    with pytest.raises(UsageError, match=r"is Java (8|11), Kafka needs 17; Maven is there"):
        find_kafka(tmp_path, path=str(tmp_path / "bin"))


def test_docker_is_second_and_only_with_an_engine_that_answers(tmp_path: Path) -> None:
    program(tmp_path / "bin", "docker", "exit 0")
    assert find_kafka(tmp_path, path=str(tmp_path / "bin")) == Docker(str(tmp_path / "bin" / "docker"))
    program(tmp_path / "bin", "docker", "exit 1")
    with pytest.raises(UsageError, match="docker is there, but no engine answers"):
        find_kafka(tmp_path, path=str(tmp_path / "bin"))


def test_maven_s_own_words_reach_the_user_and_a_failed_fetch_leaves_no_jars(tmp_path: Path) -> None:
    java(tmp_path / "bin", "21")
    program(tmp_path / "bin", "mvn", "echo '[ERROR] Could not transfer artifact'; exit 1")
    with pytest.raises(UsageError, match=r"(?s)needs to reach a Maven repository.*Could not transfer artifact"):
        find_kafka(tmp_path / "cache", path=str(tmp_path / "bin"))
    assert [path.name for path in (tmp_path / "cache" / "kafka-4.1.0").iterdir()] == ["lock"]


def test_processes_that_start_together_fetch_once(tmp_path: Path) -> None:
    java(tmp_path / "bin", "17")
    jar = 'for word; do case $word in -DoutputDirectory=*) echo > "${word#*=}/a.jar";; esac; done'
    program(tmp_path / "bin", "mvn", f"echo x >> {tmp_path}/fetched; sleep 0.2; {jar}")
    find = (
        "import sys, pathlib; from c360.ops.kafka.provide import find_kafka;"
        "find_kafka(pathlib.Path(sys.argv[1]), path=sys.argv[2])"
    )
    command = [sys.executable, "-c", find, str(tmp_path / "cache"), str(tmp_path / "bin")]
    environment = os.environ | {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    processes = [subprocess.Popen(command, cwd=ROOT, env=environment) for _ in range(3)]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    assert (tmp_path / "fetched").read_text(encoding="utf-8") == "x\n"


def test_docker_s_broker_is_reached_at_the_port_it_tells_and_removed_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A docker that runs nothing: the command line is what is tested here, the image itself is not."""
    program(tmp_path, "docker", f'echo "$@" >> {tmp_path}/calls; echo "no such image"; exit 1')
    monkeypatch.setattr(dev_kafka, "find_kafka", lambda cache, say: Docker(str(tmp_path / "docker")))
    with pytest.raises(UsageError, match="no such image"):
        dev_kafka.start(overrides={"message.max.bytes": 5})
    run, remove = (tmp_path / "calls").read_text(encoding="utf-8").splitlines()
    words = run.split()
    assert words[:2] == ["run", "--rm"]
    assert words[-1] == "apache/kafka:4.1.0"
    told = dict(word.split("=", 1) for word in words if "=" in word)
    port = told["KAFKA_ADVERTISED_LISTENERS"].rpartition(":")[2]
    assert told["KAFKA_LISTENERS"].startswith(f"PLAINTEXT://0.0.0.0:{port},")
    assert f"127.0.0.1:{port}:{port}" in words
    assert told["KAFKA_MESSAGE_MAX_BYTES"] == "5"
    assert remove == f"rm --force {words[words.index('--name') + 1]}"
    with pytest.raises(UsageError, match="need Java"):
        dev_kafka.start(brokers=3)


def test_two_brokers_are_refused() -> None:
    with pytest.raises(UsageError, match="2 brokers: a development Kafka has 1 or 3"):
        dev_kafka.start(brokers=2)


def test_three_nodes_replicate_and_one_does_not() -> None:
    nodes = [settings.Node(n, "127.0.0.1", 9091 + n, 9191 + n, Path(f"/d/{n}")) for n in (1, 2, 3)]
    three = settings.broker_properties(nodes[1], nodes, {})
    assert three["controller.quorum.voters"] == "1@127.0.0.1:9192,2@127.0.0.1:9193,3@127.0.0.1:9194"
    assert three["node.id"] == "2"
    assert (three["default.replication.factor"], three["min.insync.replicas"]) == ("3", "2")
    assert three["transaction.state.log.min.isr"] == "2"
    one = settings.broker_properties(nodes[0], nodes[:1], {"num.io.threads": 8, "auto.create.topics.enable": True})
    assert (one["default.replication.factor"], one["offsets.topic.replication.factor"]) == ("1", "1")
    assert (one["num.io.threads"], one["auto.create.topics.enable"]) == ("8", "true")


def test_nothing_and_something_else_on_a_port_are_not_a_broker() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        port = other.getsockname()[1]
        assert probe.live_brokers("127.0.0.1", port) == 0
        other.listen()
        assert probe.live_brokers("127.0.0.1", port, timeout_s=0.2) == 0
