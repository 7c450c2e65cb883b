"""Folders: read whole, or refused with one line that says what is wrong with them."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from psr.policy.folder import export_policy, load_policy
from psr.policy.tiny_tokenizer import build_tokenizer
from psr.policy.tokenizer import PolicyError, load_eos, load_tokenizer
from tests.families import UNTIED, make_model

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 12345\n"


@pytest.fixture
def folder(tmp_path: Path, llama: Path) -> Path:
    return Path(shutil.copytree(llama, tmp_path / "M0"))


def change(file: Path, **fields: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


def test_a_missing_weight_is_not_made_up(folder: Path):
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(PolicyError, match=rf"{folder} lacks 1 of the weights of a llama, model.layers.1.mlp.up_proj"):
        load_policy(folder)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_a_git_lfs_pointer_is_named(folder: Path, name: str):
    (folder / name).write_text(POINTER)
    for load in (load_policy, load_tokenizer):
        with pytest.raises(PolicyError, match=rf"{name} is a Git LFS pointer.*git lfs pull"):
            load(folder)


def test_files_that_cannot_be_read_are_one_line(folder: Path):
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(PolicyError, match="its weights cannot be loaded: SafetensorError") as raised:
        load_policy(folder)
    assert "\n" not in str(raised.value)
    (folder / "model.safetensors").unlink()
    with pytest.raises(PolicyError, match="its weights cannot be loaded"):
        load_policy(folder)
    for file in folder.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(PolicyError, match="its tokenizer cannot be loaded"):
        load_tokenizer(folder)
    (folder / "config.json").write_text('{"model_type": ')
    with pytest.raises(PolicyError, match=r"its config.json cannot be used"):
        load_policy(folder)


def test_custom_code_and_quantized_weights_are_refused(folder: Path):
    change(folder / "config.json", quantization_config={"quant_method": "gptq", "bits": 4})
    with pytest.raises(PolicyError, match="its weights are quantized"):
        load_policy(folder)
    own = {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}
    change(folder / "config.json", quantization_config=None, model_type="own", auto_map=own)
    with pytest.raises(PolicyError, match=r"config.json cannot be used: ValueError: .*custom code"):
        load_policy(folder)


def test_a_token_without_an_embedding_is_refused(tmp_path: Path):
    tokenizer = build_tokenizer()
    model = make_model("llama", {**UNTIED})
    tokenizer.add_special_tokens({"eos_token": "<the end>"})
    export_policy(model, tokenizer, tmp_path / "M0")
    with pytest.raises(PolicyError, match=r"has a token 42 \('<the end>'\), and the model embeddings for 42: resize"):
        load_tokenizer(tmp_path / "M0")


def test_every_eos_counts_and_one_of_them_is_the_tokenizers(folder: Path):
    eos = load_tokenizer(folder).eos_token_id
    assert load_eos(folder) == {eos}
    change(folder / "generation_config.json", eos_token_id=[5, 7])
    assert load_eos(folder) == {eos, 5, 7}
    (folder / "generation_config.json").unlink()
    change(folder / "config.json", eos_token_id=9)
    assert load_eos(folder) == {eos, 9}
