"""Find what can run Apache Kafka on this machine: Java and Kafka's jars (fetched once with Maven), or docker.

Holds paths and versions. Refuses to know ports, topics and processes that live on: all it starts are short commands.
Cache, safe to delete whenever no broker runs:

    ~/.cache/c360/kafka-4.1.0/jars/           Kafka and its libraries, complete or absent
    ~/.cache/c360/kafka-4.1.0/run-{key}/      made by and for one set of jars, one JVM, one set of flags:
        formatted/                            a formatted log directory: copied, which is faster than formatting
        broker.jsa                            the classes of a broker, parsed (application class-data sharing)
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from c360.errors import UsageError
from c360.ops.kafka import settings

VERSION = "4.1.0"
IMAGE = f"apache/kafka:{VERSION}"
JAVA_MIN = 17
POM = Path(__file__).with_name("pom.xml")
FLAGS = (
    "-Xms96m",
    "-Xmx256m",
    "-XX:+UseSerialGC",  # with the next two: 2 CPU seconds and 150 MB to the first record instead of 6 and 400
    "-XX:TieredStopAtLevel=1",
    "-Xshare:auto",  # an archive that does not fit is ignored, never an error
    "-Djava.awt.headless=true",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
)
MISSING = (
    "No Java 17+ with Maven and no docker found: install a JDK 17 or newer and Maven "
    "(Debian: default-jdk-headless maven; macOS: brew install openjdk maven) or start docker"
)

Say = Callable[[str], None]


@dataclass(frozen=True)
class Jars:
    """Kafka from jars: a Java that is new enough, the class path in a fixed order, what was prepared for this pair."""

    java: str
    class_path: str
    run: Path

    @property
    def formatted(self) -> Path:
        return self.run / "formatted"

    @property
    def archive(self) -> Path:
        return self.run / "broker.jsa"

    def command(self, properties: Path, archive_flag: str) -> list[str]:
        """The command that runs a broker in the foreground."""
        return [self.java, *FLAGS, archive_flag, "-cp", self.class_path, "kafka.Kafka", str(properties)]


@dataclass(frozen=True)
class Docker:
    """Kafka from its official image."""

    docker: str


def cache_root() -> Path:
    """Where jars and prepared files are kept by default."""
    return Path.home() / ".cache" / "c360"


def find_kafka(cache: Path | None = None, *, path: str | None = None, say: Say = lambda line: None) -> Jars | Docker:
    """What runs Kafka here, ready to use; fetches the jars the first time (43 MB) and tells `say` so.

    Java with Maven is preferred (starts in 2 s), docker is second. `path` replaces the search path for programs.
    Raises UsageError that names what to install when there is neither, or what Maven said when it failed.
    """
    java, why_not = _java(path)
    maven = shutil.which("mvn", path=path)
    root = (cache or cache_root()) / f"kafka-{VERSION}"
    if java and (maven or (root / "jars").is_dir()):
        return _jars(java, maven, root, say)
    docker = shutil.which("docker", path=path)
    if docker and _run([docker, "info"]).returncode == 0:
        return Docker(docker)
    found = [
        why_not or "Java is there",
        "Maven is there" if maven else "no mvn on the path",
        "docker is there, but no engine answers" if docker else "no docker on the path",
    ]
    raise UsageError(f"{MISSING} ({'; '.join(found)})")


def _java(path: str | None) -> tuple[str | None, str]:
    """A java that is new enough, else why not."""
    java = shutil.which("java", path=path)
    if java is None:
        return None, "no java on the path"
    said = _run([java, "-version"])
    version = re.search(r'version "(?:1\.)?(\d+)', said.stdout)
    if said.returncode != 0 or version is None:
        return None, f"{java} does not run"
    if int(version[1]) < JAVA_MIN:
        return None, f"{java} is Java {version[1]}, Kafka needs {JAVA_MIN}"
    return java, ""


def _jars(java: str, maven: str | None, root: Path, say: Say) -> Jars:
    jars = root / "jars"
    with _locked(root):  # one process prepares, the others wait and find it done
        if not jars.is_dir():
            assert maven is not None
            say(f"fetching Apache Kafka {VERSION} with Maven (43 MB, once, into {root})")
            _fetch(maven, jars)
        class_path = os.pathsep.join(str(jar) for jar in sorted(jars.glob("*.jar")))
        if not class_path:
            raise UsageError(f"{jars} holds no jars: delete {root} and try again")
        key = hashlib.sha256("\n".join([class_path, _run([java, "-version"]).stdout, *FLAGS]).encode()).hexdigest()[:12]
        found = Jars(java, class_path, root / f"run-{key}")
        if not found.formatted.is_dir():
            say("formatting a log directory (once)")
            _format(found)
    return found


def _fetch(maven: str, jars: Path) -> None:
    """All jars or none: Maven may be stopped half-way, so it fills a directory that is renamed when it is complete."""
    with _aside(jars) as aside:
        goal = ["dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={aside}"]
        done = _run([maven, "-q", "-B", "-f", str(POM), *goal])
        if done.returncode != 0:
            raise UsageError(
                f"Maven could not fetch Apache Kafka {VERSION}: it needs to reach a Maven repository. It said:\n"
                + _last_lines(done.stdout)
            )


def _format(jars: Jars) -> None:
    jars.run.mkdir(parents=True, exist_ok=True)
    with _aside(jars.formatted) as aside, tempfile.TemporaryDirectory(dir=jars.run) as scratch:
        properties = Path(scratch, "server.properties")
        node = settings.Node(1, "127.0.0.1", 1, 2, aside)  # the ports of a template are never used
        properties.write_text(settings.text(settings.broker_properties(node, [node], {})), encoding="utf-8")
        tool = ["kafka.tools.StorageTool", "format", "-t", settings.CLUSTER_ID, "-c", str(properties)]
        done = _run([jars.java, *FLAGS, "-cp", jars.class_path, *tool])
        if done.returncode != 0:
            raise UsageError(
                f"Kafka's storage tool failed; delete {jars.run.parent} and try again. It said:\n"
                + _last_lines(done.stdout)
            )


@contextmanager
def _aside(target: Path) -> Iterator[Path]:
    """A directory that becomes `target` when the block succeeds and vanishes when it does not."""
    aside = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        yield aside
        aside.rename(target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = (directory / "lock").open("a")
    except OSError as error:
        raise UsageError(f"the cache directory {directory} cannot be used: {error.strerror}") from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # released by the kernel if this process dies
        yield


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run to the end; what it says on both streams is in `stdout`."""
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )


def _last_lines(text: str, lines: int = 8) -> str:
    return "\n".join(text.strip().splitlines()[-lines:])
