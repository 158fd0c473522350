"""What is decided of an identifier and of the profile that has it; and decisions that an operator says."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from c360.agents.wire import ConsentCommand
from c360.engine.partition import partition_of
from c360.engine.transport import TP, Cluster
from c360.errors import UsageError
from c360.governance.consent import REASONS, STATUSES, State, Word, decode_state, verdict
from c360.governance.names import Names
from c360.ops import control, profiles
from c360.ops.audit import Told
from c360.ops.records import Message, records
from c360.plan import Plan

NONE = "none"  # in place of a status or an end where there is none


def read_states(plan: Plan, cluster: Cluster, labels: Collection[str]) -> dict[str, State]:
    """What is known of identifiers now, those of which nothing is left out. Reads the partitions they lie in once."""
    wanted = {label.encode(): label for label in labels}
    if plan.consent not in cluster.admin().topics():
        return {}
    partitions = {TP(plan.consent, partition_of(key, plan.partitions)) for key in wanted}
    found: dict[str, State] = {}
    reader = cluster.reader()
    try:
        for _, _, key, value in records(reader, reader.starts(sorted(partitions))):
            if (label := wanted.get(key or b"")) is not None:
                found[label] = decode_state(value)
    finally:
        reader.close()
    return {label: state for label, state in found.items() if state}


def _check_asks(plan: Plan) -> None:
    if not plan.asks:
        raise UsageError(f"nobody is asked in {plan.app!r}: no app.purpose rests on consent")


# ------------------------------------------------------------------------------------------------------------- looking
def show(
    plan: Plan, cluster: Cluster, typed: str, *, projection: str | None, now_ms: int, names: Names = profiles.NO_NAMES
) -> dict[str, Any]:
    """The keys of `c360 consent show --json` (docs/reference/cli.md). Raises UsageError."""
    _check_asks(plan)
    label = profiles.normalized(plan, typed, names)
    record = chosen = None
    if plan.projections:
        chosen = profiles.chosen_projection(plan, projection, control.live_in(plan, cluster))
        record = profiles.find_profile(plan, cluster, chosen, label, names)
    of_profile = [] if record is None else sorted({*record["identifiers"], *record["subjects"]})
    states = read_states(plan, cluster, {label, *of_profile})
    profile = None
    if record is not None and chosen is not None:
        profile = {
            "projection": chosen.agent,
            "profile_id": record["profile_id"],
            "identifiers": of_profile,
            "whole": _is_whole(record),
            "verdicts": _verdicts(plan, {i: states[i] for i in of_profile if i in states}, now_ms),
        }
    return {"identifier": label, "decided": _decided(states.get(label, {}), now_ms), "profile": profile}


def _is_whole(record: Mapping[str, Any]) -> bool:
    """Whether the record names all of whom it is about; doors deliver nothing where it does not."""
    return all(len(record[name]) >= int(record.get(f"{name}_total", 0)) for name in ("subjects", "identifiers"))


def _decided(state: State, now_ms: int) -> list[dict[str, Any]]:
    return [
        {
            "purpose": purpose,
            "at": known.at,
            **_word(known.holds),
            "expired": known.holds.end <= now_ms,
            "conflict": known.conflict,
            "said": [_word(word) for word in (known.grant, known.refusal) if word is not None],
        }
        for purpose, known in sorted(state.items())
    ]


def _word(word: Word) -> dict[str, Any]:
    return {"status": word.status, "source": word.source, "expires_at": word.expires_at}


def _verdicts(plan: Plan, states: Mapping[str, State], now_ms: int) -> list[dict[str, Any]]:
    found = []
    for name in plan.purposes.names:
        said = verdict(plan.purposes.by_name[name], states, now_ms)
        found.append(
            {
                "purpose": name,
                "allowed": said.allowed,
                "reason": said.reason,
                "means": REASONS[said.reason],
                "by": list(said.by),
                "changes_at": said.changes_at,
            }
        )
    return found


# -------------------------------------------------------------------------------------------------------------- saying
@dataclass(frozen=True)
class Setting:
    """A decision to be said, and what holds before it."""

    command: ConsentCommand
    before: str | None


def plan_setting(
    plan: Plan,
    cluster: Cluster,
    typed: str,
    purpose: str,
    status: str,
    *,
    expires_at: int | None,
    now_ms: int,
    names: Names = profiles.NO_NAMES,
) -> Setting:
    """What would be written. It counts as of now, or right after what is known already, whatever clock that came by.

    Raises UsageError for a purpose that is not declared or does not ask, and for an end that is over.
    """
    _check_asks(plan)
    label = profiles.normalized(plan, typed, names)
    _check_asking(plan, purpose)
    if status not in STATUSES:
        raise UsageError(f"{status!r} is no decision; say one of {', '.join(STATUSES)}")
    if expires_at is not None and expires_at <= now_ms:
        raise UsageError("--expires-at is over already: the decision would never count")
    known = read_states(plan, cluster, [label]).get(label, {}).get(purpose)
    at = now_ms if known is None else max(now_ms, known.at + 1)
    command = ConsentCommand(identifier=label, purpose=purpose, status=status, at=at, expires_at=expires_at)
    return Setting(command, None if known is None else known.holds.status)


def _check_asking(plan: Plan, name: str) -> None:
    asking = [p for p in plan.purposes.by_name.values() if p.asks]
    if any(purpose.name == name for purpose in asking):
        return
    known = ", ".join(sorted(p.name for p in asking))
    if name in plan.purposes:
        basis = plan.purposes.by_name[name].basis
        raise UsageError(f"{name} rests on {basis}, so nobody is asked; purposes that ask are {known}")
    raise UsageError(f"there is no purpose {name!r} in {plan.app!r}; those that ask are {known}")


def told(setting: Setting) -> Told:
    """What the audit log says of it."""
    said = setting.command
    end = {} if said.expires_at is None else {"expires_at": str(said.expires_at)}
    return Told(
        "consent set",
        about=(said.identifier,),
        before={"status": setting.before or NONE},
        after={"purpose": said.purpose, "status": said.status, **end},
    )


def message(plan: Plan, setting: Setting) -> Message:
    """The record for the consent agent. May be repeated."""
    return Message(plan.consent_commands, setting.command.identifier.encode(), msgspec.json.encode(setting.command), 0)


def setting_json(setting: Setting, *, executed: bool) -> dict[str, Any]:
    """What `c360 consent set --json` prints."""
    said = setting.command
    return {
        "identifier": said.identifier,
        "purpose": said.purpose,
        "before": setting.before,
        "status": said.status,
        "at": said.at,
        "expires_at": said.expires_at,
        "executed": executed,
    }
