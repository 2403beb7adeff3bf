"""Extending the pool as the paper does: a model rephrases each template, people review what it wrote (section 3.2)."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from promptcblue_dataset.prompts.pool import NEAR, TaskPrompts, load_pool, placeholder_flaws, placeholders, similarity
from promptcblue_dataset.review import read_rows, verdict_of, write_rows
from promptcblue_metric.data.samples import read_json_lines
from promptcblue_metric.data.writing import replace_bytes, write_json
from promptcblue_metric.errors import RowError
from promptcblue_metric.tasks import REGISTRY, get_task

ACCEPT, REJECT = "accept", "reject"
_COLUMNS = {"task": 16, "template": 10, "original": 50, "rephrasing": 50, "verdict": 10}
_MARK = "-----"
_REQUEST = """\
下面是一个提示词模板。请把它改写{times}次，意思不变，措辞和版式尽量多样。
方括号里的占位符（{names}）必须原样保留，每个恰好出现一次。
每个改写之间用单独一行“{mark}”隔开，不要编号，不要写别的内容。

{template}"""


def write_requests(path: Path, pool: Mapping[str, TaskPrompts], model: str, times: int) -> int:
    """Write a chat request for each template, in the OpenAI batch form; how many there are.

    Raises:
        PromptCBLUEError: the file cannot be written.
    """
    lines = []
    for task, prompts in pool.items():
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
    replace_bytes(path, "".join(lines).encode())
    return len(lines)


def read_answers(path: Path, pool: Mapping[str, TaskPrompts], review: Path) -> Counter[str]:
    """Read a batch's output and write what may be used to a file for review; how many were kept and left out, and why.

    Raises:
        PromptCBLUEError: a line is no answer to one of our requests, or the review file cannot be written.
    """
    counts: Counter[str] = Counter()
    known = {task: list(prompts.templates) for task, prompts in pool.items()}
    rows = []
    for line, answer in read_json_lines(path):
        task, number = _request_of(answer, pool, path, line)
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
    write_rows(review, _COLUMNS, rows, {"verdict": (ACCEPT, REJECT)})
    return counts


def _request_of(answer: Mapping[str, Any], pool: Mapping[str, TaskPrompts], path: Path, line: int) -> tuple[str, int]:
    task, _, number = str(answer.get("custom_id")).rpartition("/")
    if task not in pool or not number.isdecimal() or not 0 < int(number) <= len(pool[task].templates):
        raise RowError(
            str(path), line, "custom_id", f"expected TASK/NUMBER of a template, found {answer.get('custom_id')!r:.80}"
        )
    return task, int(number)


def _rephrasings(answer: Mapping[str, Any]) -> Iterator[str]:
    try:
        text = answer["response"]["body"]["choices"][0]["message"]["content"]
    except (KeyError, IndexError, TypeError):
        return
    if isinstance(text, str):
        for part in re.split(rf"^\s*{_MARK}-*\s*$", text, flags=re.MULTILINE):
            if part.strip():
                yield part.strip()


def _objection(text: str, original: str, prompts: TaskPrompts, known: Sequence[str]) -> str | None:
    """Why a rephrasing cannot be used, or None."""
    if sorted(placeholders(text)) != sorted(placeholders(original)) or any(placeholder_flaws(prompts, [text])):
        return "placeholders differ from the original's"
    if any(similarity(text, other) > NEAR for other in known):
        return "near-duplicate of another template"
    return None


def accept(review: Path, pool: Mapping[str, TaskPrompts], output: Path) -> Counter[str]:
    """Write a pool in the official form: the templates of ``pool`` and the rephrasings that were accepted.

    Returns:
        How many rephrasings were accepted, rejected and not reviewed; the last two are not used.

    Raises:
        PromptCBLUEError: the file cannot be read, or a row holds another verdict or a template that cannot be filled.
    """
    counts: Counter[str] = Counter({"accepted": 0, "rejected": 0, "not reviewed": 0})
    extended = {task: list(prompts.templates) for task, prompts in pool.items()}
    for number, row in enumerate(read_rows(review, ("task", "rephrasing", "verdict")), 2):
        verdict = verdict_of(row, (ACCEPT, REJECT), review, number)
        counts[{ACCEPT: "accepted", REJECT: "rejected"}.get(verdict, "not reviewed")] += 1
        if verdict == ACCEPT:
            task = get_task(row["task"]).name
            prompts = pool[task] if task in pool else load_pool(tasks=[task])[task]
            if flaws := list(placeholder_flaws(prompts, [row["rephrasing"]])):
                raise RowError(str(review), number, "rephrasing", f"{flaws[0].kind} {flaws[0].detail}")
            extended.setdefault(task, []).append(row["rephrasing"])
    write_json(output, {task: extended[task] for task in REGISTRY if task in extended})
    return counts
