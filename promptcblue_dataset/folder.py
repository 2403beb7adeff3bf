"""The folder that goes to the Hub: ``README.md`` and ``{config}/{split}-00000-of-00001.parquet``."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from string import Template
from typing import Any, NamedTuple, TypedDict

from promptcblue_metric.data.samples import ALL, LISTED, SPLITS, Sample, holds, parquet_files
from promptcblue_metric.data.writing import read_json_object, replace_bytes, write_json
from promptcblue_metric.errors import PromptCBLUEError
from promptcblue_metric.tasks import REGISTRY, suite_of

CARD = "README.md"
#: Stands in each card we write, so that the folder is known as one that may be replaced.
MARK = "<!-- Written by promptcblue-dataset import. -->"

#: Templates of cards, and parts of them.
CARDS = Path(__file__).parent / "cards"
#: Of a sample, in their order.
FIELDS = ("input", "target", "answer_choices", "sample_id", "task_type", "task_dataset")
# `sequence` rather than the newer `list`, which datasets 3 cannot read; the result is the same type.
_FEATURE_KINDS = {"answer_choices": "sequence"}
_ROWS = 100_000  # of one Arrow array, which holds at most 2 GiB
_SIZE_CATEGORIES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


class FileInfo(TypedDict):
    """A Parquet file: its path in the folder, and its sizes in memory, in samples and on disk."""

    path: str
    num_bytes: int
    num_examples: int
    file_bytes: int


#: The file of each split of a config.
ConfigInfo = Mapping[str, FileInfo]


class Origin(NamedTuple):
    """What a card says of its samples: a licence that the Hub knows, where they come from, flaws of their raw files."""

    license: str
    text: str
    findings: str = ""


def origin(name: str, findings: str = "", **values: object) -> Origin:
    """An entry of `cards/origins.yaml`, with the values that its text asks for."""
    import yaml

    content = (CARDS / "origins.yaml").read_text(encoding="utf-8")
    entry = yaml.load(content, Loader=yaml.CSafeLoader)[name]
    return Origin(entry["license"], entry["text"].format(**values), findings)


def is_ours(folder: Path) -> bool:
    """Whether `write` made this folder and nothing was added to it since."""
    card = folder / CARD
    if not card.is_file() or MARK not in card.read_text(encoding="utf-8", errors="replace"):
        return False
    written = {path for splits in parquet_files(folder).values() for path in chain(*splits.values())}
    return all(path in written or path == card for path in folder.rglob("*") if not path.is_dir())


def write_config(folder: Path, config: str, splits: Mapping[str, Sequence[Sample]]) -> ConfigInfo:
    """Write the Parquet files of one config; their paths and sizes, by split, as `write_card` wants them."""
    return {split: _write_split(folder, f"{config}/{split}-00000-of-00001.parquet", splits[split]) for split in splits}


def write_card(folder: Path, infos: Mapping[str, ConfigInfo], origin: Origin) -> None:
    """Write the card of a folder whose configs are written."""
    (folder / CARD).write_text(_card(infos, origin), encoding="utf-8", newline="\n")


def _write_split(folder: Path, name: str, rows: Sequence[Sample]) -> FileInfo:
    import pyarrow as pa
    import pyarrow.parquet as pq

    # A schema of our own carries none of datasets' metadata, whose newest form datasets 3 cannot read.
    schema = pa.schema([(name, pa.list_(pa.string()) if name in _FEATURE_KINDS else pa.string()) for name in FIELDS])
    columns = {field.name: [row[field.name] for row in rows] for field in schema}  # type: ignore[literal-required]
    batches = [
        pa.record_batch([_column(field.type, columns[field.name][start : start + _ROWS]) for field in schema], schema)
        for start in range(0, len(rows), _ROWS)
    ]
    table = pa.Table.from_batches(batches, schema)
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    pq.write_table(table, path)
    return {"path": name, "num_bytes": table.nbytes, "num_examples": len(rows), "file_bytes": path.stat().st_size}


def _column(kind: Any, values: Sequence[Any]) -> Any:
    """An Arrow array of strings or of lists of strings, or none; made of bytes, since `pa.array` loads pandas first."""
    import numpy as np
    import pyarrow as pa

    there = np.packbits([value is not None for value in values], bitorder="little") if None in values else None
    texts = kind == pa.string()
    known: list[Any] = [(value.encode() if texts else value) if value is not None else b"" for value in values]
    ends = np.cumsum([0, *map(len, known)], dtype=np.int32)
    buffers = [pa.py_buffer(there) if there is not None else None, pa.py_buffer(ends)]
    if texts:
        return pa.Array.from_buffers(kind, len(values), [*buffers, pa.py_buffer(b"".join(known))])
    return pa.Array.from_buffers(kind, len(values), buffers, children=[_column(kind.value_type, list(chain(*known)))])


def _card(infos: Mapping[str, ConfigInfo], origin: Origin) -> str:
    from huggingface_hub import DatasetCardData

    suite = suite_of(infos)
    files: dict[str, dict[str, list[FileInfo]]] = {
        ALL: {split: [splits[split] for splits in infos.values() if split in splits] for split in SPLITS}
    }
    files |= {config: {split: [info] for split, info in splits.items()} for config, splits in infos.items()}
    files[ALL] = {split: parts for split, parts in files[ALL].items() if parts}
    total = sum(part["num_examples"] for parts in files[ALL].values() for part in parts)
    data = DatasetCardData(
        language="zh",
        license=origin.license,
        pretty_name=suite.title,
        size_categories=next((name for limit, name in _SIZE_CATEGORIES if total < limit), "n>1M"),
        task_categories=["token-classification", "text-classification", "text-generation", "summarization"],
        tags=["medical", "chinese", "benchmark", "prompt-tuning", suite.name],
        configs=[_config(config, splits) for config, splits in files.items()],
        dataset_info=[_dataset_info(config, splits) for config, splits in files.items()],
    )
    card = next(path for name in (suite.name, "other") if (path := CARDS / f"{name}.md").is_file())
    body = Template(card.read_text(encoding="utf-8")).substitute(
        name=suite.name,
        title=suite.title,
        mark=MARK,
        table=_table(infos),
        total=f"{total:,}",
        example=next(iter(infos)),
        origin=origin.text,
        findings=origin.findings,
    )
    return f"---\n{data.to_yaml()}\n---\n\n{body}"


def _config(config: str, splits: Mapping[str, Sequence[FileInfo]]) -> dict[str, object]:
    default = {"default": True} if config == ALL else {}
    files = [{"split": split, "path": [part["path"] for part in parts]} for split, parts in splits.items()]
    return {"config_name": config, **default, "data_files": files}


def _dataset_info(config: str, splits: Mapping[str, Sequence[FileInfo]]) -> dict[str, object]:
    bytes_ = {split: sum(part["num_bytes"] for part in parts) for split, parts in splits.items()}
    return {
        "config_name": config,
        "features": [{"name": name, _FEATURE_KINDS.get(name, "dtype"): "string"} for name in FIELDS],
        "splits": [
            {"name": split, "num_bytes": bytes_[split], "num_examples": sum(part["num_examples"] for part in parts)}
            for split, parts in splits.items()
        ],
        "download_size": sum(part["file_bytes"] for parts in splits.values() for part in parts),
        "dataset_size": sum(bytes_.values()),
    }


def _table(infos: Mapping[str, ConfigInfo]) -> str:
    lines = [f"| config | group | metric | {' | '.join(SPLITS)} |", "|---|---|---|" + "---:|" * len(SPLITS)]
    for config, splits in infos.items():
        counts = [f"{splits[split]['num_examples']:,}" if split in splits else "–" for split in SPLITS]
        lines.append(
            f"| {config} | {REGISTRY[config].group} | {REGISTRY[config].scorer.metric} | {' | '.join(counts)} |"
        )
    return "\n".join(lines)


def check_output(output: Path, source: Path, overwrite: bool) -> None:
    """Stop before any work if the output folder must not be replaced."""
    target = output.resolve()
    for precious in (Path.cwd(), Path.home(), source.resolve()):
        if precious.is_relative_to(target):
            raise PromptCBLUEError(f"{output}: cannot be replaced: it is or holds {precious}; name another --output")
    if holds(source.resolve(), target):
        raise PromptCBLUEError(f"{output}: lies in {source}, which this command reads; name another --output")
    if overwrite or not output.exists():
        return
    if not output.is_dir():
        raise PromptCBLUEError(f"{output}: is a file; name another --output, or replace it with --overwrite")
    if any(output.iterdir()) and (why := _changed(output)):
        raise PromptCBLUEError(f"{output}: {why}; name another --output, or replace it with --overwrite")


def digests(folder: Path) -> dict[str, str]:
    """The SHA-256 of each file of a folder."""
    files = sorted(path for path in folder.rglob("*") if not path.is_dir())
    return {
        path.relative_to(folder).as_posix(): _digest(path.read_bytes() if path.is_file() else b"") for path in files
    }


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _changed(folder: Path) -> str:
    """How a folder differs from what `import` or `build` wrote, by the report beside it; empty if it does not."""
    record = _record(folder)
    if record is None:
        return "holds files that no import or build has on record, and so may have been changed by hand"
    written, found = record[1], digests(folder)
    names = sorted(name for name in {*written, *found} if written.get(name) != found.get(name))
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return f"changed since it was written: {', '.join(names[:LISTED])}{more}" if names else ""


def _record(folder: Path) -> tuple[Path, dict[str, str]] | None:
    """The newest report beside a folder, and the SHA-256 of each file that was written."""
    reports = [path for made_by in ("import", "build") if (path := report_path(folder, made_by)).is_file()]
    if not reports:
        return None
    newest = max(reports, key=lambda path: path.stat().st_mtime_ns)
    written = read_json_object(newest).get("written")
    return (newest, written) if isinstance(written, dict) else None


def rewrite_card(folder: Path, text: str) -> None:
    """Change the card of a folder, and the report with it unless somebody else has changed the card before."""
    card, record = folder / CARD, _record(folder)
    before = _digest(card.read_bytes())
    replace_bytes(card, text.encode())
    if record and record[1].get(CARD) == before:
        record[1][CARD] = _digest(text.encode())
        write_json(record[0], {**read_json_object(record[0]), "written": record[1]})


def report_path(output: Path, made_by: str) -> Path:
    """Where the report of what ``import`` or ``build`` did stands."""
    return output.absolute().with_name(f"{output.absolute().name}-{made_by}-report.json")
