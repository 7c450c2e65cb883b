"""Labels of weights, sharing a server, and the copy on the node's own disk."""

import asyncio
import os
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from psr.engines.base import EngineError
from psr.engines.sglang import Launch, SGLangEngine
from psr.engines.sglang.weights import label_of, staged
from tests.engines.conftest import EXPECTED, Make, ask, loaded


def test_a_label_is_of_the_version_and_the_weights_wherever_they_lie(llama: Path, qwen2: Path, tmp_path: Path):
    label = label_of(llama, "M2")
    shutil.copytree(llama, tmp_path / "copy")
    assert label.startswith("M2-") and label == label_of(tmp_path / "copy", "M2")
    [file] = (tmp_path / "copy").glob("*.safetensors")
    os.utime(file, (1, 1))  # as of another run with a model of the same shape
    assert len({label, label_of(tmp_path / "copy", "M2"), label_of(qwen2, "M2"), label_of(llama, "M3")}) == 4


def test_processes_that_share_a_server_load_the_weights_once(make: Make, llama: Path, qwen2: Path):
    first = loaded(make(), llama)
    url = first._fleet.servers[0].url
    second = loaded(SGLangEngine(urls=[url]), qwen2, "M2")
    before = loads(url)
    loaded(first, qwen2, "M2")
    assert loads(url) == before
    assert ask(first) == ask(second) == EXPECTED
    loaded(second, llama, "M3")
    assert loads(url) == before + 1


def test_weights_that_sleep_has_lost_are_loaded_again(make: Make, launch: Launch, llama: Path):
    lending = replace(launch, args=["--enable-memory-saver"])
    url = loaded(make(launch=lending), llama)._fleet.servers[0].url
    engine = loaded(SGLangEngine(urls=[url], colocated=True), llama)
    asyncio.run(engine.sleep())
    before = loads(url)
    assert ask(loaded(engine, llama)) == EXPECTED
    assert loads(url) == before + 1


def test_a_server_that_would_keep_its_memory_is_refused_before_the_search(make: Make, llama: Path):
    url = loaded(make(), llama)._fleet.servers[0].url
    with pytest.raises(EngineError, match=r"engine\.colocated is true, .* without --enable-memory-saver"):
        loaded(SGLangEngine(urls=[url], colocated=True), llama)
    assert ask(loaded(make(colocated=True), llama)) == EXPECTED, "psr's own has it"


def loads(url: str) -> int:
    """How often the server has been told to load weights."""
    return int(httpx.get(f"{url}/loads").json())


def test_servers_load_the_copy_and_older_copies_go(make: Make, llama: Path, qwen2: Path, tmp_path: Path):
    stage = tmp_path / "disk" / "weights"
    engine = make(stage=str(stage))
    for folder, version in ((llama, "M1"), (qwen2, "M2")):
        assert ask(loaded(engine, folder, version)) == EXPECTED
        [copy] = [path for path in stage.iterdir() if path.is_dir()]
        assert copy.name == label_of(folder, version)
        assert files(copy) == files(folder)
    url = engine._fleet.servers[0].url
    assert httpx.get(f"{url}/model_info").json()["model_path"] == str(copy)


def test_a_version_that_is_a_path_does_not_lead_out_of_the_stage(make: Make, llama: Path, tmp_path: Path):
    stage = tmp_path / "disk"
    assert ask(loaded(make(stage=str(stage)), llama, str(llama.resolve()))) == EXPECTED
    [copy] = [path for path in stage.iterdir() if path.is_dir()]
    assert copy.name.startswith(f"{llama.name}-") and files(copy) == files(llama)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_one_copy_is_made_for_all_that_ask(llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Torn by a kill, it is made anew; asked for by several at once, it is made by one of them."""
    torn, copied = tmp_path / "M1-x.partial", []
    torn.mkdir()
    (torn / "half").touch()

    def copytree(*args: Path) -> None:
        copied.append(args)
        original(*args)

    original = shutil.copytree
    monkeypatch.setattr(shutil, "copytree", copytree)
    threads = [threading.Thread(target=staged, args=(llama, tmp_path, "M1-x")) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(copied) == 1 and files(tmp_path / "M1-x") == files(llama)
    assert not torn.exists()
