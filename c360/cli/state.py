"""Commands about what agents have made: profile, reset, verify."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
import orjson

from c360.cli.audit import reason_option, run_of, who_option, why_of
from c360.cli.common import Context, broker_option, handled, json_option, pass_context, print_json, stderr
from c360.clock import system
from c360.engine.transport import Cluster
from c360.errors import UsageError
from c360.ops import control, doors, profiles
from c360.ops import reset as resetting
from c360.rights import Door


@click.command()
@click.argument("identifier", metavar="NAMESPACE:VALUE")
@click.option("--projection", help="Which projection, or version: customer@2. Default: the live one.")
@click.option("--purpose", help="As its view for this purpose would have it now, opened; or why it would not.")
@json_option
@broker_option
@pass_context
@handled
def profile(
    context: Context, identifier: str, projection: str | None, purpose: str | None, as_json: bool, broker: str | None
) -> None:
    """One profile, by any of its identifiers; reads the projection's topic once. Exit 1 if there is none."""
    plan = context.plan
    cluster = context.cluster(broker)
    chosen = profiles.chosen_projection(plan, projection, control.live_in(plan, cluster))
    if not as_json:
        stderr.print(f"reading {plan.projected(chosen)} once", style="dim")
    if purpose is not None:
        _profile_for(context, cluster, doors.view_door(plan, chosen, purpose), identifier, as_json=as_json)
        return
    found = profiles.find_profile(plan, cluster, chosen, identifier, context.names(cluster, identifier))
    shown = None if found is None else profiles.shut(found)
    if as_json:
        print_json(_whole(shown))
    elif shown is None:
        click.echo(f"no profile has {identifier}")
    else:
        click.echo(orjson.dumps(shown, option=orjson.OPT_INDENT_2).decode())
    sys.exit(0 if found is not None else 1)


def _whole(record: dict[str, Any] | None) -> dict[str, Any] | None:
    """With the key that a record of the topic has only where it says something."""
    return None if record is None else {**record, "views": record.get("views", {})}


def _profile_for(context: Context, cluster: Cluster, door: Door, identifier: str, *, as_json: bool) -> None:
    vault = context.vault(cluster)
    answer = doors.ask_door(
        context.plan,
        cluster,
        door,
        identifier,
        names=profiles.NO_NAMES if vault is None else vault.names,
        vault=vault,
        clock=system,
        fence_max_age_ms=round(context.settings.fence_max_age_s * 1000),
    )
    if as_json:
        print_json(_whole(answer.profile) if answer.profile is not None else {"profile": None, "reason": answer.reason})
    elif answer.profile is None:
        click.echo(f"nothing of it for {door.purpose.name}: {answer.why}")
    else:
        click.echo(orjson.dumps(answer.profile, option=orjson.OPT_INDENT_2).decode())
    sys.exit(0 if answer.profile is not None else 1)


@click.command()
@click.argument("agent")
@click.option("--to-earliest", is_flag=True, help="Fold again from the first retained record.")
@click.option("--execute", is_flag=True, help="Do it. Without this, only show what would be done.")
@reason_option
@who_option
@json_option
@broker_option
@pass_context
@handled
def reset(
    context: Context,
    agent: str,
    to_earliest: bool,
    execute: bool,
    reason: str | None,
    who: str | None,
    as_json: bool,
    broker: str | None,
) -> None:
    """Rewind AGENT ("govern", "customer@1"): clears its tables and changelogs, so that nothing counts twice."""
    if not to_earliest:
        raise UsageError("say where to: --to-earliest")
    why = why_of(reason) if execute else ""
    plan, cluster = context.plan, context.cluster(broker)
    plan.agent(agent)
    if execute:
        with run_of(context, cluster, who, why) as run:
            planned = resetting.reset_told(plan, cluster, agent, run)
    else:
        planned = resetting.plan_reset(plan, cluster, agent)
    if as_json:
        print_json(reset_json(planned, executed=execute))
        return
    for tp, (now, to) in sorted(planned.moves.items()):
        click.echo(f"{tp.topic}/{tp.partition}: {'-' if now is None else now} → {to}")
    click.echo(f"{planned.records} records to fold again; cleared: {', '.join(planned.clears)}")
    for note in planned.notes:
        click.echo(note)
    click.echo(
        "done; the next worker folds it again, and writes when it has caught up"
        if execute
        else "nothing was changed; add --execute to do it"
    )


def reset_json(planned: resetting.ResetPlan, *, executed: bool) -> dict[str, Any]:
    """What `c360 reset --json` prints."""
    return {
        "agent": planned.agent,
        "executed": executed,
        "records": planned.records,
        "clears": list(planned.clears),
        "notes": list(planned.notes),
        "positions": [
            {"topic": tp.topic, "partition": tp.partition, "from": now, "to": to}
            for tp, (now, to) in sorted(planned.moves.items())
        ],
    }


@click.command()
@click.argument("agent", required=False)
@click.option(
    "--from-archive", "archive", multiple=True, type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="JSON lines with records that retention has cut.",
)  # fmt: skip
@json_option
@broker_option
@pass_context
@handled
def verify(context: Context, agent: str | None, archive: tuple[Path, ...], as_json: bool, broker: str | None) -> None:
    """Recompute everything from the input, slowly and separately, and compare. Exit 1 on a difference."""
    from c360.ops import verify as verifying

    cluster = context.cluster(broker)
    vault = context.vault(cluster) if agent in (None, "govern", "consent") else None
    names = [agent] if agent else []
    report = verifying.verify(context.plan, cluster, names, archive=archive, vault=vault, registry=context.registry())
    if as_json:
        print_json(report.to_json())
    else:
        click.echo(report.to_text())
    sys.exit(1 if report.differences else 0)
