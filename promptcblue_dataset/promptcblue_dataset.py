"""The dataset builder: a config a task of PromptCBLUE, and ``all``, straight from the official files.

It gives the rows of the Parquet files that ``promptcblue-dataset import`` writes, without writing them. The same file
is a loading script for ``datasets<4``::

    load_dataset("promptcblue_dataset/promptcblue_dataset.py", "CMeEE-V2", data_dir=FOLDER, trust_remote_code=True)

And the cache, of every suite: ``load_dataset`` takes a bare name that is no folder from the newest entry of that
name. `prime` puts samples there, takes earlier ones out, and makes its entries the newest. It dates them ahead, since
loading a folder called ``promptcblue`` makes entries of the same name, whose samples may be others.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

import datasets

from promptcblue_dataset.folder import FIELDS
from promptcblue_metric.cli.common import Progress
from promptcblue_metric.data.samples import (
    ALL,
    SAMPLE,
    SPLITS,
    Sample,
    folder_files,
    iter_samples,
    parquet_files,
    resolve,
)
from promptcblue_metric.data.writing import replace_bytes, replacing, write_json
from promptcblue_metric.errors import PromptCBLUEError
from promptcblue_metric.tasks import REGISTRY, TASKS, Suite, get_task, suite_of
from promptcblue_metric.version import VERSION

#: What the names of our entries in the datasets cache start with.
_PREFIX = "promptcblue-"
#: Beside them, which tasks they hold and of which folder.
_SOURCE = "primed-from.txt"
_AHEAD = 10 * 365 * 24 * 3600  # seconds


class PromptCBLUE(datasets.GeneratorBasedBuilder):  # type: ignore[misc]
    """PromptCBLUE's samples as a dataset with the splits train, validation and test.

    Args:
        config_name: a task's name or alias, or ``all`` (the default).
        data_dir: a folder with the official files, or one that was imported; by default the embedded sample.
        hash: not used; the cache is keyed by the content of the files, so that changed files give new rows.

    Raises:
        PromptCBLUEError: unknown config (the message names the closest one and all), or no such folder.
    """

    VERSION = datasets.Version("0.0.0")
    BUILDER_CONFIGS: ClassVar = [
        datasets.BuilderConfig(name=ALL, description=f"all {len(TASKS)} tasks of PromptCBLUE"),
        *(datasets.BuilderConfig(name=task.name, description=task.group) for task in TASKS.values()),
    ]
    DEFAULT_CONFIG_NAME = ALL

    def __init__(
        self,
        cache_dir: str | None = None,
        dataset_name: str | None = None,
        config_name: str | None = None,
        hash: str | None = None,
        *,
        data_dir: str | Path | None = None,
        **kwargs: Any,
    ) -> None:
        name = ALL if config_name in (None, ALL) else get_task(str(config_name)).name
        self._source = resolve(data_dir or SAMPLE, [] if name == ALL else [name])
        super().__init__(
            cache_dir=cache_dir,
            dataset_name=dataset_name,
            config_name=name,
            hash=fingerprint(self._source, name),
            data_dir=None if data_dir is None else str(data_dir),
            **kwargs,
        )

    def _info(self) -> datasets.DatasetInfo:
        text = datasets.Value("string")
        return datasets.DatasetInfo(
            description=self.config.description,
            features=datasets.Features(
                {name: datasets.Sequence(text) if name == "answer_choices" else text for name in FIELDS}
            ),
        )

    def _split_generators(self, dl_manager: datasets.DownloadManager) -> list[datasets.SplitGenerator]:
        wanted = None if self.config.name == ALL else {self.config.name}
        splits = {split: tuple(iter_samples(self._source, split, wanted)) for split in folder_files(self._source)}
        if not any(splits.values()):
            raise PromptCBLUEError(f"{self._source} has no samples of {self.config.name}")
        return [
            # A tuple, since a list would be taken for shards.
            datasets.SplitGenerator(name=split, gen_kwargs={"samples": samples})
            for split, samples in splits.items()
            if samples
        ]

    def _generate_examples(self, samples: Sequence[Sample]) -> Iterator[tuple[int, Sample]]:
        # By task, as the Parquet files of `all` are listed.
        places = {name: place for place, name in enumerate(REGISTRY)}
        for number, sample in enumerate(sorted(samples, key=lambda sample: places[sample["task_dataset"]])):
            sample.pop("template", None)  # no field of the benchmark
            yield number, sample


def fingerprint(folder: Path, config: str) -> str:
    """A name for the rows that ``folder`` gives, from the content of its files and the versions that read them.

    The tasks share theirs and ``all`` has its own: of configs with one fingerprint, ``load_dataset`` without a config
    name takes none from the cache but asks for a name, and ``all`` is what it should take.

    Raises:
        PromptCBLUEError: the folder has nothing to read.
    """
    digest = hashlib.sha256(f"{VERSION} {datasets.__version__} {config == ALL}".encode())
    for split, paths in folder_files(folder).items():
        for path in paths:
            digest.update(f"\n{split} {path.parent.name if path.suffix == '.parquet' else ''}\n".encode())
            with path.open("rb") as stream:
                while block := stream.read(1 << 20):
                    digest.update(block)
    return _PREFIX + digest.hexdigest()[:32]


def prime(folder: Path, configs: Sequence[str], on_progress: Progress = lambda doing, item, total: None) -> str:
    """Make the samples of a folder's configs what ``load_dataset`` gives in any folder by the name of their suite.

    Returns:
        What it gave before, if that was something else.

    Raises:
        PromptCBLUEError: the cache cannot be written.
    """
    suite, names = suite_of(configs), [*configs, ALL]  # `all` comes last: the newest is what no config name gives
    what = f"all {len(configs)} tasks" if len(configs) == len(suite.tasks) else ", ".join(configs)
    try:
        root = Path(datasets.config.HF_DATASETS_CACHE) / suite.name
        of_task, of_all = (fingerprint(folder, name) for name in (names[0], ALL))
        entries = {name: root / name / str(PromptCBLUE.VERSION) / of_task for name in configs}
        entries[ALL] = root / ALL / str(PromptCBLUE.VERSION) / of_all
        record = root / _SOURCE
        before = record.read_text(encoding="utf-8") if record.is_file() and not entries[ALL].exists() else ""
        # First, so that an import which is cut short leaves configs missing rather than stale.
        for entry in root.glob("*/*/*"):
            outdated = entry.name.startswith(_PREFIX) and entry not in entries.values()
            if entry.is_dir() and (outdated or entry.parts[-3] not in names):
                shutil.rmtree(entry)
        replace_bytes(record, f"{what}, from {folder.absolute()}".encode())
        files = parquet_files(folder)
        for name, entry in entries.items():
            if not (entry / "dataset_info.json").exists():
                _write_entry(entry, suite, name, list(files.values()) if name == ALL else [files[name]])
            newest = time.time() + _AHEAD
            os.utime(entry, (newest, newest))
            on_progress("caching", name, len(names))
        return before
    except (OSError, PromptCBLUEError) as error:
        raise PromptCBLUEError(
            f"{folder} is written, but the datasets cache is not: {error}; set HF_HOME to a folder that can be "
            "written, or leave the cache alone with --no-cache"
        ) from error


def _write_entry(entry: Path, suite: Suite, config: str, files: Sequence[Mapping[str, Sequence[Path]]]) -> None:
    """Write the Parquet files of some configs, by split, as one entry of the cache.

    Several environments can share the cache, so its features are in the form that datasets before 4 knows, without the
    type name ``List`` or a schema's metadata; newer versions read that too.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    splits, total = {}, 0
    with replacing(entry) as folder:
        for split in SPLITS:
            if paths := list(chain(*(of_config.get(split, ()) for of_config in files))):
                table = pa.concat_tables(map(pq.read_table, paths))
                with pa.ipc.new_stream(str(folder / f"{suite.name}-{split}.arrow"), table.schema) as writer:
                    writer.write_table(table)
                counts = {"num_bytes": table.nbytes, "num_examples": len(table)}
                splits[split] = {"name": split, "dataset_name": suite.name, **counts}
                total += table.nbytes
        text = {"dtype": "string", "_type": "Value"}
        lists = {"feature": text, "_type": "Sequence"}
        info = {
            "description": suite.title if config == ALL else REGISTRY[config].group,
            "dataset_name": suite.name,
            "config_name": config,
            "version": {"version_str": str(PromptCBLUE.VERSION)},
            "features": {name: lists if name == "answer_choices" else text for name in FIELDS},
            "splits": splits,
            "dataset_size": total,
        }
        write_json(folder / "dataset_info.json", info)
