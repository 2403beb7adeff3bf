from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promptcblue_metric.data.samples import Sample
from promptcblue_metric.errors import PromptCBLUEError
from promptcblue_training.data import training_rows
from promptcblue_training.prompts import DATE, IGNORED, PromptEncoder, conversation, split_thought
from promptcblue_training.tiny import build_tokenizer

PROMPT, TARGET = "找出疾病实体：\n患者患有高血压和糖尿病。\n答：", "上述句子中的实体包含：\n疾病实体：高血压，糖尿病"
CHATML = (
    "{% for turn in messages %}<|im_start|>{{ turn.role }}\n{{ turn.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def plain() -> Any:
    return build_tokenizer([PROMPT, TARGET])


def chat() -> Any:
    tokenizer = build_tokenizer([PROMPT, TARGET, "user assistant"])
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = CHATML
    return tokenizer


def merging() -> Any:
    """A tokenizer that has a token for the last character of the prompt with the first of the target."""
    from tokenizers import Tokenizer, models, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<unk>", "</s>"], show_progress=False)
    tokenizer.train_from_iterator([PROMPT[-2:] + TARGET[:2]] * 50 + [PROMPT + TARGET], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="</s>", pad_token="</s>")


TOKENIZERS = [plain, chat, merging]


def sample(prompt: str = PROMPT, target: str = TARGET, name: str = "train-1") -> Sample:
    return {
        "input": prompt,
        "target": target,
        "answer_choices": ["疾病"],
        "sample_id": name,
        "task_type": "ner",
        "task_dataset": "CMeEE-V2",
    }


def test_the_merging_tokenizer_merges_across_the_boundary() -> None:
    tokenizer = merging()
    apart = tokenizer(PROMPT)["input_ids"] + tokenizer(TARGET)["input_ids"]
    assert tokenizer(PROMPT + TARGET)["input_ids"] != apart


@pytest.mark.parametrize("make", TOKENIZERS)
def test_the_loss_is_on_the_target_and_its_end_alone(make: Any) -> None:
    encoder = PromptEncoder(make())
    (row,) = training_rows([sample()], encoder, 1024, "train").dataset
    ids, labels = row["input_ids"], row["labels"]
    start = next(index for index, label in enumerate(labels) if label != IGNORED)
    assert labels == [IGNORED] * start + ids[start:]
    assert labels[-1] == encoder.end
    assert encoder.decode(labels[start:-1]).replace(" ", "") == TARGET.replace(" ", "")
    assert encoder.end not in labels[start:-1]
    # What comes before is, token for token, what prediction starts from.
    assert ids[:start] == encoder.prompts([PROMPT])[0]


def test_a_plain_prompt_is_the_text_after_the_start_token() -> None:
    tokenizer = plain()
    (ids,) = PromptEncoder(tokenizer).prompts([PROMPT])
    assert ids[0] == tokenizer.bos_token_id
    assert tokenizer.decode(ids[1:]) == PROMPT


def test_a_tokenizer_that_closes_its_texts_leaves_the_prompt_open() -> None:
    from tokenizers import processors

    tokenizer = plain()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", tokenizer.eos_token_id)]
    )
    assert tokenizer(PROMPT)["input_ids"][-1] == tokenizer.eos_token_id
    (ids,) = PromptEncoder(tokenizer).prompts([PROMPT])
    assert tokenizer.decode(ids) == PROMPT


def test_a_chat_model_ends_its_answer_as_its_template_ends_a_turn() -> None:
    tokenizer = chat()
    encoder = PromptEncoder(tokenizer)
    assert tokenizer.convert_ids_to_tokens(encoder.end) == "<|im_end|>"
    (ids,) = encoder.prompts([PROMPT])
    assert tokenizer.decode(ids) == f"<|im_start|>user\n{PROMPT}<|im_end|>\n<|im_start|>assistant\n"


def test_without_an_end_token_there_is_nothing_to_train() -> None:
    tokenizer = plain()
    tokenizer.eos_token = None
    with pytest.raises(PromptCBLUEError, match="eos_token"):
        PromptEncoder(tokenizer)


