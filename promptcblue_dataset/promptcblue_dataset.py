"""The dataset builder of every suite: a config a task, and ``all``, straight from the official files.

It gives the rows of the Parquet files that ``promptcblue-dataset import`` writes, without writing them. The same file
is a loading script for ``datasets<4``::

    load_dataset("promptcblue_dataset/promptcblue_dataset.py", "CMeEE-V2", data_dir=FOLDER, trust_remote_code=True)

And the cache: ``load_dataset`` takes a bare name that is no folder from the newest entry of that name. `prime` puts
samples there, takes earlier ones out, and makes its entries the newest. It dates them ahead, since loading a folder
called ``promptcblue`` makes entries of the same name, whose samples may be others.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import datasets
from datasets.exceptions import DatasetsError

from promptcblue_dataset.folder import FIELDS
from promptcblue_metric.cli.common import Progress
from promptcblue_metric.data.samples import ALL, SAMPLE, Sample, folder_files, iter_samples, resolve
from promptcblue_metric.data.writing import replacing_file, write_json
from promptcblue_metric.errors import PromptCBLUEError
from promptcblue_metric.tasks import REGISTRY, SUITES, Suite, get_task, suite_of
from promptcblue_metric.version import VERSION

#: What the names of our entries in the datasets cache start with.
_PREFIX = "promptcblue-"
#: Beside them, the folder whose samples they hold.
_SOURCE = "primed-from.txt"
_AHEAD = 10 * 365 * 24 * 3600  # seconds


def _configs(suite: Suite) -> list[datasets.BuilderConfig]:
    return [
        datasets.BuilderConfig(name=ALL, description=f"all {len(suite.tasks)} tasks of {suite.title}"),
        *(datasets.BuilderConfig(name=task.name, description=task.group) for task in suite.tasks.values()),
    ]


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
    BUILDER_CONFIGS = _configs(SUITES["promptcblue"])
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
        self._source = resolve(source or data_dir or SAMPLE, [] if name == ALL else [name])
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


def builder_of(suite: Suite) -> type[PromptCBLUE]:
    """The builder whose configs are a suite's tasks."""
    return type(suite.title, (PromptCBLUE,), {"BUILDER_CONFIGS": _configs(suite), "__module__": __name__})


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
    names = [*configs, ALL]  # `all` comes last, since the newest is what no config name gives
    suite = suite_of(configs)
    bars = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()  # three a config; one is shown for all
    try:
        # First, so that an import which is cut short leaves configs missing rather than stale.
        current = {fingerprint(folder, name) for name in (names[0], ALL)}
        root = Path(datasets.config.HF_DATASETS_CACHE) / suite.name
        root.mkdir(parents=True, exist_ok=True)
        before = _given(root, suite, current)
        _remove_outdated(root, names, current)
        (root / _SOURCE).write_text(str(folder.absolute()), encoding="utf-8")
        for name in names:
            _prepare(builder_of(suite)(config_name=name, dataset_name=suite.name, source=folder))
            on_progress("caching", name, len(names))
        return before
    except (OSError, DatasetsError) as error:
        raise PromptCBLUEError(
            f"{folder} is written, but the datasets cache is not: {error}; set HF_HOME to a folder that can be "
            "written, or leave the cache alone with --no-cache"
        ) from error
    finally:
        if bars:
            datasets.enable_progress_bars()


def _given(root: Path, suite: Suite, fingerprints: Collection[str]) -> str:
    """The tasks that the suite's name gives and where they are from; empty if they are those of the fingerprints."""
    entries = [entry for entry in root.glob("*/*/*") if entry.is_dir()]
    ours = [entry for entry in entries if entry.name.startswith(_PREFIX)]
    found = {entry.parts[-3] for entry in ours or entries if entry.name not in fingerprints}
    if not found:
        return ""
    tasks = [task for task in suite.tasks if task in found]
    what = f"all {len(tasks)} tasks" if len(tasks) == len(suite.tasks) else ", ".join(tasks or sorted(found))
    source = root / _SOURCE
    known = source.is_file() and bool(ours)
    return f"{what}, from {source.read_text(encoding='utf-8')}" if known else f"{what}, from a folder not on record"


def _remove_outdated(root: Path, configs: Collection[str], fingerprints: Collection[str]) -> None:
    """Take out what earlier imports put in, and whatever there is of configs that are no more."""
    for entry in root.glob("*/*/*"):
        current = entry.name in fingerprints or not entry.name.startswith(_PREFIX)
        if entry.is_dir() and not (current and entry.parts[-3] in configs):
            shutil.rmtree(entry)


def _prepare(builder: PromptCBLUE) -> None:
    entry = Path(builder.cache_dir)
    if not (entry / "dataset_info.json").exists():
        builder.download_and_prepare()
    _make_readable_for_older_versions(entry)
    newest = time.time() + _AHEAD
    os.utime(entry, (newest, newest))


def _make_readable_for_older_versions(entry: Path) -> None:
    """Rewrite an entry without the type name ``List``, which datasets before 4 does not know.

    Several environments can share the cache; newer versions read the older form.
    """
    import pyarrow as pa

    info = entry / "dataset_info.json"
    content = json.loads(info.read_text(encoding="utf-8"))
    newer = [feature for feature in content["features"].values() if feature["_type"] == "List"]
    if not newer:
        return
    for path in entry.glob("*.arrow"):
        with (
            replacing_file(path) as temporary,
            pa.memory_map(str(path)) as source,
            pa.ipc.open_stream(source) as reader,
            pa.OSFile(str(temporary), "wb") as sink,
            pa.ipc.new_stream(sink, reader.schema.remove_metadata()) as writer,
        ):
            for batch in reader:
                writer.write_batch(batch.replace_schema_metadata(None))
    for feature in newer:
        feature["_type"] = "Sequence"
    write_json(info, content)
