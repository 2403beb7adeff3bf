"""Prediction files: reading them, matching them with the samples they answer, and their structured form."""

from __future__ import annotations

import json
import re
import sys
import zlib
from array import array
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeAlias, TypedDict

from ..errors import PromptCBLUEError, RowError, UnknownTaskError
from ..evaluation import Parser, Result, TaskResult, parse_answer
from ..tasks import get_task
from .samples import (
    BadRows,
    Sample,
    canonical_split,
    choices_of,
    is_parquet,
    numbered_lines,
    open_binary,
    parquet_rows,
    parse_json_line,
    read_json_lines,
    resolve,
    seekable,
    task_of,
)
from .writing import read_json_object, scratch_folder

#: What is added to the name of a predictions file for the one beside it that says how it was made.
META = ".meta.json"


@dataclass(frozen=True)
class Prediction:
    """One row of a predictions file.

    Attributes:
        sample_id: id of the sample it answers.
        text: the model's output.
        task: config name, or None where the row does not say.
        written_task: the task as the row spells it.
        choices: the row's own answer choices; None where it has none.
        line: 1-based line in the file.
        field: where the output stood; ``target`` is that of the gold answer in files of samples.
        prompt: the row's own ``input``, or "".
    """

    sample_id: str
    text: str
    task: str | None
    written_task: str | None
    choices: Sequence[str] | None
    line: int
    field: str
    prompt: str = ""


#: The fields of outputs, ours first. ``target`` is the output in the official form alone: in a file with another one of
#: these, it is the gold answer.
_OUTPUTS = ("prediction", "predict", "output", "response", "generated_text", "completion", "model_output", "pred")
_OFFICIAL = "target"


def _output_field(rows: Iterable[Mapping[str, object]]) -> str:
    """The field that holds the outputs of a whole file, so that no row answers with its gold in place of its output."""
    held: set[str] = set()
    for row in rows:
        if _OUTPUTS[0] in row:
            return _OUTPUTS[0]
        held |= row.keys() & {*_OUTPUTS, _OFFICIAL}
    return next((name for name in (*_OUTPUTS, _OFFICIAL) if name in held), _OUTPUTS[0])


def read_predictions(path: str | Path) -> Iterator[Prediction]:
    """The rows of a predictions file: ``sample_id`` and ``prediction``, or the official form, whose output stands in
    ``target``, and no row of which has another output. ``task_dataset`` and ``answer_choices`` are read where they are.

    Raises:
        PromptCBLUEError: at the end, lists every row that cannot be used.
    """
    bad = BadRows()
    foreign = _foreign_rows(path)
    field = _output_field(foreign[1] if foreign else (row for _, row in read_json_lines(path, BadRows())))
    for line, row in enumerate(foreign[1], 1) if foreign else read_json_lines(path, bad):
        try:
            yield _prediction_from_row(row, field, path, line)
        except RowError as error:
            bad.append(error)
    bad.stop_if_any("mend the predictions file, or predict again")


def _failed(row: Mapping[str, object], field: str) -> bool:
    """Whether the row says why its sample has no prediction, in place of one."""
    return bool(row.get("error")) and (field == _OFFICIAL or field not in row)


def _prediction_from_row(row: dict[str, object], output_field: str, path: str | Path, line: int) -> Prediction:
    if _failed(row, output_field):
        message = f"this sample has no prediction, for {row['error']!r:.120}; predict again, or with --failed-as-empty"
        raise RowError(str(path), line, "error", message)

    def text(field: str, wanted: str) -> str:
        if isinstance(value := row.get(field), str):
            return value
        found = repr(value)[:80] if field in row else "no such field"
        raise RowError(str(path), line, field, f"expected a string in {wanted}, found {found}")

    sample_id = text("sample_id", "'sample_id'")
    output = text(output_field, f"'{output_field}', the output field of the file")
    written, prompt = (value if isinstance(value := row.get(name), str) else None for name in ("task_dataset", "input"))
    task = None if written is None else task_of(written, path, line).name
    choices = choices_of(row, path, line)
    return Prediction(sample_id, output, task, written, choices, line, output_field, prompt or "")