@pytest.mark.parametrize("make", TOKENIZERS)
def test_a_long_prompt_loses_its_middle_and_the_target_nothing(make: Any) -> None:
    encoder = PromptEncoder(make())
    text = PROMPT[:7] + "患" * 500 + PROMPT[-4:]
    whole, limit = encoder.prompts([text])[0], 130
    rows = training_rows([sample(text), sample()], encoder, limit, "train")
    cut = rows.dataset[0]
    (target,) = encoder.targets([TARGET])
    assert len(cut["input_ids"]) == limit
    assert [label for label in cut["labels"] if label != IGNORED] == target
    kept = cut["input_ids"][: -len(target)]
    head, tail = encoder.frame
    text_head = next(index for index, (a, b) in enumerate(zip(kept, whole, strict=False)) if a != b)
    assert text_head > head
    assert kept[-tail - 2 :] == whole[-tail - 2 :]
    assert rows.cut == {"CMeEE-V2": 1}
    assert rows.samples == {"CMeEE-V2": 2}
    assert "1 of 2" in rows.summary()


ENCODER = PromptEncoder(chat())


@settings(max_examples=60, deadline=None)
@given(st.text(PROMPT, max_size=80), st.integers(0, 120))
def test_a_cut_prompt_keeps_both_ends_and_the_frame(text: str, room: int) -> None:
    (whole,) = ENCODER.prompts([text])
    head, tail = ENCODER.frame
    try:
        kept = ENCODER.fit(whole, room)
    except ValueError:
        assert room < min(len(whole), head + tail + 2)
        return
    assert len(kept) == min(len(whole), room)
    shared_head = next((i for i, (a, b) in enumerate(zip(kept, whole, strict=False)) if a != b), len(kept))
    assert shared_head >= head
    assert kept[len(kept) - tail :] == whole[len(whole) - tail :]
    # Nothing but one stretch is missing.
    missing = len(whole) - len(kept)
    assert any(kept == whole[:start] + whole[start + missing :] for start in range(len(kept) + 1))


def test_a_target_that_leaves_no_room_is_an_error_that_names_what_would_do() -> None:
    encoder = PromptEncoder(plain())
    with pytest.raises(PromptCBLUEError, match="train-1") as caught:
        training_rows([sample()], encoder, 20, "train")
    needed = int(str(caught.value).split("set max_length to ")[1].split()[0])
    assert training_rows([sample()], encoder, needed, "train").longest == needed
    with pytest.raises(PromptCBLUEError):
        training_rows([sample()], encoder, needed - 1, "train")


def test_an_empty_target_is_an_error() -> None:
    rows = [sample(), sample(target=" ", name="train-2")]
    with pytest.raises(PromptCBLUEError, match="train-2"):
        training_rows(rows, PromptEncoder(plain()), 100, "train")


#: As Qwen3's: an empty thought in the prompt where thinking is switched off.
SWITCHED = CHATML.replace(
    "assistant\n{% endif %}",
    "assistant\n{% if enable_thinking is defined and enable_thinking is false %}"
    "<think>\n\n</think>\n\n{% endif %}{% endif %}",
)
#: As DeepSeek-R1's and Qwen3-Thinking's: the prompt opens a thought, whatever it is told.
OPENING = CHATML.replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}")
EMPTY = "<think>\n\n</think>\n\n"


def thinker(template: str) -> Any:
    tokenizer = build_tokenizer([PROMPT, TARGET, "user assistant <think></think> 0123456789 Jan"])
    tokenizer.chat_template = template
    return tokenizer


@pytest.mark.parametrize(
    ("template", "thinking", "ending", "opens"),
    [
        (SWITCHED, "off", f"assistant\n{EMPTY}", False),
        (SWITCHED, "on", "assistant\n", False),
        (SWITCHED, "auto", "assistant\n", False),
        (OPENING, "off", f"assistant\n{EMPTY}", False),
        (OPENING, "on", "assistant\n<think>\n", True),
        (OPENING, "auto", "assistant\n<think>\n", True),
        (CHATML, "off", "assistant\n", False),
    ],
)
def test_thinking_is_what_was_asked_for(template: str, thinking: Any, ending: str, *, opens: bool) -> None:
    encoder = PromptEncoder(thinker(template), thinking)
    (ids,) = encoder.prompts([PROMPT])
    assert encoder.tokenizer.decode(ids).endswith(ending)
    assert encoder.opens_thought is opens


