"""`c360 dlq`: misfits, why they are, and back to work once the app can take them."""

from __future__ import annotations

import sys
from functools import cache
from typing import Any

import click
import msgspec
from rich.console import Console
from rich.table import Table

from c360.cli.audit import run_of, who_option
from c360.cli.common import Context, Group, broker_option, handled, json_option, pass_context, print_json
from c360.governance.names import Names
from c360.ops import dlq as letters
from c360.ops.keys import opener_of


@click.group(cls=Group)
def dlq() -> None:
    """Misfits: counts by topic and reason, one of them, replay after a fix."""


@dlq.command("list")
@json_option
@broker_option
@pass_context
@handled
def dlq_list(context: Context, as_json: bool, broker: str | None) -> None:
    """Counts by raw topic and reason, and where each lies."""
    found = list(letters.read(context.plan, context.cluster(broker)))
    counts: dict[tuple[str, str], list[letters.DeadLetter]] = {}
    for letter in found:
        counts.setdefault((letter.misfit.topic, letter.misfit.reason), []).append(letter)
    if as_json:
        print_json(
            {
                "misfits": len(found),
                "counts": [
                    {"topic": t, "reason": r, "count": len(c), "example": c[0].id, "error": c[0].misfit.error}
                    for (t, r), c in sorted(counts.items())
                ],
                "letters": [
                    {
                        "id": letter.id, "topic": letter.misfit.topic, "partition": letter.misfit.partition,
                        "offset": letter.misfit.offset, "reason": letter.misfit.reason,
                    }
                    for letter in found
                ],
            }
        )  # fmt: skip
        return
    table = Table("topic", "reason", "count", "for example", "what is wrong")
    for (topic, reason), group in sorted(counts.items()):
        table.add_row(topic, reason, str(len(group)), group[0].id, group[0].misfit.error)
    Console().print(table if counts else "no misfits")


@dlq.command("show")
@click.argument("letter_id", metavar="PARTITION/OFFSET")
@json_option
@broker_option
@pass_context
@handled
def dlq_show(context: Context, letter_id: str, as_json: bool, broker: str | None) -> None:
    """One misfit, with its error and original bytes (these may be personal; what is sealed needs C360_KEYS)."""
    cluster = context.cluster(broker)
    letter = letters.find(context.plan, cluster, letter_id)
    misfit = letter.misfit
    if misfit.sealed is not None and (vault := context.vault(cluster)) is not None:
        misfit = letters.shown(misfit, opener_of(context.plan, cluster, vault))
    said: dict[str, Any] = {"id": letter.id, **msgspec.structs.asdict(misfit)}
    if as_json:
        print_json(said)
        return
    for name, value in said.items():
        click.echo(f"{name}: {value}")


@dlq.command("replay")
@click.option("--topic", help="Only misfits of this raw topic.")
@click.option("--reason", help="Only misfits with this reason.")
@who_option
@json_option
@broker_option
@pass_context
@handled
def dlq_replay(
    context: Context, topic: str | None, reason: str | None, who: str | None, as_json: bool, broker: str | None
) -> None:
    """Send misfits back to who put them aside, which takes each at most once, now or after a rebuild."""
    cluster = context.cluster(broker)
    vault = cache(lambda: context.vault(cluster))
    names = (lambda: Names() if (found := vault()) is None else found.names) if context.plan.erases else None
    with run_of(context, cluster, who) as run:
        result = letters.replay_told(context.plan, cluster, run, topic=topic, reason=reason, names=names)
    if as_json:
        print_json(result)
    else:
        click.echo(f"{result['replayed']} sent back to who put them aside")
        if result["cut"]:
            click.echo(f"{result['cut']} are larger than a dead letter keeps: have their producer send them again")
        if result["other"]:
            click.echo(
                f"{result['other']} are not raw records, or still are no requests to be forgotten, and were left"
            )
    sys.exit(0)
