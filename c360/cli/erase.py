"""`c360 erase`: forget a customer, look what that would take, wait for the proof, and look for what is left."""

from __future__ import annotations

import secrets
import sys
import time
from pathlib import Path
from typing import Any

import click
import msgspec

from c360.agents.erasure import Ordered
from c360.cli.audit import reason_option, run_of, user, who_option, why_of
from c360.cli.common import Context, broker_option, handled, json_option, pass_context, print_json, stderr
from c360.clock import system
from c360.engine.transport import Cluster
from c360.errors import UsageError
from c360.governance.names import Names
from c360.ops import erase as erasing
from c360.ops import profiles
from c360.ops.audit import Told
from c360.plan import Plan

LOOK_S = 0.5


@click.command()
@click.argument("identifier", metavar="NAMESPACE:VALUE")
@click.option("--dry-run", is_flag=True, help="Only say whose profile would go.")
@click.option("--execute", is_flag=True, help="Ask for it. Without this, nothing is asked.")
@click.option("--wait", is_flag=True, help="Until it is proven; then print the certificate.")
@click.option("--check", "look", is_flag=True, help="Look for what is left. Exit 1 if a promise does not hold.")
@click.option(
    "--values",
    "values_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="With --check: personal values to look for, one a line.",
)
@click.option("--lift", is_flag=True, help="With --execute: end the suppression. What was erased stays so.")
@reason_option
@who_option
@json_option
@broker_option
@pass_context
@handled
def erase(
    context: Context,
    identifier: str,
    dry_run: bool,
    execute: bool,
    wait: bool,
    look: bool,
    values_file: Path | None,
    lift: bool,
    reason: str | None,
    who: str | None,
    as_json: bool,
    broker: str | None,
) -> None:
    """Forget the customer who has an identifier: all of the profile, everywhere, with proof."""
    plan, cluster = context.plan, context.cluster(broker)
    if not plan.erases:
        raise UsageError(
            f"{plan.app!r} seals nothing and has no personal identifiers, so nobody can be erased: type a field with"
            " Personal[…], or declare where people ask with @app.erasure"
        )
    vault = context.vault(cluster)
    assert vault is not None
    label = profiles.normalized(plan, identifier, vault.names)
    request = erasing.request_of(plan, cluster, vault.names.veil(label), label)
    who_goes = erasing.profile_of(plan, cluster, label)
    if execute and not dry_run:
        order = Ordered(identifier=label, reason=why_of(reason), who=who or user(), ticket=secrets.token_hex(8))
        if lift:
            if request is None:
                raise UsageError(f"no erasure of {identifier} stands that could be lifted")
            order = Ordered(lift=request, reason=order.reason, who=order.who, ticket=order.ticket)
        with run_of(context, cluster, who, reason) as run:
            told = Told("erase lift" if lift else "erase", about=(vault.names.veil(label),))
            run.say("done", told, [erasing.message(plan, order)])
        request = request if lift else erasing.named(plan, cluster, order.ticket)
        if wait:
            _wait(plan, cluster, str(request), lift=lift, quiet=as_json)
    elif wait and request is not None:
        _wait(plan, cluster, request, lift=False, quiet=as_json)
    found = _found(
        context, plan, cluster, vault.names, label, request, who_goes, values_file if look else None, look=look
    )
    if as_json:
        print_json(found)
    else:
        _show(found, identifier, execute=execute)
    if look and not all(place["holds"] for place in found["check"]):
        sys.exit(1)


def _wait(plan: Plan, cluster: Cluster, request: str, *, lift: bool, quiet: bool) -> None:
    said = ""
    while True:
        there = erasing.where(plan, cluster, request)
        if there is not None:
            stage = there.stage.value
            if there.stage.name == "LIFTED" if lift else there.stage.name in ("PROVEN", "LIFTED"):
                return
            now = f"{stage}: waits for {', '.join(there.waits) or 'the erasure agent'}"
        else:
            now = "asked: waits for a worker that runs the erasure agent"
        if now != said and not quiet:
            stderr.print(now, style="dim")
        said = now
        time.sleep(LOOK_S)


def _found(
    context: Context,
    plan: Plan,
    cluster: Cluster,
    names: Names,
    label: str,
    request: str | None,
    who_goes: erasing.Profile,
    values_file: Path | None,
    *,
    look: bool,
) -> dict[str, Any]:
    there = None if request is None else erasing.where(plan, cluster, request)
    certificate = None if request is None else erasing.certificate_of(plan, cluster, request)
    places: list[erasing.Place] | None = None
    if look:
        ids = erasing.words_of(plan, cluster, request, label)
        values = [] if values_file is None else [line for line in values_file.read_text().splitlines() if line.strip()]
        places = erasing.check(plan, cluster, ids, values, context.settings.state_dir, system())
    tombstones: dict[str, int] = {}
    for receipts in () if certificate is None else certificate.agents:
        for topic, count in receipts.tombstones.items():
            tombstones[topic] = tombstones.get(topic, 0) + count
    return {
        "request": request,
        "identifier": names.veil(label),
        "stage": None if there is None else there.stage.value,
        "waits": [] if there is None else list(there.waits),
        "subjects": who_goes.subjects if certificate is None else [s.subject for s in certificate.subjects],
        "identifiers": who_goes.identifiers if certificate is None else list(certificate.identifiers),
        "beside": who_goes.beside if certificate is None else list(certificate.beside),
        "topics": []
        if certificate is None
        else [
            {"topic": t.topic, "policy": t.policy, "tombstones": tombstones.get(t.topic, 0), "gone_by": t.gone_by}
            for t in certificate.topics
        ],
        "readable_bytes": None if places is None else sum(place.values for place in places if place.policy != "user"),
        "check": None if places is None else [{**place._asdict(), "holds": place.holds} for place in places],
        "certificate": None if certificate is None else msgspec.to_builtins(certificate),
    }


def _show(found: dict[str, Any], identifier: str, *, execute: bool) -> None:
    click.echo(
        f"{identifier}: {found['stage'] or 'not asked'}" + (f", request {found['request']}" if found["request"] else "")
    )
    for name in ("subjects", "identifiers", "beside"):
        click.echo(f"  {name}: {', '.join(found[name]) or 'none'}")
    if found["waits"]:
        click.echo(f"  waits for {', '.join(found['waits'])}")
    for topic in found["topics"]:
        unbounded = f"no bound by its settings: set {BOUND_BY[topic['policy']]} (c360 topics check)"
        by = unbounded if topic["gone_by"] is None else f"bytes gone by {_day(topic['gone_by'])}"
        click.echo(f"  {topic['topic']} ({topic['policy']}): {topic['tombstones']} tombstones, {by}")
    if found["certificate"] is not None and found["certificate"]["state_gone_by"]:
        click.echo(f"  state directories of workers that run: swept by {_day(found['certificate']['state_gone_by'])}")
    for place in found["check"] or ():
        holds = "holds" if place["holds"] else "DOES NOT HOLD"
        click.echo(
            f"  {place['place']}: {place['promise']}: {holds} ({place['ids']} ids, {place['values']} bytes of values, and"
            f" {place['before']} that compaction will take)"
        )
    if not execute and found["request"] is None:
        click.echo("nothing was asked; with --execute --reason TEXT all of this is forgotten")


BOUND_BY = {"compact": "max.compaction.lag.ms", "delete": "retention.ms", "user": "its retention.ms; it is yours"}


def _day(ms: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(ms / 1000))
