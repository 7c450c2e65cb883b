"""Step-wise DPO under a real Trainer: the reference belongs to the pair, and is new at every iteration."""

import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from psr.data.rows import row_loader
from psr.modules.losses import Preferences, StepDPOLoss
from psr.modules.step_dpo import StepDPOModule
from psr.policy.folder import load_policy
from psr.policy.lora_settings import LoRA
from psr.policy.tokenizer import PolicyError
from psr.records import StepPair
from psr.trees.packing import Plan, plan_rows
from psr.trees.step_tree import Sample
from tests import pair_by_pair
from tests.obvious_pairs import pair_groups

RNG = random.Random(0)
QUIET = {
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


def ids(low: int, high: int) -> tuple[int, ...]:
    return tuple(RNG.randrange(3, 36) for _ in range(RNG.randint(low, high)))


def problem_pairs(number: int, steps: int) -> list[StepPair]:
    """The pairs of a problem's search: every chosen step is part of the next prompt."""
    pairs, prompt = [], ids(1, 9)
    for depth in range(steps):
        pairs.append(StepPair(f"p/{number}", depth, prompt, ids(1, 5), ids(1, 7), 1))
        prompt += pairs[-1].chosen_ids
    return pairs


PAIRS = [pair for number, steps in enumerate((3, 1, 2, 4, 1)) for pair in problem_pairs(number, steps)]
ONE_ROW, SOME_ROWS = 10_000, 25
"""Token budgets: all pairs of an optimizer step in one row, or in several."""


def plan(row_tokens: int = ONE_ROW, batch_size: int = 4, seed: int = 0) -> Plan:
    return plan_rows(pair_groups(PAIRS, random.Random(seed)), batch_size, row_tokens)


def own_logprobs(model: Any) -> Tensor:
    """log p of (chosen, rejected) of every pair, each alone: (pairs, 2)."""
    plain = load_policy(model.name_or_path)
    plain.load_state_dict(model.state_dict())
    with torch.no_grad():
        sums = [
            pair_by_pair.logprobs(plain, Sample(pair.prompt_ids, side)).sum()
            for pair in PAIRS
            for side in (pair.chosen_ids, pair.rejected_ids)
        ]
    return torch.stack(sums).view(-1, 2)


def reference_in_use(module: StepDPOModule) -> Tensor:
    """The module's reference log-probabilities by pair, whatever the rows: (pairs, 2)."""
    found = torch.full((len(PAIRS), 2), math.nan)
    dataset: Any = module.trainer.train_dataloader.dataset  # type: ignore[union-attr]
    for row in (dataset[number] for number in range(len(dataset))):
        found[row.units] = row.completion_sums(module.reference_logprobs[row.number]).view(-1, 2)
    return found


class AtEpochStart(Callback):
    """Calls back once the module has begun an epoch."""

    def __init__(self, look: Callable[[Any], None]) -> None:
        self.look = look

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if batch_idx == 0:
            self.look(pl_module)


def fit(
    module: StepDPOModule,
    epochs: int = 1,
    callbacks: list[Callback] | None = None,
    rows: Plan | None = None,
    store: Path | None = None,
    **options: Any,
) -> Trainer:
    trainer = Trainer(accelerator="cpu", devices=1, max_epochs=epochs, callbacks=callbacks, **QUIET, **options)
    trainer.fit(module, row_loader(rows or plan(), trainer, store))
    return trainer


def weights(module: StepDPOModule) -> dict[str, Tensor]:
    assert module.policy is not None
    return module.policy.state_dict()


def distance(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    return max(float((value - other[name]).abs().max()) for name, value in one.items())


@pytest.mark.parametrize("row_tokens", [ONE_ROW, SOME_ROWS])
def test_the_reference_belongs_to_the_pair_whatever_its_row(policy: Path, row_tokens: int):
    seen: list[Tensor] = []
    for seed in (0, 1):
        module = StepDPOModule(str(policy))
        fit(
            module, callbacks=[AtEpochStart(lambda m: seen.append(reference_in_use(m)))], rows=plan(row_tokens, 4, seed)
        )
    expected = own_logprobs(load_policy(policy))
    for found in seen:
        assert torch.allclose(found, expected, atol=1e-4)


def test_an_iteration_starts_at_log_two_and_lowers_the_loss(llama: Path):
    losses: list[float] = []

    class Losses(Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, *_: Any) -> None:
            losses.append(float(outputs["loss"]))

    module = StepDPOModule(str(llama), lr=1e-2)
    fit(module, callbacks=[Losses()])
    assert losses[0] == pytest.approx(math.log(2), abs=1e-4)
    assert module.policy is not None
    ratios = own_logprobs(module.policy) - own_logprobs(load_policy(llama))
    assert (StepDPOLoss().beta * (ratios[:, 0] - ratios[:, 1])).mean() > 0.05


def test_an_optimizer_step_is_the_one_of_the_pairs_one_by_one(llama: Path):
    """One step with plain gradient descent: what the weights move by is the gradient of the mean of the losses."""

    class Descent(StepDPOModule):
        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=self.lr)

        def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
            pass  # the learning rate as it is

    obvious = load_policy(llama)
    beta, total = StepDPOLoss().beta, torch.zeros(())
    for pair in PAIRS:
        chosen, rejected = (
            pair_by_pair.logprobs(obvious, Sample(pair.prompt_ids, side)).sum()
            for side in (pair.chosen_ids, pair.rejected_ids)
        )
        margin = (chosen - chosen.detach()) - (rejected - rejected.detach())  # the reference is the policy itself
        total = total - torch.nn.functional.logsigmoid(beta * margin)
    (total / len(PAIRS)).backward()
    for row_tokens in (ONE_ROW, SOME_ROWS):
        module, rows = Descent(str(llama), lr=1.0), plan(row_tokens, len(PAIRS))
        assert (rows.rows_per_step > 1) == (row_tokens == SOME_ROWS)
        trainer = fit(module, rows=rows)
        assert trainer.global_step == 1
        before = load_policy(llama)
        for name, parameter in obvious.named_parameters():
            assert parameter.grad is not None
            moved = before.get_parameter(name) - weights(module)[name]
            assert torch.allclose(moved, parameter.grad, atol=1e-4), name


@pytest.mark.parametrize("clip", [None, 0.1])
def test_how_the_pairs_of_a_step_are_laid_out_changes_nothing(llama: Path, clip: float | None):
    """The same pairs per optimizer step in one row or several: the same weights and the same log. Also the last step,
    which has fewer pairs and perhaps fewer rows."""
    modules, trainers = [], []
    for row_tokens in (ONE_ROW, SOME_ROWS):
        modules.append(StepDPOModule(str(llama), lr=1e-3, loss=StepDPOLoss(beta=1.0, nll=1.0)))
        # groups must be the same ones in both, so each pair is its own: a budget may split a group between steps
        groups = [(unit,) for group in pair_groups(PAIRS, random.Random(0)) for unit in group]
        trainers.append(fit(modules[-1], rows=plan_rows(groups, 4, row_tokens), gradient_clip_val=clip))
    assert trainers[0].global_step == trainers[1].global_step == 3
    assert distance(weights(modules[0]), weights(modules[1])) < 1e-5
    assert distance(weights(modules[0]), load_policy(llama).state_dict()) > 1e-3
    one, other = (trainer.logged_metrics for trainer in trainers)
    assert one.keys() == other.keys()
    for name in one.keys() - {"train/tokens_per_second"}:
        value = one[name]
        assert other[name].item() == pytest.approx(value.item(), rel=1e-3, abs=1e-4), name


def reference_of_each_epoch(module: StepDPOModule) -> tuple[list[Tensor], list[Tensor]]:
    """Over two epochs: the reference in use, and the policy's own log-probabilities as the epoch begins."""
    references, own = [], []

    def look(module: Any) -> None:
        references.append(reference_in_use(module))
        own.append(own_logprobs(module.policy))

    fit(module, 2, [AtEpochStart(look)])
    return references, own


def test_the_previous_policy_is_the_reference_of_every_iteration(llama: Path):
    references, own = reference_of_each_epoch(StepDPOModule(str(llama), lr=1e-2, reference="previous"))
    assert torch.allclose(references[0], own[0], atol=1e-4)
    assert torch.allclose(references[1], own[1], atol=1e-4)
    assert (references[1] - references[0]).abs().max() > 0.1


def test_the_initial_policy_stays_the_reference_if_so_set(llama: Path):
    references, own = reference_of_each_epoch(StepDPOModule(str(llama), lr=1e-2, reference="initial"))
    assert torch.allclose(references[0], references[1], atol=1e-5)
    assert torch.allclose(references[1], own_logprobs(load_policy(llama)), atol=1e-4)
    assert (references[1] - own[1]).abs().max() > 0.1


def test_with_adapters_the_initial_policy_is_the_one_without_them(llama: Path):
    references: list[Tensor] = []
    module = StepDPOModule(str(llama), lr=1e-2, reference="initial", lora=LoRA(rank=4))
    trainer = fit(module, 2, [AtEpochStart(lambda m: references.append(reference_in_use(m)))])
    for found in references:
        assert torch.allclose(found, own_logprobs(load_policy(llama)), atol=1e-4)
    assert trainer.logged_metrics["train/kl_to_reference"] > 1e-3


def test_with_adapters_the_previous_policy_is_the_one_with_them_as_they_were(llama: Path):
    references: list[Tensor] = []
    module = StepDPOModule(str(llama), lr=1e-2, lora=LoRA(rank=4))
    fit(module, 2, [AtEpochStart(lambda m: references.append(reference_in_use(m)))])
    assert torch.allclose(references[0], own_logprobs(load_policy(llama)), atol=1e-4)
    assert (references[1] - references[0]).abs().max() > 0.1


def test_adapters_alone_are_trained_and_kept_by_the_optimizer(llama: Path):
    module = StepDPOModule(str(llama), lr=1e-2, lora=LoRA(rank=4))
    trainer = fit(module)
    plain = load_policy(llama).state_dict()
    for name, value in weights(module).items():
        if ".lora_" not in name:
            assert torch.equal(value, plain[name.replace(".base_layer.", ".")]), name
    [group] = trainer.optimizers[0].param_groups
    assert len(group["params"]) == sum(".lora_" in name for name in weights(module))


def test_the_stored_reference_of_another_kind_is_not_used(llama: Path, tmp_path: Path):
    """The same weights and rows: with the adapters on or off the reference is another one."""
    store = tmp_path / "reference.safetensors"
    written = set()
    for reference in ("previous", "initial"):
        fit(StepDPOModule(str(llama), lr=0.0, lora=LoRA(rank=4), reference=reference), store=store)  # type: ignore[arg-type]
        written.add(store.read_bytes())
    assert len(written) == 2


def test_the_optimizers_state_does_not_outlive_an_iteration(llama: Path):
    steps: dict[tuple[int, int], float] = {}

    class Steps(Callback):
        def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
            states = trainer.optimizers[0].state.values()
            steps[trainer.current_epoch, batch_idx] = max((float(state["step"]) for state in states), default=0.0)

    fit(StepDPOModule(str(llama)), 2, [Steps()])
    assert steps == {(epoch, batch): batch for epoch in (0, 1) for batch in range(3)}


@pytest.mark.parametrize("row_tokens", [ONE_ROW, SOME_ROWS])
def test_every_iteration_warms_up_anew_then_stays(llama: Path, row_tokens: int):
    rates: dict[int, float] = {}

    class Rates(Callback):
        def on_before_optimizer_step(self, trainer: Trainer, *_: Any) -> None:
            rates[trainer.global_step] = trainer.optimizers[0].param_groups[0]["lr"]

    fit(StepDPOModule(str(llama), lr=1e-4, warmup_share=1.0), 2, [Rates()], plan(row_tokens))
    assert list(rates.values()) == pytest.approx([1e-4 / 3, 2e-4 / 3, 1e-4] * 2)


def test_figures_of_the_step_are_logged(llama: Path):
    metrics = fit(StepDPOModule(str(llama), lr=1e-2), rows=plan(SOME_ROWS)).logged_metrics
    names = ("loss", "accuracy", "margin", "reward_chosen", "reward_rejected", "logprob_chosen", "logprob_rejected")
    assert {f"train/{name}" for name in (*names, "kl_to_reference", "grad_norm")} <= set(metrics)
    assert all(math.isfinite(value) for value in metrics.values())
    assert metrics["train/margin"].item() == pytest.approx(
        (metrics["train/reward_chosen"] - metrics["train/reward_rejected"]).item(), abs=1e-5
    )
    assert metrics["train/kl_to_reference"] > 0 and metrics["train/grad_norm"] > 0


def test_a_missing_model_is_named_at_once(tmp_path: Path):
    with pytest.raises(PolicyError, match=r"no model in .*M9"):
        StepDPOModule(str(tmp_path / "M9"))


@pytest.mark.parametrize("row_tokens", [ONE_ROW, SOME_ROWS])
def test_a_pair_counts_by_its_own_weight_and_label_whatever_its_row(policy: Path, row_tokens: int):
    counts = torch.stack([torch.linspace(0.1, 1, len(PAIRS)), torch.linspace(1, 0.5, len(PAIRS))], dim=1)
    seen: dict[int, tuple[float, float]] = {}

    class Seen(StepDPOLoss):
        def forward(self, pairs: Preferences) -> tuple[Tensor, Tensor, Tensor]:
            assert pairs.weights is not None and pairs.labels is not None
            for sums, weight, label in zip(pairs.reference, pairs.weights, pairs.labels, strict=True):
                [number] = ((expected - sums).abs().sum(1) < 1e-3).nonzero().flatten().tolist()
                seen[number] = float(weight), float(label)
            return super().forward(pairs)

    expected = own_logprobs(load_policy(policy))
    trainer = Trainer(accelerator="cpu", devices=1, max_epochs=1, **QUIET)
    trainer.fit(StepDPOModule(str(policy), lr=0.0, loss=Seen()), row_loader(plan(row_tokens), trainer, counts=counts))
    assert [seen[number] for number in range(len(PAIRS))] == [pytest.approx(tuple(row)) for row in counts.tolist()]


def test_pairs_of_no_weight_change_nothing(policy: Path):
    module = StepDPOModule(str(policy), lr=1e-2)
    trainer = Trainer(accelerator="cpu", devices=1, max_epochs=1, **QUIET)
    counts = torch.tensor([[0.0, 1.0]]).repeat(len(PAIRS), 1)
    trainer.fit(module, row_loader(plan(), trainer, counts=counts))
    assert distance(weights(module), load_policy(policy).state_dict()) == 0
