"""Two rule sets over the same facts: who would be one customer by the other, and who no longer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from c360.identity.rules import Key
from c360.ops.identity.graph import Facts, Graph, said
from c360.plan import Identity


def compare(base: Identity, other: Identity, facts: Facts, *, limit: int) -> dict[str, Any]:
    """From `base` to `other`. A subject is changed when those it shares a profile with are others."""
    one, two = Graph(facts, base.rules), Graph(facts, other.rules)
    subjects = {*one.standings, *two.standings}
    merges, splits = _several(two, one), _several(one, two)
    changed = sum(_together(one, s) != _together(two, s) for s in subjects)
    return {
        "base": said(base),
        "rules": said(other),
        "subjects": len(subjects),
        "changed": changed,
        "changed_percent": round(100 * changed / len(subjects), 4) if subjects else 0.0,
        "profiles": {"base": len(one.profiles), "rules": len(two.profiles)},
        "merged": len(merges),
        "split": len(splits),
        "merges": [{"profile": p, "of": of[:limit]} for p, of in _first(merges, limit)],
        "splits": [{"profile": p, "into": into[:limit]} for p, into in _first(splits, limit)],
    }


def _together(graph: Graph, subject: Key) -> list[Key]:
    standing = graph.standings.get(subject)
    return [subject] if standing is None else graph.profiles[standing.profile]


def _several(here: Graph, there: Graph) -> Mapping[Key, list[Key]]:
    """Profiles of one whose subjects are in several profiles of the other, with these."""
    found = {}
    for profile, subjects in here.profiles.items():
        others = {there.profile_of.get(s, s) for s in subjects}
        if len(others) > 1:
            found[profile] = sorted(others)
    return found


def _first(found: Mapping[Key, list[Key]], limit: int) -> Iterable[tuple[Key, list[Key]]]:
    """The largest."""
    return sorted(found.items(), key=lambda item: (-len(item[1]), item[0]))[:limit]
