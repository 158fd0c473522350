"""Refusals are counted: nothing is lost, nothing told twice, and no reason more often than once in a minute."""

from __future__ import annotations

import json
import random
from itertools import pairwise

from c360.governance.denials import PAUSE_MS, Denials

NOW = 1_700_000_000_000


def test_the_first_is_told_at_once_and_the_others_a_minute_later_in_one() -> None:
    denials = Denials()
    assert denials.entry("door", NOW) is None
    assert denials.due_ms() is None
    denials.count("withdrawn", NOW)
    assert (denials.due_ms() or 0) <= NOW
    first = denials.entry("door", NOW)
    assert first is not None
    assert (first.who, first.what, first.before, first.after) == (
        "door",
        "deny",
        {"since": str(NOW)},
        {"withdrawn": "1"},
    )
    for n in range(1_000):
        denials.count("withdrawn", NOW + 1 + n)
    assert denials.entry("door", NOW + 1_001) is None
    assert denials.due_ms() == NOW + PAUSE_MS
    then = denials.entry("door", NOW + PAUSE_MS)
    assert then is not None
    assert (then.before, then.after) == ({"since": str(NOW + 1)}, {"withdrawn": "1000"})


def test_reasons_have_pauses_of_their_own_and_share_an_entry_when_both_are_due() -> None:
    denials = Denials()
    denials.count("withdrawn", NOW)
    denials.entry("door", NOW)
    denials.count("withdrawn", NOW + 1)
    denials.count("suppressed", NOW + 2)
    early = denials.entry("door", NOW + 2)
    assert early is not None
    assert early.after == {"suppressed": "1"}
    denials.count("suppressed", NOW + 3)
    late = denials.entry("door", NOW + 2 + PAUSE_MS)
    assert late is not None
    assert late.after == {"suppressed": "1", "withdrawn": "1"}


def test_a_clock_that_was_set_back_silences_nobody() -> None:
    denials = Denials()
    denials.count("withdrawn", NOW)
    denials.entry("door", NOW)
    denials.count("withdrawn", NOW - 3_600_000)
    assert denials.entry("door", NOW - 3_600_000) is not None


def test_whatever_comes_is_told_once_and_rarely_through_crashes_and_commits() -> None:
    for seed in range(50):
        dice, denials, now = random.Random(seed), Denials(), NOW
        kept, counted, told = json.dumps(denials.notes()), 0, 0
        at: dict[str, list[int]] = {}
        for _ in range(300):
            now += dice.choice([0, 5, 1_000, 30_000])
            coming = [dice.choice(["withdrawn", "suppressed", "unknown"]) for _ in range(dice.randrange(50))]
            for reason in coming:
                denials.count(reason, now)
            entry = denials.entry("door", now)
            if dice.random() < 0.3:  # the transaction is aborted, perhaps elsewhere
                denials = Denials()
                denials.resume(json.loads(kept))
                continue
            kept, counted = json.dumps(denials.notes()), counted + len(coming)
            if entry is not None:
                told += sum(map(int, entry.after.values()))
                for reason in entry.after:
                    at.setdefault(reason, []).append(now)
        assert told + sum(n for n, _ in denials.notes().get("untold", {}).values()) == counted
        assert all(b - a >= PAUSE_MS for times in at.values() for a, b in pairwise(times))
        assert told > 0


def test_counting_on_leaves_the_notes_it_went_on_from_as_they_are() -> None:
    """The loop keeps them, to go back to when a transaction is aborted."""
    denials = Denials()
    denials.count("withdrawn", NOW)
    notes = denials.notes()
    before = json.dumps(notes)
    denials.resume(notes)
    denials.count("withdrawn", NOW)
    denials.entry("door", NOW)
    assert json.dumps(notes) == before


def test_a_door_that_never_refused_has_nothing_to_remember() -> None:
    assert Denials().notes() == {}


def test_a_million_refusals_are_one_small_note() -> None:
    denials = Denials()
    for n in range(1_000_000):
        denials.count("withdrawn", NOW + n)
    assert len(json.dumps(denials.notes())) < 100
