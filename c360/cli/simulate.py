"""`c360 simulate`."""

from __future__ import annotations

import sys
from functools import partial

import click
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from c360.cli.common import Context, handled, json_option, load_app, pass_context, print_json, stderr


@click.command()
@click.option("--seeds", type=click.IntRange(1), default=200, show_default=True, help="How many.")
@click.option("--from", "first", type=click.IntRange(0), default=0, show_default=True, help="The first seed.")
@json_option
@pass_context
@handled
def simulate(context: Context, seeds: int, first: int, as_json: bool) -> None:
    """Run the app in memory under crashes, lost sessions, zombies and failing calls; exit 1 if anything is lost."""
    from c360.ops.simulate import run_seeds

    name = context.name
    context.app.plan()  # a mistake is told once, here
    columns = (TextColumn("{task.completed}/{task.total} seeds"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=stderr, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("seeds", total=seeds)
        result = run_seeds(partial(load_app, name), first, seeds, lambda n: bar.update(task, completed=n))
    if as_json:
        print_json(result.to_json())
    elif result.first_failure is None:
        click.echo(f"{result.seeds} seeds, none failed")
    else:
        seed = result.first_failure.seed
        click.echo(f"{result.failed} of {result.seeds} seeds failed. Seed {seed}: {result.first_failure.error}")
        click.echo(f"again: c360 -A {name} simulate --from {seed} --seeds 1")
    sys.exit(1 if result.failed else 0)
