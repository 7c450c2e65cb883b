"""Solving as a LightningModule: `psr validate`, `psr test` and `psr predict` on a finished policy, no training.

Knows engines and grading. `test` and `validate` report accuracy, `predict` returns the solutions.
"""

import asyncio
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule
from torchmetrics import MeanMetric

from psr.bounds import Count, bounded
from psr.data.benchmark import BenchmarkDataModule
from psr.engines.base import Engine
from psr.evaluation.solving import Solved, solve_greedy
from psr.policy.tokenizer import check_folder
from psr.records import GoldProblem
from psr.terminal.text import printable


class SolverModule(LightningModule):
    """Solves problems greedily with the policy of a Hugging Face folder and grades the answers.

    Args:
        model: Hugging Face folder of the policy.
        engine: what generates.
        max_tokens: solutions are cut off at this many tokens.
    """

    @bounded("model")
    def __init__(self, model: str, engine: Engine, max_tokens: Count = 1024) -> None:
        super().__init__()
        self.model, self.engine, self.max_tokens = check_folder(model), engine, max_tokens
        self.figures = torch.nn.ModuleDict(
            {name: MeanMetric() for name in ("accuracy", "unfinished", "no_box", "steps", "tokens")}
        )

    def setup(self, stage: str) -> None:
        asyncio.run(self.engine.load_weights(Path(self.model), self.model.name))

    def teardown(self, stage: str) -> None:
        asyncio.run(self.engine.close())

    def solve(self, problems: list[GoldProblem]) -> list[Solved]:
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(data, BenchmarkDataModule)
        return asyncio.run(solve_greedy(self.engine, data.encoder, problems, self.max_tokens))

    def _measure(self, problems: list[GoldProblem], prefix: str) -> None:
        for one in self.solve(problems):
            values = {
                "unfinished": not one.finished,
                "steps": one.steps,
                "tokens": one.tokens,
            }
            self.figures["no_box"].update(float(not one.boxed), float(one.finished))  # type: ignore[operator]
            if one.correct is None:
                self.print(f"{printable(one.problem.id)}: no reference answer, not counted in the accuracy")
            else:
                values["accuracy"] = one.correct
            for name, value in values.items():
                self.figures[name].update(float(value))  # type: ignore[operator]
        for name, metric in self.figures.items():
            self.log(f"{prefix}/{name}", metric, batch_size=len(problems))  # type: ignore[arg-type]

    def validation_step(self, problems: list[GoldProblem], batch_index: int) -> None:
        self._measure(problems, "val")

    def test_step(self, problems: list[GoldProblem], batch_index: int) -> None:
        self._measure(problems, "test")

    def predict_step(self, problems: list[GoldProblem], batch_index: int) -> list[Solved]:
        return self.solve(problems)

    def configure_optimizers(self) -> Any:
        return None
