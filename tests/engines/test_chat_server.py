"""The chat server: what it answers is what the engine writes, to OpenAI's protocol, and it serves our own annotator."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from transformers import PreTrainedTokenizerBase

from psr.curation.annotator.client import Annotator
from psr.curation.annotator.settings import Endpoint
from psr.engines.base import EngineError, Sampling
from psr.engines.chat_server import start_chat
from psr.engines.local import LocalEngine
from psr.errors import UsageError
from psr.keys import secret


def served(model: Path, use: Callable[[str, LocalEngine], Awaitable[Any]]) -> Any:
    """What `use(url, engine)` gives while the server runs."""

    async def run() -> Any:
        engine = LocalEngine()
        await engine.load_weights(model, "M1")
        async with await start_chat(model, engine, 0) as server:
            return await use(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", engine)

    return asyncio.run(run())


def question(content: str, **settings: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": content}], "temperature": 0, "max_tokens": 12, **settings}


def test_the_reply_is_what_the_engine_writes(llama: Path, tokenizer: PreTrainedTokenizerBase):
    async def use(url: str, engine: LocalEngine) -> None:
        [[expected]] = await engine.generate([tokenizer.encode("3+4\n")], Sampling(max_new_tokens=12))
        async with httpx.AsyncClient() as http:
            for _ in range(2):  # over one connection
                reply = (await http.post(f"{url}/chat/completions", json=question("3+4\n"))).json()
                assert reply["choices"][0]["message"]["content"] == expected.text
            assert reply["usage"]["prompt_tokens"] == 4
            assert reply["usage"]["completion_tokens"] == len(expected.token_ids)
            reason = "length" if expected.finish_reason == "length" else "stop"
            assert reply["choices"][0]["finish_reason"] == reason
            stop = expected.text[3]
            cut = (await http.post(f"{url}/chat/completions", json=question("3+4\n", stop=stop))).json()
            assert cut["choices"][0]["message"]["content"] == expected.text.partition(stop)[0]

    served(llama, use)


def test_what_cannot_be_answered_is_refused_with_a_reason(llama: Path):
    async def use(url: str, engine: LocalEngine) -> None:
        async with httpx.AsyncClient() as http:
            for body in (
                *({"messages": "hello"}, {"prompt": "x"}, question("x", n=2), question("1" * 200), [], "x", None, 3),
                *(question("x", temperature="hot"), question("x", max_tokens=1e999), question("x", stop=3)),
                *({"messages": [{"role": "user", "content": value}]} for value in (None, 3, ["x"], {"text": "x"})),
            ):
                reply = await http.post(f"{url}/chat/completions", content=json.dumps(body))
                assert reply.status_code == 400 and reply.json()["error"]["message"]
            assert (await http.get(f"{url}/nothing")).status_code == 404
            assert (await http.get(f"{url}/models")).json()["data"][0]["id"] == llama.name

    served(llama, use)


def test_it_is_an_endpoint_for_the_annotator(llama: Path, tmp_path: Path):
    async def use(url: str, engine: LocalEngine) -> list[str]:
        async with Annotator(Endpoint(url, "M1", max_tokens=6), tmp_path / "replies.jsonl") as annotator:
            asked = [annotator.ask([{"role": "user", "content": f"{i}+1\n"}]) for i in range(8)]
            return [reply.text for reply in await asyncio.gather(*asked)]

    assert len(served(llama, use)) == 8


def test_a_port_that_is_taken_is_named(llama: Path):
    async def use(url: str, engine: LocalEngine) -> None:
        port = int(url.split(":")[2].split("/")[0])
        with pytest.raises(EngineError, match=f"port {port} cannot be used"):
            await start_chat(llama, engine, port)

    served(llama, use)


def test_a_server_with_a_key_answers_those_who_have_it(llama: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ANNOTATOR", "planted-secret")

    async def run() -> None:
        engine = LocalEngine()
        await engine.load_weights(llama, "M1")
        async with await start_chat(llama, engine, 0, key="planted-secret") as server:
            assert {one.getsockname()[0] for one in server.sockets} == {"127.0.0.1"}
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/models"
            async with httpx.AsyncClient() as http:
                for headers in ({}, {"Authorization": "Bearer other"}, {"Authorization": "planted-secret"}):
                    refused = await http.get(url, headers=headers)
                    assert refused.status_code == 401 and "planted-secret" not in refused.text
                assert (await http.get(url, headers={"Authorization": "Bearer planted-secret"})).status_code == 200

    asyncio.run(run())
    assert secret("engine.key_env", "ANNOTATOR") == "planted-secret" and secret("engine.key_env", None) is None
    with pytest.raises(UsageError, match=r"engine\.key_env is 'ABSENT': set that environment variable"):
        secret("engine.key_env", "ABSENT")
