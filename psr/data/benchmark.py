"""Held-out problems with answers as a LightningDataModule. Knows files and prompts; does not know the policy."""

import torch
from lightning import LightningDataModule
from torch.utils.data import DataLoader

from psr.evaluation.benchmarks import read_benchmark
from psr.policy.tokenizer import load_tokenizer
from psr.prompts.encoder import Encoder
from psr.prompts.templates import Prompts
from psr.records import GoldProblem


class BenchmarkDataModule(LightningDataModule):
    """Serves batches of problems as they are.

    Args:
        model: Hugging Face folder whose tokenizer is used; linked to the model's.
        problems: a file or the name of a benchmark, as for `psr evaluate`.
        batch_size: problems sent to the engine together.
        limit: use only this many problems, from the first.
        prompts: templates and step format.
    """

    def __init__(
        self,
        model: str,
        problems: str,
        batch_size: int = 256,
        limit: int | None = None,
        prompts: Prompts | None = None,
    ) -> None:
        super().__init__()
        self.encoder = Encoder(load_tokenizer(model), prompts or Prompts())
        self.problems = read_benchmark(problems, limit)
        self.batch_size = batch_size

    def _loader(self) -> DataLoader[list[GoldProblem]]:
        return DataLoader(self.problems, batch_size=self.batch_size, collate_fn=list)  # type: ignore[arg-type]

    def transfer_batch_to_device(
        self, batch: list[GoldProblem], device: torch.device, dataloader_idx: int
    ) -> list[GoldProblem]:
        """Problems are texts: there is nothing to move, and Lightning cannot move frozen dataclasses."""
        return batch

    val_dataloader = test_dataloader = predict_dataloader = _loader
