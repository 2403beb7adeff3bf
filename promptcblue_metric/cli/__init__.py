"""The ``promptcblue-metric`` command, and what the three commands share."""

import sys
from importlib import import_module
from typing import NoReturn

#: The exit code after Ctrl-C.
INTERRUPTED = 130


def start(module: str) -> None:
    """Run the ``main`` of a command's module; Ctrl-C ends it in one line while its libraries are being read, too."""
    try:
        import_module(module).main()
    except KeyboardInterrupt:
        interrupted()


def interrupted() -> NoReturn:
    """End after Ctrl-C."""
    print("interrupted", file=sys.stderr)
    sys.exit(INTERRUPTED)


def metric() -> None:
    """Entry point of ``promptcblue-metric``."""
    start("promptcblue_metric.cli.main")
