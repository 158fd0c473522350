"""`c360 consent …`: what people decided, looked at and said."""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime
from typing import Any, cast

import click

from c360.cli.audit import reason_option, run_of, who_option, why_of
from c360.cli.common import Context, Group, broker_option, handled, json_option, pass_context, print_json
from c360.errors import UsageError
from c360.governance.consent import STATUSES, Status
from c360.ops import consent as deciding
from c360.ops.profiles import normalized


@click.group(cls=Group)
def consent() -> None:
    """What people decided: look at it, or say it for them."""


@consent.command()
@click.argument("identifier", metavar="NAMESPACE:VALUE")
@json_option
@broker_option
@pass_context
@handled
def show(context: Context, identifier: str, as_json: bool, broker: str | None) -> None:
    """What is known of one identifier, by purpose. Exit 1 if nothing was decided by it."""
    deciding.asking(context.plan)
    cluster = context.cluster(broker)
    label = normalized(context.plan, identifier, context.names(cluster, identifier))
    state = deciding.read(context.plan, cluster, label)
    found = deciding.shown(context.plan, label, state, _now_ms())
    if as_json:
        print_json(found)
    else:
        for one in found["purposes"]:
            click.echo(_text(one))
    sys.exit(0 if state else 1)


def _text(one: dict[str, Any]) -> str:
    words = [f"{one['purpose']}: {'yes' if one['allowed'] else 'no'}, {one['reason']}"]
    if one["at"] is not None:
        words.append(f"{one['status']} at {_time(one['at'])} by {', '.join(one['sources'])}")
    if one["expires_at"] is not None:
        words.append(f"until {_time(one['expires_at'])}")
    return "; ".join(words)


@consent.command("set")
@click.argument("identifier", metavar="NAMESPACE:VALUE")
@click.argument("purpose")
@click.argument("status", type=click.Choice(STATUSES))
@click.option("--expires", metavar="TIME", help="When it ends, RFC 3339 with a zone. Default: never.")
@reason_option
@who_option
@json_option
@broker_option
@pass_context
@handled
def set_(
    context: Context,
    identifier: str,
    purpose: str,
    status: str,
    expires: str | None,
    reason: str | None,
    who: str | None,
    as_json: bool,
    broker: str | None,
) -> None:
    """Say that somebody decided, now. It counts as any decision does: the newest holds."""
    why, ends = why_of(reason), None if expires is None else _ms(expires)
    plan = context.plan
    deciding.asking(plan)
    cluster = context.cluster(broker)
    label = normalized(plan, identifier, context.names(cluster, identifier))
    with run_of(context, cluster, who, why) as run:
        state = deciding.read(plan, cluster, label)
        planned = deciding.plan_saying(
            plan,
            label,
            state,
            purpose,
            cast(Status, status),
            now_ms=_now_ms(),
            expires_ms=ends,
            veil=context.veil(cluster),
        )
        run.say("done", planned.told, [planned.message])
    if as_json:
        command = planned.command
        said = {name: getattr(command, name) for name in ("identifier", "purpose", "status", "at", "expires_at")}
        print_json({**said, "notes": list(planned.notes)})
        return
    for note in planned.notes:
        click.echo(note)
    click.echo(f"{label} has {status} {purpose}; the consent agent takes it from here")


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _ms(text: str) -> int:
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"--expires {text!r} is no time; write it as in 2027-01-31T00:00:00Z") from None
    if when.tzinfo is None:
        raise UsageError(f"--expires {text!r} has no zone; write one, such as Z")
    return int(when.timestamp() * 1000)


def _time(ms: int) -> str:
    try:
        return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="seconds")
    except (OverflowError, ValueError):
        return str(ms)
