"""New weights on a real server: other outputs under another version, an empty cache, nothing old that slips in."""

import asyncio
from pathlib import Path

import httpx
import pytest

from psr.engines.base import Completion, EngineError, Origin, Sampling
from psr.engines.sglang import SGLangEngine, tensors
from psr.prompts.encoder import Encoder
from tests.sglang.conftest import served_url

SAMPLING = Sampling(max_new_tokens=40)


@pytest.fixture
def asked(encoder: Encoder) -> list[tuple[int, ...]]:
    return [encoder.reason(f"1{i}+2{i}-3") for i in range(8)]


def answers(engine: SGLangEngine, asked: list[tuple[int, ...]]) -> list[Completion]:
    return [one for [one] in asyncio.run(engine.generate(asked, SAMPLING, Origin("p", "candidates")))]


def test_new_weights_answer_otherwise_and_under_their_version(
    engine: SGLangEngine, policies: tuple[Path, Path], asked: list[tuple[int, ...]]
):
    replies = {}
    for version, folder in (("M1", policies[0]), ("M2", policies[1]), ("M3", policies[0])):
        asyncio.run(engine.load_weights(folder, version))
        assert asyncio.run(engine.health()) == engine.served_version == version
        replies[version] = answers(engine, asked)
        assert {one.weights_version for one in replies[version]} == {version}
    assert [one.token_ids for one in replies["M1"]] == [one.token_ids for one in replies["M3"]]
    assert all(one.token_ids != other.token_ids for one, other in zip(replies["M1"], replies["M2"], strict=True))


def test_a_weight_update_empties_the_cache(
    engine: SGLangEngine, policies: tuple[Path, Path], asked: list[tuple[int, ...]]
):
    answers(engine, asked[:1])
    asyncio.run(engine.load_weights(policies[1], "M2"))
    engine.usage.clear()
    answers(engine, asked[:1])
    assert engine.usage["candidates"].cached_tokens == 0


def test_a_folder_that_the_server_cannot_load_is_an_error_with_its_message(
    engine: SGLangEngine, policies: tuple[Path, Path], tmp_path: Path
):
    broken = tmp_path / "M2"
    broken.mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (broken / name).write_bytes((policies[0] / name).read_bytes())
    with pytest.raises(EngineError, match=r"status 400\): .*weights"):
        asyncio.run(engine.load_weights(broken, "M2"))
    assert engine.served_version is None


def test_weights_wait_for_requests_that_nobody_waits_for(
    engine: SGLangEngine, policies: tuple[Path, Path], asked: list[tuple[int, ...]]
):
    async def main() -> None:
        abandoned = asyncio.ensure_future(engine.generate(asked, Sampling(200, temperature=1.0, n=32)))
        await asyncio.sleep(0.3)
        with pytest.raises(EngineError, match="while requests are waiting"):
            await engine.load_weights(policies[1], "M2")
        abandoned.cancel()
        await asyncio.wait([abandoned])
        await engine.load_weights(policies[1], "M2")

    asyncio.run(main())
    assert {one.weights_version for one in answers(engine, asked)} == {"M2"}


def test_weights_that_somebody_else_loads_under_the_same_name_never_answer(
    engine: SGLangEngine, policies: tuple[Path, Path], asked: list[tuple[int, ...]]
):
    expected = answers(engine, asked)
    other = SGLangEngine(urls=[served_url(engine)])
    asyncio.run(other.load_weights(policies[1], "M1"))
    theirs = answers(other, asked)
    assert [one.token_ids for one in theirs] != [one.token_ids for one in expected]
    assert [one.token_ids for one in answers(engine, asked)] == [one.token_ids for one in expected]
    assert [one.token_ids for one in answers(other, asked)] == [one.token_ids for one in theirs]


def test_sleeping_and_waking_up_with_new_weights(
    engine: SGLangEngine, policies: tuple[Path, Path], asked: list[tuple[int, ...]]
):
    """On a CPU the server accepts both and gives no memory back; what is shown here is the protocol."""
    colocated = SGLangEngine(urls=[served_url(engine)], colocated=True)
    asyncio.run(colocated.load_weights(policies[1], "M1"))
    before = answers(colocated, asked)
    asyncio.run(colocated.sleep())
    with pytest.raises(EngineError, match="call load_weights first"):
        answers(colocated, asked)
    asyncio.run(colocated.load_weights(policies[1], "M2"))
    after = answers(colocated, asked)
    assert [one.token_ids for one in after] == [one.token_ids for one in before]
    assert {one.weights_version for one in after} == {"M2"}


def test_the_server_knows_the_label_and_nothing_else_is_its_version(engine: SGLangEngine):
    info = httpx.get(f"{served_url(engine)}/model_info").json()
    assert info["weight_version"].startswith("M1-")


def test_weights_through_memory_are_those_of_the_folder(
    engine: SGLangEngine,
    policies: tuple[Path, Path],
    asked: list[tuple[int, ...]],
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(tensors, "BUCKET", 100_000)  # a few tensors at a time
    pushing = SGLangEngine(urls=[served_url(engine)], push=True)
    replies = {}
    for version, one, folder in (("M1", engine, 1), ("M2", pushing, 0), ("M3", pushing, 1), ("M4", engine, 0)):
        asyncio.run(one.load_weights(policies[folder], version))
        replies[version] = answers(one, asked)
        assert {reply.weights_version for reply in replies[version]} == {version}
    content = {name: [(reply.token_ids, reply.logprob) for reply in some] for name, some in replies.items()}
    assert content["M3"] == content["M1"] and content["M2"] == content["M4"] != content["M1"]  # to the last bit
    httpx.post(f"{served_url(engine)}/begin_weight_update", json={}).raise_for_status()  # and then it was killed
    asyncio.run(pushing.load_weights(policies[1], "M5"))
    assert [(reply.token_ids, reply.logprob) for reply in answers(pushing, asked)] == content["M1"]
