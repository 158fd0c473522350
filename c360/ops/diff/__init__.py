"""Two versions of a projection compared, profile by profile, while both run and records come.

The records of a profile do not say what was read for them, and no two agents are at the same place at the same time. So a
profile is compared when it can be told that both versions have made their record of it out of the same inputs:

1. wait until both have read all inputs there are when the command starts, and have written what follows from it. A
   version that is far behind would make every later step long;
2. copy both topics whole into one local store, in the order of profile ids;
3. follow both topics to their ends: what came during the copy. Then the steps below take as long as a second's traffic;
4. *low*: read the positions that both agents have committed with their state, and take the lesser of the two for each input.
   Both have read everything before it. They must have nothing to write without any input (a sweep after a reset,
   windows that ended with a day), or it is waited for;
5. *drain*: what homes have said to owners (`parts`) because of that is on its way yet. Wait until what there is of it is read,
   and the answers to it, and the answers to these;
6. follow both topics to their ends again. Now each record that was copied is of all inputs before *low*, and perhaps of some
   after it;
7. *high*: read the positions again, and take the greater. No record that was copied is of anything from there on;
8. read the inputs from low to high: the subjects and profiles that they tell of are *touched*. A day that began touches all;
9. judge. A profile that nobody touched was made by both out of the same inputs: what differs is the versions' doing. A profile
   that is equal is equal. One that differs and is touched stays open, as it may be lag alone;
10. again from 3 for those that are open, at most `ROUNDS` times. What is open then is reported as moving.

That a profile has not been written for a while would not do instead of 7 and 8: a value may go up and down again between two
commits of one version, which then writes nothing, and the other may stand in the middle.

Where the two rest on agents of their own, such as different rule sets, steps 1, 4 and 5 are done for these first, then for the
projections on what these have said; and all that they say from the beginning of the round on touches: what they have made
of an input that not both have read is among that.

What this cannot tell: an erasure that has begun is known to processes at slightly different times before it is an
input. For a second, a record that comes just then may count in one version only.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, get_type_hints

from c360.declare import ProjectionDeclaration, value_type
from c360.engine.state import named
from c360.engine.transport import TP, Admin, Cluster
from c360.errors import NeedsOperator, UsageError
from c360.ops import control
from c360.ops.diff.compare import Tally, Terms, judge, share
from c360.ops.diff.cut import Cuts, stages_of
from c360.ops.diff.tables import Sample, Tables
from c360.plan import Plan, classes_of
from c360.profile.attribute import ValueType
from c360.tables.store import Stores

ROUNDS = 8
PAUSE_S = 0.5  # between two rounds

Progress = Callable[[str, int, int | None], None]
"""Told what is being done, how much of it is done, and of how much, where that is known."""


@dataclass(frozen=True)
class Report:
    """What was found. `cut`: by "topic/partition", the offset up to which both had read when most profiles were compared."""

    first: str
    second: str
    tally: Tally
    cut: Mapping[str, int]
    rounds: int
    sampled: int | None

    @property
    def share(self) -> float:
        """The part of the profiles that were compared which differ."""
        return share(self.tally)

    def to_json(self) -> dict[str, Any]:
        tally = self.tally
        return {
            "first": self.first,
            "second": self.second,
            "equal": tally.equal,
            "changed": tally.changed,
            "only_in_first": tally.only_in_first,
            "only_in_second": tally.only_in_second,
            "moving": tally.moving,
            "share": self.share,
            "attributes": {name: counts.to_json() for name, counts in tally.attributes.items()},
            "examples": [example.to_json() for example in tally.chosen()],
            "cut": {"rounds": self.rounds, "positions": dict(self.cut)},
            "sampled": self.sampled,
        }


def silent(what: str, done: int, total: int | None) -> None:
    """Tells nobody."""


def diff(
    plan: Plan,
    cluster: Cluster,
    first: str,
    second: str,
    stores: Stores,
    *,
    sample: int | None = None,
    examples: int = 10,
    rounds: int = ROUNDS,
    pause: Callable[[float], None] = time.sleep,
    progress: Progress = silent,
) -> Report:
    """Compare two agents ("customer@1", "customer@2"), the steps above. `stores`: where the copy is put; it is destroyed.

    Raises UsageError for what is no projection of the app, NeedsOperator where one of the two is not there to be compared.
    """
    a, b = (projection_of(plan, name) for name in (first, second))
    admin, reader = cluster.admin(), cluster.reader()
    try:
        partitions = admin.topics()
        check(plan, cluster, admin, a, b)
        topics = [plan.projected(a), plan.projected(b)]
        stages = stages_of(plan, plan.agent(first), plan.agent(second))
        cuts = Cuts(
            plan,
            reader,
            partitions,
            stages,
            pause=pause,
            waiting=lambda name, n: progress(f"{name} has still to read", n, None),
        )
        for name in (first, second):
            if not cuts.stand(plan.agent(name)).began:
                raise never_built(plan, cluster, name)
        cuts.catch_up()
        store = stores.open("diff")
        try:
            tables = Tables(store, reader, topics, partitions[topics[0]], None if sample is None else Sample(sample))
            tables.follow(lambda done, total: progress("reading profiles", done, total))
            tally = Tally(terms_of(plan, a, b), examples)
            cut, took = _rounds(cuts, tables, tally, rounds, pause, progress)
        finally:
            store.destroy()
    finally:
        reader.close()
        admin.close()
    return Report(first, second, tally, named(dict(sorted(cut.items()))), took, sample)


def _rounds(
    cuts: Cuts,
    tables: Tables,
    tally: Tally,
    rounds: int,
    pause: Callable[[float], None],
    progress: Progress,
) -> tuple[Mapping[TP, int], int]:
    """Steps 3 to 10. The first cut at which profiles were judged, and how many rounds there were."""
    cut: Mapping[TP, int] = {}
    left: list[bytes] | None = None  # None: nobody was judged yet
    for turn in range(1, rounds + 1):
        tables.follow()
        low = cuts.low()
        tables.follow()
        touched = cuts.touched(low, cuts.high())
        if not touched.all_ or turn == rounds:
            cut = cut or low
            left = judge(tables.pairs(left, lambda n: progress("comparing", n, None)), touched, tally)
        if left == []:
            return cut, turn
        progress("profiles still moving", len(left or ()), None)
        if turn < rounds:
            pause(PAUSE_S)
    for key in left or ():
        tally.add_moving(key.decode())
    return cut, rounds


# ------------------------------------------------------------------------------------------------- what can be compared
def projection_of(plan: Plan, name: str) -> ProjectionDeclaration:
    """The projection of an agent's name. Raises UsageError."""
    found = next((p for p in plan.projections if p.agent == name), None)
    if found is not None:
        return found
    known = ", ".join(p.agent for p in plan.projections) or "none"
    said = f"{name} is no projection" if any(agent.name == name for agent in plan.agents) else f"there is no {name!r}"
    raise UsageError(f"{said}; {plan.app!r} has the projections {known}")


