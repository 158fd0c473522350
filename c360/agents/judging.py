"""What may leave of profiles, as of now: people's decisions, suppressions, the purpose's sight, keys, and the user's function.

    records ──verdicts──► who may leave ──shapes──► the bytes of what leaves, or why nothing does

In every doubt nothing leaves. Reads the process's copies of what was decided, all of them as they were at one moment, and
changes nothing. Raises Stale while there is no whole copy.
"""

from __future__ import annotations

import hashlib
import traceback
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

from c360.agents.contracts import Wire
from c360.agents.opening import Opening
from c360.agents.shape import Seen, Shape, is_listed
from c360.declare import Projection
from c360.engine.global_table import GlobalTable
from c360.engine.loop import LoopSettings
from c360.errors import Misfit
from c360.governance.consent import REASONS, decode_state, verdict
from c360.governance.names import Vault
from c360.governance.suppressed import decode_suppressed
from c360.plan import Plan, text_of
from c360.rights import Door

LARGEST_BYTES = LoopSettings.record_bytes  # of what leaves: a loop writes no larger value
NAMES = 1 << 14  # names of identifiers at hand; making one takes 3 µs, and it is asked for three times a decision

NOT_LEAVING: Mapping[str, str] = {
    **{reason: text for reason, text in REASONS.items() if reason not in ("basis", "granted")},
    "suppressed": "one of its identifiers is suppressed, as somebody asked to be forgotten; `c360 erase --lift` ends that",
    "too-many": "it has more subjects or identifiers than a record lists, so not all can be asked whether they agree",
    "unseen": "none of its records may be used for this purpose; see purposes= of their sources",
    "nothing": "the sink's function gave None for it",
    "sink-failed": "the sink's function raised an error, or gave what is no JSON; the dead letters say which",
    "derived-failed": "a @derived value raised an error; it is null in what leaves",
    "sealed-altered": "a sealed value in it is not what was sealed; the dead letters name the profile",
    "sealed-elsewhere": "a sealed value in it belongs elsewhere; the dead letters name the profile",
    "not-sealed": "a value in it should be sealed and has another form; the dead letters name the profile",
    "not-a-profile": "its record in the projection's topic is none that this version of c360 writes",
    "not-in-schema": "a value of it does not fit the Avro schema of what leaves; the dead letters name the field",
    "too-large": f"what would leave of it is larger than {LARGEST_BYTES} bytes",
}
"""Why nothing leaves of a profile, in a sentence that says what to do. `derived-failed` does not hold anything back."""


class Listed(msgspec.Struct, gc=False):
    """Of a projection's record, whom it is about."""

    profile_id: str
    subjects: list[str]
    subjects_total: int
    identifiers: list[str]


_decode_listed = msgspec.json.Decoder(Listed).decode
_decode = msgspec.json.decode
_canonical = msgspec.json.Encoder(order="deterministic").encode


def labels_of(record: bytes) -> frozenset[str]:
    """All identifiers that a record lists, its subjects and its own id among them; none of what is no record."""
    return _listed(record)[0]


def _listed(record: bytes) -> tuple[frozenset[str], bool]:
    """The same, and whether these are all there are."""
    try:
        listed = _decode_listed(record)
    except msgspec.DecodeError:
        return frozenset(), False
    labels = frozenset((listed.profile_id, *listed.subjects, *listed.identifiers))
    return labels, is_listed(msgspec.structs.asdict(listed))


class Ruling(NamedTuple):
    """Whether a profile may leave. `changes_at`: when that becomes its opposite if nothing new is decided."""

    allowed: bool
    reason: str
    labels: frozenset[str]
    changes_at: int | None = None


class Judged(NamedTuple):
    """A ruling, and what leaves: None for nothing. `failed`: what went wrong, in our words, and where in the code."""

    ruling: Ruling
    value: bytes | None
    reason: str
    failed: tuple[str, str | None] | None = None
    as_of: str | None = None  # of what leaves


