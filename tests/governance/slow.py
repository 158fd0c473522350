"""Consent by brute force: keeps every decision ever given and reads the rules off anew for each question.

Written from GOVERNANCE.md, "Consent"; shares with the code under test only the words for a decision.
"""

from __future__ import annotations

from collections.abc import Iterable

from c360.governance.consent import Decision


def word_of(given: Iterable[Decision], identifier: str, purpose: str, now: int) -> str:
    """What one identifier says on a purpose: yes, no or nothing."""
    about = [d for d in given if d.identifier == identifier and d.purpose == purpose]
    if not about:
        return "nothing"
    last = max(d.at for d in about)
    then = [d for d in about if d.at == last]
    refusals = [d for d in then if d.status != "granted"]
    if refusals:  # a tie denies
        for_ever = any(d.expires_at is None for d in refusals)
        return "no" if for_ever or any(now < (d.expires_at or 0) for d in refusals) else "nothing"
    # All of them grant: none of them may have ended.
    return "yes" if all(d.expires_at is None or now < d.expires_at for d in then) else "nothing"


def allowed(given: list[Decision], identifiers: Iterable[str], purpose: str, now: int) -> bool:
    words = [word_of(given, identifier, purpose, now) for identifier in identifiers]
    return "no" not in words and "yes" in words


def changes_at(given: list[Decision], identifiers: list[str], purpose: str, now: int) -> int | None:
    """The first later instant at which the answer is another, by looking at all at which anything ends."""
    today = allowed(given, identifiers, purpose, now)
    for then in sorted({d.expires_at for d in given if d.expires_at is not None and d.expires_at > now}):
        if allowed(given, identifiers, purpose, then) != today:
            return then
    return None
