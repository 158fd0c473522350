"""What is decided of agents and versions of an app, as `{app}.control` has it: which version is live, which is being built.

One record for each name, the newest counts. People write it, by commands; workers follow it and do as it says.

    live/customer          which version doors deliver, and the one before it
    version/customer@4     what has become of a version that was built beside another
    logic/customer@4       what the version was when it first ran, in words, so that a change can be told
    reset/customer@4       how far a reset of it is (docs/operations/reset.md)
    pause/web.clicks       a source of which nothing is read, until that record is taken away
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeVar

import msgspec

from c360.declare import ProjectionDeclaration
from c360.plan import Plan

T = TypeVar("T")
Stage = Literal["new", "building", "ready", "live", "previous", "retired"]
"""new: declared and never built, while another version is live. Only the others but "building" and "retired" run by
themselves."""


# ----------------------------------------------------------------------------------------------------------- records
class Live(msgspec.Struct, frozen=True, omit_defaults=True):
    """The version of a projection that doors deliver. `previous`: the one before, to go back to."""

    version: int
    previous: int | None = None


class VersionState(msgspec.Struct, frozen=True, omit_defaults=True):
    """What has become of a version. `upto`: where the inputs ended when it was begun, by "topic/partition"."""

    state: Literal["building", "ready", "retired"]
    upto: dict[str, int] = {}


class Logic(msgspec.Struct, frozen=True):
    """What decides an agent's output, in lines that a person can read."""

    lines: list[str]


class ResetJournal(msgspec.Struct, frozen=True, omit_defaults=True):
    """A reset that is not over. Offsets by "topic/partition".

    step, of the one who is at it: `resetting` a command moves the group's offsets; `reset` it has, and the next worker begins
    the new life; `beginning` a worker does; `undoing` a command moves the offsets back. target: as it was typed. incarnation:
    of the new life, microseconds since 1970; life: of an identity, minutes since then. before, to: the group's offsets before
    and at its beginning; ends: where records ended when it was asked for. clears: topics that are emptied.
    """

    step: Literal["resetting", "reset", "beginning", "undoing"]
    target: str
    incarnation: int
    life: int
    before: dict[str, int]
    to: dict[str, int]
    ends: dict[str, int]
    clears: list[str]
    cut: dict[str, int] = {}  # inputs of which what was before is not wanted; their first offset that is


class Pause(msgspec.Struct, frozen=True, omit_defaults=True):
    """A source of which no version of govern reads anything. `since`: epoch ms; `reason`: as somebody typed it."""

    since: int
    reason: str = ""


_encode = msgspec.json.Encoder(order="deterministic").encode
_RESET, _PAUSE = b"reset/", b"pause/"


def live_key(projection: str) -> bytes:
    return f"live/{projection}".encode()


def version_key(agent: str) -> bytes:
    return f"version/{agent}".encode()


def logic_key(agent: str) -> bytes:
    return f"logic/{agent}".encode()


def reset_key(agent: str) -> bytes:
    return _RESET + agent.encode()


def pause_key(source: str) -> bytes:
    return _PAUSE + source.encode()


def encode(record: msgspec.Struct) -> bytes:
    return _encode(record)


# ------------------------------------------------------------------------------------------------------------- table
@dataclass(frozen=True)
class Controls:
    """The control topic, read: its newest values by key. Raises ValueError for a record that a later c360 may have written."""

    values: Mapping[bytes, bytes] = field(default_factory=dict)

    def live(self, plan: Plan, projection: str) -> int:
        """The version that doors deliver: where nobody has decided, the highest that is declared."""
        said = self.said_live(projection)
        return max(p.version for p in plan.versions_of(projection)) if said is None else said.version

    def said_live(self, projection: str) -> Live | None:
        """What was decided; None where nothing was."""
        return self._read(live_key(projection), Live)

    def version(self, agent: str) -> VersionState | None:
        """What has become of a version that is, or was, built beside another; None of one that was not."""
        return self._read(version_key(agent), VersionState)

    def logic(self, agent: str) -> Logic | None:
        return self._read(logic_key(agent), Logic)

    def reset(self, agent: str) -> ResetJournal | None:
        """How far a reset of an agent is; None of one that is not being reset."""
        return self._read(reset_key(agent), ResetJournal)

    @property
    def resets(self) -> dict[str, ResetJournal]:
        """By agent, of all that are being reset."""
        names = [key.removeprefix(_RESET).decode() for key in sorted(self.values) if key.startswith(_RESET)]
        return {name: journal for name in names if (journal := self.reset(name)) is not None}

    def pause(self, source: str) -> Pause | None:
        """Since when a source is paused, and why; None of one that is read."""
        return self._read(pause_key(source), Pause)

    def is_paused(self, source: str) -> bool:
        return pause_key(source) in self.values

    def stage(self, plan: Plan, projection: str, version: int) -> Stage:
        """How far a declared version is."""
        said = self.said_live(projection)
        if version == self.live(plan, projection):
            return "live"
        known = self.version(f"{projection}@{version}")
        if known is not None and known.state != "ready":
            return known.state
        if said is not None and version == said.previous:
            return "previous"
        return "new" if known is None else known.state

    def retired(self, plan: Plan) -> tuple[ProjectionDeclaration, ...]:
        """Declared versions that are no more: nobody makes their topics again, and nobody waits for them."""
        return tuple(p for p in plan.projections if self.stage(plan, p.name, p.version) == "retired")

    def absent(self, plan: Plan) -> frozenset[str]:
        """Agents of versions that were never built, or are retired: they hold nothing of anybody."""
        stages = {p: self.stage(plan, p.name, p.version) for p in plan.projections}
        return frozenset(
            a.name for p, stage in stages.items() if stage in ("new", "retired") for a in plan.agents_of(p)
        )

    def gone(self, plan: Plan) -> frozenset[str]:
        """The topics of those."""
        return frozenset(topic for p in self.retired(plan) for topic in plan.topics_of(p))

    def runs(self, plan: Plan, agent: str, only: Collection[str] = ()) -> bool:
        """Whether a worker runs an agent: those of versions that are not built yet only if it was told to by name.

        A view is of its version. A half-built version would show in it, so its agents wait as well.
        """
        if only and agent not in only:
            return False
        stage = self.stage_of(plan, agent)
        return stage != "retired" and (stage not in ("new", "building") or agent in only)

    def stage_of(self, plan: Plan, agent: str) -> Stage | None:
        """That of the version whose agent, or whose view, this is; None of an agent that belongs to none."""
        of = next((p for p in plan.projections if agent == p.agent or agent.startswith(f"{p.agent}:")), None)
        return None if of is None else self.stage(plan, of.name, of.version)

    def _read(self, key: bytes, kind: type[T]) -> T | None:
        value = self.values.get(key)
        return None if value is None else msgspec.json.decode(value, type=kind)


# ------------------------------------------------------------------------------------------------------------- drift
def drift(before: Logic, after: Collection[str], *, may_grow: bool) -> list[str]:
    """The lines that say what has changed, "- " what was and "+ " what is; none where nothing has.

    `may_grow`: lines that are only added or taken away change nothing that is there: a line is `name: …`, and only one whose
    name is in both and that says something else counts.
    """
    was, now = before.lines, list(after)
    if may_grow:
        names = {line.partition(":")[0] for line in was} & {line.partition(":")[0] for line in now}
        was = [line for line in was if line.partition(":")[0] in names]
        now = [line for line in now if line.partition(":")[0] in names]
    changes = difflib.ndiff(was, now)
    return [line.rstrip() for line in changes if line.startswith(("- ", "+ "))]