class Judge:
    """Of one door. Used by one thread."""

    def __init__(
        self,
        plan: Plan,
        door: Door,
        governance: GlobalTable | None,
        vault: Vault | None = None,
        wire: Wire | None = None,
    ) -> None:
        """`governance` None: of an app that asks nobody and seals nothing. `vault`: of one that needs keys. `wire`: how it is
        written; None: as JSON."""
        self.plan, self.door, self.governance, self.wire = plan, door, governance, wire
        sensitive = () if door.sink is None else door.sink.sensitive
        self.shapes = {p.version: Shape(plan, p, door.purpose.name, sensitive=sensitive) for p in door.versions}
        self.asks = door.purpose.asks
        self.suppresses = plan.erases
        assert vault is not None or not plan.needs_keys, "sealed values and names of those who were erased take keys"
        self.named: Callable[[str], str] = _itself if vault is None else lru_cache(NAMES)(vault.names.veil)
        """An identifier as the suppressed are written, and as doors look for whom news are about."""
        self.keys = Opening(plan, governance, vault)
        self._fingerprints = {version: fingerprint_of(shape, door, wire) for version, shape in self.shapes.items()}

    def fingerprint(self, version: int) -> str:
        """Of what makes of this version's records that which leaves; another one: all profiles are looked at again."""
        return self._fingerprints[version]

    @property
    def topics(self) -> tuple[str, ...]:
        """Whose news may change what leaves."""
        return (
            *((self.plan.consent,) if self.asks else ()),
            *((self.plan.suppressed,) if self.suppresses else ()),
        )

    # ----------------------------------------------------------------------------------------------------- who may
    def rule(self, records: Mapping[bytes, bytes], now: int) -> dict[bytes, Ruling]:
        """By profile. Sealed values are not looked at."""
        listed = {key: _listed(record) for key, record in records.items()}
        everybody = list({label: None for some, _ in listed.values() for label in some})
        states = self._states(everybody)
        suppressed = self._suppressed(everybody)
        rulings = {}
        for key, (some, all_of_them) in listed.items():
            if not some:
                rulings[key] = Ruling(False, "not-a-profile", some)
                continue
            said = {label: states[label] for label in some if label in states}
            found = verdict(self.door.purpose, said, now)
            if not suppressed.isdisjoint(some):
                rulings[key] = Ruling(False, "suppressed", some, found.changes_at)
            elif self.asks and not all_of_them:
                rulings[key] = Ruling(False, "too-many", some, found.changes_at)
            else:
                rulings[key] = Ruling(found.allowed, found.reason, some, found.changes_at)
        return rulings

    def _states(self, labels: Iterable[str]) -> dict[str, Any]:
        if not self.asks:
            return {}
        assert self.governance is not None
        known = list(labels)
        values = self.governance.get_many([label.encode() for label in known], self.plan.consent)
        return {label: decode_state(value) for label, value in zip(known, values, strict=True) if value is not None}

    def _suppressed(self, labels: Iterable[str]) -> set[str]:
        if not self.suppresses:
            return set()
        assert self.governance is not None
        known = list(labels)
        values = self.governance.get_many([self.named(label).encode() for label in known], self.plan.suppressed)
        return {
            label
            for label, value in zip(known, values, strict=True)
            if value is not None and decode_suppressed(value).stands
        }

    # ------------------------------------------------------------------------------------------------- what leaves
    def judge(self, records: Mapping[bytes, bytes], version: int, now: int) -> dict[bytes, Judged]:
        """By profile, of records of one version. Raises Shut while a key is not known that may still come."""
        rulings, shape = self.rule(records, now), self.shapes[version]
        judged: dict[bytes, Judged] = {}
        seen: dict[bytes, Seen] = {}
        wanted: dict[tuple[str, str], None] = {}
        for key, ruling in rulings.items():
            if not ruling.allowed:
                judged[key] = Judged(ruling, None, ruling.reason)
                continue
            try:
                look = shape.look(_decode(records[key]))
                if look is None:
                    judged[key] = Judged(ruling, None, "unseen")
                    continue
                wanted.update(dict.fromkeys(shape.wanted(look)))
                seen[key] = look
            except Misfit as misfit:
                judged[key] = Judged(ruling, None, misfit.reason, (str(misfit), None))
            except (KeyError, TypeError, AttributeError, msgspec.DecodeError):
                judged[key] = Judged(ruling, None, "not-a-profile", (NOT_LEAVING["not-a-profile"], None))
        self.keys.have(wanted)
        for key, look in seen.items():
            judged[key] = self._leaving(shape, rulings[key], look)
        return judged

    def _leaving(self, shape: Shape, ruling: Ruling, seen: Seen) -> Judged:
        door, failed = self.door, None
        try:
            if door.sink is None:
                record, error = shape.record(seen, self.keys.open)
                if error is not None:
                    failed = _told(f"a @derived value of {door.agent} raised {type(error).__name__}; it is null", error)
                value = _canonical(record) if self.wire is None else self.wire.encode(record)
            else:
                made, reason, failed = self._given(shape.instance(seen, self.keys.open))
                if made is None:
                    return Judged(ruling, None, reason, failed)
                value = made if self.wire is None else self.wire.encode(_decode(made))
        except Misfit as misfit:
            return Judged(ruling, None, misfit.reason, (str(misfit), None))
        if len(value) > LARGEST_BYTES:
            return Judged(ruling, None, "too-large", (NOT_LEAVING["too-large"], None))
        return Judged(ruling, value, "derived-failed" if failed else ruling.reason, failed, seen.as_of)

    def _given(self, instance: Projection) -> tuple[bytes | None, str, tuple[str, str | None] | None]:
        """What the user's function makes of a profile: whatever it raises, nothing leaves."""
        assert self.door.sink is not None
        try:
            given = self.door.sink.function(instance)
            return (None, "nothing", None) if given is None else (_canonical(given), "", None)
        except Exception as error:
            said = (
                f"the function of {self.door.agent} raised {type(error).__name__}; nothing of the profile is held there"
            )
            return None, "sink-failed", _told(said, error)


def fingerprint_of(shape: Shape, door: Door, wire: Wire | None = None) -> str:
    """16 hex digits over what makes of a record that which leaves."""
    projection = shape.projection
    parts = ["shape/1", door.purpose.name, door.purpose.basis, *sorted(shape.hidden), *sorted(shape.sealed)]
    parts += [f"{name} {text_of(vars(projection.record)[name].fget)}" for name in projection.derived]
    if door.sink is not None:
        parts.append(text_of(door.sink.function))
    if wire is not None:
        parts.append(wire.fingerprint)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _told(said: str, error: Exception) -> tuple[str, str | None]:
    """Places in the code, without what the error says: that may be the customer's."""
    return said, "".join(traceback.format_tb(error.__traceback__))[-8000:]


def _itself(label: str) -> str:
    return label
