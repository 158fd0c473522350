"""`c360 schemas check`: whether the schemas of now read what was written by those of before."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from c360.cli.common import Context, Group, handled, json_option, pass_context, print_json, stderr
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
@click.option("--strict", is_flag=True, help="Exit 1 for warnings, too.")
@json_option
@pass_context
@handled
def schemas_check(context: Context, directory: Path | None, revision: str | None, strict: bool, as_json: bool) -> None:
    """Compare schemas with all their earlier versions. Exit 1 if records of before would be misread."""
    from c360.ops import schemas as tool  # here: the official checker takes a moment to import
    from c360.ops.history import history

    directory = directory or context.settings.schemas or (DEFAULT if DEFAULT.is_dir() else None)
    if revision is not None and directory is None:
        raise UsageError("--git needs a directory of schemas: say --dir, or [tool.c360] schemas")
    named = bool(context.app_name or context.settings.app)
    past = None if directory is None or not directory.is_dir() else history(directory, revision)
    report = tool.check(directory, past, context.plan if named else None, context.name if named else "")
    if as_json:
        print_json(report.to_json())
    else:
        for finding in report.findings:
            click.echo(finding.line)
        if not report.findings:
            click.echo(f"{report.schemas} schemas read what {report.versions} earlier versions wrote")
    for note in report.notes:
        stderr.print(f"note: {note}", highlight=False, soft_wrap=True, markup=False)
    sys.exit(1 if report.errors or (strict and report.warnings) else 0)
