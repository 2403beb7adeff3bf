"""From a sample's text to token ids, in one place for fine-tuning and prediction, so that both see the same prompt."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from datetime import date
from functools import cached_property
from itertools import chain, takewhile
from typing import TYPE_CHECKING, Literal, NamedTuple

from promptcblue_metric.errors import PromptCBLUEError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

#: Label of a token that the loss leaves out.
IGNORED = -100
#: Stands for an answer, to see what a chat template writes after one.
_MARK = "答案"

#: What opens and closes a thought.
_THOUGHTS = tuple((mark, f"{mark[0]}/{mark[1:]}") for mark in ("<think>", "<thinking>", "<seed:think>", "[THINK]"))
#: Marks of OpenAI's Harmony, in which a thought and an answer are messages of their own, and what is around them.
_HARMONY = ("<|start|>", "<|channel|>", "<|message|>", "<|end|>")
_MESSAGE = re.compile(
    r"<\|channel\|>(\w*)[^<]*(?:<\|constrain\|>\w*)?<\|message\|>(.*?)(?=<\|(?:start|channel|end)\|>|$)", re.DOTALL
)

#: How demonstrations are shown: as turns of a conversation before the prompt, or as one text with it.
ShotStyle = Literal["chat", "text"]
Thinking = Literal["off", "on", "auto"]
#: The day that templates print, and how they ask for it.
DATE = date(2025, 1, 1)
_TODAY = re.compile(r"""strftime_now\(\s*(["'])(.*?)\1\s*\)""")


class Shot(NamedTuple):
    """A demonstration: a prompt of a train sample and its target."""

    prompt: str
    answer: str


def conversation(
    prompt: str, shots: Sequence[Shot] = (), style: ShotStyle = "chat", system: str | None = None
) -> list[dict[str, str]]:
    """The turns that end with the one to be answered."""
    first = [{"role": "system", "content": system}] if system else []
    if style == "text":
        return [*first, {"role": "user", "content": one_text(prompt, shots)}]
    asked = [
        turn
        for shot in shots
        for turn in ({"role": "user", "content": shot.prompt}, {"role": "assistant", "content": shot.answer})
    ]
    return [*first, *asked, {"role": "user", "content": prompt}]


def one_text(prompt: str, shots: Sequence[Shot] = (), system: str | None = None) -> str:
    """Demonstrations and prompt, a blank line between them; an answer follows its prompt as in fine-tuning."""
    return "".join([f"{system}\n\n" if system else "", *(f"{shot.prompt}{shot.answer}\n\n" for shot in shots), prompt])


class Thought(NamedTuple):
    """A thought, the answer after it, and whether the thought came to its end."""

    thought: str
    answer: str
    closed: bool


def split_thought(text: str, *, opened: bool = False) -> Thought:
    """Part what a model thinks from what it answers.

    Args:
        opened: whether the prompt ends within a thought, so that the text begins in it.
    """
    if text.lstrip().startswith("<|channel|>"):
        messages = _MESSAGE.findall(text)
        thought, final = ("".join(said for to, said in messages if (to == "final") is last) for last in (False, True))
        return Thought(thought, final, closed=any(to == "final" for to, _ in messages))
    for start, end in _THOUGHTS:
        before, closed, after = text.partition(end)
        if closed:
            # What precedes a closing mark is thought, even where the opening one was part of the prompt.
            return Thought(before.partition(start)[2] if start in before else before, after.lstrip(), closed=True)
        if text.lstrip().startswith(start):
            return Thought(text.lstrip().removeprefix(start), "", closed=False)
    return Thought(text, "", closed=False) if opened else Thought("", text, closed=True)


class Fitted(NamedTuple):
    """A prompt's tokens, how many demonstrations had to be left out, and whether its own middle had to be."""

    ids: list[int]
    dropped: int
    cut: bool


class PromptEncoder:
    """Writes prompts and targets as a model's tokenizer wants them.

    A tokenizer with a chat template gets the prompt as the user's turn, ended by what opens the assistant's; any
    other gets the text as it is, after the tokenizer's own start token. Prompt and target are tokenised apart, so
    that no token spans the boundary and the model is trained on exactly the prompt it is given at prediction.
    A template that prints the date prints `DATE`, so that tomorrow's prompts are today's.

    Args:
        tokenizer: a tokenizer with an end-of-sequence token.
        thinking: ``off`` for answers without a thought, which stands empty in the prompt where the template has that
            form or opens one by itself; ``on`` for answers after one; ``auto`` for what the template does untold.
        system: what the model is told before everything else.

    Raises:
        PromptCBLUEError: the tokenizer has no end-of-sequence token.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, thinking: Thinking = "off", system: str | None = None
    ) -> None:
        if tokenizer.eos_token_id is None:
            raise PromptCBLUEError(
                f"the tokenizer of {tokenizer.name_or_path!r} has no end-of-sequence token, without which no answer "
                "ends; set eos_token in its tokenizer_config.json"
            )
        self.tokenizer, self.thinking, self.system = tokenizer, thinking, system
        self.chat = tokenizer.chat_template is not None
        self._own_template = str(tokenizer.get_chat_template()) if self.chat else ""
        self._chat_template = _TODAY.sub(lambda found: repr(DATE.strftime(found[2])), self._own_template)
        kept = tokenizer.added_tokens_decoder
        #: Marks of thoughts that decoding would leave out with the other special tokens.
        marks = {*_HARMONY, *chain(*_THOUGHTS)}
        self._marks = {id_: str(kept[id_]) for id_ in kept if str(kept[id_]) in marks and kept[id_].special}

    def prompts(
        self, texts: Sequence[str], shots: Sequence[Sequence[Shot]] | None = None, style: ShotStyle = "chat"
    ) -> list[list[int]]:
        """Token ids of each prompt with the demonstrations before it, up to where its answer begins.

        Without a chat template there are no turns: any style is one text.
        """
        before = [()] * len(texts) if shots is None else shots
        if self.chat:
            pairs = zip(texts, before, strict=True)
            return self._ids([self._template(conversation(text, own, style, self.system)) for text, own in pairs])
        texts = [one_text(text, own, self.system) for text, own in zip(texts, before, strict=True)]
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

    def describe(self) -> str:
        """What is around a prompt's text, in words that change when it does."""
        if not self.chat:
            return "plain"
        # What the template writes, and not its source: another way to write the same is the same.
        written = self._turns("?", answer=_MARK) + self._turns("?")
        dated = f", dated {DATE}" if self._chat_template != self._own_template else ""
        return f"chat template {hashlib.sha256(written.encode()).hexdigest()[:16]}{dated}"

    @cached_property
    def opens_thought(self) -> bool:
        """Whether prompts end within a thought, which the answer has to close."""
        return self.chat and _is_open(self._turns("?")) is not None

    @cached_property
    def frame(self) -> tuple[int, int]:
        """How many tokens stand before and after a prompt's text: system turn, role marks, start token."""
        empty, some = self.prompts(["", "病"])
        head = _shared(empty, some)
        return head, min(_shared(empty[::-1], some[::-1]), len(empty) - head)

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

    def fit_shots(self, prompt: str, shots: Sequence[Shot], style: ShotStyle, room: int) -> Fitted:
        """The prompt with as many of its last demonstrations as ``room`` tokens hold, itself cut only without any.

        Raises:
            ValueError: as for `fit`.
        """
        for dropped in range(len(shots) + 1):
            (ids,) = self.prompts([prompt], [shots[dropped:]], style)
            if len(ids) <= room:
                return Fitted(ids, dropped, cut=False)
        return Fitted(self.fit(ids, room), len(shots), cut=True)

    def decode(self, ids: list[int]) -> str:
        """The text of generated ids, without special tokens but those that open and close a thought."""
        places = [place for place, token in enumerate(ids) if token in self._marks] if self._marks else []
        if places:
            return self.decode(ids[: places[0]]) + self._marks[ids[places[0]]] + self.decode(ids[places[0] + 1 :])
        text = self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return str(text)

    def _turns(self, prompt: str, answer: str | None = None) -> str:
        turns = conversation(prompt, system=self.system)
        if answer is not None:
            turns.append({"role": "assistant", "content": answer})
        return self._template(turns)

    def _template(self, turns: list[dict[str, str]]) -> str:
        answered = turns[-1]["role"] == "assistant"
        on = self.thinking == "on"
        text = str(
            self.tokenizer.apply_chat_template(
                turns,
                chat_template=self._chat_template,
                tokenize=False,
                add_generation_prompt=not answered,
                date_string=DATE.strftime("%d %b %Y"),
                **({} if self.thinking == "auto" else {"enable_thinking": on, "thinking": on}),
            )
        )
        if self.thinking == "off" and not answered and (opened := _is_open(text)):
            return f"{text.rstrip()}\n\n{opened}\n\n"
        return text

    def _ids(self, texts: Sequence[str], *, add_special_tokens: bool = False) -> list[list[int]]:
        if not texts:
            return []
        rows: list[list[int]] = self.tokenizer(list(texts), add_special_tokens=add_special_tokens)["input_ids"]
        return rows


def _is_open(text: str) -> str | None:
    """What would close the thought that a prompt opens at its end, if it does."""
    return next((end for start, end in _THOUGHTS if text.rstrip().endswith(start)), None)


def _shared(one: Sequence[int], other: Sequence[int]) -> int:
    """Length of the common prefix."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
