"""Schemas of what leaves, in their registry: whether they are there as they must be, and how they come there.

A subject asks BACKWARD_TRANSITIVE or more: whoever reads with the newest schema reads all that is in the topic.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Protocol

from c360.agents.contracts import Contract, Wire, contract_of
from c360.errors import NeedsOperator
from c360.ops.audit import Run, Told
from c360.plan import Plan

LEVEL = "BACKWARD_TRANSITIVE"
ENOUGH = (LEVEL, "FULL_TRANSITIVE")
APPLY = "run c360 topics apply, or set C360_WIRE=json"


class Subjects(Protocol):
    """A registry as whoever writes sees it. All raise RegistryAway, and UsageError where it refuses."""

    def find(self, subject: str, text: str) -> int | None:
        """The id of a schema that is registered under a subject."""
        ...

    def level(self, subject: str) -> str | None:
        """The compatibility that is asked of a subject; None where there is none, or it is left to the registry."""
        ...

    def put(self, subject: str, text: str, level: str) -> int:
        """The id of a schema that is registered under a subject, which asks this compatibility from now on."""
        ...


@dataclass(frozen=True)
class SchemaFinding:
    """One subject that is not as it must be."""

    subject: str
    problem: str  # "schema", "compatibility"
    message: str


@dataclass(frozen=True)
class Registered:
    """One subject that was set right. `level`: what was asked of it before."""

    subject: str
    number: int
    level: str | None


def contracts(plan: Plan, doors: Collection[str] | None = None) -> list[Contract]:
    """Of these doors, by the names of their agents; None: of all that write Avro."""
    wanted = [door for door in plan.doors if doors is None or door.agent in doors]
    return [made for door in wanted if (made := contract_of(plan, door)) is not None]


def untyped(plan: Plan) -> list[str]:
    """Sinks that stay JSON, for people."""
    return [
        f"{door.agent} stays JSON: its function says no type with fields; annotate what it gives, as"
        " `-> Row | None` with a Record, TypedDict or dataclass"
        for door in plan.doors
        if contract_of(plan, door) is None
    ]


def check(plan: Plan, registry: Subjects) -> list[SchemaFinding]:
    """What is missing, or weaker than it must be."""
    return [finding for contract in contracts(plan) for finding in _wrong(contract, registry)]


def _wrong(contract: Contract, registry: Subjects) -> Iterator[SchemaFinding]:
    subject = contract.subject
    if registry.find(subject, contract.text) is None:
        yield SchemaFinding(subject, "schema", f"{subject} has not the schema that {contract.door} writes: {APPLY}")
        return
    level = registry.level(subject)
    if level not in ENOUGH:
        said = "left to the registry" if level is None else level
        yield SchemaFinding(
            subject, "compatibility", f"{subject}: compatibility is {said}, it must be {LEVEL}: {APPLY}"
        )


def apply(plan: Plan, registry: Subjects) -> list[Registered]:
    """Register what is missing, and ask what must be; gives what was changed. Raises UsageError for a schema that is not
    compatible with those that are there."""
    changed = []
    for contract in contracts(plan):
        if not any(_wrong(contract, registry)):
            continue
        before = registry.level(contract.subject)
        changed.append(Registered(contract.subject, registry.put(contract.subject, contract.text, LEVEL), before))
    return changed


def apply_told(plan: Plan, registry: Subjects, run: Callable[[], Run]) -> list[Registered]:
    """As `apply`, by a person: told in the audit log. `run`: begins the telling."""
    wrong = dict.fromkeys(finding.subject for finding in check(plan, registry))
    if not wrong:
        return []
    with run() as running, running.acting(Told("topics apply", after={"subjects": ", ".join(wrong)})):
        return apply(plan, registry)


def wires(plan: Plan, registry: Subjects | None, doors: Collection[str] | None = None) -> dict[str, Wire]:
    """How doors write, by the names of their agents; none of those that write JSON. `registry` None: all do.

    Raises NeedsOperator where a schema is not registered, or its subject asks too little.
    """
    if registry is None:
        return {}
    found = {}
    for contract in contracts(plan, doors):
        for finding in _wrong(contract, registry):
            raise NeedsOperator(finding.message)
        number = registry.find(contract.subject, contract.text)
        assert number is not None, "it was there"
        found[contract.door] = Wire(contract, number)
    return found