def check(
    plan: Plan, cluster: Cluster, admin: Admin, first: ProjectionDeclaration, second: ProjectionDeclaration
) -> None:
    """Raises UsageError, NeedsOperator where two projections cannot be compared now."""
    if first is second:
        raise UsageError(f"{first.agent} is compared with itself; name another version")
    controls, existing = control.read(plan, cluster), admin.topics()
    for one in (first, second):
        stage = controls.stage(plan, one.name, one.version)
        if stage == "retired":
            raise NeedsOperator(f"{one.agent} is retired: its profiles are gone. c360 versions lists the others")
        if stage == "building":
            raise NeedsOperator(f"{one.agent} is not built to its end: c360 rebuild {one.agent}; then compare")
        topics = (plan.projected(one), *plan.agent(one.agent).changelogs)
        if missing := [topic for topic in topics if topic not in existing]:
            raise NeedsOperator(f"{missing[0]} is not there. {how_to_build(plan, cluster, one.agent)}")
    a, b = (existing[plan.projected(one)] for one in (first, second))
    if a != b:
        raise NeedsOperator(
            f"{plan.projected(first)} has {a} partitions and {plan.projected(second)} has {b}: tasks are divided otherwise."
            f" Build the one again that has not {plan.partitions}"
        )


def never_built(plan: Plan, cluster: Cluster, agent: str) -> NeedsOperator:
    return NeedsOperator(f"{agent} has never read anything. {how_to_build(plan, cluster, agent)}")


def how_to_build(plan: Plan, cluster: Cluster, agent: str) -> str:
    one = projection_of(plan, agent)
    if control.read(plan, cluster).stage(plan, one.name, one.version) == "new":
        return f"Build it: c360 rebuild {agent}; then compare"
    return "Start a worker; then compare"


# ---------------------------------------------------------------------------------------------------- what is in common
def terms_of(plan: Plan, first: ProjectionDeclaration, second: ProjectionDeclaration) -> Terms:
    """What two declarations have in common."""
    types = [types_of(projection) for projection in (first, second)]
    shared = tuple(name for name in types[0] if name in types[1])
    return Terms(
        shared=shared,
        numbers=frozenset(name for name in shared if all(t[name] == "decimal" for t in types)),
        classified=frozenset(classes_of(plan, first)) | frozenset(classes_of(plan, second)),
        as_of=[s.name for s in plan.sources_of(first)] == [s.name for s in plan.sources_of(second)],
        purposes=tuple(p for p in first.purposes if p in second.purposes),
        heads=(_head(first), _head(second)),
    )


def types_of(projection: ProjectionDeclaration) -> dict[str, ValueType]:
    """The types of an app's values by name, attributes first, then what is derived."""
    types: dict[str, ValueType] = {a.name: "decimal" if a.kind == "average" else a.type for a in projection.attributes}
    for name in projection.derived:
        try:
            types[name] = value_type(get_type_hints(vars(projection.record)[name].fget).get("return"))
        except NameError:  # an annotation of names that are known to the type checker only
            types[name] = "json"
    return types


def _head(projection: ProjectionDeclaration) -> bytes:
    """What stands before the part of a record in which two versions can be alike: these names need no escapes."""
    return f'"projection":"{projection.name}","version":{projection.version},'.encode()


__all__ = ["Progress", "Report", "diff", "silent"]
