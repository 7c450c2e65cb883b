"""Prompts are the same tokens wherever they are made, whatever a tokenizer puts around a text."""

import pytest
from transformers import PreTrainedTokenizerFast

from psr.errors import UsageError
from psr.prompts.encoder import Encoder
from psr.prompts.prm import PRMEncoder
from psr.prompts.templates import Prompts
from psr.prompts.token_ids import TokenIds
from tests.conftest import train_bpe
from tests.tokenizers_of_kinds import eos_appending, sentencepiece_like

KINDS = {"words": lambda: train_bpe("words"), "eos": eos_appending, "sentencepiece": sentencepiece_like}
PROMPTS = Prompts(reason="{problem}\n", judge="{problem}\n{steps}A {a}\nB {b}\n")


@pytest.fixture(params=KINDS)
def tokenizer(request: pytest.FixtureRequest) -> PreTrainedTokenizerFast:
    return KINDS[request.param]()


def test_a_prompt_begins_as_the_tokenizer_says_and_does_not_end(tokenizer: PreTrainedTokenizerFast):
    encoder = Encoder(tokenizer, PROMPTS)
    prompt, whole = encoder.reason("We add 3"), tokenizer.encode("We add 3\n")
    assert whole[: len(prompt)] == list(prompt)
    assert tokenizer.eos_token_id not in prompt
    head = PRMEncoder(tokenizer).head("We add 3")
    assert tokenizer.eos_token_id not in head and head[0] == whole[0]


def test_a_text_in_the_middle_is_what_it_is_within_a_whole(tokenizer: PreTrainedTokenizerFast):
    ids = TokenIds(tokenizer)
    whole = ids.beginning("We add 3\nStep 1: We add\n")
    assert ids.beginning("We add 3\n") + ids.middle("Step 1: We add\n") == whole
    assert ids.text(whole).endswith("We add 3\nStep 1: We add\n")


def test_steps_are_cut_apart_and_joined_again(tokenizer: PreTrainedTokenizerFast):
    encoder = Encoder(tokenizer, PROMPTS)
    first, second = "Step 1: We add 3\n", "Step 2: We add 7"
    whole = encoder.completion(first + second)
    cut = next(n for n in range(len(whole)) if encoder.prompts.step_stop in encoder.text(whole[:n]))
    step = encoder.step(whole[:cut], 0.0, "stop")
    assert step is not None and step.text == first
    assert step.token_ids == whole[: len(step.token_ids)]
    assert encoder.completion(second) == whole[len(step.token_ids) :]


def test_a_marker_of_several_bytes_is_cut_off_whole(tokenizer: PreTrainedTokenizerFast):
    encoder = Encoder(tokenizer, Prompts(step_marker="第"))
    ids = encoder.plain("第1 We add\n第")
    step = encoder.step(ids, 0.0, "stop")
    assert step is not None and step.text == "第1 We add\n"
    assert list(step.token_ids) == ids[: len(step.token_ids)] and len(ids) - len(step.token_ids) == 3


def test_an_end_that_is_no_special_token_is_no_part_of_the_text():
    encoder = Encoder(train_bpe("words"), PROMPTS)
    [end] = encoder.plain("?")
    step = encoder.step([*encoder.plain("Step 1: We add"), end], 0.0, "eos")
    assert step is not None and step.final and step.text == "Step 1: We add" and step.token_ids[-1] == end


def test_chat_prompts_need_a_template():
    with pytest.raises(UsageError, match=r"prompts\.chat is true, and the tokenizer of .* has no chat template"):
        Encoder(train_bpe("words"), Prompts(chat=True))
