"""A command in a pseudo-terminal of a given width."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

#: What a terminal takes for colours.
_COLOURS = re.compile(r"\x1b\[[\d;]*m")


def in_terminal(columns: int, code: str, *arguments: object, **environment: str) -> tuple[int, str]:
    """Run Python code with its output to a terminal of so many columns.

    Returns:
        The exit code, and all that was written, without colours.
    """
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    known = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TERM": "xterm-256color", **environment}
    for name in ("COLUMNS", "LINES", "NO_COLOR"):
        known.pop(name, None)
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
        env=known,
        cwd=Path(__file__).parents[1],
    )
    os.close(theirs)
    written = b""
    while True:
        try:
            read = os.read(ours, 1 << 16)
        except OSError:  # what Linux says when the other end is closed
            break
        if not read:
            break
        written += read
    os.close(ours)
    return process.wait(timeout=60), _COLOURS.sub("", written.decode(errors="replace")).replace("\r\n", "\n")
