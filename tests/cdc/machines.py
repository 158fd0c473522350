"""PostgreSQL, MariaDB and Kafka Connect with Debezium on this machine, each gone when this process is gone.

A process is held by a keeper (`c360.ops.kafka.keeper`), which ends it however we end. What is missing is installed where
that can be done (apt-get as root, jars with Maven into ~/.cache/c360), and else said in one sentence: `Missing`.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from c360.ops.kafka import keeper, provide
from tests.stories.tools import free_port

DEBEZIUM = "3.5.0.Final"
CONVERTER = "io.apicurio.registry.utils.converter.AvroConverter"
CONNECT = "4.1.0"
POM = Path(__file__).with_name("pom.xml")
CONVERTER_POM = Path(__file__).with_name("converter.xml")
READY_S = 120.0
PG_BIN = "/usr/lib/postgresql"
FLAGS = (
    "-Xms128m",
    "-Xmx512m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
)


class Missing(Exception):
    """Something is not installed here, and the message says what to do."""


class Machine:
    """One process in a directory of its own. `kill` is kill -9; `again` starts it on what is left."""

    def __init__(self, name: str, user: str | None = None) -> None:
        self.home = Path(tempfile.mkdtemp(prefix=f"c360-{name}-"))
        self.home.chmod(0o755)  # a database has a user of its own
        self.user = user if user and os.geteuid() == 0 else None
        self.keeper: subprocess.Popen[str] | None = None
        self.pid = 0

    def as_user(self, *command: str) -> list[str]:
        if self.user is None:
            return list(command)
        return ["setpriv", f"--reuid={self.user}", f"--regid={self.user}", "--clear-groups", *command]

    def directory(self, name: str) -> Path:
        made = self.home / name
        made.mkdir()
        if self.user is not None:
            shutil.chown(made, self.user, self.user)
        return made

    def run(self, *command: str) -> None:
        done = subprocess.run(self.as_user(*command), cwd=self.home, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise AssertionError(f"{command[0]} failed: {done.stdout[-2000:]}{done.stderr[-2000:]}")

    def start(self, *command: str) -> None:
        spec: keeper.Spec = {
            "commands": [self.as_user(*command)], "directories": [str(self.home)], "after": [], "remove": str(self.home),
            "stop_s": 5.0, "orphan_s": 0.0,
        }  # fmt: skip
        self.keeper = subprocess.Popen(
            [sys.executable, "-I", "-S", str(keeper.__file__)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, text=True, start_new_session=True, cwd=self.home,
        )  # fmt: skip
        self._say(json.dumps(spec))

    def _say(self, line: str) -> None:
        assert self.keeper is not None
        assert self.keeper.stdin is not None
        assert self.keeper.stdout is not None
        self.keeper.stdin.write(line + "\n")
        self.keeper.stdin.flush()
        (self.pid,) = json.loads(self.keeper.stdout.readline())

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def again(self) -> None:
        self._say("start 0")

    def log(self) -> str:
        with suppress(OSError):
            return (self.home / "broker.log").read_text(errors="replace")
        return ""

    def until(self, ready: Callable[[], bool], within_s: float = READY_S) -> None:
        deadline = time.monotonic() + within_s
        while not ready():
            ended = (self.home / "exit").exists()
            if ended or time.monotonic() > deadline:
                raise AssertionError(f"{self.home.name} {'ended' if ended else 'is not ready'}:\n{self.log()[-4000:]}")
            time.sleep(0.1)

    def stop(self) -> None:
        if self.keeper is not None and self.keeper.poll() is None:
            assert self.keeper.stdin is not None
            assert self.keeper.stdout is not None
            with suppress(BrokenPipeError):
                self.keeper.stdin.write("stop\n")
                self.keeper.stdin.flush()
            self.keeper.wait()
            self.keeper.stdin.close()
            self.keeper.stdout.close()
        shutil.rmtree(self.home, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


# --------------------------------------------------------------------------------------------------------- databases
class Database:
    """Statements in, rows out, by the database's own client."""

    client: list[str]
    null: str  # how it shows nothing

    def sql(self, text: str) -> list[list[str | None]]:
        """The rows of the last statement, as texts. Raises AssertionError with what the database said."""
        done = subprocess.run(self.client, input=text, capture_output=True, text=True, check=False, cwd="/")
        assert done.returncode == 0, done.stderr
        return [[None if v == self.null else v for v in line.split("\t")] for line in done.stdout.splitlines()]

    def session(self) -> Session:
        """A connection that stays open: a transaction that takes its time."""
        return Session(self.client)

    def answers(self) -> bool:
        done = subprocess.run(self.client, input="SELECT 1;", capture_output=True, text=True, check=False, cwd="/")
        return done.returncode == 0


