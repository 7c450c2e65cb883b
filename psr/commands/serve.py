"""`psr serve`: a server in the foreground, SGLang's, or a small one around the in-process engine."""

import asyncio
import os
from pathlib import Path
from typing import Literal

from psr.engines.chat_server import serve_chat
from psr.engines.local import LocalEngine
from psr.engines.sglang.server import Launch, serve_command, serve_environment
from psr.policy.tokenizer import check_folder


def serve(
    model: Path,
    engine: Literal["sglang", "local"] = "sglang",
    device: Literal["auto", "cpu"] = "auto",
    port: int = 30000,
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto",
    tp: int = 1,
    dp: int = 1,
    memory_fraction: float | None = None,
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
        dtype: of weights and cache; "auto" makes a float32 folder half precision.
        tp: GPUs that share every layer.
        dp: copies of the model inside the server.
        memory_fraction: of the device's memory, for weights and cache; SGLang decides if it is not given.
        command: the `sglang` program.
        args: further arguments of `sglang serve`, as in --args='[--log-level, warning]'.
    """
    if engine == "local":
        asyncio.run(serve_chat(check_folder(model), LocalEngine(dtype, device=device), port))
        return
    launch = Launch(command, device, dtype, tp, dp, memory_fraction, args=args or [])
    words = serve_command(launch, check_folder(model).resolve(), port, "default")
    os.execve(words[0], words, serve_environment(launch))
