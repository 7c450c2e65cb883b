"""How far the engine's log-probabilities are from the trainer's, at the start of every iteration.

The two compute the same weights in different ways, and rounding alone leaves little between them: a greater distance is
a wrong chat template, stale weights, another dtype. It is measured before any optimizer step, on the final steps that
the search has chosen: of these the engine's log-probability is of exactly their tokens, while other steps were cut out
of longer completions.
"""

from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from callbacks.self_rewarding_loop import loop_data
from psr.bounds import Count, bounded
from psr.data.rows import PlannedRows
from psr.modules.losses import kl_estimate
from psr.modules.step_dpo import StepDPOModule
from psr.trees.packing import Row
from psr.trees.scoring import row_logprobs


class EngineGap(Callback):
    """Logs `train/engine_kl`, an estimate of KL(engine || trainer), and `train/engine_gap`, the mean absolute
    difference of log-probabilities; both in nats per token.

    The trainer's are taken at the temperature that the search has sampled at, as the engine's are; neither knows of
    top-p. It comes after SelfRewardingLoop in the config.

    Args:
        rows: measured on the first so many rows of this process; each costs a forward pass.
    """

    @bounded("engine_gap")
    def __init__(self, rows: Count = 8) -> None:
        self.rows = rows

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if batch_idx:
            return
        assert isinstance(pl_module, StepDPOModule)
        data = loop_data(trainer)
        temperature = data.search.temperature or 1.0  # greedy decoding leaves the logits as they are
        loader: Any = trainer.train_dataloader
        dataset: PlannedRows = loader.dataset
        numbers = [number for number, _ in zip(loader.sampler, range(self.rows), strict=False)]

        def tempered(policy: Any, row: Row) -> Tensor:
            return row_logprobs(policy, row, temperature=temperature)

        found = []
        with torch.no_grad(), trainer.precision_plugin.forward_context():
            for row in (dataset[number].to(pl_module.device) for number in numbers):
                sums = row.completion_sums(pl_module(row, tempered).double()).view(-1, 2)[:, 0]
                found += gaps(row, sums, data.engine_logprobs)
        if not found:
            return
        kl, gap = torch.tensor(found, device=pl_module.device).mean(0)
        pl_module.log("train/engine_kl", kl, prog_bar=True)
        pl_module.log("train/engine_gap", gap)


def gaps(row: Row, sums: Tensor, engine: dict[int, float]) -> list[tuple[float, float]]:
    """(KL, absolute difference) per token of every chosen step of the row that `engine` has a log-probability of.

    `sums` are the trainer's log-probabilities of the row's chosen steps: (pairs,).
    """
    found = []
    for pair, ours, tokens in zip(row.units.tolist(), sums.cpu(), row.lengths.view(-1, 2)[:, 0].tolist(), strict=True):
        if pair in engine:
            theirs = torch.tensor(engine[pair], dtype=ours.dtype)
            found.append((float(kl_estimate(ours, theirs)) / tokens, abs(float(ours - theirs)) / tokens))
    return found