class Session:
    """Statements of one connection, each done when `do` returns."""

    def __init__(self, client: Sequence[str]) -> None:
        self.process = subprocess.Popen(
            client,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            bufsize=1,
            cwd="/",
        )

    def do(self, statement: str) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{statement}; SELECT 'done';\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            if line.strip() == "done":
                return
            assert "ERROR" not in line, line
        raise AssertionError(f"the session ended at {statement}")

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(10)
        self.process.stdout.close()


class PostgresDatabase(Database):
    """One of a server."""

    null = r"\N"

    def __init__(self, psql: str, port: int, name: str) -> None:
        self.port, self.name, self.client = port, name, _psql(psql, port, name)


class Postgres(Database, Machine):
    """A server with logical decoding; everybody is trusted on this machine."""

    null = r"\N"

    def __init__(self) -> None:
        Machine.__init__(self, "postgres", "postgres")
        try:
            where = _binaries()
            self.port = free_port()
            data, socket = self.directory("data"), self.directory("socket")
            self.run(
                f"{where}/initdb", "-D", str(data), "-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C", "-N"
            )
            settings = {
                "port": self.port, "listen_addresses": "127.0.0.1", "unix_socket_directories": socket, "wal_level": "logical",
                "fsync": "off", "shared_buffers": "32MB", "max_connections": 30, "max_wal_senders": 8, "autovacuum": "off",
            }  # fmt: skip
            self.start(
                f"{where}/postgres", "-D", str(data), *(w for k, v in settings.items() for w in ("-c", f"{k}={v}"))
            )
            self.psql = f"{where}/psql"
            self.client = _psql(self.psql, self.port, "postgres")
            self.until(self.answers)
        except BaseException:
            self.stop()
            raise

    def database(self, name: str) -> PostgresDatabase:
        """A new one."""
        self.sql(f"CREATE DATABASE {name};")
        return PostgresDatabase(self.psql, self.port, name)


def _psql(psql: str, port: int, database: str) -> list[str]:
    return [
        psql, "-X", "-q", "-A", "-t", "-F", "\t", "-P", r"null=\N", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1",
        "-p", str(port), "-U", "postgres", "-d", database,
    ]  # fmt: skip


def _binaries() -> str:
    found = sorted(Path(PG_BIN).glob("*/bin/postgres"))
    if not found:
        _install("postgresql")
        found = sorted(Path(PG_BIN).glob("*/bin/postgres"))
    if not found:
        raise Missing(f"no PostgreSQL in {PG_BIN}: install it (Debian: apt-get install postgresql)")
    return str(found[-1].parent)


