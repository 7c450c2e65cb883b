"""`psr serve`: a server in the foreground, SGLang's, or a small one around the in-process engine."""

import asyncio
import os
from pathlib import Path
from typing import Literal

from psr.bounds import Count, OpenShare, Port, bounded
from psr.engines.chat_server import serve_chat
from psr.engines.local import LocalEngine
from psr.engines.sglang.server import Launch, serve_command, serve_environment
from psr.keys import secret
from psr.policy.tokenizer import check_folder


@bounded()
def serve(
    model: Path,
    engine: Literal["sglang", "local"] = "sglang",
    device: Literal["auto", "cpu"] = "auto",
    port: Port = 30000,
    host: str = "127.0.0.1",
    key_env: str | None = None,
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto",
    tp: Count = 1,
    dp: Count = 1,
    memory_fraction: OpenShare | None = None,
    command: str = "sglang",
    args: list[str] | None = None,
) -> None:
    """Serve a policy until Ctrl-C: with SGLang for `engine.urls` of runs on this machine, or as an annotator.

    Both answer OpenAI's chat completions at http://localhost:<port>/v1, the address for `annotator.url`.

    Args:
        model: Hugging Face folder that is served first; a run loads its own weights.
        engine: "sglang"; or "local", chat completions alone, which needs no installation besides psr's. It uses `port`
            and of `dtype` float32 and bfloat16.
        device: "cpu" serves without a GPU, for development and tests: slow.
        port: TCP port.
        host: address to listen on. Whoever reaches it can use the server, and SGLang's also loads weights on request:
            another one than the loopback address is for closed networks, or with a key.
        key_env: environment variable that holds the API key that requests must bring.
        dtype: of weights and cache; "auto" makes a float32 folder half precision.
        tp: GPUs that share every layer.
        dp: copies of the model inside the server.
        memory_fraction: of the device's memory, for weights and cache; SGLang decides if it is not given.
        command: the `sglang` program.
        args: further arguments of `sglang serve`, as in --args='[--log-level, warning]'.
    """
    key = secret("key_env", key_env)
    if engine == "local":
        asyncio.run(serve_chat(check_folder(model), LocalEngine(dtype, device=device), port, host, key))
        return
    launch = Launch(command, device, dtype, tp, dp, memory_fraction, args=args or [])
    words = serve_command(launch, check_folder(model).resolve(), port, "default", host)
    words += [] if key is None else ["--api-key", key]
    os.execve(words[0], words, serve_environment(launch))
