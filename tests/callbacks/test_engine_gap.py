"""The engine's log-probabilities against the trainer's: equal at the same temperature, far off where one is wrong."""

import asyncio
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning import Trainer

from callbacks.engine_gap import EngineGap, gaps
from psr.data.rows import row_loader
from psr.engines.base import Sampling
from psr.engines.local import LocalEngine
from psr.modules.step_dpo import StepDPOModule
from psr.policy.folder import load_trainable
from psr.records import StepPair
from psr.search.step_search import SearchSettings
from psr.trees.packing import build_row, plan_rows
from psr.trees.scoring import row_logprobs
from tests.modules.test_step_dpo import QUIET
from tests.obvious_pairs import pair_groups

PROMPTS = [(5, 9, 13), (7, 11), (3, 4, 5, 6)]


def sampled(folder: Path, temperature: float) -> list[StepPair]:
    """Pairs of two completions of a prompt by the in-process engine, as whole final steps."""
    engine = LocalEngine(dtype="float32", device="cpu")

    async def ask() -> Any:
        await engine.load_weights(folder, "M1")
        return await engine.generate(PROMPTS, Sampling(12, temperature, top_p=0.9, n=2, seed=1))

    found = asyncio.run(ask())
    return [
        StepPair(str(i), 0, prompt, one.token_ids, other.token_ids, 1, one.logprob)
        for i, (prompt, (one, other)) in enumerate(zip(PROMPTS, found, strict=True))
    ]


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_the_same_weights_at_the_same_temperature_agree(policy: Path, temperature: float):
    pairs = sampled(policy, temperature)
    [planned] = plan_rows(pair_groups(pairs, random.Random(0)), 8, 4096).rows
    row, model = build_row(planned), load_trainable(policy)
    engine = {i: pair.chosen_logprob for i, pair in enumerate(pairs)}

    def measured(at: float) -> list[tuple[float, float]]:
        with torch.no_grad():
            sums = row.completion_sums(row_logprobs(model, row, temperature=at)).view(-1, 2)[:, 0]
        return gaps(row, sums, engine)  # type: ignore[arg-type]

    assert len(measured(temperature)) == 3
    assert all(kl < 1e-6 and gap < 1e-5 for kl, gap in measured(temperature))
    assert max(gap for _, gap in measured(2 * temperature)) > 0.1, "another temperature is seen at once"


def test_it_is_logged_before_the_first_step(llama: Path, monkeypatch: pytest.MonkeyPatch):
    pairs = sampled(llama, 0.5)

    logprobs = {i: pair.chosen_logprob for i, pair in enumerate(pairs) if i != 1}
    data = SimpleNamespace(search=SearchSettings(temperature=0.5), engine_logprobs=logprobs)
    monkeypatch.setattr("callbacks.engine_gap.loop_data", lambda trainer: data)
    trainer = Trainer(accelerator="cpu", devices=1, max_epochs=1, callbacks=[EngineGap()], **QUIET)
    module = StepDPOModule(str(llama), lr=1e-1)
    trainer.fit(module, row_loader(plan_rows(pair_groups(pairs, random.Random(0)), 1, 4096), trainer))
    assert trainer.global_step == 3
    assert module.policy is not None and not module.policy.training, "no dropout, as before"
    assert trainer.logged_metrics["train/engine_kl"] < 1e-6
    assert trainer.logged_metrics["train/engine_gap"] < 1e-5