#: By the tool that writes such rows: a field that only they have, and where the output and the prompt stand.
_FOREIGN: Mapping[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "LLaMA-Factory": ("predict", ("predict",), ("prompt",)),
    "lm-evaluation-harness": ("resps", ("filtered_resps", "resps"), ("arguments",)),
    "OpenCompass": ("origin_prompt", ("prediction",), ("origin_prompt",)),
    "evalscope": ("model_output", ("model_output",), ("messages",)),
    "OpenAI's batch form": ("custom_id", ("response",), ()),
    "evalscope's older form": ("choices", ("choices",), ("raw_input", "messages")),
    "a JSON array or stream": ("prediction", ("prediction",), ("input",)),
}
#: The fields in which a foreign row can hold the sample that it answers.
_SAMPLES = ("doc", "metadata", "raw_input")
#: Where it can hold that sample's target.
_LABELS = ("label", "target", "gold")
#: Other names of the id of a sample, without case and marks, and the fields in which tools number their rows.
_ID_NAMES = {"sampleid", "id", "uid", "guid", "qid", "exampleid", "questionid"}
_NUMBERS = ("doc_id", "index", "idx", "id")
#: The number that a row carries (without one its line), its line in the file, and the row.
_Numbered: TypeAlias = tuple[int, int, dict[str, object]]
#: The fields in which an output or a prompt can be wrapped.
_WRAPPERS = ("content", "text", "prompt", "message", "choices", "input", "gen_args_0", "arg_0", "body")


def _first_text(held: Mapping[str, object], names: Iterable[str]) -> str | None:
    """The text of the first of these fields that has one."""
    return next((text for name in names if (text := _text(held.get(name))) is not None), None)


def _text(value: object) -> str | None:
    """The text of an output or a prompt, however it is wrapped: of several, the first, of a chat what was said last to
    the model (evalscope writes its answer behind).
    """
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        if all(isinstance(part, dict) and isinstance(part.get("index"), int) for part in value):
            value = sorted(value, key=lambda part: part["index"])
        turns = all(isinstance(part, dict) and "role" in part for part in value)
        if turns:
            value = [part for part in value if part["role"] != "assistant"] or value
        parts = [part for part in value if isinstance(part, dict) and part.get("type") == "text"]
        if parts and not turns:  # of a message, beside those of its thought
            return "".join(_text(part) or "" for part in parts)
        return _text(value[-1 if turns else 0]) if value else None
    if isinstance(value, dict) and not _error(value):
        return _first_text(value, _WRAPPERS)
    return None


def _error(value: object) -> object:
    """What a server answered, where that is an error; None otherwise. The message of an error is no output."""
    if not isinstance(value, dict):
        return None
    status, said = value.get("status_code"), isinstance(value.get("message"), str)
    failed = (isinstance(status, int) and status >= 400) or value.get("object") == "error"
    if failed or ((said or value.get("error")) and "choices" not in value):
        return value
    return _error(value.get("body"))


def _outputs(value: object) -> int:
    """How many outputs a value holds, however they are wrapped; the parts of a message are one."""
    if isinstance(value, list) and not any(isinstance(part, dict) and {"type", "role"} & part.keys() for part in value):
        return len(value) if len(value) > 1 else sum(map(_outputs, value))
    return max((_outputs(value.get(name)) for name in _WRAPPERS), default=1) if isinstance(value, dict) else 1


def _values(text: str) -> Iterator[object]:
    """The JSON values of a text, however they are separated."""
    decoder, at = json.JSONDecoder(), 0
    while at < len(text):
        if text[at].isspace() or text[at] == ",":
            at += 1
        else:
            value, at = decoder.raw_decode(text, at)
            yield value


