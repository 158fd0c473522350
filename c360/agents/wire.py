"""Bytes of the topics we own: governed records, misfits, truncates, days. Contracts: `schemas`, `docs/formats`."""

from __future__ import annotations

import base64
import hashlib
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import msgspec

from c360.codecs.record import Record
from c360.engine.state import named
from c360.engine.transport import TP, Batch, Headers
from c360.errors import Misfit

MISFIT_BYTES = 256 * 1024  # of the original kept in a misfit; more is cut, with a hash of all of it; so its headers
GOVERNED_BYTES = 1_000_000  # a larger governed record is a misfit
SEALED = (
    "c360-sealed"  # header of a replayed misfit whose value is a sealed one: the raw record, with its key and headers
)
ORIGIN = "c360-origin"  # header of a replayed misfit: offset in the raw partition
RAW = "c360-raw"  # header of a replayed misfit of decisions: its raw topic and partition, as in choices/1
TIME = "c360-time"  # header of a replayed misfit: timestamp of the raw record, ms
REASON, ACTOR = "c360-reason", "c360-actor"  # headers of what an operator says of who is who: why, and by whom
CAUSE = "c360-cause"  # header of a profile record: raw append time of the newest record folded in, ms


def plain_text(value: Any) -> str:
    """What an enrichment returned: an identifier is a text, of a class that msgspec does not know."""
    if isinstance(value, str):
        return str.__str__(value)
    raise TypeError(f"a {type(value).__name__} cannot be written as JSON")


encode = msgspec.json.Encoder(enc_hook=plain_text).encode


def read_of(positions: Mapping[TP, int], topic: str) -> dict[str, int]:
    """How far a task had read a topic, as receipts say it."""
    return named({tp: offset for tp, offset in positions.items() if tp.topic == topic})


class Governed(msgspec.Struct, omit_defaults=True, kw_only=True):
    """One raw record, decoded, validated and enriched; a subclass per record type adds `record`, tagged by type name.

    `sign` -1 takes the same record back. `at`: event time; `cause`: append time of the raw record that caused this
    one (both epoch ms). `origin`: raw partition and offset.
    """

    id: str | None = None
    at: int
    cause: int
    origin: tuple[int, int]
    sign: int = 1
    life: int = 0  # how often the subject had been erased
    enriched: dict[str, Any] = {}


def governed_type(record: type[Record], of: Any = None) -> type[Governed]:
    """The governed struct of a record type, with `record` typed, or as `of` where only that is looked at."""
    name = record.__name__
    made = msgspec.defstruct(
        name,
        [("record", of or record)],
        bases=(Governed,),
        tag_field="type",
        tag=name,
        omit_defaults=True,
        kw_only=True,
    )
    return cast(type[Governed], made)


def governed_decoder(types: Sequence[type[Governed]]) -> Callable[[bytes], Any]:
    """Decode any of several governed types by their tag."""
    union: Any = types[0]
    for other in types[1:]:
        union = union | other
    decode: Callable[[bytes], Any] = msgspec.json.Decoder(union).decode
    return decode


class Truncate(msgspec.Struct, frozen=True):
    """A table was emptied at a source position: rows before it are gone. Sent to every task of its source."""

    position: str
    cause: int
    origin: tuple[int, int]


decode_truncate = msgspec.json.Decoder(Truncate).decode


class Assignment(msgspec.Struct, frozen=True, kw_only=True):
    """A subject's profile and its accepted identifiers; the greatest `seq` holds. Twins are written as what they are of.

    `was`: its profile before; readers of an old id find the new one here, but none that is forgotten. `deferred`: links
    that join nobody, with reasons.
    """

    seq: int
    profile: str
    identifiers: list[str] = []
    deferred: list[tuple[str, str]] = []
    was: str | None = None
    change: str
    cause: str


decode_assignment = msgspec.json.Decoder(Assignment).decode


