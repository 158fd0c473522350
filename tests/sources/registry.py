"""A schema registry in memory, which can be away; and values as its producers would write them."""

from __future__ import annotations

import io
import json
import uuid
from collections import Counter
from typing import Any

import fastavro

from c360.codecs.avro import SchemaRef, WriterSchema
from c360.errors import Misfit, Shut


class FakeRegistry:
    """Ids are given in order, from 1."""

    def __init__(self) -> None:
        self.schemas: dict[SchemaRef, WriterSchema] = {}
        self.away = False
        self.asked: Counter[SchemaRef] = Counter()

    def register(self, schema: Any, kind: Any = "AVRO", references: tuple[str, ...] = ()) -> int:
        number = len(self.schemas) + 1
        self.schemas[number] = WriterSchema(kind, json.dumps(schema), references)
        return number

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
        out = io.BytesIO()
        fastavro.schemaless_writer(out, fastavro.parse_schema(json.loads(self.schemas[number].text)), value)
        return out.getvalue()


def guid_header(guid: str) -> tuple[str, bytes]:
    return "__value_schema_id", b"\1" + uuid.UUID(guid).bytes
