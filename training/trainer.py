"""The trainer: TRL's, with what this benchmark's runs need beside it."""

from __future__ import annotations

from typing import Any

import pyarrow.compute as pc
import torch
from datasets import Dataset
from torch.utils.data import Sampler
from trl import SFTTrainer

from .progress import check_finite
from .sampling import LengthGroupedSampler
from .settings import TrainingSettings


class Trainer(SFTTrainer):  # type: ignore[misc]
    """SFTTrainer that stops at the first loss that is not a number, and whose batches by length can be resumed."""

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler[int] | None:
        if self.args.train_sampling_strategy != "group_by_length":
            sampler: Sampler[int] | None = super()._get_train_sampler(train_dataset)
            return sampler
        rows = self.train_dataset if train_dataset is None else train_dataset
        lengths = pc.list_value_length(rows.data.column("input_ids")).to_pylist()
        return LengthGroupedSampler(lengths, samples_a_step(self.args), self.args.seed)

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """One forward and backward pass."""
        loss: torch.Tensor = super().training_step(*args, **kwargs)
        check_finite(loss.item(), self.state.global_step + 1)
        return loss


def samples_a_step(training: TrainingSettings) -> int:
    """Samples that one optimizer step sees, over all devices and accumulated passes."""
    return int(training.train_batch_size * training.gradient_accumulation_steps * training.world_size)
