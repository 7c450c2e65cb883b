"""Sends the figures of `psr report` to Weights & Biases after every iteration, as interactive plots."""

import wandb
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import WandbLogger

from callbacks.self_rewarding_loop import loop_data
from psr.report.plotly_figures import draw
from psr.report.runs import read_runs
from psr.report.sections import charts


class ReportFigures(Callback):
    """Logs `report/<figure>` to Weights & Biases loggers; must come after EvaluateIterations in the config."""

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        loggers = [logger for logger in trainer.loggers if isinstance(logger, WandbLogger)]
        if not loggers or not trainer.is_global_zero:
            return
        # Read back from the run folder: the same code and numbers as `psr report`.
        found = charts(read_runs([loop_data(trainer).run.root]))
        for logger in loggers:
            logger.experiment.log({f"report/{chart.key}": wandb.Plotly(draw(chart)) for chart in found})
