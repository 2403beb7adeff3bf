"""A submission to the PromptCBLUE leaderboard: one zip of the model's outputs and of the program that reads them.

The benchmark asks for ``test_predictions.zip`` with two files at its top level. ``test_predictions.json`` is the
official test file with the outputs in ``target``: as many rows, in the same order, all else unchanged.
``post_generate_process.py`` uses the standard library alone, and the leaderboard runs it as
``python post_generate_process.py test_predictions.json results.json``. Ours is made of this package's own source, as it
stands.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import io
import json
import subprocess
import sys
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from ..answers import AnswerFormat, Parsed
from ..data.predictions import Prediction, match, structured_answers
from ..data.samples import BadRows, Sample, read_json_lines, sample_from_row
from ..data.writing import replace_bytes, scratch_folder
from ..errors import PromptCBLUEError, RowError
from ..evaluation import Parser
from ..lenient import parse_lenient
from ..tasks import SUITES, TASKS, get_task, suite_of
from ..version import VERSION

ZIP_NAME, PREDICTIONS_NAME, PROGRAM_NAME = "test_predictions.zip", "test_predictions.json", "post_generate_process.py"

#: The benchmark states no bounds. Beyond these a model repeats itself, or the file is not what it should be.
MAX_OUTPUT_BYTES = 1 << 20
MAX_BYTES = 1 << 28

#: The tasks of the benchmark and of its later editions, which hold all of its tasks.
_LEADERBOARD = frozenset(
    name for suite in SUITES.values() if TASKS.keys() <= suite.tasks.keys() for name in suite.tasks
)
#: A row of a file.
Row: TypeAlias = dict[str, Any]

#: Reads an output: the format, the text, the choices and the prompt.
Parse: TypeAlias = Callable[[AnswerFormat, str, Sequence[str], str], Parsed]


def parse_strict(answer_format: AnswerFormat, text: str, choices: Sequence[str], prompt: str) -> Parsed:
    """Read an output exactly as the official post-processor does, whatever was asked; never raises."""
    return answer_format.parse(text, choices)


def main(arguments: Sequence[str], formats: Mapping[str, AnswerFormat], parse: Parse) -> None:
    """Turn test_predictions.json into results.json, ``{task: [{"sample_id", "answer"}]}``: the end of the program."""
    if len(arguments) != 2:
        sys.exit("usage: python post_generate_process.py test_predictions.json results.json")
    results: dict[str, list[Row]] = {}
    for line in Path(arguments[0]).read_bytes().split(b"\n"):
        if line.strip():
            row = json.loads(line)
            task, choices, prompt = row["task_dataset"], row.get("answer_choices") or (), row.get("input") or ""
            answer = parse(formats[task], row["target"], choices, prompt).answer
            results.setdefault(task, []).append({"sample_id": row["sample_id"], "answer": answer})
    Path(arguments[1]).write_bytes((json.dumps(results, ensure_ascii=False, indent=2) + "\n").encode())


@dataclass(frozen=True)
class Submission:
    """What was written.

    Attributes:
        path: the zip archive.
        sizes: bytes of its two files and of itself, by name.
        sha256: of the archive.
        tasks: rows of each task, by config name.
        well_formed: how many outputs are wholly in the expected form.
        empty: how many outputs are empty.
        labelled: how many rows of the test file hold a target, which those of the official one do not.
    """

    path: Path
    sizes: Mapping[str, int]
    sha256: str
    tasks: Mapping[str, int]
    well_formed: int
    empty: int
    labelled: int


def write_submission(predictions: str | Path, test: str | Path, output: Path, parser: Parser = "strict") -> Submission:
    """Check predictions against every rule of the official format, and write the archive, whole or not at all.

    The program is run before anything is written, by a bare interpreter on the rows that are handed in; it has to give
    the answers of `structured_answers`.

    Args:
        predictions: rows with ``sample_id`` and ``prediction``, or the official form, in any order.
        test: the official test file.
        output: where to write; its name is `ZIP_NAME`.
        parser: which parser the program holds.

    Raises:
        PromptCBLUEError: a rule is broken (every row that breaks one is listed), or the archive cannot be written.
    """
    if output.name != ZIP_NAME:
        raise PromptCBLUEError(
            f"{output}: the leaderboard expects the name {ZIP_NAME}; name a folder for each run instead"
        )
    rows = dict(read_json_lines(test))
    samples = _test_samples(test, rows)
    filled = _filled_rows(predictions, test, rows, samples)
    content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in filled).encode()
    if len(content) > MAX_BYTES:
        raise PromptCBLUEError(
            f"{predictions}: the outputs make {PREDICTIONS_NAME} {len(content):,} bytes, more than {MAX_BYTES:,}; "
            "generate fewer tokens, or cut the repetition"
        )
    source = make_program(dict.fromkeys(row["task_dataset"] for row in filled), parser).encode()
    well_formed = _check_program(source, content, parser)
    archive = _archive({PREDICTIONS_NAME: content, PROGRAM_NAME: source})
    replace_bytes(output, archive)
    return Submission(
        output,
        {PREDICTIONS_NAME: len(content), PROGRAM_NAME: len(source), ZIP_NAME: len(archive)},
        hashlib.sha256(archive).hexdigest(),
        Counter(sample["task_dataset"] for sample in samples.values()),
        well_formed,
        sum(not row["target"] for row in filled),
        sum(bool(sample["target"]) for sample in samples.values()),
    )


def _test_samples(test: str | Path, rows: Mapping[int, Row]) -> dict[int, Sample]:
    """The rows of the test file by line, checked."""
    samples, first, bad = dict[int, Sample](), dict[tuple[str, str], int](), BadRows()
    for line, row in rows.items():
        try:
            sample = sample_from_row(row, test, line)
            if sample["task_dataset"] not in _LEADERBOARD:
                raise RowError(
                    str(test), line, "task_dataset", f"'{row['task_dataset']}' is no task of the leaderboard"
                )
            key = sample["task_dataset"], sample["sample_id"]
            if (other := first.setdefault(key, line)) != line:
                raise RowError(str(test), line, "sample_id", f"'{key[1]}' of {key[0]} stands on line {other} too")
            samples[line] = sample
        except RowError as error:
            bad.append(error)
    bad.stop_if_any("pass the official test file, as it was downloaded")
    if not samples:
        raise PromptCBLUEError(f"{test}: holds no rows; pass the official test file, as it was downloaded")
    return samples


def _filled_rows(
    predictions: str | Path, test: str | Path, rows: Mapping[int, Row], samples: Mapping[int, Sample]
) -> list[Row]:
    """The test rows in their order, each with its output in ``target``."""
    filled, bad = list[Row](), BadRows()
    for line, (sample, prediction) in zip(samples, match(predictions, samples.values()), strict=True):
        if prediction is None:
            of_task = f"'{sample['sample_id']}' of {sample['task_dataset']}"
            bad.append(RowError(str(test), line, "sample_id", f"{of_task} has no prediction in {predictions}"))
            continue
        for field, message in _broken_rules(prediction, sample, f"{test}:{line}"):
            bad.append(RowError(str(predictions), prediction.line, field, message))
        filled.append({**rows[line], "target": prediction.text})
    bad.stop_if_any("every test row needs one output, and all else of it stays as it is; nothing was written")
    if not any(row["target"].strip() for row in filled):
        raise PromptCBLUEError(f"{predictions}: every output is empty; was the test file itself passed as predictions?")
    return filled


def _broken_rules(prediction: Prediction, sample: Sample, where: str) -> Iterator[tuple[str, str]]:
    """What in a prediction cannot be handed in: the field, and what is wrong with it."""
    touched = f"differs from {where}; prompts and their fields stay untouched, so predict from that file again"
    if prediction.prompt and prediction.prompt != sample["input"]:
        yield "input", touched
    if prediction.choices is not None and prediction.choices != sample["answer_choices"]:
        yield "answer_choices", touched
    field = prediction.field
    try:
        if (size := len(prediction.text.encode())) > MAX_OUTPUT_BYTES:
            yield field, f"{size:,} bytes, more than {MAX_OUTPUT_BYTES:,}; generate fewer tokens, or cut the repetition"
    except UnicodeEncodeError as error:
        half = f"character {error.start} is half of a surrogate pair, which UTF-8 cannot hold"
        yield field, f"{half}; decode the output again"


def make_program(tasks: Iterable[str], parser: Parser) -> str:
    """The source of ``post_generate_process.py``: modules in the order of their imports, `main`, the tasks' formats.

    Args:
        tasks: the names that the test file gives them.
        parser: ``strict`` leaves out the modules of the lenient parser.
    """
    lenient = parser == "lenient"
    functions: Sequence[Callable[..., object]] = [main] if lenient else [parse_strict, main]
    modules: dict[str, str] = {}
    imports: dict[str, set[str]] = {"json": set(), "pathlib": {"Path"}}
    _collect(Path(inspect.getfile(parse_lenient if lenient else AnswerFormat)), modules, imports)
    plain = [f"import {module}" for module, names in sorted(imports.items()) if not names and module != "sys"]
    chosen = [f"from {module} import {', '.join(sorted(names))}" for module, names in sorted(imports.items()) if names]
    return _PROGRAM.format(
        version=VERSION,
        parser=parser,
        imports="\n".join([*plain, *chosen]),
        source="\n".join(f"\n\n# {name}.py\n\n{source.strip()}" for name, source in modules.items()),
        functions="\n\n".join(map(inspect.getsource, functions)),
        formats="\n".join(f"    {name!r}: {get_task(name).format!r}," for name in tasks),
        parse=(parse_lenient if lenient else parse_strict).__name__,
    )


_PROGRAM = '''"""Turns test_predictions.json into results.json: promptcblue {version}, {parser} parser.

