"""A real schema registry for tests: Apicurio 2.6, which speaks Confluent's API at `url`.

    ~/.cache/c360/apicurio-2.6.13.Final/app/    what Maven fetched (142 MB, once), complete or absent

`start()` takes 5 s and 220 MB. It ends with `stop`, or with the process that started it. What it was told stays while it is
stopped by `pause` and started again by `resume`. Its global compatibility is NONE, as it comes.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from c360.errors import UsageError
from c360.ops.kafka import provide
from tests.kept import Kept

VERSION = "2.6.13.Final"
ARTIFACT = f"io.apicurio:apicurio-registry-app:{VERSION}:tar.gz:all"
MISSING = "a schema registry needs Java 17+ and Maven (Debian: default-jdk-headless maven)"
READY_S = 60.0
FLAGS = ("-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Djava.awt.headless=true")
Reference = tuple[str, str, int]
"""Of a schema to another: the name that it uses, the subject, the version there."""


def find_registry(cache: Path | None = None, *, say: provide.Say = lambda line: None) -> tuple[str, Path]:
    """A java, and the runner's jar; fetched the first time. Raises UsageError that names what to install."""
    java, why_not = provide._java(None)
    root = (cache or provide.cache_root()) / f"apicurio-{VERSION}"
    maven = shutil.which("mvn")
    if java is None or not (maven or (root / "app").is_dir()):
        raise UsageError(f"{MISSING}: {why_not or 'no mvn on the path'}")
    with provide._locked(root):
        if not (root / "app").is_dir():
            assert maven is not None
            say(f"fetching Apicurio Registry {VERSION} with Maven (142 MB, once, into {root})")
            _fetch(maven, root / "app")
    return java, root / "app" / f"apicurio-registry-app-{VERSION}-runner.jar"


def _fetch(maven: str, app: Path) -> None:
    with provide._aside(app) as aside, tempfile.TemporaryDirectory(dir=app.parent) as scratch:
        told = [maven, "-q", "-B", "dependency:copy", f"-Dartifact={ARTIFACT}", f"-DoutputDirectory={scratch}"]
        done = subprocess.run(told, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode != 0:
            raise UsageError(f"Maven could not fetch {ARTIFACT}. It said:\n{done.stdout[-2000:]}")
        (archive,) = Path(scratch).glob("*.tar.gz")
        with tarfile.open(archive) as tar:
            tar.extraction_filter = getattr(tarfile, "data_filter", None)  # Python before 3.11.4 has none
            tar.extractall(aside)


class Apicurio(Kept):
    """A registry that answers at `url`. A context manager that ends it."""

    def __init__(self, command: list[str], home: Path, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/apis/ccompat/v7"
        super().__init__(command, home)

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + READY_S
        while True:
            with suppress(OSError):
                self._ask("GET", "/subjects")
                return
            if time.monotonic() > deadline or self.has_ended():
                raise UsageError(f"the registry did not start. Its log ends with:\n{self.log()[-3000:]}")
            time.sleep(0.05)

    def pause(self) -> None:
        """End the process; what it knows stays. Returns when nothing answers any more."""
        os.kill(self.pid, signal.SIGTERM)
        while not self.has_ended():
            time.sleep(0.05)

    def resume(self) -> None:
        """Start it again, at the same URL."""
        self._tell("start 0")
        self.wait_until_ready()

    # ---------------------------------------------------------------------------------- what producers say to it
    def publish(self, subject: str, schema: Any, kind: str = "AVRO", references: Sequence[Reference] = ()) -> int:
        """The id. `schema`: text, or what is JSON."""
        said: dict[str, Any] = {"schema": schema if isinstance(schema, str) else json.dumps(schema), "schemaType": kind}
        said["references"] = [dict(zip(("name", "subject", "version"), one, strict=True)) for one in references]
        return int(self._ask("POST", f"/subjects/{subject}/versions", said)["id"])

    def compatibility(self, subject: str, level: str) -> None:
        """As an administrator sets it."""
        self._ask("PUT", f"/config/{subject}", {"compatibility": level})

    def _ask(self, method: str, path: str, said: Any = None) -> Any:
        body = None if said is None else json.dumps(said).encode()
        headers = {"Content-Type": "application/vnd.schemaregistry.v1+json"}
        request = urllib.request.Request(self.url + path, body, headers, method=method)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.loads(answer.read())


def start(*, say: provide.Say = lambda line: None) -> Apicurio:
    """Start one, on a random port; returns when it answers. Raises UsageError where none can run here."""
    java, jar = find_registry(say=say)
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = int(held.getsockname()[1])
    home = Path(tempfile.mkdtemp(prefix="c360-registry-"))
    told = {
        "quarkus.http.host": "127.0.0.1",
        "quarkus.http.port": port,
        "quarkus.log.level": "WARN",
        "REGISTRY_DATASOURCE_URL": f"jdbc:h2:file:{home}/schemas",
    }
    command = [java, *FLAGS, *(f"-D{name}={value}" for name, value in told.items()), "-jar", str(jar)]
    running = Apicurio(command, home, port)
    try:
        running.wait_until_ready()
    except BaseException:
        running.stop()
        raise
    return running
