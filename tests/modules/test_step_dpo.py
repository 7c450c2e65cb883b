"""Step-wise DPO under a real Trainer: the reference belongs to the pair, and is new at every iteration."""

import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback, LightningModule, Trainer
from torch.utils.data import DataLoader

from psr.data.batching import Sample, pad
from psr.data.self_rewarding import collate_pairs, pair_batches
from psr.losses import StepDPOLoss
from psr.modules.policy import PolicyError, load_policy
from psr.modules.step_dpo import StepDPOModule, reference_logprobs, sequence_logprobs
from psr.records import StepPair

RNG = random.Random(0)


def ids(count: int) -> tuple[int, ...]:
    return tuple(RNG.randrange(3, 36) for _ in range(count))


PAIRS = [
    StepPair(f"p/{i}", 0, ids(RNG.randint(1, 9)), ids(RNG.randint(1, 5)), ids(RNG.randint(1, 7)), 1) for i in range(11)
]


def loader(seed: int = 0, size: int = 4) -> DataLoader[Any]:
    batches = pair_batches(PAIRS, size, random.Random(seed))
    return DataLoader(batches, batch_size=None, collate_fn=collate_pairs)  # type: ignore[arg-type]


def pair_by_pair(model: Any) -> torch.Tensor:
    """log p of (chosen, rejected) of every pair, each alone and unpadded."""
    with torch.no_grad():
        rows = [
            sequence_logprobs(model, pad([Sample(p.prompt_ids, s)]))
            for p in PAIRS
            for s in (p.chosen_ids, p.rejected_ids)
        ]
    return torch.cat(rows).view(-1, 2)


class Watch(Callback):
    """Calls back at the start of every batch."""

    def __init__(self, look: Callable[[Trainer, Any, int], None]) -> None:
        self.look = look

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.look(trainer, pl_module, batch_idx)


def fit(module: StepDPOModule, epochs: int = 1, callbacks: list[Callback] | None = None, **options: Any) -> Trainer:
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    trainer = Trainer(accelerator="cpu", devices=1, max_epochs=epochs, callbacks=callbacks, **quiet, **options)
    trainer.fit(module, loader())
    return trainer


@pytest.mark.parametrize("size", [1, 4, 11])
def test_reference_logprobs_belong_to_the_pair_whatever_its_batch(policy: Path, size: int):
    model = load_policy(policy).eval()
    expected = pair_by_pair(model)
    for seed in (0, 1):
        got = reference_logprobs(model, loader(seed, size), torch.device("cpu"))
        assert got.shape == (len(PAIRS), 2)
        assert torch.allclose(got, expected, atol=1e-4)


def test_reference_logprobs_leave_the_policy_in_training_without_gradients(llama: Path):
    model = load_policy(llama).train()
    got = reference_logprobs(model, loader(), torch.device("cpu"))
    assert model.training and not got.requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())


def test_an_iteration_starts_at_log_two_and_lowers_the_loss(llama: Path):
    losses: list[float] = []

    class Losses(Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, *_: Any) -> None:
            losses.append(float(outputs["loss"]))

    module = StepDPOModule(str(llama), lr=1e-2)
    fit(module, callbacks=[Losses()])
    assert losses[0] == pytest.approx(math.log(2), abs=1e-4)
    assert module.policy is not None
    before, after = pair_by_pair(load_policy(llama).eval()), pair_by_pair(module.policy.eval())
    margin = StepDPOLoss().beta * ((after - before)[:, 0] - (after - before)[:, 1])
    assert margin.mean() > 0.05


def reference_of_each_epoch(module: StepDPOModule) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Over two epochs: the reference in use, and the policy's own log-probabilities as the epoch begins."""
    references, own = [], []

    def look(trainer: Trainer, pl_module: Any, batch_idx: int) -> None:
        if batch_idx == 0:
            references.append(pl_module.reference_logprobs.clone())
            own.append(pair_by_pair(pl_module.policy))

    fit(module, 2, [Watch(look)])
    return references, own


def test_the_previous_policy_is_the_reference_of_every_iteration(llama: Path):
    references, own = reference_of_each_epoch(StepDPOModule(str(llama), lr=1e-2, reference="previous"))
    assert torch.allclose(references[0], own[0], atol=1e-4)
    assert torch.allclose(references[1], own[1], atol=1e-4)
    assert (references[1] - references[0]).abs().max() > 0.1


def test_the_initial_policy_stays_the_reference_if_so_set(llama: Path):
    references, own = reference_of_each_epoch(StepDPOModule(str(llama), lr=1e-2, reference="initial"))
    assert torch.allclose(references[0], references[1], atol=1e-5)
    assert torch.allclose(references[1], pair_by_pair(load_policy(llama).eval()), atol=1e-4)
    assert (references[1] - own[1]).abs().max() > 0.1


def test_the_optimizers_state_does_not_outlive_an_iteration(llama: Path):
    steps: dict[tuple[int, int], float] = {}

    def look(trainer: Trainer, pl_module: Any, batch_idx: int) -> None:
        states = trainer.optimizers[0].state.values()
        steps[trainer.current_epoch, batch_idx] = max((float(state["step"]) for state in states), default=0.0)

    fit(StepDPOModule(str(llama)), 2, [Watch(look)])
    assert steps == {(epoch, batch): batch for epoch in (0, 1) for batch in range(3)}


@pytest.mark.parametrize(("accumulate", "expected"), [(1, [1 / 3, 2 / 3, 1.0]), (2, [0.5, 0.5, 1.0])])
def test_every_iteration_warms_up_anew_then_stays(llama: Path, accumulate: int, expected: list[float]):
    rates: list[float] = []

    class Rates(Callback):
        def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
            rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    module = StepDPOModule(str(llama), lr=1e-4, warmup_share=1.0)
    fit(module, 2, [Rates()], accumulate_grad_batches=accumulate)
    assert rates == pytest.approx([1e-4 * factor for factor in expected] * 2)


def test_figures_of_the_step_are_logged(llama: Path):
    metrics = fit(StepDPOModule(str(llama))).logged_metrics
    names = ("loss", "accuracy", "margin", "reward_chosen", "reward_rejected", "logprob_chosen", "logprob_rejected")
    assert {f"train/{name}" for name in names} <= set(metrics)
    assert all(math.isfinite(value) for value in metrics.values())


def test_a_missing_model_is_named_at_once(tmp_path: Path):
    with pytest.raises(PolicyError, match=r"no model in .*M9"):
        StepDPOModule(str(tmp_path / "M9"))
