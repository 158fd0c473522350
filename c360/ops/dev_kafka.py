"""A real Apache Kafka on this machine, for development and tests: one broker or three, gone when this process is gone.

    with dev_kafka.start() as kafka:
        use(kafka.bootstrap)

Knows processes, ports and directories; `ops.kafka` holds the parts. Imports no Kafka client.

Life cycle: `start` finds Kafka (`ops.kafka.provide`), hands the commands to a keeper process (`ops.kafka.keeper`) and
returns when every broker can be produced to. `stop` asks for a clean stop. However this process ends, also by kill -9,
the keeper ends the brokers and deletes what was temporary, within a second or two.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from c360.errors import BrokerAway, UsageError
from c360.ops.kafka import keeper, probe, settings
from c360.ops.kafka.provide import IMAGE, Docker, Jars, Say, find_kafka

__all__ = ["Running", "find_kafka", "start"]

READY_S = 90.0  # a busy machine with two cores; 2 s are usual
STOP_S = 30.0  # a clean stop: data that stays, or the first one, which writes the class archive
DROP_S = 2.0  # a stop when nothing is kept; three brokers that leave at once would wait for each other
_LOOK_S = 0.03
_ATTEMPTS = 5
_HOST = "127.0.0.1"
_TAKEN = ("Address already in use", "port is already allocated")


class _PortTaken(Exception):
    """Between looking for a free port and using it, somebody else did."""


class Running:
    """Brokers that answer. A context manager that stops them at the end of the block."""

    def __init__(
        self,
        nodes: list[settings.Node],
        home: Path,
        kept: subprocess.Popen[str],
        pids: list[int],
        archives: list[tuple[Path, Path]],
    ) -> None:
        self.bootstrap = ",".join(node.address for node in nodes)
        self.pids = pids  # of the brokers, in node order (of the docker command where docker runs them)
        self.doors = {  # by name, where each broker listens
            door.name: [(node.host, d.port) for node in nodes for d in node.doors if d.name == door.name]
            for door in nodes[0].doors
        }
        self._nodes = nodes
        self._home = home
        self._keeper = kept
        self._last_log = ""
        self._archives = archives  # class archives: (written at exit, kept as)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def log_text(self) -> str:
        """What the brokers have written so far (warnings and errors), or had when they were stopped."""
        if self._keeper.poll() is None:
            self._last_log = _logs(self._home, self._nodes)
        return self._last_log

    def wait(self) -> None:
        """Return when a broker has ended by itself, or all have been stopped."""
        while not self.ended():
            time.sleep(0.2)

    def ended(self) -> bool:
        """Whether a broker has ended by itself, or all have been stopped."""
        return self._keeper.poll() is not None or any(
            (_directory(self._home, n) / "exit").exists() for n in self._nodes
        )

    def start_again(self, *numbers: int) -> None:
        """Start brokers (counted from 0) that have ended or are about to, on their data; returns when they answer."""
        assert self._keeper.stdin is not None
        assert self._keeper.stdout is not None
        for number in numbers:
            self._keeper.stdin.write(f"start {number}\n")
            self._keeper.stdin.flush()
            self.pids[:] = _pids(self._keeper.stdout.readline())
        deadline = time.monotonic() + READY_S
        for node in [self._nodes[number] for number in numbers]:
            while not probe.live_brokers(node.host, node.port):
                if time.monotonic() > deadline or (_directory(self._home, node) / "exit").exists():
                    log = _tail(_logs(self._home, [node]))
                    raise BrokerAway(f"broker {node.id} did not start again. Its log ends with:\n{log}")
                time.sleep(_LOOK_S)

    def stop(self) -> None:
        """Stop the brokers cleanly and delete what was temporary; a second call does nothing."""
        if self._keeper.poll() is not None:
            return
        self.log_text()
        _dismiss(self._keeper)
        for written, archive in self._archives:
            with suppress(FileNotFoundError):
                written.replace(archive)

    def _until_ready(self, deadline: float) -> None:
        waiting = list(self._nodes)
        while waiting:
            node = waiting[0]
            if probe.live_brokers(node.host, node.port) >= len(self._nodes):
                waiting.pop(0)
                continue
            if self.ended():
                log = self.log_text()
                if any(words in log for words in _TAKEN):
                    raise _PortTaken
                raise UsageError(f"Kafka ended while starting. Its log ends with:\n{_tail(log)}")
            if time.monotonic() > deadline:
                log = self.log_text()
                raise BrokerAway(f"Kafka was not ready in {READY_S:.0f} s. Its log ends with:\n{_tail(log)}")
            time.sleep(_LOOK_S)


def start(
    *,
    brokers: int = 1,
    port: int | None = None,
    data_dir: Path | None = None,
    overrides: Mapping[str, settings.Value] | None = None,
    doors: Mapping[str, Sequence[str]] | None = None,
    cache: Path | None = None,
    say: Say = lambda line: None,
) -> Running:
    """Start `brokers` (1 or 3) and return when they are ready, in 2 s (3 brokers: 7 s) once the jars are there.

    `port` is the first broker's, the others follow; without it they are random. `data_dir` keeps topics for the next
    start; without it they are temporary. `overrides` are broker settings by their Kafka names. `doors` are more
    listeners by name, each with the address (host:port) of every broker that its clients are to be told: proxies of the
    caller's, say, in front of `Running.doors`. `cache` replaces `~/.cache/c360`. `say` is told what takes long.
    Raises UsageError when nothing here can run Kafka, or it cannot run like this; BrokerAway when it is not ready
    in time.
    """
    if brokers not in (1, 3):
        raise UsageError(f"{brokers} brokers: a development Kafka has 1 or 3")
    kafka = find_kafka(cache, say=say)
    if isinstance(kafka, Docker) and (brokers > 1 or doors or data_dir is not None):
        raise UsageError(
            "three brokers, doors, or a data directory that stays need Java 17+ and Maven; docker runs one temporary broker"
        )
    for _ in range(_ATTEMPTS):
        try:
            return _start(kafka, brokers, port, data_dir, overrides or {}, doors or {})
        except _PortTaken:
            if port is not None:
                break
    if port is None:
        raise UsageError(f"no free ports: {_ATTEMPTS} attempts met a taken one")
    last = f" to {port + brokers - 1}" if brokers > 1 else ""
    raise UsageError(f"port {port}{last} is taken: stop what listens there, or choose another with --port")


def _start(
    kafka: Jars | Docker,
    brokers: int,
    port: int | None,
    data_dir: Path | None,
    overrides: Mapping[str, settings.Value],
    doors: Mapping[str, Sequence[str]],
) -> Running:
    home = Path(tempfile.mkdtemp(prefix="c360-kafka-"))
    archives: list[tuple[Path, Path]] = []
    kept: subprocess.Popen[str] | None = None
    try:
        nodes = _nodes(_keep(data_dir, brokers) if data_dir else home, _ports(brokers, port, 2 + len(doors)), doors)
        for node in nodes:
            _directory(home, node).mkdir()
        after: list[list[str]] = []
        if isinstance(kafka, Docker):
            name = f"c360-kafka-{uuid.uuid4().hex[:12]}"
            commands = [_docker_command(kafka, name, nodes[0], overrides)]
            after = [[kafka.docker, "rm", "--force", name]]
        else:
            commands = []
            for node in nodes:
                command, archive = _java_command(kafka, node, nodes, overrides, _directory(home, node))
                commands.append(command)
                archives += archive
        spec: keeper.Spec = {
            "commands": commands,
            "directories": [str(_directory(home, node)) for node in nodes],
            "after": after,
            "remove": str(home),
            "stop_s": STOP_S if data_dir or archives else DROP_S,
            "orphan_s": STOP_S if data_dir else 0,
        }
        kept = _hire(home)
        running = Running(nodes, home, kept, _hand_over(kept, spec), archives)
        running._until_ready(time.monotonic() + READY_S)
        return running
    except BaseException:  # also KeyboardInterrupt: nothing may stay behind
        if kept is not None:
            _dismiss(kept)
        shutil.rmtree(home, ignore_errors=True)
        raise


def _nodes(data: Path, ports: list[list[int]], doors: Mapping[str, Sequence[str]]) -> list[settings.Node]:
    nodes = []
    for number, (port, controller, *more) in enumerate(ports, 1):
        mine = [
            settings.Door(name, own, told[number - 1]) for own, (name, told) in zip(more, doors.items(), strict=True)
        ]
        nodes.append(settings.Node(number, _HOST, port, controller, data / f"broker-{number}" / "data", tuple(mine)))
    return nodes


def _directory(home: Path, node: settings.Node) -> Path:
    """A node's own directory: its properties, `broker.log`, and `exit` once it has ended by itself."""
    return home / f"broker-{node.id}"


