"""The policy folder: transformers loads what was exported, and a folder is complete or not there."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from psr.policy.folder import export_policy, load_policy, new_policy
from psr.policy.tiny_tokenizer import build_tokenizer
from psr.policy.tokenizer import PolicyError, check_folder, load_tokenizer
from tests.conftest import TINY

IDS = torch.tensor([[11, 20, 12, 8, 5]])


@pytest.mark.parametrize("architecture", ["qwen2", "llama"])
def test_transformers_loads_an_export_with_equal_logits(
    architecture: str, tmp_path: Path, tokenizer: PreTrainedTokenizerBase
):
    model = new_policy(architecture, TINY, tokenizer).eval()
    export_policy(model, tokenizer, tmp_path / "M1")
    again = AutoModelForCausalLM.from_pretrained(str(tmp_path / "M1")).eval()
    assert again.config.model_type == architecture
    assert again.config.eos_token_id == tokenizer.eos_token_id
    with torch.no_grad():
        assert torch.equal(again(IDS).logits, model(IDS).logits)


def test_an_exported_tokenizer_encodes_as_before(llama: Path, tokenizer: PreTrainedTokenizerBase):
    text = "37+18=55\n\\boxed{55}"
    for again in (AutoTokenizer.from_pretrained(str(llama)), load_tokenizer(llama)):
        assert again.encode(text) == tokenizer.encode(text)
        assert again.eos_token_id == tokenizer.eos_token_id


def test_exporting_again_replaces_the_folder_and_leaves_no_partial_one(tmp_path: Path, tokenizer):
    folder = tmp_path / "models" / "M2"
    (tmp_path / "models" / "M2.partial").mkdir(parents=True)
    (tmp_path / "models" / "M2.partial" / "torn").write_text("an export that was killed")
    first, second = new_policy("llama", TINY, tokenizer), new_policy("llama", TINY, tokenizer)
    export_policy(first, tokenizer, folder)
    export_policy(second, tokenizer, folder)
    assert [path.name for path in folder.parent.iterdir()] == ["M2"]
    assert not (folder / "torn").exists()
    with torch.no_grad():
        assert torch.equal(load_policy(folder).eval()(IDS).logits, second.eval()(IDS).logits)


def test_an_export_that_fails_leaves_the_old_folder(tmp_path: Path, tokenizer):
    class FullDisk:
        def save_pretrained(self, folder: str) -> None:
            raise OSError("no space left on device")

    model = new_policy("llama", TINY, tokenizer)
    export_policy(model, tokenizer, tmp_path / "M1")
    with pytest.raises(OSError, match="no space left"):
        export_policy(new_policy("llama", TINY, tokenizer), FullDisk(), tmp_path / "M1")  # type: ignore[arg-type]
    with torch.no_grad():
        assert torch.equal(load_policy(tmp_path / "M1").eval()(IDS).logits, model.eval()(IDS).logits)


def test_a_folder_without_a_model_is_named(tmp_path: Path):
    for folder in (tmp_path / "absent", tmp_path):
        for use in (check_folder, load_policy, load_tokenizer):
            with pytest.raises(PolicyError, match=f"no model in {folder}: .*config.json"):
                use(folder)


def test_a_tokenizer_without_eos_is_refused(tmp_path: Path, llama: Path):
    tokenizer = build_tokenizer()
    export_policy(load_policy(llama), tokenizer, tmp_path / "M1")
    tokenizer.eos_token = None  # type: ignore[assignment]
    tokenizer.save_pretrained(str(tmp_path / "M1"))
    with pytest.raises(PolicyError, match="has no EOS token"):
        load_tokenizer(tmp_path / "M1")


def test_weights_are_loaded_in_the_type_asked_for(policy: Path):
    assert {p.dtype for p in load_policy(policy).parameters()} == {torch.float32}
    assert {p.dtype for p in load_policy(policy, torch.bfloat16).parameters()} == {torch.bfloat16}
