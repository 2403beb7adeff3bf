"""What the three commands share: how one starts and ends, the options several have, and what they show."""

from __future__ import annotations

import codecs
import copy
import errno
import inspect
import io
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from itertools import takewhile
from math import inf, nextafter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TextIO, TypeAlias, TypeVar, cast, get_args

import typer

from ..data.samples import STDIN, holds, resolve
from ..data.writing import is_stream
from ..errors import EXTRAS, MissingLibraryError, PromptCBLUEError
from ..evaluation import Parser
from ..scoring import Protocol
from ..version import VERSION

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

ProtocolOption = Annotated[
    Protocol, typer.Option(help="official: equal to the official scorer. paper: the paper's definitions at their word.")
]
ParserOption = Annotated[
    Parser, typer.Option(help="strict: read what the official scorer reads. lenient: what a reader would understand.")
]
ResamplesOption = Annotated[
    int, typer.Option(metavar="N", help="Any number but 0 adds 95% intervals (a jackknife's, whatever N is).")
]
JsonOption = Annotated[Path | None, typer.Option("--json", help="Write the figures, all digits, to this file.")]

Command = TypeVar("Command", bound=Callable[..., Any])

#: Called with what is being done, with which item, and how many items there are (None where that is not known).
Progress: TypeAlias = Callable[[str, str, int | None], object]


class Numbers(NamedTuple):
    """The numbers that a setting may have; never one that is infinite or no number."""

    least: float
    most: float
    expected: str
    whole: bool = False
    #: What it may be beside them; None is always so where it is the default.
    also: tuple[object, ...] = ()

    def hold(self, value: Any) -> bool:
        """Whether a setting may have this value."""
        number = (
            value if isinstance(value, int if self.whole else int | float) and not isinstance(value, bool) else None
        )
        return value in self.also or (number is not None and self.least <= number <= self.most and abs(number) < inf)


_ABOVE_0, _BELOW_1 = nextafter(0, 1), nextafter(1, 0)
_COUNT = Numbers(1, inf, "a whole number of 1 or more", whole=True)
_RANGES: Mapping[Numbers, str] = {
    _COUNT: """
        adalora_interval adalora_target_rank adapter_bottleneck batch_size batch_tokens beams concurrency context
        dataloader_prefetch_factor dataset_num_proc ddp_bucket_cap_mb ddp_timeout encoder_width eval_accumulation_steps
        gradient_accumulation_steps limit lora_alpha lora_rank max_new_tokens number patience
        per_device_eval_batch_size per_device_train_batch_size processes samples_per_prompt score_steps tensor_parallel
        times torch_empty_cache_steps virtual_tokens workers
    """,
    _COUNT._replace(also=(None,)): "max_length",
    _COUNT._replace(also=("auto",), expected=f"{_COUNT.expected}, or auto"): "pad_to_multiple_of",
    Numbers(100, inf, "a whole number of 100 or more", whole=True): "compare.resamples",
    Numbers(0, inf, "a whole number of 0 or more", whole=True): """
        dataloader_num_workers max_skipped resamples retries save_total_limit score_samples steps_after_best
    """,
    Numbers(0.1, inf, "a number of 0.1 or more"): "timeout",
    Numbers(_ABOVE_0, inf, "a number above 0"): """
        adapter_scale eval_steps learning_rate logging_steps lora_plus_ratio save_steps
    """,
    Numbers(0, inf, "a number of 0 or more"): """
        adalora_orthogonality adam_epsilon eval_delay max_grad_norm max_unpacked neftune_noise_alpha price_in price_out
        router_aux_loss_coef temperature warmup_steps weight_decay worker_cpus worker_gpus
    """,
    Numbers(0, 1, "a number from 0 to 1"): "top_p",
    Numbers(0, _BELOW_1, "a number from 0 to below 1"): """
        adalora_end adalora_start adam_beta1 adam_beta2 label_smoothing_factor lora_dropout
    """,
    Numbers(0.5, 0.999, "a number from 0.5 to 0.999"): "confidence",
    Numbers(0, 2**32 - 1, f"a whole number from 0 to {2**32 - 1}", whole=True): "data_seed few_shot_seed seed",
    Numbers(_ABOVE_0, _BELOW_1, "a share between 0 and 1, such as 0.01 for 1%"): "fit_budget",
    Numbers(1, inf, "a whole number of 1 or more, or -1 for num_train_epochs", whole=True, also=(-1,)): "max_steps",
    Numbers(-inf, inf, "a number"): "num_train_epochs",
}
#: What each numeric setting may be, by its name: of every command, of recipes and of the trainer. Before a setting of
#: one command that is another elsewhere stands the command's name.
NUMBERS: Mapping[str, Numbers] = {name: numbers for numbers, names in _RANGES.items() for name in names.split()}