class IdentityChange(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What became of a profile: keyed by its id. `change`: created, merged, split, moved, detail, conflict, status.

    `subject`: who came, or about whom it is; `was`: the profile it comes from; `status`: of a node that may (ok) or may not
    (shared, hub) link any more; `cause`: the fact that brought it about.
    """

    change: str
    subject: str
    was: str | None = None
    deferred: list[tuple[str, str]] = []
    status: str | None = None
    cause: str = ""


decode_identity_change = msgspec.json.Decoder(IdentityChange).decode


class ConsentCommand(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What an operator says that somebody decided. `identifier`: its label as it may be written. Times: epoch ms."""

    identifier: str
    purpose: str
    status: str
    at: int
    expires_at: int | None = None


decode_consent_command = msgspec.json.Decoder(ConsentCommand).decode


class Question(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What is asked outside: `value` is the identifier in clear, or sealed as the record had it that it came with.

    labels: of the identifiers of that record, the asked one first, its subject among them. at: append time of the raw record
    behind it, ms. id: the same for the same subject, identifier and time. life: of the subject. again: how often it was asked
    again, as it had been withheld, and somebody agreed.
    """

    id: str
    subject: str
    labels: list[str]
    value: Any
    at: int
    life: int = 0
    again: int = 0


class Answer(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What somebody outside has said of a subject, the key. id, life: of the question. record: sealed as one where something in
    it is classified."""

    id: str
    record: msgspec.Raw
    life: int = 0


decode_question = msgspec.json.Decoder(Question).decode
decode_answer = msgspec.json.Decoder(Answer).decode


class Enclosed(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a misfit has of its raw record, and of what user code said of it: sealed as one, where it may be personal."""

    key: str | None = None
    value: str | None = None
    headers: list[tuple[str, str]] = []
    traceback: str | None = None


decode_enclosed = msgspec.json.Decoder(Enclosed).decode
decode_json = msgspec.json.Decoder().decode


class Original(NamedTuple):
    """A raw record."""

    key: bytes | None
    value: bytes | None
    headers: Headers


class MisfitRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """A record that could not be used, with its reason and its original bytes (base64).

    `sealed`: in place of key, value, headers and traceback, where they may be personal (docs/formats/keys.md).
    """

    stage: str
    topic: str
    partition: int
    offset: int
    timestamp: int
    reason: str
    error: str
    key: str | None = None
    value: str | None = None
    size: int = 0
    sha256: str | None = None  # of the whole value, when `value` is only its beginning
    traceback: str | None = None
    headers: list[tuple[str, str]] = []
    sealed: dict[str, str] | None = None


decode_misfit = msgspec.json.Decoder(MisfitRecord).decode

READ = frozenset({
    "empty", "enrichment-failed", "missing-field", "no-key", "no-position", "no-subject", "no-tenant", "no-zone", "not-consent",
    "not-sealed", "out-of-range", "sealed-altered", "sealed-elsewhere", "too-large", "unknown-namespace", "unknown-purpose",
    "unknown-row", "wrong-type",
})  # fmt: skip
"""What is wrong with records of which it is known what they are. Of any other reason, also one to come, it is not."""


def is_unread(error: BaseException) -> bool:
    """Whether a record was put aside before it was known what is in it."""
    return not isinstance(error, Misfit) or error.reason not in READ


def original_of(said: Enclosed | MisfitRecord) -> Original:
    """The raw record of a misfit that is not sealed."""
    headers = [(name, base64.b64decode(data)) for name, data in said.headers]
    return Original(_bytes_of(said.key), _bytes_of(said.value), headers)


def _bytes_of(text: str | None) -> bytes | None:
    return None if text is None else base64.b64decode(text)


def misfit_record(
    stage: str,
    at: TP,
    offset: int,
    timestamp: int,
    key: bytes | None,
    value: bytes | None,
    headers: Headers,
    error: BaseException,
    seal: Callable[[bytes], Any] | None = None,
) -> bytes:
    """The dead-letter record of a record and what was wrong with it. `seal`: of what may be personal in it."""
    whole = value or b""
    cut = len(whole) > MISFIT_BYTES
    few = sum(len(name) + len(data or b"") for name, data in headers) <= MISFIT_BYTES
    is_misfit = isinstance(error, Misfit)
    cause = error.__cause__ if is_misfit else error
    said = Enclosed(
        key=None if key is None else base64.b64encode(key[:MISFIT_BYTES]).decode(),
        value=None if value is None else base64.b64encode(whole[:MISFIT_BYTES]).decode(),
        headers=[(name, base64.b64encode(data or b"").decode()) for name, data in headers] if few else [],
        traceback="".join(traceback.format_exception(cause))[-8000:] if cause is not None else None,
    )
    sealed: Any = None if seal is None else msgspec.to_builtins(seal(encode(said)))
    shown = said if seal is None else Enclosed()
    return encode(
        MisfitRecord(
            stage=stage,
            topic=at.topic,
            partition=at.partition,
            offset=offset,
            timestamp=timestamp,
            reason=error.reason if isinstance(error, Misfit) else "failed",
            error=str(error) if is_misfit else f"{type(error).__name__} in {stage}",
            key=shown.key,
            value=shown.value,
            size=len(whole),
            sha256=hashlib.sha256(whole).hexdigest() if cut else None,
            traceback=shown.traceback,
            headers=shown.headers,
            sealed=sealed,
        )
    )


def misfit_in(stage: str, batch: Batch, i: int, error: BaseException) -> bytes:
    """The same of the record at an index of a batch."""
    key, value, headers = batch.keys[i], batch.values[i], batch.headers(i)
    return misfit_record(stage, batch.tp, batch.offsets[i], batch.times[i], key, value, headers, error)
