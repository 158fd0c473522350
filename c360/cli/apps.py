"""Commands about an app as declared: plan, topics, doctor."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from c360.cli.audit import run_of, who_option
from c360.cli.common import Context, Group, broker_option, handled, json_option, pass_context, print_json
from c360.ops import contracts as contract_tools
from c360.ops import control
from c360.ops import doctor as doctoring
from c360.ops import topics as topic_tools
from c360.plan import Plan, classes_of, sealed_of


def plan_json(plan: Plan) -> dict[str, Any]:
    """The plan as `c360 plan --json` prints it."""
    return {
        "app": plan.app,
        "partitions": plan.partitions,
        "purposes": {name: purpose.basis for name, purpose in sorted(plan.purposes.by_name.items())},
        "sources": [
            {
                "name": s.name, "topic": s.topic, "kind": s.kind, "types": [t.name for t in s.types],
                "governed": plan.governed(s), "purposes": sorted(s.purposes), "sealed": sealed_of(plan, s),
            }
            for s in plan.sources
        ],
        "projections": [
            {"name": p.name, "version": p.version, "topic": plan.projected(p),
             "attributes": [a.name for a in p.attributes], "derived": list(p.derived),
             "replay_ms": None if p.replay is None else p.replay // topic_tools.MS,
             "purposes": list(p.purposes), "classified": {n: c.name.lower() for n, c in classes_of(plan, p).items()}}
            for p in plan.projections
        ],
        "doors": [
            {"agent": d.agent, "projection": d.projection.agent, "purpose": d.purpose.name,
             "sink": None if d.sink is None else d.sink.name, "topic": plan.leaves(d)}
            for d in plan.doors
        ],
        "topics": [
            {"name": t.name, "role": t.role, "partitions": t.partitions, "like": t.like, "owned": t.owned,
             "config": dict(t.config)}
            for t in plan.topics
        ],
        "agents": [
            {"name": a.name, "group": a.group, "reads": list(a.reads), "writes": list(a.writes),
             "changelogs": list(a.changelogs), "tables": list(a.tables), "fingerprint": a.fingerprint}
            for a in plan.agents
        ],
        "user_agents": [{"name": u.name, "topic": u.topic} for u in plan.user_agents],
        "outside": [
            {"name": o.name, "identifier": plan.identifiers[o.kind].name, "record": o.record.__name__,
             "refresh_s": o.refresh.total_seconds(), "purpose": None if o.purpose is None else o.purpose.name,
             "questions": plan.questions(o), "answers": plan.answers(o)}
            for o in plan.outsides
        ],
    }  # fmt: skip


def _keeps(config: Mapping[str, str]) -> str:
    """How long a topic is planned to keep records, for people."""
    if config.get("cleanup.policy") == "compact":
        return "the newest of each key"
    return topic_tools.span(int(config["retention.ms"])) if "retention.ms" in config else ""


@click.command()
@json_option
@pass_context
@handled
def plan(context: Context, as_json: bool) -> None:
    """Every topic, group and table that the app adds up to."""
    planned = context.plan
    if as_json:
        print_json(plan_json(planned))
        return
    console = Console()
    agents = Table("agent", "group", "reads", "writes", "fingerprint", title=f"{planned.app}: agents")
    for a in planned.agents:
        agents.add_row(a.name, a.group, "\n".join(a.reads), "\n".join(a.writes), a.fingerprint)
    console.print(agents)
    table = Table("topic", "role", "partitions", "keeps", title="topics")
    for t in planned.topics:
        partitions = str(t.partitions) if t.like is None else f"as {t.like}"
        table.add_row(t.name, t.role, partitions if t.owned else "yours", _keeps(t.config))
    console.print(table)


@click.group(cls=Group)
def topics() -> None:
    """Topics of the app: compare with the broker, create what is missing."""


@topics.command("check")
@json_option
@broker_option
@pass_context
@handled
def topics_check(context: Context, as_json: bool, broker: str | None) -> None:
    """Report what is missing or differs; exit 1 if anything does."""
    cluster = context.cluster(broker)
    gone = control.read(context.plan, cluster).gone(context.plan)
    admin = cluster.admin()
    findings, notes = topic_tools.check(context.plan, admin, gone=gone), topic_tools.raw_notes(context.plan, admin)
    schemas, subjects = [], context.subjects()
    if subjects is not None:
        schemas, notes = contract_tools.check(context.plan, subjects), notes + contract_tools.untyped(context.plan)
    wrong = bool(findings or schemas)
    if as_json:
        print_json(
            {
                "ok": not wrong,
                "findings": [{"topic": f.topic, "problem": f.problem, "message": f.message} for f in findings],
                "schemas": [{"subject": f.subject, "problem": f.problem, "message": f.message} for f in schemas],
                "notes": notes,
            }
        )
    else:
        for message in [f.message for f in findings] + [f.message for f in schemas]:
            click.echo(message)
        if not wrong:
            click.echo("all topics are as planned")
        for note in notes:
            click.echo(f"note: {note}")
    sys.exit(1 if wrong else 0)


@topics.command("apply")
@who_option
@json_option
@broker_option
@pass_context
@handled
def topics_apply(context: Context, who: str | None, as_json: bool, broker: str | None) -> None:
    """Create what is missing, schemas of what leaves in Avro too. Never changes or deletes what exists, but that subjects
    of these ask for BACKWARD_TRANSITIVE."""
    cluster = context.cluster(broker)
    gone = control.read(context.plan, cluster).gone(context.plan)
    created = topic_tools.apply_told(context.plan, cluster.admin(), lambda: run_of(context, cluster, who), gone=gone)
    schemas, subjects = [], context.subjects()
    if subjects is not None:
        schemas = contract_tools.apply_told(context.plan, subjects, lambda: run_of(context, cluster, who))
    if as_json:
        registered = [{"subject": s.subject, "id": s.number, "compatibility": contract_tools.LEVEL} for s in schemas]
        print_json({"created": created, "registered": registered})
        return
    lines = [f"created {name}" for name in created]
    lines += [f"registered {s.subject} as schema {s.number}, {contract_tools.LEVEL}" for s in schemas]
    click.echo("\n".join(lines) or "nothing to create")
    for note in [] if subjects is None else contract_tools.untyped(context.plan):
        click.echo(f"note: {note}")


@click.command()
@json_option
@broker_option
@pass_context
@handled
def doctor(context: Context, as_json: bool, broker: str | None) -> None:
    """Check broker, topics, groups and state directory; say what to do. Exit 1 if something needs doing."""
    cluster = context.cluster(broker)
    checks = doctoring.examine(
        context.plan, cluster, context.settings.state_dir, master=context.master, subjects=context.subjects()
    )
    if as_json:
        print_json(
            {
                "ok": all(c.ok for c in checks),
                "checks": [{"name": c.name, "ok": c.ok, "message": c.message, "do": c.do} for c in checks],
            }
        )
    else:
        for check in checks:
            click.echo(
                f"{'ok  ' if check.ok else 'FIX '} {check.name}: {check.message}"
                + (f"\n     → {check.do}" if check.do else "")
            )
    sys.exit(0 if all(c.ok for c in checks) else 1)
