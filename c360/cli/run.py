"""Commands that run for long: worker, dev kafka, load."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import click
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from c360.assembly import Worker, tune_process
from c360.cli.common import (
    RATE,
    Context,
    Group,
    broker_option,
    handled,
    json_option,
    pass_context,
    print_json,
    set_up_logging,
    stderr,
)
from c360.engine.loop import LoopSettings
from c360.engine.pace import Pace
from c360.errors import C360Error, EngineFatal, UsageError
from c360.ops.load import RawRecord, read_lines
from c360.ops.load import load as load_records
from c360.ops.pace import follow, read_pace
from c360.ops.slot import slot_in
from c360.ops.vault import ServiceAway

if TYPE_CHECKING:
    from c360.agents.user import Calls, UserAgents
    from c360.serving.web import Hosted

STOP_S = 30.0
PORT = click.IntRange(0, 65535)

log = logging.getLogger("c360.worker")


@click.command()
@click.option("--only", help="Agents to run, separated by commas: govern,customer@1. Default: all.")
@click.option(
    "--slot", help="Name of this worker, unique among all. Default: C360_SLOT, else kept in the state directory."
)
@click.option(
    "--processes",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Worker processes under one supervisor, each with a slot and a state directory of its own.",
)
@click.option(
    "--web-port",
    type=PORT,
    help="Port of /health, /ready and /metrics; of several processes, the first's. Default: no web.",
)
@click.option("--web-host", default="127.0.0.1", show_default=True, help="Address of the web.")
@click.option(
    "--commit-ms",
    type=click.IntRange(1, 10_000),
    default=100,
    show_default=True,
    help="Longest time between commits while it keeps up.",
)
@click.option(
    "--adopt", is_flag=True, help="Where a group's offsets differ from the state's positions, take the state's."
)
@click.option(
    "--accept-drift", is_flag=True, help="Go on although what an agent computes is not what it was when it first ran."
)
@click.option("--standby", is_flag=True, help="Keep copies of the tasks that other workers run, to take over sooner.")
@click.option("--number", type=int, hidden=True, help="Which of several processes this is.")
@click.option("--parent", type=int, hidden=True, help="Process id of its supervisor: it stops when that is gone.")
@click.option("--pace-file", type=click.Path(path_type=Path), hidden=True, help="Where it reads how fast it may go.")
@click.option("--niceness", type=int, default=0, hidden=True, help="How far it stands back for others of the machine.")
@broker_option
@pass_context
@handled
def worker(
    context: Context,
    only: str | None,
    slot: str | None,
    web_port: int | None,
    web_host: str,
    commit_ms: int,
    adopt: bool,
    accept_drift: bool,
    standby: bool,
    broker: str | None,
    processes: int,
    number: int | None,
    parent: int | None,
    niceness: int,
    pace_file: Path | None,
) -> None:
    """Run the agents until SIGTERM or Ctrl-C; then commit everything and leave."""
    from c360.tables.budget import Budget
    from c360.tables.rocks import RocksStores

    set_up_logging()
    if niceness:
        os.nice(niceness)
    plan, cluster, settings = context.plan, context.cluster(broker), context.settings
    state_dir, slot = settings.state_dir, slot or settings.slot
    if processes > 1 and number is None:
        if web_port == 0:
            raise UsageError("--web-port 0 with --processes: say a port; each process takes the next")
        sys.exit(_supervise(state_dir, slot, processes))
    if number is not None:
        state_dir, web_port = state_dir / f"process-{number}", None if web_port is None else web_port + number
    # The directory of one of several is its supervisor's: who holds it has lost that one, and stops.
    with slot_in(state_dir, slot, wait_s=STOP_S + 5 if parent is not None else 0.0) as name:
        stores = RocksStores(state_dir / plan.app, Budget(settings.memory_mb << 20))
        if plan.erases:
            stores.keep_swept(settings.sweep_s)
        pace = None if pace_file is None else Pace(read_pace(pace_file))
        running = Worker(
            plan,
            cluster,
            stores,
            name,
            settings=LoopSettings(
                commit_s=commit_ms / 1000, adopt=adopt, accept_drift=accept_drift, standby=standby, pace=pace
            ),
            only=[a.strip() for a in only.split(",")] if only else (),
            fence_max_age_ms=round(settings.fence_max_age_s * 1000),
        )
        if plan.needs_keys:
            running.open_master = context.master
            # What is wrong with the keys is said at once; a service that is away is waited for
            with suppress(ServiceAway):
                running.master = context.master()
        registry = context.registry()
        running.accept_drift, running.registry, running.cloudevents = accept_drift, registry, settings.cloudevents
        running.subjects = registry if settings.writes_avro else None
        log.info("worker %s of %s on %s; state in %s", name, plan.app, cluster.name, state_dir)
        if pace_file is not None and pace is not None:
            threading.Thread(target=follow, args=(pace_file, pace, running.stopping), name="pace", daemon=True).start()
        if parent is not None:
            threading.Thread(target=_stop_with, args=(parent, running), name="parent", daemon=True).start()
        tune_process()
        with stopping_on_signals(running):
            _run_with_web(running, web_port, web_host, settings.kafka, state_dir)


def _supervise(state_dir: Path, slot: str | None, processes: int) -> int:
    """This command once per process, each with its number, until a signal. The exit code."""
    from c360.ops.supervisor import Supervisor

    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with slot_in(state_dir, slot) as name:

        def command(k: int) -> list[str]:
            words = ["--number", str(k), "--parent", str(os.getpid()), "--slot", f"{name}-{k}"]
            return [sys.executable, "-m", "c360", *sys.argv[1:], *words]

        return Supervisor(command, processes, stop_s=STOP_S + 5).run(stop.is_set)


def _stop_with(parent: int, running: Worker) -> None:
    """Stop when the supervisor is gone: nobody else would ever stop this process."""
    while os.getppid() == parent:
        time.sleep(0.5)
    running.stop()


def _run_with_web(
    running: Worker, web_port: int | None, web_host: str, kafka: Mapping[str, str], state_dir: Path
) -> None:
    """The worker, with its web and what Faust runs of it, where there is any. `kafka`: the user's settings for clients."""
    agents, calls = _on_faust(running, kafka, state_dir)
    hosted: list[Hosted] = [*agents, *calls]
    if web_port is None and not hosted:
        running.run()
        return
    from c360.serving.web import Web

    web = Web(
        lambda: running.loops,
        lambda: running.error is None,
        running.cluster,
        port=web_port,
        host=web_host,
        hosted=hosted,
        tables=lambda: running.tables,
        tellers=lambda: running.tellers,
        callers=[each.caller for each in calls],
    )
    running.run(beside=web)


