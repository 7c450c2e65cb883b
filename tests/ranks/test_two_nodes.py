"""Self-rewarding on two nodes that share an SGLang server; one node fails in the middle of a search and is replaced."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from shutil import copytree

import httpx
import pytest
import torch

from psr.engines.base import EngineError
from psr.engines.sglang import Launch
from psr.engines.sglang.server import find_program, free_port, serve_command, serve_environment
from psr.files.jsonl import write_jsonl
from tests.ranks.launch import SHARDED
from tests.ranks.nodes import LOOPBACK, Node, kill_with_children, two_nodes
from tests.ranks.test_self_rewarding import lines, weights
from tests.recipes.tiny_run import LIMIT, TINY, environment
from tests.sglang.conftest import quickstart_policy

try:
    find_program("sglang")
    missing = ""
except EngineError as error:
    missing = str(error)
pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(missing), reason=missing)]

PROBLEMS = 10
"""New ones in each of two iterations."""
UNDER_WAY = 2
"""Problems that a node searches at the same time."""
CONFIG = """
model:
  class_path: StepDPOModule
  init_args: {{model: models/M1, lr: 1.0e-3}}
data:
  class_path: SelfRewardingDataModule
  init_args:
    problems: problems.jsonl
    run_dir: .
    searchers: rank
    engine: {{class_path: SGLangEngine, init_args: {{urls: ["{url}"]}}}}
    problems_per_iteration: [{problems}, {problems}]
    search: {{width: 3, temperature: 1.0, top_p: 1.0, max_iterations: 3, max_step_tokens: 12}}
    judge: {{kind: random}}
    batch_size: 4
    concurrency: {under_way}
trainer:
  accelerator: cpu
  devices: 1
  max_epochs: 2
  reload_dataloaders_every_n_epochs: 1
  gradient_clip_val: 1.0
  logger: false
  enable_progress_bar: false
  callbacks:
    - class_path: SelfRewardingLoop
    - class_path: ModelCheckpoint
      init_args: {{dirpath: checkpoints, save_last: true, every_n_epochs: 1, save_on_train_epoch_end: true}}
ckpt_path: last
"""


@pytest.fixture(scope="module")
def nodes() -> Iterator[tuple[Node, Node]]:
    with two_nodes() as found:
        yield found


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return quickstart_policy(tmp_path_factory.mktemp("policy"), 0)


@pytest.fixture(scope="module")
def server(nodes: tuple[Node, Node], policy: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real server on the first node, which both can reach."""
    node, port, log = nodes[0], free_port(), tmp_path_factory.mktemp("server") / "log.txt"
    launch = Launch(device="cpu", dtype="float32", args=["--host", node.address])
    with log.open("w") as output:
        process = subprocess.Popen(
            [*node.prefix, *serve_command(launch, policy, port, "none")],
            env=serve_environment(launch),
            stdout=output,
            stderr=output,
        )
    url = f"http://{node.address}:{port}"
    try:
        end = time.monotonic() + LIMIT
        while "200" not in status(node, url):
            assert process.poll() is None and time.monotonic() < end, log.read_text()[-3000:]
            time.sleep(1)
        yield url
    finally:
        kill_with_children(process.pid)
        process.wait(60)


def status(node: Node, url: str) -> str:
    """What the server says of its health, asked from the node."""
    ask = f"import httpx; print(httpx.get('{url}/health', timeout=20).status_code)"
    return subprocess.run([*node.prefix, sys.executable, "-c", ask], capture_output=True, text=True).stdout


def prepare(folder: Path, policy: Path, url: str) -> Path:
    """A run directory with M1, problems and the stage's config."""
    copytree(policy, folder / "models" / "M1")
    problems = [{"id": str(i), "problem": f"{i + 10}+{i + 20}-{i}"} for i in range(2 * PROBLEMS)]
    write_jsonl(folder / "problems.jsonl", problems)
    config = CONFIG.format(url=url, problems=PROBLEMS, under_way=UNDER_WAY)
    (folder / "self_rewarding.yaml").write_text(config)
    return folder


FIT = [
    "-m",
    "psr.cli.main",
    "fit",
    "--config",
    "self_rewarding.yaml",
    "--data.init_args.prompts",
    str(TINY / "prompts.yaml"),
]