class Place(NamedTuple):
    """What a path of a command is."""

    written: bool
    folder: bool | None
    """None where a file and a folder will do."""


_PLACES: Mapping[Place, str] = {
    Place(written=False, folder=False): "answers files predictions scores sheet templates accept.review test",
    Place(written=False, folder=True): "folder model",
    Place(written=False, folder=None): "adapter cblue.test dataset demonstrations_from raw references source use",
    Place(written=True, folder=False): "json json_path output review",
    Place(written=True, folder=True): """
        cblue.output dry_run harness.output merge.output output_dir report report.output
    """,
    Place(written=True, folder=None): "build_.output export.output import_.output",
}
#: What each path is, by its name, as `NUMBERS` has it. Those of sources can be other things than paths.
PLACES: Mapping[str, Place] = {name: place for place, names in _PLACES.items() for name in names.split()}


def _within(annotation: object, *kinds: type) -> bool:
    """Whether one of the kinds is within an annotation such as ``Annotated[list[Path] | None, ...]``."""
    return annotation in kinds or any(_within(part, *kinds) for part in get_args(annotation))


def check_outputs(*outputs: Path | None, inputs: Iterable[str | Path | None]) -> None:
    """Refuse outputs that would take the place of what is read, or of each other.

    Raises:
        PromptCBLUEError: an output is an input, of what an input holds, or another output, by whatever path.
    """
    read = {resolve(source).resolve() for source in inputs if source is not None}
    written = set[Path]()
    for output in outputs:
        if output is None or is_stream(output):
            continue
        target = output.expanduser().resolve()
        if target in read or any(holds(folder, target) for folder in read):
            raise PromptCBLUEError(f"{output}: is read by this command, and would be overwritten; name another output")
        if target in written:
            raise PromptCBLUEError(f"{output}: is named for two outputs of this command; name another for one of them")
        written.add(target)


def check_place(path: Path, place: Place) -> None:
    """Refuse a path that is not what it is to be, that is not there to be read, or that cannot be written.

    Raises:
        PromptCBLUEError: says which it is.
    """
    kind = {True: "folder", False: "file", None: "file or folder"}[place.folder]
    try:
        if is_stream(path) or (path == STDIN and not place.written):
            if place.folder:
                raise PromptCBLUEError(f"{path}: expected a folder, found a stream")
            return
        if path.exists() and place.folder not in (None, path.is_dir()):
            found = "folder" if path.is_dir() else "file"
            raise PromptCBLUEError(f"{path}: expected a {kind}{' to write' * place.written}, found a {found}")
        if not place.written:
            if not path.exists():
                raise PromptCBLUEError(f"{path}: no such {kind}")
            if not os.access(path, os.R_OK):
                raise PromptCBLUEError(f"{path}: you may not read it")
            return
        above = next(folder for folder in path.absolute().parents if os.path.lexists(folder))
        if not above.is_dir():
            raise PromptCBLUEError(f"{path}: cannot be written: {above} is no folder")
        if not os.access(above, os.W_OK | os.X_OK):
            raise PromptCBLUEError(f"{path}: cannot be written: you may not write to {above}")
    except OSError as error:
        raise PromptCBLUEError(f"{path}: {error.strerror or error}") from error