Made by `promptcblue-metric submit` from the modules of promptcblue_metric (Apache-2.0). Python 3.10 or later, standard
library only:

    python post_generate_process.py test_predictions.json results.json
"""

from __future__ import annotations

import sys

if sys.version_info < (3, 10):
    sys.exit("post_generate_process.py needs Python 3.10 or later")

{imports}
{source}


{functions}

#: How the answers of each task are written.
FORMATS = {{
{formats}
}}

if __name__ == "__main__":
    main(sys.argv[1:], FORMATS, {parse})
'''


def _collect(path: Path, modules: dict[str, str], imports: dict[str, set[str]]) -> None:
    """Add a module's source, without its imports, after those of the modules of ours that it imports."""
    if path.stem in modules:
        return
    source = path.read_text(encoding="utf-8")
    lines = source.splitlines(keepends=True)
    for statement in ast.parse(source).body:
        match statement:
            case ast.ImportFrom(module=str(name), level=level) if level:
                _collect(path.parents[level - 1].joinpath(*name.split(".")).with_suffix(".py"), modules, imports)
            case ast.ImportFrom(names=[ast.alias(name=name)], level=1):  # a module of ours, which the program itself is
                _collect(path.with_stem(name), modules, imports)
                lines[statement.lineno - 1] = f"{name} = sys.modules[__name__]\n"
                continue
            case ast.ImportFrom(module=str(name), names=names):
                if name != "__future__":
                    imports.setdefault(name, set()).update(alias.name for alias in names)
            case ast.Import(names=names):
                imports.update({alias.name: set() for alias in names})
            case ast.Expr(value=ast.Constant()):  # the module's docstring
                pass
            case _:
                continue
        for number in range(statement.lineno - 1, statement.end_lineno or statement.lineno):
            lines[number] = ""
    modules[path.stem] = "".join(lines)