def _foreign_rows(path: str | Path) -> tuple[str, list[dict[str, object]]] | None:
    """The rows of a file in another tool's form, in ours, and the tool; None where it is JSON Lines of ours, or nothing
    that is known, whose reader then says what is wrong.
    """
    with open_binary(Path(path)) as stream:
        if is_parquet(stream):
            return "a Parquet file", [dict(row) for row in parquet_rows(Path(path))]
        try:
            first = next((line for line in stream if line.strip()), b"")
            with suppress(ValueError, TypeError):
                if "sample_id" in json.loads(first.decode("utf-8-sig")):
                    return None
            values = list(_values((first + stream.read()).decode("utf-8-sig")))
        except (ValueError, RecursionError, OSError, EOFError, zlib.error):
            return None
    if values and all(isinstance(value, list) for value in values):
        values = [row for value in values if isinstance(value, list) for row in value]
        if not values:
            raise PromptCBLUEError(f"{path}: holds no predictions, only an empty array")
    elif len(values) == 1 and isinstance(values[0], dict) and all(name.isdecimal() for name in values[0]):
        # OpenCompass numbers its rows
        values = [{"index": int(name), **row} if isinstance(row, dict) else row for name, row in values[0].items()]
    if not values or not all(isinstance(value, dict) for value in values):
        return None
    rows = [value for value in values if isinstance(value, dict)]
    if all("sample_id" in row for row in rows):
        return "a JSON array or stream", rows
    tool = next((tool for tool, (mark, _, _) in _FOREIGN.items() if all(mark in row for row in rows)), None)
    filters = list(dict.fromkeys(str(row.get("filter")) for row in rows))
    if tool == "lm-evaluation-harness" and len(filters) > 1:
        raise PromptCBLUEError(
            f"{path}: the output of {tool} holds the answers of several filters "
            f"(field 'filter': {', '.join(filters)}); keep the rows of one"
        )
    if not tool:
        return None
    _, outputs, _ = _FOREIGN[tool]
    for number, row in enumerate(rows, 1):
        if (several := next((_outputs(row[name]) for name in outputs if name in row), 1)) > 1:
            raise RowError(str(path), number, None, f"holds {several} outputs; keep one a row")
    return tool, [_in_our_form(row, tool) for row in rows]


def _ids(row: Mapping[str, object]) -> list[str]:
    """The fields of a row that can hold the id of its sample."""
    return [name for name in row if re.sub(r"[\W_]", "", name).lower() in _ID_NAMES]


def _in_our_form(row: Mapping[str, object], tool: str) -> dict[str, object]:
    _, outputs, prompts = _FOREIGN[tool]
    output, prompt = _first_text(row, outputs), _first_text(row, prompts)
    if prompt and prompt.lstrip().startswith("["):  # a chat, as lm-evaluation-harness sends it to an API
        with suppress(ValueError, RecursionError):
            prompt = _text(json.loads(prompt)) or prompt
    inner: list[dict[str, object]] = [value for name in _SAMPLES if isinstance(value := row.get(name), dict)]
    sample = next((value for value in inner if _ids(value)), row)
    if prompt is None:
        prompt = next((said for value in inner if isinstance(said := value.get("input"), str)), None)
    ours = {name: row[name] for name in _NUMBERS if name in row}
    ours |= {name: sample[name] for name in (*_ids(sample), "task_dataset", "answer_choices") if name in sample}
    if isinstance(named := row.get("custom_id"), str) and "sample_id" not in ours:
        ours |= _named(named)
    if labels := [row[name] for name in _LABELS if isinstance(row.get(name), str)]:
        ours["label"] = labels[0]
    error = row.get("error") or next(filter(None, (_error(row.get(name)) for name in outputs)), None)
    said = {"error": error} if output is None and error else {"prediction": output}
    return {**ours, **said, **({} if prompt is None else {"input": prompt})}


def _named(name: str) -> dict[str, object]:
    """What a request's name says: a sample's id, or TASK/ID."""
    task, _, sample_id = name.partition("/")
    with suppress(UnknownTaskError):
        if sample_id:
            return {"task_dataset": get_task(task).name, "sample_id": sample_id}
    return {"sample_id": name}


