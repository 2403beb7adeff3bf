"""The datasets cache: what makes ``load_dataset("promptcblue", ...)`` work in any folder, on-line or off.

Each suite is loaded by its own name.

``load_dataset`` takes a bare name that is no folder from the newest cache entry of that name. An import puts its
rows there, takes earlier imports out, and makes its entries the newest. It dates them ahead, since loading a folder
called ``promptcblue`` makes entries of the same name, whose rows may be others.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from promptcblue_dataset.layout import ALL, FINGERPRINT_PREFIX
from promptcblue_metric.tasks import suite_of

if TYPE_CHECKING:
    from promptcblue_dataset.promptcblue_dataset import PromptCBLUE

_AHEAD = 10 * 365 * 24 * 3600  # seconds


def prime(folder: Path, configs: Iterable[str], on_config: Callable[[str], object] = lambda config: None) -> None:
    """Make the rows of an imported folder what ``load_dataset`` gives in any folder, under the name of their suite.

    Args:
        folder: a folder in the Hub layout.
        configs: the tasks it has; ``all`` is added.
        on_config: called with each config when it is ready, to show progress.
    """
    import datasets

    from promptcblue_dataset.chineseblue_dataset import ChineseBLUE
    from promptcblue_dataset.promptcblue_dataset import PromptCBLUE, fingerprint

    names = [*configs, ALL]  # `all` comes last, since the newest is what no config name gives
    suite = suite_of(names[:-1]).name
    builder = {"promptcblue": PromptCBLUE, "chineseblue": ChineseBLUE}[suite]
    # First, so that an import which is cut short leaves configs missing rather than stale.
    _remove_outdated(
        Path(datasets.config.HF_DATASETS_CACHE) / suite, names, {fingerprint(folder, name) for name in (names[0], ALL)}
    )
    bars = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()  # three a config; the caller shows one for all
    try:
        for name in names:
            _prepare(builder(config_name=name, dataset_name=suite, source=folder))
            on_config(name)
    finally:
        if bars:
            datasets.enable_progress_bars()


def _remove_outdated(root: Path, configs: Collection[str], fingerprints: Collection[str]) -> None:
    """Take out what earlier imports put in, and whatever there is of configs that are no more."""
    for entry in root.glob("*/*/*"):
        current = entry.name in fingerprints or not entry.name.startswith(FINGERPRINT_PREFIX)
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
        temporary = path.with_suffix(".tmp")
        with pa.memory_map(str(path)) as source, pa.ipc.open_stream(source) as reader:
            schema = reader.schema.remove_metadata()
            with pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
                for batch in reader:
                    writer.write_batch(batch.replace_schema_metadata(None))
        temporary.replace(path)
    for feature in newer:
        feature["_type"] = "Sequence"
    temporary = info.with_suffix(".tmp")
    temporary.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    temporary.replace(info)
