"""Where a completion ends: at any EOS of the model, and at stop texts whatever tokens they are made of."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from psr.engines.base import Sampling
from psr.engines.local.rows import Row
from psr.engines.local.texts import Texts
from psr.engines.sglang.protocol import completion, completion_asks
from psr.policy.folder import export_policy, load_policy
from psr.policy.tokenizer import load_tokenizer
from psr.prompts.encoder import Encoder
from tests.conftest import train_bpe
from tests.engines.serving import serve
from tests.tokenizers_of_kinds import sentencepiece_like

LONG = Sampling(max_new_tokens=40, temperature=1.0, n=8, seed=3)


def test_every_eos_of_the_generation_config_ends_a_completion(llama: Path, tmp_path: Path, encoder: Encoder):
    prompt, tokenizer = encoder.reason("3+4"), load_tokenizer(llama)
    [before] = serve(llama, lambda engine: engine.generate([prompt], LONG))
    token = before[0].token_ids[2]  # drawn anyway: now it is an end, and no special token
    export_policy(load_policy(llama), tokenizer, tmp_path / "M1")
    config = tmp_path / "M1" / "generation_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "eos_token_id": [token]}))
    [after] = serve(tmp_path / "M1", lambda engine: engine.generate([prompt], LONG))
    ends = {token, tokenizer.eos_token_id}
    for was, one in zip(before, after, strict=True):
        first = next((i for i, drawn in enumerate(was.token_ids) if drawn in ends), len(was.token_ids) - 1)
        assert one.token_ids == was.token_ids[: first + 1]
        assert (one.finish_reason == "eos") == (one.token_ids[-1] in ends)
        step = encoder.step(one.token_ids, 0.0, one.finish_reason)
        if one.finish_reason == "eos":
            assert one.text == encoder.text(one.token_ids[:-1])
            assert step is not None and step.final and step.text == one.text
    assert {one.token_ids[-1] for one in after} >= {token}


def test_sglang_is_told_of_every_eos_and_its_text_is_without_it():
    [ask] = completion_asks((1, 2), Sampling(), 10, frozenset({9, 4}))
    assert ask.parameters["stop_token_ids"] == [4, 9]
    meta = {
        "finish_reason": {"type": "stop", "matched": 9},
        "output_token_logprobs": [[-1.0, 5, None], [-1.0, 9, None]],
    }
    got = completion({"output_ids": [5, 9], "meta_info": meta}, lambda ids: ",".join(map(str, ids)), "M1")
    assert (got.token_ids, got.text, got.finish_reason) == ((5, 9), "5", "eos")


@pytest.mark.parametrize("make", [lambda: train_bpe("words"), lambda: train_bpe("digits"), sentencepiece_like])
@pytest.mark.parametrize("stop", ["\n第", "\nStep ", "\n", "é."])
def test_a_stop_text_is_found_with_its_last_token(make: Callable[[], PreTrainedTokenizerFast], stop: str):
    tokenizer = make()
    texts = Texts(tokenizer)
    text = f"We add 1 第 2é{stop}3 and{stop}"
    ids = tokenizer.encode(text, add_special_tokens=False)
    first = next(n for n in range(len(ids) + 1) if stop in texts.decode(ids[:n]))
    row = Row((1,), Sampling(max_new_tokens=len(ids), stop=(stop, "never this")), np.zeros(len(ids)))
    for token in ids:
        row.append(token, 0.0, frozenset(), texts)
        if row.finish_reason is not None:
            break
    assert (row.finish_reason, len(row.token_ids)) == ("stop", first)


def test_a_special_token_counts_as_its_name():
    """As on an SGLang server, which looks for stop texts in what it decodes with special tokens."""
    tokenizer = train_bpe("words")
    texts = Texts(tokenizer)
    between = [*tokenizer.encode("3\n"), tokenizer.eos_token_id, *tokenizer.encode("Step 4\nStep 5")]
    ends = [end for end in range(1, len(between) + 1) if texts.stopped(between[:end], ("\nStep ",))]
    assert texts.decode(between[: ends[0]], specials=True).startswith("3\n<eos>Step 4\nStep ")
    assert texts.stopped([*tokenizer.encode("3"), tokenizer.eos_token_id], ("<eos>",))
    assert texts.decode(between) == "3\nStep 4\nStep 5"
