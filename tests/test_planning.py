"""The plan against the published architectures: every figure is derived here anew, by other means."""

from itertools import product
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
    adapter_elements,
    cached_tokens,
    frozen_bytes,
    iteration_work,
    layer_activations,
    memory,
    serving_memory,
)
from psr.policy.lora import add_adapters
from psr.policy.lora_settings import LoRA
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
        mask = attention_arguments(torch.full((tokens,), tokens), torch.arange(tokens))
        kept = model(input_ids=ids, use_cache=False, **mask)
    assert kept is not None
    return sum(storages.values())


@pytest.mark.parametrize(
    ("dtype", "autocast", "rank"),
    [
        (torch.bfloat16, False, 0),  # as a sharded layer is gathered
        (torch.float32, True, 0),
        (torch.float32, True, 16),
        (torch.bfloat16, True, 16),
        (torch.bfloat16, True, 64),
    ],
)
def test_a_layers_activations_are_what_autograd_keeps(dtype: torch.dtype, autocast: bool, rank: int):
    """Measured on a small model of the same kind: what one more layer adds for every further token."""
    shape = {"hidden_size": 256, "intermediate_size": 1024, "num_attention_heads": 8, "num_key_value_heads": 2}
    kept = {}
    for layers, tokens in product((1, 3), (256, 512)):
        config = AutoConfig.for_model(
            "qwen2", vocab_size=64, num_hidden_layers=layers, max_position_embeddings=512, **shape
        )
        model = use_tree_attention(AutoModelForCausalLM.from_config(config, dtype=dtype))
        if rank:
            add_adapters(model, LoRA(rank))
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            kept[layers, tokens] = saved_bytes(model.base_model, tokens)
    per_token = (kept[3, 512] - kept[1, 512] - kept[3, 256] + kept[1, 256]) / 2 / 256
    arch = Architecture("", 0, 1, 0, 0, 0, 256, 1024, 8, 64, 64)
    assert per_token == pytest.approx(layer_activations(arch, 1, 2, autocast and not rank, rank), rel=0.01)


ONE_GPU = ROOT / "configs" / "qwen2.5-math-1.5b"


def test_one_gpu_trains_all_weights_of_a_small_model_or_adapters_of_a_larger_one():
    arch = Architecture.of(ONE_GPU / "architecture.json")
    _, untied = parameters(1536, 8960, 28, 12, 2, 151936)
    assert arch.total == untied - 151936 * 1536 == 1_543_714_304, "1.54B on the model card, with a tied head"
    whole = memory(arch, Layout(1, 1, False, 2, 4096, True, False, autocast=True)).parts
    assert sum(whole[f"{name}, float32"] for name in ("weights", "gradients")) == 8 * arch.total
    assert whole["optimizer, two moments"] == 8 * arch.total and whole["weights, cast"] == 2 * arch.total
    assert whole["activations, checkpointed"] > 4096 * 1536 * 28 * 4, "what is added up is float32"
    for base, size in (("float32", 4.0), ("bfloat16", 2.0)):
        adapters = adapter_elements(ONE_GPU / "architecture.json", LoRA(rank=64))
        assert adapters == 28 * 64 * (4 * 1536 + 2 * (1536 + 256) + 3 * (1536 + 8960))
        parts = memory(arch, Layout(1, 1, False, 2, 4096, True, False, True, adapters, 64, base)).parts  # type: ignore[arg-type]
        assert parts[f"weights, frozen, {base}"] == size * arch.total
        assert parts["gradients, float32"] * 2 == parts["optimizer, two moments"] == 8 * adapters


def test_four_bits_are_what_bitsandbytes_makes_of_a_layer():
    """A weight, the byte of each 64 of them, the float32 of 256 such bytes; embeddings and head stay in bfloat16."""
    arch = Architecture.of(SEVEN / "architecture.json")
    layer, total = parameters(*PUBLISHED[SEVEN])
    quantized = 28 * layer
    expected = quantized / 2 + quantized / 64 + 4 * quantized / 64 / 256 + 2 * (total - quantized)
    assert frozen_bytes(arch, "nf4") == pytest.approx(expected)
    assert 5.4e9 < expected < 5.7e9


def test_a_trainer_that_rests_holds_its_weights_alone():
    arch = Architecture.of(ONE_GPU / "architecture.json")
    layout = Layout(1, 1, False, 2, 4096, True, False, autocast=True)
    in_process = serving_memory(arch, layout, Server(1, 0.0, 2, cache=8e9), 80)
    assert in_process.total == pytest.approx(2 * arch.total + 8e9 + 4 * arch.total)
    server = serving_memory(arch, layout, Server(1, 0.5, 2), 80)
    assert server.total == pytest.approx(40e9 + 4 * arch.total)


def test_24_gb_are_not_enough_for_all_weights():
    with pytest.raises(SystemExit, match=r"does not fit: .* plan\.gpu_memory 24"):
        plan(str(ONE_GPU / "self_rewarding.yaml"), "--plan.gpu_memory", "24")


def test_a_cache_that_does_not_fit_beside_the_trainer_is_refused():
    name = "data.engine.init_args.cache_gib"
    with pytest.raises(SystemExit, match=rf"does not fit: .* during a search, .* Lower {name}"):
        plan(str(ONE_GPU / "self_rewarding.yaml"), f"--{name}", "70")


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
