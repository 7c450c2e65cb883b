"""A server that psr starts itself: its command line, start and stop, and its last output when it does not come up.

Knows processes, ports and SGLang's command line. Does not know requests.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from rich.console import Console

from psr.engines.base import EngineError
from psr.processes import guard

SHIM = Path(__file__).parent / "cpu"
LAST_LINES = 30
CPU_VENV = ".venv-sglang"
"""Where `make sglang` puts SGLang for machines without a GPU: beside the environment of psr."""


@dataclass(frozen=True)
class Launch:
    """How `sglang serve` is started. The model folder is that of the weights to be served.

    Args:
        command: the `sglang` program: a path, or a name that is looked up on the PATH, beside psr's own interpreter
            and in `.venv-sglang`.
        device: "cpu" is for development and tests: it puts `psr/engines/sglang/cpu` on the server's import path and
            chooses what runs without a GPU; with "auto" SGLang takes what it finds.
        dtype: of weights and cache; "auto" serves a float32 folder in half precision.
        tp: GPUs that share every layer.
        dp: copies of the model inside the server; a problem's requests stay with one.
        memory_fraction: share of the device's memory for weights and cache; SGLang decides if it is not given.
        port: TCP port; 0 takes a free one.
        args: further arguments of `sglang serve`, as on its command line.
        env: further environment variables of the server.
        start_timeout: seconds within which the server has to become healthy.
        stop_timeout: seconds that it gets to shut down by itself.
        restarts: how often a server that died is restarted.
        log: file that the server's output is appended to.
    """

    command: str = "sglang"
    device: Literal["auto", "cpu"] = "auto"
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    tp: int = 1
    dp: int = 1
    memory_fraction: float | None = None
    port: int = 0
    args: list[str] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)
    start_timeout: float = 900.0
    stop_timeout: float = 15.0
    restarts: int = 3
    log: str = "sglang-server.log"


# torch_native is the one attention backend that needs no kernel package. Warm-up, graphs and the default cache (a share
# of all memory) are meant for a GPU.
CPU_ARGS = (
    *("--device", "cpu", "--attention-backend", "torch_native", "--sampling-backend", "pytorch"),
    *("--max-total-tokens", "65536", "--skip-server-warmup", "--sleep-on-idle"),
    *("--cuda-graph-backend-decode", "disabled", "--cuda-graph-backend-prefill", "disabled"),
)
# One thread, no compiler: with the defaults a small model decodes ten times slower on a CPU.
CPU_ENV = {"SGLANG_USE_CPU_ENGINE": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TORCHDYNAMO_DISABLE": "1"}
LOCAL_FILES = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


def find_program(command: str) -> str:
    """The program's path. Raises EngineError where there is none."""
    beside = [Path(sys.executable).parent, Path(sys.prefix).parent / CPU_VENV / "bin"]
    found = shutil.which(command) or shutil.which(command, path=os.pathsep.join(map(str, beside)))
    if found is None:
        raise EngineError(
            f"launch.command is {command!r}, and there is no such program: `pip install psr[sglang]` on a machine with "
            "a GPU, `make sglang` on one without, or name its path"
        )
    return str(Path(found).absolute())


def serve_command(launch: Launch, folder: Path, port: int, label: str) -> list[str]:
    """The command line of the server that serves `folder` as weights `label`."""
    memory = () if launch.memory_fraction is None else ("--mem-fraction-static", str(launch.memory_fraction))
    return [
        *(find_program(launch.command), "serve", "--model-path", str(folder), "--weight-version", label),
        *("--host", "127.0.0.1", "--port", str(port), "--dtype", launch.dtype),
        *("--tp-size", str(launch.tp), "--dp-size", str(launch.dp), *memory),
        *(CPU_ARGS if launch.device == "cpu" else ()),
        *launch.args,
    ]


def serve_environment(launch: Launch) -> dict[str, str]:
    """The server's environment, without psr's own import path."""
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    cpu = {**CPU_ENV, "PYTHONPATH": str(SHIM)} if launch.device == "cpu" else {}
    return {**inherited, **LOCAL_FILES, **cpu, **launch.env}


def free_port() -> int:
    """A port that is free now; another process may still take it before the server does."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class OwnedServer:
    """A server process that ends with this process at the latest."""

    def __init__(self, launch: Launch) -> None:
        self.launch, self.port, self.starts = launch, launch.port or free_port(), 0
        self.url = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    async def start(self, folder: Path, label: str, healthy: Callable[[], Awaitable[bool]]) -> None:
        """Start, and wait until `healthy()`; where that fails, raise EngineError with the server's last lines."""
        self.stop()  # what is left of a server that died: its workers may still hold the GPU
        if self.starts > self.launch.restarts:
            raise EngineError(
                f"the SGLang server died {self.starts} times (launch.restarts is {self.launch.restarts}); its last "
                f"lines, from {self.launch.log}:\n{self.last_lines()}"
            )
        self.starts += 1
        command = serve_command(self.launch, folder, self.port, label)
        # Not as a child of ours directly: the guard ends the server even if this process is killed with SIGKILL.
        watched = [sys.executable, "-I", guard.__file__, str(self.launch.stop_timeout), *command]
        Path(self.launch.log).parent.mkdir(parents=True, exist_ok=True)
        with open(self.launch.log, "ab") as log:
            self._process = subprocess.Popen(
                watched,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=serve_environment(self.launch),
                start_new_session=True,  # a process group to end as a whole; also, Ctrl-C reaches psr only
            )
        try:
            await self._wait(healthy)
        except BaseException:  # cancellation too: a half-started server must not stay behind
            self.stop()
            raise

    async def _wait(self, healthy: Callable[[], Awaitable[bool]]) -> None:
        started, limit = time.monotonic(), self.launch.start_timeout
        with Console().status("") as status:
            while not await healthy():
                passed = time.monotonic() - started
                status.update(f"sglang serve is starting: {passed:.0f} of at most {limit:.0f} s, log {self.launch.log}")
                if not self.alive:
                    assert self._process is not None
                    raise EngineError(
                        f"the SGLang server ended with exit code {self._process.returncode} before it was healthy; its "
                        f"last lines, from {self.launch.log}:\n{self.last_lines()}"
                    )
                if passed > limit:
                    raise EngineError(
                        f"the SGLang server was not healthy after launch.start_timeout of {limit:.0f} s; its last "
                        f"lines, from {self.launch.log}:\n{self.last_lines()}"
                    )
                await asyncio.sleep(0.5)

    def last_lines(self) -> str:
        lines = Path(self.launch.log).read_text(errors="replace").splitlines()[-LAST_LINES:]
        return "\n".join(line[:500] for line in lines)  # some of SGLang's lines hold its whole configuration

    def stop(self) -> None:
        """End the server and everything that it started, if it still runs."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        process.stdin.close()  # the guard takes this for the end of our process
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(self.launch.stop_timeout + 5)
        with contextlib.suppress(ProcessLookupError):  # whatever of its process group is left
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