def _identify(rows: Sequence[dict[str, object]], references: Sequence[Sample], path: str | Path) -> str:
    """Give rows without an id those of the samples that they answer; how they were told.

    Raises:
        PromptCBLUEError: lists the rows that no sample is known for, or that contradict theirs.
    """
    bad = BadRows()
    if (id_field := _id_field(rows, references)) is not None:
        for number, row in enumerate(rows, 1):
            if row.get(id_field) is None:
                bad.append(RowError(str(path), number, id_field, "no id, which other rows have; add it"))
            elif id_field != "sample_id":
                row["sample_id"] = str(row[id_field])
        bad.stop_if_any("mend the predictions file, or predict again")
        return "by id"
    numbered = _numbered(rows)
    prompts = [str(row.get("input") or "") for _, _, row in numbered]
    if not any(prompts):
        _check_order(numbered, references, path)
    asked, found, how = _asked(prompts, references), list[Sample | None](references), "by order"
    pairs = zip(prompts, asked, references, strict=False)
    if len(rows) != len(references) or any(prompt and text != sample["input"] for prompt, text, sample in pairs):
        how = "by prompt"
        left: dict[str, list[Sample]] = {}
        for sample in references:
            left.setdefault(sample["input"], []).append(sample)
        found = [left[text].pop(0) if left.get(text) else None for text in asked]
    targets = {sample["target"].strip() for sample in references}
    for (_, number, row), prompt, answered in zip(numbered, prompts, found, strict=True):
        if answered is None:
            why = "its prompt is that of no sample left" if prompt else "no prompt"
            bad.append(RowError(str(path), number, None, f"has no sample_id, and {why}"))
        elif (field := _contradicted(row, answered, targets if prompt else None)) is not None:
            of_sample = answered["task_dataset" if field == "task_dataset" else "target"]
            order = "; the rows are not in the order of the samples" if how == "by order" else ""
            message = f"{row[field]!r:.60}, and {of_sample!r:.60} of '{answered['sample_id']}', matched {how}{order}"
            bad.append(RowError(str(path), number, field, f"{message}; {_REMEDY}"))
        else:
            row.update(sample_id=answered["sample_id"], task_dataset=answered["task_dataset"])
    bad.stop_if_any(_MISFIT if any(found) else f"{_MISFIT}: no prompt is theirs; {_OTHER_SPLIT}")
    return how


def _id_field(rows: Sequence[Mapping[str, object]], references: Sequence[Sample]) -> str | None:
    """The field that holds the ids of samples: ``sample_id``, or one of another name that names some of them."""
    if any(row.get("sample_id") is not None for row in rows):
        return "sample_id"
    known = {sample["sample_id"] for sample in references}
    names = dict.fromkeys(name for row in rows for name in _ids(row))
    return next((name for name in names if any(str(row.get(name)) in known for row in rows)), None)


def _numbered(rows: Sequence[dict[str, object]]) -> list[_Numbered]:
    """The rows in the order of their numbers."""
    name = next((name for name in _NUMBERS if all(type(row.get(name)) is int for row in rows)), "")
    numbered = ((int(str(row.get(name, line))), line, row) for line, row in enumerate(rows, 1))
    return sorted(numbered, key=itemgetter(0))


def _contradicted(row: Mapping[str, object], sample: Sample, targets: Collection[str] | None) -> str | None:
    """The field in which a row says that it answers another sample; None where none does.

    Args:
        targets: those of all samples; beside a prompt only one of these contradicts, as tools cut and clean labels.
    """
    task, label = row.get("task_dataset"), row.get("label")
    with suppress(UnknownTaskError):  # said where the row is read
        if isinstance(task, str) and get_task(task).name != sample["task_dataset"]:
            return "task_dataset"
    if not isinstance(label, str) or label.strip() == sample["target"].strip():
        return None
    return "label" if targets is None or label.strip() in targets else None


