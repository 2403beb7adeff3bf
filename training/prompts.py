"""From a sample's text to token ids, in one place for fine-tuning and prediction, so that both see the same prompt."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import takewhile
from typing import TYPE_CHECKING, NamedTuple

from promptcblue_metric.errors import PromptCBLUEError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

#: Label of a token that the loss leaves out.
IGNORED = -100
#: Stands for an answer, to see what a chat template writes after one.
_MARK = "答案"


class Frame(NamedTuple):
    """How many tokens at the start and the end of every prompt are the model's and not the sample's."""

    head: int
    tail: int


class PromptEncoder:
    """Writes prompts and targets as a model's tokenizer wants them.

    A tokenizer with a chat template gets the prompt as the user's turn, ended by what opens the assistant's; any
    other gets the text as it is, after the tokenizer's own start token. Prompt and target are tokenised apart, so
    that no token spans the boundary and the model is trained on exactly the prompt it is given at prediction.

    Args:
        tokenizer: a tokenizer with an end-of-sequence token.

    Raises:
        PromptCBLUEError: the tokenizer has no end-of-sequence token.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        if tokenizer.eos_token_id is None:
            raise PromptCBLUEError(
                f"the tokenizer of {tokenizer.name_or_path!r} has no end-of-sequence token, without which no answer "
                "ends; set eos_token in its tokenizer_config.json"
            )
        self.tokenizer = tokenizer
        self.chat = tokenizer.chat_template is not None

    def prompts(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each prompt, up to where its answer begins."""
        if self.chat:
            return self._ids([self._turns(text) for text in texts])
        ids = self._ids(texts, add_special_tokens=True)
        # Some tokenizers also close what they are given; an answer follows here.
        return [row[:-1] if row[-1:] == [self.tokenizer.eos_token_id] else row for row in ids]

    def targets(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each target, with the token that ends an answer."""
        return [[*ids, self.end] for ids in self._ids(texts)]

    @cached_property
    def end(self) -> int:
        """The token that ends an answer: where the chat template closes a turn with a token of its own, that one."""
        if self.chat:
            _, found, after = self._turns("?", answer=_MARK).rpartition(_MARK)
            special = self.tokenizer.added_tokens_decoder
            for token in self._ids([after])[0] if found else ():
                if token == self.tokenizer.eos_token_id or (token in special and special[token].special):
                    return token
        return int(self.tokenizer.eos_token_id)

    @cached_property
    def frame(self) -> Frame:
        """The tokens around a prompt's text: system turn, role marks, start token."""
        empty, some = self.prompts(["", "病"])
        head = _shared(empty, some)
        return Frame(head, min(_shared(empty[::-1], some[::-1]), len(empty) - head))

    def fit(self, prompt: list[int], room: int) -> list[int]:
        """The prompt, cut in the middle of the sample's own text if it is longer than ``room`` tokens.

        Raises:
            ValueError: ``room`` does not hold the frame and a token at each side of the cut.
        """
        if len(prompt) <= room:
            return prompt
        head, tail = self.frame
        own = room - head - tail
        if own < 2:
            raise ValueError(f"{room} tokens do not hold a prompt whose frame has {head + tail}")
        end = tail + own // 2
        return prompt[: room - end] + prompt[-end:]

    def decode(self, ids: list[int]) -> str:
        """The text of generated ids."""
        text = self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return str(text)

    def _turns(self, prompt: str, answer: str | None = None) -> str:
        turns = [{"role": "user", "content": prompt}]
        if answer is not None:
            turns.append({"role": "assistant", "content": answer})
        # The targets hold no reasoning, so templates that can open a thinking block are told not to.
        text = self.tokenizer.apply_chat_template(
            turns, tokenize=False, add_generation_prompt=answer is None, enable_thinking=False
        )
        return str(text)

    def _ids(self, texts: Sequence[str], *, add_special_tokens: bool = False) -> list[list[int]]:
        if not texts:
            return []
        rows: list[list[int]] = self.tokenizer(list(texts), add_special_tokens=add_special_tokens)["input_ids"]
        return rows


def _shared(one: Sequence[int], other: Sequence[int]) -> int:
    """Length of the common prefix."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