def start(node: Node, folder: Path, program: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*node.prefix, sys.executable, *program],
        cwd=folder,
        env={**environment(), "HF_HUB_OFFLINE": "1", "GLOO_SOCKET_IFNAME": node.interface},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def start_both(nodes: tuple[Node, Node], folder: Path) -> list[subprocess.Popen[str]]:
    """A torchrun agent with one process on each node."""
    meet = [
        "--nnodes",
        "2",
        "--nproc-per-node",
        "1",
        "--master-addr",
        nodes[0].address,
        "--master-port",
        str(free_port()),
    ]
    return [
        start(
            node,
            folder,
            [
                *("-m", "torch.distributed.run", "--node-rank", str(rank), *meet, "--no-python", sys.executable),
                *(*FIT, *SHARDED, "--trainer.num_nodes", "2"),
            ],
        )
        for rank, node in enumerate(nodes)
    ]


def noted(folder: Path, rank: int) -> list[bytes]:
    """The whole lines that a rank has written of the first search."""
    name = "traces.jsonl" if rank == 0 else f"traces.rank-{rank}.jsonl"
    path = folder / "iterations" / "02" / name
    written = path.read_bytes().splitlines(keepends=True) if path.is_file() else []
    return [line for line in written if line.endswith(b"\n")]


@pytest.fixture(scope="module")
def run(
    nodes: tuple[Node, Node], server: str, policy: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[bytes]]:
    """The finished run directory, and what was searched when the second node failed."""
    folder = prepare(tmp_path_factory.mktemp("nodes"), policy, server)
    first, second = start_both(nodes, folder)
    try:
        end = time.monotonic() + LIMIT
        while min(len(noted(folder, rank)) for rank in (0, 1)) < 1:
            assert second.poll() is None and time.monotonic() < end, second.communicate()[1][-5000:]
            time.sleep(0.005)
        kill_with_children(second.pid)
        left = noted(folder, 0) + noted(folder, 1)
        _, said = first.communicate(timeout=LIMIT)
        assert first.returncode != 0, "the other node cannot go on alone"
        again = start_both(nodes, folder)
        for process in again:
            _, said = process.communicate(timeout=LIMIT)
            assert process.returncode == 0, said[-5000:]
    finally:
        for process in (first, second, *locals().get("again", ())):
            if process.poll() is None:
                kill_with_children(process.pid)
    return folder, left


def test_the_nodes_are_what_the_system_allows(nodes: tuple[Node, Node], server: str):
    """In namespaces of their own, this process reaches neither: they have only each other."""
    if nodes[0] is LOOPBACK:
        pytest.skip("no right to make network namespaces: the nodes were two torchrun agents on the loopback")
    assert "200" in status(nodes[1], server)
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{server}/health", timeout=2)


def test_what_was_searched_before_the_failure_is_not_searched_again(run: tuple[Path, list[bytes]]):
    folder, left = run
    at_the_end = (folder / "iterations/02/traces.jsonl").read_bytes().splitlines(keepends=True)
    assert 2 <= len(left) < PROBLEMS, "it came in the middle"
    assert set(left) <= set(at_the_end), "as no seed fixes what SGLang samples, another search would read otherwise"
    for number in (2, 3):
        searched = [one.problem.id for one in lines(folder, number)]
        assert len(searched) == len(set(searched)) == PROBLEMS
    assert not list(folder.glob("iterations/*/traces.rank-*"))


def test_the_models_are_those_that_one_process_makes_of_the_same_traces(
    run: tuple[Path, list[bytes]], nodes: tuple[Node, Node], server: str, policy: Path, tmp_path: Path
):
    alone = prepare(tmp_path / "alone", policy, server)
    for number in ("02", "03"):
        (alone / "iterations" / number).mkdir(parents=True)
        traces = (run[0] / "iterations" / number / "traces.jsonl").read_text()
        (alone / "iterations" / number / "traces.jsonl").write_text(traces)
    process = start(nodes[0], alone, FIT)
    _, said = process.communicate(timeout=LIMIT)
    assert process.returncode == 0, said[-5000:]
    for number in (2, 3):
        assert pairs_of(alone, number) == pairs_of(run[0], number) > 0
        first, found, expected = (weights(folder, n) for folder, n in ((alone, 1), (run[0], number), (alone, number)))
        assert distance(found, expected) < 1e-3 * distance(first, expected), "a thousandth of what was learnt"


def distance(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """The norm of all differences together."""
    assert one.keys() == other.keys()
    return float(torch.stack([(value - other[name]).norm() for name, value in one.items()]).norm())


def pairs_of(folder: Path, number: int) -> int:
    return int(json.loads((folder / "iterations" / f"{number:02d}" / "search.json").read_text())["pairs"])