def _asked(prompts: Iterable[str], references: Sequence[Sample]) -> list[str]:
    """The input that ends last in each prompt: the question's, which stands behind those of demonstrations. Of several
    that end there it is the longest; "" where there is none.
    """
    inputs = {sample["input"] for sample in references}
    size = min(map(len, inputs), default=1)
    by_tail: dict[str, list[str]] = {}
    for text in inputs:
        by_tail.setdefault(text[-size:], []).append(text)

    def asked(prompt: str) -> str:
        for end in range(len(prompt), size - 1, -1):
            if held := [text for text in by_tail.get(prompt[end - size : end], ()) if prompt.endswith(text, 0, end)]:
                return max(held, key=len)
        return ""

    return [prompt if prompt in inputs else asked(prompt) for prompt in prompts]


def _check_order(rows: Sequence[_Numbered], references: Sequence[Sample], path: str | Path) -> None:
    """Raise `PromptCBLUEError` where rows with nothing but their order cannot be the samples' in that order."""
    if len(rows) != len(references):
        raise PromptCBLUEError(
            f"{path}: has {len(rows)} rows with neither an id nor a prompt, for {len(references)} samples; by their "
            f"order alone as many rows as samples can be matched; {_OTHER_SPLIT}"
        )
    for number, (found, line, row) in enumerate(rows, rows[0][0]):
        if found != number:
            raise RowError(str(path), line, None, f"its number {found} leaves a gap or comes twice; {_REMEDY}")
        if named := next((field for field in _ids(row) if isinstance(row[field], str)), None):
            raise RowError(str(path), line, named, f"{row[named]!r:.60} is the id of no sample; {_OTHER_SPLIT}")


_REMEDY = "write a 'sample_id' in every row"
_MISFIT = "the predictions do not fit the references"
_OTHER_SPLIT = "are they of another split (--split)?"
#: So many predictions that all equal their targets are worth a remark.
_SUSPICIOUS = 20
#: Such a share of outputs in ``target`` that are the targets, but for white space, is no model's.
_GOLD = 0.97


class _Index:
    """Where each prediction of a file stands, so that a file of any length is matched in any order in little memory."""

    def __init__(self, path: str | Path, bad: BadRows, content: str | Path) -> None:
        self._path = path
        self._lines, self._offsets = array("L"), array("Q")
        #: Row number by sample id, for each task, and for the rows that do not name theirs (None).
        self._rows: dict[str | None, dict[str, int]] = {}
        self._stream = seekable(content)
        self._field = _output_field(row for _, row in read_json_lines(content, BadRows()))
        for line, offset, text in numbered_lines(self._stream, path):
            try:
                row = parse_json_line(text, path, line)
                if not _failed(row, self._field):  # the same as no row: its sample counts as not predicted
                    self._add(_prediction_from_row(row, self._field, path, line), offset, bad)
            except RowError as error:
                bad.append(error)
        #: The task whose reference has taken each row.
        self._taken_by: list[str | None] = [None] * len(self._lines)

    def _add(self, prediction: Prediction, offset: int, bad: BadRows) -> None:
        rows = self._rows.setdefault(prediction.task, {})
        first = rows.setdefault(prediction.sample_id, len(self._lines))
        if first < len(self._lines):
            bad.append(self._doubled(prediction.sample_id, prediction.task, prediction.line, first))
        else:
            self._lines.append(prediction.line)
            self._offsets.append(offset)

    def _doubled(self, sample_id: str, task: str | None, line: int, first: int) -> RowError:
        of_task = f" of {task}" if task else ""
        message = f"'{sample_id}'{of_task} was already predicted on line {self._lines[first]}"
        return RowError(str(self._path), line, "sample_id", message)

    def take(self, sample: Sample, bad: BadRows) -> Prediction | None:
        """The prediction for a reference, or None; says what is wrong if another reference has taken it."""
        task, sample_id = sample["task_dataset"], sample["sample_id"]
        found = [rows[sample_id] for rows in map(self._rows.get, (task, None)) if rows and sample_id in rows]
        if not found:
            return None
        number, *doubled = found
        line = self._lines[number]
        if doubled:
            bad.append(self._doubled(sample_id, task, self._lines[doubled[0]], number))
            self._taken_by[doubled[0]] = task
        if (other := self._taken_by[number]) == task:
            raise PromptCBLUEError(f"the references hold '{sample_id}' of {task} twice; ids must be unique in a task")
        if other is not None:
            message = f"'{sample_id}' is an id in {other} and {task}; say which in 'task_dataset'"
            bad.append(RowError(str(self._path), line, "sample_id", message))
        self._taken_by[number] = task
        self._stream.seek(self._offsets[number])
        row = parse_json_line(self._stream.readline(), self._path, line)
        return _prediction_from_row(row, self._field, self._path, line)

    def untaken(self, tasks: Collection[str] | None) -> Iterable[RowError]:
        """The predictions that answer no reference, of these tasks or none."""
        for task, rows in self._rows.items():
            if task and tasks is not None and task not in tasks:
                continue
            for sample_id, number in rows.items():
                if self._taken_by[number] is None:
                    of_task = f" of {task}" if task else ""
                    message = f"'{sample_id}'{of_task} is not among the references"
                    yield RowError(str(self._path), self._lines[number], "sample_id", message)


