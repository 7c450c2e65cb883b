"""OpenAI's chat completions API on any Engine, so that a policy of ours can serve as annotator.

A small HTTP/1.1 server on the standard library, for one machine: POST /v1/chat/completions, GET /v1/models. Concurrent
requests share the engine's batches. Knows HTTP and engines, not what is asked.
"""

import asyncio
import hmac
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError

from psr.engines.base import Engine, EngineError, PromptTooLong, Sampling
from psr.policy.tokenizer import load_tokenizer
from psr.prompts.token_ids import TokenIds

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MAX_BODY = 2**24
LOOPBACK = "127.0.0.1"


async def serve_chat(model: Path, engine: Engine, port: int, host: str = LOOPBACK, key: str | None = None) -> None:
    """Serve the folder `model` on localhost until cancelled. Raises EngineError where the port is taken."""
    await engine.load_weights(model, model.name)
    try:
        server = await start_chat(model, engine, port, host, key)
        print(f"{model} answers at http://{host}:{port}/v1/chat/completions, model {model.name}")
        async with server:
            await server.serve_forever()
    finally:
        await engine.close()


async def start_chat(
    model: Path, engine: Engine, port: int, host: str = LOOPBACK, key: str | None = None
) -> asyncio.Server:
    """The listening server; `engine` serves `model` already. Port 0 takes a free one."""
    tokenizer = load_tokenizer(model)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while (request := await read_request(reader)) is not None:
                method, path, body, given = request
                if key is None or hmac.compare_digest(given.encode(), f"Bearer {key}".encode()):
                    status, content = await answer(method, path, body, model.name, engine, tokenizer)
                else:
                    status, content = "401 Unauthorized", {"error": {"message": "the API key is missing or wrong"}}
                text = json.dumps(content).encode()
                head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(text)}\r\n\r\n"
                writer.write(head.encode() + text)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, ValueError):
            pass  # the client is gone, or does not speak HTTP
        finally:
            writer.close()

    try:
        return await asyncio.start_server(talk, host, port)
    except OSError as error:
        raise EngineError(f"port {port} cannot be used ({error.strerror}): choose another --port") from error


async def read_request(reader: asyncio.StreamReader) -> tuple[str, str, bytes, str] | None:
    """Method, path, body and the header `Authorization`; None where the connection was closed.

    Raises ValueError on anything but HTTP.
    """
    line = await reader.readline()
    if not line:
        return None
    method, path, _ = line.decode("latin-1").split(" ", 2)
    length, authorization = 0, ""
    while (header := (await reader.readline()).strip()) != b"":
        name, _, value = header.decode("latin-1").partition(":")
        if name.lower() == "content-length":
            length = int(value)
        if name.lower() == "authorization":
            authorization = value.strip()
    if length > MAX_BODY:
        raise ValueError(f"a body of {length} bytes")
    return method, path, await reader.readexactly(length), authorization


async def answer(
    method: str, path: str, body: bytes, name: str, engine: Engine, tokenizer: "PreTrainedTokenizerBase"
) -> tuple[str, dict[str, Any]]:
    """Status line and JSON of the reply."""
    if (method, path) == ("GET", "/v1/models"):
        return "200 OK", {"object": "list", "data": [{"id": name, "object": "model"}]}
    if (method, path) != ("POST", "/v1/chat/completions"):
        return "404 Not Found", {"error": {"message": f"there is no {method} {path}"}}
    try:
        asked = json.loads(body)
        sampling, prompt = sampling_of(asked), prompt_of(asked["messages"], tokenizer)
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError, TemplateError) as error:
        return "400 Bad Request", {"error": {"message": f"not a chat completion request: {error!r}"}}
    try:
        [[completion]] = await engine.generate([prompt], sampling)
    except PromptTooLong as error:
        return "400 Bad Request", {"error": {"message": str(error)}}
    except EngineError as error:
        return "500 Internal Server Error", {"error": {"message": str(error)}}
    text = completion.text
    for stop in sampling.stop:  # engines leave the stop text in, OpenAI's API takes it out
        text = text.partition(stop)[0]
    reason = "length" if completion.finish_reason == "length" else "stop"
    message = {"role": "assistant", "content": text}
    usage = {"prompt_tokens": len(prompt), "completion_tokens": len(completion.token_ids)}
    usage["total_tokens"] = sum(usage.values())
    choice = {"index": 0, "message": message, "finish_reason": reason}
    return "200 OK", {"object": "chat.completion", "model": name, "choices": [choice], "usage": usage}


def sampling_of(asked: dict[str, Any]) -> Sampling:
    """The request's sampling; the defaults are OpenAI's. Raises ValueError for several choices at once."""
    if asked.get("n", 1) != 1 or asked.get("stream"):
        raise ValueError("n and stream are not supported")
    stop = asked.get("stop") or []
    return Sampling(
        max_new_tokens=int(asked.get("max_completion_tokens") or asked.get("max_tokens") or 256),
        temperature=float(asked.get("temperature", 1.0)),
        top_p=float(asked.get("top_p", 1.0)),
        seed=int(asked.get("seed") or 0) % 2**32,
        stop=(stop,) if isinstance(stop, str) else tuple(stop),
    )


def prompt_of(messages: Sequence[dict[str, str]], tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    """The token ids of a conversation; without a chat template, those of its contents joined by line breaks."""
    ids = TokenIds(tokenizer)
    said = [{**message, "content": ids.as_text(message["content"])} for message in messages]
    if tokenizer.chat_template is None:
        return list(ids.beginning("\n".join(message["content"] for message in said)))
    return list(ids.conversation(said))
