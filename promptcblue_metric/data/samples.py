"""Samples from wherever they are: files of JSON Lines or Parquet, folders, the embedded sample, or the Hub.

The only loader: every command of the three packages reads samples through `iter_samples` or `load_samples`. The rows of
a file are read one by one, with errors that name file, line and field (formats.md section 1).
"""

from __future__ import annotations

import codecs
import gzip
import io
import json
import re
import shutil
import sys
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO, NoReturn, cast

from ..errors import PromptCBLUEError, RowError, UnknownTaskError
from ..tasks import REGISTRY, SUITES, Task, get_task
from ..tasks import Sample as Sample
from .writing import is_stream

#: Each split of the dataset, in its order, and the names its file can have (the first is the official one).
SPLITS: Mapping[str, tuple[str, ...]] = {
    "train": ("train",),
    "validation": ("dev", "validation"),
    "test": ("test",),
}
#: The word that names the embedded sample where a source is asked for, that of the paper's tasks; with ``:SUITE``, that
#: of a later edition.
SAMPLE = "sample"
#: The config of a dataset that holds the samples of every task.
ALL = "all"
#: How many bad rows a message lists before it only counts them.
LISTED = 20

#: So much of a file's start tells its encoding.
_LOOKED_AT = 1 << 16
_SUFFIXES = (".json", ".jsonl", ".json.gz", ".jsonl.gz")
_HUB_ID = re.compile(r"([\w-][\w.-]*/)?[\w-][\w.-]*")
_FILE_ENDINGS = (".json", ".jsonl", ".gz", ".parquet")


#: The path that stands for the standard input.
STDIN = Path("-")


class BadRows(list[RowError]):
    """The bad rows of a file, collected so that one run reports them all."""

    def stop_if_any(self, remedy: str) -> None:
        """Raise `PromptCBLUEError` that lists what was collected and says how to go on."""
        if self:
            listed = [str(error) for error in sorted(self, key=lambda error: error.line)[:LISTED]]
            if len(self) > LISTED:
                listed.append(f"… and {len(self) - LISTED} more")
            raise PromptCBLUEError("\n".join([f"{len(self)} bad row(s); {remedy}", *listed]))


@cache
def _streamed(path: Path, number: int) -> bytes:
    """All that a pipe (with this inode) or the standard input gives, which is read once and looked at more often."""
    return path.read_bytes() if number else sys.stdin.buffer.read()


def open_binary(path: Path) -> BinaryIO:
    """Open a file, a pipe, or the standard input by the name ``-``, for reading; gzip is known by its first bytes.

    Raises:
        PromptCBLUEError: there is no such file, or it cannot be opened.
    """
    content: bytes | None = None
    try:
        if path == STDIN or is_stream(path):
            content = _streamed(path, 0 if path == STDIN else path.stat().st_ino)
        opened = path.open("rb", 0) if content is None else io.BytesIO(content)
    except OSError as error:
        raise PromptCBLUEError(f"{path}: {error.strerror or error}") from error
    stream = io.BufferedReader(opened, _LOOKED_AT)
    return cast(BinaryIO, gzip.open(stream) if stream.peek(2)[:2] == b"\x1f\x8b" else stream)


