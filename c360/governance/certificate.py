"""The certificate: what one erasure did, where, and when the last bytes are bound to be gone. Written to `{app}.erasures`."""

from __future__ import annotations

from typing import Literal

import msgspec

SWEEP_MS = 86_400_000  # the most that `C360_SWEEP` may be

Policy = Literal["compact", "delete", "user"]


class Promise(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a topic's settings promise of a record that was tombstoned (compact) or is sealed and unreadable (delete).

    ms: `max.compaction.lag.ms`, or `retention.ms` and what a segment may span; -1: no bound. user: a raw topic, which
    belongs to the user.
    """

    policy: Policy
    ms: int


class ErasedSubject(msgspec.Struct, frozen=True):
    """A subject of the profile. life: records of lower lives are void. keys: ids of its data keys, destroyed."""

    subject: str
    life: int
    keys: tuple[str, ...]


class Receipts(msgspec.Struct, frozen=True):
    """What one agent or door did. tombstones: how many, by topic. reached: by `topic/partition`, how far it had read what
    asks it (`suppressed`, or `erase`): the offset that it would read next."""

    agent: str
    tombstones: dict[str, int]
    reached: dict[str, int]


class GoneBy(msgspec.Struct, frozen=True):
    """When the bytes are physically gone, by the topic's own settings. Epoch ms; None: they set no bound."""

    topic: str
    policy: Policy
    gone_by: int | None


class Certificate(msgspec.Struct, frozen=True):
    """Key: the request. Identifiers are veiled, as in the suppressed table: it says nothing of whom it is about."""

    request: str
    identifier: str  # as it was asked for
    asked_at: int
    proven_at: int
    subjects: tuple[ErasedSubject, ...]
    identifiers: tuple[str, ...]  # of the profile, those that are no subjects
    beside: tuple[
        str, ...
    ]  # subjects that hold an identifier of the profile, but are not of it: they keep all but that link
    govern: tuple[str, ...]  # tasks that have passed the suppression: they make no more keys
    agents: tuple[Receipts, ...]
    topics: tuple[GoneBy, ...]
    state_gone_by: int = (
        0  # epoch ms: each worker that runs has swept its state directory by then; 0: of before this was said
    )


encode_certificate = msgspec.json.Encoder(order="deterministic").encode
decode_certificate = msgspec.json.Decoder(Certificate).decode
