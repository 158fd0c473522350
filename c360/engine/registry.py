"""The schema registry, by Confluent's client: asked once for each id, in a process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from confluent_kafka.schema_registry.error import SchemaRegistryError

from c360.codecs.avro import SchemaRef, WriterSchema
from c360.errors import Misfit, RegistryAway, Shut, UsageError

T = TypeVar("T")
AWAY = "the schema registry (C360_REGISTRY) does not answer"
TIMEOUT_S = 3.0
MISSING_S = 30.0  # an id that was not there is asked for again: registries have followers, too
MISSING_MOST = 10_000  # so many of those are remembered
GONE = (404, 40403)  # of http, and of the registry itself


class SchemaRegistry:
    """A registry at a URL. Safe to ask from several threads."""

    def __init__(
        self,
        url: str,
        user: str | None = None,
        password: str | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Raises UsageError for a URL that is none."""
        settings: dict[str, object] = {"url": url, "timeout": TIMEOUT_S, "max.retries": 0}
        if user is not None:
            settings["basic.auth.user.info"] = f"{user}:{password or ''}"
        try:
            self.client = SchemaRegistryClient(settings)
        except (TypeError, ValueError) as error:
            raise UsageError(f"C360_REGISTRY is no URL of a schema registry: {error}") from None
        self.clock = clock
        self.known: dict[SchemaRef, WriterSchema] = {}
        self.missing: dict[SchemaRef, float] = {}
        self.questions = self.unanswered = 0
        self._lock = threading.Lock()

    def schema(self, ref: SchemaRef) -> WriterSchema:
        """Raises Misfit where there is none of this id, Shut while the registry does not answer."""
        found = self.known.get(ref)
        if found is not None:
            return found
        with self._lock:
            if ref not in self.known:
                self.known[ref] = self._ask(ref)
            return self.known[ref]

    def close(self) -> None:
        """It is asked no more: its connections end."""
        self.client.__exit__()  # type: ignore[no-untyped-call]

    # ---------------------------------------------------------------------------------------------- what is compared with
    def subjects(self) -> list[str]:
        """All, also those that were deleted and can be brought back. Raises RegistryAway, UsageError."""
        return _answer("to list subjects", lambda: self.client.get_subjects(deleted=True)) or []

    def versions(self, subject: str) -> list[tuple[int, WriterSchema]]:
        """Of a subject, the oldest first, with those that were deleted and can be brought back. Raises as `subjects`."""
        numbers = _answer(subject, lambda: self.client.get_versions(subject, deleted=True)) or []
        found = [(number, _answer(subject, partial(self._version, subject, number))) for number in sorted(numbers)]
        return [(number, schema) for number, schema in found if schema is not None]

    def default_level(self) -> str | None:
        """The compatibility that is asked of subjects that it is left to the registry for. Raises RegistryAway, UsageError."""
        return _answer("to say its compatibility", self.client.get_compatibility)

    def _version(self, subject: str, number: int) -> WriterSchema:
        got = self.client.get_version(subject, number, deleted=True).schema
        kind = got.schema_type or "AVRO"
        return WriterSchema(kind, got.schema_str or "", self._references(got, set()))  # type: ignore[arg-type]

    # ---------------------------------------------------------------------------------------------------- what we write
    def find(self, subject: str, text: str) -> int | None:
        """The id of a schema that is registered under a subject. Raises RegistryAway, UsageError."""
        schema = Schema(text, "AVRO")
        return _answer(subject, lambda: self.client.lookup_schema(subject, schema).schema_id)

    def level(self, subject: str) -> str | None:
        """The compatibility that is asked of a subject; None where there is none, or it is left to the registry."""
        return _answer(subject, lambda: self.client.get_compatibility(subject))

    def put(self, subject: str, text: str, level: str) -> int:
        """The id of a schema that is registered under a subject, which asks this compatibility from now on; with what is there
        already, too. Raises RegistryAway; UsageError where the schema is not compatible, or it may not be registered."""
        client = self.client
        if _answer(subject, lambda: client.get_versions(subject)):
            _answer(subject, lambda: client.set_compatibility(subject, level))
        number = _answer(subject, lambda: client.register_schema(subject, Schema(text, "AVRO")))
        _answer(subject, lambda: client.set_compatibility(subject, level))
        if number is None:
            raise UsageError(f"the schema registry (C360_REGISTRY) takes no schema for {subject}")
        return number

    def _ask(self, ref: SchemaRef) -> WriterSchema:
        if self.clock() - self.missing.get(ref, -MISSING_S) < MISSING_S:
            raise _unknown(ref)
        self.questions += 1
        try:
            got = self.client.get_schema_by_guid(ref) if isinstance(ref, str) else self.client.get_schema(ref)
            references = self._references(got, set())
        except SchemaRegistryError as error:
            if error.http_status_code == 404 or error.error_code in GONE:
                if len(self.missing) >= MISSING_MOST:  # whoever sends any number of ids
                    self.missing.clear()
                self.missing[ref] = self.clock()
                raise _unknown(ref) from None
            raise self._does_not_answer() from error
        except Exception as error:  # whatever the client's HTTP library raises
            raise self._does_not_answer() from error
        kind = got.schema_type or "AVRO"
        if kind not in ("AVRO", "JSON", "PROTOBUF"):
            raise Misfit("schema", f"the schema is of a kind that is not read: {kind}")
        return WriterSchema(kind, got.schema_str or "", references)  # type: ignore[arg-type]

    def _references(self, schema: Schema, seen: set[tuple[str, int]]) -> tuple[str, ...]:
        found: list[str] = []
        for reference in schema.references or []:
            name = str(reference.subject), int(reference.version or -1)
            if name not in seen:
                seen.add(name)
                inner = self.client.get_version(*name).schema
                found += [*self._references(inner, seen), inner.schema_str or ""]
        return tuple(found)

    def _does_not_answer(self) -> Shut:
        self.unanswered += 1
        return Shut("registry", f"{AWAY}; values with a schema that is known go on")


def _answer(subject: str, ask: Callable[[], T]) -> T | None:
    """None where the registry says that there is no such thing. Raises RegistryAway, UsageError."""
    try:
        return ask()
    except SchemaRegistryError as error:
        status = error.http_status_code
        if status == 404:
            return None
        if status >= 500 or status in (408, 429):
            raise RegistryAway(f"{AWAY}: {status}") from error
        if status == 409:
            raise UsageError(
                f"{subject}: the schema of what the app writes now is not compatible with those that are registered, whose"
                " values may be in the topic still: give the projection a new version, or the field a new name"
            ) from None
        raise UsageError(
            f"the schema registry (C360_REGISTRY) refuses {subject}, with {status}: {error.error_message}"
        ) from None
    except Exception as error:  # whatever the client's HTTP library raises
        raise RegistryAway(f"{AWAY} ({type(error).__name__})") from error


def _unknown(ref: SchemaRef) -> Misfit:
    return Misfit(
        "unknown-schema", f"the registry has no schema {ref}; is C360_REGISTRY the one of the value's producer?"
    )
