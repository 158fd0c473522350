"""`c360 consent …`: what people decided, and decisions said at the command line."""

from __future__ import annotations

import sys
from datetime import datetime
from typing import Any

import click

from c360.cli.audit import reason_option, run_of, who_option, why_of
from c360.cli.common import (
    Context,
    Group,
    broker_option,
    handled,
    json_option,
    pass_context,
    print_json,
    stderr,
    time_text,
)
from c360.clock import system
from c360.errors import UsageError
from c360.governance.consent import STATUSES
from c360.ops import consent as asking


@click.group(cls=Group)
def consent() -> None:
    """What people decided, and what their profiles may be used for."""


@consent.command()
@click.argument("identifier", metavar="NAMESPACE:VALUE")
@click.option("--projection", help="Whose profile, or of which version: customer@2. Default: of the live one.")
@json_option
@broker_option
@pass_context
@handled
def show(context: Context, identifier: str, projection: str | None, as_json: bool, broker: str | None) -> None:
    """What is decided on an identifier, and the verdict on the profile that has it. Exit 1 if neither is known."""
    plan, cluster = context.plan, context.cluster(broker)
    if not as_json:
        stderr.print(f"reading {plan.consent} once", style="dim")
    names = context.names(cluster, identifier)
    found = asking.show(plan, cluster, identifier, projection=projection, now_ms=system(), names=names)
    if as_json:
        print_json(found)
    else:
        click.echo("\n".join(_shown(found)))
    sys.exit(0 if found["decided"] or found["profile"] else 1)


def _shown(found: dict[str, Any]) -> list[str]:
    lines = [f"{found['identifier']}:" + ("" if found["decided"] else " nothing is decided on it")]
    for one in found["decided"]:
        words = [f"  {one['purpose']}: {one['status']} at {time_text(one['at'])} by {one['source']}"]
        if one["expires_at"] is not None:
            words.append(f"{'expired' if one['expired'] else 'until'} {time_text(one['expires_at'])}")
        if one["conflict"]:
            words.append("CONFLICT: " + " and ".join(f"{s['status']} by {s['source']}" for s in one["said"]))
        lines.append(", ".join(words))
    profile = found["profile"]
    if profile is None:
        return [*lines, "no profile has it"]
    lines.append(f"profile {profile['profile_id']} of {profile['projection']}:")
    for said in profile["verdicts"]:
        until = "" if said["changes_at"] is None else f", until {time_text(said['changes_at'])}"
        by = f" ({', '.join(said['by'])})" if said["by"] else ""
        lines.append(f"  {said['purpose']}: {'yes' if said['allowed'] else 'NO'}, {said['means']}{by}{until}")
    if not profile["whole"]:
        lines.append("  it has more identifiers than its record names, so no door delivers it")
    return lines


@consent.command("set")
@click.argument("identifier", metavar="NAMESPACE:VALUE")
@click.argument("purpose")
@click.argument("status", type=click.Choice(STATUSES))
@click.option("--expires-at", metavar="TIME", help="From when on it counts as never given: ISO 8601 with a zone.")
@click.option("--execute", is_flag=True, help="Do it. Without this, only show what would be written.")
@reason_option
@who_option
@json_option
@broker_option
@pass_context
@handled
def set_consent(
    context: Context,
    identifier: str,
    purpose: str,
    status: str,
    expires_at: str | None,
    execute: bool,
    reason: str | None,
    who: str | None,
    as_json: bool,
    broker: str | None,
) -> None:
    """Say that somebody has decided on a PURPOSE, such as at the counter. It counts as of now."""
    why = why_of(reason) if execute else ""
    plan, cluster = context.plan, context.cluster(broker)
    end = None if expires_at is None else _instant(expires_at)
    setting = asking.plan_setting(
        plan, cluster, identifier, purpose, status,
        expires_at=end, now_ms=system(), names=context.names(cluster, identifier),
    )  # fmt: skip
    if execute:
        with run_of(context, cluster, who, why) as run:
            run.say("done", asking.told(setting), [asking.message(plan, setting)])
    if as_json:
        print_json(asking.setting_json(setting, executed=execute))
        return
    said = setting.command
    until = "" if end is None else f" until {time_text(end)}"
    click.echo(f"{said.identifier}: {purpose} {status}{until}; before: {setting.before or 'nothing was decided'}")
    click.echo(
        "written; it counts as soon as the consent agent has read it"
        if execute
        else "nothing was changed; add --execute to do it"
    )


def _instant(text: str) -> int:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        raise UsageError(f"--expires-at {text!r} is no time with a zone, such as 2027-01-01T00:00:00Z")
    return int(found.timestamp() * 1000)
