"""The dataset builder: 16 configs, one a task, and ``all``, straight from the official files.

It gives the rows of the Parquet files that ``promptcblue-dataset import`` writes, without writing them. The same file
is a loading script for ``datasets<4``::

    load_dataset("promptcblue_dataset/promptcblue_dataset.py", "CMeEE-V2", data_dir=FOLDER, trust_remote_code=True)
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import datasets

from promptcblue_dataset.folder import FINGERPRINT_PREFIX
from promptcblue_metric.data.samples import ALL, SAMPLE, Sample, folder_files, iter_samples, resolve
from promptcblue_metric.errors import PromptCBLUEError
from promptcblue_metric.tasks import REGISTRY, TASKS, get_task
from promptcblue_metric.version import VERSION

_TASK_ORDER = {name: position for position, name in enumerate(REGISTRY)}


class PromptCBLUE(datasets.GeneratorBasedBuilder):  # type: ignore[misc]
    """PromptCBLUE's samples as a dataset with the splits train, validation and test.

    Args:
        config_name: a task's name or alias, or ``all`` (the default).
        data_dir: a folder with the official files, or one that was imported; by default the embedded sample.
        source: the same, but kept out of the cache's key, so that the cache entry has the config's bare name.
        hash: not used; the cache is keyed by the content of the files, so that changed files give new rows.

    Raises:
        PromptCBLUEError: unknown config (the message names the closest one and all), or no such folder.
    """

    VERSION = datasets.Version("0.0.0")
    BUILDER_CONFIGS = [  # noqa: RUF012 (the name and the type are the library's)
        datasets.BuilderConfig(name=ALL, description="all 16 tasks"),
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
        source: str | Path | None = None,
        **kwargs: Any,
    ) -> None:
        name = ALL if config_name in (None, ALL) else get_task(str(config_name)).name
        self._source = resolve(source or data_dir or SAMPLE)
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
            description=f"PromptCBLUE, {self.config.description}",
            features=datasets.Features(
                {
                    "input": text,
                    "target": text,
                    "answer_choices": datasets.Sequence(text),
                    "sample_id": text,
                    "task_type": text,
                    "task_dataset": text,
                }
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
        for number, sample in enumerate(sorted(samples, key=lambda sample: _TASK_ORDER[sample["task_dataset"]])):
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
    return FINGERPRINT_PREFIX + digest.hexdigest()[:32]
