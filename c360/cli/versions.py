"""`c360 versions`, `rebuild`, `promote`, `rollback`, `retire`: the life of versions of a projection."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Table

from c360.cli.audit import reason_option, run_if, run_of, who_option
from c360.cli.common import Context, broker_option, handled, json_option, pass_context, print_json, stderr
from c360.clock import system
from c360.config import environment
from c360.engine.pace import LEAST
from c360.engine.transport import Cluster
from c360.ops import contracts, control
from c360.ops import rebuild as building
from c360.ops import versions as living
from c360.ops.doors import Preview
from c360.ops.doors import preview as preview_of
from c360.ops.pace import NOTHING, Feeler, Felt, Governor, Rate
from c360.ops.profiles import chosen_projection
from c360.ops.slot import slot_in
from c360.ops.supervisor import Supervisor

C = TypeVar("C", bound=Callable[..., Any])
STOP_S = 40.0  # of a worker that commits first
LINE_S = 5.0  # between two lines where there is no terminal
PACE = "pace"  # file in the directory of a rebuild
NICE = 10  # processes that build stand back for those that serve


class MegaBytes(click.ParamType):
    """Megabytes a second, as bytes; or "auto"."""

    name = "MB/s"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Rate:
        if value == "auto":
            return "auto"
        try:
            found = float(value) * 1e6
        except ValueError:
            found = 0.0
        if not LEAST <= found < float("inf"):
            self.fail(f"{value!r} is neither auto nor megabytes a second, {LEAST / 1e6:g} or more", param, ctx)
        return found


def execute_option(command: C) -> C:
    return click.option("--execute", is_flag=True, help="Do it. Without this, only show what would be done.")(command)


def wait_option(command: C) -> C:
    return click.option(
        "--wait", "wait_s", type=click.FloatRange(min=0), default=living.WAIT_S, show_default=True, metavar="SECONDS",
        help="At most so long for all to have read what there was when the command began, and to have switched or stopped.",
    )(command)  # fmt: skip


def acting_options(command: C) -> C:
    """Of commands that decide something, and only look unless they are told to."""
    for option in (broker_option, json_option, who_option, reason_option, execute_option):
        command = option(command)
    return command


def deciding_options(command: C) -> C:
    """Of those that decide something of a version."""
    return wait_option(acting_options(command))


# -------------------------------------------------------------------------------------------------------------- versions
@click.command()
@json_option
@broker_option
@pass_context
@handled
def versions(context: Context, as_json: bool, broker: str | None) -> None:
    """Every version of a projection: its state, how far it is, how large."""
    found = living.versions(context.plan, context.cluster(broker))
    if as_json:
        print_json({"versions": [asdict(version) for version in found]})
        return
    table = Table("version", "state", "progress", "lag", "read", "size", "fingerprint")
    for v in found:
        size = "?" if v.bytes is None else f"{v.bytes / 1e6:,.1f} MB"
        table.add_row(v.agent, v.state, f"{v.progress:.0%}", f"{v.lag:,}", f"{v.records:,}", size, v.fingerprint)
    Console().print(table)


# --------------------------------------------------------------------------------------------------------------- rebuild
@click.command()
@click.argument("agent")
@click.option(
    "--rate",
    type=MegaBytes(),
    metavar="MB/s|auto",
    help="Of all its processes; auto: as fast as live profiles stay as fresh as they are. Default: as fast as it goes.",
)
@click.option("--processes", type=click.IntRange(1), default=1, show_default=True, help="Processes that build it.")
@click.option("--partitions", is_flag=True, help="Show each partition.")
@click.option("--execute", is_flag=True, help="May be said, as to the other commands; it is done without, too.")
@reason_option
@who_option
@json_option
@broker_option
@pass_context
@handled
def rebuild(
    context: Context,
    agent: str,
    rate: Rate,
    processes: int,
    partitions: bool,
    execute: bool,
    reason: str | None,
    who: str | None,
    as_json: bool,
    broker: str | None,
) -> None:
    """Build AGENT ("customer@2") beside the live version. Said again after a crash, it goes on where it was."""
    plan, cluster = context.plan, context.cluster(broker)
    version = living.version_of(plan, agent)
    contracts.wires(plan, context.subjects(), [a.name for a in plan.agents_of(version)])  # as its workers would ask
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    directory = context.settings.state_dir / "rebuild" / plan.agent(version.agent).group
    with slot_in(directory, None) as slot, _shown(partitions=partitions) as say:

        def crew_of(course: building.Course) -> building.Crew:
            only = [course.agent.name, *(view.name for view in course.views)]
            return _processes(context, directory, slot, only, processes, broker)

        with run_of(context, cluster, who, reason) as run, _felt(context, cluster, rate) as felt:
            governor = Governor(directory / PACE, rate, processes, felt)
            quota = building.quota_of(rate, processes)
            built = building.build_told(
                plan, cluster, agent, crew_of, say, stop.is_set, run=run, governor=governor, quota=quota
            )
    if built.state == "ready":
        shutil.rmtree(directory, ignore_errors=True)
    if as_json:
        print_json(
            {
                **asdict(built),
                "rate": round(built.records / built.seconds) if built.seconds else 0,
                "processes": processes,
            }
        )
    elif built.state == "ready":
        click.echo(
            f"{agent} is built: {built.records:,} records in {built.seconds:.0f} s. Ordinary workers go on with it; nobody"
            f" reads it yet. Next: c360 promote {agent}"
        )
    else:
        click.echo(f"stopped; {agent} is not built yet. Say the same again: it goes on")
    sys.exit(0 if built.state == "ready" else 130)


@contextmanager
def _felt(context: Context, cluster: Cluster, rate: Rate) -> Iterator[Callable[[], Felt]]:
    """What live readers feel; looked at only where the pace follows it."""
    if rate != "auto":
        yield lambda: NOTHING
        return
    plan, live = context.plan, control.live_in(context.plan, cluster)
    names = dict.fromkeys(p.name for p in plan.projections)
    topics = [plan.projected(chosen_projection(plan, name, live)) for name in names]
    feeler = Feeler(cluster, topics, plan.partitions)
    feeler.start()
    try:
        yield feeler.felt
    finally:
        feeler.stop()


def _processes(
    context: Context, directory: Path, slot: str, only: list[str], processes: int, broker: str | None
) -> building.Processes:
    """Workers for these agents, with a client id and a state directory of their own."""
    group = directory.name

    def command(k: int) -> list[str]:
        words = [sys.executable, "-m", "c360", "-A", context.name, "worker", "--only", ",".join(only)]
        words += [
            "--number",
            str(k),
            "--parent",
            str(os.getpid()),
            "--slot",
            f"{slot}-{k}",
            "--niceness",
            str(NICE),
            "--pace-file",
            str(directory / PACE),
        ]
        return [*words, *(["--broker", broker] if broker else [])]

    logs = [directory / f"process-{k}.log" for k in range(processes)]
    environ = environment(state_dir=str(directory), kafka_client_id=building.client_id(group))
    return building.Processes(
        Supervisor(command, processes, stop_s=STOP_S, environ=environ, log=lambda k: logs[k]), logs
    )


PHASES = {
    "folding": "folds",
    "writing": "has read all; writes profiles",
    "views": "is written; its views follow",
    "ready": "is built",
}


@contextmanager
def _shown(*, partitions: bool) -> Iterator[Callable[[building.Report], None]]:
    """Where progress is told: bars on a terminal, else a line every few seconds. On standard error."""
    if not stderr.is_terminal:
        yield _Lines(partitions)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f} of {task.total:,.0f}  {task.fields[more]}"),
    )
    with Progress(*columns, console=stderr) as progress:
        yield _Bars(progress, partitions)


class _Lines:
    def __init__(self, partitions: bool) -> None:
        self.partitions, self.said, self.phase = partitions, 0.0, ""

    def __call__(self, report: building.Report) -> None:
        now, standing = time.monotonic(), report.standing
        if now - self.said < LINE_S and standing.phase == self.phase:
            return
        self.said, self.phase = now, standing.phase
        stderr.print(_line(report), highlight=False, soft_wrap=True)
        if self.partitions:
            for partition, (done, total) in sorted(standing.partitions.items()):
                stderr.print(f"  {partition}: {done:,} of {total:,} records", highlight=False)


class _Bars:
    def __init__(self, progress: Progress, partitions: bool) -> None:
        self.progress, self.partitions = progress, partitions
        self.tasks: dict[int | None, TaskID] = {}

    def __call__(self, report: building.Report) -> None:
        standing = report.standing
        self._bar(None, PHASES[standing.phase], standing.done, standing.total, _speed(report))
        if self.partitions:
            for partition, (done, total) in sorted(standing.partitions.items()):
                self._bar(partition, f"  {partition}", done, total, "")

    def _bar(self, of: int | None, words: str, done: int, total: int, more: str) -> None:
        if of not in self.tasks:
            self.tasks[of] = self.progress.add_task(words, total=total, more=more)
        self.progress.update(self.tasks[of], description=words, completed=done, total=total, more=more)


def _line(report: building.Report) -> str:
    done, total = report.standing.done, report.standing.total
    share, speed = done / total if total else 1.0, _speed(report)
    more = f", {speed}" if speed else ""
    return f"{PHASES[report.standing.phase]}: {done:,} of {total:,} records ({share:.0%}){more}"


def _speed(report: building.Report) -> str:
    if report.standing.phase != "folding" or not report.rate:
        return ""
    left = "" if report.eta_s is None else f", {_duration(report.eta_s)} left"
    return f"{report.rate:,.0f} records/s{left}"


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


# --------------------------------------------------------------------------------------------------------------- switching
@click.command()
@click.argument("agent")
@click.option("--preview", is_flag=True, help="Also say what each sink would send: all of the version is judged, once.")
@deciding_options
@pass_context
@handled
def promote(
    context: Context,
    agent: str,
    preview: bool,
    wait_s: float,
    execute: bool,
    reason: str | None,
    who: str | None,
    as_json: bool,
    broker: str | None,
) -> None:
    """Have doors deliver AGENT ("customer@2") instead of the live version: sinks receive what differs, and nothing else."""
    cluster = context.cluster(broker)
    sinks = _previewed(context, cluster, agent) if preview else None
    with run_if(context, cluster, who, reason, execute=execute) as run:
        switch = living.promote(context.plan, cluster, agent, waiting=living.Waiting(wait_s), run=run)
    if sinks is not None and not as_json:
        for name, would in sinks.items():
            held_back = "".join(f"; {count} {reason}" for reason, count in sorted(would.held_back.items()))
            said = f"{would.added} new, {would.changed} changed, {would.removed} removed, {would.unchanged} as they are"
            click.echo(f"{name}: {said}{held_back}")
    by_name = None if sinks is None else {name: vars(would) for name, would in sinks.items()}
    switched = _sinks(context, cluster, switch, wait_s, execute=execute)
    _say_switch(switch, switched, executed=execute, as_json=as_json, more={"preview": by_name})


def _previewed(context: Context, cluster: Cluster, agent: str) -> dict[str, Preview]:
    """What each sink would send."""
    plan, vault = context.plan, context.vault(cluster)
    projection = living.version_of(plan, agent)
    doors = [door for door in plan.doors if door.sink is not None and projection in door.versions]
    wires = contracts.wires(plan, context.subjects(), [door.agent for door in doors])
    return {
        door.agent: preview_of(
            plan, cluster, door, projection.version, vault=vault, clock=system, wire=wires.get(door.agent)
        )
        for door in doors
    }


@click.command()
@click.argument("name")
@deciding_options
@pass_context
@handled
def rollback(
    context: Context,
    name: str,
    wait_s: float,
    execute: bool,
    reason: str | None,
    who: str | None,
    as_json: bool,
    broker: str | None,
) -> None:
    """Have doors deliver the version of NAME ("customer") that was live before."""
    cluster = context.cluster(broker)
    with run_if(context, cluster, who, reason, execute=execute) as run:
        switch = living.rollback(context.plan, cluster, name, waiting=living.Waiting(wait_s), run=run)
    _say_switch(switch, _sinks(context, cluster, switch, wait_s, execute=execute), executed=execute, as_json=as_json)


def _sinks(
    context: Context, cluster: Cluster, switch: living.Switch, wait_s: float, *, execute: bool
) -> dict[str, bool]:
    if not execute:
        return living.switched(context.plan, cluster, switch)
    return living.wait_for_sinks(context.plan, cluster, switch, living.Waiting(wait_s))


def _say_switch(
    switch: living.Switch,
    sinks: dict[str, bool],
    *,
    executed: bool,
    as_json: bool,
    more: Mapping[str, Any] | None = None,
) -> None:
    live = switch.agent if executed or switch.done else switch.away
    if as_json:
        changed = executed and not switch.done
        said = {"projection": switch.projection, "from": switch.away, "to": switch.agent, "executed": changed}
        print_json({**said, "live": live, "sinks": sinks, **(more or {})})
        return
    if switch.done:
        click.echo(f"{live} is live; there was nothing to do")
    elif executed:
        click.echo(f"{live} is live. To go back to {switch.away}: c360 rollback {switch.projection}")
    else:
        click.echo(f"{switch.agent} would be live instead of {live}; nothing was changed; add --execute to do it")
    for name, done in sinks.items() if executed else ():
        click.echo(f"{name} {'delivers it' if done else 'is not through with it yet; it goes on by itself'}")


# ---------------------------------------------------------------------------------------------------------------- retiring
@click.command()
@click.argument("agent")
@click.option("--force", is_flag=True, help="Also the version that a rollback goes back to.")
@deciding_options
@pass_context
@handled
def retire(
    context: Context,
    agent: str,
    force: bool,
    wait_s: float,
    execute: bool,
    reason: str | None,
    who: str | None,
    as_json: bool,
    broker: str | None,
) -> None:
    """Stop AGENT ("customer@1") for good, and delete its topics, groups and state."""
    plan, cluster, state_dir = context.plan, context.cluster(broker), context.settings.state_dir
    with run_if(context, cluster, who, reason, execute=execute) as run:
        gone = living.retire(
            plan, cluster, agent, force=force, waiting=living.Waiting(wait_s), run=run, state_dir=state_dir
        )
    if as_json:
        print_json({**asdict(gone), "executed": execute})
        return
    for what, names in (("topic", gone.topics), ("group", gone.groups), ("directory", () if execute else gone.state)):
        for name in names:
            click.echo(f"{what} {name}: {'deleted' if execute else 'would be deleted'}")
    for name in gone.state if execute else ():
        click.echo(f"directory {name}: still there; its worker deletes it, and nobody reads it any more")
    if not execute:
        click.echo("nothing was changed; add --execute to do it")
