"""A run's output folder: its files, what it was made with, and which of its checkpoints becomes the model.

The paper's model comes some steps after the lowest validation loss. The choice is read off the log alone, which the
trainer keeps in every checkpoint, so a resumed run chooses as an uninterrupted one does.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from promptcblue_metric.data.samples import Sample
from promptcblue_metric.data.writing import read_json_object, replace_bytes, replacing_file, write_json
from promptcblue_metric.errors import PromptCBLUEError

if TYPE_CHECKING:
    import pandas

#: Which run the checkpoints in a folder are of.
RECORD = "run.json"
#: Written last, when the model is saved.
FINISHED = "train_results.json"
EVALUATED = "eval_results.json"
#: Which checkpoint the model is, and why.
CHOICE_FILE = "checkpoint_choice.json"
CURVE_CSV = "loss_curve.csv"
CURVE_PNG = "loss_curve.png"
CARD = "README.md"
ADAPTER_CONFIG = "adapter_config.json"
#: The tasks of each adapter in a folder of its own beside it.
GROUPS = "groups.json"
#: Where a run keeps the backbone that it built itself.
BACKBONE = "backbone"
WEIGHTS = ("*.safetensors", "pytorch_model*.bin", "adapter_model.bin")
#: How much of each end of a file is read to recognise it; weights differ everywhere after any training.
_END = 1 << 20
#: The files that make a model or adapter; others in its folder (metrics, predictions) are about it.
_MODEL_FILES = (
    *WEIGHTS,
    *f"*.index.json *.model config.json {ADAPTER_CONFIG} generation_config.json tokenizer*.json".split(),
    *["special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt", "chat_template.*"],
)
#: The ways to choose, each with what it does.
CHOICES: Mapping[str, str] = {
    "paper": "steps_after_best steps after the lowest validation loss (paper, Appendix A.3)",
    "best": "the lowest validation loss",
    "last": "the end of training",
}
#: A trainer's log, each entry with its ``step``.
Log = Iterable[Mapping[str, float]]
#: What is drawn by the trainer's names for it, with title, colour and marker; the columns of the table.
_DRAWN = {
    "loss": ("training loss", "tab:gray", None),
    "eval_loss": ("validation loss", "tab:blue", "o"),
    "eval_overall": ("score on validation samples", "tab:green", "o"),
}
LOSSES = tuple(_DRAWN)
_FEW = 12


def samples_fingerprint(samples: Iterable[Sample]) -> str:
    """A digest of samples and their order: the same wherever they were read from."""
    digest = hashlib.sha256()
    for sample in samples:
        fields = {name: value for name, value in sample.items() if name != "template"}
        digest.update(json.dumps(fields, ensure_ascii=False, sort_keys=True).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:16]


def is_model_file(path: Path) -> bool:
    """Whether a file in a model's or adapter's folder is part of it, and not about it."""
    return path.is_file() and any(path.match(pattern) for pattern in _MODEL_FILES)


def folder_fingerprint(folder: Path) -> str:
    """A digest of a model's or adapter's folder: names, sizes, and both ends of every file that makes the model."""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if is_model_file(path):
            size = path.stat().st_size
            digest.update(f"{path.name}:{size}:".encode())
            with path.open("rb") as stream:
                digest.update(stream.read(_END))
                if size > _END:
                    stream.seek(max(_END, size - _END))
                    digest.update(stream.read())
    return digest.hexdigest()[:16]


def differences(before: Mapping[str, object], now: Mapping[str, object]) -> list[str]:
    """The settings that are not the same, each as ``name: before, now now``."""
    return [
        f"{name} was {_shown(before, name)}, is now {_shown(now, name)}"
        for name in dict.fromkeys([*before, *now])
        if before.get(name) != now.get(name)
    ]


def _shown(settings: Mapping[str, object], name: str) -> str:
    return json.dumps(settings[name], ensure_ascii=False) if name in settings else "not recorded"


def write_settings(record: Path, settings: Mapping[str, object], notes: Mapping[str, object]) -> None:
    """Write the settings that a run must share to go on with another's work, and notes that may differ."""
    write_json(record, {"settings": dict(settings), "notes": dict(notes)})