def _decodes(start: bytes) -> bool:
    """Whether a text that may be cut anywhere is in UTF-8."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(start)
    except UnicodeDecodeError:
        return False
    return True


def other_encoding(start: bytes) -> str | None:
    """What to do about a text of which most lines are not in UTF-8; None where they are.

    Args:
        start: its first bytes; the last line may be cut off.
    """
    encoding = "UTF-16" if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "GB18030"
    if encoding == "GB18030" and b"\0" in start:  # no byte order mark: the zeros of ASCII tell
        encoding = "UTF-16LE" if start[1::2].count(0) > start[::2].count(0) else "UTF-16BE"
    lines = [line for line in start.split(b"\n") if not line.isascii()]
    if encoding == "GB18030" and sum(not _decodes(line) for line in lines) * 2 <= len(lines):
        return None
    return f"is not in UTF-8; convert it, as with `iconv -f {encoding} -t UTF-8`"


def _stop_at_other_encoding(path: str | Path, start: bytes) -> None:
    """Refuse JSON Lines in another encoding; a few broken lines among others are errors of their own."""
    lines = [line.isascii() and b"\0" not in line for line in start.split(b"\n") if line.strip()]
    if sum(lines) * 2 <= len(lines) and (problem := other_encoding(start)):
        raise PromptCBLUEError(f"{path}: {problem}")


def seekable(path: str | Path) -> BinaryIO:
    """A file as `open_binary` opens it, of which any place is read in reasonable time: of what is compressed, a copy.

    Raises:
        PromptCBLUEError: as `open_binary`, or it cannot be read to its end.
    """
    stream = open_binary(Path(path))
    if not isinstance(stream, gzip.GzipFile):
        return stream
    with stream, _readable(path):
        unpacked = cast(BinaryIO, TemporaryFile(buffering=_LOOKED_AT))  # noqa: SIM115 - the caller's
        shutil.copyfileobj(stream, unpacked)
    unpacked.seek(0)
    return unpacked


def numbered_lines(stream: BinaryIO, path: str | Path) -> Iterator[tuple[int, int, bytes]]:
    """The lines of JSON Lines that are not blank, with their 1-based numbers and their offsets.

    Raises:
        PromptCBLUEError: the file cannot be read to its end, or is in another encoding.
    """
    offset = 0
    with _readable(path):
        _stop_at_other_encoding(path, cast(io.BufferedReader, stream).peek(_LOOKED_AT))
        for number, line in enumerate(stream, 1):
            if line.strip():
                yield number, offset, line
            offset += len(line)


@contextmanager
def _readable(path: str | Path) -> Iterator[None]:
    """Turn a failure to read into an error that names the file."""
    try:
        yield
    except (OSError, EOFError, zlib.error) as error:
        raise PromptCBLUEError(f"{path}: cannot be read to its end: {error}") from error


def parse_json_line(content: bytes, path: str | Path, line: int) -> dict[str, object]:
    """The object on a line of a JSON Lines file.

    Raises:
        RowError: the line holds no JSON object in UTF-8.
    """
    try:
        row = json.loads(content.decode("utf-8-sig" if line == 1 else "utf-8"))
    except (ValueError, RecursionError) as error:
        raise RowError(str(path), line, None, f"expected one JSON object in UTF-8 a line: {error}") from error
    if not isinstance(row, dict):
        raise RowError(str(path), line, None, f"expected one JSON object a line, found a {type(row).__name__}")
    return row


def read_json_lines(path: str | Path, bad: BadRows | None = None) -> Iterator[tuple[int, dict[str, object]]]:
    """The objects of a JSON Lines file (gzipped or not) with their 1-based line numbers; blank lines are passed over.

    Args:
        bad: collects the lines that hold no JSON object; without it the first one ends the reading.
    """
    with open_binary(Path(path)) as stream:
        for number, _, content in numbered_lines(stream, path):
            try:
                row = parse_json_line(content, path, number)
            except RowError as error:
                if bad is None:
                    raise
                bad.append(error)
            else:
                yield number, row


def task_of(name: str, path: str | Path, line: int) -> Task:
    """The task that a row names; raises `RowError` where there is none of the name."""
    try:
        return get_task(name)
    except UnknownTaskError as error:
        raise RowError(str(path), line, "task_dataset", str(error)) from error


def choices_of(row: Mapping[str, object], path: str | Path, line: int) -> list[str] | None:
    """The answer choices of a row; raises `RowError` where they are something else."""
    choices = row.get("answer_choices")
    if choices is None or (isinstance(choices, list) and all(isinstance(item, str) for item in choices)):
        return choices
    raise RowError(str(path), line, "answer_choices", f"expected a list of strings or null, found {choices!r:.80}")


def sample_from_row(row: Mapping[str, object], path: str | Path, line: int) -> Sample:
    """Check a row and return it in the current spelling (``type`` is v0.1's ``task_type``; aliases become configs).

    Raises:
        RowError: a field is missing, of the wrong type, or not what the task needs.
    """

    def fail(field: str, message: str) -> NoReturn:
        raise RowError(str(path), line, field, message)

    def text(field: str, *old_names: str) -> str:
        for name in (field, *old_names):
            if name in row:
                value = row[name]
                return value if isinstance(value, str) else fail(name, f"expected a string, found {value!r:.80}")
        return fail(field, f"missing; the row has {', '.join(sorted(map(str, row))) or 'no fields'}")

    task = task_of(text("task_dataset"), path, line)
    prompt, target = text("input"), text("target")
    if not prompt.strip():
        fail("input", "expected a prompt, found an empty string")
    choices = choices_of(row, path, line)
    if task.format.needs_choices and not choices:
        fail("answer_choices", f"{task.name} needs the choices its prompt offers, found {choices!r}")
    sample: Sample = {
        "input": prompt,
        "target": target,
        "answer_choices": choices,
        "sample_id": text("sample_id"),
        "task_type": text("task_type", "type"),
        "task_dataset": task.name,
    }
    if isinstance(template := row.get("template"), str):
        sample["template"] = template
    return sample


def canonical_split(split: str) -> str:
    """``train``, ``validation`` or ``test``; ``dev`` is the official spelling of ``validation``.

    Raises:
        PromptCBLUEError: no split is called so.
    """
    for name, spellings in SPLITS.items():
        if split in (name, *spellings):
            return name
    raise PromptCBLUEError(f"unknown split '{split}'; the splits are train, validation (or dev) and test")


def split_files(folder: Path) -> dict[str, Path]:
    """The split files of an official folder, by split; a split without a file is left out.

    Raises:
        PromptCBLUEError: a split has several files, so that it is not clear which one is meant.
    """
    found: dict[str, Path] = {}
    for split, stems in SPLITS.items():
        paths = [path for stem in stems for suffix in _SUFFIXES if (path := folder / f"{stem}{suffix}").is_file()]
        if len(paths) > 1:
            names = ", ".join(path.name for path in paths)
            raise PromptCBLUEError(f"{folder}: several files for the {split} split ({names}); keep one of them")
        if paths:
            found[split] = paths[0]
    return found


def official_files(folder: Path) -> dict[str, list[Path]]:
    """The files of each split of an official folder; a later edition's embedded sample goes on from that it lies in."""
    files = split_files(folder)
    before = split_files(folder.parent) if folder.parent.name == SAMPLE and folder.name in SUITES else {}
    return {split: [*([before[split]] if split in before else []), path] for split, path in files.items()}


def parquet_files(folder: Path) -> dict[str, dict[str, list[Path]]]:
    """The Parquet files of an imported folder, by config and split; empty where the folder is no such folder."""
    found: dict[str, dict[str, list[Path]]] = {}
    for config in REGISTRY:
        splits = {split: sorted((folder / config).glob(f"{split}-*.parquet")) for split in SPLITS}
        if files := {split: paths for split, paths in splits.items() if paths}:
            found[config] = files
    return found


#: What tells a thing of ours that commands write: files in a folder, files beside it, fields of a JSON file.
_WITHIN = ({"report.json", "report.md"}, {"run.json"})
_BESIDE = ("{}-import-report.json", "{}-build-report.json", "{}-dry-run.json", "{}.meta.json")
_RESULTS = {"overall", "answers", "results", "tasks"}


def holds(folder: Path, target: Path) -> bool:
    """Whether a path is of what is read when ``folder`` is: in it, there already, and not known as written by us.

    Args:
        folder, target: resolved.
    """
    if target == folder or not target.is_relative_to(folder) or not folder.is_dir() or not target.exists():
        return False
    if any(target.with_name(name.format(target.name)).is_file() for name in _BESIDE):
        return False
    if target.is_dir():
        names = {path.name for path in target.iterdir()}
        return bool(names) and not any(files <= names for files in _WITHIN)
    if configs := parquet_files(folder):
        return target.name == "README.md" or any(target in paths for of in configs.values() for paths in of.values())
    if target.suffix == ".json" and target not in split_files(folder).values():
        with suppress(OSError, ValueError):
            found = json.loads(target.read_bytes())
            return not (isinstance(found, dict) and _RESULTS & found.keys())
    return True


def folder_files(folder: Path) -> Mapping[str, Sequence[Path]]:
    """The files that hold the samples of a folder, by split; a split without a file is left out.

    Raises:
        PromptCBLUEError: there is no such folder, or it holds neither the official files nor an imported dataset.
    """
    if not folder.is_dir():
        raise PromptCBLUEError(f"{folder}: no such folder (the embedded sample is called '{SAMPLE}')")
    if configs := parquet_files(folder):
        by_split = {split: [path for files in configs.values() for path in files.get(split, ())] for split in SPLITS}
        return {split: paths for split, paths in by_split.items() if paths}
    if files := official_files(folder):
        return files
    raise PromptCBLUEError(
        f"{folder}: expected the official train, dev and test files (.json or .jsonl, .gz or not), "
        "or a folder that `promptcblue-dataset import` wrote; found neither"
    )


def sample_path(suite: str = "") -> Path:
    """The folder of the embedded sample, in the official form, test targets included.

    Args:
        suite: by default the first, that of the paper's tasks.

    Raises:
        PromptCBLUEError: it is not there, as where the metric alone is installed, or there is none of the suite.
    """
    spec = find_spec("promptcblue_dataset")
    if not spec or not spec.submodule_search_locations:
        raise PromptCBLUEError("the embedded sample comes with promptcblue_dataset, which is not installed here")
    folder, first = Path(spec.submodule_search_locations[0]) / SAMPLE, next(iter(SUITES))
    if suite in ("", first):
        return folder
    if suite not in SUITES or not (folder / suite).is_dir():
        there = ", ".join(name for name in SUITES if name == first or (folder / name).is_dir())
        raise PromptCBLUEError(f"there is no embedded sample of a suite '{suite}', only of {there}")
    return folder / suite


def resolve(source: str | Path, tasks: Iterable[str] = ()) -> Path:
    """The path that ``source`` names: the embedded sample for the word ``sample``, unless such a path exists.

    Args:
        tasks: config names that the sample is wanted of; by default those of the suite that the word names.
    """
    path = Path(source).expanduser()
    word, _, suite = str(source).partition(":")
    if word != SAMPLE or path.exists():
        return path
    later = [name for name in tasks if REGISTRY[name].suite != next(iter(SUITES))]
    return sample_path(suite or (REGISTRY[later[0]].suite if later else ""))


def splits_of(source: str | Path) -> Collection[str]:
    """The splits that a source has; none where it is a single file.

    Raises:
        PromptCBLUEError: the source is not there, or is no dataset.
    """
    path = resolve(source)
    if path.exists():
        return tuple(folder_files(path)) if path.is_dir() else ()
    from datasets import get_dataset_split_names

    with _of_hub(str(source), "its splits"):
        return tuple(get_dataset_split_names(str(source), ALL))


def iter_samples(source: str | Path, split: str, tasks: Iterable[str] | None = None) -> Iterator[Sample]:
    """The samples of one split, one by one, in the order of the source.

    Args:
        source: a file of JSON Lines, a JSON array or Parquet (``split`` is then not looked at), a folder with the
            official train, dev and test files, a folder that ``promptcblue-dataset import`` wrote, the word ``sample``
            for the embedded sample (``sample:SUITE`` for that of another suite), or a dataset's id on the Hub.
        split: ``train``, ``validation`` (or ``dev``) or ``test``.
        tasks: names or aliases of the tasks wanted, of which there may be no samples; every task by default.

    Raises:
        PromptCBLUEError: the source, the split or a task is not there (the message names what is); or, at the end,
            the split has no samples, or rows are bad (all are listed).
    """
    split = canonical_split(split)
    wanted = None if tasks is None else {get_task(name).name for name in tasks}
    bad = BadRows()
    source = resolve(source, wanted) if str(source) == SAMPLE and wanted else source
    return _wanted(_rows_of(source, split, wanted, bad), wanted, bad, _described(source, split))


def load_samples(source: str | Path, split: str, tasks: Sequence[str] | None = None) -> list[Sample]:
    """The samples of one split as a list that holds some of every task asked for; see `iter_samples`.

    Raises:
        PromptCBLUEError: as `iter_samples`, and for a task without samples.
    """
    samples = list(iter_samples(source, split, tasks))
    present = {sample["task_dataset"] for sample in samples}
    wanted = {get_task(name).name for name in tasks or ()}
    if missing := [name for name in REGISTRY if name in wanted - present]:
        others = ", ".join(name for name in REGISTRY if name in present)
        raise PromptCBLUEError(
            f"{_described(source, split)} has no samples of {', '.join(missing)}"
            + (f"; of those asked for it has {others}" if others else "")
        )
    return samples


def _wanted(files: Iterable[_Rows], wanted: Collection[str] | None, bad: BadRows, where: str) -> Iterator[Sample]:
    """The samples of the wanted tasks, and at the end an error if there were bad rows, or none at all."""
    found = False
    for name, rows in files:
        for line, row in rows:
            try:
                sample = sample_from_row(row, name, line)
            except RowError as error:
                bad.append(error)
                continue
            if wanted is None or sample["task_dataset"] in wanted:
                found = True
                yield sample
    bad.stop_if_any(f"mend {where}")
    if not found and wanted is None:
        raise PromptCBLUEError(f"{where} has no samples")


def _described(source: str | Path, split: str) -> str:
    path = resolve(source)
    there = path.exists()
    return str(path) if there and not path.is_dir() else f"the {split} split of {path if there else source}"


#: The rows of a file or of a config on the Hub, each with its number, under the name that errors give them.
_Rows = tuple[str | Path, Iterable[tuple[int, Mapping[str, object]]]]


def _rows_of(source: str | Path, split: str, wanted: Collection[str] | None, bad: BadRows) -> Iterable[_Rows]:
    """The rows of a split, of the wanted tasks and maybe others."""
    path = resolve(source)
    if not path.exists():
        if not _HUB_ID.fullmatch(str(source)) or path.name.endswith(_FILE_ENDINGS):
            raise PromptCBLUEError(f"{source}: no such file or folder (the embedded sample is called '{SAMPLE}')")
        return _hub_rows(str(source), split, wanted)
    paths: Sequence[Path] = [path]
    if path.is_dir():
        files = folder_files(path)
        if split not in files:
            raise PromptCBLUEError(f"{path} has no {split} split; it has {', '.join(files)}")
        paths = [part for part in files[split] if part.suffix != ".parquet" or not wanted or part.parent.name in wanted]
    return ((part, _file_rows(part, bad)) for part in paths)


def _file_rows(path: Path, bad: BadRows) -> Iterable[tuple[int, Mapping[str, object]]]:
    with open_binary(path) as stream, _readable(path):
        parquet = is_parquet(stream)
        rows = None if parquet else _array_rows(stream)
    if parquet:
        return enumerate(parquet_rows(path), 1)
    return read_json_lines(path, bad) if rows is None else enumerate(rows, 1)


def _array_rows(stream: BinaryIO) -> list[dict[str, object]] | None:
    """The rows of a JSON array; None where the file is something else."""
    first = next((line for line in stream if line.strip()), b"")
    if not first.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"["):
        return None
    try:
        rows = json.loads((first + stream.read()).decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return None
    return rows if all(isinstance(row, dict) for row in rows) else None


def is_parquet(stream: BinaryIO) -> bool:
    """Whether a file that was just opened is Parquet; it is then at its beginning again."""
    start = stream.read(4)
    stream.seek(0)
    return start == b"PAR1"


def parquet_rows(path: Path) -> Iterator[Mapping[str, object]]:
    """The rows of a Parquet file, in little memory."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with open_binary(path) as stream, pq.ParquetFile(stream) as file:
            for batch in file.iter_batches():
                yield from batch.to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise PromptCBLUEError(f"{path}: cannot be read as Parquet: {error}") from error


@contextmanager
def _of_hub(source: str, what: str) -> Iterator[None]:
    """Let datasets look for ``ORG/NAME`` on the Hub, but for a bare name in its cache alone.

    Raises:
        PromptCBLUEError: there is no such thing, or ``what`` of it cannot be loaded.
    """
    from datasets import config
    from datasets.naming import camelcase_to_snakecase
    from datasets.utils import logging

    bare = "/" not in source
    if bare and not Path(config.HF_DATASETS_CACHE, camelcase_to_snakecase(source)).is_dir():
        raise PromptCBLUEError(
            f"{source}: no such file or folder, and nothing in the datasets cache is called so (promptcblue-dataset "
            f"import puts its suite there); the embedded sample is called '{SAMPLE}', a dataset of the Hub ORG/NAME"
        )
    before, level = config.HF_HUB_OFFLINE, logging.get_verbosity()
    if bare:
        config.HF_HUB_OFFLINE = True
        logging.set_verbosity_error()  # else it says that the Hub is not asked, and the date of the entry
    try:
        yield
    except Exception as error:
        # datasets raises many types here, from ValueError for a split to client errors of the Hub.
        reason = " ".join(str(error).split()) or type(error).__name__
        raise PromptCBLUEError(
            f"{source}: no such file or folder, and {what} cannot be loaded as a dataset of the Hub: {reason}"
        ) from error
    finally:
        config.HF_HUB_OFFLINE = before
        logging.set_verbosity(level)


def _hub_rows(source: str, split: str, wanted: Collection[str] | None) -> Iterator[_Rows]:
    from datasets import disable_progress_bars, load_dataset

    if not sys.stderr.isatty():
        disable_progress_bars()
    for config in [ALL] if wanted is None else [name for name in REGISTRY if name in wanted]:
        with _of_hub(source, f"its config '{config}', split '{split}',"):
            rows = load_dataset(source, config, split=split)
        yield f"{source}/{config}/{split}", enumerate(rows, 1)
