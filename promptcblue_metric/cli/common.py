"""What the three commands share: how errors reach the user, and how a command starts."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import typer

from ..errors import PromptCBLUEError

if TYPE_CHECKING:
    from rich.console import Console

#: The extra that brings each library which only some commands need.
EXTRAS = {
    **dict.fromkeys(("accelerate", "peft", "torch", "transformers", "trl"), "train"),
    "bitsandbytes": "quantize",
    "openai": "openai",
    "ray": "ray",
    "vllm": "vllm",
}


def make_app(help_text: str) -> typer.Typer:
    """A command line of ours, without sub-commands yet."""
    return typer.Typer(
        help=help_text,
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )


def make_console() -> Console:
    """A console that fits its terminal, and is wide enough for any table where there is none."""
    from rich.console import Console

    console = Console()
    # A pipe or a file has no width to fit into.
    return console if console.is_terminal else Console(width=200, file=console.file)


def run(app: Callable[[], object]) -> None:
    """Run a command line; an expected error becomes one line on stderr and exit code 1, Ctrl-C exit code 130."""
    try:
        app()
    except PromptCBLUEError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except ModuleNotFoundError as error:
        library = (error.name or "").partition(".")[0]
        if library not in EXTRAS:
            raise
        print(f"error: this needs {library}: pip install 'promptcblue[{EXTRAS[library]}]'", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        # The reader of our output went away, as `| head` does.
        sys.stderr.close()
        sys.exit(0)
