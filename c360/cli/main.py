"""The group of all commands."""

from __future__ import annotations

import click

from c360 import __version__
from c360.cli import (
    apps,
    audit,
    collect,
    consent,
    demo,
    diff,
    dlq,
    erase,
    identity,
    keys,
    run,
    schemas,
    simulate,
    source,
    state,
    versions,
)
from c360.cli.common import Context, Group


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("-A", "--app", "app_name", metavar="MODULE:APP", help="The app. Default: C360_APP.")
@click.version_option(__version__, prog_name="c360")
@click.pass_context
def cli(ctx: click.Context, app_name: str | None) -> None:
    """c360: one live, governed profile per customer, on Kafka."""
    ctx.obj = Context(app_name)


for command in (
    demo.demo,
    demo.bench,
    run.dev,
    run.worker,
    run.load,
    collect.collect,
    apps.plan,
    apps.topics,
    apps.doctor,
    schemas.schemas,
    source.source,
    state.profile,
    identity.why_profile,
    state.reset,
    versions.versions,
    versions.rebuild,
    versions.promote,
    versions.rollback,
    versions.retire,
    state.verify,
    diff.diff,
    erase.erase,
    dlq.dlq,
    audit.audit,
    consent.consent,
    keys.keys,
    identity.identity,
    simulate.simulate,
):
    cli.add_command(command)
