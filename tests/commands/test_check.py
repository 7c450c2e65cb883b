"""`psr model check`: says what a model is, and by its exit whether it can be used."""

import json
from pathlib import Path

import pytest

from psr.commands.check import CheckFailed, check
from psr.policy.lora import LoRA, LoRAError
from psr.policy.tokenizer import PolicyError, load_tokenizer
from tests.families import REFUSED, RIGHT, save_model


def test_a_model_that_is_right_is_described_and_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = save_model(tmp_path / "M0", *RIGHT["gemma2"])
    eos = load_tokenizer(folder).eos_token_id
    config = folder / "generation_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "eos_token_id": [eos, 5]}))
    check(folder, LoRA(rank=2))
    lines = {line.split("  ")[0]: line for line in capsys.readouterr().out.splitlines()}
    assert "gemma2, Gemma2ForCausalLM" in lines["family"]
    assert "42 tokens, 42 embeddings" in lines["vocabulary"] and "96 tokens" in lines["context"]
    assert "1 '<eos>' (trained), 5 ']]' (only ends what is generated)" in lines["ends"]
    assert "1 layers of 6 tokens" in lines["training"] and "gradient" in lines["training"]
    assert all("right: log-probability" in lines[name] for name in ("training", "engine", "export", "LoRA"))


def test_a_model_that_is_not_is_an_error_with_the_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    architecture, settings, _ = REFUSED["llama4"]
    with pytest.raises(CheckFailed, match=r"psr cannot train .*is another one; the in-process engine cannot serve"):
        check(save_model(tmp_path / "M0", architecture, settings))
    assert "WRONG" in capsys.readouterr().out
    with pytest.raises(PolicyError, match="no model in"):
        check(tmp_path / "nothing")


def test_adapters_that_cannot_be_merged_fail_the_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = save_model(tmp_path / "M0", *RIGHT["gpt2"])
    with pytest.raises(CheckFailed, match=r"model\.lora\.targets gives an adapter to transformer\.wte"):
        check(folder, LoRA(rank=2, targets=["wte"]))
    assert issubclass(LoRAError, ValueError) and "export        right" in capsys.readouterr().out
