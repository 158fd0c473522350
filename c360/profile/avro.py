"""The Avro schema of a profile as a view writes it, by the types of its attributes.

Every value keeps exact. A total or average has a fixed number of decimal places, so it is Avro's decimal; any other Decimal has
as many as it came with, so it is text. Whole numbers are long, what has no type of its own is its JSON text. All attributes may
be null, so that they can come and go. Knows no Avro library: schemas are the JSON that they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from c360.profile.attribute import Attribute, ValueType

DIGITS = 38  # of a decimal: what databases keep
_TYPES: Mapping[ValueType, Any] = {
    "int": "long",
    "float": "double",
    "decimal": {"type": "string", "of": "decimal"},
    "datetime": {"type": "long", "logicalType": "timestamp-micros"},
    "date": {"type": "int", "logicalType": "date"},
    "text": "string",
    "bool": "boolean",
    "json": {"type": "string", "json": True},
}
OptionalFields = Callable[[Mapping[str, Any]], list[dict[str, Any]]]


def type_of(attribute: Attribute) -> Any:
    """What its values are, where it has one."""
    match attribute.kind:
        case "count" | "distinct":
            return "long"
        case "flag":
            return "boolean"
        case "total" | "average":
            return {"type": "bytes", "logicalType": "decimal", "precision": DIGITS, "scale": attribute.scale}
        case "top" | "collect":
            return {"type": "array", "items": _TYPES[attribute.type]}
        case _:
            return _TYPES[attribute.type]


def profile_schema(
    namespace: str,
    attributes: Sequence[Attribute],
    derived: Mapping[str, ValueType],
    fields: OptionalFields,
    classes: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Of the profiles of one view. `derived`: by name, what its values are. `fields`: makes fields of a record of names and
    types, each of which may be null. `classes`: of attributes that are "personal" or "sensitive"."""
    types = {a.name: type_of(a) for a in attributes} | {name: _TYPES[said] for name, said in derived.items()}
    shown = fields(types)
    for one, name in zip(shown, types, strict=True):
        if (said := (classes or {}).get(name)) is not None:
            one["c360.class"] = said
    names = {"type": "array", "items": "string"}
    return {
        "type": "record",
        "name": "Profile",
        "namespace": namespace,
        "fields": [
            {"name": "profile_id", "type": "string"},
            {"name": "projection", "type": "string"},
            {"name": "version", "type": "int"},
            {"name": "purpose", "type": "string"},
            {"name": "subjects", "type": names},
            {"name": "subjects_total", "type": "long"},
            {"name": "identifiers", "type": names},
            {"name": "attributes", "type": {"type": "record", "name": "Attributes", "fields": shown}},
            {
                "name": "as_of",
                "type": ["null", {"type": "long", "logicalType": "timestamp-millis"}],
                "default": None,
            },
        ],
    }
