"""Generation with transformers: any causal language model, with or without a PEFT adapter, on one device or several."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from torch.nn.functional import pad
from transformers import DynamicCache, GenerationConfig
from transformers.cache_utils import DynamicLayer

from ..adapters.prompts import virtual_tokens
from ..model import (
    best_device,
    best_dtype,
    choose_dtype,
    context_length,
    first_line,
    four_bit,
    load_for_prediction,
    spare_threads,
)
from ..processes import process_state, quiet_libraries
from ..prompts import PromptEncoder
from ..recipe import FOUR_BIT
from . import BackendSettings, Completion, Failure, Request
from .encoding import Encoded, LocalBackend, encode, token_choices

#: New tokens after which a batch is first looked through for rows that have ended; then after twice as many, and so on.
_FIRST_LOOK = 8
#: Rows that have so many and go on are put aside, to go on together with those of other batches.
_ASIDE = 64
#: Prompts up to so many tokens share a batch whatever their lengths; longer ones only with those half as long at least.
_SHORT = 256


@dataclass
class _Active:
    """Rows that are being answered, padded on the left to one width."""

    rows: list[Encoded]  #: What they answer.
    ids: torch.Tensor  #: Prompts and the tokens made so far, of shape (rows, width).
    mask: torch.Tensor  #: 0 where a row is padded.
    new: list[int]  #: How many tokens each row has made.
    cache: Any = None  #: What the model remembers of all tokens but the last; None before it has read any.

    def keep(self, places: Sequence[int]) -> _Active:
        """Some of the rows, without the columns that only the others filled."""
        index = torch.tensor(places, device=self.ids.device)
        mask = self.mask[index]
        empty = int(mask.any(dim=0).int().argmax())
        cache = self.cache
        if cache is not None:
            cache.batch_select_indices(index)
        if _is_plain(cache):
            for layer in cache.layers:
                layer.keys, layer.values = layer.keys[:, :, empty:], layer.values[:, :, empty:]
        elif cache is not None:
            empty = 0
        rows, new = [self.rows[place] for place in places], [self.new[place] for place in places]
        return _Active(rows, self.ids[index, empty:], mask[:, empty:], new, cache)


def decoders(model: Any) -> list[Any]:
    """The model, and the one that an adapter wraps: which of the two has a say in decoding depends on the adapter."""
    return [model, model.get_base_model()] if hasattr(model, "get_base_model") else [model]


def _is_plain(cache: Any) -> bool:
    """Whether a cache is keys and values of every token, which can be cut and joined."""
    return type(cache) is DynamicCache and all(type(layer) is DynamicLayer for layer in cache.layers)


def _join(parts: Sequence[_Active]) -> _Active:
    """Rows of several batches as those of one, padded on the left to the widest."""
    if len(parts) == 1:
        return parts[0]
    width = max(part.ids.shape[1] for part in parts)

    def joined(tensors: Iterable[torch.Tensor], dimension: int, length: int) -> torch.Tensor:
        """Tensors padded with zeros at the start of a dimension (counted from the last), one after another."""
        padded = (pad(each, (*[0, 0] * dimension, length - each.shape[-1 - dimension], 0)) for each in tensors)
        return torch.cat(list(padded))

    cache = parts[0].cache
    for place, layer in enumerate(cache.layers):
        layers = [part.cache.layers[place] for part in parts]
        layer.keys, layer.values = (
            joined((getattr(each, name) for each in layers), 1, width - 1) for name in ("keys", "values")
        )
    rows, new = ([each for part in parts for each in getattr(part, name)] for name in ("rows", "new"))
    ids, mask = (joined((getattr(part, name) for part in parts), 0, width) for name in ("ids", "mask"))
    return _Active(rows, ids, mask, new, cache)


class TransformersBackend(LocalBackend):
    """Answers in batches of like lengths, longest first, each padded on the left.

    ``generate`` computes every row of a batch until the last one ends, and most answers are far shorter than the
    longest. So it is called for a few tokens, then for as many again, and so on, each time with the rows that are left
    and what the model remembers of them; the few that take long go on together with those of other batches. With
    beams, virtual tokens or a model that remembers in another way, a batch stays together and has one limit.

    Where there are several processes, each takes every so-manieth batch, and the first process hands out all answers.
    """

    _largest: int | None = None  #: Tokens of the smallest batch that the memory did not hold.
    _halved = 0

    def __init__(self, settings: BackendSettings) -> None:
        self.state, self.device = process_state(), best_device()
        quantised = settings.dtype == FOUR_BIT
        self.dtype = best_dtype(self.device) if quantised else choose_dtype(settings.dtype, self.device)
        self.quantisation = four_bit(self.dtype) if quantised else None
        quiet_libraries()
        super().__init__(settings)

    @classmethod
    def around(cls, model: Any, encoder: PromptEncoder, settings: BackendSettings) -> TransformersBackend:
        """A backend that answers with a model which is loaded already, such as one in training.

        The model keeps its own generation config: `decide_decoding` before it answers.
        """
        from ..adapters import pad_before_prompt

        backend = cls.__new__(cls)
        backend.settings, backend.encoder, backend.state = settings, encoder, PartialState()
        backend.device, backend.model = best_device(), pad_before_prompt(model)
        return backend

    @property
    def number_format(self) -> str:
        """That of the weights, or the one that quantised ones are computed with."""
        return f"{FOUR_BIT} " * bool(self.quantisation) + str(self.dtype).removeprefix("torch.")

    def notes(self) -> Mapping[str, object]:
        """Where the model was, device and versions."""
        return {**super().notes(), "device": str(self.device), "processes": self.state.num_processes}

    def summary(self) -> list[str]:
        """How often the memory did not hold a batch."""
        return [f"{self._halved} batches did not fit into memory and were halved"] if self._halved else []

    def generate(self, requests: Sequence[Request]) -> Iterator[Completion | Failure]:
        """Answer every request, the longest first; in a process that is not the first, help and yield nothing."""
        encoded = list(encode(self.encoder, requests, self.settings.shot_style, context_length(self.model)))
        one_limit = not self._drops_rows
        encoded.sort(
            key=lambda item: (
                item.request.choices is None,
                -item.request.max_new_tokens * one_limit,
                -len(item.ids),
                item.request.index,
            )
        )
        batches = list(self.batches(encoded))
        self._aside: list[_Active] = []
        count, own = self.state.num_processes, self.state.process_index
        for start in range(0, len(batches), count):
            turn = batches[start : start + count]
            yield from self._gathered(self._within_memory(turn[own]) if own < len(turn) else iter(()))
        yield from self._gathered(self._finish_aside())

    def _gathered(self, done: Iterator[Completion | Failure]) -> Iterator[Completion | Failure]:
        """What all processes have done, in the first one; nothing in the others."""
        if self.state.num_processes == 1:
            yield from done
        else:
            every = gather_object(list(done))
            if self.state.is_main_process:
                yield from every

    @cached_property
    def _drops_rows(self) -> bool:
        """Whether rows can be taken out of a batch before it is done."""
        return self.settings.beams == 1 and not virtual_tokens(self.model)

    def batches(self, encoded: Sequence[Encoded]) -> Iterator[list[Encoded]]:
        """Cut sorted requests into batches of like lengths that keep to the settings' size."""
        batch: list[Encoded] = []
        for item in encoded:
            if batch and not self._fits(batch, item):
                yield batch
                batch = []
            batch.append(item)
        if batch:
            yield batch

    def _fits(self, batch: Sequence[Encoded], item: Encoded) -> bool:
        first, rows = batch[0].request, len(batch) + 1
        return (
            (self._drops_rows or item.request.max_new_tokens == first.max_new_tokens)
            and (item.request.choices is None) == (first.choices is None)
            and (2 * len(item.ids) >= len(batch[0].ids) or len(batch[0].ids) <= _SHORT)
            and rows <= (self.settings.batch_size or rows)
            and self._tokens([*batch, item]) <= self.settings.batch_tokens
        )

    def _tokens(self, batch: Sequence[Encoded]) -> int:
        """Tokens that a batch fills, padding and answers included."""
        longest = max(len(item.ids) for item in batch) + max(item.request.max_new_tokens for item in batch)
        return len(batch) * self.settings.beams * longest

    @cached_property
    def model(self) -> Any:
        """The model on its device, with a generation config that holds nothing of its own.

        What a model ships (sampling, a repetition penalty) would make runs of two models not comparable.
        """
        options = {"quantization_config": self.quantisation, "device_map": self.device} if self.quantisation else {}
        model = load_for_prediction(
            self.source, self.dtype, trust_remote_code=self.settings.trust_remote_code, **options
        )
        if not self.quantisation:
            model = model.to(self.device)
        spare_threads(model, self.device)
        self.decide_decoding(model)
        return model

    def decide_decoding(self, model: Any) -> None:
        """Have the model decode as the settings say, to any token that ends an answer, and by nothing that it ships."""
        shipped = [model.config.get_text_config(), *(owner.generation_config for owner in decoders(model))]
        ends = {self.encoder.end, self.encoder.tokenizer.eos_token_id}
        for value in (getattr(config, "eos_token_id", None) for config in shipped):
            ends.update([value] if isinstance(value, int) else value or ())
        self.ends = sorted(ends)
        sampling = {"temperature": self.settings.temperature, "top_p": self.settings.top_p, "top_k": 0}
        config = GenerationConfig(
            do_sample=self.settings.samples,
            num_beams=self.settings.beams,
            eos_token_id=self.ends,
            pad_token_id=self.encoder.tokenizer.pad_token_id,
            **(sampling if self.settings.samples else {}),
        )
        for owner in decoders(model):
            owner.generation_config = config

    def _within_memory(self, batch: Sequence[Encoded], *, alone: bool = False) -> Iterator[Completion | Failure]:
        """Answer a batch, in halves if the memory does not hold it, as it does not hold any batch so large.

        Args:
            alone: put no rows aside.
        """
        if len(batch) > 1 and self._largest is not None and self._tokens(batch) >= self._largest:
            yield from self._in_halves(batch)
            return
        yield from self._finish_aside(self.settings.batch_tokens)
        done = self._tried(lambda: self._begin(batch), alone=alone)
        if not isinstance(done, str):
            yield from done
        elif len(batch) == 1:
            yield Failure(batch[0].request.index, f"out of memory for this sample alone: {done}")
        else:
            self._largest = self._tokens(batch)
            self._halved += 1
            yield from self._in_halves(batch)

    def _tried(self, make: Callable[[], _Active], *, alone: bool) -> list[Completion | Failure] | str:
        """The answers, or what the error says that there is no memory for them; its tensors are gone with it."""
        try:
            return self._answer(make(), alone=alone)
        except RuntimeError as error:
            if isinstance(error, torch.OutOfMemoryError) or "not enough memory" in str(error):  # the CPU's allocator
                return first_line(error)
            raise

    def _in_halves(self, batch: Sequence[Encoded]) -> Iterator[Completion | Failure]:
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        yield from self._finish_aside()  # what waits takes memory too
        half = len(batch) // 2
        yield from self._within_memory(batch[:half], alone=True)
        yield from self._within_memory(batch[half:], alone=True)

    def _finish_aside(self, room: int = 0) -> Iterator[Completion | Failure]:
        """Go on with what was put aside until it fills no more than ``room`` tokens.

        Those with the fewest new tokens go on first, up to about twice as many: rows that have been joined and shrunk
        to a few are joined again.
        """
        while self._aside and sum(self._held([part]) for part in self._aside) > room:
            behind = 2 * min(min(part.new) for part in self._aside)
            parts = sorted(
                (part for part in self._aside if min(part.new) < behind), key=lambda part: -part.ids.shape[1]
            )
            self._aside = [part for part in self._aside if min(part.new) >= behind]
            while parts:
                group = [parts.pop(0)]
                while parts and self._go_together([*group, parts[0]]):
                    group.append(parts.pop(0))
                yield from self._go_on_together(group)

    def _go_together(self, parts: Sequence[_Active]) -> bool:
        rows = sum(len(part.rows) for part in parts)
        return rows <= (self.settings.batch_size or rows) and self._held(parts) <= self.settings.batch_tokens

    def _go_on_together(self, parts: list[_Active]) -> Iterator[Completion | Failure]:
        rows = [item for part in parts for item in part.rows]
        done = self._tried(lambda: _join(parts), alone=False)
        if not isinstance(done, str):
            yield from done
            return
        self._halved += 1
        parts.clear()
        yield from self._in_halves(rows) if len(rows) > 1 else self._within_memory(rows, alone=True)

    def _begin(self, batch: Sequence[Encoded]) -> _Active:
        width, padding = max(len(item.ids) for item in batch), self.encoder.tokenizer.pad_token_id
        ids = [[padding] * (width - len(item.ids)) + list(item.ids) for item in batch]
        mask = [[0] * (width - len(item.ids)) + [1] * len(item.ids) for item in batch]
        return _Active(
            list(batch), torch.tensor(ids, device=self.device), torch.tensor(mask, device=self.device), [0] * len(batch)
        )

    @torch.inference_mode()
    def _answer(self, active: _Active, *, alone: bool) -> list[Completion | Failure]:
        """Answer rows until they end or are put aside; each also ends at its own limit."""
        done: list[Completion | Failure] = []
        while True:
            self._go_on(active)
            width = active.ids.shape[1]
            made = [
                self.answered(row, ids[width - new :], self.ends)
                for row, ids, new in zip(active.rows, active.ids.tolist(), active.new, strict=True)
            ]
            ended = [
                not self._drops_rows or over or new >= row.request.max_new_tokens
                for (_, over), row, new in zip(made, active.rows, active.new, strict=True)
            ]
            done += [each for (each, _), end in zip(made, ended, strict=True) if end]
            left = [place for place, end in enumerate(ended) if not end]
            if not left:
                break
            active = active.keep(left)
            if not alone and min(active.new) >= _ASIDE and self._can_wait(active):
                self._aside.append(active)
                break
        return done

    def _can_wait(self, active: _Active) -> bool:
        return (
            _is_plain(active.cache)
            and active.rows[0].request.choices is None
            and self._held([active]) <= self.settings.batch_tokens
        )

    @staticmethod
    def _held(parts: Sequence[_Active]) -> int:
        """Tokens that rows fill together until the last one ends."""
        longest = max(
            part.ids.shape[1] + row.request.max_new_tokens - new
            for part in parts
            for row, new in zip(part.rows, part.new, strict=True)
        )
        return sum(len(part.rows) for part in parts) * longest

    def _go_on(self, active: _Active) -> None:
        """Make more tokens: up to the next look, and to no row's limit but the first's."""
        count = min(row.request.max_new_tokens - new for row, new in zip(active.rows, active.new, strict=True))
        if self._drops_rows:
            count = min(count, max(_FIRST_LOOK, min(active.new)))
        output = self.model.generate(
            input_ids=active.ids,
            attention_mask=active.mask,
            max_new_tokens=count,
            **({"return_dict_in_generate": True} if self._drops_rows else {}),
            **({"past_key_values": active.cache} if active.cache is not None else {}),
            **({"prefix_allowed_tokens_fn": self._allowed(active)} if active.rows[0].request.choices else {}),
        )
        before = active.ids.shape[1]
        active.ids = output if isinstance(output, torch.Tensor) else output.sequences
        # A model that remembers nothing reads its prompts again.
        active.cache = None if isinstance(output, torch.Tensor) else output.past_key_values
        made = active.ids.shape[1] - before
        active.mask = pad(active.mask, (0, made), value=1)
        active.new = [new + made for new in active.new]

    def _allowed(self, active: _Active) -> Callable[[int, torch.Tensor], list[int]]:
        """Which tokens may come next in each row, as generate() asks for them."""
        rows = [token_choices(self.encoder, each.request.choices) for each in active.rows if each.request.choices]
        width = active.ids.shape[1] - active.new[0]
        return lambda row, ids: rows[row].allowed(ids[width:].tolist())


load = TransformersBackend