def _keep(data_dir: Path, brokers: int) -> Path:
    """A data directory that stays, checked: it was made for a number of brokers and for one process at a time."""
    here = data_dir.absolute()
    try:
        here.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"the data directory {here} cannot be made: {error.strerror}") from error
    before = len(list(here.glob("broker-*")))
    if before not in (0, brokers):
        made_for = "1 broker" if before == 1 else f"{before} brokers"
        raise UsageError(f"{here} holds the data of {made_for}, not of {brokers}: use another directory")
    return here


def _ports(brokers: int, first: int | None, each: int) -> list[list[int]]:
    """`each` ports for every broker, of which the first is the one for clients. Raises _PortTaken."""
    held: list[socket.socket] = []
    try:
        ports: list[int] = []
        for at in range(each * brokers):
            held.append(socket.socket())
            # As the broker does; without it a port that was in use a minute ago looks taken.
            held[-1].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            wanted = first + at // each if first is not None and at % each == 0 else 0
            try:
                held[-1].bind((_HOST, wanted))
            except OSError as error:
                raise _PortTaken from error
            except OverflowError as error:
                raise UsageError(f"port {wanted}: ports are 1 to 65535") from error
            ports.append(int(held[-1].getsockname()[1]))
        return [ports[at : at + each] for at in range(0, len(ports), each)]
    finally:
        for one in held:
            one.close()


