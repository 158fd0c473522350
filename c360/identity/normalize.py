"""Normalisers of identifier values: text in, canonical text out, or None where the value identifies nobody.

Rules are those of the design's IDENTITY page, "Normalisation and blocked values". A normaliser is part of an app's
logic: changing one changes subjects, so it needs a new version of govern. Those with settings show them in their repr.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from c360.errors import DeclarationError

SHORTEST, DISTINCT = 6, 3  # characters of a device or cookie id: what is shorter or plainer was made by hand
HEX_UUID = re.compile(r"[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}\Z")


def text(value: str) -> str | None:
    """Trim and compose (NFC); the case is kept. Blank text is nobody."""
    return unicodedata.normalize("NFC", value).strip() or None


def lower(value: str) -> str | None:
    """As `text`, in lower case: hashes, UUIDs."""
    return unicodedata.normalize("NFC", value).strip().lower() or None


def opaque(value: str) -> str | None:
    """As `text`, of an id that a machine made, such as a cookie: at least 6 characters, 3 of them different."""
    canonical = text(value)
    return canonical if canonical and len(canonical) >= SHORTEST and len(set(canonical)) >= DISTINCT else None


def device(value: str) -> str | None:
    """As `opaque`, in lower case; a UUID with its hyphens. The zero UUID is nobody."""
    canonical = opaque(value.lower())
    if canonical and HEX_UUID.match(canonical):
        return str(UUID(canonical))
    return canonical


def email(value: str) -> str | None:
    """Trim, NFKC, lower case, domain in IDNA. Text without exactly one `@` between two parts is no address: None."""
    local, at, domain = unicodedata.normalize("NFKC", value).strip().rpartition("@")
    if not (at and local and domain) or any(c.isspace() or c == "@" for c in local + domain):
        return None
    try:
        domain = domain.encode("idna").decode("ascii")
    except UnicodeError:
        return None
    return f"{local.lower()}@{domain.lower()}"


# --------------------------------------------------------------------------------------------- e-mail provider rules
@dataclass(frozen=True)
class Provider:
    """What mailboxes of some domains do not tell apart."""

    domains: tuple[str, ...]  # the first is written for all
    dots: bool  # a.b@ is ab@
    tag: str  # what comes after it in the local part is the reader's own


PROVIDERS: dict[int, tuple[Provider, ...]] = {
    1: (
        Provider(("gmail.com", "googlemail.com"), dots=True, tag="+"),
        Provider(("outlook.com",), dots=False, tag="+"),
        Provider(("hotmail.com",), dots=False, tag="+"),
        Provider(("icloud.com", "me.com", "mac.com"), dots=False, tag="+"),
        Provider(("fastmail.com",), dots=False, tag="+"),
        Provider(("proton.me", "protonmail.com", "pm.me"), dots=False, tag="+"),
        Provider(("yahoo.com",), dots=False, tag="-"),
    ),
}
"""By version. A version never changes: people would change with it."""


@dataclass(frozen=True)
class email_by_provider:
    """As `email`, then what the provider holds to be one mailbox is one: dots and `+tag` at those that ignore them.

    To be asked for, as a tag may be two people's way to share a mailbox; `version` of PROVIDERS.
    """

    version: int = 1

    def __post_init__(self) -> None:
        if self.version not in PROVIDERS:
            raise DeclarationError(
                f"email_by_provider(version={self.version}): there are versions {', '.join(map(str, PROVIDERS))}"
            )

    def __call__(self, value: str) -> str | None:
        canonical = email(value)
        if canonical is None:
            return None
        local, _, domain = canonical.rpartition("@")
        for provider in PROVIDERS[self.version]:
            if domain in provider.domains:
                local = local.partition(provider.tag)[0]
                local = local.replace(".", "") if provider.dots else local
                return f"{local}@{provider.domains[0]}" if local else None
        return canonical


# -------------------------------------------------------------------------------------------------------------- phone
@dataclass(frozen=True)
class phone:
    """E.164 of a valid number. `region`: of numbers without a country code, such as "DE"; without one they are nobody's."""

    region: str | None = None

    def __post_init__(self) -> None:
        if self.region is None:
            return
        import phonenumbers  # here and below: it takes a third of the time of `import c360`, and few need it

        if self.region not in phonenumbers.SUPPORTED_REGIONS:
            raise DeclarationError(
                f'phone(region={self.region!r}): a region is two capital letters of ISO 3166, such as "DE"'
            )

    def __call__(self, value: str) -> str | None:
        import phonenumbers

        try:
            number = phonenumbers.parse(unicodedata.normalize("NFKC", value), self.region)
        except phonenumbers.NumberParseException:
            return None
        if not phonenumbers.is_valid_number(number):
            return None
        return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


# ---------------------------------------------------------------------------------------------------------- composite
def folded(value: str) -> str | None:
    """As `text`, for parts of composites: NFKC, case folded, white space as one blank."""
    return " ".join(unicodedata.normalize("NFKC", value).casefold().split()) or None


def composite(parts: Sequence[str | None]) -> str | None:
    """One value of several attributes of a record, such as name, birth date and postcode; None if one is missing or blank.

    Different parts give different values: what separates them is escaped in them.
    """
    canonical = [folded(part) if part is not None else None for part in parts]
    if not canonical or any(part is None for part in canonical):
        return None
    return "|".join(part.replace("\\", r"\\").replace("|", r"\|") for part in canonical if part is not None)
