"""Decisions out of what sources send: plain records, Segment's consent object, TC strings of the IAB.

In go decoded fields and the identifiers that the record is about, as labels `namespace:value`; out come decisions, or a
Misfit that says what to do and holds no value of the record. `appended`: when the record was; no grant counts as later, and
no refusal as much later (`Decision.clamped`). What can be read of a record counts even where the rest cannot: a refusal must
not be lost to a neighbour.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple, cast

from c360.clock import DAY_MS
from c360.errors import DeclarationError, Misfit
from c360.governance.consent import DENIED, GRANTED, STATUSES, Decision, Status
from c360.governance.purposes import Purposes
from c360.governance.tcf import PURPOSES as TCF_PURPOSES
from c360.governance.tcf import CoreString, decode_core

MAX_TIME = 253_402_300_799_999  # the year 9999; the greatest that other tools can show


class Mapped(NamedTuple):
    """Decisions that count, and what else is in the record that nobody can use: then it is diverted, too."""

    decisions: tuple[Decision, ...] = ()
    misfit: Misfit | None = None


def _about(identifiers: Iterable[str]) -> tuple[str, ...]:
    """The identifiers that a decision is bound to, each once. Raises Misfit where there is none."""
    found = tuple(sorted({i for i in identifiers if i}))
    if not found:
        raise Misfit(
            "no-subject",
            "a consent record without identifier decides for nobody; have its source send an identifier that the app declares",
        )
    return found


def time_of(value: object, name: str) -> int:
    """Epoch ms of a datetime with zone, or of a whole number, which is epoch ms."""
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise Misfit("no-zone", f"the field {name} of a consent record has no time zone; send one, such as Z")
        return (value - datetime.fromtimestamp(0, value.tzinfo)) // timedelta(milliseconds=1)
    if isinstance(value, int) and not isinstance(value, bool):
        if 0 <= value <= MAX_TIME:
            return value
        raise Misfit("out-of-range", f"the field {name} of a consent record is no time in ms between 1970 and 9999")
    if value is None:
        raise Misfit("missing-field", f"a consent record has no {name}; send when the customer decided")
    raise Misfit(
        "wrong-type", f"the field {name} of a consent record is no time; send ISO 8601 with a zone, or epoch ms"
    )


# --------------------------------------------------------------------------------------------------------------- plain
def plain(
    record: Mapping[str, Any], *, identifiers: Iterable[str], purposes: Purposes, source: str, appended: int
) -> tuple[Decision, ...]:
    """A record that is one decision: `purpose`, `status` (or `granted`, a boolean), `at`, and `expires_at` or none.

    One decision per identifier. An end that is not after `at` is taken as it stands: expired from the beginning.
    Raises Misfit.
    """
    about = _about(identifiers)
    purpose = record.get("purpose")
    if purpose is None:
        raise Misfit("missing-field", "a consent record has no purpose; send the name of one that the app declares")
    if not isinstance(purpose, str):
        raise Misfit(
            "wrong-type", "the field purpose of a consent record is no text; send the name of a declared purpose"
        )
    if purpose not in purposes:
        raise _unknown_purpose(purposes)
    status, at = _status(record), time_of(record.get("at"), "at")
    end = record.get("expires_at")
    expires_at = None if end is None else time_of(end, "expires_at")
    return tuple(Decision(i, purpose, status, at, source, expires_at).clamped(appended) for i in about)


def _unknown_purpose(purposes: Purposes) -> Misfit:
    return Misfit(
        "unknown-purpose",
        "a consent record names a purpose that the app does not declare, so it decides nothing; declare it with app.purpose "
        f"and replay the record, or correct its source (declared: {', '.join(purposes.names) or 'none'})",
    )


def _status(record: Mapping[str, Any]) -> Status:
    status, granted = record.get("status"), record.get("granted")
    if status is not None and granted is not None:
        raise Misfit("not-consent", "a consent record has both status and granted; send one of them")
    if isinstance(granted, bool):
        return GRANTED if granted else DENIED
    if granted is not None:
        raise Misfit("wrong-type", "the field granted of a consent record is neither true nor false; send one of them")
    if status is None:
        raise Misfit("missing-field", f"a consent record has no status; send one of {', '.join(STATUSES)}")
    if status not in STATUSES:
        raise Misfit("not-consent", f"the status of a consent record is none; send one of {', '.join(STATUSES)}")
    return cast(Status, status)


# ------------------------------------------------------------------------------------------------------------- Segment
Categories = Mapping[str, str | None]
"""By id of a consent category: the purpose that it decides on; None: it is known, and decides on nothing of ours."""


def check_categories(categories: Categories, purposes: Purposes, where: str) -> Categories:
    """The same; raises DeclarationError (`where`: how the user knows the source)."""
    if unknown := sorted({p for p in categories.values() if p is not None and p not in purposes}):
        raise DeclarationError(
            f"{where}: consent categories are mapped to {', '.join(map(repr, unknown))}, which no app.purpose declares; "
            f"declared are: {', '.join(purposes.names) or 'none'}"
        )
    return categories


def segment(
    call: Mapping[str, Any], *, identifiers: Iterable[str], categories: Categories, at: int, source: str, appended: int
) -> Mapped:
    """What a Segment call carries in `context.consent.categoryPreferences`. at: when the call was made, epoch ms.

    As Segment reads it: no consent object says nothing; an empty categoryPreferences is false for every category; one
    that is not in it is not decided on. A purpose that several categories decide on is granted if all of them are there and
    true, and refused if one is false. What is neither true nor false counts as refused: it may have been meant so. That,
    and a category that is not mapped, is the misfit of what comes back, beside the decisions. Raises Misfit where nothing
    can be read.
    """
    preferences = _preferences(call)
    if preferences is None:
        return Mapped()
    about = _about(identifiers)
    misfit: Misfit | None = None
    yes: dict[str, bool] = {}  # by category
    for category, value in sorted((preferences or dict.fromkeys(categories, False)).items()):
        if category not in categories:
            misfit = Misfit(
                "unknown-purpose",
                "a consent category is mapped to no purpose; map its id to a purpose, or to None to ignore it",
            )
        elif isinstance(value, bool):
            yes[category] = value
        else:
            yes[category] = False
            misfit = misfit or Misfit(
                "wrong-type",
                "a category in context.consent.categoryPreferences is neither true nor false, so it counts as refused; "
                "send one of them",
            )
    decisions: list[Decision] = []
    for purpose in sorted({p for p in categories.values() if p is not None}):
        answers = [yes.get(category) for category, decides in categories.items() if decides == purpose]
        if False in answers or None not in answers:
            status = DENIED if False in answers else GRANTED
            decisions += [Decision(i, purpose, status, at, source).clamped(appended) for i in about]
    return Mapped(tuple(decisions), misfit)


def _preferences(call: Mapping[str, Any]) -> Mapping[str, Any] | None:
    here: Any = call
    for name in ("context", "consent", "categoryPreferences"):
        here = here.get(name)
        if here is None:
            return None
        if not isinstance(here, Mapping):
            raise Misfit(
                "wrong-type", f"{name} of a Segment call is no object; send context.consent as Segment documents it"
            )
    return cast(Mapping[str, Any], here)


# ----------------------------------------------------------------------------------------------------------------- TCF
@dataclass(frozen=True)
class FromTcf:
    """When a purpose of ours is granted by a TC string: all these purposes of the framework, and our vendor id if given.

    `consent`: must be consented to; `legitimate_interest`: consented to, or disclosed and not objected to.
    Raises DeclarationError.
    """

    consent: frozenset[int] = frozenset()
    legitimate_interest: frozenset[int] = frozenset()
    vendor: int | None = None

    def __post_init__(self) -> None:
        asked = self.consent | self.legitimate_interest
        if not asked or not all(1 <= p <= TCF_PURPOSES for p in asked):
            raise DeclarationError(
                f"a mapping from TCF: write at least one purpose of the framework, 1 to {TCF_PURPOSES}; a mapping that asks "
                "for none would grant to everybody"
            )
        if self.vendor is not None and not 1 <= self.vendor <= 0xFFFF:
            raise DeclarationError(f"a mapping from TCF: vendor={self.vendor} is no id of the Global Vendor List")

    def granted_by(self, core: CoreString) -> bool:
        return all(core.consents(p, self.vendor) for p in self.consent) and all(
            core.consents(p, self.vendor) or core.transparent(p, self.vendor) for p in self.legitimate_interest
        )


def tcf(
    text: str,
    *,
    identifiers: Iterable[str],
    purposes: Mapping[str, FromTcf],
    seen: int,
    source: str,
    appended: int,
) -> tuple[Decision, ...]:
    """Decisions of a TC string. purposes: by name of ours; seen: when the string was sent, epoch ms. Raises Misfit.

    A bit that is not set is a refusal: the framework does not tell one who refused from one who was not asked.
    """
    about = _about(identifiers)
    core = decode_core(text)
    if not core.service_specific:
        raise Misfit(
            "not-consent",
            "the TC string has IsServiceSpecific=0, which the framework holds for invalid; have the consent platform renew it",
        )
    decisions = []
    for purpose, wanted in sorted(purposes.items()):
        status = GRANTED if wanted.granted_by(core) else DENIED
        at = decided_at(core.last_updated, seen, status)
        decisions += [Decision(i, purpose, status, at, source).clamped(appended) for i in about]
    return tuple(decisions)


def decided_at(last_updated: int, seen: int, status: Status) -> int:
    """When what a TC string says was decided.

    Since TCF 2.2 LastUpdated is a day. Of a string that is sent on that day, when it was sent. Of an older one that is
    sent again the hour is not known: a grant counts from the day's beginning and a refusal from its end, so that a string
    from a cache cannot undo a refusal of the same day. A string with a time of day has that time.
    """
    if last_updated % DAY_MS or seen < last_updated:
        return last_updated
    end = last_updated + DAY_MS - 1
    return seen if seen <= end else last_updated if status == GRANTED else end
