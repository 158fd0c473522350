"""What raw records of decisions must have led to in `{app}.consent`, by keeping every decision ever given.

Written from docs/consent.md and the specifications of Segment and the IAB; shares with the agent the declarations only.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from c360.governance.inputs import FromTcf
from c360.identity.namespace import Namespace
from c360.plan import Plan
from c360.rights import Asked, ConsentSource
from c360.testing.oracle.governed import Delivery
from c360.testing.oracle.plain import parse, parse_payload
from c360.testing.oracle.sealing import Sight, clear_label, label_in
from c360.testing.oracle.values import NoFit, at_path, record_from_payload

AHEAD = 5 * 60_000
YEAR_10000 = 253_402_300_800_000
DAY = 86_400_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
FOR_EVER = float("inf")


class Given(NamedTuple):
    """A decision."""

    identifier: str
    purpose: str
    at: int
    status: str
    source: str
    expires_at: int | None


class Told(NamedTuple):
    """What a raw record is: the decisions in it, and whether something of it is a misfit."""

    given: tuple[Given, ...] = ()
    misfit: bool = False


def at_most(at: int, status: str, appended: int) -> int:
    """When it counts: a grant when it came, at the latest; a refusal may be from 5 minutes after that."""
    return min(at, appended) if status == "granted" else min(at, appended + AHEAD)


Word = tuple[str, str, int | None]
Newest = tuple[int, Word | None, Word | None]
"""As a consent record has it: at, grant, refusal."""


def newest(given: Iterable[Given]) -> dict[str, dict[str, Newest]]:
    """By identifier and purpose, of all that was ever given."""
    about: dict[tuple[str, str], list[Given]] = defaultdict(list)
    for one in given:
        about[one.identifier, one.purpose].append(one)
    found: dict[str, dict[str, Newest]] = defaultdict(dict)
    for (identifier, purpose), all_of_it in about.items():
        last = max(one.at for one in all_of_it)
        then = [one for one in all_of_it if one.at == last]
        grants = sorted((one for one in then if one.status == "granted"), key=lambda o: (_end(o), *_backwards(o)))
        refusals = sorted((one for one in then if one.status != "granted"), key=lambda o: (-_end(o), *_backwards(o)))
        found[identifier][purpose] = (last, _word(grants), _word(refusals))
    return dict(found)


def _end(one: Given) -> float:
    return FOR_EVER if one.expires_at is None else one.expires_at


def _backwards(one: Given) -> tuple[Any, ...]:
    """The last by name comes first."""
    return tuple([-ord(c) for c in text] + [1] for text in (one.status, one.source))


def _word(of: list[Given]) -> Word | None:
    return (of[0].status, of[0].source, of[0].expires_at) if of else None


class Decisions:
    """The records of one raw topic."""

    def __init__(self, plan: Plan, source: ConsentSource, sight: Sight | None) -> None:
        self.plan, self.source, self.sight = plan, source, sight
        self.asked: Asked = source.asked

    def read(self, raw: Delivery) -> Told:
        try:
            payload = None if raw.value is None else parse_payload(raw.value)
            if not isinstance(payload, dict):
                return Told(misfit=True)
            when = self.asked.when or {}
            if any(type(v := at_path(payload, path)) is not type(w) or v != w for path, w in when.items()):
                return Told(misfit=self.asked.unmatched == "dlq")
            record = record_from_payload(self.asked.record, payload)
        except (ValueError, NoFit, OverflowError):
            return Told(misfit=True)
        labels, wrong = self._labels(record, raw.key)
        try:
            said, odd = self._said(record, raw.time)
        except NoFit:
            return Told(misfit=True)
        if said is None:
            return Told()
        if not labels:
            return Told(misfit=True)
        given = [
            Given(label, purpose, at_most(at, status, raw.time), status, self.asked.name, end)
            for label in labels
            for purpose, status, at, end in said
        ]
        return Told(tuple(given), odd or (wrong and bool(given)))  # of nothing it does not matter who says it

    # ------------------------------------------------------------------------------------------------ whom it is about
    def _labels(self, record: Any, key: bytes | None) -> tuple[set[str], bool]:
        tenant = None if self.asked.tenant is None else getattr(record, self.asked.tenant) or ""
        labels, wrong = set(), False
        for namespace, value in self._values(record, key):
            try:
                if namespace is None or value is None:
                    raise NoFit
                labels.add(label_in(self.sight, namespace, clear_label(namespace, value, tenant)))
            except NoFit:
                wrong = True
        return labels, wrong

    def _values(self, record: Any, key: bytes | None) -> Iterator[tuple[Namespace | None, str | None]]:
        found: list[tuple[Namespace | None, str | None]] = []
        for link in self.asked.identifiers:
            value = getattr(record, link.name)
            found += [(link.namespace, v) for v in (value or [] if link.many else [value]) if v is not None]
        said = None if self.asked.any_identifier is None else getattr(record, self.asked.any_identifier)
        if said is not None:
            name, _, value = said.partition(":")
            declared = {n.name: n for n in self.plan.identifiers.values()}
            found.append((declared.get(name) if ":" in said else None, value))
        if not found and self.asked.key is not None:
            try:
                found.append((self.asked.key, None if key is None else key.decode()))
            except UnicodeDecodeError:
                found.append((self.asked.key, None))
        yield from found

    # --------------------------------------------------------------------------------------------------- what it says
    def _said(self, record: Any, time: int) -> tuple[list[tuple[str, str, int, int | None]] | None, bool]:
        """(purpose, status, at, end) each, None where the record says nothing; and whether some of it is odd. Raises NoFit."""
        has = {name: getattr(record, name) for name in type(record).__struct_fields__}
        if self.source.form == "plain":
            return [self._plain(has)], False
        at = max(time, 0) if has.get("at") is None else instant(has["at"])
        if self.source.form == "segment":
            return self._segment(has["preferences"], at)
        if has["tc_string"] is None:
            return None, False
        if not isinstance(has["tc_string"], str):
            raise NoFit
        return list(from_tcf(has["tc_string"], self.source.tcf, at)), False

    def _plain(self, has: Mapping[str, Any]) -> tuple[str, str, int, int | None]:
        return plain(has, self.plan.purposes.names)

    def _segment(self, said: Any, at: int) -> tuple[list[tuple[str, str, int, int | None]] | None, bool]:
        if said is None:
            return None, False
        if not isinstance(said, dict):
            raise NoFit
        mapped = self.source.categories
        said = said or dict.fromkeys(mapped, False)
        odd = any(c not in mapped or not isinstance(v, bool) for c, v in said.items())
        out: list[tuple[str, str, int, int | None]] = []
        for purpose in {p for p in mapped.values() if p is not None}:
            asked = [c for c, p in mapped.items() if p == purpose]
            if any(c in said and said[c] is not True for c in asked):
                out.append((purpose, "denied", at, None))
            elif all(c in said for c in asked):
                out.append((purpose, "granted", at, None))
        return out, odd


def plain(has: Mapping[str, Any], purposes: Iterable[str]) -> tuple[str, str, int, int | None]:
    """A record that is one decision. Raises NoFit."""
    status, granted = has.get("status"), has.get("granted")
    if (status is None) == (granted is None) or has.get("purpose") not in tuple(purposes):
        raise NoFit
    if granted is not None:
        if granted is not True and granted is not False:
            raise NoFit
        status = "granted" if granted else "denied"
    if status not in ("granted", "denied", "withdrawn"):
        raise NoFit
    end = has.get("expires_at")
    return has["purpose"], status, instant(has.get("at")), None if end is None else instant(end)


def instant(value: Any) -> int:
    """Epoch ms. Raises NoFit."""
    if isinstance(value, datetime) and value.tzinfo is not None:
        return (value - EPOCH) // timedelta(milliseconds=1)
    if type(value) is int and 0 <= value < YEAR_10000:
        return value
    raise NoFit


def command(plan: Plan, raw: Delivery) -> Told:
    """What an operator said: the label is written as it is."""
    try:
        said = parse(raw.value or b"")
        identifier = said["identifier"]
        if not isinstance(identifier, str) or not identifier:
            raise NoFit
        purpose, status, at, end = plain({k: v for k, v in said.items() if k != "granted"}, plan.purposes.names)
    except (ValueError, KeyError, TypeError, NoFit):
        return Told(misfit=True)
    return Told((Given(identifier, purpose, at_most(at, status, raw.time), status, "operator", end),))


# ----------------------------------------------------------------------------------------------------------------- TCF
class Digits:
    """A TC string as the text of its bits."""

    def __init__(self, text: str) -> None:
        core = text.strip().split(".")[0].rstrip("=")
        if not core or len(text) > 100_000 or any(c not in LETTERS for c in core) or len(core) % 4 == 1:
            raise NoFit
        bits = "".join(f"{LETTERS.index(c):06b}" for c in core)
        self.bits, self.at = bits[: len(bits) // 8 * 8], 0

    def number(self, size: int) -> int:
        if self.at + size > len(self.bits):
            raise NoFit
        self.at += size
        return int(self.bits[self.at - size : self.at], 2)

    def members(self, size: int) -> set[int]:
        return {n for n in range(1, size + 1) if self.number(1)}

    def ranges(self, most: int) -> set[int]:
        found: set[int] = set()
        for _ in range(self.number(12)):
            several, first = self.number(1), self.number(16)
            last = self.number(16) if several else first
            if not 1 <= first <= last <= most:
                raise NoFit
            found.update(range(first, last + 1))
        return found

    def vendors(self) -> set[int]:
        most = self.number(16)
        return self.ranges(most) if self.number(1) else self.members(most)


def from_tcf(text: str, wanted: Mapping[str, FromTcf], seen: int) -> Iterator[tuple[str, str, int, int | None]]:
    """What a string decides of each purpose. Raises NoFit."""
    digits = Digits(text)
    if digits.number(6) != 2:
        raise NoFit
    digits.number(36)
    updated = 100 * digits.number(36)
    for size in (12, 12, 6, 12, 12, 6):
        digits.number(size)
    specific = digits.number(1)
    digits.number(1)
    digits.number(12)
    consented, disclosed = digits.members(24), digits.members(24)
    digits.number(1)
    digits.number(12)
    vendors, vendors_disclosed = digits.vendors(), digits.vendors()
    restricted = [(digits.number(6), digits.number(2), digits.ranges(0xFFFF)) for _ in range(digits.number(12))]
    if not specific:
        raise NoFit

    def forbids(purpose: int, vendor: int | None, kinds: set[int]) -> bool:
        return any(p == purpose and kind in kinds and vendor in ids for p, kind, ids in restricted)

    def by_consent(purpose: int, vendor: int | None) -> bool:
        return purpose in consented and (vendor is None or vendor in vendors) and not forbids(purpose, vendor, {0, 2})

    def by_interest(purpose: int, vendor: int | None) -> bool:
        allowed = vendor is None or vendor in vendors_disclosed
        return purpose in disclosed and allowed and not forbids(purpose, vendor, {0, 1})

    for name, mapping in wanted.items():
        yes = all(by_consent(p, mapping.vendor) for p in mapping.consent) and all(
            by_consent(p, mapping.vendor) or by_interest(p, mapping.vendor) for p in mapping.legitimate_interest
        )
        status = "granted" if yes else "denied"
        at = updated
        if updated % DAY == 0 and seen >= updated:  # a day, of which the hour is not known
            if seen < updated + DAY:
                at = seen
            elif not yes:
                at = updated + DAY - 1
        yield name, status, at, None
