"""Generation with transformers: any causal language model, with or without a PEFT adapter, on one device or several."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
import transformers
from accelerate import PartialState
from accelerate.utils import gather_object
from transformers import GenerationConfig

from ..adapters.prompts import virtual_tokens
from ..hardware import best_device, best_dtype, choose_dtype, spare_threads
from ..models import FOUR_BIT, context_length, find_model, four_bit, identify, load_for_prediction, load_tokenizer
from ..processes import process_state
from ..progress import quiet_libraries
from ..prompts import PromptEncoder
from . import BackendSettings, Completion, Failure, Request
from .encoding import Encoded, encode, token_choices, until

#: New tokens after which a batch is first looked through for rows that have ended.
_FIRST_RUNG = 8
#: Rows that have so many and go on are put aside, to go on together with those of other batches.
_ASIDE = 64


class TransformersBackend:
    """Answers in batches of like lengths, longest first, each padded on the left.

    A batch holds requests of one limit only, so that no answer depends on what it shares a batch with. Where there
    are several processes, each takes every so-manieth batch, and the first process hands out all answers.
    """

    def __init__(self, settings: BackendSettings) -> None:
        self.settings = settings
        self.source = find_model(settings.model, settings.adapter)
        self.state = process_state()
        self.device = best_device()
        quantised = settings.dtype == FOUR_BIT
        self.dtype = best_dtype(self.device) if quantised else choose_dtype(settings.dtype, self.device)
        self.quantisation = four_bit(self.dtype) if quantised else None
        quiet_libraries()
        tokenizer = load_tokenizer(self.source.tokenizer, trust_remote_code=settings.trust_remote_code)
        self.encoder = PromptEncoder(tokenizer)
        self._largest: int | None = None
        self._halved = 0

    @classmethod
    def around(cls, model: Any, encoder: PromptEncoder, settings: BackendSettings) -> TransformersBackend:
        """A backend that answers with a model which is loaded already, such as one in training.

        The model keeps its own generation config: give it `decoding`'s before it answers.
        """
        from ..adapters import pad_before_prompt

        backend = cls.__new__(cls)
        backend.settings, backend.encoder, backend.state = settings, encoder, PartialState()
        backend.device, backend.model = best_device(), pad_before_prompt(model)
        backend._largest, backend._halved = None, 0
        return backend

    def identity(self) -> Mapping[str, Any]:
        """The model's state, number format, prompt and decoding."""
        dtype = str(self.dtype).removeprefix("torch.")
        return {
            "backend": self.settings.name,
            "model": identify(self.source.backbone),
            "adapter": identify(self.source.adapter) if self.source.adapter else None,
            "dtype": f"{FOUR_BIT} {dtype}" if self.quantisation else dtype,
            "prompt": self.encoder.describe(),
            "beams": self.settings.beams,
            "stop": list(self.settings.stop),
        }

    def notes(self) -> Mapping[str, Any]:
        """Where the model was, device and versions."""
        return {
            "source": self.source._asdict(),
            "device": str(self.device),
            "processes": self.state.num_processes,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        }

    def count_tokens(self, targets: Sequence[str]) -> list[int]:
        """Tokens of each target, its end included."""
        return [len(ids) for ids in self.encoder.targets(targets)]

    def summary(self) -> list[str]:
        """How often the memory did not hold a batch."""
        return [f"{self._halved} batches did not fit into memory and were halved"] if self._halved else []

    def generate(self, requests: Sequence[Request]) -> Iterator[Completion | Failure]:
        """Answer every request, the longest first; in a process that is not the first, help and yield nothing."""
        context = context_length(self.model)
        if context is not None:
            context -= virtual_tokens(self.model)
        encoded = list(encode(self.encoder, requests, self.settings.shot_style, context))
        yield from self._in_turns(encoded)
        aside = self._aside if self.state.num_processes == 1 else gather_object(self._aside)
        yield from self._in_turns(aside)

    def _in_turns(self, encoded: Sequence[Encoded]) -> Iterator[Completion | Failure]:
        """Answer in batches, each process every so-manieth; rows that take long are left in ``_aside``."""
        ordered = sorted(
            encoded,
            key=lambda item: (
                -item.request.max_new_tokens,
                item.request.choices is None,
                -len(item.ids),
                item.request.index,
            ),
        )
        batches = list(self.batches(ordered))
        self._aside: list[Encoded] = []
        # Reading the prompts of what is put aside once more pays only where several batches leave something.
        self._may_put_aside = len(batches) > 1 and not any(item.begun for item in encoded)
        count, own = self.state.num_processes, self.state.process_index
        for start in range(0, len(batches), count):
            turn = batches[start : start + count]
            done = self._within_memory(turn[own]) if own < len(turn) else iter(())
            if count == 1:
                yield from done
            else:
                every = gather_object(list(done))
                if self.state.is_main_process:
                    yield from every

    def batches(self, encoded: Sequence[Encoded]) -> Iterator[list[Encoded]]:
        """Cut sorted requests into batches of one limit that keep to the settings' size."""
        batch: list[Encoded] = []
        for item in encoded:
            if batch and not self._fits(batch, item):
                yield batch
                batch = []
            batch.append(item)
        if batch:
            yield batch

    def _fits(self, batch: Sequence[Encoded], item: Encoded) -> bool:
        first, rows = batch[0], len(batch) + 1
        return (
            item.request.max_new_tokens == first.request.max_new_tokens
            and (item.request.choices is None) == (first.request.choices is None)
            and rows <= (self.settings.batch_size or rows)
            and self._tokens([*batch[:1], item], rows) <= self.settings.batch_tokens
        )

    def _tokens(self, batch: Sequence[Encoded], rows: int | None = None) -> int:
        """Tokens that a batch fills, padding and answers included, if it had so many rows."""
        longest = max(len(item.ids) for item in batch) + batch[0].request.max_new_tokens
        return (rows or len(batch)) * self.settings.beams * longest

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
        model.generation_config = self.decoding(model)
        return model

    def decoding(self, model: Any) -> GenerationConfig:
        """How the model is to decode: by search, to any token that ends an answer."""
        ends = {self.encoder.end, self.encoder.tokenizer.eos_token_id, *_as_list(model.generation_config.eos_token_id)}
        self.ends = sorted(ends)
        return GenerationConfig(
            do_sample=False,
            num_beams=self.settings.beams,
            eos_token_id=self.ends,
            pad_token_id=self.encoder.tokenizer.pad_token_id,
        )

    def _within_memory(self, batch: Sequence[Encoded]) -> Iterator[Completion | Failure]:
        """Answer a batch, in halves if the memory does not hold it, as it does not hold any batch so large."""
        if len(batch) == 1 or self._largest is None or self._tokens(batch) < self._largest:
            try:
                done = self._answer(batch)
            except RuntimeError as error:
                if not _out_of_memory(error):
                    raise
                self._halved += len(batch) > 1
                failed = str(error).strip().splitlines()[0]
            else:
                yield from done
                return
            # Out here the error, and with it the batch's tensors, is gone.
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            if len(batch) == 1:
                yield Failure(batch[0].request.index, f"out of memory for this sample alone: {failed}")
                return
            self._largest = self._tokens(batch)
        half = len(batch) // 2
        yield from self._within_memory(batch[:half])
        yield from self._within_memory(batch[half:])

    @torch.inference_mode()
    def _answer(self, batch: Sequence[Encoded]) -> list[Completion]:
        """Answer a batch, from which rows drop out as they end.

        ``generate`` computes every row until the last one ends, and most answers are far shorter than the longest. So
        it is called for a few tokens, then for as many again, and so on, each time with the rows that are left and
        what the model remembers of them.
        """
        width = max(len(item.ids) for item in batch)
        pad = self.encoder.tokenizer.pad_token_id
        ids = torch.tensor(
            [[pad] * (width - len(item.ids)) + [*item.ids, *item.begun] for item in batch], device=self.device
        )
        mask = torch.tensor(
            [[0] * (width - len(item.ids)) + [1] * (len(item.ids) + len(item.begun)) for item in batch],
            device=self.device,
        )
        rows, limit, begun = list(batch), batch[0].request.max_new_tokens, len(batch[0].begun)
        done: list[Completion] = []
        cache: Any = None
        for target in self._rungs(limit, begun):
            output = self.model.generate(
                input_ids=ids,
                attention_mask=mask,
                max_new_tokens=target - (ids.shape[1] - width),
                **({"return_dict_in_generate": True} if target < limit else {}),
                **({"past_key_values": cache} if cache is not None else {}),
                **({"prefix_allowed_tokens_fn": self._allowed(rows, width)} if rows[0].request.choices else {}),
            )
            ids = output if isinstance(output, torch.Tensor) else output.sequences
            made = [self._completion(item, new) for item, new in zip(rows, ids[:, width:].tolist(), strict=True)]
            left = [place for place, each in enumerate(made) if each.finish_reason == "length" and target < limit]
            done += [each for place, each in enumerate(made) if place not in left]
            if not left:
                break
            if target == _ASIDE and self._may_put_aside:
                self._aside += [rows[place]._replace(begun=tuple(ids[place, width:].tolist())) for place in left]
                break
            rows = [rows[place] for place in left]
            ids, mask = ids[left], torch.nn.functional.pad(mask, (0, ids.shape[1] - mask.shape[1]), value=1)[left]
            # A model that remembers nothing reads its prompts again.
            cache = output.past_key_values
            if cache is not None:
                cache.batch_select_indices(torch.tensor(left, device=self.device))
        return done

    def _rungs(self, limit: int, begun: int) -> Iterator[int]:
        """New tokens after which to look which rows have ended: the limit alone where rows cannot be taken out."""
        rung = _FIRST_RUNG
        while rung < limit and self.settings.beams == 1 and not virtual_tokens(self.model):
            if rung > begun:
                yield rung
            rung *= 2
        yield limit

    def _allowed(self, batch: Sequence[Encoded], width: int) -> Callable[[int, torch.Tensor], list[int]]:
        """Which tokens may come next in each row, as generate() asks for them."""
        rows = [token_choices(self.encoder, item.request.choices) for item in batch if item.request.choices is not None]
        return lambda row, ids: rows[row].allowed(ids[width:].tolist())

    def _completion(self, item: Encoded, new: list[int]) -> Completion:
        length = next((position for position, token in enumerate(new) if token in self.ends), None)
        answer = new if length is None else new[:length]
        written = self.encoder.decode(answer)
        text = until(written, self.settings.stop)
        if stopped := len(text) < len(written):
            # What was generated before anyone looked is not counted.
            marks = self.settings.stop
            enough = bisect_left(
                range(len(answer)),
                True,
                key=lambda count: any(each in self.encoder.decode(answer[:count]) for each in marks),
            )
            answer = answer[:enough]
        return Completion(
            index=item.request.index,
            text=text,
            finish_reason="length" if length is None and not stopped else "stop",
            prompt_tokens=len(item.ids),
            new_tokens=len(answer) + (length is not None and not stopped),
            cut=item.cut,
            dropped=item.dropped,
        )


def _out_of_memory(error: RuntimeError) -> bool:
    """Whether the accelerator, or the CPU's allocator, has no more."""
    return isinstance(error, torch.OutOfMemoryError) or "not enough memory" in str(error)


def _as_list(value: int | list[int] | None) -> list[int]:
    return [] if value is None else [value] if isinstance(value, int) else value


def load(settings: BackendSettings) -> TransformersBackend:
    """The backend, with its tokenizer loaded and its weights not yet."""
    return TransformersBackend(settings)
