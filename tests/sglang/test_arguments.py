"""The command lines of the servers that the shipped configs start, read by the installed SGLang's own argument parser.

SGLang accepts or refuses an argument by the names of its own release; nothing here starts a server or needs a GPU.
"""

import json
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from psr.engines.sglang import Launch, SGLangEngine
from psr.engines.sglang.server import SHIM, find_program, serve_command, serve_environment
from tests.recipes.tiny_run import ROOT

CONFIGS = ROOT / "configs"
READ = """
import json, sys
from sglang.srt.server_args import prepare_server_args
names = ("model_path", "weight_version", "host", "port", "dtype", "tp_size", "dp_size", "mem_fraction_static", "device",
         "enable_memory_saver", "enable_weights_cpu_backup")
found = []
for words in json.load(sys.stdin):
    settings = prepare_server_args(words)
    found.append({name: getattr(settings, name) for name in names})
print("READ", json.dumps(found))
"""


def engines(value: Any, at: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every SGLang engine that a parsed YAML file names, with where it stands."""
    if isinstance(value, dict):
        if value.get("class_path") == "SGLangEngine":
            yield at, value.get("init_args", {})
        for name, inner in value.items():
            yield from engines(inner, f"{at}.{name}")


SHIPPED = {
    f"{file.relative_to(CONFIGS)}{at}": settings
    for recipe in sorted(CONFIGS.glob("*/recipe.yaml"))
    for file in sorted(recipe.parent.glob("*.yaml"))
    for at, settings in engines(yaml.safe_load(file.read_text()), "")
}


def read(commands: list[list[str]]) -> list[dict[str, Any]]:
    """What SGLang makes of the arguments of each command line, in the environment of a server on a CPU."""
    python = Path(find_program("sglang")).with_name("python")
    environment = serve_environment(Launch(device="cpu"))
    done = subprocess.run(
        [str(python), "-c", READ],
        input=json.dumps([words[2:] for words in commands]),
        env=environment,
        capture_output=True,
        text=True,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("READ ")]
    assert lines, done.stderr[-2000:]
    return json.loads(lines[-1].removeprefix("READ "))


def started(settings: dict[str, Any], model: Path) -> list[str]:
    """The command line of the server that an engine of these settings starts."""
    launch = Launch(**settings.get("launch", {}))
    engine = SGLangEngine(**{**settings, "launch": launch})
    owned = engine._fleet.servers[0].owned
    assert owned is not None
    return serve_command(owned.launch, model, owned.port, "M2-0a1b2c3d")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the config of the published 7B model; the parser reads nothing else."""
    folder = tmp_path_factory.mktemp("model")
    (folder / "config.json").write_text((CONFIGS / "qwen2.5-math-7b" / "architecture.json").read_text())
    return folder


@pytest.fixture(scope="module")
def understood(model: Path) -> dict[str, dict[str, Any]]:
    """By where an engine stands in the configs: what its server's command line means to SGLang."""
    commands = [started(settings, model) for settings in SHIPPED.values()]
    return dict(zip(SHIPPED, read(commands), strict=True))


@pytest.mark.parametrize("where", SHIPPED)
def test_the_server_of_a_config_is_started_as_the_config_says(where: str, understood: Any, model: Path):
    settings, found = SHIPPED[where], understood[where]
    launch = settings["launch"]
    assert found["model_path"] == str(model) and found["weight_version"] == "M2-0a1b2c3d"
    assert found["host"] == "127.0.0.1" and found["port"] > 0
    assert found["dtype"] == launch["dtype"]
    assert (found["tp_size"], found["dp_size"]) == (launch.get("tp", 1), launch.get("dp", 1))
    if "memory_fraction" in launch:
        assert found["mem_fraction_static"] == launch["memory_fraction"]
    assert found["device"] == ("cpu" if launch.get("device") == "cpu" else found["device"])
    lends = bool(settings.get("colocated")) and launch.get("device") != "cpu"
    assert found["enable_memory_saver"] is lends, "without it, released memory is not released"
    assert found["enable_weights_cpu_backup"] is False, "weights come back from their folder: no copy in host memory"


def test_the_configs_start_servers_of_every_kind():
    """Or the test above would show little."""
    launches = [settings["launch"] for settings in SHIPPED.values()]
    assert {bool(settings.get("colocated")) for settings in SHIPPED.values()} == {True, False}
    assert {launch.get("tp", 1) > 1 for launch in launches} == {launch.get("dp", 1) > 1 for launch in launches}
    assert {"bfloat16", "float32"} <= {launch["dtype"] for launch in launches}


def test_the_arguments_of_a_launch_reach_the_server(model: Path):
    launch = Launch(dtype="float16", tp=2, dp=4, memory_fraction=0.7, port=31000, args=["--log-level", "warning"])
    on_cpu = replace(launch, device="cpu", tp=1, dp=1, args=[])
    found, cpu = read([serve_command(one, model, one.port, "M3") for one in (launch, on_cpu)])
    assert (found["dtype"], found["tp_size"], found["dp_size"]) == ("float16", 2, 4)
    assert (found["mem_fraction_static"], found["port"], found["weight_version"]) == (0.7, 31000, "M3")
    assert cpu["device"] == "cpu"


def test_an_argument_that_sglang_does_not_know_is_refused(model: Path):
    """The test of the test: a name that another release of SGLang had would be an error here."""
    words = serve_command(Launch(args=["--enable-memory-savers-of-old"]), model, 31000, "M1")
    with pytest.raises(AssertionError, match="unrecognized arguments: --enable-memory-savers-of-old"):
        read([words])


def test_the_shim_is_on_the_path_of_a_server_without_a_gpu_alone():
    assert serve_environment(Launch(device="cpu"))["PYTHONPATH"] == str(SHIM)
    assert "PYTHONPATH" not in serve_environment(Launch())
