"""Extending the pool as the paper does: a model rephrases each template, people review what it wrote (section 3.2).

Each step is a command, from file to file.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from promptcblue_dataset.options import PoolOption, TasksOption, task_names
from promptcblue_dataset.prompts.pool import NEAR, TaskPrompts, load_pool, placeholder_flaws, placeholders, similarity
from promptcblue_dataset.review import read_rows, write_rows
from promptcblue_metric.data.samples import read_json_lines
from promptcblue_metric.data.writing import replace_bytes, write_json
from promptcblue_metric.errors import RowError
from promptcblue_metric.tasks import REGISTRY, get_task

_VERDICTS = ACCEPT, REJECT = "accept", "reject"
_COLUMNS = {"task": 16, "template": 10, "original": 50, "rephrasing": 50, "verdict": 10}
_MARK = "-----"
_REQUEST = """\
下面是一个提示词模板。请把它改写{times}次，意思不变，措辞和版式尽量多样。
方括号里的占位符（{names}）必须原样保留，每个恰好出现一次。
每个改写之间用单独一行“{mark}”隔开，不要编号，不要写别的内容。

{template}"""


def write_requests(
    output: Annotated[Path, typer.Argument(help="JSON Lines file to write, in the OpenAI batch form.")],
    model: Annotated[str, typer.Option(help="Model that is asked.")],
    templates: PoolOption = None,
    tasks: TasksOption = None,
    times: Annotated[int, typer.Option(help="Rephrasings of each template.")] = 10,
) -> None:
    """Write requests that ask a model to rephrase each template, as the paper does."""
    lines = []
    for task, prompts in load_pool(templates, task_names(tasks)).items():
        for number, template in enumerate(prompts.templates, 1):
            names = "、".join(f"[{name}]" for name in placeholders(template))
            text = _REQUEST.format(times=times, names=names, mark=_MARK, template=template)
            request = {
                "custom_id": f"{task}/{number}",
                "method": "POST",
                "url": "/v1/chat/completions",
                "body": {"model": model, "messages": [{"role": "user", "content": text}]},
            }
            lines.append(json.dumps(request, ensure_ascii=False) + "\n")
    replace_bytes(output, "".join(lines).encode())
    print(f"wrote {len(lines)} requests for {times} rephrasings each to {output}")


def read_answers(
    answers: Annotated[Path, typer.Argument(help="The batch's output file.")],
    review: Annotated[Path, typer.Argument(help="File to review, .xlsx or .csv, with a column to accept or reject.")],
    templates: PoolOption = None,
) -> None:
    """Read rephrasings, keep those with the same placeholders that repeat no template, and write them for review."""
    pool = load_pool(templates)
    counts: Counter[str] = Counter()
    known = {task: list(prompts.templates) for task, prompts in pool.items()}
    rows = []
    for line, answer in read_json_lines(answers):
        task, number = _request_of(answer, pool, answers, line)
        original = pool[task].templates[number - 1]
        texts = list(_rephrasings(answer))
        if not texts:
            counts["left out: request failed or came back empty"] += 1
        for text in texts:
            reason = _objection(text, original, pool[task], known[task])
            counts[f"left out: {reason}" if reason else "to be reviewed"] += 1
            if not reason:
                known[task].append(text)
                rows.append((task, str(number), original, text, ""))
    write_rows(review, _COLUMNS, rows, _VERDICTS)
    _print_counts(counts)
    print(f"wrote {review}; write accept or reject in each row, then run `promptcblue-dataset templates accept`")


def _print_counts(counts: Counter[str]) -> None:
    for kind, count in counts.most_common():
        print(f"{kind}: {count}")


def _request_of(answer: Mapping[str, Any], pool: Mapping[str, TaskPrompts], path: Path, line: int) -> tuple[str, int]:
    """Task and number of the template that an answer is to.

    Raises:
        RowError: it is an answer to none of our requests.
    """
    task, _, number = str(answer.get("custom_id")).rpartition("/")
    if task not in pool or not number.isdecimal() or not 0 < int(number) <= len(pool[task].templates):
        expected = f"expected TASK/NUMBER of a template, found {answer.get('custom_id')!r:.80}"
        raise RowError(str(path), line, "custom_id", expected)
    return task, int(number)


def _rephrasings(answer: Mapping[str, Any]) -> Iterator[str]:
    try:
        text = answer["response"]["body"]["choices"][0]["message"]["content"]
    except (KeyError, IndexError, TypeError):
        return
    if isinstance(text, str):
        parts = re.split(rf"^\s*{_MARK}-*\s*$", text, flags=re.MULTILINE)
        yield from filter(None, map(str.strip, parts))


def _objection(text: str, original: str, prompts: TaskPrompts, known: Sequence[str]) -> str | None:
    """Why a rephrasing cannot be used, or None."""
    if sorted(placeholders(text)) != sorted(placeholders(original)) or any(placeholder_flaws(prompts, [text])):
        return "placeholders differ from the original's"
    if any(similarity(text, other) > NEAR for other in known):
        return "near-duplicate of another template"
    return None


def accept(
    review: Annotated[Path, typer.Argument(help="The reviewed file.")],
    output: Annotated[Path, typer.Argument(help="Pool to write, for `--templates`.")],
    templates: PoolOption = None,
) -> None:
    """Write a pool of the templates and the accepted rephrasings; whatever was not accepted is left out."""
    counts = Counter({"accepted": 0, "rejected": 0, "not reviewed": 0})
    pool = load_pool(templates)
    extended = {task: list(prompts.templates) for task, prompts in pool.items()}
    for number, row in enumerate(read_rows(review, ("task", "rephrasing", "verdict"), _VERDICTS), 2):
        counts[{ACCEPT: "accepted", REJECT: "rejected"}.get(row["verdict"], "not reviewed")] += 1
        if row["verdict"] == ACCEPT:
            task = get_task(row["task"]).name
            prompts = pool[task] if task in pool else load_pool(tasks=[task])[task]
            if flaws := list(placeholder_flaws(prompts, [row["rephrasing"]])):
                raise RowError(str(review), number, "rephrasing", f"{flaws[0].kind} {flaws[0].detail}")
            extended.setdefault(task, []).append(row["rephrasing"])
    write_json(output, {task: extended[task] for task in REGISTRY if task in extended})
    _print_counts(counts)
    print(f"wrote {output}")
