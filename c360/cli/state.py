"""Commands about what agents have made: profile, reset, verify."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
import orjson

from c360.agents.contracts import contract_of
from c360.cli.audit import reason_option, run_of, who_option, why_of
from c360.cli.common import Context, broker_option, handled, json_option, pass_context, print_json, stderr
from c360.clock import system
from c360.engine.transport import TP, Cluster
from c360.errors import UsageError
from c360.ops import control, doors, profiles, targets
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
        contract=contract_of(context.plan, door) if context.settings.writes_avro else None,
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
@click.option(
    "--to-datetime", metavar="TIME", help="Fold only what was appended since: 2026-03-01, 2026-03-01T12:00:00Z."
)
@click.option("--by-duration", metavar="TIME", help="The same, so long ago: 90m, 12h, 7d, P7D.")
@click.option(
    "--to-offsets", metavar="FILE",
    help='From these on: JSON {"topic/partition": offset}, or lines topic,partition,offset. `current`: where its group stands.',
)  # fmt: skip
@click.option("--undo", is_flag=True, help="Take the last reset back, until the agent has run again.")
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
    to_datetime: str | None,
    by_duration: str | None,
    to_offsets: str | None,
    undo: bool,
    execute: bool,
    reason: str | None,
    who: str | None,
    as_json: bool,
    broker: str | None,
) -> None:
    """Rewind AGENT ("govern", "customer@1"): clears its tables and changelogs, so that nothing counts twice."""
    said = [to_earliest, to_datetime is not None, by_duration is not None, to_offsets is not None, undo]
    if sum(said) != 1:
        raise UsageError(
            "say where to: --to-earliest, --to-datetime, --by-duration or --to-offsets; or --undo"
            if not any(said)
            else "say one place to go to, not several"
        )
    now_ms = system()
    target = targets.EARLIEST
    if to_datetime is not None:
        target = targets.to_datetime(to_datetime)
    elif by_duration is not None:
        target = targets.by_duration(by_duration, now_ms)
    elif to_offsets is not None:
        target = targets.to_offsets(to_offsets, _read(to_offsets))
    why = why_of(reason) if execute else ""
    plan, cluster = context.plan, context.cluster(broker)
    plan.agent(agent)
    if execute:
        with run_of(context, cluster, who, why) as run:
            if undo:
                planned = resetting.undo_told(plan, cluster, agent, run)
            else:
                planned = resetting.reset_told(plan, cluster, agent, run, target, now_ms=now_ms)
    elif undo:
        planned = resetting.plan_undo(plan, cluster, agent)
    else:
        planned = resetting.plan_reset(plan, cluster, agent, target, now_ms=now_ms)
    if as_json:
        print_json(reset_json(planned, executed=execute))
        return
    _show_reset(planned)
    if not execute:
        click.echo("nothing was changed; add --execute to do it")
    elif undo:
        click.echo("done; it goes on from where it was")
    elif planned.lasting:
        click.echo("done; the next worker folds it again")
    else:
        click.echo(
            "done; the next worker folds it again, and writes when it has caught up. Until then --undo takes it back"
        )


def _read(name: str) -> str | None:
    """A file of offsets; None for the word that means those of the group. Raises UsageError."""
    if name == "current":
        return None
    try:
        return Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--to-offsets {name}: it cannot be read ({error})") from None


def _show_reset(planned: resetting.ResetPlan) -> None:
    for tp, (now, to) in sorted(planned.moves.items()):
        click.echo(f"{tp.topic}/{tp.partition}: {_or_none(now)} → {_or_none(to)}{_complete(planned, tp)}")
    if planned.target != "--undo":
        click.echo(f"{planned.records} records to fold again; cleared: {', '.join(planned.clears)}")
    for line in (*planned.meaning, *planned.notes):
        click.echo(line)
    if planned.lasting:
        click.echo(f"this cannot be undone: {planned.lasting}")


def _or_none(offset: int | None) -> str:
    return "-" if offset is None else str(offset)


def _complete(planned: resetting.ResetPlan, tp: TP) -> str:
    """From when on data is there, where that is not from the beginning."""
    start, begin = planned.starts.get(tp, 0), planned.begins.get(tp, resetting.NEVER)
    if not start or tp not in planned.begins:
        return ""
    return f" (begins at {start}{'' if begin == resetting.NEVER else f', {targets.time_text(begin)}'})"


def reset_json(planned: resetting.ResetPlan, *, executed: bool) -> dict[str, Any]:
    """What `c360 reset --json` prints."""
    begins = {tp: None if at == resetting.NEVER else int(at) for tp, at in planned.begins.items()}
    return {
        "agent": planned.agent,
        "target": planned.target,
        "executed": executed,
        "undo": planned.lasting == "" and planned.target != "--undo",
        "records": planned.records,
        "clears": list(planned.clears),
        "meaning": list(planned.meaning),
        "notes": list(planned.notes),
        "positions": [
            {
                "topic": tp.topic,
                "partition": tp.partition,
                "from": now,
                "to": to,
                "start": planned.starts.get(tp),
                "start_time": begins.get(tp),
            }
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
