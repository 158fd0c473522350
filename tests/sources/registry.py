"""A schema registry in memory, which can be away; and values as its producers would write them."""

from __future__ import annotations

import io
import json
import uuid
from collections import Counter
from collections.abc import Sequence
from typing import Any

import fastavro

from c360.codecs.avro import SchemaRef, WriterSchema
from c360.errors import Misfit, RegistryAway, Shut, UsageError
from tests.registry import Reference


class FakeRegistry:
    """Ids are given in order, from 1."""

    def __init__(self) -> None:
        self.schemas: dict[SchemaRef, WriterSchema] = {}
        self.subjects: dict[str, list[int]] = {}
        self.levels: dict[str, str] = {}
        self.away = False
        self.asked: Counter[SchemaRef] = Counter()

    def compatibility(self, subject: str, level: str) -> None:
        """As an administrator sets it."""
        self.levels[subject] = level

    def register(self, schema: Any, kind: Any = "AVRO", references: tuple[str, ...] = ()) -> int:
        """A schema that nobody has checked, under no subject; its id."""
        number = len(self.schemas) + 1
        self.schemas[number] = WriterSchema(kind, json.dumps(schema), references)
        return number

    def publish(self, subject: str, schema: Any, kind: str = "AVRO", references: Sequence[Reference] = ()) -> int:
        """As producers do; equal schemas have one id."""
        texts: tuple[str, ...] = ()
        for _, other, version in references:
            found = self.schemas[self.subjects[other][version - 1]]
            texts += (*found.references, found.text)
        text = schema if isinstance(schema, str) else json.dumps(schema)
        wanted = WriterSchema(kind, text, texts)  # type: ignore[arg-type]
        there = [number for number, known in self.schemas.items() if known == wanted]
        number = int(there[0]) if there else len(self.schemas) + 1
        self.schemas[number] = wanted
        if number not in (versions := self.subjects.setdefault(subject, [])):
            versions.append(number)
        return number

    # ------------------------------------------------------------------------------------------------ what we write
    def find(self, subject: str, text: str) -> int | None:
        self._answers()
        return next((n for n in self.subjects.get(subject, []) if self.schemas[n].text == text), None)

    def level(self, subject: str) -> str | None:
        self._answers()
        return self.levels.get(subject) if subject in self.subjects else None

    def put(self, subject: str, text: str, level: str) -> int:
        """Of what makes schemas incompatible it knows one thing: a new field without a default."""
        self._answers()
        versions = [json.loads(self.schemas[number].text) for number in self.subjects.get(subject, [])]
        needed = {field["name"] for field in json.loads(text).get("fields", []) if "default" not in field}
        if any(needed - {field["name"] for field in one["fields"]} for one in versions):
            raise UsageError(f"{subject}: not compatible")
        self.levels[subject] = level
        return self.publish(subject, text)

    def _answers(self) -> None:
        if self.away:
            raise RegistryAway("away")

    def schema(self, ref: SchemaRef) -> WriterSchema:
        self.asked[ref] += 1
        if self.away:
            raise Shut("registry", "away")
        if ref not in self.schemas:
            raise Misfit("unknown-schema", f"no schema {ref}")
        return self.schemas[ref]

    def write(self, number: int, value: Any) -> bytes:
        return b"\0" + number.to_bytes(4, "big") + self.data(number, value)

    def data(self, number: int, value: Any) -> bytes:
        return written(fastavro.parse_schema(json.loads(self.schemas[number].text)), value)


def written(schema: Any, value: Any) -> bytes:
    """A value's bytes, by a parsed schema."""
    out = io.BytesIO()
    fastavro.schemaless_writer(out, schema, value)
    return out.getvalue()


def guid_header(guid: str) -> tuple[str, bytes]:
    return "__value_schema_id", b"\1" + uuid.UUID(guid).bytes