def _java_command(
    jars: Jars, node: settings.Node, nodes: list[settings.Node], overrides: Mapping[str, settings.Value], own: Path
) -> tuple[list[str], list[tuple[Path, Path]]]:
    """The broker's command, its files prepared; and (written at exit, kept as) of the class archive it is to make."""
    if not node.data.exists():
        _copy_formatted(jars.formatted, node)
    properties = own / "server.properties"
    properties.write_text(settings.text(settings.broker_properties(node, nodes, overrides)), encoding="utf-8")
    if jars.archive.exists():
        return jars.command(properties, f"-XX:SharedArchiveFile={jars.archive}"), []
    if node.id > 1:
        return jars.command(properties, "-Xshare:auto"), []
    written = jars.archive.with_name(f".broker-{uuid.uuid4().hex[:12]}.jsa")
    return jars.command(properties, f"-XX:ArchiveClassesAtExit={written}"), [(written, jars.archive)]


def _copy_formatted(formatted: Path, node: settings.Node) -> None:
    """A log directory as Kafka's format tool leaves it, in the name of `node`."""
    aside = node.data.with_name("formatting")
    shutil.rmtree(aside, ignore_errors=True)
    shutil.copytree(formatted, aside)
    unique = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    changed = {"node.id": str(node.id), "directory.id": "A" + unique[1:]}  # not beginning with "-", which Kafka refuses
    meta = aside / "meta.properties"
    lines = [line.partition("=") for line in meta.read_text(encoding="utf-8").splitlines()]
    meta.write_text("".join(f"{name}{eq}{changed.get(name, value)}\n" for name, eq, value in lines), encoding="utf-8")
    aside.rename(node.data)


def _docker_command(
    docker: Docker, name: str, node: settings.Node, overrides: Mapping[str, settings.Value]
) -> list[str]:
    # The same port inside and outside: the broker reaches itself (transaction markers) at the address it tells clients.
    inside = settings.Node(node.id, node.host, node.port, node.controller_port, Path("/tmp/kafka-logs"))
    variables = settings.environment(settings.broker_properties(inside, [inside], overrides, bind="0.0.0.0"))
    variables |= {"CLUSTER_ID": settings.CLUSTER_ID, "KAFKA_HEAP_OPTS": "-Xms96m -Xmx256m"}
    told = [word for item in variables.items() for word in ("--env", "=".join(item))]
    return [docker.docker, "run", "--rm", "--name", name, "--publish", f"{_HOST}:{node.port}:{node.port}", *told, IMAGE]


def _hire(home: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-I", "-S", str(keeper.__file__)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,  # Ctrl-C in the terminal is for us; the keeper hears of it from us
        cwd=home,
    )


def _hand_over(kept: subprocess.Popen[str], spec: keeper.Spec) -> list[int]:
    assert kept.stdin is not None
    assert kept.stdout is not None
    kept.stdin.write(json.dumps(spec) + "\n")
    kept.stdin.flush()
    answer = kept.stdout.readline()
    if not answer:
        raise UsageError(f"{spec['commands'][0][0]} could not be started")
    return _pids(answer)


def _pids(answer: str) -> list[int]:
    return [int(pid) for pid in json.loads(answer)]


def _dismiss(kept: subprocess.Popen[str]) -> None:
    """Tell the keeper to stop the brokers and wait until it has; it never takes longer than STOP_S and a little."""
    assert kept.stdin is not None
    assert kept.stdout is not None
    with suppress(BrokenPipeError):
        kept.stdin.write("stop\n")
        kept.stdin.flush()
    kept.wait()
    with suppress(BrokenPipeError):
        kept.stdin.close()
    kept.stdout.close()


def _logs(home: Path, nodes: list[settings.Node]) -> str:
    texts = []
    for node in nodes:
        with suppress(FileNotFoundError):
            text = (_directory(home, node) / "broker.log").read_text(encoding="utf-8", errors="replace")
            texts.append(f"--- broker {node.id}\n{text}" if len(nodes) > 1 else text)
    return "".join(texts)


def _tail(text: str, lines: int = 15) -> str:
    return "\n".join(text.splitlines()[-lines:])
