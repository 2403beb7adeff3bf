"""The dataset's repository on the Hub: the Parquet files of a folder that was imported or built, and its card."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from itertools import chain
from pathlib import Path
from string import Template
from typing import NamedTuple

from promptcblue_dataset.folder import CARD, CARDS, is_ours
from promptcblue_dataset.statistics import in_card, statistics
from promptcblue_metric.cli.common import Progress
from promptcblue_metric.data.samples import SPLITS, parquet_files
from promptcblue_metric.errors import PromptCBLUEError
from promptcblue_metric.hub.client import Publication
from promptcblue_metric.tasks import SUITES

_OWNED = (CARD, *(f"*/{split}-*.parquet" for split in SPLITS))
#: Licences that let nobody pass the samples on: what the Hub calls the terms of others, and none at all.
_CLOSED = ("other", "unknown", None)
_LOAD = re.compile(r'load_dataset\("[^"/]+"')
#: What the card says of a repository on the Hub as long as it is none.
_LOAD_HINT = re.compile(r"; put ORG/\S+ for a repository on the Hub")


def publication(
    folder: Path, repo: str, *, have_rights: bool = False, on_progress: Progress = lambda doing, item, total: None
) -> Publication:
    """What goes to the Hub of a folder that ``import`` or ``build`` wrote.

    Args:
        repo: where it will stand, for the examples in the card.
        have_rights: the user says that they may publish text that belongs to others.

    Raises:
        PromptCBLUEError: the folder is no such folder, or holds text that not everybody may publish.
    """
    configs = parquet_files(folder)
    if not configs:
        raise PromptCBLUEError(f"{folder}: no dataset; write one with `promptcblue-dataset import` or `build`")
    if not is_ours(folder):
        raise PromptCBLUEError(
            f"{folder}: lacks its card, or holds files that neither `import` nor `build` wrote; take those out, or "
            "write the folder anew"
        )
    card = (folder / CARD).read_text(encoding="utf-8")
    if not have_rights:
        _check_rights(folder, card, configs)
    text = in_card(_LOAD_HINT.sub("", _LOAD.sub(f'load_dataset("{repo}"', card)), statistics(folder, on_progress))
    text = f"{text}\n{_example_and_corpora(repo, configs)}"
    parquet = {
        path.relative_to(folder).as_posix(): path for splits in configs.values() for path in chain(*splits.values())
    }
    look = f'from datasets import load_dataset; print(load_dataset("{repo}", "{next(iter(configs))}"))'
    return Publication("dataset", {CARD: text.encode(), **parquet}, _OWNED, f"python -c '{look}'")


def _check_rights(folder: Path, card: str, configs: Mapping[str, Mapping[str, Sequence[Path]]]) -> None:
    """Refuse text that its makers have not given to everybody; the card says where it comes from.

    Raises:
        PromptCBLUEError: says what would be given away.
    """
    import pyarrow.parquet as pq
    from huggingface_hub import DatasetCard

    licence = DatasetCard(card, ignore_metadata_errors=True).data.license
    if licence not in _CLOSED:
        return
    tests = chain(*(splits.get("test", ()) for splits in configs.values()))
    columns = (pq.read_table(path, columns=["target"])["target"].to_pylist() for path in tests)
    test = ""
    if targets := sum(map(bool, chain(*columns))):
        test = f"; {targets:,} of its test samples have their targets, and public answers measure nothing any more"
    raise PromptCBLUEError(
        f"{folder}: not published: its text is from corpora of others, who let only those use it that accepted their "
        f"terms (licence in its card: {licence}){test}. If you may publish it, say so with --i-have-the-rights"
    )


def _example_and_corpora(repo: str, configs: Mapping[str, Mapping[str, Sequence[Path]]]) -> str:
    """Code that loads a sample and what it prints; where the texts are from, and how to cite them."""
    import pyarrow.parquet as pq

    config, splits = next(iter(configs.items()))
    split, paths = next(iter(splits.items()))
    with pq.ParquetFile(paths[0]) as file:
        row = next(file.iter_batches(batch_size=1)).to_pylist()[0]
    printed = "\n".join(f"{field}: {value}" for field, value in row.items())
    sources = sources_of(configs)
    rows = [
        f"| [{source.name}]({source.url}) | {source.what} | {source.terms} | "
        f"{', '.join(task for task in source.tasks if task in configs)} |"
        for source in sources
    ]
    if unknown := set(configs).difference(*(source.tasks for source in sources)):
        rows.append(f"| no source on record | | | {', '.join(sorted(unknown))} |")
    return Template((CARDS / "hub.md").read_text(encoding="utf-8")).substitute(
        repo=repo,
        config=config,
        split=split,
        printed=printed,
        # Longer than any in the text.
        fence="`" * max(3, 1 + max(map(len, re.findall("`+", printed)), default=0)),
        rows="\n".join(rows),
        citations="\n\n".join(source.citation for source in sources),
    )


class Source(NamedTuple):
    """A corpus, or a benchmark made of several, as `sources.yaml` describes it."""

    name: str
    tasks: Sequence[str]
    what: str
    url: str
    terms: str
    citation: str


def sources_of(tasks: Collection[str]) -> list[Source]:
    """The sources that the tasks follow, benchmarks first."""
    import yaml

    path = Path(__file__).with_name("sources.yaml")
    found = []
    for entry in yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader):
        named = entry["tasks"]
        entry["tasks"] = tuple(SUITES[named].tasks if isinstance(named, str) else named)
        if not set(tasks).isdisjoint(entry["tasks"]):
            found.append(Source(**entry))
    return found
