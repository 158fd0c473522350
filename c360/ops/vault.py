"""Master keys in a key management service: the transit engine of HashiCorp Vault, or of OpenBao, which speaks the same.

The master key never leaves the service; data keys go there in batches to be wrapped and unwrapped. Plain HTTP with the
standard library: five requests are not worth a client library and what it brings along.
API: https://developer.hashicorp.com/vault/api-docs/secret/transit
"""

from __future__ import annotations

import http.client
import json
import ssl
import urllib.error
import urllib.request
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlsplit

from c360.errors import BrokerAway, UsageError

SCHEMES: Mapping[str, str] = {"vault+https": "https", "vault+http": "http"}
TIMEOUT_S = 10.0
BATCH = 250  # keys in one request: OpenBao 2.7 refuses more than 1000 texts in one, and each key is two
EXAMPLE = "vault+https://vault.example.org:8200/transit/shop"


def is_service(said: str) -> bool:
    """Whether C360_KEYS names a service; else it is a file."""
    return said.partition("://")[0] in SCHEMES


class ServiceAway(BrokerAway):
    """Wait and try again: the key service does not answer, or is sealed."""


class VaultMasterKeys:
    """`MasterKeys` of a transit key. A generation is a version of that key, `vault:v3`.

    `url`: `vault+https://HOST[:PORT]/MOUNT/KEY`, also `vault+http` where that is safe. `token`: asked before each request, as
    whatever renews it may change it. Raises UsageError at once for a key that does not exist, or may not be used.
    """

    def __init__(
        self,
        url: str,
        token: Callable[[], str],
        *,
        namespace: str | None = None,
        context: ssl.SSLContext | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        parts = urlsplit(url)
        mount, _, self.name = parts.path.strip("/").rpartition("/")
        if parts.scheme not in SCHEMES or not parts.hostname or not mount or parts.query or "@" in parts.netloc:
            raise UsageError(f"C360_KEYS is no URL of a transit key; write for example {EXAMPLE}")
        self.service = f"{SCHEMES[parts.scheme]}://{parts.netloc}"
        self.mount = quote(mount)
        self._token, self._namespace, self._timeout_s = token, namespace, timeout_s
        opener = urllib.request.HTTPSHandler(context=context), _NoRedirects(), urllib.request.ProxyHandler({})
        self._open = urllib.request.build_opener(*opener).open
        self._current = self._look()  # also because wrapping with a key that is not there would make one

    def __repr__(self) -> str:
        return f"VaultMasterKeys({self.service}, {self.mount}/{self.name})"

    @property
    def current(self) -> str:
        """The newest version that this process has seen; another may have rotated since."""
        return self._current

    def wrap(self, secrets: Sequence[bytes]) -> list[str]:
        items = [{"plaintext": b64encode(secret).decode()} for secret in secrets]
        wrapped = [_text(result, "ciphertext") for result in self._batch("encrypt", items)]
        if None in wrapped:
            raise UsageError(f"{self!r} did not wrap a key: it must be of a type that encrypts, not derived")
        return [text for text in wrapped if text is not None]

    def unwrap(self, wrapped: Sequence[str]) -> list[bytes | None]:
        results = self._batch("decrypt", [{"ciphertext": text} for text in wrapped])
        texts = [_text(result, "plaintext") for result in results]
        return [None if text is None else b64decode(text) for text in texts]

    def rewrap(self, wrapped: Sequence[str]) -> list[str | None]:
        self._current = self._look()
        return [_text(r, "ciphertext") for r in self._batch("rewrap", [{"ciphertext": text} for text in wrapped])]

    def rotate(self) -> str:
        """Add a version to the key, which wraps from now on; its generation. The token must be allowed to."""
        self._ask("POST", f"keys/{quote(self.name)}/rotate", {})
        self._current = self._look()
        return self._current

    # ---------------------------------------------------------------------------------------------------- requests
    def _look(self) -> str:
        status, answer = self._ask("GET", f"keys/{quote(self.name)}", None)
        version = answer.get("data", {}).get("latest_version") if status == 200 else None
        if not isinstance(version, int):
            raise UsageError(
                f"{self.service} has no transit key {self.name} under {self.mount} (status {status}): make one there, of type"
                " aes256-gcm96; c360 does not, lest a misspelt name become a key"
            )
        return f"vault:v{version}"

    def _batch(self, what: str, items: Sequence[Mapping[str, str]]) -> list[Mapping[str, Any]]:
        """One result per item; those that failed have an `error`, whatever the status of the answer."""
        results: list[Mapping[str, Any]] = []
        for start in range(0, len(items), BATCH):
            asked = items[start : start + BATCH]
            status, answer = self._ask("POST", f"{what}/{quote(self.name)}", {"batch_input": asked})
            found = (answer.get("data") or {}).get("batch_results")
            if not isinstance(found, list) or len(found) != len(asked):
                raise UsageError(f"{self!r} cannot {what} (status {status}): {_errors(answer)}")
            results += found
        return results

    def _ask(self, method: str, path: str, body: Any) -> tuple[int, dict[str, Any]]:
        """Status and JSON of an answer. Raises ServiceAway, or UsageError where the token may not."""
        headers = {"X-Vault-Token": self._token(), "X-Vault-Request": "true", "Content-Type": "application/json"}
        if self._namespace is not None:
            headers["X-Vault-Namespace"] = self._namespace
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"{self.service}/v1/{self.mount}/{path}", data=data, headers=headers, method=method
        )
        try:
            with self._open(request, timeout=self._timeout_s) as response:
                status, content = response.status, response.read()
        except urllib.error.HTTPError as error:
            with error:
                status, content = error.code, error.read()
        except ssl.SSLCertVerificationError as error:
            raise UsageError(f"{self.service}: its certificate is not trusted: {error.verify_message}") from error
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            if isinstance(reason, ssl.SSLCertVerificationError):
                raise UsageError(f"{self.service}: its certificate is not trusted: {reason.verify_message}") from error
            raise ServiceAway(f"the key service {self.service} does not answer ({type(reason).__name__})") from error
        try:
            answer = json.loads(content or b"{}")
        except ValueError:
            answer = None
        if status in (429, 472, 473) or status >= 500:
            raise ServiceAway(f"the key service {self.service} cannot answer now (status {status}): {_errors(answer)}")
        if status == 403:
            raise UsageError(
                f"the token may not {method} {self.mount}/{path} at {self.service}, or has expired: renew it, or allow it"
            )
        if not isinstance(answer, dict):
            raise UsageError(f"{self.service} does not answer as Vault does (status {status}): see C360_KEYS")
        return status, answer


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A token is not sent where an answer points to. A standby of Vault forwards requests by itself."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


def _text(result: Mapping[str, Any], name: str) -> str | None:
    """A part of a result; None if it failed."""
    text = result.get(name)
    return text if isinstance(text, str) and text and not result.get("error") else None


def _errors(answer: Any) -> str:
    errors = answer.get("errors") if isinstance(answer, dict) else None
    return "; ".join(map(str, errors)) if errors else "it says no reason"