class MariaDb(Database, Machine):
    """One database, `shop`, with a row binlog."""

    null = "NULL"

    def __init__(self) -> None:
        Machine.__init__(self, "mariadb", "mysql")
        try:
            if shutil.which("mariadbd") is None:
                _install("mariadb-server")
            server = shutil.which("mariadbd")
            if server is None:
                raise Missing("no MariaDB here: install it (Debian: apt-get install mariadb-server)")
            self.port = free_port()
            data, socket = self.directory("data"), self.directory("socket") / "s"
            self.run(
                "mariadb-install-db", "--no-defaults", f"--datadir={data}", "--auth-root-authentication-method=normal",
                "--skip-test-db", *(() if self.user is None else (f"--user={self.user}",)),
            )  # fmt: skip
            self.start(
                server, "--no-defaults", f"--datadir={data}", f"--socket={socket}", f"--port={self.port}",
                "--bind-address=127.0.0.1", "--server-id=7", "--log-bin=bin", "--binlog-format=ROW",
                "--binlog-row-image=FULL", "--innodb-flush-log-at-trx-commit=0", "--innodb-buffer-pool-size=32M",
                f"--pid-file={data}/pid",
            )  # fmt: skip
            client = [
                "mariadb",
                "--no-defaults",
                "--default-character-set=utf8mb4",
                "-N",
                "-B",
                "-n",
                f"--socket={socket}",
                "-u",
                "root",
            ]
            self.client = client
            self.until(self.answers)
            self.sql(
                "CREATE DATABASE shop CHARACTER SET utf8mb4; CREATE USER 'cdc'@'%' IDENTIFIED BY 'cdc';"
                " GRANT ALL ON *.* TO 'cdc'@'%';"
            )
            self.client = [*client, "shop"]
        except BaseException:
            self.stop()
            raise


def _install(package: str) -> None:
    """With apt-get, where we may."""
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise Missing(f"{package} is not installed: sudo apt-get install -y {package}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (
        ["apt-get", "update", "-qq"],
        ["apt-get", "install", "-y", "-qq", "--no-install-recommends", package],
    ):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise Missing(f"{' '.join(command)} failed: {done.stderr.strip()[-500:]}")


# ----------------------------------------------------------------------------------------------------------- Connect
class Connect(Machine):
    """A distributed worker of Kafka Connect with Debezium's connectors, and its REST interface."""

    def __init__(self, bootstrap: str, say: Callable[[str], None] = lambda line: None) -> None:
        super().__init__("connect")
        try:
            java, jars, plugins = fetched(say)
            self.port = free_port()
            properties = {
                "bootstrap.servers": bootstrap, "group.id": "connect", "listeners": f"http://127.0.0.1:{self.port}",
                "plugin.path": plugins, "plugin.discovery": "SERVICE_LOAD",
                "config.storage.topic": "connect.configs", "offset.storage.topic": "connect.offsets",
                "status.storage.topic": "connect.status", "config.storage.replication.factor": 1,
                "offset.storage.replication.factor": 1, "status.storage.replication.factor": 1,
                "offset.storage.partitions": 1, "status.storage.partitions": 1,
                "key.converter": "org.apache.kafka.connect.json.JsonConverter", "key.converter.schemas.enable": "false",
                "value.converter": "org.apache.kafka.connect.json.JsonConverter", "value.converter.schemas.enable": "false",
                "offset.flush.interval.ms": 5000,  # one that is killed has something to send again
                "scheduled.rebalance.max.delay.ms": 0, "session.timeout.ms": 6000, "heartbeat.interval.ms": 500,
                "connector.client.config.override.policy": "All",
            }  # fmt: skip
            file = self.home / "worker.properties"
            file.write_text("".join(f"{name}={value}\n" for name, value in properties.items()))
            main = "org.apache.kafka.connect.cli.ConnectDistributed"
            self.start(java, *FLAGS, "-cp", f"{jars}/*", main, str(file))
        except BaseException:
            self.stop()
            raise

    def ready(self) -> Self:
        self.until(lambda: self._ask("GET", "/connectors")[0] == 200)
        return self

    def again(self) -> None:
        super().again()
        self.ready()

    def _ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        asked = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}", method=method, data=None if body is None else json.dumps(body).encode(),
            headers={"content-type": "application/json"},
        )  # fmt: skip
        try:
            with urllib.request.urlopen(asked, timeout=30) as answer:
                return answer.status, json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError:
            return 0, None

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """The answer to a request that is repeated while the worker says that it is busy with others."""
        deadline = time.monotonic() + READY_S
        while True:
            status, said = self._ask(method, path, body)
            if 200 <= status < 300:
                return said
            assert status in (0, 409, 500), (status, said)
            assert time.monotonic() < deadline, f"{status} {said}\n{self.log()[-4000:]}"
            time.sleep(0.2)

    def put(self, name: str, config: Mapping[str, str]) -> None:
        """Make a connector, or change it, and return when it runs."""
        self.ask("PUT", f"/connectors/{name}/config", dict(config))
        self.until_running(name)

    def until_running(self, name: str) -> None:
        def is_running() -> bool:
            status, said = self._ask("GET", f"/connectors/{name}/status")
            if status != 200 or not said["tasks"]:
                return False
            states = {task["state"] for task in said["tasks"]}
            assert "FAILED" not in states, said["tasks"]
            return states == {"RUNNING"}

        self.until(is_running)

    def until_placed(self, name: str) -> None:
        """It has written down how far it is: who is killed before that begins with another snapshot."""
        self.until(lambda: bool(self.ask("GET", f"/connectors/{name}/offsets")["offsets"]))

    def delete(self, name: str) -> None:
        self.ask("DELETE", f"/connectors/{name}")

    def forget_offsets(self, name: str) -> None:
        """As if it had never run; it is to be stopped before."""
        self.ask("PUT", f"/connectors/{name}/stop")
        self.ask("DELETE", f"/connectors/{name}/offsets")


