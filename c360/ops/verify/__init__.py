"""`c360 verify`: what the topics hold against what the oracle makes of the input, up to the committed positions.

An agent that commits while it is looked at is looked at again; where it keeps moving, nothing is said of that task and
the report is not complete. Nor is it where retention has cut the input, and while a reset is catching up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from c360.agents.control import Controls
from c360.clock import Clock, system
from c360.codecs.avro import Registry
from c360.engine.state import Positions
from c360.engine.transport import TP, Cluster, Headers
from c360.governance.names import Vault
from c360.governance.sealing import Destroyed
from c360.governance.suppressed import decode_suppressed
from c360.identity.namespace import shown
from c360.ops import control
from c360.ops.dlq import open_letter
from c360.ops.keys import opener_of
from c360.ops.verify.consent import ConsentCheck
from c360.ops.verify.doors import DoorCheck
from c360.ops.verify.govern import GovernCheck
from c360.ops.verify.identity import IdentityCheck
from c360.ops.verify.links import Links, LinksCheck
from c360.ops.verify.log import Archive, DeadLetters, Log
from c360.ops.verify.outside import OutsideCheck
from c360.ops.verify.projection import ProjectionCheck
from c360.ops.verify.report import Findings, Forgotten, Report, forgotten
from c360.plan import Plan, sealed_of
from c360.testing.oracle.formats import Schemas
from c360.testing.oracle.sealing import Sight

__all__ = ["Findings", "Report", "verify"]

LOOKS = 3  # times that tasks which move are looked at


def verify(
    plan: Plan,
    cluster: Cluster,
    agents: Sequence[str],
    *,
    archive: Sequence[Path] = (),
    vault: Vault | None = None,
    registry: Registry | None = None,
    clock: Clock = system,
) -> Report:
    """Recompute what these agents ("govern", "identity@1", "customer@1"; none named: all) must have written, and compare.

    `archive`: JSON lines as for `c360 load` with raw records that retention has cut. They are placed by their key, in
    order, from offset 0 on, so the topic must have been filled by plain producers; where that does not meet the log,
    they are not used. `vault`: of an app that needs keys; without it nothing is said of govern, consent and doors.
    `registry`: of schemas that raw values name. `clock`: for doors, which are compared with what is decided now. Raises
    UsageError for an unknown agent, BrokerAway where a transaction stays open.
    """
    for name in agents:
        plan.agent(name)
    sight = None if vault is None else _sight(plan, cluster, vault)
    blind = sight is None and (plan.personal_kinds or any(sealed_of(plan, source) for source in plan.sources))
    log = Log(cluster)
    schemas = None if registry is None else Schemas(registry)
    known = forgotten.set(_forgotten(plan, log, vault)) if vault is not None and plan.erases else None
    try:
        dead = DeadLetters(log, plan.dlq)
        archived = Archive(log, archive, [s.topic for s in plan.sources])
        links = {view.govern: Links(log, view.links) for view in plan.views if view.deciding}
        erased = _erased(plan, log, vault)
        controls = control.read(plan, cluster)
        found = {}
        for name in agents or [a.name for a in plan.agents if a.name not in controls.absent(plan)]:
            findings = Findings()
            outside = any(one.agent == name for one in plan.outsides)
            if blind and (name == "consent" or outside or plan.governing(name) is not None):
                findings.cannot_tell(f"nobody can tell without the master key what {name} must write: set C360_KEYS")
                found[name] = findings
                continue
            if controls.reset(name) is not None:
                findings.cannot_tell(
                    f"{name} is being reset, and no worker has begun it: what it has made is of before"
                )
                found[name] = findings
                continue
            checks = _checks(plan, name, log, dead, archived, links, sight, erased, schemas, clock)
            for changelogs, look in (*checks, *_doors(plan, name, log, controls, sight, vault, clock, schemas)):
                findings.add(steady(log, changelogs, look))
            if plan.governing(name) is not None and sight is not None and sight.lost:
                findings.notes.append(f"sealed values of {len(sight.lost)} subjects were erased, and are not compared")
            found[name] = findings
        return Report(found)
    finally:
        if known is not None:
            forgotten.reset(known)
        log.reader.close()


def _forgotten(plan: Plan, log: Log, vault: Vault) -> Forgotten:
    """Who was ever erased, by the suppressed table: of keys of records, which may be those of link facts."""
    erased = {entry.key for entry in log.read(log.partitions(plan.suppressed))}
    if not erased:
        return lambda _: False

    def is_erased(key: bytes) -> bool:
        labels = (part.replace("%7C", "|").replace("%25", "%") for part in key.decode(errors="replace").split("|"))
        return any(":" in label and vault.names.veil(shown(label)).encode() in erased for label in labels)

    return is_erased


def _sight(plan: Plan, cluster: Cluster, vault: Vault) -> Sight:
    """With the keys that there are when it begins."""
    opener = opener_of(plan, cluster, vault)

    def opened(value: Any, subject: str, field: str) -> bytes | None:
        try:
            return opener.open(value, subjects=(subject,), fields=(field,), complete=True)
        except Destroyed:
            return None

    def letter(value: Any) -> tuple[bytes | None, bytes | None, Headers]:
        found = open_letter(value, opener)
        return found.key, found.value, found.headers

    return Sight(vault.names.token, opened, letter)


Erased = Callable[[str], int]
"""How often a subject was erased."""
Look = Callable[[Mapping[TP, Positions]], Findings]


def _erased(plan: Plan, log: Log, vault: Vault | None) -> Erased | None:
    """As the suppressed table has it. None where somebody was erased, and nobody can tell who without the keys."""
    latest: dict[str, bytes | None] = {}
    for entry in log.read(log.partitions(plan.suppressed) if plan.erases else []):
        latest[(entry.key or b"").decode()] = entry.value
    lives = {veiled: decode_suppressed(value).life for veiled, value in latest.items() if value is not None}
    if not lives:
        return lambda subject: 0
    return None if vault is None else lambda subject: lives.get(vault.names.veil(subject), 0)


def _checks(
    plan: Plan,
    agent: str,
    log: Log,
    dead: DeadLetters,
    archive: Archive,
    links: Mapping[int, Links],
    sight: Sight | None,
    erased: Erased | None,
    schemas: Schemas | None,
    clock: Clock,
) -> Iterator[tuple[list[TP], Look]]:
    """What is to be looked at of an agent: changelogs of tasks that must not commit meanwhile, and the look."""
    if (view := plan.governing(agent)) is not None:
        for source in view.sources:
            check = GovernCheck(view, source, log, dead, archive, links.get(view.govern), sight, schemas)
            yield log.partitions(view.govern_changelog(source)), check.look
        if view.deciding:
            all_tasks = [tp for source in view.sources for tp in log.partitions(view.govern_changelog(source))]
            yield all_tasks, LinksCheck(view, links[view.govern]).look
        return
    if agent == "consent":
        yield log.partitions(f"{plan.consent}.changelog"), ConsentCheck(plan, log, dead, sight).look
        return
    for outside in plan.outsides:
        if outside.agent == agent:
            look = OutsideCheck(plan, outside, log, sight, clock).look
            yield log.partitions(f"{plan.answers(outside)}.changelog"), look
            return
    for identity in plan.identities:
        if identity.agent == agent:
            check_of = IdentityCheck(plan.at(identity.govern), identity, log, links[identity.govern])
            yield log.partitions(f"{plan.loop(identity)}.changelog"), check_of.look
    for projection in plan.projections:
        if projection.agent == agent:
            tasks = log.partitions(f"{plan.projected(projection)}.changelog")
            together = [tasks] if plan.identity_of(projection) is not None else [[tp] for tp in tasks]
            for some in together:
                partitions = [tp.partition for tp in some]
                yield some, ProjectionCheck(plan, projection, log, dead, partitions, erased).look


def _doors(
    plan: Plan,
    agent: str,
    log: Log,
    controls: Controls,
    sight: Sight | None,
    vault: Vault | None,
    clock: Clock,
    schemas: Schemas | None,
) -> Iterator[tuple[list[TP], Look]]:
    """The same of a door."""
    for door in plan.doors:
        if door.agent == agent:
            live = door.projection.version if door.sink is None else controls.live(plan, door.projection.name)
            opened, veil = None if sight is None else sight.open, None if vault is None else vault.names.veil
            for tp in log.partitions(f"{plan.leaves(door)}.changelog"):
                check = DoorCheck(plan, door, log, tp.partition, live, clock, opened=opened, veil=veil, schemas=schemas)
                yield [tp], check.look


def steady(log: Log, changelogs: list[TP], look: Look) -> Findings:
    """Look at tasks while none of them commits: what `look` found between two equal readings of their positions."""
    for _ in range(LOOKS):
        before = {tp: log.last_positions(tp) for tp in changelogs}
        found = look({tp: last[1] if last is not None else Positions() for tp, last in before.items()})
        after = {tp: log.last_positions(tp) for tp in changelogs}
        if [last and last[0] for last in before.values()] == [last and last[0] for last in after.values()]:
            return found
    moving = Findings(positions=found.positions, lag=found.lag)
    moving.cannot_tell(f"{changelogs[0].topic}: it commits faster than it can be looked at; stop its workers first")
    return moving
