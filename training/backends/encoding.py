"""What the backends that load a model share: requests as token ids, fitted into the model's context."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cached_property
from importlib.metadata import version
from typing import NamedTuple

from promptcblue_metric.errors import PromptCBLUEError

from ..constrained import TokenChoices
from ..model import find_model, identify, load_tokenizer, tuned_tasks
from ..prompts import PromptEncoder, ShotStyle, Thought, split_thought
from . import LOOSE, THINKING, Backend, BackendSettings, Choices, Completion, Request, refuse

#: Requests tokenised at a time.
_CHUNK = 1000


class Encoded(NamedTuple):
    """A request's token ids, and what was done to make them fit."""

    request: Request
    ids: array[int]
    dropped: int
    cut: bool


class LocalBackend(Backend):
    """What the backends that load a model share: where it is, its tokenizer, and what names both.

    A model that was fine-tuned here was so without thoughts, and gives its answers without, unless told otherwise.
    """

    def __init__(self, settings: BackendSettings) -> None:
        self.settings = settings
        self.source = find_model(settings.model, settings.adapter)
        tokenizer = load_tokenizer(self.source.tokenizer, trust_remote_code=settings.trust_remote_code)
        refuse(settings, thoughts_before_constrained_answers=settings.constrained and settings.thinking == "on")
        untold = settings.thinking == "auto" and (self.tuned_on or settings.constrained)
        thinking = "off" if untold else settings.thinking
        self.encoder = PromptEncoder(tokenizer, thinking, settings.system)

    @cached_property
    def tuned_on(self) -> Collection[str]:
        """The tasks that it was fine-tuned on here."""
        return tuned_tasks(self.source)

    @cached_property
    def context(self) -> int | None:
        """How many tokens the backbone can see; None where its config does not say."""
        from transformers import AutoConfig

        config = AutoConfig.from_pretrained(self.source.backbone, trust_remote_code=self.settings.trust_remote_code)
        length = getattr(config.get_text_config(), "max_position_embeddings", None)
        return int(length) if length else None

    @property
    def number_format(self) -> str:
        """What the weights are in: a dtype's name, or `4bit` of quantised ones."""
        raise NotImplementedError

    def identity(self) -> Mapping[str, object]:
        """The model's state, number format, prompt and decoding."""
        return {
            "backend": self.settings.name,
            "model": identify(self.source.backbone),
            "adapter": identify(self.source.adapter) if self.source.adapter else None,
            "prompt": self.encoder.describe(),
            "beams": self.settings.beams,
            "stop": list(self.settings.stop),
            **self.settings.decoding(),
            "thinking": self.encoder.thinking,
            "dtype": self.number_format,
        }

    def notes(self) -> Mapping[str, object]:
        """Where the model was, and versions."""
        return {"source": self.source._asdict(), **{name: version(name) for name in ("torch", "transformers")}}

    def count_tokens(self, targets: Sequence[str]) -> list[int]:
        """Tokens of each target, its end included."""
        return [len(ids) for ids in self.encoder.targets(targets)]

    def least_limit(self, task: str) -> int:
        """None for a task whose targets it has learnt; for others what a chat model needs, if its context holds it."""
        if task in self.tuned_on and self.encoder.thinking == "off":
            return 0
        context = self.context or THINKING * 2
        thinks = self.encoder.thinking == "on" or self.encoder.opens_thought
        return min(THINKING if thinks or self.encoder.thinking == "auto" else LOOSE, context // 2)

    def answered(self, item: Encoded, ids: Sequence[int], ends: Collection[int]) -> tuple[Completion, bool]:
        """What generated ids answer, and whether that is all of it."""
        end = next((place for place, token in enumerate(ids) if token in ends), None)
        own = list(ids[:end])

        def read(count: int) -> Thought:
            return split_thought(self.encoder.decode(own[:count]), opened=self.encoder.opens_thought)

        def stops(count: int) -> bool:
            answer = read(count).answer
            return until(answer, self.settings.stop) != answer

        thought, written, closed = read(len(own))
        if stopped := stops(len(own)):
            # What was generated before anyone looked is not counted.
            own = own[: _least(len(own), stops)]
        thinks = len(own) if thought and not closed else 0
        if thought and closed:
            thinks = _least(len(own), lambda count: bool(read(count).thought) and read(count).closed)
        over = end is not None or stopped
        completion = Completion(
            index=item.request.index,
            text=until(written, self.settings.stop),
            finish_reason="thought" if not closed else "stop" if over else "length",
            prompt_tokens=len(item.ids),
            new_tokens=len(own) - thinks + (end is not None and not stopped),
            cut=item.cut,
            dropped=item.dropped,
            thought=thought,
            thought_tokens=thinks,
        )
        return completion, over


def _least(most: int, holds: Callable[[int], bool]) -> int:
    """The least number that something holds for, if it holds for all above; else ``most``."""
    return bisect_left(range(most), True, key=holds)


def encode(
    encoder: PromptEncoder, requests: Sequence[Request], style: ShotStyle, context: int | None
) -> Iterator[Encoded]:
    """Tokenise requests, each fitted into the model's context beside its answer.

    Args:
        style: how demonstrations are shown.
        context: tokens that the model can see; None for any number.

    Raises:
        PromptCBLUEError: an answer's limit leaves no room for a prompt.
    """
    for start in range(0, len(requests), _CHUNK):
        chunk = requests[start : start + _CHUNK]
        rows = encoder.prompts([each.prompt for each in chunk], [each.shots for each in chunk], style)
        for request, ids in zip(chunk, rows, strict=True):
            room = len(ids) if context is None else context - request.max_new_tokens
            if len(ids) <= room:
                yield Encoded(request, array("i", ids), 0, cut=False)
                continue
            try:
                fitted = encoder.fit_shots(request.prompt, request.shots, style, room)
            except ValueError as error:
                raise PromptCBLUEError(
                    f"the model sees {context} tokens, of which {request.max_new_tokens} new ones leave {room} for "
                    "the prompt; lower --max-new-tokens"
                ) from error
            yield Encoded(request, array("i", fitted.ids), fitted.dropped, fitted.cut)


def token_choices(encoder: PromptEncoder, choices: Choices) -> TokenChoices:
    """Choices as a tokenizer writes them."""
    separator, nothing, *options = (
        ids[:-1] for ids in encoder.targets([choices.separator or "", choices.nothing or "", *choices.options])
    )
    return TokenChoices(options, encoder.end, separator or None, nothing or None)


def until(text: str, stop: Sequence[str]) -> str:
    """The text up to where the first of the stop texts begins."""
    return text[: min((place for mark in stop if (place := text.find(mark)) >= 0), default=len(text))]