def _checked(function: Callable[..., object]) -> Callable[..., object]:
    """A command whose numbers and paths are looked at before it does anything, by `NUMBERS` and `PLACES`."""

    def key(table: Mapping[str, object], name: str) -> str:
        return own if (own := f"{function.__name__}.{name}") in table else name

    parameters, numbers, places = [], dict[str, Numbers](), dict[str, Place]()
    for each in inspect.signature(function, eval_str=True).parameters.values():
        kind, *about = get_args(each.annotation) or (each.annotation,)
        if _within(kind, Path, str) and (place := PLACES.get(key(PLACES, each.name))):
            places[each.name] = place
        elif _within(kind, int, float):
            numbers[each.name] = found = NUMBERS[key(NUMBERS, each.name)]
            shown = copy.copy(about[0])  # in the help
            for end, value in (("min", found.least), ("max", found.most)):
                if value not in (-inf, inf, _ABOVE_0, _BELOW_1):
                    setattr(shown, end, value)
            each = each.replace(annotation=Annotated[kind, shown])
        parameters.append(each)

    @wraps(function)
    def run_checked(**options: Any) -> object:
        for name, allowed in numbers.items():
            if options[name] is not None and not allowed.hold(options[name]):
                raise PromptCBLUEError(f"--{name.replace('_', '-')} {options[name]}: expected {allowed.expected}")
        given = [
            (path, place)
            for name, place in places.items()
            for path in (options[name] if isinstance(options[name], list | tuple) else [options[name]])
            if path is not None
        ]
        read = [path for path, place in given if not place.written]
        check_outputs(*(path for path, place in given if place.written), inputs=read)
        for path, place in given:
            if isinstance(path, Path):  # a source can be something else
                check_place(path, place)
        return function(**options)

    run_checked.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run_checked.__annotations__ = {each.name: each.annotation for each in parameters}
    return run_checked


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"promptcblue {VERSION}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


class _App(typer.Typer):
    """A command line whose commands look at their numbers and paths before they do anything."""

    def command(self, *names: Any, **about: Any) -> Callable[[Command], Command]:
        register = super().command(*names, **about)

        def add(function: Command) -> Command:
            register(_checked(function))
            return function

        return add


def make_app(help_text: str, *, part: bool = False) -> typer.Typer:
    """A command line of ours, or a part of one, without sub-commands yet."""
    app = _App(
        help=help_text,
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )
    if not part:
        app.callback()(_options)
    return app


#: Controls (but tab and line feed), directional marks, zero-width characters, line separators, lone surrogates, tags.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)


def visible(text: str) -> str:
    """``text`` with what a reader cannot see, and what a terminal or a text's order obeys, written as ``⟨U+202E⟩``."""
    return _UNSEEN.sub(lambda found: f"⟨U+{ord(found.group()):04X}⟩", text)


#: What stands for our own characters where the output takes ASCII alone; any other is written as ``\\uXXXX``.
_ASCII = {"…": "..", "–": "-", "·": "-", "⟨": "<", "⟩": ">", "⏎": "/"}


def _written_out(error: UnicodeError) -> tuple[str, int]:
    """A handler for characters that an output cannot take."""
    assert isinstance(error, UnicodeEncodeError)
    found = error.object[error.start : error.end]
    plain = (_ASCII.get(char) or char.encode("ascii", "backslashreplace").decode() for char in found)
    return "".join(plain), error.end


codecs.register_error("promptcblue", _written_out)


