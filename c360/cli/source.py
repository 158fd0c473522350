"""`c360 source`: what is read, how far, and the switch that stops one that has gone wrong."""

from __future__ import annotations

from dataclasses import asdict

import click
from rich.console import Console
from rich.table import Table

from c360.cli.audit import run_if, why_of
from c360.cli.common import (
    Context,
    Group,
    broker_option,
    handled,
    json_option,
    pass_context,
    print_json,
    time_text,
)
from c360.cli.versions import acting_options
from c360.clock import system
from c360.ops import sources


@click.group(cls=Group)
def source() -> None:
    """Raw topics: how far each is read; pause one that sends what it should not, and resume it."""


@source.command("list")
@json_option
@broker_option
@pass_context
@handled
def source_list(context: Context, as_json: bool, broker: str | None) -> None:
    """All sources: how far they are governed, and which are paused."""
    found = sources.statuses(context.plan, context.cluster(broker))
    if as_json:
        print_json({"sources": [asdict(status) for status in found]})
        return
    table = Table("source", "kind", "format", "partitions", "lag", "paused")
    for status in found:
        lag = ", ".join(f"{n:,}" if len(status.lag) == 1 else f"{agent} {n:,}" for agent, n in status.lag.items())
        since = "" if status.since is None else f"since {time_text(status.since)}"
        paused = since if status.reason is None else f"{since}: {status.reason}"
        table.add_row(status.source, status.kind, status.format, str(status.partitions), lag, paused)
    Console().print(table)


@source.command("pause")
@click.argument("name", metavar="SOURCE")
@acting_options
@pass_context
@handled
def source_pause(
    context: Context,
    name: str,
    execute: bool,
    reason: str | None,
    who: str | None,
    as_json: bool,
    broker: str | None,
) -> None:
    """Read nothing of SOURCE until it is resumed; all others go on, and nothing of it is lost."""
    why = why_of(reason) if execute else reason or ""
    cluster = context.cluster(broker)
    with run_if(context, cluster, who, why, execute=execute) as run:
        turned = sources.pause(context.plan, cluster, name, why, now_ms=system(), run=run)
    _say(turned, executed=execute, as_json=as_json)


@source.command("resume")
@click.argument("name", metavar="SOURCE")
@acting_options
@pass_context
@handled
def source_resume(
    context: Context,
    name: str,
    execute: bool,
    reason: str | None,
    who: str | None,
    as_json: bool,
    broker: str | None,
) -> None:
    """Read SOURCE again, from where it stood."""
    cluster = context.cluster(broker)
    with run_if(context, cluster, who, reason, execute=execute) as run:
        turned = sources.resume(context.plan, cluster, name, run=run)
    _say(turned, executed=execute, as_json=as_json)


def _say(turned: sources.Turned, *, executed: bool, as_json: bool) -> None:
    was = turned.before is not None
    paused = turned.after is not None if executed else was
    if as_json:
        print_json({"source": turned.source.name, "executed": executed, "was_paused": was, "paused": paused})
        return
    name, wanted = turned.source.name, "paused" if turned.after is not None else "read"
    if turned.done:
        click.echo(f"{name} is {wanted} already")
    elif executed:
        click.echo(f"{name} is {wanted}; workers follow within a second")
    else:
        click.echo(f"{name} would be {wanted}; do it with --execute")
