"""What a verification found: of one task, of an agent, of all."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from c360.engine.state import named
from c360.engine.transport import TP

EXAMPLES = 20
Forgotten = Callable[[bytes], bool]
"""Whether a record's key names somebody who was erased: of them nothing is compared."""
forgotten: ContextVar[Forgotten] = ContextVar("forgotten", default=lambda _: False)


@dataclass
class Findings:
    """What was found of one task, or of several."""

    complete: bool = True
    positions: dict[TP, int] = field(default_factory=dict)
    lag: int = 0
    differences: int = 0
    examples: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def differ(self, kind: str, tp: TP, offset: int | None, key: bytes | None, *, origin: str | None = None) -> None:
        """One difference. Keys are personal: only a hash of them is shown."""
        if key is not None and forgotten.get()(key):
            return
        self.differences += 1
        if len(self.examples) < EXAMPLES:
            hashed = None if key is None else f"sha256:{hashlib.sha256(key).hexdigest()[:12]}"
            at = {"topic": tp.topic, "partition": tp.partition, "offset": offset}
            self.examples.append({"kind": kind, **at, "key": hashed, "origin": origin})

    def cannot_tell(self, why: str) -> None:
        self.complete = False
        if why not in self.notes:
            self.notes.append(why)

    def add(self, other: Findings) -> None:
        self.complete = self.complete and other.complete
        self.positions |= other.positions
        self.lag += other.lag
        self.differences += other.differences
        self.examples = (self.examples + other.examples)[:EXAMPLES]
        self.notes += [n for n in other.notes if n not in self.notes]

    def to_json(self) -> dict[str, Any]:
        return {
            "complete": self.complete,
            "positions": named(dict(sorted(self.positions.items()))),
            "lag": self.lag,
            "differences": self.differences,
            "examples": self.examples,
            "notes": self.notes,
        }


@dataclass
class Report:
    """The outcome: of all agents together, and of each."""

    agents: dict[str, Findings]

    @property
    def whole(self) -> Findings:
        whole = Findings()
        for findings in self.agents.values():
            whole.add(findings)
        return whole

    @property
    def complete(self) -> bool:
        return self.whole.complete

    @property
    def positions(self) -> dict[str, int]:
        return named(dict(sorted(self.whole.positions.items())))

    @property
    def lag(self) -> int:
        return self.whole.lag

    @property
    def differences(self) -> int:
        return self.whole.differences

    @property
    def examples(self) -> list[dict[str, Any]]:
        return self.whole.examples

    def to_json(self) -> dict[str, Any]:
        return self.whole.to_json() | {"agents": {name: f.to_json() for name, f in self.agents.items()}}

    def to_text(self) -> str:
        lines = []
        for name, found in self.agents.items():
            state = "equal" if not found.differences else f"{found.differences} differences"
            whole = "" if found.complete else ", not complete"
            lines.append(f"{name}: {state}{whole}; {found.lag} records not yet read")
            lines += [f"  {note}" for note in found.notes]
            for e in found.examples:
                at = f"{e['topic']}/{e['partition']}" + ("" if e["offset"] is None else f"@{e['offset']}")
                of = "" if e["origin"] is None else f" of {e['origin']}"
                lines.append(f"  {e['kind']}: {at}{of} {e['key'] or ''}".rstrip())
        return "\n".join(lines)
