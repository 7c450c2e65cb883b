"""`psr plan --config FILE`: what the stage of a config will need, and whether it fits, before a GPU is allocated.

Knows the parsed config, whose arguments are those of `psr fit`, and `--plan.*`; it instantiates none of it.
"""

from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from psr.errors import UsageError
from psr.planning import (
    GB,
    MASTER,
    Architecture,
    Guess,
    Layout,
    Memory,
    Server,
    cached_tokens,
    iteration_work,
    memory,
    serving_memory,
)

ARCHITECTURE = "architecture.json"
SHARDED = "psr.policy.sharding.ShardedStrategy"
SGLANG = "psr.engines.sglang.SGLangEngine"


def plan(config: Any) -> None:
    """Print the plan of a parsed `fit` config. Raises UsageError where it does not fit."""
    guess = Guess(**config.plan.as_dict())
    arch = Architecture.of(architecture_file(config))
    layout = layout_of(config)
    needs = memory(arch, layout)
    console = Console()
    console.print(f"{arch.name}: {arch.total:,} parameters, on {layout.gpus} GPUs of {guess.gpu_memory:g} GB")
    console.print(memory_table(needs))
    console.print(f"  a checkpoint: {3 * MASTER * arch.total / GB:.0f} GB; an exported model in bfloat16: ", end="")
    console.print(f"{2 * arch.total / GB:.1f} GB")
    if "problems_per_iteration" in config.data.init_args:
        console.print(work_table(config.data.init_args, guess))
    room = guess.gpu_memory * guess.usable
    if (server := server_of(config.data.init_args)) is not None:
        searching = serving_memory(arch, layout, server, guess.gpu_memory)
        console.print(memory_table(searching, "on each GPU, in a search"))
    if needs.total / GB > room:
        raise UsageError(
            f"this does not fit: {needs.total / GB:.1f} GB on each GPU, and plan.gpu_memory {guess.gpu_memory:g} x "
            f"plan.usable {guess.usable:g} leave {room:.1f}. {advice(needs, layout)}"
        )
    if server is not None:
        check_server(searching, server, room)
        cached = cached_tokens(arch, server, searching.parts["server: cache"])
        console.print(f"  a copy of the model holds {cached:,.0f} tokens in its cache")
    console.print(f"it fits: {needs.total / GB:.1f} of {room:.1f} GB on each GPU")


def server_of(data: Any) -> Server | None:
    """The server that shares the trainer's GPUs; None if there is none, or if SGLang chooses its share."""
    engine = data.get("engine")
    if not engine or engine.class_path != SGLANG or not engine.init_args.get("colocated"):
        return None
    launch = engine.init_args.get("launch")
    if not launch or launch.get("memory_fraction") is None:
        return None
    return Server(launch.get("tp", 1), launch["memory_fraction"], 4 if launch.get("dtype") == "float32" else 2)


def check_server(searching: Memory, server: Server, room: float) -> None:
    """Raises UsageError if the server has no room for its weights or a cache, or the trainer none beside it."""
    name = "data.engine.init_args.launch"
    if searching.parts["server: cache"] <= 0:
        raise UsageError(
            f"{name}.memory_fraction {server.fraction:g} leaves no cache: the weights alone are "
            f"{searching.parts['server: weights'] / GB:.1f} GB on each GPU. Raise it, or {name}.tp"
        )
    if searching.total / GB > room:
        raise UsageError(
            f"this does not fit: {searching.total / GB:.1f} GB on each GPU during a search, and there are {room:.1f}. "
            f"Lower {name}.memory_fraction, or take more GPUs"
        )


def advice(needs: Memory, layout: Layout) -> str:
    """The settings that would save most memory."""
    if not layout.sharded:
        return f"Shard it: trainer.strategy {SHARDED}"
    largest = max(needs.parts, key=lambda name: needs.parts[name])
    if largest == "activations":
        return "Set model.checkpoint_activations, or lower data.row_tokens"
    if largest.startswith(("activations", "logits")):
        return "Lower data.row_tokens, or raise trainer.strategy.tensor_parallel_size"
    return "Take more GPUs (trainer.num_nodes), or set trainer.strategy.cpu_offload"


def architecture_file(config: Any) -> Path:
    """The config.json of the stage's model. Raises UsageError where there is none."""
    folder = Path(config.model.init_args.model)
    beside = [Path(str(one)).parent / ARCHITECTURE for one in config.get("config") or []]
    tried = [config.architecture] if config.architecture else [folder / "config.json", *beside]
    for path in tried:
        if path.is_file():
            return path
    raise UsageError(f"no config.json of the model: tried {', '.join(map(str, tried))}. Name one with --architecture")


def layout_of(config: Any) -> Layout:
    """The trainer's and the strategy's settings that count."""
    trainer, strategy = config.trainer, config.trainer.strategy
    if not isinstance(trainer.devices, int):
        raise UsageError(f"trainer.devices is {trainer.devices!r}: say how many GPUs a node has")
    settings = {} if isinstance(strategy, str) else strategy.init_args
    sharded = not isinstance(strategy, str) and strategy.class_path == SHARDED
    low = settings.get("compute_dtype") == "bfloat16" if sharded else str(trainer.precision).startswith("bf16")
    layout = Layout(
        gpus=trainer.devices * trainer.num_nodes,
        tensor_parallel=settings.get("tensor_parallel_size", 1) if sharded else 1,
        sharded=sharded,
        compute_bytes=2 if low else 4,
        row_tokens=config.data.init_args.row_tokens,
        checkpoint_activations=config.model.init_args.checkpoint_activations,
        cpu_offload=bool(settings.get("cpu_offload", False)) if sharded else False,
    )
    if layout.gpus % layout.tensor_parallel:
        raise UsageError(
            f"trainer.strategy.tensor_parallel_size is {layout.tensor_parallel}, and there are {layout.gpus} GPUs: it "
            "must divide them"
        )
    return layout


def memory_table(needs: Memory, title: str = "on each GPU, in training") -> Table:
    table = Table(title, "GB", box=SIMPLE_HEAD)
    for name, size in needs.parts.items():
        table.add_row(name, f"{size / GB:.2f}")
    table.add_row("all", f"{needs.total / GB:.2f}", style="bold")
    for name, size in needs.alternatives.items():
        table.add_row(f"(instead: {name})", f"{size / GB:.2f}", style="dim")
    return table


def work_table(data: Any, guess: Guess) -> Table:
    search, judge = data.search or {}, data.judge or {}
    columns = [
        iteration_work(
            problems,
            search.get("width", 6),
            judge.get("orders", "both") == "both",
            judge.get("verdicts", "explain") == "explain",
            guess,
        )
        for problems in data.problems_per_iteration
    ]
    table = Table("search of", *(f"M{n + 1}" for n in range(len(columns))), box=SIMPLE_HEAD)
    for name in columns[0]:
        table.add_row(name, *(f"{column[name]:,.0f}" for column in columns))
    return table
