"""Normalisers of identifier values: text in, canonical text out, or None where the value identifies nobody.

Rules are those of the design's IDENTITY page, "Normalisation and blocked values". A normaliser is part of an app's
logic: changing one changes subjects, so it needs a new version of govern.
"""

from __future__ import annotations

import unicodedata


def text(value: str) -> str | None:
    """Trim and compose (NFC); the case is kept. Blank text is nobody."""
    return unicodedata.normalize("NFC", value).strip() or None


def lower(value: str) -> str | None:
    """As `text`, in lower case: device ids, UUIDs."""
    return unicodedata.normalize("NFC", value).strip().lower() or None


def email(value: str) -> str | None:
    """Trim, NFKC, lower case, domain in IDNA. Text without exactly one `@` between two parts is no address: None."""
    local, at, domain = unicodedata.normalize("NFKC", value).strip().rpartition("@")
    if not (at and local and domain) or any(c.isspace() for c in local + domain):
        return None
    try:
        domain = domain.encode("idna").decode("ascii")
    except UnicodeError:
        return None
    return f"{local.lower()}@{domain.lower()}"