class _Shown:
    """An output on which every text is seen, whatever it holds, and which ends no command for a character it lacks.

    Args:
        form: what is written as it is before and after a text; three groups.
    """

    def __init__(self, stream: TextIO, form: re.Pattern[str]) -> None:
        self.stream, self._form = stream, form
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="promptcblue")

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        before, said, after = cast(re.Match[str], self._form.fullmatch(text)).groups("")
        self.stream.write(before + visible(said) + after)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)


_TEXT = re.compile("()(.*)()", re.DOTALL)
#: With the moves of a bar that a library shows on stderr.
_BAR = re.compile("(\r|\n*(?:\x1b\\[A)+)?(.*?)(\r?)", re.DOTALL)


@contextmanager
def _all_seen() -> Iterator[None]:
    """Within, whatever is printed is seen and not obeyed; our own tables and bars go by way of `make_console`."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = cast(TextIO, _Shown(sys.stdout, _TEXT)), cast(TextIO, _Shown(sys.stderr, _BAR))
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


#: The exit code after Ctrl-C.
INTERRUPTED = 130


def run(app: Callable[[], object]) -> None:
    """Run a command line; an expected error becomes one line on stderr and exit code 1, Ctrl-C exit code 130."""
    try:
        with _all_seen():
            app()
    except PromptCBLUEError as error:
        print(f"error: {visible(str(error))}", file=sys.stderr)
        sys.exit(1)
    except ModuleNotFoundError as error:
        library = (error.name or "").partition(".")[0]
        if library not in EXTRAS:
            raise
        print(f"error: {MissingLibraryError(library)}", file=sys.stderr)
        sys.exit(1)
    except (KeyboardInterrupt, SystemExit) as end:
        # Typer makes an exit code of Ctrl-C, in silence.
        if isinstance(end, SystemExit) and end.code != INTERRUPTED:
            raise
        print("interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output went away, as `| head` does.
        sys.stderr.close()
        sys.exit(0)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            raise
        print(f"error: the output cannot be written: {error.strerror}", file=sys.stderr)
        # What is left in the buffer would fail once more at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(1)


def printable(text: str) -> str:
    """``text`` as stdout shows it: whatever it holds is seen, and nothing acted upon."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return visible(text).encode(encoding, "promptcblue").decode(encoding)


def make_console(*, stderr: bool = False) -> Console:
    """A console that fits its terminal, and is wide enough for any table where there is none."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    while isinstance(stream, _Shown):
        stream = getattr(stream.stream, "rich_proxied_file", stream.stream)
    console = Console(file=stream)
    # A pipe or a file has no width to fit into.
    return console if console.is_terminal else Console(width=200, file=console.file)


def make_table(*columns: str, texts: int = 1) -> Table:
    """A table of ours, of which the first ``texts`` columns are text and the others numbers."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for place, title in enumerate(columns):
        table.add_column(title, no_wrap=True, justify="left" if place < texts else "right")
    return table


def show(table: Table, lines: Iterable[str] = ()) -> None:
    """Print a table with every figure whole, and lines below it (`show_lines`).

    Where the terminal is too narrow, columns are set closer and words fold, and at last the table is continued below.
    What stands in the cells is never taken for markup.
    """
    console = make_console()
    for place, part in enumerate(_fitted(table, console.width)):
        console.print(*[""] * bool(place), part, sep="\n")
    show_lines(lines)


def show_lines(lines: Iterable[str]) -> None:
    """Print lines, whatever they hold, broken at blanks where a terminal is too narrow; never a signature."""
    console = make_console()
    for line in map(printable, lines):
        whole = not console.is_terminal or line.startswith("signature: ")
        for part in [line] if whole else _broken(line, console.width):
            print(part)


def _broken(line: str, width: int) -> Iterator[str]:
    """The line in parts that fit, but for words that do not: an interval's ends and dash are one."""
    from rich.cells import cell_len

    first, *words = re.split(r"(?<!…) (?!…)", line)
    for word in words:
        if cell_len(f"{first} {word}") > width:
            yield first
            first = word
        else:
            first += f" {word}"
    yield first