def _check_program(source: bytes, predictions: bytes, parser: Parser) -> int:
    """Run the program as the leaderboard does, and compare; how many outputs are well-formed.

    Raises:
        PromptCBLUEError: it fails, or its results are not those of `structured_answers`.
    """
    with scratch_folder() as folder:
        (folder / PROGRAM_NAME).write_bytes(source)
        (folder / PREDICTIONS_NAME).write_bytes(predictions)
        # No site packages and no settings of the user: the standard library, and nothing else.
        command = [sys.executable, "-I", "-S", PROGRAM_NAME, PREDICTIONS_NAME, "results.json"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise PromptCBLUEError(f"{PROGRAM_NAME} failed on the outputs to hand in, so nothing was written: {last}")
        results = json.loads((folder / "results.json").read_bytes())
        expected, well_formed = structured_answers(folder / PREDICTIONS_NAME, None, parser)
    if results != expected:
        raise PromptCBLUEError(f"{PROGRAM_NAME} reads the outputs otherwise than this package; nothing was written")
    return well_formed


def _archive(files: Mapping[str, bytes]) -> bytes:
    """A zip archive that depends on its files alone."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            # Its fixed date, 1980, makes equal submissions equal files.
            entry = zipfile.ZipInfo(name)
            entry.compress_type, entry.create_system, entry.external_attr = zipfile.ZIP_DEFLATED, 3, 0o100644 << 16
            archive.writestr(entry, content)
    return buffer.getvalue()


def describe(submission: Submission, parser: Parser) -> None:
    """Print what was written and what comes next."""
    tasks, rows = submission.tasks, sum(submission.tasks.values())
    about = f"{rows} outputs of {len(tasks)} task(s), {parser} parser, sha256 {submission.sha256}"
    print(f"wrote {submission.path}: {about}")
    for name, size in submission.sizes.items():
        print(f"  {name}: {size:,} bytes")
    print(f"  {submission.well_formed} outputs are wholly in the expected form, {submission.empty} are empty")
    print("checked: count, order, ids, prompts, encoding, size; the program reads the same in a bare interpreter")
    if submission.labelled:
        print(f"note: {submission.labelled} rows of the test file hold a target, so it is not the leaderboard's")
    if missing := [name for name in suite_of(tasks).tasks if name not in tasks]:
        print(f"note: the test file holds no {', '.join(missing)}")
    print(f"next: upload {submission.path} on the leaderboard's page, which runs it and scores results.json")
