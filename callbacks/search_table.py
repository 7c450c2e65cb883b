"""Logs a table of sampled search steps of every iteration to Weights & Biases: candidates, scores, judgements."""

import random
from bisect import bisect_right
from collections.abc import Iterator
from itertools import accumulate

import wandb
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import WandbLogger

from callbacks.self_rewarding_loop import loop_data
from psr.bounds import Count, bounded
from psr.data.traces import TraceJournal
from psr.records import StepNode, Trajectory

COLUMNS: list[str | int] = ["problem", "depth", "event", "candidate", "score", "role", "logprob", "judgements"]


class SearchTable(Callback):
    """Logs `search/steps` to Weights & Biases loggers at the start of every iteration.

    Args:
        steps: number of search steps that are sampled; the table has one row per distinct candidate.
    """

    @bounded("search_table")
    def __init__(self, steps: Count = 20) -> None:
        self.steps = steps

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        loggers = [logger for logger in trainer.loggers if isinstance(logger, WandbLogger)]
        if not loggers or not trainer.is_global_zero:
            return
        # By now the search of this epoch is complete: `train_dataloader()` has run before this hook.
        data, number = loop_data(trainer), trainer.current_epoch + 2
        rows = drawn_rows(TraceJournal(data.run.traces(number), f"M{number - 1}"), self.steps, random.Random(number))
        for logger in loggers:
            table = wandb.Table(columns=COLUMNS, data=rows)
            logger.experiment.log({f"search/steps_M{number - 1}": table})


def drawn_rows(journal: TraceJournal, steps: int, rng: random.Random) -> list[list[str | int | float]]:
    """The rows of so many steps out of all; only the searches that these are of are read."""
    names = list(journal.trajectories)
    ends = list(accumulate(one.tally.expansions for one in journal.indexed(names)))  # steps up to each problem's last
    count = ends[-1] if ends else 0
    rows: list[list[str | int | float]] = []
    for step in rng.sample(range(count), min(steps, count)):
        problem = bisect_right(ends, step)
        trajectory = journal.trajectories[names[problem]]
        rows += step_rows(trajectory, trajectory.nodes[step - ends[problem]])  # counted from the problem's last
    return rows


def step_rows(trajectory: Trajectory, node: StepNode) -> Iterator[list[str | int | float]]:
    """One row per distinct candidate: its score, and the judgements in which it was compared."""
    seen = set()
    for i, (candidate, score) in enumerate(zip(node.candidates, node.scores, strict=True)):
        if candidate.text in seen:
            continue
        seen.add(candidate.text)
        role = "chosen" if i == node.chosen else "rejected" if i == node.rejected else ""
        shown = [j for j in node.judgements if i in (j.first, j.second)]
        verdicts = "\n".join(f"A={j.first} B={j.second} winner={j.winner}: {j.text}" for j in shown)
        problem = trajectory.problem.problem
        yield [problem, node.depth, node.event, candidate.text, score, role, candidate.logprob, verdicts]
