"""The ``promptcblue-metric`` command, and what the three commands share."""

import sys
from importlib import import_module


def start(module: str) -> None:
    """Run the ``main`` of a command's module; Ctrl-C ends it in one line while its libraries are being read, too."""
    try:
        import_module(module).main()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


def metric() -> None:
    """Entry point of ``promptcblue-metric``."""
    start("promptcblue_metric.cli.main")