def test_no_answer_is_trained_within_a_thought() -> None:
    encoder = PromptEncoder(thinker(OPENING))
    (row,) = training_rows([sample()], encoder, 1024, "train").dataset
    text = encoder.tokenizer.decode(row["input_ids"])
    assert f"</think>\n\n{TARGET}" in text


def test_prompts_that_differ_in_their_ending_alone_are_described_apart() -> None:
    described = {PromptEncoder(thinker(template), "on").describe() for template in (CHATML, OPENING, SWITCHED)}
    assert len(described) == 2  # switched on, the second kind is written as the first
    assert len({PromptEncoder(thinker(SWITCHED), thinking).describe() for thinking in ("on", "off")}) == 2


@pytest.mark.parametrize(
    "dated",
    [
        "{{ strftime_now('%d %b %Y') }}",
        '{% if strftime_now is defined %}{% set day = strftime_now("%Y") %}{% endif %}{{ day }}',
        "{{ date_string }}",
    ],
)
def test_a_template_that_prints_the_date_prints_one_day_for_ever(dated: str) -> None:
    encoder = PromptEncoder(thinker(dated + CHATML))
    (ids,) = encoder.prompts([PROMPT])
    text = encoder.tokenizer.decode(ids)
    assert str(DATE.year) in text.partition("<|im")[0]
    assert str(DATE) in encoder.describe() or "date_string" in dated


#: How gpt-oss begins to think.
HARMONY = "<|channel|>analysis<|message|>想"


def test_what_the_model_is_told_first_stands_first() -> None:
    assert conversation(PROMPT, system="患者")[0] == {"role": "system", "content": "患者"}
    (told,), (untold,) = (PromptEncoder(plain(), system=system).prompts([PROMPT]) for system in ("患者", None))
    assert plain().decode(told[1:]) == f"患者\n\n{PROMPT}"
    assert plain().decode(untold[1:]) == PROMPT


@pytest.mark.parametrize(
    ("text", "opened", "parted"),
    [
        ("答", False, ("", "答", True)),
        ("<think>想</think>\n\n答", False, ("想", "答", True)),
        ("想</think>答", True, ("想", "答", True)),
        ("想</think>答", False, ("想", "答", True)),
        ("<think>想", False, ("想", "", False)),
        ("想", True, ("想", "", False)),
        ("\n[THINK]想[/THINK]答", False, ("想", "答", True)),
        ("先说<think>", False, ("", "先说<think>", True)),
        ("", True, ("", "", False)),
        ("", False, ("", "", True)),
        (f"{HARMONY}<|end|><|start|>assistant<|channel|>final<|message|>答", False, ("想", "答", True)),
        (f"{HARMONY}<|end|><|start|>assistant{HARMONY}<|end|>", False, ("想想", "", False)),
        (f"{HARMONY}<|channel|>final <|constrain|>json<|message|>答<|end|>", False, ("想", "答", True)),
        ("<|channel|>final<|message|>答\n<b>", False, ("", "答\n<b>", True)),
        ("<|channel|>ana", False, ("", "", False)),
    ],
)
def test_thoughts_are_parted_from_answers(text: str, opened: bool, parted: tuple[str, str, bool]) -> None:
    assert split_thought(text, opened=opened) == parted


def test_special_tokens_that_part_thoughts_are_read() -> None:
    tokenizer = plain()
    marks = ("<|channel|>", "<|message|>", "<|start|>", "<|end|>")
    tokenizer.add_special_tokens({"additional_special_tokens": list(marks)})
    ids = tokenizer.encode(f"{PROMPT}<|end|>{PROMPT}<|message|>", add_special_tokens=False)
    assert PromptEncoder(tokenizer).decode([*ids, tokenizer.eos_token_id]) == f"{PROMPT}<|end|>{PROMPT}<|message|>"
