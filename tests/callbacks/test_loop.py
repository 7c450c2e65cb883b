"""The loop around an iteration: what the trainer still holds when the engine takes its memory back."""

from pathlib import Path
from typing import Any

import pytest
from lightning import Trainer
from transformers import PreTrainedTokenizerBase

from callbacks.self_rewarding_loop import SelfRewardingLoop
from psr.modules.step_dpo import StepDPOModule
from psr.prompts.templates import Prompts
from tests.data.test_self_rewarding import data_module
from tests.modules.test_step_dpo import QUIET


def test_the_trainer_rests_before_the_engine_wakes(
    tmp_path: Path,
    llama: Path,
    prompts: Prompts,
    tokenizer: PreTrainedTokenizerBase,
    monkeypatch: pytest.MonkeyPatch,
):
    data, engine = data_module(tmp_path, llama, prompts, tokenizer)
    module = StepDPOModule(str(llama), lr=1e-3)
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=2,
        reload_dataloaders_every_n_epochs=1,
        callbacks=[SelfRewardingLoop()],
        **QUIET,
    )
    held: dict[str, tuple[int, int]] = {}
    load = engine.load_weights

    async def look_and_load(folder: Path, version: str) -> None:
        optimizer: Any = trainer.optimizers[0]
        held[version] = sum(p.grad is not None for p in module.parameters()), len(optimizer.state)
        await load(folder, version)

    monkeypatch.setattr(engine, "load_weights", look_and_load)
    trainer.fit(module, data)
    assert held == {"M1": (0, 0), "M2": (0, 0), "M3": (0, 0)}
    assert trainer.global_step == 2
