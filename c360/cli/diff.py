"""`c360 diff`."""

from __future__ import annotations

import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import click
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from c360.cli.common import Context, broker_option, handled, json_option, pass_context, print_json, stderr
from c360.errors import UsageError
from c360.ops.diff import Report
from c360.ops.diff import diff as compare
from c360.ops.diff.page import page, percent, signed

LINE_S = 5.0
MEMORY = 96 << 20  # of the local copy; the rest is on disk


class Limit(NamedTuple):
    """How many profiles may differ: a part of all that were compared, or a number."""

    part: float | None = None
    profiles: int = 0

    def over(self, report: Report) -> bool:
        """Also where nothing could be compared as all were moving: whoever asks wants to know that few differ."""
        if report.tally.moving and not report.tally.compared:
            return True
        return report.share > self.part if self.part is not None else report.tally.differing > self.profiles


class LimitType(click.ParamType):
    name = "2%"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Limit:
        if isinstance(value, Limit):
            return value
        found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*%|(\d+)", value.strip())
        if found is None or (found[1] and float(found[1]) > 100):
            self.fail(f"{value!r} is neither a percentage from 0% to 100% nor a number of profiles", param, ctx)
        return Limit(part=float(found[1]) / 100) if found[1] else Limit(profiles=int(found[2]))


@click.command()
@click.argument("first", metavar="AGENT")
@click.argument("second", metavar="AGENT")
@click.option(
    "--sample", type=click.IntRange(1), help="Compare about so many profiles only, the same ones in every run."
)
@click.option("--max-changed", type=LimitType(), help="Exit 1 if more differ: 2%, or a number of profiles.")
@click.option(
    "--examples", type=click.IntRange(0), default=10, show_default=True, help="How many profiles that differ to show."
)
@click.option(
    "--html", type=click.Path(dir_okay=False, path_type=Path), help="Write the report as a page of its own, too."
)
@json_option
@broker_option
@pass_context
@handled
def diff(
    context: Context,
    first: str,
    second: str,
    sample: int | None,
    max_changed: Limit | None,
    examples: int,
    html: Path | None,
    as_json: bool,
    broker: str | None,
) -> None:
    """Compare the profiles of two versions, both read at one cut while they run: "customer@1" "customer@2"."""
    from c360.tables.budget import Budget
    from c360.tables.rocks import RocksStores  # here: commands that need no disk start without it

    if html is not None and not html.absolute().parent.is_dir():
        raise UsageError(f"--html {html}: there is no directory {html.absolute().parent}")
    with tempfile.TemporaryDirectory(prefix="c360-diff-") as directory, progress_shown() as told:
        stores = RocksStores(Path(directory), Budget(MEMORY))
        try:
            report = compare(
                context.plan,
                context.cluster(broker),
                first,
                second,
                stores,
                sample=sample,
                examples=examples,
                progress=told,
            )
        finally:
            stores.close()
    if html is not None:
        html.write_text(page(report), encoding="utf-8")
    if as_json:
        print_json(report.to_json())
    else:
        click.echo("\n".join(lines(report)))
    if max_changed is not None and max_changed.over(report):
        said = f"{report.tally.differing} profiles differ ({percent(report.share)}), which is more than --max-changed allows"
        if not report.tally.compared:
            said = "all profiles were moving, so nobody knows how many differ: run it again at a quieter hour"
        stderr.print(said, soft_wrap=True, highlight=False)
        sys.exit(1)


@contextmanager
def progress_shown() -> Iterator[Callable[[str, int, int | None], None]]:
    """A bar on a terminal; elsewhere a line when something else is done, and each five seconds while it takes."""
    if sys.stderr.isatty():
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[said]}"),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=stderr, transient=True) as bar:
            task = bar.add_task("looking", total=None, said="")

            def draw(what: str, done: int, total: int | None) -> None:
                said = f"{done:,}" if total is None else f"{done:,}/{total:,}"
                bar.update(task, description=what, completed=done if total else 0, total=total, said=said)

            yield draw
        return
    said_at: dict[str, float] = {}

    def line(what: str, done: int, total: int | None) -> None:
        now = time.monotonic()
        if now - said_at.get(what, now - LINE_S) >= LINE_S:
            stderr.print(f"{what}: {done if total is None else f'{done}/{total}'}", highlight=False, soft_wrap=True)
            said_at[what] = now

    yield line


def lines(report: Report) -> Iterator[str]:
    """The report as text."""
    tally = report.tally
    sampled = "" if report.sampled is None else f" (a sample of {report.sampled})"
    yield f"{report.first} and {report.second}: {tally.compared} profiles compared at one cut{sampled}"
    yield f"  equal            {tally.equal}"
    yield f"  changed          {tally.changed}"
    yield f"  only in first    {tally.only_in_first}"
    yield f"  only in second   {tally.only_in_second}"
    yield f"  moving           {tally.moving}"
    yield f"{percent(report.share)} differ"
    for name, counts in sorted(tally.attributes.items(), key=lambda item: (-item[1].changed, item[0])):
        said = [f"{counts.changed} changed"] if counts.changed else []
        said += [f"{counts.only_in_first} only in first"] if counts.only_in_first else []
        said += [f"{counts.only_in_second} only in second"] if counts.only_in_second else []
        said += [f"sum {signed(counts.total)}, largest {signed(counts.largest)}"] if counts.numbers else []
        if said:
            yield f"{name}: {', '.join(said)}"
    for example in tally.chosen():
        yield f"{example.profile_id}: {example.kind.replace('_', ' ')}"
        for name, (a, b) in example.attributes.items():
            yield f"    {name}: {shown(a)} → {shown(b)}"


def shown(value: Any) -> str:
    said = "-" if value is None else str(value)
    return said if len(said) <= 100 else said[:99] + "…"
