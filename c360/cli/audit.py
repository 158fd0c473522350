"""`c360 audit …`: who did what, and whether the log is as it was written. And what commands that do something share."""

from __future__ import annotations

import getpass
import secrets
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

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
from c360.engine.transport import Cluster
from c360.errors import UsageError
from c360.ops import audit as auditing
from c360.ops.profiles import normalized

C = TypeVar("C", bound=Callable[..., Any])


# ------------------------------------------------------------------------------------- of commands that do something
def who_option(command: C) -> C:
    return click.option("--as", "--actor", "who", metavar="NAME", help="Who does it. Default: the name of the user.")(
        command
    )


def reason_option(command: C) -> C:
    return click.option("--reason", metavar="TEXT", help="Why; kept in the audit log.")(command)


def why_of(reason: str | None) -> str:
    """Raises UsageError where there is none."""
    if not (reason or "").strip():
        raise UsageError("say why, for those who will ask: --reason TEXT")
    assert reason is not None
    return reason


def run_of(context: Context, cluster: Cluster, who: str | None, reason: str | None = None) -> auditing.Run:
    """A run of a command that is told in the audit log."""
    return auditing.Run(context.plan, cluster, who=who or user(), reason=reason or "", random=secrets.token_bytes)


@contextmanager
def run_if(
    context: Context, cluster: Cluster, who: str | None, reason: str | None, *, execute: bool
) -> Iterator[auditing.Run | None]:
    """The same where something is done; None where it is only looked."""
    if not execute:
        yield None
        return
    with run_of(context, cluster, who, reason) as run:
        yield run


def user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # a container knows no name for its user
        return "unknown"


# --------------------------------------------------------------------------------------------------------- the log
@click.group(cls=Group)
def audit() -> None:
    """The audit log: who did what, when and why; whether it is as it was written."""


@audit.command()
@click.option("-n", "--number", type=click.IntRange(0), default=20, show_default=True, help="How many, from the end.")
@click.option("--about", metavar="NAMESPACE:VALUE", help="Only what is told of this identifier, of all there is.")
@click.option("--follow", is_flag=True, help="Go on with what comes, until Ctrl-C.")
@json_option
@broker_option
@pass_context
@handled
def tail(context: Context, number: int, about: str | None, follow: bool, as_json: bool, broker: str | None) -> None:
    """The last entries. With --follow and --json one document per line."""
    plan, cluster = context.plan, context.cluster(broker)
    labels: set[str] = set()
    if about is not None:
        label = normalized(plan, about, context.names(cluster, about))
        labels = {label, context.veil(cluster)(label)}
    lines, end = auditing.tail(plan, cluster, number, labels)
    if as_json and not follow:
        print_json({"records": [line_json(line) for line in lines]})
        return
    show = _show_json if as_json else _show
    for line in lines:
        show(line)
    if follow:
        for line in auditing.follow(plan, cluster, end):
            if not labels or auditing.is_about(line, labels):
                show(line)


def line_json(line: auditing.Line) -> dict[str, Any]:
    """A line of `audit tail --json`; `record` is null where something else lies."""
    record = None if line.record is None else msgspec.to_builtins(line.record)
    return {"offset": line.offset, "at": line.at, "record": record}


def _show_json(line: auditing.Line) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(line_json(line)) + b"\n")
    sys.stdout.flush()


def _show(line: auditing.Line) -> None:
    click.echo(_plain(_text(line)))


def _text(line: auditing.Line) -> str:
    at = time_text(line.at)
    if line.record is None:
        return f"{at} offset {line.offset}: NO RECORD OF AN AUDIT LOG"
    entry = line.record.entry
    stage = entry.after.get("stage", "")
    words = [at, entry.who, entry.what, *([stage] if stage else []), *entry.about]
    said = [f"{name}={value}" for name, value in entry.after.items() if name != "stage"]
    before = [f"was {name}={value}" for name, value in entry.before.items()]
    because = [f"because {entry.reason}"] if entry.reason else []
    return "  ".join([" ".join(words), *because, *said, *before, f"[{line.record.writer}#{line.record.number}]"])


def _plain(text: str) -> str:
    """Whoever can write to the log must not be able to write to the terminal of who reads it."""
    return "".join(c if c.isprintable() else "?" for c in text)


@audit.command()
@click.option(
    "--heads", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Heads that were kept: all must be there."
)  # fmt: skip
@click.option(
    "--write-heads", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
    help="Keep the heads there, if there are no findings. May be the same file.",
)  # fmt: skip
@json_option
@broker_option
@pass_context
@handled
def verify(context: Context, heads: Path | None, write_heads: Path | None, as_json: bool, broker: str | None) -> None:
    """Check every chain of the log; exit 1 if a record was changed, taken out, moved or cut off."""
    plan = context.plan
    known = None if heads is None else auditing.read_heads(heads, plan.app)
    report = auditing.verify(plan, context.cluster(broker), known)
    if write_heads is not None and not report.findings:
        auditing.write_heads(write_heads, plan.app, report.heads)
    if as_json:
        print_json(report.to_json())
    else:
        _report(report)
    if write_heads is not None and report.findings:
        stderr.print(f"{write_heads} was left as it is: the log is not what it should be", soft_wrap=True)
    sys.exit(1 if report.findings else 0)


def _report(report: auditing.Report) -> None:
    for finding, offset in report.findings:
        where = "" if offset is None else f" (offset {offset})"
        name = f"{finding.writer}#{finding.number}" if finding.writer else "a record"
        click.echo(_plain(f"{finding.problem}: {name}{where} {auditing.PROBLEMS[finding.problem]}"))
    said = f"{len(report.findings)} FINDINGS" if report.findings else "nothing was changed"
    click.echo(f"{report.records} records in {len(report.heads)} chains: {said}")
    if not report.whole:
        click.echo("the beginning of the log is gone; it is meant to be kept for ever: look who has deleted it")
