"""`c360 identity …`: look at who is who, correct it, and try rules out."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from c360.cli.audit import run_of, user, who_option, why_of
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
from c360.declare import Source
from c360.errors import UsageError
from c360.governance.names import Names
from c360.ops import control, profiles
from c360.ops import why as explaining
from c360.ops.identity import ask, compare, say
from c360.ops.identity.graph import Facts, Graph, chosen_rules, read_facts
from c360.plan import DEFAULT, Identity, Plan

C = TypeVar("C", bound=Callable[..., Any])


def rules_option(command: C) -> C:
    return click.option(
        "--rules", default=DEFAULT, show_default=True, metavar="NAME[@V]", help="By which rule set; without version the newest."
    )(command)  # fmt: skip


def limit_option(command: C) -> C:
    return click.option(
        "--limit", type=click.IntRange(0), default=20, show_default=True, help="How many examples of each."
    )(command)


def execute_options(command: C) -> C:
    for option in (
        click.option("--execute", is_flag=True, help="Do it. Without this, only show what it would change."),
        click.option("--undo", is_flag=True, help="Take back what was said of these two."),
        who_option,
        click.option("--reason", help="Why; kept with the fact, and in the audit log."),
    ):
        command = option(command)
    return command


@click.group(cls=Group)
def identity() -> None:
    """Who is who and why; corrections; conflicts; how good rules are."""


def facts_of(context: Context, chosen: Identity, broker: str | None, *, quiet: bool) -> Facts:
    """The links that a rule set decides over."""
    plan = context.plan.at(chosen.govern)
    if not quiet:
        stderr.print(f"reading {plan.links} once", style="dim")
    return read_facts(plan, context.cluster(broker))


def names_of(context: Context, broker: str | None, *typed: str) -> Names:
    return context.names(context.cluster(broker), *typed)


def graph_of(context: Context, chosen: Identity, broker: str | None, *, quiet: bool) -> Graph:
    return Graph(facts_of(context, chosen, broker, quiet=quiet), chosen.rules)


# ------------------------------------------------------------------------------------------------------------- looking
@identity.command()
@click.argument("identifier", metavar="NAMESPACE:VALUE")
@rules_option
@json_option
@broker_option
@pass_context
@handled
def show(context: Context, identifier: str, rules: str, as_json: bool, broker: str | None) -> None:
    """The profile of an identifier: its members, what links them, what was refused and why. Exit 1 if nothing is known."""
    plan, chosen = context.plan, chosen_rules(context.plan, rules)
    graph = graph_of(context, chosen, broker, quiet=as_json)
    found = ask.show(plan, chosen, graph, identifier, names_of(context, broker, identifier))
    known = bool(found["profile"] or found["holders_total"])
    if as_json:
        print_json(found)
    elif not known:
        click.echo(f"no fact links {found['identifier']}" + NOBODY.get(found["status"], ""))
    else:
        click.echo("\n".join(_shown(found)))
    sys.exit(0 if known else 1)


NOBODY = {"blocked": ": its value is blocked or not valid", "unknown": "; a subject without links is its own profile"}


def _shown(found: dict[str, Any]) -> list[str]:
    lines = [f"{found['identifier']}: {found['status']}, by {found['rules']}"]
    if found["profile"]:
        lines.append(f"profile {found['profile']} of {', '.join(found['subjects'])}")
        lines.append(f"known as {', '.join(found['identifiers'])}")
    else:
        lines.append(f"it joins nobody; {found['holders_total']} subjects have it")
    lines += [f"  {_link(link)}" for link in found["links"]]
    lines += [f"  {f['subject']} has {f['value']}, which only forbids" for f in found["forbids"]]
    return lines + [f"  {_separated(s)}" for s in found["separated"]]


def _link(link: dict[str, Any]) -> str:
    first = min((s["first_seen"] for s in link["sources"]), default=0)
    by = ", ".join(s["source"] for s in link["sources"])
    text = f"{link['subject']} has {link['identifier']} (by {by}, first {time_text(first)})"
    if link["reason"]:
        text += f", because {link['reason']} ({link['actor']})"
    return text if link["refused"] is None else f"{text} REFUSED: {link['refused']}, {ask.meaning(link['refused'])}"


def _separated(said: dict[str, Any]) -> str:
    why = f", because {said['reason']} ({said['actor']})" if said["reason"] else ""
    return f"{said['subject']} is not {said['other']} (by {said['source']}, since {time_text(said['since'])}){why}"


@identity.command()
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@rules_option
@json_option
@broker_option
@pass_context
@handled
def why(context: Context, a: str, b: str, rules: str, as_json: bool, broker: str | None) -> None:
    """The chain of evidence between two, or why they are not one customer. Exit 1 if they are not."""
    plan, chosen = context.plan, chosen_rules(context.plan, rules)
    names = names_of(context, broker, a, b)
    found = ask.why(plan, chosen, graph_of(context, chosen, broker, quiet=as_json), a, b, names)
    if as_json:
        print_json(found)
    else:
        click.echo("\n".join(_why(found)))
    sys.exit(0 if found["one"] else 1)


def _why(found: dict[str, Any]) -> list[str]:
    a, b = found["a"], found["b"]
    if found["one"]:
        lines = [f"{a} and {b} are one customer, {found['profile'] or a}:"]
    elif not found["linked"]:
        lines = [f"{a} and {b} are not one customer: no fact links them"]
    else:
        lines = [f"{a} and {b} are not one customer. What links them best:"]
    lines += [f"  {_link(link)}" for link in found["chain"]]
    lines += [f"  {r['reason']}: {', '.join(r['values'])}" for r in found["refused"] if r["values"]]
    return lines + [f"  {_separated(s)}" for s in found["separated"]]


@identity.command()
@limit_option
@rules_option
@json_option
@broker_option
@pass_context
@handled
def conflicts(context: Context, limit: int, rules: str, as_json: bool, broker: str | None) -> None:
    """Links that join nobody, by reason; values of too many; components that are quarantined."""
    chosen = chosen_rules(context.plan, rules)
    found = ask.conflicts(chosen, graph_of(context, chosen, broker, quiet=as_json), limit=limit)
    if as_json:
        print_json(found)
        return
    for group in found["deferred"]:
        click.echo(f"{group['reason']}: {group['links']} links ({group['meaning']})")
        for pair in group["examples"]:
            click.echo(f"  {pair['subject']} has {pair['identifier']}")
    for value in found["values"]:
        click.echo(f"{value['value']} is {value['status']}, with {value['neighbours']} links")
    for component in found["quarantined"]:
        click.echo(f"quarantined: {component['nodes']} nodes, such as {', '.join(component['examples'])}")
    if not (found["deferred"] or found["values"] or found["quarantined"]):
        click.echo("no conflicts")


@identity.command()
@limit_option
@rules_option
@json_option
@broker_option
@pass_context
@handled
def stats(context: Context, limit: int, rules: str, as_json: bool, broker: str | None) -> None:
    """Sizes of profiles, and how many facts, nodes, hubs, shared and quarantined there are."""
    chosen = chosen_rules(context.plan, rules)
    found = ask.stats(chosen, graph_of(context, chosen, broker, quiet=as_json), limit=limit)
    if as_json:
        print_json(found)
        return
    click.echo(
        f"{found['facts']['live']} facts of {found['subjects']} subjects and {found['identifiers']} identifiers are"
        f" {found['profiles']} profiles, {found['merged_profiles']} of them of several subjects"
    )
    for size in found["sizes"]:
        to = "and more" if size["to"] is None else "" if size["to"] == size["from"] else f"to {size['to']}"
        click.echo(f"  {size['from']:>4} {to:<9}{size['profiles']:>10} profiles")
    for name in ("shared", "hubs"):
        click.echo(f"{name}: {found[name]['identifiers']} identifiers, {found[name]['subjects']} subjects")
    parts, quarantined = found["components"], found["quarantined"]
    click.echo(
        f"components: largest {parts['largest']} nodes, {parts['above_warning']} above {parts['warning']},"
        f" {quarantined['components']} above the cap of {parts['cap']}"
    )


@click.command("why")
@click.argument("identifier", metavar="NAMESPACE:VALUE")
@click.argument("attribute", required=False)
@click.option("--projection", help="Which projection, or version: customer@2. Default: the live one.")
@json_option
@broker_option
@pass_context
@handled
def why_profile(
    context: Context, identifier: str, attribute: str | None, projection: str | None, as_json: bool, broker: str | None
) -> None:
    """Why a profile is as it is: what joins its subjects, and which records its values come from. Exit 1 if there is none."""
    plan = context.plan
    cluster = context.cluster(broker)
    chosen = profiles.chosen_projection(plan, projection, control.live_in(plan, cluster))
    if not as_json:
        stderr.print("reading profiles, assignments, links and governed records once", style="dim")
    found = explaining.explain(plan, cluster, chosen, identifier, attribute, context.names(cluster, identifier))
    if as_json:
        print_json(found)
    elif found is None:
        click.echo(f"no profile has {identifier}")
    else:
        click.echo("\n".join(_explained(found)))
    sys.exit(0 if found is not None else 1)


def _is_shut(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == {profiles.SEALED}


def _explained(found: dict[str, Any]) -> list[str]:
    lines = [f"{found['profile_id']} of {', '.join(found['subjects'])}"]
    lines += [f"  {_link(link)}" for link in found["links"]]
    for one in found["explained"]:
        value = profiles.SEALED if _is_shut(one["value"]) else repr(one["value"])
        lines.append(f"{one['attribute']} = {value}: {one['rule']} of {', '.join(one['inputs'])}")
        lines += [f"  {r['type']} {r['id'] or ''} of {r['subject']}, {time_text(r['at'])}" for r in one["records"]]
        if one["records_total"] > len(one["records"]):
            lines.append(f"  and {one['records_total'] - len(one['records'])} more")
    return lines


# ---------------------------------------------------------------------------------------------------------- correcting
@identity.command()
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@execute_options
@rules_option
@json_option
@broker_option
@pass_context
@handled
def separate(context: Context, /, a: str, b: str, **options: Any) -> None:
    """Say that two are not one customer; --undo takes it back."""
    _say(context, "separate", (a, b), **options)


@identity.command()
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@execute_options
@rules_option
@json_option
@broker_option
@pass_context
@handled
def join(context: Context, /, a: str, b: str, **options: Any) -> None:
    """Say that two are one customer; --undo takes it back."""
    _say(context, "join", (a, b), **options)


def _say(
    context: Context,
    what: say.What,
    typed: tuple[str, str],
    *,
    reason: str | None,
    who: str | None,
    undo: bool,
    execute: bool,
    rules: str,
    as_json: bool,
    broker: str | None,
) -> None:
    why = why_of(reason) if execute and not undo else reason or ""
    plan, chosen = context.plan, chosen_rules(context.plan, rules)

    def planned_now() -> say.Saying:
        facts = facts_of(context, chosen, broker, quiet=as_json)
        names, now_ms = names_of(context, broker, *typed), time.time_ns() // 1_000_000
        return say.plan_saying(plan, chosen, facts, what, typed, undo=undo, now_ms=now_ms, names=names)

    if execute:
        cluster = context.cluster(broker)
        veil = context.veil(cluster)
        with run_of(context, cluster, who, why) as run:
            planned = planned_now()
            run.say("done", say.told(planned, veil), say.messages(plan, planned.facts, reason=why, actor=who or user()))
    else:
        planned = planned_now()
    if as_json:
        print_json(saying_json(planned, chosen, executed=execute))
        return
    for title, those in (("before", planned.before), ("after", planned.after)):
        click.echo(f"{title}:")
        for profile in those:
            click.echo(f"  {profile.profile} of {', '.join(profile.subjects)}")
    for note in planned.notes:
        click.echo(note)
    click.echo("done; identity takes it from here" if execute else "nothing was changed; add --execute to do it")


def saying_json(planned: say.Saying, chosen: Identity, *, executed: bool) -> dict[str, Any]:
    """What `separate --json` and `join --json` print."""
    return {
        "what": planned.what,
        "undo": planned.undo,
        "executed": executed,
        "rules": f"{chosen.name}@{chosen.version}",
        "subjects": list(planned.subjects),
        "before": [{"profile": p.profile, "subjects": list(p.subjects)} for p in planned.before],
        "after": [{"profile": p.profile, "subjects": list(p.subjects)} for p in planned.after],
        "notes": list(planned.notes),
    }


# -------------------------------------------------------------------------------------------------------------- trying
@identity.command()
@click.option("--rules", required=True, metavar="NAME[@V]", help="The rule set to look at.")
@click.option("--base", default=DEFAULT, show_default=True, metavar="NAME[@V]", help="The one to compare it with.")
@click.option("--max-changed", metavar="P%", help="Exit 1 if more subjects than this share a profile with others.")
@limit_option
@json_option
@broker_option
@pass_context
@handled
def diff(
    context: Context, rules: str, base: str, max_changed: str | None, limit: int, as_json: bool, broker: str | None
) -> None:
    """Which customers would merge or split under another declared rule set, over the facts there are."""
    most = _percent(max_changed)
    one, other = (chosen_rules(context.plan, name) for name in (base, rules))
    found = compare.compare(one, other, facts_of(context, one, broker, quiet=as_json), limit=limit)
    if as_json:
        print_json(found)
    else:
        click.echo(
            f"{found['changed']} of {found['subjects']} subjects ({found['changed_percent']} %) would share a profile with"
            f" others by {found['rules']} than by {found['base']}: {found['merged']} profiles of several of now,"
            f" {found['split']} of now in several"
        )
        for merge in found["merges"]:
            click.echo(f"  {merge['profile']} would be of {', '.join(merge['of'])}")
        for split in found["splits"]:
            click.echo(f"  {split['profile']} would be in {', '.join(split['into'])}")
    sys.exit(1 if most is not None and found["changed_percent"] > most else 0)


def _percent(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        return float(text.removesuffix("%"))
    except ValueError:
        raise UsageError(f"--max-changed {text!r} is no number of percent, such as 2%") from None


@identity.command()
@click.argument("more", metavar="[FILE]...", nargs=-1)
@click.option(
    "--records", multiple=True, required=True, metavar="FILE",
    help="CSV or JSON lines with the columns that the source declares, plain or gzip; more may follow, also as SOURCE=FILE.",
)  # fmt: skip
@click.option("--truth", required=True, metavar="FILE", help="CSV with the columns record_id and entity.")
@click.option("--source", metavar="NAME", help="The source of the records, if the app has several.")
@rules_option
@json_option
@pass_context
@handled
def evaluate(
    context: Context,
    more: Sequence[str],
    records: Sequence[str],
    truth: str,
    source: str | None,
    rules: str,
    as_json: bool,
) -> None:
    """How good rules are on records of which the truth is known: precision and recall of pairs. Needs no broker."""
    from c360.ops.identity import evaluate as evaluating

    plan, chosen = context.plan, chosen_rules(context.plan, rules)
    files = [_file(plan, source, name) for name in (*records, *more)]
    result = evaluating.evaluate(plan, chosen, files, Path(truth)).to_json()
    if as_json:
        print_json(result)
        return
    for name, value in result.items():
        click.echo(f"{name}: {', '.join(f'{k} {v}' for k, v in value.items()) if isinstance(value, dict) else value}")


def _file(plan: Plan, source: str | None, name: str) -> tuple[Source, Path]:
    """A file and the source it is of: "SOURCE=FILE", else `--source`, else the only one."""
    before, equals, after = name.partition("=")
    named = {n: s for s in plan.sources for n in (s.name, s.topic)}
    if equals and before in named:
        return named[before], Path(after)
    if source is None and len(plan.sources) == 1:
        return plan.sources[0], Path(name)
    if source is None or source not in named:
        known = ", ".join(s.name for s in plan.sources)
        raise UsageError(f"which source are the records of? {plan.app!r} has {known}; say --source NAME")
    return named[source], Path(name)
