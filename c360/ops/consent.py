"""What people decided, as operators look at it and say it: a decision that came by letter or telephone.

What is said goes to the consent agent like any other decision, and joins what is known by the same rules: the newest holds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from c360.agents.wire import ConsentCommand, encode
from c360.engine.partition import partition_of
from c360.engine.transport import TP, Cluster
from c360.errors import UsageError
from c360.governance.consent import State, Status, decode_state, verdict
from c360.governance.purposes import Purpose
from c360.ops.audit import Told
from c360.ops.records import Message, records
from c360.plan import Plan


def asking(plan: Plan) -> Mapping[str, Purpose]:
    """The purposes that rest on consent. Raises UsageError where none does."""
    found = {name: purpose for name, purpose in sorted(plan.purposes.by_name.items()) if purpose.asks}
    if not found:
        raise UsageError(f"no purpose of {plan.app!r} rests on consent; declare one with app.purpose(…)")
    return found


def read(plan: Plan, cluster: Cluster, label: str) -> State:
    """What the consent agent knows of an identifier; {} where nothing is. Reads one partition of its topic once."""
    count = cluster.admin().topics().get(plan.consent)
    if count is None:
        return {}
    reader, value, key = cluster.reader(), None, label.encode()
    try:
        for found in records(reader, reader.starts([TP(plan.consent, partition_of(key, count))])):
            if found.key == key:
                value = found.value
    finally:
        reader.close()
    return decode_state(value)


def shown(plan: Plan, label: str, state: State, now_ms: int) -> dict[str, Any]:
    """Of each purpose that rests on consent: what this identifier alone says to it, and why. As printed JSON."""
    return {"identifier": label, "purposes": [_shown(p, label, state, now_ms) for p in asking(plan).values()]}


def _shown(purpose: Purpose, label: str, state: State, now_ms: int) -> dict[str, Any]:
    known, found = state.get(purpose.name), verdict(purpose, {label: state}, now_ms)
    word = None if known is None else known.holds
    return {
        "purpose": purpose.name,
        "allowed": found.allowed,
        "reason": found.reason,
        "status": None if word is None else word.status,
        "at": None if known is None else known.at,
        "expires_at": None if word is None else word.expires_at,
        "sources": [] if known is None else sorted({w.source for w in (known.grant, known.refusal) if w is not None}),
    }


@dataclass(frozen=True)
class Saying:
    """A decision to be said: the record, what the audit log is told, and what people should know."""

    command: ConsentCommand
    message: Message
    told: Told
    notes: tuple[str, ...]


def plan_saying(
    plan: Plan,
    label: str,
    state: State,
    purpose: str,
    status: Status,
    *,
    now_ms: int,
    expires_ms: int | None = None,
    veil: Callable[[str], str] = str,
) -> Saying:
    """What is written to say that somebody has decided now. `veil`: how a label may stand in the audit log.

    Raises UsageError for a purpose that does not ask.
    """
    known = asking(plan)
    if purpose not in known:
        raise UsageError(
            f"{purpose!r} is no purpose of {plan.app!r} that rests on consent; those are {', '.join(sorted(known))}"
        )
    if expires_ms is not None and expires_ms <= now_ms:
        raise UsageError("it would have ended already: say an end that is to come, or none")
    command = ConsentCommand(identifier=label, purpose=purpose, status=status, at=now_ms, expires_at=expires_ms)
    message = Message(plan.consent_commands, label.encode(), encode(command), 0)
    before = _shown(known[purpose], label, state, now_ms)
    after = {"purpose": purpose, "status": status, "at": str(now_ms)}
    if expires_ms is not None:
        after["expires_at"] = str(expires_ms)
    told = Told(
        "consent set",
        about=(veil(label),),
        before={"status": before["status"] or "unknown", "at": str(before["at"] or "")},
        after=after,
    )
    notes = []
    if (last := state.get(purpose)) is not None and last.at >= now_ms:
        notes.append(
            f"what is known is of {last.at - now_ms} ms later than this machine's clock, so this does not change it: the newest"
            " holds, and of one instant the refusal. Say it again then"
        )
    return Saying(command, message, told, tuple(notes))
