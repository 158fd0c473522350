"""`c360 collect`: calls of Segment's libraries over HTTP, into the app's raw topics."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

import click

from c360.cli.common import Context, broker_option, handled, pass_context, set_up_logging, stderr


@click.command()
@click.option(
    "--keys",
    "path",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="File of the write keys, one a line, mode 0600; `KEY TOPIC` where the app reads calls from several topics.",
)
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="0: any that is free.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--waiting-mb",
    type=click.IntRange(1),
    default=32,
    show_default=True,
    help="So much may wait to be written; then requests are answered with 429.",
)
@broker_option
@pass_context
@handled
def collect(context: Context, path: Path, port: int, host: str, waiting_mb: int, broker: str | None) -> None:
    """Answer POST /v1/track, identify, page, screen, group, alias and batch; until SIGTERM or Ctrl-C."""
    from c360.serving.collect import Collector, Writer, read_keys, serve

    set_up_logging()
    plan = context.plan
    collector = Collector(plan, read_keys(path, plan), Writer(context.cluster(broker), most_bytes=waiting_mb << 20))
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())

    def ready(found: int) -> None:
        stderr.print(f"calls for {plan.app} at http://{host}:{found}/v1/", soft_wrap=True, highlight=False)

    serve(collector, host, port, stopping, ready)
