"""`c360 demo` and `c360 bench`."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import click
from rich.console import Group
from rich.live import Live
from rich.table import Table

from c360.cli.common import RATE, Context, handled, json_option, pass_context, print_json, set_up_logging, stderr
from c360.engine.transport import Cluster
from c360.errors import UsageError
from c360.governance.keys import MasterKeys
from c360.governance.sealing import is_sealed
from c360.ops.demo import Demo, Glance, Summary, shop
from c360.tables.store import MemoryStores, Stores

EMBEDDED = "embedded"
DEMO_START_MS = 1_767_225_600_000  # 2026-01-01: the embedded demo is the same every time
NOT_THERE = (
    "embedded: the production loop, transactions and tables on an in-memory log.\n"
    "Not there: durability (all is gone at the end) and other processes. For those: c360 dev kafka, then --broker"
)


@click.command()
@click.option("--broker", default=EMBEDDED, show_default=True, help="embedded, or HOST:PORT of a Kafka.")
@click.option(
    "--events", type=click.IntRange(1), default=20_000, show_default=True, help="How many raw records, with --once."
)
@click.option("--rate", type=RATE, default=200.0, show_default=True, help="Records a second, without --once.")
@click.option("--once", is_flag=True, help="Stop when all is folded; verify; print a summary.")
@json_option
@pass_context
@handled
def demo(context: Context, broker: str, events: int, rate: float, once: bool, as_json: bool) -> None:
    """A shop's traffic through the ordinary worker, and its profiles as they grow."""
    if as_json and not once:
        raise UsageError("--json prints the summary, which there is with --once only")
    set_up_logging(level=30)
    embedded = broker == EMBEDDED
    if not as_json:
        stderr.print(NOT_THERE if embedded else f"on Kafka at {broker}", style="dim")
    plan = shop().plan()
    now_ms = time.time_ns() // 1_000_000
    # On a broker every run is new traffic: what an earlier one left there would be its duplicates.
    seed, start_ms = (7, DEMO_START_MS) if embedded else (now_ms % 1_000_000_007, now_ms)
    with _place(context, broker) as (cluster, stores):
        running = Demo(plan, cluster, stores, slot="demo", master=None if embedded else _keys(context))
        with _screen(quiet=as_json) as show:
            if not once:
                with contextlib.suppress(KeyboardInterrupt):
                    running.run(rate, seed, start_ms, show)
                return
            summary = running.run_once(events, seed, start_ms, show)
    if as_json:
        print_json(summary.to_json())
    else:
        click.echo(text_of(summary))
    sys.exit(1 if summary.differences else 0)


def _keys(context: Context) -> MasterKeys:
    """Keys that outlive the demo, as what it writes to a broker does: those of C360_KEYS, or a file in the state directory."""
    from c360.ops.keys import init_keys, open_master

    if context.settings.keys is not None:
        return context.master()
    path = context.settings.state_dir / "demo.keys"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        init_keys(path, os.urandom)
    return open_master(str(path), context.key_token)


def text_of(summary: Summary) -> str:
    checked = (
        "recomputed from the raw topics: no differences"
        if not summary.differences
        else f"recomputed from the raw topics: {summary.differences} DIFFERENCES"
    )
    return _profiles(summary, checked) + _rights(summary)


def _profiles(summary: Summary, checked: str) -> str:
    return (
        f"{summary.events} records became {summary.profiles} profiles in {summary.seconds} s, {summary.merged} cookies joined"
        f" to whose they are;"
        f" {summary.duplicates} duplicates dropped, {summary.misfits} misfits in the dead-letter topic; {checked}"
    )


