"""The core segment of a TC string, version 2 of the IAB Europe Transparency & Consent Framework.

Written from the public specification, "Transparency and Consent String with Global Vendor & CMP List Formats" (2.2), The
Core String. No Python package that decodes it had a release since July 2024, and the segment is short.
Other segments (disclosed vendors, publisher) are not read. Knows nothing of our purposes.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable
from typing import NamedTuple

from c360.errors import Misfit

VERSION = 2
PURPOSES = 24
MAX_CHARS = 100_000  # of all segments; a real one has hundreds
CHARS = re.compile(r"[A-Za-z0-9_-]+\Z")
NOT_ALLOWED, REQUIRE_CONSENT, REQUIRE_LEGITIMATE_INTEREST = 0, 1, 2  # kinds of restriction


class Vendors(NamedTuple):
    """Ids of vendors as inclusive ranges: a few bytes of string can name tens of thousands."""

    ranges: tuple[tuple[int, int], ...] = ()

    def holds(self, vendor: int) -> bool:
        return any(first <= vendor <= last for first, last in self.ranges)


class Restriction(NamedTuple):
    """What the publisher forbids these vendors for a purpose, whatever was consented to."""

    purpose: int
    kind: int
    vendors: Vendors


class CoreString(NamedTuple):
    """The fields of the core segment that say what was decided. Times: epoch ms, of strings since TCF 2.2 whole days."""

    created: int
    last_updated: int
    cmp_id: int
    vendor_list_version: int
    policy_version: int
    service_specific: bool
    purposes_consent: frozenset[int]
    purposes_li_transparency: frozenset[int]
    vendors_consent: Vendors
    vendors_li: Vendors
    restrictions: tuple[Restriction, ...]

    def consents(self, purpose: int, vendor: int | None) -> bool:
        """Consent for a purpose, and for the vendor, where the publisher leaves that to consent."""
        if purpose not in self.purposes_consent:
            return False
        if vendor is None:
            return True
        return self.vendors_consent.holds(vendor) and not self._restricted(purpose, vendor, REQUIRE_LEGITIMATE_INTEREST)

    def transparent(self, purpose: int, vendor: int | None) -> bool:
        """Legitimate interest established and not objected to, for the vendor, too, where the publisher leaves it to that."""
        if purpose not in self.purposes_li_transparency:
            return False
        if vendor is None:
            return True
        return self.vendors_li.holds(vendor) and not self._restricted(purpose, vendor, REQUIRE_CONSENT)

    def _restricted(self, purpose: int, vendor: int, other: int) -> bool:
        kinds = {r.kind for r in self.restrictions if r.purpose == purpose and r.vendors.holds(vendor)}
        return not kinds.isdisjoint({NOT_ALLOWED, other})


class _Bits:
    """Fields from left to right, big-endian."""

    def __init__(self, data: bytes) -> None:
        self.left = 8 * len(data)
        self.number = int.from_bytes(data, "big")

    def take(self, count: int) -> int:
        self.left -= count
        if self.left < 0:
            raise _unreadable("it ends in the middle of a field")
        return (self.number >> self.left) & ((1 << count) - 1)

    def members(self, count: int) -> list[int]:
        """Of a bit field the places that are set, the leftmost being 1."""
        field = self.take(count)
        return [i for i in range(1, count + 1) if field >> (count - i) & 1]


def _unreadable(why: str) -> Misfit:
    return Misfit(
        "not-consent", f"the TC string cannot be read: {why}; have the consent platform send the string as it is, uncut"
    )


def decode_core(text: str) -> CoreString:
    """Of a whole TC string, or its first segment. Raises Misfit if it is none of version 2."""
    if len(text) > MAX_CHARS:
        raise _unreadable(f"it is longer than {MAX_CHARS} characters")
    core = text.strip().partition(".")[0].rstrip("=")
    if not CHARS.match(core):
        raise _unreadable("it is empty, or has characters that web-safe base64 has not")
    try:
        data = base64.urlsafe_b64decode(core + "=" * (-len(core) % 4))
    except (binascii.Error, ValueError):
        raise _unreadable("it is not base64 of whole bytes") from None
    bits = _Bits(data)
    version = bits.take(6)
    if version != VERSION:
        raise _unreadable(f"its version is not {VERSION}, the only one in force")
    created, last_updated = 100 * bits.take(36), 100 * bits.take(36)
    cmp_id = bits.take(12)
    bits.take(12 + 6 + 12)  # CMP version, consent screen, consent language
    vendor_list_version, policy_version = bits.take(12), bits.take(6)
    service_specific = bool(bits.take(1))
    bits.take(1 + 12)  # non-standard texts, special features
    consent, transparency = bits.members(PURPOSES), bits.members(PURPOSES)
    bits.take(1 + 12)  # purpose one treatment, publisher's country
    vendors_consent, vendors_li = _vendors(bits), _vendors(bits)
    restrictions = tuple(
        Restriction(bits.take(6), bits.take(2), Vendors(_ranges(bits, None))) for _ in range(bits.take(12))
    )
    return CoreString(
        created,
        last_updated,
        cmp_id,
        vendor_list_version,
        policy_version,
        service_specific,
        frozenset(consent),
        frozenset(transparency),
        vendors_consent,
        vendors_li,
        restrictions,
    )


def _vendors(bits: _Bits) -> Vendors:
    most = bits.take(16)
    if bits.take(1):
        return Vendors(_ranges(bits, most))
    return Vendors(_runs(bits.members(most)))


def _ranges(bits: _Bits, most: int | None) -> tuple[tuple[int, int], ...]:
    found: list[tuple[int, int]] = []
    for _ in range(bits.take(12)):
        is_range, first = bits.take(1), bits.take(16)
        last = bits.take(16) if is_range else first
        if not 1 <= first <= last or (most is not None and last > most):
            raise _unreadable("a range of vendors ends before it begins, or beyond the greatest vendor")
        found.append((first, last))
    return tuple(found)


def _runs(members: Iterable[int]) -> tuple[tuple[int, int], ...]:
    runs: list[tuple[int, int]] = []
    for member in members:
        if runs and runs[-1][1] == member - 1:
            runs[-1] = (runs[-1][0], member)
        else:
            runs.append((member, member))
    return tuple(runs)
