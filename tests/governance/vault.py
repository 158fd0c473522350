"""A server that answers as the transit engine of Vault and OpenBao do; what it says was taken from OpenBao 2.7.2."""

from __future__ import annotations

import json
import re
from base64 import b64decode, b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

TOKEN = "s.good"
KEY = re.compile(r"/v1/transit/(keys|encrypt|decrypt|rewrap)/([^/]+)(/rotate)?\Z")


class FakeVault:
    """Its keys by name, as versions; `status`: what it answers to everything, such as 503 when it is sealed."""

    def __init__(self) -> None:
        self.keys: dict[str, list[AESSIV]] = {}
        self.status = 0
        self.token = TOKEN
        self.asked: list[tuple[str, int]] = []  # what, and items
        self.url = ""

    def add(self, name: str) -> None:
        self.keys.setdefault(name, []).append(AESSIV(AESSIV.generate_key(256)))

    def answer(self, method: str, path: str, token: str | None, body: Any) -> tuple[int, Any]:
        if self.status:
            return self.status, {"errors": ["Vault is sealed"]}
        if token != self.token:
            return 403, {"errors": ["permission denied"]}
        found = KEY.match(path)
        if found is None:
            return 404, {"errors": [f'no handler for route "{path}". route entry not found.']}
        what, name, rotate = found.groups()
        if what == "keys" and method == "POST" and rotate and name in self.keys:
            self.add(name)
        if what == "keys":
            versions = len(self.keys.get(name, ()))
            return (200, {"data": {"name": name, "latest_version": versions}}) if versions else (404, {"errors": []})
        if name not in self.keys:
            if what != "encrypt":
                return 400, {"errors": ["encryption key not found"]}
            self.add(name)  # as it does for a token that may create
        items = body["batch_input"]
        if len(items) > 499:
            return 400, {"errors": ["refused JSON input due to high complexity: exceeded maximum number of strings"]}
        self.asked.append((what, len(items)))
        results = [self._one(what, self.keys[name], item) for item in items]
        failed = what == "decrypt" and any("error" in result for result in results)
        return (400 if failed else 200), {"data": {"batch_results": results}}

    def _one(self, what: str, versions: list[AESSIV], item: dict[str, str]) -> dict[str, str]:
        if what == "encrypt":
            return {"ciphertext": self._sealed(versions, b64decode(item["plaintext"], validate=True))}
        try:
            vault, version, sealed = item["ciphertext"].split(":")
            assert vault == "vault"
            plain = versions[int(version.removeprefix("v")) - 1].decrypt(b64decode(sealed, validate=True), None)
        except (ValueError, IndexError, AssertionError, InvalidTag):
            return {"plaintext": "", "error": "invalid ciphertext"}
        if what == "rewrap":
            return {"ciphertext": self._sealed(versions, plain)}
        return {"plaintext": b64encode(plain).decode()}

    def _sealed(self, versions: list[AESSIV], plain: bytes) -> str:
        return f"vault:v{len(versions)}:{b64encode(versions[-1].encrypt(plain, None)).decode()}"


@contextmanager
def fake_vault() -> Iterator[FakeVault]:
    vault = FakeVault()

    class Handler(BaseHTTPRequestHandler):
        def respond(self) -> None:
            content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            body = json.loads(content) if content else None
            status, said = vault.answer(self.command, self.path, self.headers.get("X-Vault-Token"), body)
            data = said if isinstance(said, bytes) else json.dumps(said).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            if status == 307:
                self.send_header("Location", "/v1/elsewhere")
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = respond

        def log_message(self, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        vault.url = f"vault+http://127.0.0.1:{server.server_port}/transit/shop"
        try:
            yield vault
        finally:
            server.shutdown()
            thread.join()