def _on_faust(
    running: Worker, kafka: Mapping[str, str], state_dir: Path
) -> tuple[Sequence[UserAgents], Sequence[Calls]]:
    """The app's own agents and who asks outside, of this worker. Faust is imported only for them."""
    plan = running.plan
    own = bool(plan.user_agents and not running.only)
    outsides = [o for o in plan.outsides if not running.only or o.agent in running.only]
    if not own and not outsides:
        return (), ()
    from c360.agents.user import Calls, UserAgents, home_of

    home, age_ms = home_of(kafka, state_dir / "faust"), running.fence_max_age_ms
    return (
        [UserAgents(plan, running.cluster, home, running.registry)] if own else (),
        [Calls(plan, o, running.cluster, home, lambda: running.known, fence_max_age_ms=age_ms) for o in outsides],
    )


class stopping_on_signals:
    """SIGTERM and SIGINT stop the worker; if it has not stopped after STOP_S seconds, the process ends with an error."""

    def __init__(self, running: Worker) -> None:
        self.running = running

    def __enter__(self) -> None:
        self.before = [(s, signal.signal(s, self._stop)) for s in (signal.SIGTERM, signal.SIGINT)]

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.running.stop()
        late = threading.Timer(STOP_S, self._give_up)
        late.daemon = True
        late.start()

    def _give_up(self) -> None:
        stderr.print(f"c360: not stopped after {STOP_S:.0f} s; ending without the last commit. Nothing is lost")
        os._exit(EngineFatal.exit_code)

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before:
            signal.signal(number, handler)


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--rate", type=RATE, help="At most so many records a second.")
@click.option(
    "--partitions", type=click.IntRange(1), help="Of raw topics that do not exist. Default: as the app, else 4."
)
@json_option
@broker_option
@pass_context
@handled
def load(
    context: Context,
    files: tuple[Path, ...],
    rate: float | None,
    partitions: int | None,
    as_json: bool,
    broker: str | None,
) -> None:
    """Records from JSON lines into raw topics, in file order; topics are created if missing."""
    count = partitions or (context.app.partitions if context.app_name or context.settings.app else 4)

    def records() -> Iterator[RawRecord]:
        for path in files:
            yield from read_lines(path)

    if sys.stderr.isatty():
        columns = (SpinnerColumn(), TextColumn("{task.completed:,.0f} records"), TimeElapsedColumn())
        with Progress(*columns, console=stderr) as bar:
            task = bar.add_task("load", total=None)
            counts = load_records(
                records(), context.cluster(broker), partitions=count, rate=rate, progress=lambda n: bar.advance(task, n)
            )
    else:
        counts = load_records(records(), context.cluster(broker), partitions=count, rate=rate)
    if as_json:
        print_json({"records": sum(counts.values()), "topics": counts})
    else:
        for topic, n in counts.items():
            click.echo(f"{topic}: {n} records")


@click.group(cls=Group)
def dev() -> None:
    """Tools for development."""


@dev.command("kafka")
@click.option("--port", type=PORT, help="Port of the first broker, the others follow. Default: any that is free.")
@click.option("--brokers", type=click.Choice(["1", "3"]), default="1", show_default=True, help="How many.")
@handled
def dev_kafka(port: int | None, brokers: str) -> None:
    """A real Apache Kafka on this machine (JDK and Maven, or docker), until Ctrl-C. Its data is thrown away."""
    from c360.ops.dev_kafka import start

    running = start(brokers=3 if brokers == "3" else 1, port=port)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        click.echo(running.bootstrap)
        ready = f"Kafka is ready. In another terminal: export C360_BROKER={running.bootstrap}   Ctrl-C stops it"
        stderr.print(ready, soft_wrap=True)
        while not stop.wait(0.2):
            if running.ended():
                raise C360Error(f"Kafka has ended by itself. Its log ends with:\n{running.log_text()[-2000:]}")
    finally:
        running.stop()
