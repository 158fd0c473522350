"""The command line. Commands parse, call the rooms that do the work, and print; nothing is decided here."""

from __future__ import annotations

import sys

from c360.cli.common import stderr
from c360.cli.main import cli


def main() -> None:
    """Entry point of the `c360` script."""
    try:
        cli(prog_name="c360")
    except BrokenPipeError:  # the reader of our output has gone: `c360 … | head`
        sys.stderr.close()
        sys.exit(0)
    except KeyboardInterrupt:
        stderr.print("interrupted")
        sys.exit(130)
