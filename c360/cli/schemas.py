"""`c360 schemas check`: whether the schemas of now read what was written by those of before."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from c360.cli.common import (
    Context,
    Group,
    broker_option,
    handled,
    json_option,
    pass_context,
    print_json,
    stderr,
)
from c360.cli.diff import progress_shown
from c360.errors import UsageError

DEFAULT = Path("schemas")


@click.group(cls=Group)
def schemas() -> None:
    """Avro schemas: check them against what they were."""


@schemas.command("check")
@click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path),
    help="Directory of *.avsc. Default: [tool.c360] schemas, else `schemas` where it exists.",
)
@click.option(
    "--git", "revision", metavar="REV", help="Versions in the history of REV, or A..B: since A. Default: all of HEAD."
)
@click.option("--registry", "asked", is_flag=True, help="Versions of the subjects in C360_REGISTRY, too.")
@click.option(
    "--replay", is_flag=True, help="Decode one record of every schema that raw topics of the app retain, too."
)
@click.option("--strict", is_flag=True, help="Exit 1 for warnings, too.")
@json_option
@broker_option
@pass_context
@handled
def schemas_check(
    context: Context,
    directory: Path | None,
    revision: str | None,
    asked: bool,
    replay: bool,
    strict: bool,
    as_json: bool,
    broker: str | None,
) -> None:
    """Compare schemas with all their earlier versions. Exit 1 if records of before would be misread."""
    from c360.ops import control, retained
    from c360.ops import schemas as tool  # here: the official checker takes a moment to import
    from c360.ops.history import history

    directory = directory or context.settings.schemas or (DEFAULT if DEFAULT.is_dir() else None)
    if revision is not None and directory is None:
        raise UsageError("--git needs a directory of schemas: say --dir, or [tool.c360] schemas")
    registry = context.registry() if asked or replay else None
    if (asked or replay) and registry is None:
        raise UsageError("which registry? Set C360_REGISTRY to its URL")
    plan = context.plan if replay or context.app_name or context.settings.app else None
    past = None if directory is None or not directory.is_dir() else history(directory, revision)
    replayed: list[retained.Replayed] = []
    notes: list[str] = []
    controls = None
    if replay and plan is not None and registry is not None:
        with progress_shown() as told:
            cluster = context.cluster(broker)
            replayed, notes = retained.replay(plan, cluster, registry, told)
            controls = control.read(plan, cluster)
    name = "" if plan is None else context.name
    doors = plan is not None and context.settings.writes_avro
    report = tool.check(
        directory, past, plan, name, registry if asked else None, replayed, controls, doors=asked and doors
    )
    report.notes += notes
    if as_json:
        print_json(report.to_json())
    else:
        for finding in report.findings:
            click.echo(finding.line)
        for line in report.looked_at if not report.findings else ():
            click.echo(line)
    for note in report.notes:
        stderr.print(f"note: {tool.shown(note)}", highlight=False, soft_wrap=True, markup=False)
    sys.exit(1 if report.errors or (strict and report.warnings) else 0)
