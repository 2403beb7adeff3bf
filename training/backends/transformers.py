"""Generation with transformers in this process: any causal language model, with or without a PEFT adapter."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import torch
import transformers
from transformers import GenerationConfig

from promptcblue_metric.errors import PromptCBLUEError

from ..hardware import best_device, choose_dtype, spare_threads
from ..models import context_length, find_model, identify, load_for_prediction, load_tokenizer
from ..progress import quiet_libraries
from ..prompts import PromptEncoder
from . import BackendSettings, Completion, Request


class _Encoded(NamedTuple):
    request: Request
    ids: list[int]
    cut: bool


class TransformersBackend:
    """Answers in batches of like lengths, longest first, each padded on the left.

    A batch holds requests of one limit only, so that no answer depends on what it shares a batch with.
    """

    def __init__(self, settings: BackendSettings) -> None:
        self.settings = settings
        self.source = find_model(settings.model, settings.adapter)
        self.device = best_device()
        self.dtype = choose_dtype(settings.dtype, self.device)
        quiet_libraries()
        tokenizer = load_tokenizer(self.source.tokenizer, trust_remote_code=settings.trust_remote_code)
        self.encoder = PromptEncoder(tokenizer)

    def identity(self) -> Mapping[str, Any]:
        """The model's state, number format and decoding."""
        return {
            "backend": self.settings.name,
            "model": identify(self.source.backbone),
            "adapter": identify(self.source.adapter) if self.source.adapter else None,
            "dtype": str(self.dtype).removeprefix("torch."),
            "prompt": "chat template" if self.encoder.chat else "plain",
            "beams": self.settings.beams,
        }

    def notes(self) -> Mapping[str, Any]:
        """Where the model was, device and versions."""
        return {
            "source": self.source._asdict(),
            "device": str(self.device),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        }

    def count_tokens(self, targets: Sequence[str]) -> list[int]:
        """Tokens of each target, its end included."""
        return [len(ids) for ids in self.encoder.targets(targets)]

    def generate(self, requests: Sequence[Request]) -> Iterator[Completion]:
        """Answer every request, the longest first."""
        encoded = self._encode(requests)
        encoded.sort(key=lambda item: (-item.request.max_new_tokens, -len(item.ids), item.request.index))
        for batch in self.batches(encoded):
            yield from self._answer(batch)

    def batches(self, encoded: Sequence[_Encoded]) -> Iterator[list[_Encoded]]:
        """Cut sorted requests into batches of one limit that keep to the settings' size."""
        batch: list[_Encoded] = []
        for item in encoded:
            if batch and not self._fits(batch, item):
                yield batch
                batch = []
            batch.append(item)
        if batch:
            yield batch

    def _fits(self, batch: Sequence[_Encoded], item: _Encoded) -> bool:
        first, rows = batch[0], len(batch) + 1
        longest = max(len(first.ids), len(item.ids)) + first.request.max_new_tokens
        return (
            item.request.max_new_tokens == first.request.max_new_tokens
            and rows <= (self.settings.batch_size or rows)
            and rows * self.settings.beams * longest <= self.settings.batch_tokens
        )

    def _encode(self, requests: Sequence[Request]) -> list[_Encoded]:
        prompts = self.encoder.prompts([request.prompt for request in requests])
        context = context_length(self.model)
        encoded = []
        for request, ids in zip(requests, prompts, strict=True):
            room = len(ids) if context is None else context - request.max_new_tokens
            try:
                kept = self.encoder.fit(ids, room)
            except ValueError as error:
                raise PromptCBLUEError(
                    f"the model sees {context} tokens, of which {request.max_new_tokens} new ones leave {room} for "
                    "the prompt; lower --max-new-tokens"
                ) from error
            encoded.append(_Encoded(request, kept, len(kept) < len(ids)))
        return encoded

    @cached_property
    def model(self) -> Any:
        """The model on its device, with a generation config that holds nothing of its own.

        What a model ships (sampling, a repetition penalty) would make runs of two models not comparable.
        """
        model = load_for_prediction(self.source, self.dtype, trust_remote_code=self.settings.trust_remote_code).to(
            self.device
        )
        spare_threads(model, self.device)
        ends = {self.encoder.end, self.encoder.tokenizer.eos_token_id, *_as_list(model.generation_config.eos_token_id)}
        self.ends = sorted(ends)
        model.generation_config = GenerationConfig(
            do_sample=False,
            num_beams=self.settings.beams,
            eos_token_id=self.ends,
            pad_token_id=self.encoder.tokenizer.pad_token_id,
        )
        return model

    @torch.inference_mode()
    def _answer(self, batch: Sequence[_Encoded]) -> list[Completion]:
        width = max(len(item.ids) for item in batch)
        pad = self.encoder.tokenizer.pad_token_id
        ids = torch.tensor([[pad] * (width - len(item.ids)) + item.ids for item in batch], device=self.device)
        mask = torch.tensor([[0] * (width - len(item.ids)) + [1] * len(item.ids) for item in batch], device=self.device)
        output = self.model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=batch[0].request.max_new_tokens)
        return [self._completion(item, row[width:].tolist()) for item, row in zip(batch, output, strict=True)]

    def _completion(self, item: _Encoded, new: list[int]) -> Completion:
        length = next((position for position, token in enumerate(new) if token in self.ends), None)
        answer = new if length is None else new[:length]
        return Completion(
            index=item.request.index,
            text=self.encoder.decode(answer),
            finish_reason="length" if length is None else "stop",
            prompt_tokens=len(item.ids),
            new_tokens=len(answer) + (length is not None),
            cut=item.cut,
        )


def _as_list(value: int | list[int] | None) -> list[int]:
    return [] if value is None else [value] if isinstance(value, int) else value


def load(settings: BackendSettings) -> TransformersBackend:
    """The backend, with its tokenizer loaded and its weights not yet."""
    return TransformersBackend(settings)