def check_settings(record: Path, settings: Mapping[str, object], remedy: str) -> None:
    """Refuse to go on with work that was begun with other settings.

    Raises:
        PromptCBLUEError: the record cannot be read, or it says what differs; ``remedy`` ends the message.
    """
    try:
        before = json.loads(record.read_text(encoding="utf-8"))["settings"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PromptCBLUEError(
            f"{record}: expected the settings of an earlier run, which cannot be read from it; {remedy}"
        ) from error
    # Through JSON, so that a tuple and the list it was saved as are the same.
    if changed := differences(before, json.loads(json.dumps(settings))):
        raise PromptCBLUEError(f"{record} is of a run with other settings: {'; '.join(changed)}. To go on, {remedy}")


def claim(folder: Path, settings: Mapping[str, object], notes: Mapping[str, object], *, overwrite: bool) -> None:
    """Make sure that what an output folder holds, if anything, is of this run, and record what this run is.

    Args:
        overwrite: remove what another run left.

    Raises:
        PromptCBLUEError: the folder is of a run with other settings.
    """
    if overwrite:
        _remove_work(folder)
    if any(folder.glob("checkpoint-*")) or (folder / FINISHED).is_file():
        remedy = "choose another output_dir, or pass --overwrite true to start anew"
        check_settings(folder / RECORD, settings, remedy)
    else:
        _remove_work(folder)
        write_settings(folder / RECORD, settings, notes)


def work_in(folder: Path) -> list[Path]:
    """The folders that a run has made in its output folder, which are removed when another run takes it over."""
    return [path for path in (*folder.glob("checkpoint-*"), folder / BACKBONE) if path.is_dir()]


def _remove_work(folder: Path) -> None:
    for old in work_in(folder):
        shutil.rmtree(old)
    for name in (RECORD, FINISHED):
        (folder / name).unlink(missing_ok=True)


@dataclass(frozen=True)
class RunFacts:
    """What a run left in its folder about itself; each part is empty where its file is not there."""

    settings: Mapping[str, object]  #: Those that decide the result, the recipe's and the trainer's.
    recipe: Mapping[str, object]  #: The recipe's alone.
    command: Sequence[str]  #: The words after ``promptcblue-train sft``.
    versions: Mapping[str, str]  #: Of the libraries.
    left_alone: Sequence[str]  #: Settings that have their library's default.
    train: Mapping[str, float]  #: Results and speed of training.
    validation: Mapping[str, float]  #: What was measured with the weights of the chosen step.
    choice: Choice | None  #: Which checkpoint the weights are.


def read_run(folder: Path, **results: Mapping[str, float]) -> RunFacts:
    """What a run left in its output folder.

    Args:
        results: what is in no file yet: ``train``, ``validation``.

    Raises:
        PromptCBLUEError: the folder is not that of a run, or a file in it cannot be read.
    """
    if not (folder / RECORD).is_file():
        raise PromptCBLUEError(f"{folder} is not the output folder of promptcblue-train sft: no {RECORD}")
    record, train, validation, choice = (
        read_json_object(folder / name) if (folder / name).is_file() else {}
        for name in (RECORD, FINISHED, EVALUATED, CHOICE_FILE)
    )
    notes, best = record.get("notes", {}), choice.get("lowest")
    losses = [Evaluated(**one) for one in choice.get("losses", ())]
    return RunFacts(
        settings=record.get("settings", {}),
        recipe=notes.get("recipe", {}),
        command=notes.get("command", ["RECIPE"]),
        versions=notes.get("versions", {}),
        left_alone=notes.get("left_alone", []),
        train=results.get("train", train),
        validation=results.get("validation", validation),
        choice=Choice(**{**choice, "lowest": best and Evaluated(**best), "losses": losses}) if choice else None,
    )


class Evaluated(NamedTuple):
    """The validation loss at a step."""

    step: int
    loss: float


@dataclass(frozen=True)
class Rule:
    """How to choose."""

    choice: str  #: A key of `CHOICES`.
    steps_after_best: int = 200  #: How long after the lowest loss the paper's choice comes.
    #: Stop once this many evaluations in a row were no new lowest, and the checkpoint to choose is written; None to
    #: train to the end.
    patience: int | None = None

    @property
    def offset(self) -> int:
        """Steps from the lowest loss to the checkpoint to choose."""
        return self.steps_after_best if self.choice == "paper" else 0

    def target(self, losses: Sequence[Evaluated]) -> int | None:
        """The step to choose as things stand, or None where nothing was evaluated or the choice does not ask."""
        best = lowest(losses)
        return None if best is None or self.choice == "last" else best.step + self.offset

    def may_stop(self, losses: Sequence[Evaluated], step: int) -> bool:
        """Whether training can end at ``step``, where its checkpoint is about to be written if it is the one."""
        best, target = lowest(losses), self.target(losses)
        if self.patience is None or best is None or target is None:
            return False
        return step >= target and sum(loss.step > best.step for loss in losses) >= self.patience


@dataclass(frozen=True)
class Choice:
    """What was chosen."""

    choice: str  #: How, a key of `CHOICES`.
    step: int  #: Whose weights the model has.
    reason: str  #: Why, in a sentence.
    last_step: int  #: Where training ended.
    lowest: Evaluated | None  #: The lowest validation loss, or None without any.
    losses: Sequence[Evaluated]  #: All of them.

    def write(self, folder: Path) -> None:
        """Write it down in a run's folder; raises `PromptCBLUEError` where it cannot be written."""
        best, losses = self.lowest and self.lowest._asdict(), [one._asdict() for one in self.losses]
        write_json(folder / CHOICE_FILE, {**asdict(self), "lowest": best, "losses": losses})


def evaluated(log_history: Log) -> list[Evaluated]:
    """The validation losses of a trainer's log, by step; a step that was evaluated twice counts once."""
    found = {int(entry["step"]): float(entry["eval_loss"]) for entry in log_history if "eval_loss" in entry}
    return [Evaluated(step, found[step]) for step in sorted(found)]


def lowest(losses: Sequence[Evaluated]) -> Evaluated | None:
    """The first of the lowest losses; those that are no numbers do not count."""
    return min((one for one in losses if math.isfinite(one.loss)), key=lambda one: one.loss, default=None)


def choose(rule: Rule, losses: Sequence[Evaluated], last_step: int, saved: Iterable[int]) -> Choice:
    """Choose among the checkpoints that are there and the end of training.

    Args:
        saved: steps whose checkpoints can be read.
    """
    best, target = lowest(losses), rule.target(losses)

    def chosen(step: int, reason: str) -> Choice:
        return Choice(rule.choice, step, reason, last_step, best, losses)

    if rule.choice == "last":
        return chosen(last_step, "the last step, as asked for")
    if best is None or target is None:
        return chosen(last_step, "the last step, since no validation loss was measured")
    where = f"the lowest validation loss ({best.loss:.4f} at step {best.step})"
    if rule.offset:
        where = f"{rule.offset} steps after {where}"
    if target > last_step:
        return chosen(last_step, f"the last step, since training ended before {where}")
    if target != last_step and target not in saved:
        return chosen(last_step, f"the last step, since there is no checkpoint of step {target}, {where}")
    return chosen(target, where)


def saved_checkpoints(folder: Path) -> dict[int, Path]:
    """The checkpoints in an output folder that were written to their end, by step."""
    steps = {int(path.name.rpartition("-")[2]): path for path in folder.glob("checkpoint-*") if _is_whole(path)}
    return dict(sorted(steps.items()))


def _is_whole(checkpoint: Path) -> bool:
    # The trainer's state is what it writes last.
    try:
        return isinstance(json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8")), dict)
    except (OSError, ValueError):
        return False


def last_checkpoint(folder: Path) -> str | None:
    """The newest checkpoint that was written to its end."""
    steps = saved_checkpoints(folder)
    return str(steps[max(steps)]) if steps else None


@contextmanager
def writing(folder: str) -> Iterator[None]:
    """Makes one message of the many ways in which a model's files fail to be written.

    Raises:
        PromptCBLUEError: instead of the libraries' errors.
    """
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        # Of a full disk torch says no more than where in its own code it noticed.
        unwritten = "inline_container" in str(error) or "PytorchStreamWriter" in str(error)
        if isinstance(error, RuntimeError) and not unwritten:
            raise
        raise PromptCBLUEError(
            f"{folder}: cannot be written, is the disk full? ({' '.join(str(error).split())}) What stands there is "
            "whole, and the same command goes on from the last checkpoint"
        ) from error


def take_weights(checkpoint: Path, folder: Path) -> None:
    """Make the model that was saved in ``folder`` the checkpoint's: its weights and what describes them.

    Files are copied, and not loaded and saved again, so the same way serves every method: AdaLoRA's adapter has other
    ranks at each checkpoint, and a model spread over processes is whole in no one of them.

    Raises:
        PromptCBLUEError: the checkpoint holds no whole weights, or they cannot be copied.
    """
    if not any(path.match(pattern) for path in checkpoint.iterdir() for pattern in WEIGHTS):
        raise PromptCBLUEError(
            f"{checkpoint} holds no whole weights: have them gathered when a checkpoint is saved "
            "(zero3_save_16bit_model: true), or pass --checkpoint_choice last"
        )
    for path in filter(is_model_file, sorted(checkpoint.iterdir())):
        with replacing_file(folder / path.name) as temporary:
            shutil.copyfile(path, temporary)


def curve(log_history: Log, chosen: int | None = None) -> pandas.DataFrame:
    """What was measured at each step that measured anything, in order: `LOSSES`, and ``chosen`` (0 or 1).

    Args:
        log_history: of the trainer.
        chosen: the step whose weights were kept; it has a row in any case.
    """
    import pandas

    table = pandas.DataFrame(log_history, columns=["step", *LOSSES]).dropna(how="all", subset=list(LOSSES))
    table = table.groupby("step").last()
    if chosen is not None:
        table = table.reindex(table.index.union([chosen]))
    return table.assign(chosen=(table.index == chosen).astype(int)).rename_axis("step")


def write_curve(folder: Path, log_history: Log, chosen: int | None = None) -> bool:
    """Write `CURVE_CSV`, and `CURVE_PNG` where matplotlib is installed; the score has an axis of its own.

    Returns:
        Whether the picture was written.

    Raises:
        PromptCBLUEError: a file cannot be written.
    """
    table = curve(log_history, chosen)
    replace_bytes(folder / CURVE_CSV, table.to_csv(lineterminator="\n").encode())
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator
    except ImportError:
        return False
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    left = figure.add_subplot(xlabel="step", ylabel="loss")
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    left.grid(alpha=0.3)
    lines = []
    for name, (title, colour, marker) in _DRAWN.items():
        points = table[name].dropna()
        if len(points):
            axes = left if name != "eval_overall" else left.twinx()
            axes.set(**({} if axes is left else {"ylabel": "score", "ylim": (0, 1)}))
            # A line of few points shows each, and one alone would else not be seen.
            shown = marker or ("o" if len(points) <= _FEW else None)
            lines += axes.plot(points.index, points, color=colour, label=title, marker=shown, ms=3)
    if chosen is not None:
        lines.append(left.axvline(chosen, color="tab:red", linestyle="--", label=f"chosen: step {chosen}"))
    if lines:
        left.legend(handles=lines, loc="upper right")
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=120)
    replace_bytes(folder / CURVE_PNG, stream.getvalue())
    return True
