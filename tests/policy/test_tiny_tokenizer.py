"""The quickstart's tokenizer writes every problem, solution and verdict and reads it back exactly."""

import random
from itertools import islice

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from psr.curation.arithmetic import chains, explain, solution
from psr.policy.tiny_tokenizer import build_tokenizer, save_tokenizer
from psr.prompts.encoder import Encoder


@pytest.fixture(scope="module", params=["built", "saved"])
def either(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerBase:
    """As built, and as loaded from a folder."""
    if request.param == "built":
        return build_tokenizer()
    folder = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(folder)
    return AutoTokenizer.from_pretrained(str(folder), local_files_only=True)


def test_everything_the_quickstart_writes_survives_a_round_trip(either: PreTrainedTokenizerBase, encoder: Encoder):
    rng = random.Random(0)
    for chain in islice(chains(0, 3, 5, 0.5), 50):
        steps = solution(chain, rng, 0.5)
        judged = encoder.prompts.judge_prompt(chain.text, steps[0] + "\n", steps[1] + "\n", steps[2])
        explanation = explain(chain.text, steps[:1], steps[1], steps[2])
        assert explanation is not None
        for text in ("\n".join(steps), chain.text + "\n", judged, explanation + "[[A]]", "[[B]]"):
            ids = either.encode(text, add_special_tokens=False)
            assert either.unk_token_id not in ids, text
            assert either.decode(ids) == text
            assert either.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False) == text


def test_digits_stand_alone_and_words_are_one_token(either: PreTrainedTokenizerBase):
    assert either.tokenize("37+18") == ["3", "7", "+", "1", "8"]
    assert either.tokenize(" \\boxed{4}") == [" ", "\\boxed{", "4", "}"]
    assert either.tokenize("A,B;[[B]]") == ["A", ",", "B", ";", "[[", "B", "]]"]


def test_special_tokens_are_three_and_distinct(either: PreTrainedTokenizerBase):
    ids = {either.pad_token_id, either.eos_token_id, either.unk_token_id}
    assert None not in ids and len(ids) == 3
    assert either.encode("3") == either.encode("3", add_special_tokens=False)
    assert either.decode([*either.encode("3"), either.eos_token_id], skip_special_tokens=True) == "3"


def test_what_it_cannot_write_becomes_unknown_and_no_error(either: PreTrainedTokenizerBase):
    assert either.encode("x") == [either.unk_token_id]
