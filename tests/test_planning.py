"""The plan against the published architectures: every figure is derived here anew, by other means."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from psr.cli.main import main
from psr.planning import (
    Architecture,
    Guess,
    Layout,
    Server,
    cached_tokens,
    iteration_work,
    layer_activations,
    memory,
    serving_memory,
)
from psr.trees.attention import attention_arguments, use_tree_attention
from tests.recipes.tiny_run import ROOT

SEVEN, SEVENTY_TWO = (ROOT / "configs" / f"qwen2.5-math-{size}" for size in ("7b", "72b"))
LAUNCH = "--data.init_args.engine.init_args.launch"
# hidden, intermediate, layers, heads, key-value heads, vocabulary: arXiv 2412.15115 and the model cards
PUBLISHED = {SEVEN: (3584, 18944, 28, 28, 4, 152064), SEVENTY_TWO: (8192, 29568, 80, 64, 8, 152064)}


def parameters(hidden: int, inner: int, layers: int, heads: int, kv: int, vocabulary: int) -> tuple[int, int]:
    """(of a layer, of all), by hand: projections, biases on q, k and v, a gated MLP, two norms; untied embeddings."""
    head = hidden // heads
    attention = 2 * hidden * hidden + 2 * hidden * kv * head + hidden + 2 * kv * head
    layer = attention + 3 * hidden * inner + 2 * hidden
    return layer, layers * layer + 2 * vocabulary * hidden + hidden


@pytest.mark.parametrize("recipe", PUBLISHED, ids=lambda path: path.name)
def test_the_parameters_are_those_of_the_published_architecture(recipe: Path):
    arch = Architecture.of(recipe / "architecture.json")
    layer, total = parameters(*PUBLISHED[recipe])
    assert (arch.whole + arch.divided, arch.total) == (layer, total)
    assert total == {SEVEN: 7_615_616_512, SEVENTY_TWO: 72_706_203_648}[recipe], "7.62B and 72.7B on the model cards"


@pytest.mark.parametrize(("recipe", "gpus"), [(SEVEN, 8), (SEVEN, 32), (SEVENTY_TWO, 32), (SEVENTY_TWO, 64)])
def test_the_memory_of_a_gpu_by_part(recipe: Path, gpus: int):
    hidden, inner, layers, heads, kv, vocabulary = PUBLISHED[recipe]
    layer, total = parameters(*PUBLISHED[recipe])
    arch = Architecture.of(recipe / "architecture.json")
    needs = memory(arch, Layout(gpus, 1, True, 2, 4096, True, False))
    parts, row = needs.parts, 4096
    assert parts["weights, float32"] == pytest.approx(4 * total / gpus)
    assert parts["gradients, float32"] == pytest.approx(4 * total / gpus)
    assert parts["optimizer, two moments"] == pytest.approx(8 * total / gpus)
    assert parts["gathered: two layers, head"] == 2 * (2 * layer + vocabulary * hidden)
    one = row * (20 * hidden + 4 * kv * hidden // heads + 4 * heads + 8 * inner)
    assert parts["activations, checkpointed"] == row * hidden * layers * 2 + one
    assert needs.alternatives["activations"] == layers * one
    assert parts["logits of a chunk"] == 512 * vocabulary * (2 + 4 + 4 + 2)
    assert parts["reference"] == 0
    assert needs.total < 72e9


def test_tensor_parallelism_and_offloading_spare_what_they_should():
    arch = Architecture.of(SEVENTY_TWO / "architecture.json")
    plain, divided, offloaded = (
        memory(arch, Layout(32, tp, True, 2, 4096, True, offload)).parts
        for tp, offload in ((1, False), (8, False), (1, True))
    )
    assert divided["gathered: two layers, head"] < plain["gathered: two layers, head"] / 2
    assert divided["weights, float32"] == pytest.approx(plain["weights, float32"], rel=0.3), (
        "all 32 hold them either way"
    )
    assert offloaded["weights, float32"] == offloaded["optimizer, two moments"] == 0
    whole = memory(arch, Layout(32, 1, False, 2, 4096, True, False)).parts
    assert whole["weights, float32"] == 4 * arch.total


def saved_bytes(model: Any, tokens: int) -> int:
    """What autograd keeps of a forward pass, weights aside."""
    storages: dict[int, int] = {}
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def pack(value: Tensor) -> Tensor:
        storage = value.untyped_storage()
        if storage.data_ptr() not in weights:
            storages[storage.data_ptr()] = storage.nbytes()
        return value

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
        ids = torch.arange(tokens)[None] % 40
        kept = model(input_ids=ids, **attention_arguments(torch.full((tokens,), tokens)))
    assert kept is not None
    return sum(storages.values())


def test_a_layers_activations_are_what_autograd_keeps():
    """Measured on a small model of the same kind: the difference that one more layer makes."""
    tokens, shape = (
        512,
        {"hidden_size": 256, "intermediate_size": 1024, "num_attention_heads": 8, "num_key_value_heads": 2},
    )
    kept = []
    for layers in (1, 3):
        config = AutoConfig.for_model(
            "qwen2", vocab_size=64, num_hidden_layers=layers, max_position_embeddings=512, **shape
        )
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
        kept.append(saved_bytes(use_tree_attention(model).base_model, tokens))
    arch = Architecture("", 0, 1, 0, 0, 0, 256, 1024, 8, 64, 64)
    assert (kept[1] - kept[0]) / 2 == pytest.approx(tokens * layer_activations(arch, 1, 2), rel=0.15)


def test_requests_and_tokens_of_an_iteration():
    guess = Guess(steps=10, step_tokens=50, problem_tokens=100, explanation_tokens=20)
    work = iteration_work(400, 6, True, True, guess)
    assert work["candidates"] == 400 * 10 * 6
    assert work["verdicts, at most"] == 400 * 10 * 30, "the paper's rule: every pair of six, in both orders"
    prefix = 100 + 50 * 9 / 2
    assert work["prompt tokens"] == 24_000 * prefix + 120_000 * (prefix + 100)
    assert work["generated tokens"] == 24_000 * 50 + 120_000 * 20
    assert iteration_work(400, 6, False, False, guess)["verdicts, at most"] == 60_000


@pytest.mark.parametrize(
    ("recipe", "gpus", "tp", "fraction", "training", "searching"),
    [
        (SEVEN, 8, 1, 0.6, 23.2, 59.4),
        (SEVEN, 32, 1, 0.6, 11.8, 50.9),
        (SEVENTY_TWO, 32, 8, 0.5, 57.8, 67.3),
        (SEVENTY_TWO, 64, 8, 0.5, 39.6, 53.6),
    ],
)
def test_a_server_on_the_same_gpus(
    recipe: Path, gpus: int, tp: int, fraction: float, training: float, searching: float
):
    _, total = parameters(*PUBLISHED[recipe])
    _, _, layers, heads, kv, _ = PUBLISHED[recipe]
    head = PUBLISHED[recipe][0] // heads
    arch, layout = Architecture.of(recipe / "architecture.json"), Layout(gpus, 1, True, 2, 4096, True, False)
    server = Server(tp, fraction, 2)
    needs = serving_memory(arch, layout, server, 80)
    assert needs.parts["server: weights"] == 2 * total / tp
    assert needs.total == pytest.approx(fraction * 80e9 + 12 * total / gpus), "float32 weights and two moments"
    cache = fraction * 80e9 - 2 * total / tp
    assert cached_tokens(arch, server, cache) == pytest.approx(cache * tp / (layers * 2 * kv * head * 2))
    said = memory(arch, layout).total / 1e9, needs.total / 1e9
    assert said == pytest.approx((training, searching), abs=0.05), "the README's figures"


def plan(*args: str) -> None:
    main(["plan", "--config", *args])


def test_the_recipes_fit_where_they_say(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "init", lambda: pytest.fail("a plan touches no GPU"))
    plan(str(SEVEN / "self_rewarding.yaml"))
    said = capsys.readouterr().out
    assert "7,615,616,512 parameters, on 8 GPUs of 80 GB" in said
    assert "it fits: 23.2 of 72.0 GB" in said and "112,200" in said
    plan(str(SEVENTY_TWO / "sft.yaml"), "--trainer.num_nodes", "8")
    assert "on 64 GPUs" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--trainer.num_nodes", "1"], r"does not fit: 166\.8 GB .*Take more GPUs"),
        (["--trainer.strategy", "ddp"], "does not fit: .*Shard it"),
        (["--model.init_args.checkpoint_activations", "false"], "does not fit: .*checkpoint_activations"),
        (["--architecture", "nowhere.json"], r"no config\.json of the model: tried nowhere\.json"),
        ([f"{LAUNCH}.memory_fraction", "0.2"], r"memory_fraction 0\.2 leaves no cache: the weights alone are 18\.2 GB"),
        ([f"{LAUNCH}.memory_fraction", "0.7"], r"does not fit: 83\.3 GB on each GPU during a search"),
        (["--trainer.strategy.tensor_parallel_size", "5"], "tensor_parallel_size is 5, and there are 32 GPUs"),
    ],
)
def test_what_cannot_fit_is_refused_with_what_would_help(options: list[str], said: str):
    with pytest.raises(SystemExit, match=said):
        plan(str(SEVENTY_TWO / "self_rewarding.yaml"), *options)