#: A column of words does not have to be wider than this.
_FOLDED = 24


def _fitted(table: Table, width: int) -> Iterator[Table]:
    """The table as it is, or set tight, in as many parts as it takes, each of which begins with what names its rows."""
    from rich.cells import cell_len

    cells = [[printable(str(cell)) for cell in (column.header, *column.cells)] for column in table.columns]
    natural = [max(map(cell_len, column)) for column in cells]
    if sum(natural) + 3 * len(natural) - 1 <= width:
        yield _part(table, cells, dict(enumerate(natural)), tight=False)
        return
    least = [_least(found, column.justify == "right") for found, column in zip(cells, table.columns, strict=True)]
    keys = dict(enumerate(least[: _keys(table, cells)]))
    parts = [dict(keys)]
    for place in range(len(keys), len(least)):
        if len(parts[-1]) > len(keys) and sum(parts[-1].values()) + 2 * len(parts[-1]) + least[place] > width:
            parts.append(dict(keys))
        parts[-1][place] = least[place]
    for part in parts:
        left = width - sum(part.values()) - 2 * len(part) + 2
        for place, narrow in part.items():
            part[place] = narrow + min(natural[place] - narrow, max(0, left))
            left -= part[place] - narrow
        yield _part(table, cells, part, tight=True)


def _keys(table: Table, cells: Sequence[Sequence[str]]) -> int:
    """How many of the columns of text at a table's left it takes to tell its rows apart."""
    texts = list(takewhile(lambda place: table.columns[place].justify == "left", range(len(cells))))
    rows = len(cells[0])
    return next((n for n in range(1, len(texts)) if len(set(zip(*cells[:n], strict=True))) == rows), len(texts) or 1)


def _least(cells: Sequence[str], number: bool) -> int:
    """How narrow a column can be: figures are whole, and so are words that are not very long."""
    from rich.cells import cell_len

    words = [word for cell in (cells[:1] if number else cells) for word in cell.split()]
    figures = max(map(cell_len, cells[1:]), default=0) if number else 0
    return max(figures, min(_FOLDED, max(map(cell_len, words), default=0)))


def _part(table: Table, cells: Sequence[Sequence[str]], widths: Mapping[int, int], *, tight: bool) -> Table:
    """Some columns of a table, by number, in these widths."""
    from rich.table import Table
    from rich.text import Text

    part = Table(box=table.box, title=table.title, title_justify=table.title_justify, pad_edge=False)
    if tight:
        part.show_edge, part.padding = False, (0, 1, 0, 0)
    for place, width in widths.items():
        part.add_column(
            Text(cells[place][0]), justify=table.columns[place].justify, width=width, no_wrap=not tight, overflow="fold"
        )
    for number, row in enumerate(table.rows, 1):
        shown = (Text(cells[place][number]) for place in widths)
        part.add_row(*shown, style=row.style, end_section=row.end_section)
    return part


@contextmanager
def progress_bars() -> Iterator[Progress]:
    """Bars on stderr, one for each thing that is done; none where stderr is no terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    text = TextColumn("{task.description}", markup=False)
    columns, console = (text, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()), make_console(stderr=True)
    # What is printed beside the bars goes through rich, which would obey it.
    with Bars(*columns, console=console, disable=not sys.stderr.isatty()) as bars, _all_seen():
        shown = {}

        def on_progress(doing: str, item: str, total: int | None) -> None:
            if doing not in shown:
                shown[doing] = bars.add_task(doing, total=total)
            bars.update(shown[doing], advance=1, description=visible(f"{doing} {item}"))

        yield on_progress


@contextmanager
def status_line() -> Iterator[Callable[[str], object]]:
    """A line on stderr that says what is being done, where that is a terminal."""
    from rich.text import Text

    with make_console(stderr=True).status("") as status, _all_seen():
        yield lambda said: status.update(Text(visible(said)))
