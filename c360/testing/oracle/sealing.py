"""What is sealed in governed records, and what may be seen of it: an identifier's token, and values with a key at hand.

The ciphers are not computed a second time here, that is what RFCs and golden bytes are for. What is: which values are
sealed, for whom and under which name, and that none is not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from c360.classes import classified, classified_in
from c360.codecs.record import AnyIdentifier
from c360.declare import Source, SourceType
from c360.identity.namespace import Namespace
from c360.plan import Plan
from c360.testing.oracle.plain import written
from c360.testing.oracle.values import NoFit

LABEL = 512
KEY_ID, TAG = 24, 16  # characters, bytes


@dataclass(frozen=True)
class Sight:
    """What is seen with the keys of an app.

    `open`: from a sealed value, its subject and field to the JSON in it, None where its key was destroyed; it raises for
    anything else. `letter`: from a sealed value to the raw record of a dead letter: key, value and headers. `lost`: subjects of
    whom a value cannot be opened any more, as far as they were met.
    """

    token: Callable[[str], str]
    open: Callable[[Any, str, str], bytes | None]
    letter: Callable[[Any], tuple[bytes | None, bytes | None, list[tuple[str, bytes]]]]
    lost: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Shut:
    """A sealed value of a governed record: where it is, from the record's JSON down, and the field that it is sealed as."""

    path: tuple[str, ...]
    field: str


def shut_of(plan: Plan, source: Source, declared: SourceType) -> list[Shut]:
    """What of a type's records is sealed: what the declarations classify, and identifiers of personal namespaces."""
    personal: list[type] = [kind for kind, namespace in plan.identifiers.items() if namespace.personal]
    personal += [AnyIdentifier] if personal else []
    found = [Shut(("record", *c.path), c.said(declared.record)) for c in classified(declared.record, personal)]
    for enrichment in source.enrichments:
        if enrichment.record is declared.record:
            name = f"{declared.name}.{enrichment.name}"
            for c in classified_in(enrichment.returns, name, personal):
                inner = "".join(p if p in ("[]", "{}") else f".{p}" for p in c.path)
                found.append(Shut(("enriched", enrichment.name, *c.path), name + inner))
    return found


def at_place(value: Any, path: Sequence[str], change: Callable[[Any], Any]) -> Any:
    """A JSON value with what is at a path changed; what is not there, or null, stays so."""
    if value is None:
        return None
    if not path:
        return change(value)
    if path[0] == "[]":
        return [at_place(each, path[1:], change) for each in value]
    if path[0] == "{}":
        return {name: at_place(each, path[1:], change) for name, each in value.items()}
    return {**value, path[0]: at_place(value[path[0]], path[1:], change)} if path[0] in value else value


def as_sealed(said: Any, shut: Sequence[Shut], subject: str) -> Any:
    """The JSON of a governed record with something as long as a sealed value where one will be."""
    for place in shut:

        def sealed(value: Any, field: str = place.field) -> Any:
            n = len(written(value).encode()) + TAG
            return {"~sealed": "x" * (KEY_ID + len(field) + 2 + (n + 2) // 3 * 4), "subject": subject}

        said = at_place(said, place.path, sealed)
    return said


def clear_label(namespace: Namespace, value: str, tenant: Any = None) -> str:
    """`namespace:value`, the value in clear, with its tenant's name before it. Raises NoFit."""
    canonical = namespace.normalize(value)
    if canonical is None:
        raise NoFit
    if tenant is not None:
        owner = str(tenant).strip()
        if owner == "" or "/" in owner:
            raise NoFit
        canonical = f"{owner}/{canonical}"
    text = f"{namespace.name}:{canonical}"
    if len(text) > LABEL or "\x00" in text:
        raise NoFit
    return text


def label_in(sight: Sight | None, namespace: Namespace, clear: str) -> str:
    """What is written of a label."""
    if not namespace.personal:
        return clear
    assert sight is not None, "nobody sees what an app writes without its keys"
    return sight.token(clear)