def fetched(say: Callable[[str], None]) -> tuple[str, Path, Path]:
    """A java, Connect's jars, Debezium's plugins: fetched once with Maven (110 MB). Raises Missing."""
    java, maven = shutil.which("java"), shutil.which("mvn")
    if java is None:
        raise Missing("no Java 17 or newer: install one (Debian: apt-get install default-jdk-headless maven)")
    root = provide.cache_root() / f"connect-{CONNECT}-debezium-{DEBEZIUM}"
    jars, plugins = root / "jars", root / "plugins-2"
    with provide._locked(root):
        if not (jars.is_dir() and plugins.is_dir()) and maven is None:
            raise Missing(
                "no Maven, which fetches Kafka Connect and Debezium: install it (Debian: apt-get install maven)"
            )
        if not jars.is_dir():
            say(f"fetching Kafka Connect {CONNECT} with Maven (35 MB, once, into {root})")
            with provide._aside(jars) as aside:
                _maven(POM, "dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={aside}")
        if not plugins.is_dir():
            say(f"fetching Debezium {DEBEZIUM} and a converter with Maven (75 MB, once, into {root})")
            with provide._aside(plugins) as aside:
                for name in ("postgres", "mariadb"):
                    artifact = f"io.debezium:debezium-connector-{name}:{DEBEZIUM}:tar.gz:plugin"
                    _maven(POM, "dependency:copy", f"-Dartifact={artifact}", f"-DoutputDirectory={aside}")
                for archive in sorted(aside.glob("*.tar.gz")):
                    with tarfile.open(archive) as packed:
                        packed.extraction_filter = getattr(tarfile, "data_filter", None)  # older Pythons have none
                        packed.extractall(aside)
                    archive.unlink()
                converter = aside / "converter"
                _maven(
                    CONVERTER_POM, "dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={converter}"
                )  # fmt: skip
                with zipfile.ZipFile(
                    converter / "manifest.jar", "w"
                ) as manifest:  # it has none, and is not found without
                    manifest.writestr("META-INF/services/org.apache.kafka.connect.storage.Converter", CONVERTER)
    return java, jars, plugins


def _maven(pom: Path, *goal: str) -> None:
    done = provide._run(["mvn", "-q", "-B", "-f", str(pom), *goal])
    if done.returncode != 0:
        raise Missing(
            "Maven could not fetch it: it needs to reach a repository. It said:\n" + provide._last_lines(done.stdout)
        )