def _rights(summary: Summary) -> str:
    if summary.rights is None:
        return ""
    withdrawal, forgotten = summary.rights.withdrawal, summary.rights.forgotten
    proof = forgotten.certificate
    keys = sum(len(subject.keys) for subject in proof.subjects)
    tombstones = sum(sum(receipts.tombstones.values()) for receipts in proof.agents)
    return (
        f"\n{withdrawal.customer} withdrew consent: {withdrawal.ms} ms later the newsletter's sink holds"
        f" {withdrawal.held_after} instead of {withdrawal.held_before} customers"
        f"\n{forgotten.customer} was forgotten: {len(proof.subjects)} subjects and {len(proof.identifiers)} identifiers,"
        f" {keys} keys destroyed, {tombstones} tombstones, {len(proof.agents)} receipts; profiles left:"
        f" {forgotten.left}; certificate {proof.request}"
    )


@contextlib.contextmanager
def _place(context: Context, broker: str) -> Iterator[tuple[Cluster, Stores]]:
    """Where the demo runs: a cluster and stores for it."""
    if broker == EMBEDDED:
        from c360.engine.memory import MemoryCluster

        yield MemoryCluster(), MemoryStores()
        return
    from c360.tables.rocks import RocksStores

    with tempfile.TemporaryDirectory(prefix="c360-demo-") as directory:
        yield context.cluster(broker), RocksStores(Path(directory))


@contextlib.contextmanager
def _screen(*, quiet: bool) -> Iterator[Callable[[Glance], None]]:
    """A live table on a terminal, a line now and then elsewhere, nothing with --json."""
    if quiet:
        yield lambda _: None
    elif sys.stdout.isatty():
        with Live(refresh_per_second=8) as live:
            yield lambda glance: live.update(_table(glance))
    else:
        said = [0.0]

        def line(glance: Glance) -> None:
            if glance.seconds - said[0] >= 1:
                said[0] = glance.seconds
                click.echo(
                    f"{glance.seconds:5.1f} s  sent {glance.sent}  governed {glance.folded}  profiles {glance.profiles}"
                    f"  waiting {glance.lag}" + "".join(f"  {who} is {whose}" for who, whose in glance.merges[-1:])
                )

        yield line


def _table(glance: Glance) -> Group:
    head = Table.grid(padding=(0, 3))
    head.add_row(
        f"sent [b]{glance.sent}[/]", f"profiles [b]{glance.profiles}[/]", f"waiting [b]{glance.lag}[/]",
        f"{glance.seconds:.0f} s",
    )  # fmt: skip
    profiles = Table("profile", "of", *(list(glance.examples[0]["attributes"]) if glance.examples else []))
    for example in glance.examples:
        profiles.add_row(
            example["profile_id"], str(example["subjects_total"]), *(_cell(v) for v in example["attributes"].values())
        )
    merges = Table.grid(padding=(0, 3))
    merges.add_row("found to be one:", *(f"{who} → [b]{whose}[/]" for who, whose in glance.merges[-3:]))
    return Group(head, profiles, merges)


def _cell(value: object) -> str:
    if is_sealed(value):
        return "sealed"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    text = "" if value is None else str(value)
    return text if len(text) <= 28 else text[:27] + "…"


@click.command()
@click.option("--broker", help="Kafka, host:port. Default: one is started for the run.")
@click.option(
    "--events", type=click.IntRange(10_000), default=200_000, show_default=True, help="How many raw records to load."
)
@json_option
@pass_context
@handled
def bench(context: Context, broker: str | None, events: int, as_json: bool) -> None:
    """Throughput, CPU per event, restore and latency on this machine, with the null limit beside."""
    from c360.ops.bench import run_bench

    set_up_logging(level=30)
    if broker is not None:
        result = run_bench(context.cluster(broker), shop().plan(), events, stderr.print)
    else:
        from c360.engine.kafka import KafkaCluster
        from c360.ops.dev_kafka import start

        running = start()
        try:
            result = run_bench(KafkaCluster(running.bootstrap), shop().plan(), events, stderr.print)
        finally:
            running.stop()
    if as_json:
        print_json(result)
    else:
        for name, value in result.items():
            click.echo(f"{name}: {value}")
