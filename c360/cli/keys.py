"""`c360 keys`: the master keys of an app, made, followed by new ones, looked at."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from c360.cli.audit import run_of, who_option
from c360.cli.common import Context, Group, broker_option, handled, json_option, pass_context, print_json
from c360.engine.transport import Cluster
from c360.errors import UsageError
from c360.governance.keys import MasterKeys
from c360.ops import control, topics
from c360.ops import keys as keeping
from c360.ops.audit import Told
from c360.ops.vault import VaultMasterKeys, is_service


@click.group(cls=Group)
def keys() -> None:
    """Master keys: make them, rotate them, see what they wrap."""


def _where(context: Context) -> str:
    where = context.settings.keys
    if where is None:
        raise UsageError(
            "say where the master keys are, or are to be: set C360_KEYS to a file (C360_KEYS=/etc/c360/shop.keys), or to the"
            " URL of a transit key"
        )
    return where


def _sealing_plan(context: Context, cluster: Cluster, who: str | None) -> None:
    """The topics that keys need. Raises UsageError for an app that has nothing to seal."""
    if not context.plan.needs_keys:
        raise UsageError(
            f"{context.plan.app!r} seals nothing and has no personal identifiers, so it needs no keys: type a field with"
            " Personal[…], or say personal=True on an identifier"
        )
    gone = control.read(context.plan, cluster).gone(context.plan)
    topics.apply_told(context.plan, cluster.admin(), lambda: run_of(context, cluster, who), gone=gone)


@keys.command("init")
@who_option
@json_option
@broker_option
@pass_context
@handled
def keys_init(context: Context, who: str | None, as_json: bool, broker: str | None) -> None:
    """Make the master key file of C360_KEYS, and with a broker the app's secret. What is there already stays."""
    where = _where(context)
    cluster = context.cluster(broker) if broker or context.settings.broker else None
    made = not is_service(where) and not (cluster is not None and Path(where).exists())
    if made:
        keeping.init_keys(Path(where), os.urandom)
    master = context.master()
    secret = None
    if cluster is not None:
        _sealing_plan(context, cluster, who)
        with run_of(context, cluster, who) as run, run.acting(_told("keys init", master)) as told:
            now = keeping.make_secret_once(context.plan, cluster, master, os.urandom)
            secret = told["secret"] = "made" if now else "there"
    said: dict[str, Any] = {"keys": where, "made": made, "generation": master.current, "secret": secret}
    if as_json:
        print_json(said)
        return
    click.echo(f"{where}: {'made' if made else 'as it was'}, generation {master.current}")
    click.echo(SECRETS[secret])


def _told(what: str, master: MasterKeys) -> Told:
    return Told(what, after={"generation": master.current})


SECRETS = {
    None: "the app's secret is not made yet: again with --broker HOST:PORT, once, before the first worker",
    "made": "the app's secret is made. Keep a copy of the keys where nothing else is lost with it: without them what is sealed"
    " is gone for ever",
    "there": "the app has its secret, and these keys open it",
}


@keys.command("rotate")
@click.option(
    "--new-only", is_flag=True, help="Only add the new key: to be brought to all machines before the next step."
)
@click.option("--wrap-only", is_flag=True, help="Add none; only wrap under the newest what older ones still wrap.")
@who_option
@json_option
@broker_option
@pass_context
@handled
def keys_rotate(
    context: Context, new_only: bool, wrap_only: bool, who: str | None, as_json: bool, broker: str | None
) -> None:
    """Add a new master key, and wrap all data keys with it. What is sealed is not touched."""
    if new_only and wrap_only:
        raise UsageError("--new-only and --wrap-only are the two halves of it; for both, say neither")
    where = _where(context)
    cluster = None if new_only else context.cluster(broker)
    if cluster is not None:
        context.vault(cluster)  # the right keys, before a new one is among them
    before = context.master()
    if cluster is None:
        master, count = _newest(context, where, add=not wrap_only), None
    else:
        with (
            run_of(context, cluster, who) as run,
            run.acting(Told("keys rotate", before=_told("", before).after)) as told,
        ):
            master = _newest(context, where, add=not wrap_only)
            count = keeping.rewrap(context.plan, cluster, master)
            told |= {"generation": master.current, "wrapped": str(count)}
    said: dict[str, Any] = {"generation": master.current, "added": not wrap_only, "wrapped": count}
    if as_json:
        print_json(said)
        return
    click.echo(f"generation {master.current}")
    click.echo(
        "bring the keys to every machine, then: c360 keys rotate --wrap-only"
        if count is None
        else f"{count} data keys were wrapped anew"
    )


def _newest(context: Context, where: str, *, add: bool) -> MasterKeys:
    """The master keys as they are then."""
    before = context.master()
    if add and isinstance(before, VaultMasterKeys):
        before.rotate()
    elif add:
        keeping.rotate_keys(Path(where), os.urandom)
    return context.master()


@keys.command("retire")
@who_option
@json_option
@broker_option
@pass_context
@handled
def keys_retire(context: Context, who: str | None, as_json: bool, broker: str | None) -> None:
    """Take the master keys out of the file that wrap nothing any more. Exit 4 if one still does."""
    where, cluster = _where(context), context.cluster(broker)
    if is_service(where):
        raise UsageError("versions of a transit key are retired at its service: min_decryption_version of the key")
    told = Told("keys retire", before={"generation": context.master().current})
    with run_of(context, cluster, who) as run:
        with run.refusing(told):
            context.vault(cluster)
            used = keeping.generations(keeping.read_records(context.plan, cluster).items())
            keeping.retirable(Path(where), used)
        with run.acting(told) as more:
            retired = keeping.retire_keys(Path(where), used)
            more["retired"] = ", ".join(retired)
    current = context.master().current
    if as_json:
        print_json({"current": current, "retired": retired})
        return
    click.echo("\n".join(f"retired {name}" for name in retired) or f"there is only {current}")


@keys.command("status")
@json_option
@broker_option
@pass_context
@handled
def keys_status(context: Context, as_json: bool, broker: str | None) -> None:
    """Which generations of the master key wrap how many data keys. Exit 4 if these are not the app's keys."""
    _where(context)
    cluster = context.cluster(broker)
    vault = context.vault(cluster)
    if vault is None:
        raise UsageError(f"{context.plan.app!r} seals nothing and has no personal identifiers, so it has no keys")
    found = keeping.generations(keeping.read_records(context.plan, cluster).items())
    current = vault.master.current
    if as_json:
        wrapped = [{"generation": name, "keys": n, "current": name == current} for name, n in found.items()]
        print_json({"current": current, "generations": wrapped})
        return
    for name, n in found.items():
        click.echo(f"{name}: {n} keys{', the current one' if name == current else ''}")
    if set(found) <= {current}:
        click.echo("no older key is needed")