def match(
    path: str | Path,
    references: Iterable[Sample],
    configs: Sequence[str] | None = None,
    *,
    allow_gold: bool = False,
) -> Iterator[tuple[Sample, Prediction | None]]:
    """Pair every reference, in order, with its prediction, or with None where there is none.

    Args:
        path: the predictions file. It is read twice, and its texts are not kept.
        references: the rows to pair, read once.
        configs: tasks that the references are of, whose predictions alone must fit; every task by default.
        allow_gold: take the references' own targets for predictions.

    Raises:
        PromptCBLUEError: a reference is doubled; or, at the end, nearly every prediction is its reference's target (in
            a field of that name), or predictions cannot be read, are doubled, are unknown to the references, or fit
            several.
    """
    bad = BadRows()
    foreign = _foreign_rows(path)
    with scratch_folder() as scratch:
        content = path
        if foreign:
            tool, rows = foreign
            references = list(references)
            how = _identify(rows, references, path)
            print(f"{path}: read as the output of {tool}, matched {how}", file=sys.stderr)
            content = scratch / "rows.jsonl"
            content.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        index = _Index(path, bad, content)
    bad.stop_if_any("mend the predictions file, or predict again")
    outputs = equal = gold = labelled = 0
    for sample in references:
        if prediction := index.take(sample, bad):
            outputs += 1
            equal += prediction.text == sample["target"]
            labelled += bool(sample["target"].strip())
            gold += prediction.field == _OFFICIAL and prediction.text.split() == sample["target"].split()
        yield sample, prediction
    bad.extend(index.untaken(None if configs is None else {get_task(name).name for name in configs}))
    bad.stop_if_any(_MISFIT if outputs else f"{_MISFIT}: no sample id is theirs; {_OTHER_SPLIT}")
    if allow_gold:
        return
    if outputs and gold >= (_GOLD if labelled else 1) * outputs:  # without gold answers, some outputs may be empty too
        raise PromptCBLUEError(
            f"{path}: {gold} of {outputs} outputs are the reference's own target, as if the gold answers had been "
            "handed in; pass --allow-gold if they are to be scored"
        )
    if equal == outputs >= _SUSPICIOUS:
        remark = f"all {equal} predictions equal their targets letter for letter; are they the gold answers?"
        print(f"{path}: {remark}", file=sys.stderr)


class Provenance(TypedDict):
    """Where a result comes from; the rest of what it rests on is in the `Result` itself.

    Attributes:
        source: what the user called the references.
        split: their split; None where they are a single file.
        predictions: what the user called the predictions file.
        made_with: model, adapter and decoding, as the file beside the predictions says; None without one.
    """

    source: str
    split: str | None
    predictions: str
    made_with: dict[str, object] | None


def provenance(predictions: Path, source: str, split: str) -> Provenance:
    """Where a result comes from, for the files that carry it."""
    record = predictions.with_name(predictions.name + META)
    made_with = read_json_object(record).get("settings") if record.is_file() else None
    return {
        "source": source,
        "split": None if (path := resolve(source)).exists() and not path.is_dir() else canonical_split(split),
        "predictions": str(predictions),
        "made_with": made_with if isinstance(made_with, dict) else None,
    }


def made_with(origin: Provenance) -> str:
    """The model, the adapter and the decoding in words, as far as they are known."""
    known = origin["made_with"] or {}
    return ", ".join(
        f"{name} {known[name]}" for name in ("model", "adapter", "beams", "temperature") if known.get(name)
    )


def read_scores(path: Path) -> dict[str, Any]:
    """What ``score --json`` wrote: a `Result` with its ``provenance`` and ``intervals``.

    Raises:
        PromptCBLUEError: it cannot be read, is something else, or does not say what was scored.
    """
    result = read_json_object(path)
    if not (isinstance(result.get("overall"), float | int) and isinstance(result.get("tasks"), dict)):
        raise PromptCBLUEError(f"{path}: expected the scores that promptcblue-metric score --json writes")
    parts = [("", result, (*Result.__annotations__, "provenance"))]
    if "provenance" in result:
        parts.append(("provenance.", result["provenance"], (*Provenance.__annotations__,)))
    parts += [(f"tasks.{task}.", row, (*TaskResult.__annotations__,)) for task, row in result["tasks"].items()]
    missing = [
        place + name for place, held, names in parts for name in names if not isinstance(held, dict) or name not in held
    ]
    if missing:
        raise PromptCBLUEError(f"{path}: does not say what was scored ({', '.join(missing)} missing); score again")
    return result


def structured_answers(
    path: str | Path, references: Iterable[Sample] | None, parser: Parser = "strict"
) -> tuple[dict[str, list[dict[str, object]]], int]:
    """The official structured form of a run, ``{task: [{"sample_id", "answer"}]}`` (formats.md section 3).

    The file is parsed in its own order, under the task names that it writes.

    Args:
        path: the predictions file.
        references: give task and answer choices where a prediction does not carry them, or None.
        parser: how the predictions are read.

    Returns:
        the structured form, and how many predictions were well-formed.

    Raises:
        PromptCBLUEError: there are none, or some whose task or choices are known from neither side, all of them listed.
    """
    pairs = () if references is None else match(path, references, allow_gold=True)
    matched = {prediction.line: (sample, prediction) for sample, prediction in pairs if prediction is not None}
    in_order = (matched[line][1] for line in sorted(matched))
    found = in_order if matched and _foreign_rows(path) else read_predictions(path)
    bad, answers, well_formed = BadRows(), dict[str, list[dict[str, object]]](), 0
    for prediction in found:
        sample = matched[prediction.line][0] if prediction.line in matched else None
        name = prediction.task or (sample and sample["task_dataset"])
        choices = prediction.choices if prediction.choices is not None else (sample and sample["answer_choices"])
        if name is None or (choices is None and get_task(name).format.needs_choices):
            field = "task_dataset" if name is None else "answer_choices"
            bad.append(RowError(str(path), prediction.line, field, "missing; add it to the row or pass --references"))
            continue
        task = get_task(name)
        prompt = sample["input"] if sample else prediction.prompt
        parsed = parse_answer(task.format, prediction.text, task.choices(choices), parser, prompt)
        row = {"sample_id": prediction.sample_id, "answer": parsed.answer}
        answers.setdefault(prediction.written_task or name, []).append(row)
        well_formed += parsed.well_formed
    bad.stop_if_any("these predictions cannot be parsed")
    if not answers:
        raise PromptCBLUEError(f"{path}: holds no predictions")
    return answers, well_formed
